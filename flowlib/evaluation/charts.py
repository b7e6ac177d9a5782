"""The report's figures as SVG text: no plotting library, crisp at any size, small enough to stand inside the page.

Colours are told apart by all eyes (Okabe and Ito); the predictor the report is about is always the strong blue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from flowlib.evaluation.comparison import Comparison
from flowlib.evaluation.measures import BY_NAME, Measure
from flowlib.evaluation.statistics import Estimate

MAIN, CEILING, FAINT, SOFT = "#0072b2", "#7a7f87", "#8884", "#555b66"
OTHERS = ("#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#5b5fc7", "#444444")
ENDS = 20  # videos shown from each end when there are more than twice as many
Scale = Callable[[float], float]
FONT = "font-family='system-ui,Segoe UI,Helvetica,Arial,sans-serif'"
WIDTH, LABELS = 760, 210  # of the wide figures, and the room for names in them
NARROW, NAMES, NUMBERS = 560, 258, 66  # of those that stand two in a row; room for names and for numbers


def figures(report: Comparison) -> dict[str, str]:
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


def colours(report: Comparison) -> dict[str, str]:
    """Predictor -> colour, the same in every figure."""
    rest = iter(OTHERS * (1 + len(report.predictors) // len(OTHERS)))
    return {
        name: MAIN if name == report.main else CEILING if report.is_ceiling(name) else next(rest)
        for name in report.predictors
    }


def overall(report: Comparison, measure: Measure) -> str:
    """One number of every predictor with its interval, best first."""
    paint = colours(report)
    values = {name: report.overall[name][measure.name] for name in report.predictors}
    order = sorted(values, key=lambda name: (math.isnan(values[name].mean), measure.rank(values[name].mean)))
    rows = [(name, values[name], paint[name], name == report.main) for name in order]
    return _whiskers(rows, measure, f"{measure.label}, {_direction(measure)}", from_zero=measure.better == "low")


def differences(report: Comparison, measure: Measure) -> str:
    """The main predictor minus each other one, paired video by video, with zero marked."""
    paint = colours(report)
    rows = [(name, values[measure.name], paint[name], False) for name, values in report.differences.items()]
    better = {"low": "left of zero is better", "high": "right of zero is better", "zero": ""}[measure.better]
    title = f"{report.main} minus …: {measure.label}, {better}"
    return _whiskers(rows, measure, title, from_zero=True, signs=True)


def horizon(report: Comparison) -> str:
    """Error against frames ahead; a band for the interval of the main predictor and of its best rival.

    More bands than two lie over each other and say nothing; the tables have every interval.
    """
    frames, paint = report.frames_ahead(), colours(report)
    height, left, right, top, bottom = 330, 46, WIDTH - LABELS, 30, 286
    estimates = {name: [report.overall[name][f"epe_{frame}"] for frame in frames] for name in report.predictors}
    ticks = _ticks(0, _highest(value for values in estimates.values() for value in values))
    across, down = _scale(0, max(frames), left, right), _scale(ticks[0], ticks[-1], bottom, top)
    parts = [_text(left - 8, 16, "error in px", "start")]
    for tick in ticks:
        parts += [_line(left, down(tick), right, down(tick)), _text(left - 8, down(tick) + 4, f"{tick:g}", "end")]
    parts += [_text(across(frame), bottom + 18, str(frame), "middle") for frame in [0, *frames]]
    parts.append(_text((left + right) / 2, height - 8, "frames ahead", "middle"))
    ends = []
    banded = [report.main, report.best_rival("ade")]
    for name in sorted(estimates, key=lambda name: name == report.main):  # the main one on top
        known = [(across(f), v) for f, v in zip(frames, estimates[name]) if v.mean == v.mean]
        course = [(across(0), Estimate(0, 0, 0, 0, 0)), *known]
        parts += _band(course, down, paint[name]) if name in banded else []
        parts.append(_course(course, down, paint[name], report.is_ceiling(name)))
        ends.append((down(known[-1][1].mean) if known else bottom, name))
    for y, (_, name) in zip(_apart([y for y, _ in sorted(ends)], 15), sorted(ends)):
        parts.append(_text(right + 8, y + 4, name, "start", paint[name], name == report.main))
    return _svg(WIDTH, height, parts, "Error against frames ahead")


def _band(points: list[tuple[float, Estimate]], down: Scale, colour: str) -> list[str]:
    """The area between the ends of one predictor's intervals, where every point has one."""
    if not all(value.has_interval for _, value in points):
        return []
    outline = [(x, down(v.high)) for x, v in points] + [(x, down(v.low)) for x, v in reversed(points)]
    return [f"<polygon points='{_points(outline)}' fill='{colour}' opacity='0.15'/>"]


def _course(points: list[tuple[float, Estimate]], down: Scale, colour: str, dashed: bool) -> str:
    """One predictor's line."""
    style = f"stroke='{colour}' stroke-width='{3 if colour == MAIN else 1.8}'" + " stroke-dasharray='5 4'" * dashed
    line = _points([(x, down(value.mean)) for x, value in points])
    return f"<polyline points='{line}' fill='none' {style}/>"


def videos(report: Comparison, measure: Measure) -> str:
    """Every predictor's number on every video, worst video of the main predictor first; of many the two ends."""
    own = dict(zip(report.videos, report.values(report.main, measure.name)))
    order = sorted(own, key=lambda video: (math.isnan(own[video]), -own[video]))
    shown = order if len(order) <= 2 * ENDS else order[:ENDS] + order[-ENDS:]
    values = [report.per_video[p][v].get(measure.name, math.nan) for p in report.predictors for v in shown]
    ticks = _ticks(0, max((value for value in values if value == value), default=1.0))
    row, top, right = 22, 30, WIDTH - 30
    across, height = _scale(0, ticks[-1], LABELS, right), top + row * len(shown) + 30
    parts = [_text(LABELS, 14, f"{measure.label} of each video", "start")]
    for tick in ticks:
        parts.append(_line(across(tick), top - 8, across(tick), height - 26))
        parts.append(_text(across(tick), height - 10, f"{tick:g}", "middle"))
    for index, video in enumerate(shown):
        y = top + row * index + row / 2
        parts += [_text(LABELS - 10, y + 4, _short(video), "end"), _line(LABELS, y, right, y)]
        parts += _dots(report, measure, video, across, y)
    return _svg(WIDTH, height, parts, f"{measure.label} of each video")


def _dots(report: Comparison, measure: Measure, video: str, across: Scale, y: float) -> list[str]:
    paint, dots = colours(report), []
    for name in reversed(report.predictors):  # the main one on top
        value = report.per_video[name][video].get(measure.name, math.nan)
        if value == value:
            tip = f"<title>{escape(name)} on {escape(video)}: {measure.show(value)}</title>"
            place = f"cx='{across(value):.1f}' cy='{y:.1f}' r='{6 if name == report.main else 4.5}'"
            dots.append(f"<circle {place} fill='{paint[name]}' opacity='.9'>{tip}</circle>")
    return dots


def _whiskers(rows: list[tuple], measure: Measure, title: str, *, from_zero: bool, signs: bool = False) -> str:
    """A dot, its interval and its number for each row (name, estimate, colour, is it the main one)."""
    row, top, right = 29, 36, NARROW - NUMBERS
    numbers = [n * measure.scale for _, v, _, _ in rows for n in (v.mean, v.low, v.high) if n == n] or [0.0]
    numbers += [0.0] if from_zero else []
    ticks = _ticks(min(numbers), max(numbers), about=4)
    across, height = _scale(ticks[0], ticks[-1], NAMES, right), top + row * len(rows) + 30
    parts = [_text(10, 16, title, "start")]
    for tick in ticks:
        x, strong = across(tick), signs and tick == 0
        parts.append(_line(x, top - 8, x, height - 26, "#888" if strong else FAINT))
        parts.append(_text(x, height - 10, f"{tick:g}", "middle"))
    for index, (name, value, colour, strong) in enumerate(rows):
        y = top + row * index + row / 2
        parts.append(_text(NAMES - 10, y + 4, _short(name, 32), "end", colour, strong))
        if value.mean != value.mean:
            continue
        low, mean, high = (across(number * measure.scale) for number in (value.low, value.mean, value.high))
        if value.has_interval:
            parts.append(_line(low, y, high, y, colour, "stroke-width='7' opacity='.3' stroke-linecap='round'"))
        parts.append(f"<circle cx='{mean:.1f}' cy='{y}' r='{6 if strong else 5}' fill='{colour}'/>")
        shown = f"{value.mean * measure.scale:{'+' if signs else ''}.{measure.digits}f}"
        parts.append(_text(right + 14, y + 4, shown, "start", colour, strong))
    return _svg(NARROW, height, parts, title, font=15)


def _direction(measure: Measure) -> str:
    return {"low": "lower is better", "high": "higher is better", "zero": "0 is best"}[measure.better]


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    """The straight line from a number to its place in the figure."""
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (end - start)


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About so many round numbers that enclose low and high."""
    raw = ((high - low) or abs(high) or 1.0) / about
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


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = FAINT, style: str = "") -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' {style}/>"


def _text(x: float, y: float, text: str, anchor: str, colour: str = SOFT, strong: bool = False) -> str:
    weight = " font-weight='700'" * strong + " class='soft'" * (colour == SOFT)
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}'{weight}>{escape(text)}</text>"


def _svg(width: float, height: float, parts: list[str], title: str, font: int = 13) -> str:
    box = f"viewBox='0 0 {width} {height:.0f}' {FONT} font-size='{font}' role='img'"
    ground = f"<rect class='ground' width='{width}' height='{height:.0f}' fill='#fff' rx='8'/>"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {box}><title>{escape(title)}</title>{ground}{''.join(parts)}</svg>"
