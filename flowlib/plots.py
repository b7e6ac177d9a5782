"""Static figures in the viewer's colours. Every function takes arrays and `ax=None`, draws, and returns the Axes.

Nothing is shown or saved here; in a notebook the last Axes of a cell shows its figure. Knows nothing of files,
datasets or models.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from flowlib.colours import (
    PREDICTION,
    TRUTH,
    direction_colours,
    direction_table,
    magnitude_colours,
    magnitude_table,
    nice_limit,
    position_colours,
)
from flowlib.geometry import frame_extent
from flowlib.tracks import Tracks

MAGNITUDE = ListedColormap(magnitude_table() / 255, name="flowlib magnitude")
UNKNOWN = "#b9bbc6"  # where a field or a map has no value
# Lines: distinct in lightness as well as in hue (after Okabe and Ito's set), so they survive a grey printer.
LINES = ("#1f6fb4", "#e8761a", "#2b9c77", "#b44c97", "#e0b000", "#5b5f6b", "#7cc4ee", "#8a2f1d")
UNJUDGED = "#5b5f6b"  # what lines are compared with
TILE = 160  # units of a picture's longer side on a contact sheet
SHEET = 13.0  # inches: as wide as a notebook is
MOST_POINTS = 900  # of a static picture; more than that hide the frame
FAINT = 0.3  # opacity of what is hidden


def panels(rows: int, columns: int, *, ratio: float, width: float = SHEET) -> tuple[Figure, np.ndarray]:
    """An empty figure of equal panels for pictures, and its Axes [rows columns]; unused ones stay blank.

    Args:
        rows, columns: how many.
        ratio: height over width of the pictures.
        width: of the figure in inches.
    """
    title = 0.28  # inches above each picture
    size = (width, rows * (width / columns * ratio + title))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def tracks_over_frame(
    frame: np.ndarray,
    tracks: Tracks,
    prediction: Tracks | None = None,
    *,
    at: int | None = None,
    trail: int | None = None,
    size: float | None = None,
    values: np.ndarray | None = None,
    limit: float | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Points and their trails over a frame; hidden ones are faint, hidden points hollow.

    Of two sets, over a paler frame, the labels are broad and blue, the prediction narrow and orange on top: where both
    agree, blue still shows on either side. What the labels don't see is faint in both, for nobody can judge it.

    Args:
        frame: uint8 [H W 3].
        tracks: coloured by where each point starts; all in one blue if a prediction is given.
        prediction: a second set, in orange, of the same points.
        at: which frame's positions are drawn, -1 for the last (default).
        trail: its length in frames; all of them by default.
        size: a point's diameter in typographic points; by default as large as the points' number allows.
        values: [N] what colours the points of a single set instead of where they start; see `magnitude_bar`.
        limit: of these values, where the colours end; a round number by default that nearly all stay under.
        legend: whether two sets are named in a corner.

    >>> frame, queries = np.zeros((24, 32, 3), np.uint8), np.array([[0, 3.0, 4.0]])
    >>> len(tracks_over_frame(frame, Tracks.still(queries, num_frames=8)).images)
    1
    """
    _check_image(frame, "frame")
    S, N = tracks.visibility.shape
    if at is not None and not -S <= at < S:
        raise ValueError(f"at: expected a frame from 0 to {S - 1} (or counted from the end), got {at}")
    last = S - 1 if at is None else at % S
    first = 0 if trail is None else max(0, last - trail)
    size = float(np.clip(120 / math.sqrt(max(N, 1)), 1.0, 5.0)) if size is None else size
    if prediction is None:
        ax = show_image(frame, ax=ax)
        colours = position_colours(tracks.queries[:, 1:], (frame.shape[0], frame.shape[1]))
        if values is not None:
            colours = magnitude_colours(values, nice_limit(values) if limit is None else limit)
        _draw_tracks(ax, tracks, tracks.visibility, colours / 255, (first, last), size, "o")
    else:
        ax = show_image((frame * 0.55 + 100).astype(np.uint8), ax=ax)
        sets = ((tracks, TRUTH, "o", 1.5), (prediction, PREDICTION, "D", 0.75))
        for drawn, colour, marker, scale in sets:
            colours = np.tile(np.array(colour) / 255, (drawn.num_points, 1))
            seen = drawn.visibility & tracks.visibility
            _draw_tracks(ax, drawn, seen, colours, (first, last), scale * size, marker)
        if legend:
            _name_sets(ax)
    ax.axis(frame_extent((frame.shape[0], frame.shape[1])))
    return ax


def _draw_tracks(
    ax: Axes, tracks: Tracks, visible: np.ndarray, colours: np.ndarray, frames: tuple[int, int], size: float, marker
) -> None:
    first, last = frames
    path, clear = tracks.tracks[first : last + 1], visible[first : last + 1]
    if len(path) > 1 and tracks.num_points:
        opacity = np.linspace(0.25, 0.9, len(path) - 1)[:, None] * np.where(clear[1:] & clear[:-1], 1, FAINT)
        rgba = np.concatenate([np.tile(colours, (len(opacity), 1)), opacity.reshape(-1, 1)], axis=1)
        segments = list(np.stack([path[:-1], path[1:]], axis=2).reshape(-1, 2, 2))
        ax.add_collection(LineCollection(segments, colors=rgba, linewidths=0.3 * size))
    seen = visible[last]
    ax.scatter(*tracks.tracks[last, seen].T, c=colours[seen], s=size**2, marker=marker, linewidths=0)
    hollow = {"facecolors": "none", "edgecolors": np.insert(colours[~seen], 3, FAINT, axis=1), "linewidths": 0.2 * size}
    ax.scatter(*tracks.tracks[last, ~seen].T, s=size**2, marker=marker, **hollow)


def thinned(tracks: Tracks, most: int = MOST_POINTS) -> Tracks:
    """At most about so many points, for a static picture: every k-th row and column of a grid, else every k-th."""
    step = int(np.ceil(np.sqrt(tracks.num_points / most)))
    if step <= 1:
        return tracks
    across = int((tracks.queries[:, 2] == tracks.queries[0, 2]).sum())  # of a grid's first row
    across = across if across > 1 else int(np.sqrt(tracks.num_points))  # a grid whose points are jittered is square
    if tracks.num_points % across:
        return tracks.points(slice(None, None, step * step))
    rows = np.arange(tracks.num_points).reshape(-1, across)
    return tracks.points(rows[step // 2 :: step, step // 2 :: step].ravel())


def magnitude_bar(limit: float, label: str, *, axes: np.ndarray) -> None:
    """The scale of `tracks_over_frame`'s values, from 0 to `limit` and more, beside some Axes of one figure."""
    figure = axes.flat[0].figure
    scale = ScalarMappable(Normalize(0, limit), MAGNITUDE)
    bar = figure.colorbar(scale, ax=axes, extend="max", shrink=0.6, aspect=30, pad=0.015)
    bar.set_label(label, parse_math=False)


def _name_sets(ax: Axes) -> None:
    for name, colour, marker in (("labels", TRUTH, "o"), ("prediction", PREDICTION, "D")):
        ax.scatter([], [], color=np.array(colour) / 255, s=25, marker=marker, label=name)
    ax.legend(loc="upper left", fontsize=8, framealpha=0.85)


def show_image(image: np.ndarray, title: str = "", *, ax: Axes | None = None) -> Axes:
    """A picture [H W 3] (uint8) without axes around it."""
    _check_image(image, "image")
    height, width = image.shape[:2]
    ax = ax or plt.subplots(figsize=(7, 7 * height / width), layout="constrained")[1]
    ax.imshow(image, interpolation="antialiased")
    ax.set_title(title, fontsize=9, parse_math=False)
    ax.set_axis_off()
    return ax


def dense_field(
    displacement: np.ndarray, *, limit: float | None = None, legend: bool = True, ax: Axes | None = None
) -> Axes:
    """A dense displacement [2 H W] in pixels, coloured by direction and length, with its colour wheel.

    Args:
        displacement: x to the right and y down; NaN = unknown, drawn grey-blue.
        limit: length in pixels at the wheel's rim; a round number by default that nearly all lengths stay under.
        legend: whether to draw the wheel into a corner.
    """
    displacement = np.asarray(displacement, np.float32)
    if displacement.ndim != 3 or displacement.shape[0] != 2 or 0 in displacement.shape:
        raise ValueError(f"displacement: expected shape [2 H W], got {list(displacement.shape)}")
    vectors = np.moveaxis(displacement, 0, -1)
    known = np.asarray(np.isfinite(vectors).all(axis=-1))
    limit = nice_limit(np.linalg.norm(vectors[known], axis=-1)) if limit is None else limit
    image = direction_colours(np.where(known[..., None], vectors, 0), limit)
    image[~known] = [int(UNKNOWN[i : i + 2], 16) for i in (1, 3, 5)]
    ax = show_image(image, ax=ax)
    if legend:
        colour_wheel(limit, ax=ax.inset_axes((0.015, 0.03, 0.2, 0.2 * ax.get_data_ratio() ** -1)))
    return ax


def colour_wheel(limit: float, *, ax: Axes | None = None) -> Axes:
    """The legend of `dense_field`: the colour at a place is that of a displacement from the centre to there."""
    ax = ax or plt.subplots(figsize=(2, 2), layout="constrained")[1]
    side = 129
    table = direction_table(side) / 255
    axis = np.linspace(-1, 1, side)
    distance = np.hypot(*np.meshgrid(axis, axis))
    rim = np.clip((1 - distance) * side / 4 + 0.5, 0, 1)  # fades out over a pixel or two
    ax.imshow(np.dstack([table, rim]), extent=(-1, 1, 1, -1), interpolation="bilinear")
    ax.text(0, 0, f"{limit:g} px", ha="center", va="center", fontsize=7, color="#17181c")
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def error_map(
    error: np.ndarray,
    *,
    limit: float | None = None,
    label: str = "error, px",
    ax: Axes | None = None,
) -> Axes:
    """A map [H W] of errors with its scale; NaN = not measured, drawn grey-blue.

    Args:
        error: from 0 upwards.
        limit: where the scale ends; a round number by default that nearly all errors stay under.
        label: the quantity and its unit.
    """
    error = np.asarray(error, np.float32)
    if error.ndim != 2 or 0 in error.shape:
        raise ValueError(f"error: expected shape [H W], got {list(error.shape)}")
    known = error[np.isfinite(error)]
    limit = nice_limit(known) if limit is None else limit
    height, width = error.shape
    ax = ax or plt.subplots(figsize=(7.6, 7 * height / width), layout="constrained")[1]
    colours = MAGNITUDE.with_extremes(bad=UNKNOWN)
    image = ax.imshow(np.ma.masked_invalid(error), cmap=colours, vmin=0, vmax=limit, interpolation="antialiased")
    extend = "max" if known.size and known.max() > limit else "neither"
    bar = ax.figure.colorbar(image, ax=ax, extend=extend, shrink=0.85, pad=0.02)
    bar.set_label(label, parse_math=False)
    ax.set_axis_off()
    return ax


def learning_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    label: str = "loss",
    log: bool = True,
    smooth: Collection[str] = (),
    levels: Mapping[str, float] | None = None,
    axis: str = "step",
    intervals: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Values against optimiser steps, or another number.

    Args:
        curves: name -> (steps, values); values that are not finite leave a gap.
        label: what the values are, with their unit.
        log: whether the vertical axis is logarithmic.
        smooth: names of curves that are drawn as a running mean over an eighth of their length, which the legend says,
            with their values faint behind it; those of fewer than 25 values stay as they are.
        levels: name -> value that the curves are compared with, drawn as a dashed line.
        axis: what the values are drawn against.
        intervals: name -> (lower, upper) of the same length, shaded.
    """
    ax, levels = _line_axes(ax), levels or {}
    for (name, (steps, values)), colour in zip(curves.items(), _line_colours(len(curves))):
        _check_lengths(name, steps, values)
        few, averaged, shown = len(steps) < 25, name in smooth, _plain(name)
        if averaged and not few:
            window = max(9, len(steps) // 8) | 1
            ax.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            values, shown = _running_mean(values, window), f"{shown}, mean of {window} steps"
        ax.plot(steps, values, color=colour, label=shown, marker="o" if few else None, markersize=3.5, linewidth=1.6)
        _shade(ax, name, steps, intervals, colour)
    for (name, value), style in zip(levels.items(), itertools.cycle(("--", ":", "-."))):
        ax.axhline(value, color=UNJUDGED, linestyle=style, linewidth=1.3, label=_plain(name))
    drawn = [values for _, values in curves.values()] + [list(levels.values())]
    if log and any(np.any(np.asarray(values) > 0) for values in drawn):
        _logarithmic(ax)
    if axis == "step":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(axis, parse_math=False)
    ax.set_ylabel(label, parse_math=False)
    return _finish_lines(ax, len(curves) + len(levels))


def _running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of the `window` values around each, of fewer at the ends; what isn't finite is left out."""
    array, kernel = np.asarray(values, np.float64), np.ones(window)
    known = np.isfinite(array)
    counts = np.convolve(known, kernel, "same")
    return np.convolve(np.where(known, array, 0), kernel, "same") / np.where(known & (counts > 0), counts, np.nan)


def error_by_frame(
    errors: Mapping[str, Sequence[float]],
    *,
    intervals: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    label: str = "error, px",
    axis: str = "frames ahead",
    places: Sequence[float] | None = None,
    dashed: Collection[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Errors against how many frames ahead they were made, or another number from 0 up.

    Where there are many, they are named beside the lines, in the order in which these end.

    Args:
        errors: name -> one value per frame ahead, from frame 0 on.
        intervals: name -> (lower, upper) of the same length, shaded.
        label: what the values are, with their unit.
        axis: what they are drawn against.
        places: where on it the values stand, in place of 0, 1, 2, …
        dashed: names of what is no peer of the others, such as an oracle.
    """
    many = len(errors) > 5
    ax = _line_axes(ax, 9.6 if many else 6.4)
    for index, ((name, values), colour) in enumerate(zip(errors.items(), _line_colours(len(errors)))):
        ahead = range(len(values)) if places is None else places
        _check_lengths(name, values, ahead)
        style: dict[str, Any] = {"marker": "o" if len(values) < 25 else None, "markersize": 3.5, "linewidth": 1.6}
        style["linestyle"] = ":" if name in dashed else "-" if index < len(LINES) else "--"
        ax.plot(ahead, values, color=UNJUDGED if name in dashed else colour, label=_plain(name), **style)
        _shade(ax, name, ahead, intervals, colour)
    ax.set_xlabel(axis, parse_math=False)
    ax.set_ylabel(label, parse_math=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(bottom=0)
    _finish_lines(ax, len(errors))
    if many:
        lines = sorted(ax.lines, key=lambda line: -np.nan_to_num(np.asarray(line.get_ydata(), float)[-1], nan=-1))
        beside = ax.legend(handles=lines, frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
        for text in beside.get_texts():
            text.set_parse_math(False)
    return ax


def bars(
    values: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    intervals: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    label: str = "error, px",
    ax: Axes | None = None,
) -> Axes:
    """A group of bars for each thing, one bar for each series.

    Args:
        values: name of a series -> one value for each thing; NaN leaves its place empty.
        names: of the things.
        intervals: name of a series -> (lower, upper), drawn as whiskers.
        label: what the values are, with their unit.
    """
    ax = ax or plt.subplots(figsize=(max(6.4, 0.5 * len(names) + 1), 3.6), layout="constrained")[1]
    width, places = 0.8 / max(len(values), 1), np.arange(len(names))
    for index, ((name, heights), colour) in enumerate(zip(values.items(), _line_colours(len(values)))):
        _check_lengths(name, heights, names)
        x = places + (index - (len(values) - 1) / 2) * width
        ax.bar(x, heights, width, color=colour, label=_plain(name))
        if intervals and name in intervals:
            _check_lengths(name, heights, intervals[name][0])
            ax.vlines(x, *intervals[name], color="#17181c", linewidth=1)
    ax.set_xticks(places, [_shortened(name, 14) for name in names], rotation=45 if len(names) > 8 else 0, fontsize=8)
    ax.set_ylabel(label, parse_math=False)
    return _finish_lines(ax, len(values))


def counts_matrix(
    counts: np.ndarray, names: Sequence[str], *, rows: str = "", columns: str = "", ax: Axes | None = None
) -> Axes:
    """A square matrix of counts, each cell shaded by its share of its row.

    Args:
        counts: [K K].
        names: of the K things.
        rows, columns: what the rows and the columns stand for.
    """
    K = len(names)
    if counts.shape != (K, K):
        raise ValueError(f"counts: expected [{K} {K}], one row and column for each name, got {list(counts.shape)}")
    side = max(3.6, 0.42 * K + 2)
    ax = ax or plt.subplots(figsize=(side + 1.2, side), layout="constrained")[1]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > 0.6 else "#17181c"
        ax.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    labels = [_shortened(name) for name in names]
    ax.set_xticks(range(K), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(range(K), labels, fontsize=8)
    for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        text.set_parse_math(False)
    ax.set_xlabel(columns, parse_math=False)
    ax.set_ylabel(rows, parse_math=False)
    return ax


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    axes: tuple[str, str] = ("", ""),
    label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """A table of numbers as coloured cells, each with its number; the least is framed.

    Args:
        values: [R C].
        rows, columns: names of both.
        axes: what rows and columns stand for.
        label: what the values are, with their unit.
    """
    if values.shape != (len(rows), len(columns)) or 0 in values.shape:
        raise ValueError(f"values: expected [{len(rows)} {len(columns)}], as named, got {list(values.shape)}")
    ax = ax or plt.subplots(figsize=(0.55 * len(columns) + 2.4, 0.4 * len(rows) + 1.2), layout="constrained")[1]
    image = ax.imshow(values, cmap=MAGNITUDE, aspect="auto")
    middle = (values.min() + values.max()) / 2
    dark_ends = np.mean(image.cmap(image.norm(values.max()))[:3]) < np.mean(image.cmap(image.norm(values.min()))[:3])
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if (value > middle) == dark_ends else "#17181c"
        frame = {"fill": False, "edgecolor": "#c2410c", "linewidth": 2} if value == values.min() else None
        ax.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7, color=colour, bbox=frame)
    ax.set_xticks(range(len(columns)), columns, fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_ylabel(axes[0], parse_math=False)
    ax.set_xlabel(axes[1], parse_math=False)
    ax.figure.colorbar(image, ax=ax).set_label(label, parse_math=False)
    return ax


def contact_sheet(
    pictures: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Many pictures on one sheet, each with its name below; pictures may differ in size.

    Args:
        pictures: uint8 [H W 3] each.
        titles: as many names, drawn as plain text.
        columns: pictures in a row; by default three, as many more as a long sheet asks for.
    """
    pictures = list(pictures)
    if not pictures:
        raise ValueError("pictures: expected at least one, got none")
    for picture in pictures:
        _check_image(picture, "pictures")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles: expected {len(pictures)}, one for each picture, got {len(titles)}")
    columns = columns or min(len(pictures), max(3, math.ceil(math.sqrt(len(pictures) / 4))))
    sizes = [_fitted(picture) for picture in pictures]
    wide, width = columns * (TILE + 6), SHEET * min(columns, 3) / 3
    caption = 0 if titles is None else 0.24 / width * wide  # inches, in the sheet's units
    rows = [sizes[i : i + columns] for i in range(0, len(sizes), columns)]
    bottoms = np.cumsum([max(height for height, _ in row) + caption + 6 for row in rows])
    ax = ax or plt.subplots(figsize=(width, bottoms[-1] / wide * width), layout="constrained")[1]
    for index, (picture, (height, width)) in enumerate(zip(pictures, sizes)):
        x = index % columns * (TILE + 6) + (TILE - width) / 2
        bottom = bottoms[index // columns] - caption - 6  # pictures of a row stand on one line
        ax.imshow(picture, extent=(x, x + width, bottom, bottom - height), interpolation="antialiased")
        if titles is not None:
            name = _shortened(str(titles[index]))
            ax.text(x + width / 2, bottom + 4, name, ha="center", va="top", fontsize=9, parse_math=False)
    ax.set(xlim=(-3, wide - 3), ylim=(bottoms[-1] - 3, -3))
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _fitted(picture: np.ndarray) -> tuple[float, float]:
    """(height, width) on the sheet, its longer side being `TILE`."""
    height, width = picture.shape[:2]
    return height * TILE / max(height, width), width * TILE / max(height, width)


def _shortened(name: str, letters: int = 30) -> str:
    name = " ".join(name.split())
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[-letters // 2 + 1 :]}"


def _check_image(image: np.ndarray, name: str) -> None:
    if getattr(image, "ndim", 0) != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        got = f"{image.dtype} {list(image.shape)}" if hasattr(image, "shape") else type(image).__name__
        raise ValueError(f"{name}: expected uint8 [H W 3], got {got}")


def _check_lengths(name: str, first: Sequence[Any], second: Sequence[Any]) -> None:
    if len(first) != len(second):
        raise ValueError(f"{name}: expected two sequences of one length, got {len(first)} and {len(second)}")


def _shade(ax: Axes, name: str, places: Sequence[float], intervals: Mapping[str, Any] | None, colour: str) -> None:
    """The interval of a line, where it has one."""
    if intervals and name in intervals:
        lower, upper = intervals[name]
        _check_lengths(name, places, lower)
        _check_lengths(name, places, upper)
        ax.fill_between(places, lower, upper, color=colour, alpha=0.16, linewidth=0)


def _line_axes(ax: Axes | None, width: float = 6.4) -> Axes:
    return ax or plt.subplots(figsize=(width, 3.6), layout="constrained")[1]


def _logarithmic(ax: Axes) -> None:
    """A logarithmic vertical axis with plain numbers: 6, not 6×10⁰. Within a decade they are evenly apart."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    decades = math.log10(high / low)
    subs = (1, 2, 5) if decades < 3 else (1,)
    ax.yaxis.set_major_locator(LogLocator(subs=subs) if decades > 1 else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _line_colours(count: int) -> list[str]:
    return [LINES[i % len(LINES)] for i in range(count)]


def _finish_lines(ax: Axes, count: int) -> Axes:
    ax.grid(color="#e3e4e8", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#a8abb5")
    ax.tick_params(color="#a8abb5")
    if count:
        for text in ax.legend(framealpha=0.8, edgecolor="none", fontsize=9).get_texts():
            text.set_parse_math(False)  # `a_$x_$` is the name of a run, not a formula
    return ax


def _plain(name: str) -> str:
    """A name as a legend shows it: empty ones and those that begin with an underscore would be left out."""
    return f" {name}" if str(name)[:1] in ("", "_") else str(name)
