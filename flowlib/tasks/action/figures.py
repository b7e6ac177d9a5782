"""Figures of actions from an evaluation: what is taken for what, and how much has to be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowlib.tasks.action.metrics import SHARES, confusion
from flowlib.tasks.protocol import Results

if TYPE_CHECKING:
    from flowlib.plots import Axes


def confusion_figure(results: Results, actions: tuple[str, ...], method: str = "", *, ax: Axes | None = None) -> Axes:
    """How many sequences of each action were taken for each, shaded by the share of the row.

    Args:
        results: an evaluation.
        actions: names of the classes.
        method: whose guesses; the main method's by default.
    """
    from flowlib.plots import counts_matrix

    truth, guess = (results.per_sample(method or results.main, name).astype(int) for name in ("truth", "guess"))
    counts = confusion(truth, guess, len(actions))
    return counts_matrix(counts, actions, rows="true action", columns="taken for", ax=ax)


def observed_figure(results: Results, series: str = "observed", *, ax: Axes | None = None) -> Axes:
    """Accuracy of every method over the share of each sequence that is seen, with intervals."""
    from flowlib.plots import error_by_frame

    found = {m: [results.estimate(m, f"{series}_{share}") for share in SHARES] for m in results.methods}
    lines = {name: [one.mean for one in values] for name, values in found.items()}
    intervals = {
        name: ([one.low for one in values], [one.high for one in values])
        for name, values in found.items()
        if any(one.has_interval for one in values)
    }
    axis = "% of the sequence seen"
    return error_by_frame(lines, intervals=intervals, label="share right", axis=axis, places=SHARES, ax=ax)
