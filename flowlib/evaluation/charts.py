"""The report's figures as SVG text: no plotting library, crisp at any size, small enough to stand inside the page.

Colours are told apart by all eyes (Okabe and Ito); the predictor the report is about is always the strong blue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from flowlib.evaluation.measures import BY_NAME, Measure
from flowlib.evaluation.statistics import Estimate
from flowlib.evaluation.verdict import is_ceiling

if TYPE_CHECKING:
    from flowlib.evaluation.report import Report

MAIN, CEILING = "#0072b2", "#7a7f87"
OTHERS = ("#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#5b5fc7", "#444444")
FONT = "font-family='system-ui,Segoe UI,Helvetica,Arial,sans-serif'"
WIDTH, LABELS, RIGHT = 760, 210, 110


def figures(report: Report) -> dict[str, str]:
    """Name -> SVG of every figure that the report's numbers allow."""
    made = {}
    for measure in report.headline():
        made[f"overall_{measure.name}"] = overall(report, measure)
    if report.differences and "ade" in report.measured:
        made["differences_ade"] = differences(report, BY_NAME["ade"])
    if report.frames_ahead():
        made["frames_ahead"] = horizon(report)
    if "ade" in report.measured:
        made["per_video_ade"] = videos(report, BY_NAME["ade"])
    return made


def colours(report: Report) -> dict[str, str]:
    """Predictor -> colour, the same in every figure."""
    rest = iter(OTHERS * (1 + len(report.predictors) // len(OTHERS)))
    return {
        name: MAIN if name == report.main else CEILING if is_ceiling(report, name) else next(rest)
        for name in report.predictors
    }


def overall(report: Report, measure: Measure) -> str:
    """One number of every predictor with its interval, best first."""
    paint = colours(report)
    values = {name: report.overall[name][measure.name] for name in report.predictors}
    sign = -1 if measure.better == "high" else 1
    order = sorted(values, key=lambda name: (math.isnan(values[name].mean), sign * values[name].mean))
    rows = [(name, values[name], paint[name], name == report.main) for name in order]
    return _whiskers(rows, measure, f"{measure.label}, {_direction(measure)}", from_zero=measure.better == "low")


def differences(report: Report, measure: Measure) -> str:
    """The main predictor minus each other one, paired video by video, with zero marked."""
    paint = colours(report)
    rows = [(f"minus {name}", values[measure.name], paint[name], False) for name, values in report.differences.items()]
    title = f"{report.main} minus the other, {measure.label}; left of zero it is better"
    return _whiskers(rows, measure, title, from_zero=True, signs=True)


def horizon(report: Report) -> str:
    """Error against frames ahead, with a band for the interval."""
    frames, paint = report.frames_ahead(), colours(report)
    height, left, bottom, top = 330, 52, 44, 16
    estimates = {name: [report.overall[name][f"epe_{frame}"] for frame in frames] for name in report.predictors}
    highest = _highest(value for values in estimates.values() for value in values)
    ticks = _ticks(0, highest)
    across = lambda frame: left + frame / max(frames) * (WIDTH - left - LABELS)  # noqa: E731
    down = lambda value: top + (1 - value / ticks[-1]) * (height - top - bottom)  # noqa: E731
    parts = [_line(left, down(t), WIDTH - LABELS, down(t), "#8884") + _text(left - 8, down(t) + 4, f"{t:g}", "end") for t in ticks]
    parts += [_text(across(frame), height - bottom + 18, str(frame), "middle") for frame in [0, *frames]]
    parts.append(_text((left + WIDTH - LABELS) / 2, height - 8, "frames ahead", "middle"))
    parts.append(_text(left - 8, top - 4, "px", "end"))
    ends = []
    for name in sorted(estimates, key=lambda name: name == report.main):  # the main one on top
        points = [(across(f), v) for f, v in zip([0, *frames], [Estimate(0, 0, 0, 0, 0), *estimates[name]]) if v.mean == v.mean]
        if all(value.has_interval for _, value in points):
            outline = [(x, down(v.high)) for x, v in points] + [(x, down(v.low)) for x, v in reversed(points)]
            parts.append(f"<polygon points='{_points(outline)}' fill='{paint[name]}' opacity='0.13'/>")
        dash = " stroke-dasharray='5 4'" if is_ceiling(report, name) else ""
        line = _points([(x, down(v.mean)) for x, v in points])
        parts.append(f"<polyline points='{line}' fill='none' stroke='{paint[name]}' stroke-width='{3 if name == report.main else 1.8}'{dash}/>")
        ends.append((down(points[-1][1].mean), name))
    for y, (_, name) in zip(_apart([y for y, _ in sorted(ends)], 15), sorted(ends)):
        parts.append(_text(WIDTH - LABELS + 8, y + 4, name, "start", paint[name], name == report.main))
    return _svg(height, parts, "Error against frames ahead")


def videos(report: Report, measure: Measure) -> str:
    """Every predictor's number on every video, worst video of the main predictor first."""
    paint, names = colours(report), report.videos
    own = dict(zip(names, report.values(report.main, measure.name)))
    order = sorted(names, key=lambda video: (math.isnan(own[video]), -own[video]))
    shown = order if len(order) <= 40 else order[:20] + order[-20:]
    all_values = [report.per_video[p][v].get(measure.name, math.nan) for p in report.predictors for v in shown]
    ticks = _ticks(0, max((value for value in all_values if value == value), default=1.0))
    row, top = 22, 30
    across = lambda value: LABELS + value / ticks[-1] * (WIDTH - LABELS - 30)  # noqa: E731
    height = top + row * len(shown) + 30
    parts = [_line(across(t), top - 8, across(t), height - 26, "#8884") + _text(across(t), height - 10, f"{t:g}", "middle") for t in ticks]
    parts.append(_text(LABELS, 14, f"{measure.label} of each video", "start"))
    for index, video in enumerate(shown):
        y = top + row * index + row / 2
        parts.append(_text(LABELS - 10, y + 4, _short(video), "end"))
        parts.append(_line(LABELS, y, WIDTH - 30, y, "#8882"))
        for name in reversed(report.predictors):
            value = report.per_video[name][video].get(measure.name, math.nan)
            if value == value:
                tip = f"<title>{escape(name)} on {escape(video)}: {measure.show(value)}</title>"
                size = 6 if name == report.main else 4.5
                parts.append(f"<circle cx='{across(value):.1f}' cy='{y:.1f}' r='{size}' fill='{paint[name]}' opacity='.9'>{tip}</circle>")
    return _svg(height, parts, f"{measure.label} of each video")


def _whiskers(rows: list[tuple], measure: Measure, title: str, *, from_zero: bool, signs: bool = False) -> str:
    row, top = 28, 34
    numbers = [n * measure.scale for _, v, _, _ in rows for n in (v.mean, v.low, v.high) if n == n] or [0.0]
    ticks = _ticks(min([*numbers, 0] if from_zero else numbers), max([*numbers, 0] if from_zero else numbers))
    span = (ticks[-1] - ticks[0]) or 1
    across = lambda value: LABELS + (value * measure.scale - ticks[0]) / span * (WIDTH - LABELS - RIGHT)  # noqa: E731
    height = top + row * len(rows) + 30
    parts = [_text(LABELS, 16, title, "start")]
    for t in ticks:
        x = across(t / measure.scale)
        parts.append(_line(x, top - 8, x, height - 26, "#888" if signs and t == 0 else "#8884"))
        parts.append(_text(x, height - 10, f"{t:g}", "middle"))
    for index, (name, value, colour, strong) in enumerate(rows):
        y = top + row * index + row / 2
        parts.append(_text(LABELS - 12, y + 4, _short(name, 32), "end", colour, strong))
        if value.mean != value.mean:
            continue
        if value.has_interval:
            low, high = across(value.low), across(value.high)
            parts.append(f"<line x1='{low:.1f}' x2='{high:.1f}' y1='{y}' y2='{y}' stroke='{colour}' stroke-width='7' opacity='.3' stroke-linecap='round'/>")
        parts.append(f"<circle cx='{across(value.mean):.1f}' cy='{y}' r='{6 if strong else 5}' fill='{colour}'/>")
        shown = f"{value.mean * measure.scale:{'+' if signs else ''}.{measure.digits}f}"
        parts.append(_text(WIDTH - RIGHT + 22, y + 4, shown, "start", colour, strong))
    return _svg(height, parts, title)


def _direction(measure: Measure) -> str:
    return {"low": "lower is better", "high": "higher is better", "one": "1 is best"}[measure.better]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose low and high."""
    span = (high - low) or abs(high) or 1.0
    raw = span / 5
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def _highest(values) -> float:
    finite = [number for value in values for number in (value.mean, value.high) if number == number]
    return max(finite, default=1.0) or 1.0


def _apart(positions: Sequence[float], gap: float) -> list[float]:
    """Ascending positions pushed apart to `gap`, moved as little as a pass down and a pass up allow."""
    placed: list[float] = []
    for position in positions:
        placed.append(max(position, placed[-1] + gap) if placed else position)
    overshoot = max(0.0, placed[-1] - positions[-1]) / 2 if placed else 0.0
    return [position - overshoot for position in placed]


def _short(name: str, length: int = 28) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}'/>"


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#555b66", strong: bool = False) -> str:
    weight = " font-weight='700'" if strong else ""
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}'{weight}>{escape(text)}</text>"


def _svg(height: float, parts: list[str], title: str) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' {FONT} font-size='13' role='img'>"
    ground = f"<rect width='{WIDTH}' height='{height:.0f}' fill='#fff' rx='8'/>"
    return f"{head}<title>{escape(title)}</title>{ground}{''.join(parts)}</svg>"
