"""What an action network is fed: sequences of points, each frame one vector of fixed length.

Knows arrays; knows no network, no files and no videos.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from flowlib.geometry import Size, cell_index, check_size
from flowlib.tracks import Tracks

POOLED = 10  # numbers that are told of each cell


def from_tracks(tracks: Tracks, size: Size, *, cells: tuple[int, int] | None = (4, 4)) -> Float[np.ndarray, "S D"]:
    """The tracks of a clip as one vector a frame, float32.

    A track counts by its displacement from its query less the median of all visible ones, which takes a moving camera
    away, in units of the frame's height.

    Args:
        tracks: of points asked for anywhere; those of one data set on the same grid where `cells` is None.
        size: (height, width) of the frames in pixels.
        cells: rows and columns of cells; each tells of the points asked for in it, in whatever order. Ten numbers of
            the visible ones: the mean displacement (x, y), its variance (x, y) and covariance, the covariance of
            displacement and place (dx·x, dx·y, dy·x, dy·y: how the cell turns, grows and shears), and the share that is
            visible. Zeros where none is. None: displacement (x, y) and visibility of each point, point by point.

    Returns:
        [S D] with D = 10 · rows · columns, or 3 · N without cells.

    Raises:
        ValueError: a size or cells that are not positive.

    >>> still = Tracks.still(np.array([[0, 3.0, 4.0], [0, 9.0, 4.0]]), num_frames=8)
    >>> from_tracks(still, (12, 16), cells=(2, 2)).shape, from_tracks(still, (12, 16), cells=None).shape
    ((8, 40), (8, 6))
    """
    check_size(size)
    seen = tracks.visibility
    moved = tracks.displacement.astype(np.float64) / size[0]
    moved = moved - np.stack([_median(frame[here]) for frame, here in zip(moved, seen)])[:, None]
    moved[~seen] = 0
    S, N, _ = moved.shape
    if cells is None:
        return np.concatenate([moved, seen[..., None]], axis=-1).reshape(S, 3 * N).astype(np.float32)
    check_size(cells, "cells")
    place = tracks.queries[:, 1:].astype(np.float64)
    row, column = cell_index(place, size, cells).T
    cell = row * cells[1] + column
    pooled = np.zeros((S, cells[0] * cells[1], POOLED))
    for index in np.unique(cell):
        here = cell == index
        pooled[:, index] = _pool(moved[:, here], place[here] / size[0], seen[:, here])
    return pooled.reshape(S, -1).astype(np.float32)


def _median(moved: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " 2"]:
    return np.median(moved, axis=0) if len(moved) else np.zeros(2)


def _pool(
    moved: Float[np.ndarray, "S n 2"], place: Float[np.ndarray, "n 2"], seen: np.ndarray
) -> Float[np.ndarray, "S 10"]:
    """What one cell tells: see `from_tracks`."""
    weight = seen / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    mean, centre = np.einsum("sn,snd->sd", weight, moved), weight @ place
    about = np.concatenate([moved - mean[:, None], place - centre[:, None]], axis=-1)
    spread = np.einsum("sn,sni,snj->sij", weight, about, about)  # of (dx, dy, x, y)
    displacement, turning = spread[:, (0, 1, 0), (0, 1, 1)], spread[:, :2, 2:].reshape(len(moved), 4)
    return np.concatenate([mean, displacement, turning, seen.mean(axis=1, keepdims=True)], axis=1)
