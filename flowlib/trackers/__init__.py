"""Trackers: one protocol, one file or folder for each, and the table of their names.

A tracker takes a clip and the points to follow, and says where they go and when they can be seen:
`tracker(frames [S H W 3] uint8, queries [N 3] (t, x, y)) -> Tracks`. Positions are in pixels of those frames.
A point's result must not depend on the other points of the call. Trackers know nothing of shards.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from flowlib.clips import Clip
from flowlib.devices import pick_device
from flowlib.geometry import Fit
from flowlib.tracks import Tracks, check_clip

__all__ = [
    "NAMES", "FrameToFrame", "NeedsClip", "StreamState", "Streams", "Stretch", "Tracker", "check_clip",
    "check_no_weights", "check_on_cpu", "make_tracker",
]  # fmt: skip

# name -> a function `make(weights, device) -> Tracker`; its module is loaded when it is asked for
MAKERS = {
    "lucas_kanade": "flowlib.trackers.lucas_kanade:make",
    "raft": "flowlib.trackers.raft:make",
    "pips": "flowlib.trackers.pips.tracker:make",
    "alltracker": "flowlib.trackers.alltracker.tracker:make",
    "alltracker-full": "flowlib.trackers.alltracker.tracker:make_full",
    "exact": "flowlib.trackers.exact:make",
}
NAMES = tuple(MAKERS)


@runtime_checkable
class Tracker(Protocol):
    """What every tracker is: a callable, and a description of itself that goes into the shards."""

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        """Follow `queries` [N 3] (t, x, y) through `frames` [S H W 3] uint8."""
        ...

    def describe(self) -> dict:
        """Name, settings and the SHA-256 of the weights ("" where there are none), as plain JSON values."""
        ...


@runtime_checkable
class NeedsClip(Protocol):
    """A tracker that must know which clip it tracks, beside what the clip looks like."""

    def for_clip(self, clip: Clip, path: Path, fit: Fit) -> Tracker:
        """The tracker of one clip.

        Args:
            clip: which frames of the video.
            path: of the video.
            fit: how the video's frames were brought to the size of the frames that are tracked.
        """
        ...


@runtime_checkable
class FrameToFrame(Protocol):
    """A tracker that knows nothing but each frame and the next, so that a video can be tracked piece by piece.

    A lost point must stay where it was seen last, as `chaining.chain` has it.
    """

    @property
    def frame_to_frame(self) -> Literal[True]: ...


@dataclass(frozen=True, eq=False)
class Stretch:
    """Some frames of a video, one after another, that a tracker is done with.

    Attributes:
        start: the first of them, counted from the one that points were asked for in.
        tracks: float32 [F N 2] absolute (x, y) in pixels.
        visibility: bool [F N], True = visible.
        confidence: float32 [F N], 0 to 1; None where the tracker has none.
        state: with it and the frames from its `next_frame` on, `Streams.stream` goes on; None after the last frame.
    """

    start: int
    tracks: Float[np.ndarray, "F N 2"]
    visibility: Bool[np.ndarray, "F N"]
    confidence: Float[np.ndarray, "F N"] | None
    state: StreamState | None


@runtime_checkable
class StreamState(Protocol):
    """All that a tracker needs of the frames before `next_frame` to go on."""

    @property
    def next_frame(self) -> int: ...

    def save(self, path: str | Path) -> None:
        """Write it to a file that `Streams.load_state` reads, all of it or nothing."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A tracker that takes a video of any length frame by frame, and can be left and taken up again, bit for bit."""

    def stream(
        self, frames: Iterable[np.ndarray], xy: Float[np.ndarray, "N 2"], state: Any = None
    ) -> Iterator[Stretch]:
        """Follow points `xy` of the first frame through all; with a `state`, frames begin at its `next_frame`."""
        ...

    def load_state(self, path: str | Path) -> StreamState:
        """What `StreamState.save` wrote, or `ValueError`."""
        ...


def make_tracker(name: str, *, weights: str = "", device: str = "auto") -> Tracker:
    """The tracker called `name`, with its defaults.

    Args:
        name: one of `NAMES`: "lucas_kanade", "raft", "pips", "alltracker" (the tiny network) or
            "alltracker-full"; "exact" for rendered videos.
        weights: "" for the published ones, else a path, a URL or a gdown id; lucas_kanade has none.
        device: "auto", "cpu", "cuda" or "cuda:1"; lucas_kanade always computes on the CPU.

    Raises:
        ValueError: unknown name, a device that is not here, or weights given to a tracker that has none.

    >>> tracker = make_tracker("lucas_kanade")
    >>> tracks = tracker(np.zeros((8, 36, 64, 3), np.uint8), np.array([[0, 40.0, 30.0]]))
    >>> tracks.tracks.shape, tracks.visibility.shape
    ((8, 1, 2), (8, 1))
    """
    if name not in MAKERS:
        raise ValueError(f"tracker: expected one of {', '.join(NAMES)}, got {name!r}")
    return resolve_name(MAKERS[name])(weights, device)


def check_on_cpu(name: str, device: str) -> None:
    """Warn that a tracker computes on the CPU, whatever else is asked for.

    Raises:
        ValueError: no name of a device, or of one that is not here.
    """
    if device not in ("auto", "cpu"):
        pick_device(device)
        warnings.warn(f"device: {name} computes on the CPU, {device} makes no difference to it", stacklevel=4)


def check_no_weights(name: str, weights: str) -> None:
    """Raise `ValueError` if weights are given to a tracker that has none."""
    if weights:
        raise ValueError(f"weights: {name} has none, expected '', got {weights!r}")
