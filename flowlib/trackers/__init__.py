"""Trackers: one protocol, one file for each.

A tracker takes a clip and the points to follow, and says where they go and when they can be seen:
`tracker(frames [S H W 3] uint8, queries [N 3] (t, x, y)) -> Tracks`. Positions are in pixels of those frames.
A point's result must not depend on the other points of the call. Trackers know nothing of videos or shards.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from flowlib.tracks import Tracks, check_queries

NAMES = ("lucas_kanade", "raft", "pips")


@runtime_checkable
class Tracker(Protocol):
    """What every tracker is: a callable, and a description of itself that goes into the shards."""

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        """Follow `queries` [N 3] (t, x, y) through `frames` [S H W 3] uint8."""
        ...

    def describe(self) -> dict:
        """Name, settings and the SHA-256 of the weights ("" where there are none), as plain JSON values."""
        ...


def make_tracker(name: str, *, weights: str = "", device: str = "auto") -> Tracker:
    """The tracker called `name`, with its defaults.

    Args:
        name: "lucas_kanade", "raft" or "pips".
        weights: "" for the published ones, else a path, a URL or a gdown id; lucas_kanade has none.
        device: "auto", "cpu", "cuda" or "cuda:1"; lucas_kanade always computes on the CPU.

    Raises:
        ValueError: unknown name, or weights given to a tracker that has none.
    """
    if name == "lucas_kanade":
        from flowlib.trackers.lucas_kanade import LucasKanadeTracker

        if weights:
            raise ValueError(f"weights: lucas_kanade has none, expected '', got {weights!r}")
        return LucasKanadeTracker()
    if name == "raft":
        from flowlib.trackers.raft import RAFTTracker

        return RAFTTracker(weights, device=device)
    if name == "pips":
        from flowlib.trackers.pips import PIPsTracker, load_pips

        return PIPsTracker(load_pips(weights), device=device)
    raise ValueError(f"tracker: expected one of {', '.join(NAMES)}, got {name!r}")


def check_clip(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The door of every tracker: (frames uint8 [S H W 3], queries float32 [N 3]), or `ValueError`.

    Points may lie outside the frame; each tracker says what it makes of them. No points at all are allowed.
    """
    if isinstance(frames, (list, tuple)) and len({np.shape(frame) for frame in frames}) > 1:
        raise ValueError(f"frames: expected one size, got {sorted({np.shape(frame) for frame in frames})}")
    frames, queries = np.asarray(frames), np.asarray(queries)
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames: expected shape [S H W 3], got {list(frames.shape)}")
    if frames.dtype != np.uint8:
        raise ValueError(f"frames: expected uint8 from 0 to 255, got {frames.dtype}")
    if queries.dtype.kind not in "fiu":
        raise ValueError(f"queries: expected numbers, got {queries.dtype}")
    check_queries(queries, len(frames))
    return frames, queries.astype(np.float32, copy=False)
