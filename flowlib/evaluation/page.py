"""A report as one HTML page that stands alone: no script, no font and no picture from elsewhere.

The page is the template `report.html.jinja` with the style sheet `report.css`; what stands in it comes from here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from flowlib.evaluation import charts
from flowlib.evaluation.comparison import Comparison
from flowlib.quantities import counted
from flowlib.tasks.protocol import MetricSpec


def page(report: Comparison, summary: Sequence[str], links: Mapping[str, str]) -> str:
    """The whole page, with links (word -> address) and a summary in sentences at its top."""
    template = _template()
    return template.render(
        report=report,
        task=report.task,
        summary=summary,
        links=links,
        facts=_facts(report),
        charted=_charted(report),
        score=report.score,
        series=[series for series in report.task.series if report.places(series)],
        introduce=introduce,
        provenance=provenance(report),
        record=json.dumps(report.run, indent=1, default=str),
        colours=charts.colours(report),
        charts=charts,
        svg=Markup,
        base64=lambda jpeg: base64.b64encode(jpeg).decode(),
    )


@cache
def _template() -> Template:
    loader = PackageLoader("flowlib.evaluation", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja")


def introduce(report: Comparison, name: str) -> str:
    """What a method does, for a reader who has met none: as it says itself, or for a network what is known of it."""
    told = report.told(name)
    described = told.get("description") or {}
    if described.get("summary"):
        return described["summary"]
    about, count = told.get("about") or {}, told.get("parameters", 0)
    end = f"; it sees {_listed(told['input_frames'])}." if "input_frames" in told else "."
    kind = told.get("class", "unknown")
    if not count:
        return f"A method ({kind}){end}"
    trained = f", trained for {counted(about['step'], 'step')}" if "step" in about else ""
    many = f"{count / 1e6:.1f} million" if count >= 50_000 else f"{count:,}"
    return f"A network ({kind}, {many} parameters){trained}{end}"


def provenance(report: Comparison) -> list[tuple[str, str]]:
    """Data, settings and methods that made the numbers, as pairs of a word and a line."""
    run, config = report.run, report.config
    data = report.data
    samples, groups = counted(len(report.rows[report.main]), report.task.unit), report.count(len(report.groups))
    samples = samples if samples == groups else f"{samples} of {groups}"
    versions = ", ".join(f"{name} {number}" for name, number in run.get("versions", {}).items())
    source = f"split {data.get('split') or '–'}, fingerprint {data.get('fingerprint', '')[:16] or '–'}"
    lines = [
        ("data", f"{samples}, {source}"),
        ("time", f"{run.get('time', '–')}; bootstrap seed {config.seed}, {config.resamples} draws"),
        ("versions", versions),
    ]
    return lines + [(name, _origin(report.told(name))) for name in run.get("methods", {})]


def _origin(told: Mapping[str, Any]) -> str:
    about = told.get("about") or {}
    known = [f"{word} {about[key]}" for key, word in (("step", "step"), ("path", "from")) if key in about]
    return ", ".join([told.get("class", "unknown"), *known, f"fingerprint {told.get('fingerprint', '')[:16]}"])


def _facts(report: Comparison) -> list[str]:
    data = report.data
    facts = [
        report.count(len(report.groups)),
        f"{len(report.rows[report.main])} {report.task.unit}s",
        *report.task.facts(data, report),
        f"split: {data.get('split') or '–'}",
        f"data {data.get('fingerprint', '')[:8] or '–'}",
        str(report.run.get("time", "")),
    ]
    return list(dict.fromkeys(fact for fact in facts if fact))


def _charted(report: Comparison) -> list[MetricSpec]:
    """The headline metrics that are drawn: the first under each heading in each direction, for the rest say alike."""
    first: dict[tuple[str, str], MetricSpec] = {}
    for metric in report.headline():
        first.setdefault((metric.group, metric.better), metric)
    return list(first.values())


def _listed(frames: Sequence[int]) -> str:
    if len(frames) == 1:
        return f"frame {frames[0]} only"
    return "frames " + ", ".join(map(str, frames[:-1])) + f" and {frames[-1]}" if frames else "no frame"
