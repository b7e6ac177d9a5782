"""Compute what the viewer shows: two sets of points, the numbers their colours stand for, and the choices.

The script computes the same numbers from the same definitions; pictures and films are drawn from these.
Knows nothing of widgets, pages or drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, UInt8

from flowlib.colours import NEVER, direction_colours, magnitude_colours, nice_limit, position_colours
from flowlib.tracks import Tracks
from flowlib.viewer.packing import PackedFrames

COLOURS = ("position", "displacement", "direction", "speed", "error", "occlusion")
COMPARISONS = ("side by side", "overlay", "errors", "truth", "prediction")
BACKGROUNDS = ("video", "first frame", "rebuilt", "difference", "none")
HIDDEN = ("hollow", "off")
GOLDEN = 0.6180339887498949  # multiples of it fill (0, 1) evenly: a thinned grid stays even
DIFFERENCE_GAIN = 4  # differences are shown four times as bright as they are
PLAIN = 24  # grey of the background "none"


@dataclass(frozen=True)
class View:
    """The choices of a viewer: what a person would set with its controls."""

    frame: int = 0
    colour: str = "position"  # one of COLOURS
    compare: str = "side by side"  # one of COMPARISONS; without a prediction "truth" is shown
    background: str = "video"  # one of BACKGROUNDS
    trail: int = 7  # frames
    point_size: float = 0.0  # diameter in pixels of the screen; 0 = half the room between neighbours
    density: float = 1.0  # share of the points shown
    hidden: str = "hollow"  # one of HIDDEN
    selected: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class ViewerScene:
    """A clip and one or two sets of trajectories of the same points."""

    frames: PackedFrames
    truth: Tracks
    prediction: Tracks | None = None
    rebuilt: PackedFrames | None = None
    names: tuple[str, str] = ("truth", "prediction")
    title: str = ""

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.size

    @property
    def sets(self) -> list[Tracks]:
        return [self.truth] if self.prediction is None else [self.truth, self.prediction]

    def panels(self, compare: str) -> list[tuple[int, ...]]:
        """Which sets (0, 1) each panel shows."""
        if self.prediction is None:
            return [(0,)]
        return {"side by side": [(0,), (1,)], "truth": [(0,)], "prediction": [(1,)]}.get(compare, [(0, 1)])

    def quantity(self, name: str, which: int, frame: int) -> Float[np.ndarray, " N"]:
        """Displacement, speed (pixels per frame) or error in pixels of every point of a set, in one frame."""
        xy = self.sets[which].tracks
        if name == "displacement":
            return np.linalg.norm(self.moved(which, frame), axis=-1)
        if name == "speed":
            after = min(max(frame, 1), len(xy) - 1)  # frame 0 has none before it: it takes the step that follows
            return np.linalg.norm(xy[after] - xy[max(after - 1, 0)], axis=-1)
        if name == "error" and self.prediction is not None:
            return np.linalg.norm(self.prediction.tracks[frame] - self.truth.tracks[frame], axis=-1)
        return np.zeros(xy.shape[1])

    def moved(self, which: int, frame: int) -> Float[np.ndarray, "N 2"]:
        """Pixels from each point's start to its place in one frame (of all frames at once: `Tracks.displacement`)."""
        tracks = self.sets[which]
        return tracks.tracks[frame] - tracks.queries[:, 1:]

    def first_occlusion(self, which: int) -> Int[np.ndarray, " N"]:
        """The first frame after a point's query in which it is hidden; the number of frames where there is none."""
        tracks = self.sets[which]
        later = np.arange(tracks.num_frames)[:, None] > tracks.queries[None, :, 0]
        hidden = later & ~tracks.visibility
        return np.where(hidden.any(axis=0), hidden.argmax(axis=0), tracks.num_frames)

    @cached_property
    def limits(self) -> dict[str, float]:
        """Where the colour scales end: round numbers that 98 % of all values, in all frames and sets, stay under."""
        return {name: nice_limit(self._all(name)) for name in ("displacement", "speed", "error")}

    def _all(self, name: str) -> np.ndarray:
        frames = range(self.truth.num_frames)
        return np.stack([self.quantity(name, which, s) for which in range(len(self.sets)) for s in frames])

    def colours(self, name: str, which: int, frame: int, limits: dict[str, float]) -> UInt8[np.ndarray, "N 3"]:
        """The colour of every point of a set, in one frame."""
        tracks = self.sets[which]
        if name == "position":
            return position_colours(tracks.queries[:, 1:], self.size)
        if name == "direction":
            return direction_colours(self.moved(which, frame), limits["displacement"])
        if name == "occlusion":
            first = self.first_occlusion(which)
            coloured = magnitude_colours(first, max(tracks.num_frames - 1, 1))
            return np.where((first == tracks.num_frames)[:, None], np.array(NEVER, np.uint8), coloured)
        return magnitude_colours(self.quantity(name, which, frame), limits[name])

    def background(self, name: str, frame: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture behind the points of one frame."""
        if name == "none":
            return np.full((*self.size, 3), PLAIN, np.uint8)
        if self.rebuilt is None or name in ("video", "first frame"):
            return self.frames.decode(0 if name == "first frame" else frame)
        rebuilt = self.rebuilt.decode(frame)
        if name == "rebuilt":
            return rebuilt
        difference = np.abs(self.frames.decode(frame).astype(np.int16) - rebuilt)
        return np.minimum(difference * DIFFERENCE_GAIN, 255).astype(np.uint8)


def shown_points(count: int, density: float) -> np.ndarray:
    """Which of `count` points a density from 0 to 1 keeps: bool [count], evenly spread over any grid."""
    return (np.arange(count) * GOLDEN) % 1 < density
