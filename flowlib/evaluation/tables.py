"""A report's numbers as Markdown and LaTeX tables."""

from __future__ import annotations

from collections.abc import Sequence

from flowlib.evaluation.comparison import Comparison
from flowlib.evaluation.measures import BY_NAME, GROUPS, MEASURES, Measure
from flowlib.evaluation.participants import introduce
from flowlib.evaluation.statistics import Estimate
from flowlib.evaluation.verdict import sentences


def markdown(report: Comparison) -> str:
    """The verdict, the headline table, the paired differences, all other numbers, and what made them."""
    parts = [f"# Evaluation of {report.main}", *(f"**Warning: {warning}**" for warning in report.warnings)]
    parts += ["\n".join(f"- {sentence}" for sentence in sentences(report))]
    parts += ["## Who takes part", "\n".join(f"- **{name}**: {introduce(report, name)}" for name in report.predictors)]
    parts += ["## Side by side", _grid(report, report.headline()), report.interval_note(), report.left_out_note()]
    if report.differences:
        parts += [f"## {report.main} minus the others, video by video", _differences(report)]
    parts += ["## Error in px against frames ahead", _horizon(report), "## Everything else"]
    for group in GROUPS:
        rest = [m for m in MEASURES if m.group == group and m.name in report.measured and m not in report.headline()]
        parts += [f"### {group}", _grid(report, rest)] if rest else []
    parts += ["## What the columns mean", "\n".join(f"- {m.label} {m.arrow}: {m.meaning}" for m in _used(report))]
    return "\n\n".join(part for part in [*parts, "## What made these numbers", provenance(report)] if part) + "\n"


def latex(report: Comparison) -> str:
    """The headline numbers with their intervals; needs the package booktabs."""
    measures = report.headline()
    arrows = {"low": r"$\downarrow$", "high": r"$\uparrow$", "zero": r"$\to 0$"}
    head = " & ".join(["predictor", *(f"{_escape(m.label)} {arrows[m.better]}" for m in measures)])
    lines = [f"% {line}" for line in provenance(report).splitlines()]
    lines += [r"\begin{tabular}{l" + "c" * len(measures) + "}", r"\toprule", head + r" \\", r"\midrule"]
    for name in report.predictors:
        cells = [_latex_cell(report.overall[name][m.name], m) for m in measures]
        lines.append(" & ".join([_escape(name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def provenance(report: Comparison) -> str:
    """Data, configuration and predictors that made the numbers, in a few lines."""
    run = report.run
    data = run.get("data", {})
    lines = [
        f"- data: {data.get('clips')} clips of {len(report.videos)} videos, split {data.get('split') or '–'}, "
        f"fingerprint {data.get('fingerprint', '')[:16] or '–'}",
        f"- time: {run.get('time', '–')}; bootstrap seed {report.config.seed}, {report.config.resamples} draws",
        "- versions: " + ", ".join(f"{name} {number}" for name, number in run.get("versions", {}).items()),
    ]
    return "\n".join(lines + [f"- {name}: {_origin(report, name)}" for name in run.get("predictors", {})])


def _origin(report: Comparison, name: str) -> str:
    told = report.told(name)
    about = told.get("about") or {}
    known = [f"{word} {about[key]}" for key, word in (("step", "step"), ("path", "from")) if key in about]
    return ", ".join([told["class"], *known, f"fingerprint {told['fingerprint'][:16]}"])


def cell(value: Estimate, measure: Measure) -> str:
    """A number with its interval, as text."""
    if not value.has_interval:
        return measure.show(value.mean)
    return f"{measure.show(value.mean)} [{measure.show(value.low)}, {measure.show(value.high)}]"


def signed(value: Estimate, measure: Measure) -> str:
    """A difference with its interval, as text."""
    shown = [f"{number * measure.scale:+.{measure.digits}f}" for number in (value.mean, value.low, value.high)]
    if value.mean != value.mean:
        return "–"
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if value.has_interval else shown[0]


def _grid(report: Comparison, measures: Sequence[Measure]) -> str:
    rows = [[name, *(cell(report.overall[name][m.name], m) for m in measures)] for name in report.predictors]
    return _table(["predictor", *(f"{m.label} {m.arrow}" for m in measures)], rows)


def _differences(report: Comparison) -> str:
    measures = report.headline()
    others = report.differences.items()
    rows = [[f"– {name}", *(signed(values[m.name], m) for m in measures)] for name, values in others]
    return _table([report.main, *(f"{m.label} {m.arrow}" for m in measures)], rows)


def _horizon(report: Comparison) -> str:
    frames, ade = report.frames_ahead(), BY_NAME["ade"]
    rows = [[name, *(cell(report.overall[name][f"epe_{f}"], ade) for f in frames)] for name in report.predictors]
    return _table(["predictor", *map(str, frames)], rows)


def _used(report: Comparison) -> list[Measure]:
    return [measure for measure in MEASURES if measure.name in report.measured]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def _latex_cell(value: Estimate, measure: Measure) -> str:
    if value.mean != value.mean:
        return "--"
    if not value.has_interval:
        return measure.show(value.mean)
    return rf"{measure.show(value.mean)} {{\scriptsize [{measure.show(value.low)}, {measure.show(value.high)}]}}"


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "δ": r"$\delta$", "²": "$^2$", "…": r"\dots{}", "~": r"\textasciitilde{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"} | {"^": r"\textasciicircum{}"}
    return "".join(special.get(sign, sign) for sign in text)
