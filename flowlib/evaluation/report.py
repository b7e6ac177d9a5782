"""`Report`: a comparison as sentences, tables (Markdown, LaTeX) and a page, and as files of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowlib.evaluation import charts, page
from flowlib.evaluation.cache import to_json
from flowlib.evaluation.comparison import Comparison
from flowlib.tasks.protocol import Estimate, MetricSpec
from flowlib.workspace import atomic_write


@dataclass
class Report(Comparison):
    """A `Comparison` to read: what `evaluate` returns."""

    def summary(self) -> list[str]:
        """What the numbers say, in sentences."""
        return self.task.summary(self)

    def markdown(self) -> str:
        """The summary, the headline table, the paired differences, all other numbers, and what made them."""
        headline, group = self.headline(), self.task.group
        parts = [f"# Evaluation of {self.main}", *(f"**Warning: {warning}**" for warning in self.warnings)]
        parts += ["\n".join(f"- {sentence}" for sentence in self.summary())]
        parts += ["## Methods", "\n".join(f"- **{name}**: {page.introduce(self, name)}" for name in self.methods)]
        parts += ["## Side by side", self._grid(headline), self.interval_note(), self.left_out_note()]
        if self.differences:
            parts += [f"## {self.main} minus the others, {group} by {group}", self._paired(headline)]
        if self.score and self.ratios:
            parts += [f"## {self.score.label} of {self.main} over that of the others", self._ratios()]
        for series in self.task.series:
            places, unit = self.at_places(series), f" ({series.unit})" if series.unit else ""
            parts += [f"## {series.title}{unit}", self._grid(places, arrows=False)] if places else []
        rest = {heading: [m for m in self.metrics(heading) if m not in headline] for heading in self.headings}
        parts += ["## Everything else", self.not_measured_note()] if any(rest.values()) else [self.not_measured_note()]
        for heading, metrics in rest.items():
            parts += [f"### {heading}", self._grid(metrics)] if metrics else []
        shown = [metric for heading in self.headings for metric in self.metrics(heading)]
        meant = [f"- {metric.heading} {metric.arrow}: {metric.meaning}" for metric in shown if metric.meaning]
        parts += ["## What the columns mean", "\n".join(meant)] if meant else []
        made = "\n".join(f"- {what}: {value}" for what, value in page.provenance(self))
        return "\n\n".join(part for part in [*parts, "## What made these numbers", made] if part) + "\n"

    def table(self) -> str:
        """The headline numbers with their intervals as a Markdown table, and what the intervals are."""
        return f"{self._grid(self.headline())}\n\n{self.interval_note()}"

    def latex(self) -> str:
        """The headline numbers with their intervals as a LaTeX table; needs the package booktabs."""
        metrics = self.headline()
        arrows = {"low": r"$\downarrow$", "high": r"$\uparrow$", "zero": r"$\to 0$"}
        head = " & ".join(["method", *(f"{_escape(m.heading)} {arrows[m.better]}" for m in metrics)])
        lines = [f"% - {what}: {value}" for what, value in page.provenance(self)]
        lines += [r"\begin{tabular}{l" + "c" * len(metrics) + "}", r"\toprule", head + r" \\", r"\midrule"]
        for name in self.methods:
            form = r"{} {{\scriptsize [{}, {}]}}"
            cells = [_cell(self.estimate(name, m.name), m.show, form).replace("–", "--") for m in metrics]
            lines.append(" & ".join([_escape(name), *cells]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def html(self, links: Mapping[str, str] | None = None) -> str:
        """The self-contained page; `links` (word -> address) stand at its top."""
        return page.page(self, self.summary(), links or {})

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures as plain JSON values; numbers that do not exist are null."""
        return {
            "run": _plain(self.run),
            "warnings": self.warnings,
            "summary": self.summary(),
            "overall": _plain(self.overall),
            f"differences_of_{self.main}": _plain(self.differences),
            f"ratios_of_{self.main}": {name: _plain(asdict(one)) for name, one in self.ratios.items()},
            f"per_{self.task.group}": _plain(self.per_group),
            f"per_{self.task.unit}": {name: [_plain(asdict(row)) for row in rows] for name, rows in self.rows.items()},
        }

    def save(self, folder: str | Path, *, links: Mapping[str, str] | None = None) -> Path:
        """Write report.json, table.md, table.tex, report.html and figures/*.svg into `folder`; returns the page.

        Args:
            folder: where.
            links: word -> address of what the page is to link to, seen from the folder, such as a viewer beside it.
        """
        folder = Path(folder).expanduser()
        texts = {
            "report.json": json.dumps(self.to_dict(), indent=1, allow_nan=False),
            "table.md": self.markdown(),
            "table.tex": self.latex(),
            "report.html": self.html(links),
            **{f"figures/{_file_name(name)}.svg": svg for name, svg in charts.figures(self).items()},
        }
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / name) as path:
                Path(path).write_text(text, encoding="utf-8")
        return folder / "report.html"

    def _grid(self, metrics: Sequence[MetricSpec], *, arrows: bool = True) -> str:
        rows = [[name, *(_cell(self.estimate(name, m.name), m.show) for m in metrics)] for name in self.methods]
        return _table(["method", *(f"{m.heading} {m.arrow}" if arrows else m.label for m in metrics)], rows)

    def _ratios(self) -> str:
        group, show = self.task.group, "{:.2f}".format
        cells = {
            name: [_cell(value, show) for value in (one.pooled, one.geometric)] for name, one in self.ratios.items()
        }
        worst = {name: f"{show(one.worst[0])} {self.groups[one.worst[1]]}" for name, one in self.ratios.items()}
        rows = [[f"/ {name}", *cells[name], worst[name]] for name in self.ratios]
        return _table([self.main, f"mean over {group}s", "geometric mean of ratios", f"worst {group}"], rows)

    def _paired(self, metrics: Sequence[MetricSpec]) -> str:
        others = self.differences.items()
        rows = [[f"– {name}", *(_cell(values[m.name], m.show_signed) for m in metrics)] for name, values in others]
        return _table([self.main, *(f"{m.heading} {m.arrow}" for m in metrics)], rows)


def _file_name(name: str) -> str:
    """A figure's name, with `%` and a number for what has a meaning in paths."""
    return re.sub(r'[\x00-\x1f/\\:*?"<>|]', lambda sign: f"%{ord(sign[0]):02X}", name)


def _cell(value: Estimate, show: Callable[[float], str], form: str = "{} [{}, {}]") -> str:
    """A number with its interval, as text."""
    return form.format(show(value.mean), show(value.low), show(value.high)) if value.has_interval else show(value.mean)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "δ": r"$\delta$", "²": "$^2$", "…": r"\dots{}", "~": r"\textasciitilde{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"} | {"^": r"\textasciicircum{}"}
    return "".join(special.get(sign, sign) for sign in text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, Estimate):
        return _plain(asdict(value))
    if isinstance(value, float):
        return to_json(value)
    return value if isinstance(value, (str, int, type(None))) else str(value)
