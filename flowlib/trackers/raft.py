"""RAFT as a tracker: dense optical flow from each frame to the next, and points carried along by it.

Takes a clip and queries, gives `Tracks`. Knows nothing of videos or shards; the network is in `flowlib.flow`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flowlib.flow import RAFTFlow
from flowlib.geometry import bilinear_sample
from flowlib.trackers import Tracker
from flowlib.trackers.chaining import chain
from flowlib.tracks import Tracks, check_clip

# Forward and backward flow disagree at an occlusion: Sundaram, Brox and Keutzer, "Dense point trajectories by
# GPU-accelerated large displacement optical flow", ECCV 2010, equation (5).
MOTION_SHARE = 0.01
SQUARED_SLACK = 0.5  # px²


class RAFTTracker:
    """Follows points through RAFT's flow from frame to frame, forwards and backwards in time from each query.

    A point is visible while it lies inside the frame and the flow there and back agrees; once lost it stays invisible,
    and stays where it was seen last. Points queried outside the frame are
    invisible and stay where they are. Nothing re-finds a point: errors add up from frame to frame.

    Args:
        weights, device, iters, chunk, precision: as for `flowlib.flow.RAFTFlow`, which says what it may raise.

    >>> tracker = RAFTTracker()                                                   # doctest: +SKIP
    >>> tracker(frames, np.array([[0, 40.0, 30.0]])).tracks.shape                 # doctest: +SKIP
    (8, 1, 2)
    """

    frame_to_frame: Literal[True] = True

    def __init__(
        self,
        weights: str | Path = "",
        *,
        device: str = "auto",
        iters: int = 12,
        chunk: int = 4,
        precision: str = "float32",
    ) -> None:
        self.flow = RAFTFlow(weights, device=device, iters=iters, chunk=chunk, precision=precision)

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        """Follow `queries` [N 3] (t, x, y) through `frames` [S H W 3] uint8 of any size.

        Raises:
            ValueError: as `flowlib.tracks.check_clip`.
        """
        frames, queries = check_clip(frames, queries)
        # one frame, or no points: no step will be asked for, and no flow is needed
        pairs = len(frames) - 1 if len(queries) else 0
        first, second = frames[:pairs], frames[1 : pairs + 1]
        forward, backward = self.flow.pairs(first, second), self.flow.pairs(second, first)

        def step(here: int, there: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            flow, back = forward[min(here, there)], backward[min(here, there)]
            return _step(flow, back, xy) if there > here else _step(back, flow, xy)

        return chain(queries, len(frames), (frames.shape[1], frames.shape[2]), step)

    def describe(self) -> dict[str, Any]:
        """Name, settings and the SHA-256 of the weights."""
        lower = {} if self.flow.precision == "float32" else {"precision": self.flow.precision}
        return {"name": "raft", "iters": self.flow.iters, "weights_sha256": self.flow.weights_sha256} | lower


def _step(flow: Tensor, back: Tensor, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a flow [2 H W] carries points [M 2], and for which of them the flow `back` agrees."""
    there = _read(flow, xy)
    return xy + there, _agree(there, _read(back, xy + there))


def _read(flow: Tensor, xy: np.ndarray) -> np.ndarray:
    """The flow [2 H W] at positions xy [N 2], read bilinearly; beyond the border, the border's."""
    at = torch.from_numpy(np.ascontiguousarray(xy)).to(flow)
    return bilinear_sample(flow[None], at[None])[0].T.cpu().numpy()


def _agree(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether displacements there and back [N 2] cancel, up to a slack that grows with the motion."""
    squared = (there**2).sum(-1) + (back**2).sum(-1)
    return ((there + back) ** 2).sum(-1) <= MOTION_SHARE * squared + SQUARED_SLACK


def make(weights: str, device: str) -> Tracker:
    """For `make_tracker`."""
    return RAFTTracker(weights, device=device)
