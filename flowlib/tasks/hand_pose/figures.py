"""Figures of hand poses: success curves and errors by joint from an evaluation, and skeletons over crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowlib.tasks.protocol import Estimate, Results, SeriesSpec

if TYPE_CHECKING:
    from flowlib.plots import Axes


def success_figure(results: Results, series: SeriesSpec, *, ax: Axes | None = None) -> Axes:
    """The share that is right within 0 to 80 mm, of every method, with the intervals of those that have one.

    Args:
        results: an evaluation.
        series: one of the task's success curves, such as `task.curve("pck")`.
    """
    from flowlib.plots import error_by_frame

    found = _series(results, series)
    lines = {name: [one.mean for one in values] for name, values in found.items()}
    return error_by_frame(lines, intervals=_intervals(found), label="share right", axis="within mm", ax=ax)


def error_bars(results: Results, series: SeriesSpec, *, ax: Axes | None = None) -> Axes:
    """The errors of each joint or finger as bars, of every method, with their intervals."""
    from flowlib.plots import bars

    found = _series(results, series)
    heights = {name: [one.mean for one in values] for name, values in found.items()}
    return bars(heights, series.names, intervals=_intervals(found), label="mean error, mm", ax=ax)


def _series(results: Results, series: SeriesSpec) -> dict[str, list[Estimate]]:
    count = len(series.names) or 81
    return {
        method: [results.estimate(method, f"{series.name}_{place}") for place in range(count)]
        for method in results.methods
    }


def _intervals(found: dict[str, list[Estimate]]) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    return {
        name: ([one.low for one in values], [one.high for one in values])
        for name, values in found.items()
        if any(one.has_interval for one in values)
    }
