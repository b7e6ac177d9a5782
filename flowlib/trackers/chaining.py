"""Follow points from frame to frame by a function for one step: what frame-to-frame trackers share.

Takes queries and a function for one step, gives `Tracks`. Knows nothing of images, flow or networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np

from flowlib.geometry import Size, inside
from flowlib.tracks import Tracks

# (from frame, to frame, xy [M 2]) -> where the points are there [M 2], and which of them were found there [M]
Step = Callable[[int, int, np.ndarray], tuple[np.ndarray, np.ndarray]]


def chain(queries: np.ndarray, num_frames: int, size: Size, step: Step) -> Tracks:
    """Follow points step by step, forwards and backwards in time from each one's query.

    A point is visible from its query on for as long as every step finds it within the frame; then it is invisible for
    good and stays where it was seen last: on BADJA's bear, camel and cows that is 13 px off in the mean for
    Lucas-Kanade, where going on at the last velocity is 32 px off. Where the very first step fails, the place that
    step names is kept, for it is all there is. Points queried outside the frame are invisible and stay where they are.

    Args:
        queries: float32 [N 3] (t, x, y).
        num_frames: S.
        size: (height, width) of the frames.
        step: is asked for visible points only, for each pair of neighbouring frames and direction at most once.
    """
    start = queries[:, 0].astype(int)
    tracks = np.repeat(queries[None, :, 1:], num_frames, axis=0)
    visibility = np.zeros(tracks.shape[:2], bool)
    visibility[start, np.arange(len(queries))] = inside(queries[:, 1:], size)
    for order in (range(num_frames), reversed(range(num_frames))):
        _follow(tracks, visibility, start, order, size, step)
    return Tracks(tracks, visibility, queries)


def _follow(
    tracks: np.ndarray, visibility: np.ndarray, start: np.ndarray, order: Iterable[int], size: Size, step: Step
) -> None:
    """Fill `tracks` [S N 2] and `visibility` [S N] in place, frame after frame in the given order."""
    for here, there in pairwise(order):
        reached = (here - start) * (there - here) >= 0  # queried here, or before in this order
        tracks[there, reached] = tracks[here, reached]
        seen = np.flatnonzero(reached & visibility[here])
        if len(seen):
            moved, found = step(here, there, tracks[here, seen])
            known = found | (start[seen] == here)
            tracks[there, seen[known]] = moved[known]
            visibility[there, seen] = found & inside(moved, size)
