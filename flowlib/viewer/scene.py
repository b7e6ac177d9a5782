"""Compute what the viewer shows: sets of points, the numbers their colours stand for, and the choices.

The script computes the same numbers from the same definitions; pictures and films are drawn from these.
Knows nothing of widgets, pages or drawing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from flowlib.colours import NEVER, OUTSIDE, direction_colours, magnitude_colours, nice_limit, position_colours
from flowlib.tracks import Tracks
from flowlib.viewer.packing import PackedFrames

COLOURS = ("position", "displacement", "direction", "speed", "error", "occlusion", "confidence", "region")
COMPARISONS = ("side by side", "overlay", "errors", "truth", "prediction")
BACKGROUNDS = ("video", "first frame", "rebuilt", "difference", "none")
HIDDEN = ("hollow", "off")
FUTURES = ("off", "one", "all", "weighted")
OPACITIES = ("equal", "confidence")
GOLDEN = 0.6180339887498949  # multiples of it fill (0, 1) evenly: a thinned grid stays even
DIFFERENCE_GAIN = 4  # differences are shown four times as bright as they are
PLAIN = 24  # grey of the background "none"


MOST_REGIONS = 100  # selected points whose regions are drawn at once; more would hide each other
MOST_FUTURES = 20_000  # paths of sampled futures drawn at once; more than that, and fewer points have them


@dataclass(frozen=True)
class View:
    """The choices of a viewer: what a person would set with its controls."""

    frame: int = 0
    shown: tuple[int, ...] = (0, 1)  # numbers of the sets that are shown; 0 is the truth
    colour: str = "position"  # one of COLOURS
    compare: str = "side by side"  # one of COMPARISONS; without a prediction "truth" is shown
    background: str = "video"  # one of BACKGROUNDS
    trail: int = 7  # frames
    path: bool = True  # whether selected points show where they come from and go to in all frames
    point_size: float = 0.0  # diameter in pixels of the screen; 0 = half the room between neighbours
    density: float = 1.0  # share of the points shown
    hidden: str = "hollow"  # one of HIDDEN
    opacity: str = "equal"  # one of OPACITIES
    future: str = "off"  # one of FUTURES
    sample: int = 0  # which sampled future "one" shows
    selected: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class ViewerSet:
    """One set of trajectories, and what a predictor may say beside them.

    Attributes:
        tracks: of the same points as all sets of a scene; their confidence may be shown.
        rebuilt: the frames it rebuilds.
        futures: K sampled trajectories of the points.
        weights: [K], how likely each is; they sum to 1.
        radii: [S N] pixels around each point within which the truth is promised to lie; None if nothing is promised.
    """

    tracks: Tracks
    rebuilt: PackedFrames | None = None
    futures: tuple[Tracks, ...] = ()
    weights: Float[np.ndarray, " K"] = field(default_factory=lambda: np.zeros(0))
    radii: Float[np.ndarray, "S N"] | None = None


@dataclass(frozen=True, eq=False)
class ViewerScene:
    """A clip and any number of sets of trajectories of the same points: the truth, then predictions."""

    frames: PackedFrames
    sets: tuple[ViewerSet, ...]
    names: tuple[str, ...] = ("truth", "prediction")
    title: str = ""

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.size

    @property
    def truth(self) -> Tracks:
        return self.sets[0].tracks

    @property
    def prediction(self) -> Tracks | None:
        """The first one."""
        return self.sets[1].tracks if len(self.sets) > 1 else None

    @property
    def rebuilt(self) -> PackedFrames | None:
        """The frames that the first predictor rebuilds, of those that rebuild any."""
        return next((one.rebuilt for one in self.sets if one.rebuilt), None)

    def sampled(self, sample: int) -> ViewerScene:
        """The scene in which every set that has sampled futures goes the way of one of them."""

        def pick(one: ViewerSet) -> ViewerSet:
            return replace(one, tracks=one.futures[sample % len(one.futures)], radii=None) if one.futures else one

        return replace(self, sets=tuple(map(pick, self.sets)))

    def panels(self, compare: str, shown: tuple[int, ...] = (0, 1)) -> list[tuple[int, ...]]:
        """Which sets each panel shows; `shown` are those that may be."""
        shown = tuple(which for which in shown if which < len(self.sets)) or (0,)
        predicted = [which for which in shown if which > 0]
        if not predicted or compare == "truth":
            return [(0,)]
        if compare == "errors":
            return [(0, which) for which in predicted]
        return {"overlay": [shown], "prediction": [(predicted[0],)]}.get(compare, [(which,) for which in shown])

    def quantity(self, name: str, which: int, frame: int, against: int = 1) -> Float[np.ndarray, " N"]:
        """Displacement, speed (pixels per frame), error in pixels or confidence of every point of a set, in one frame.

        The error of a prediction is its distance from the truth; the truth's, that of prediction `against`.
        """
        xy = self.sets[which].tracks.tracks
        if name == "displacement":
            return np.linalg.norm(self.moved(which, frame), axis=-1)
        if name == "speed":
            after = min(max(frame, 1), len(xy) - 1)  # frame 0 has none before it: it takes the step that follows
            return np.linalg.norm(xy[after] - xy[max(after - 1, 0)], axis=-1)
        if name == "error" and len(self.sets) > 1:
            other = self.sets[which or against].tracks.tracks
            return np.linalg.norm(other[frame] - self.truth.tracks[frame], axis=-1)
        if name == "confidence":
            confidence = self.sets[which].tracks.confidence
            return np.ones(xy.shape[1]) if confidence is None else confidence[frame]
        return np.zeros(xy.shape[1])

    def outside(self, which: int, frame: int, against: int = 1) -> Bool[np.ndarray, " N"]:
        """Where the truth, as far as it can be seen, left the region of a prediction (the truth's: of `against`)."""
        one = self.sets[which or min(against, len(self.sets) - 1)]
        if one.radii is None:
            return np.zeros(self.truth.num_points, bool)
        off = np.linalg.norm(one.tracks.tracks[frame] - self.truth.tracks[frame], axis=-1)
        return (off > one.radii[frame]) & self.truth.visibility[frame]

    def moved(self, which: int, frame: int) -> Float[np.ndarray, "N 2"]:
        """Pixels from each point's start to its place in one frame (of all frames at once: `Tracks.displacement`)."""
        tracks = self.sets[which].tracks
        return tracks.tracks[frame] - tracks.queries[:, 1:]

    def first_occlusion(self, which: int) -> Int[np.ndarray, " N"]:
        """The first frame after a point's query in which it is hidden; the number of frames where there is none."""
        tracks = self.sets[which].tracks
        later = np.arange(tracks.num_frames)[:, None] > tracks.queries[None, :, 0]
        hidden = later & ~tracks.visibility
        return np.where(hidden.any(axis=0), hidden.argmax(axis=0), tracks.num_frames)

    @cached_property
    def limits(self) -> dict[str, float]:
        """Where the colour scales end: round numbers that 98 % of all values, in all frames and sets, stay under."""
        limits = {name: nice_limit(self._all(name)) for name in ("displacement", "speed", "error")}
        return limits | {"confidence": 1.0}

    def _all(self, name: str) -> np.ndarray:
        frames, sets = range(self.truth.num_frames), range(name == "error" and len(self.sets) > 1, len(self.sets))
        return np.stack([self.quantity(name, which, s) for which in sets for s in frames])

    def colours(
        self, name: str, which: int, frame: int, limits: dict[str, float], against: int = 1
    ) -> UInt8[np.ndarray, "N 3"]:
        """The colour of every point of a set, in one frame."""
        tracks = self.sets[which].tracks
        if name == "position":
            return position_colours(tracks.queries[:, 1:], self.size)
        if name == "direction":
            return direction_colours(self.moved(which, frame), limits["displacement"])
        if name == "occlusion":
            first = self.first_occlusion(which)
            coloured = magnitude_colours(first, max(tracks.num_frames - 1, 1))
            return np.where((first == tracks.num_frames)[:, None], np.array(NEVER, np.uint8), coloured)
        if name == "region":
            out = self.outside(which, frame, against)[:, None]
            return np.where(out, np.array(OUTSIDE, np.uint8), np.array(NEVER, np.uint8))
        return magnitude_colours(self.quantity(name, which, frame, against), limits[name])

    def background(self, name: str, frame: int, sets: tuple[int, ...] = (0, 1)) -> UInt8[np.ndarray, "H W 3"]:
        """The picture behind the points of one frame, in a panel that shows these sets.

        A rebuilt frame belongs to the predictor that rebuilt it: a panel of the truth alone shows the true one.
        """
        if name == "none":
            return np.full((*self.size, 3), PLAIN, np.uint8)
        shown = (self.sets[which].rebuilt for which in sets if which < len(self.sets))
        packed = next((rebuilt for rebuilt in shown if rebuilt), None)
        if packed is None or name in ("video", "first frame"):
            return self.frames.decode(0 if name == "first frame" else frame)
        rebuilt = packed.decode(frame)
        if name == "rebuilt":
            return rebuilt
        difference = np.abs(self.frames.decode(frame).astype(np.int16) - rebuilt)
        return np.minimum(difference * DIFFERENCE_GAIN, 255).astype(np.uint8)


def shown_points(count: int, density: float) -> np.ndarray:
    """Which of `count` points a density from 0 to 1 keeps: bool [count], evenly spread over any grid."""
    return (np.arange(count) * GOLDEN) % 1 < density


def future_opacities(weights: Float[np.ndarray, " K"], weighted: bool) -> Float[np.ndarray, " K"]:
    """How opaque each sampled future is drawn: alike, or by its weight, the likeliest fully."""
    if not weighted:
        return np.full(len(weights), max(0.15, 1 / np.sqrt(len(weights))))
    return 0.05 + 0.95 * weights / weights.max()
