"""How far tracks can be trusted: what they miss on the way back, turned into an expected error and a confidence.

A position is followed back to its query; by how much that misses it is the forward-backward error (Kalal, Mikolajczyk
and Matas, ICPR 2010). A curve for each tracker, fitted where the truth is known, makes of it an error in pixels that at
least two of three positions stay within (`CLAIM`); `to_confidence` makes of that a number from 0 to 1.

In clips of more frames than the curves were fitted on, a position is followed back by `REACH` frames, to where its
point was then, and errors add up as in a random walk: the square root of the sum of squares. So the time this takes
grows with a video's length, not with its square, and few frames are in memory.

The curves come from rendered clips with exact truth (`bench/confidence.py`, which also checks them on BADJA, Sintel and
Middlebury: bench/LOG.md). Real footage is harder than these: `MARGIN` is what the check asked for. What comes back to
where it began can still be wrong: no way back shows a drift that is the same both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from flowlib.geometry import Size
from flowlib.trackers import Tracker
from flowlib.tracks import Tracks

CLAIM = 2 / 3  # share of positions within their expected error, at least
UNIT_SIZE = (192, 320)  # of the frames that the curves are for; errors grow with the frame's sides
KNOTS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # px that a position misses its query by, in a frame of that size
REACH = 7  # frames that a position is followed back over at most: the curves come from clips of 8
MARGIN = 3.0  # how much harder real footage is


@dataclass(frozen=True)
class Curve:
    """The expected error of a tracker's positions.

    Attributes:
        errors: px one frame from the query, in a frame of `UNIT_SIZE`, at each of `KNOTS`; between them straight in
            logarithms. What happens from frame to frame adds up as in a random walk: by the root of the frames.
        margin: what all of them are multiplied by.
    """

    errors: tuple[float, ...]
    margin: float = MARGIN

    def __call__(self, missed: Float[np.ndarray, ...], frames_away: np.ndarray, size: Size) -> Float[np.ndarray, ...]:
        """Expected errors [...] in pixels of a frame of `size`.

        Args:
            missed: [...] px by which each position misses its query on the way back; NaN where nobody knows.
            frames_away: [...] frames from the query's to the position's.

        Returns:
            float32; infinite where `missed` is NaN, 0 in the query's own frame.
        """
        unit = np.sqrt(size[0] * size[1] / (UNIT_SIZE[0] * UNIT_SIZE[1]))
        at = np.log(np.clip(missed / unit, KNOTS[0], KNOTS[-1]))
        one_frame = np.exp(np.interp(at, np.log(KNOTS), np.log(self.errors)))
        expected = self.margin * unit * one_frame * np.sqrt(frames_away)
        return np.where(np.isnan(missed), np.inf, expected).astype(np.float32)


# By `python bench/confidence.py --parts fit`, see bench/LOG.md. PIPs has none: its published weights were not at hand,
# and weights that mean nothing say nothing. AllTracker gives a confidence of its own.
CURVES = {
    "lucas_kanade": Curve((0.171, 0.255, 0.476, 0.821, 1.088, 1.696, 3.332)),
    "raft": Curve((0.139, 0.159, 0.178, 0.260, 0.631, 1.554, 2.647), margin=4.0),
}


def to_confidence(expected: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Expected errors [...] in pixels as confidence, float32: 1 / (1 + error), so 1 px is one half, infinity is 0.

    >>> to_confidence(np.array([0.0, 1.0, 3.0, np.inf])).tolist()
    [1.0, 0.5, 0.25, 0.0]
    """
    return (1 / (1 + np.asarray(expected, np.float32))).astype(np.float32)


def to_expected_error(confidence: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """What `to_confidence` made of expected errors, back in pixels, float32.

    >>> to_expected_error(np.array([1.0, 0.5, 0.0])).tolist()
    [0.0, 1.0, inf]
    """
    with np.errstate(divide="ignore"):
        return (1 / np.asarray(confidence, np.float32) - 1).astype(np.float32)


def return_errors(tracker: Tracker, frames: np.ndarray, tracks: Tracks) -> Float[np.ndarray, "S N"]:
    """By how many pixels each position, followed back to its query's frame, misses the query: float32 [S N].

    NaN where the point isn't seen, 0 in the query's frame. One call of the tracker, with a query for each sighting:
    for clips, not for whole videos.
    """
    asked = tracks.queries[:, 0].astype(int)
    frame, point = np.nonzero(tracks.visibility & (np.arange(tracks.num_frames)[:, None] != asked))
    errors = np.where(tracks.visibility, 0, np.nan).astype(np.float32)
    errors[frame, point] = _missed(tracker, frames, 0, tracks, frame, point, asked[point])
    return errors


def _missed(
    tracker: Tracker,
    frames: np.ndarray,
    first: int,
    tracks: Tracks,
    frame: np.ndarray,
    point: np.ndarray,
    to: np.ndarray,
) -> np.ndarray:
    """Pixels [M] by which positions, followed to the frames `to`, miss where the tracks are there.

    Args:
        frames: those from `first` on, as far as they are needed.
        frame, point: [M] which positions.
        to: [M].
    """
    if not len(frame):
        return np.zeros(0, np.float32)
    found = tracker(frames, np.column_stack([frame - first, tracks.tracks[frame, point]]).astype(np.float32))
    return np.linalg.norm(found.tracks[to - first, np.arange(len(frame))] - tracks.tracks[to, point], axis=-1)


def stretches(queries: np.ndarray, num_frames: int) -> Iterator[tuple[range, range]]:
    """In which order positions are rated, some frames at a time: these, and the frames that it takes.

    After each point's query onwards in time; then, where there are any, before it backwards.
    """
    length, last = REACH + 1, int(queries[:, 0].max(initial=0))
    for start in range(0, num_frames, length):
        stop = min(start + length, num_frames)
        yield range(start, stop), range(max(0, start - REACH), stop)
    for start in reversed(range(0, last, length)):
        stop = min(start + length, num_frames)
        yield range(stop - 1, start - 1, -1), range(start, min(stop + REACH, num_frames))


class ConfidentTracker:
    """A tracker whose tracks come with a confidence; at several times its own cost.

    Args:
        tracker: one that has a curve.
        curve: used instead of the stored one.

    Raises:
        ValueError: there is no curve for it.

    >>> from flowlib.trackers.lucas_kanade import LucasKanadeTracker
    >>> tracker = ConfidentTracker(LucasKanadeTracker())
    >>> tracker(np.zeros((3, 36, 64, 3), np.uint8), np.array([[0, 40.0, 30.0]])).confidence.shape
    (3, 1)
    """

    def __init__(self, tracker: Tracker, curve: Curve | None = None) -> None:
        name = tracker.describe()["name"]
        if curve is None and name not in CURVES:
            known = ", ".join(CURVES)
            raise ValueError(
                f"confidence: expected a tracker with a curve ({known}), got {name}; bench/confidence.py fits one"
            )
        self.tracker, self.curve = tracker, curve or CURVES[name]

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        """Follow `queries` [N 3] (t, x, y) through `frames` [S H W 3] uint8, and back."""
        tracks = self.tracker(frames, queries)
        expected = self.unrated(tracks)
        for rows, needed in stretches(tracks.queries, tracks.num_frames):
            self.rate(frames[needed.start : needed.stop], needed.start, rows, tracks, expected)
        return replace(tracks, confidence=to_confidence(expected))

    @staticmethod
    def unrated(tracks: Tracks) -> Float[np.ndarray, "S N"]:
        """Expected errors before any position is rated: 0 at queries that are seen, infinite elsewhere."""
        here = np.arange(tracks.num_frames)[:, None] == tracks.queries[:, 0]
        return np.where(tracks.visibility & here, 0, np.inf).astype(np.float32)

    def rate(self, frames: np.ndarray, first: int, rows: range, tracks: Tracks, expected: np.ndarray) -> None:
        """Fill in the expected errors of the positions in some frames, of one of `stretches`.

        Args:
            frames: uint8 [F H W 3], those it takes.
            first: the number of the first of them.
            rows: whose positions, in their order; those before are rated.
            tracks: of the whole video.
            expected: float32 [S N] pixels; infinite where a point is not seen, or was not for `REACH` frames before.
        """
        asked, forth = tracks.queries[:, 0].astype(int), np.sign(rows.step)
        frame, point, to = [], [], []
        for here in rows:
            reach = range(first, here) if forth > 0 else range(first + len(frames) - 1, here, -1)
            window = np.array(reach[-REACH:], int)[:, None]
            at_query = window == asked
            seen = at_query | (tracks.visibility[window[:, 0]] & ((window - asked) * forth > 0))
            some = np.flatnonzero(tracks.visibility[here] & seen.any(axis=0))
            frame.append(np.full(len(some), here))
            point.append(some)
            to.append(window[seen[:, some].argmax(axis=0), 0] if len(some) else some)
        missed = _missed(self.tracker, frames, first, tracks, *map(np.concatenate, (frame, point, to)))
        for here, some, back in zip(rows, point, to):
            step = self.curve(missed[: len(some)], np.abs(here - back), frames.shape[1:3])
            missed = missed[len(some) :]
            expected[here, some] = np.hypot(np.where(back == asked[some], 0, expected[back, some]), step)

    def describe(self) -> dict[str, Any]:
        """The tracker's own description, the curve and how far it looks back."""
        about = {"confidence": [*self.curve.errors, self.curve.margin], "confidence_reach": REACH}
        return self.tracker.describe() | about
