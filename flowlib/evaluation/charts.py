"""The report's figures as SVG text: no plotting library, crisp at any size, small enough to stand inside the page.

Colours are told apart by all eyes (Okabe and Ito); the method the report is about is always the strong blue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from flowlib.evaluation.comparison import Comparison
from flowlib.tasks.protocol import Estimate, MetricSpec, SeriesSpec

MAIN, ORACLE, FAINT, SOFT = "#0072b2", "#7a7f87", "#8884", "#555b66"
OTHERS = ("#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#5b5fc7", "#444444")
ENDS = 20  # videos shown from each end when there are more than twice as many
Scale = Callable[[float], float]
FONT = "font-family='system-ui,Segoe UI,Helvetica,Arial,sans-serif'"
WIDTH, LABELS = 760, 210  # of the wide figures, and the room for names in them
NARROW, NAMES, NUMBERS = 560, 258, 66  # of those that stand two in a row; room for names and for numbers


def figures(report: Comparison) -> dict[str, str]:
    """Name -> SVG of every figure that the report's numbers allow."""
    made = {f"overall_{metric.name}": overall(report, metric) for metric in report.headline()}
    score = report.score
    if score and report.differences:
        made[f"differences_{score.name}"] = differences(report, score)
    made |= {series.name: along(report, series) for series in report.task.series if report.places(series)}
    if score:
        made[f"per_{report.task.group}_{score.name}"] = groups(report, score)
    return made


def colours(report: Comparison) -> dict[str, str]:
    """Method -> colour, the same in every figure."""
    rest = iter(OTHERS * (1 + len(report.methods) // len(OTHERS)))
    return {
        name: MAIN if name == report.main else ORACLE if report.role(name) == "oracle" else next(rest)
        for name in report.methods
    }


def overall(report: Comparison, metric: MetricSpec) -> str:
    """One number of every method with its interval, best first."""
    paint = colours(report)
    values = {name: report.overall[name][metric.name] for name in report.methods}
    order = sorted(values, key=lambda name: (math.isnan(values[name].mean), metric.rank(values[name].mean)))
    rows = [(name, values[name], paint[name], name == report.main) for name in order]
    best = {"low": "lower is better", "high": "higher is better", "zero": "0 is best"}[metric.better]
    return _whiskers(rows, metric, f"{metric.heading}, {best}", from_zero=metric.better == "low")


def differences(report: Comparison, metric: MetricSpec) -> str:
    """The main method minus each other one, paired group by group, with zero marked."""
    paint = colours(report)
    rows = [(name, values[metric.name], paint[name], False) for name, values in report.differences.items()]
    better = {"low": "left of zero is better", "high": "right of zero is better", "zero": ""}[metric.better]
    title = f"{report.main} minus …: {metric.heading}, {better}"
    return _whiskers(rows, metric, title, from_zero=True, signs=True)


def along(report: Comparison, series: SeriesSpec) -> str:
    """A series: along its axis, or, where its places have names, place by place."""
    return by_name(report, series) if series.names else course(report, series)


def by_name(report: Comparison, series: SeriesSpec) -> str:
    """A series whose places have names: a row for each, a dot for each method, the main one's interval as a bar."""
    metrics, paint = report.at_places(series), colours(report)
    means = {(name, m.name): report.estimate(name, m.name) for name in report.methods for m in metrics}
    known = [number for value in means.values() for number in (value.mean, value.high) if number == number]
    ticks = _ticks(0, max(known, default=1.0) or 1.0)
    row, top, right = 22, 30, WIDTH - 30
    across, height = _scale(ticks[0], ticks[-1], LABELS, right), top + row * len(metrics) + 30
    title = f"{series.title}, {series.unit}" if series.unit else series.title
    parts = [_text(LABELS, 14, title, "start"), *_upright(ticks, across, top, height)]
    for index, metric in enumerate(metrics):
        y, own = top + row * index + row / 2, means[report.main, metric.name]
        parts += [_text(LABELS - 10, y + 4, metric.label, "end"), _line(LABELS, y, right, y)]
        if own.has_interval:
            bar = "stroke-width='7' opacity='.3' stroke-linecap='round'"
            parts.append(_line(across(own.low), y, across(own.high), y, paint[report.main], bar))
        for name in reversed(report.methods):  # the main one on top
            if (value := means[name, metric.name].mean) == value:
                tip = f"<title>{escape(name)}, {escape(metric.label)}: {metric.show(value)}</title>"
                place = f"cx='{across(value):.1f}' cy='{y:.1f}' r='{6 if name == report.main else 4.5}'"
                parts.append(f"<circle {place} fill='{paint[name]}' opacity='.9'>{tip}</circle>")
    return _svg(WIDTH, height, parts, series.title)


def course(report: Comparison, series: SeriesSpec) -> str:
    """A series along its axis; a band for the interval of the main method and of the best baseline.

    More bands than two lie over each other and say nothing; the tables have every interval.
    """
    places, paint = report.places(series), colours(report)
    height, left, right, top, bottom = 330, 46, WIDTH - LABELS, 30, 286
    estimates = {name: [report.estimate(name, f"{series.name}_{place}") for place in places] for name in report.methods}
    drawn = [number for values in estimates.values() for v in values for number in (v.mean, v.high) if number == number]
    ticks = _ticks(0, max(drawn, default=1.0) or 1.0)
    start = [] if series.origin is None else [series.origin]
    shown = [0, *places] if start else places
    across = _scale(min(shown), max(shown), left, right)
    down = _scale(ticks[0], ticks[-1], bottom, top)
    parts = [_text(left - 8, 16, f"{series.label.lower()} in {series.unit}" if series.unit else series.label, "start")]
    for tick in ticks:
        parts += [_line(left, down(tick), right, down(tick)), _text(left - 8, down(tick) + 4, f"{tick:g}", "end")]
    marked = [place for place in shown if place in series.shown(places) or place not in places]
    parts += [_text(across(place), bottom + 18, str(place), "middle") for place in marked]
    parts.append(_text((left + right) / 2, height - 8, series.axis, "middle"))
    ends = []
    banded = [report.main, report.best_baseline(report.task.score)]
    for name in sorted(estimates, key=lambda name: name == report.main):  # the main one on top
        known = [(across(place), v) for place, v in zip(places, estimates[name]) if v.mean == v.mean]
        line = [*((across(0), Estimate(value, value, value, 0, 0)) for value in start), *known]
        if name in banded and all(value.has_interval for _, value in line):
            outline = [(x, down(v.high)) for x, v in line] + [(x, down(v.low)) for x, v in reversed(line)]
            parts.append(f"<polygon points='{_points(outline)}' fill='{paint[name]}' opacity='0.15'/>")
        style = f"stroke='{paint[name]}' stroke-width='{3 if paint[name] == MAIN else 1.8}'"
        style += " stroke-dasharray='5 4'" * (report.role(name) == "oracle")
        means = _points([(x, down(value.mean)) for x, value in line])
        parts.append(f"<polyline points='{means}' fill='none' {style}/>")
        ends.append((down(known[-1][1].mean) if known else bottom, name))
    for y, (_, name) in zip(_apart([y for y, _ in sorted(ends)], 15), sorted(ends)):
        parts.append(_text(right + 8, y + 4, name, "start", paint[name], name == report.main))
    return _svg(WIDTH, height, parts, series.title)


def groups(report: Comparison, metric: MetricSpec) -> str:
    """Every method's number on every group, worst group of the main method first; of many the two ends."""
    own = dict(zip(report.groups, report.values(report.main, metric.name)))
    order = sorted(own, key=lambda group: (math.isnan(own[group]), -metric.rank(own[group])))
    shown = order if len(order) <= 2 * ENDS else order[:ENDS] + order[-ENDS:]
    numbers = [report.per_group[m][g].get(metric.name, math.nan) for m in report.methods for g in shown]
    known = [number * metric.scale for number in numbers if math.isfinite(number)]
    ticks = _ticks(min([0.0, *known]), max(known, default=1.0))
    row, top, right = 22, 30, WIDTH - 30
    across, height = _scale(ticks[0], ticks[-1], LABELS, right), top + row * len(shown) + 30
    title = f"{metric.heading} of each {report.task.group}"
    parts = [_text(LABELS, 14, title, "start"), *_upright(ticks, across, top, height)]
    for index, group in enumerate(shown):
        y = top + row * index + row / 2
        parts += [_text(LABELS - 10, y + 4, _short(group), "end"), _line(LABELS, y, right, y)]
        parts += _dots(report, metric, group, across, y)
    return _svg(WIDTH, height, parts, title)


def _dots(report: Comparison, metric: MetricSpec, group: str, across: Scale, y: float) -> list[str]:
    paint, dots = colours(report), []
    for name in reversed(report.methods):  # the main one on top
        value = report.per_group[name][group].get(metric.name, math.nan)
        if value == value:
            tip = f"<title>{escape(name)} on {escape(group)}: {metric.show(value)}</title>"
            place = f"cx='{across(value * metric.scale):.1f}' cy='{y:.1f}' r='{6 if name == report.main else 4.5}'"
            dots.append(f"<circle {place} fill='{paint[name]}' opacity='.9'>{tip}</circle>")
    return dots


def _whiskers(rows: list[tuple], metric: MetricSpec, title: str, *, from_zero: bool, signs: bool = False) -> str:
    """A dot, its interval and its number for each row (name, estimate, colour, is it the main one)."""
    row, top, right = 29, 36, NARROW - NUMBERS
    numbers = [n * metric.scale for _, v, _, _ in rows for n in (v.mean, v.low, v.high) if n == n] or [0.0]
    numbers += [0.0] if from_zero else []
    ticks = _ticks(min(numbers), max(numbers), about=4)
    across, height = _scale(ticks[0], ticks[-1], NAMES, right), top + row * len(rows) + 30
    parts = [_text(10, 16, title, "start"), *_upright(ticks, across, top, height, zero="#888" if signs else FAINT)]
    for index, (name, value, colour, strong) in enumerate(rows):
        y = top + row * index + row / 2
        parts.append(_text(NAMES - 10, y + 4, _short(name, 32), "end", colour, strong))
        if value.mean != value.mean:
            continue
        low, mean, high = (across(number * metric.scale) for number in (value.low, value.mean, value.high))
        if value.has_interval:
            parts.append(_line(low, y, high, y, colour, "stroke-width='7' opacity='.3' stroke-linecap='round'"))
        parts.append(f"<circle cx='{mean:.1f}' cy='{y}' r='{6 if strong else 5}' fill='{colour}'/>")
        shown = metric.show_signed(value.mean) if signs else f"{value.mean * metric.scale:.{metric.digits}f}"
        parts.append(_text(right + 14, y + 4, shown, "start", colour, strong))
    return _svg(NARROW, height, parts, title, font=15)


def _upright(ticks: list[float], across: Scale, top: float, height: float, zero: str = FAINT) -> list[str]:
    """The lines of a horizontal axis and the numbers below them."""
    parts = []
    for x, tick in ((across(tick), tick) for tick in ticks):
        parts.append(_line(x, top - 8, x, height - 26, FAINT if tick else zero))
        parts.append(_text(x, height - 10, f"{tick:g}", "middle"))
    return parts


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


def _apart(positions: Sequence[float], gap: float) -> list[float]:
    """Ascending positions pushed apart to `gap`, moved as little as a pass down and a pass up allow."""
    placed: list[float] = []
    for position in positions:
        placed.append(max(position, placed[-1] + gap) if placed else position)
    overshoot = max(0.0, placed[-1] - positions[-1]) / 2 if placed else 0.0
    return [position - overshoot for position in placed]


def _short(name: str, length: int = 26) -> str:
    """A name cut in its middle: names of sequences begin alike, and often end apart."""
    begin = length // 2 - 2
    return name if len(name) <= length else f"{name[:begin]}…{name[begin + 1 - length :]}"


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
