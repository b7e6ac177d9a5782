"""`Report`: a comparison as sentences, tables and a page, and as files of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowlib.evaluation import charts, page, tables, verdict
from flowlib.evaluation.cache import to_json
from flowlib.evaluation.comparison import Comparison
from flowlib.evaluation.statistics import Estimate
from flowlib.workspace import atomic_write


@dataclass
class Report(Comparison):
    """A `Comparison` to read: what `evaluate` returns."""

    def verdict(self) -> list[str]:
        """What the numbers say, in sentences."""
        return verdict.sentences(self)

    def markdown(self) -> str:
        """The verdict, the headline table and every other number, as Markdown."""
        return tables.markdown(self)

    def latex(self) -> str:
        """The headline numbers as a LaTeX table (booktabs)."""
        return tables.latex(self)

    def html(self) -> str:
        """The self-contained page."""
        return page.page(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures as plain JSON values; numbers that do not exist are null."""
        estimates = {
            "overall": self.overall,
            "differences_of_" + self.main: self.differences,
        }
        return {
            "run": _plain(self.run),
            "warnings": self.warnings,
            "verdict": self.verdict(),
            **{title: _plain(values) for title, values in estimates.items()},
            "per_video": _plain(self.per_video),
            "per_clip": {n: [asdict(row) | {"scores": _plain(row.scores)} for row in r] for n, r in self.rows.items()},
        }

    def save(self, folder: str | Path) -> Path:
        """Write report.json, table.md, table.tex, report.html and figures/*.svg into `folder`; returns the page."""
        folder = Path(folder)
        texts = {
            "report.json": json.dumps(self.to_dict(), indent=1, allow_nan=False),
            "table.md": self.markdown(),
            "table.tex": self.latex(),
            "report.html": self.html(),
            **{f"figures/{name}.svg": svg for name, svg in charts.figures(self).items()},
        }
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / name) as path:
                Path(path).write_text(text, encoding="utf-8")
        return folder / "report.html"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, Estimate):
        return _plain(asdict(value))
    return to_json(value) if isinstance(value, float) else value
