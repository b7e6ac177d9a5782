"""AllTracker as a tracker: any clip, points queried in any frame, forwards and backwards, or every pixel of a frame.

All pixels of one frame are estimated together, so points cost little and frames with queries cost much: each such
frame is an anchor of its own, once forwards and once backwards. Only the cells that points lie in are computed to the
end. Memory is that of one window of 16 frames, and the output. Knows nothing of files but a `State`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowlib.devices import pick_device
from flowlib.geometry import inside, pixel_grid
from flowlib.trackers import Stretch, Tracker
from flowlib.trackers.alltracker.arithmetic import Arithmetic, Estimate, margins
from flowlib.trackers.alltracker.loading import load_alltracker
from flowlib.trackers.alltracker.network import (
    CELL,
    ITERS,
    AllTracker,
    check_frame_size,
    check_iters,
    check_length,
    grid_of,
)
from flowlib.trackers.alltracker.sliding import State, slide
from flowlib.tracks import Tracks, check_clip

SURE = 100.0  # a logit whose probability is 1
VISIBLE_ABOVE = 0.6  # of visibility × confidence, in the authors' evaluation

ReportProgress = Callable[[int, int], None]  # (frames done, frames to do)


class DenseTracks(NamedTuple):
    """Where every pixel of one frame goes.

    Attributes:
        flow: float32 [S 2 H W] displacement (x, y) in pixels from the anchor frame, exactly zero in it.
        visibility: bool [S H W], True = visible.
        confidence: float32 [S H W], 0 to 1, the network's own.
    """

    flow: Float[np.ndarray, "S 2 H W"]
    visibility: Bool[np.ndarray, "S H W"]
    confidence: Float[np.ndarray, "S H W"]


class AllTrackerTracker:
    """Follow points with an AllTracker network.

    A point that lies between pixels moves as its four nearest pixels do, blended bilinearly, logits likewise; in its
    query's frame it is exactly where it was asked for. It is visible where visibility × confidence is at least
    `visible_above` and it is on the frame. Frames before a query are followed in the reversed clip.

    Args:
        net: a network, as `load_alltracker` returns it; its weights are taken as they are now.
        iters: how often each window is refined; the authors use 4.
        dtype: of the matrix products: "float32"; "bfloat16", 1.4 times as fast, which with generated weights moved
            points by 0.09 px in the mean and 0.7 at most; on CUDA also "float16" and "tf32", of which nothing has been
            run yet. "float64" is for checks.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1".
        visible_above: the least visibility × confidence of a visible point.

    Raises:
        ValueError: a setting that is none of these.

    >>> tracker = AllTrackerTracker(AllTracker("tiny"), iters=1)
    >>> tracker(np.zeros((2, 128, 128, 3), np.uint8), np.array([[0, 5.0, 6.0]])).tracks.shape
    (2, 1, 2)
    """

    def __init__(
        self,
        net: AllTracker,
        iters: int = ITERS,
        dtype: str = "float32",
        device: str = "auto",
        visible_above: float = VISIBLE_ABOVE,
    ) -> None:
        check_iters(iters)
        if not 0 <= visible_above <= 1:
            raise ValueError(f"visible_above: expected a probability from 0 to 1, got {visible_above}")
        self.device = pick_device(device)
        self.iters, self.dtype, self.visible_above = int(iters), dtype, float(visible_above)
        self.variant, self.sha256 = net.variant, getattr(net, "sha256", "")
        self.arithmetic = Arithmetic(net, dtype, self.device)

    def __call__(self, frames: np.ndarray, queries: np.ndarray, progress: ReportProgress | None = None) -> Tracks:
        """Follow points through a clip.

        Args:
            frames: [S H W 3] uint8, S ≥ 2, H and W at least 65 (128 once padded to multiples of 64).
            queries: [N 3] (t, x, y), N ≥ 0; t in 0..S-1, (x, y) on the frame.
            progress: called with (frames done, frames to do) after each window; every frame with queries goes through
                the clip by itself.

        Returns:
            Tracks, float32; exactly the query's position in the query's frame.

        Raises:
            ValueError: frames or queries that are not these.
        """
        frames, queries = check_clip(frames, queries)
        self._check_frames(frames)
        check_on_frame(queries[:, 1:], frames.shape[1:3])
        S, N = len(frames), len(queries)
        tracks, visibility = np.empty((S, N, 2), np.float32), np.empty((S, N), bool)
        confidence = np.empty((S, N), np.float32)
        anchors = np.unique(queries[:, 0].astype(int))
        done, total = 0, len(anchors) * (S + 1)
        for anchor in anchors:
            points = np.flatnonzero(queries[:, 0] == anchor)
            # Where the network says nothing of the query's frame itself, two frames each way, the query counts.
            tracks[anchor, points], visibility[anchor, points] = queries[points, 1:], True
            confidence[anchor, points] = 1
            # Backwards first, so that where both directions meet, in the query's frame, the forward one has its say.
            for way in (range(anchor, -1, -1), range(anchor, S)):
                if len(way) > 1:
                    for part in self.stream((frames[t] for t in way), queries[points, 1:]):
                        times = np.array(way[part.start : part.start + len(part.tracks)])
                        cells = times[:, None], points
                        tracks[cells], visibility[cells] = part.tracks, part.visibility
                        confidence[cells] = part.confidence
                        done += len(part.tracks)
                        if progress:
                            progress(min(done, total), total)
        return Tracks(tracks, visibility, queries, confidence)

    def track_dense(self, frames: np.ndarray, anchor: int = 0) -> DenseTracks:
        """Follow every pixel of one frame through a clip, both ways.

        Args:
            frames: as `__call__` takes them.
            anchor: the frame whose pixels are followed.

        Raises:
            ValueError: frames that are not these, an anchor that is none of them, or weights that blow up.
        """
        frames, _ = check_clip(frames, np.zeros((0, 3)))
        self._check_frames(frames)
        S, H, W, _ = frames.shape
        if not (int(anchor) == anchor and 0 <= anchor < S):
            raise ValueError(f"anchor: expected a frame from 0 to {S - 1}, got {anchor}")
        field = np.full((S, 4, H, W), SURE, np.float32)
        for way in (range(anchor, -1, -1), range(anchor, S)):
            if len(way) > 1:
                for seen, _ in self._slide(frames[t] for t in way):
                    for i, values in enumerate(self.arithmetic.fields(seen)):
                        field[way[seen.start + i]] = values.cpu().numpy()
        if not np.isfinite(field).all():
            raise ValueError("flow: expected finite numbers, got NaN or infinity")
        field[anchor, :2] = 0
        seen, sure = _probabilities(field[:, 2]), _probabilities(field[:, 3])
        places = pixel_grid((H, W)) + field[:, :2].transpose(0, 2, 3, 1)
        return DenseTracks(field[:, :2], (seen * sure >= self.visible_above) & inside(places, (H, W)), sure)

    def stream(
        self, frames: Iterable[np.ndarray], xy: Float[np.ndarray, "N 2"], state: State | None = None
    ) -> Iterator[Stretch]:
        """Follow points of a video's first frame through all of it, of any length, as its frames come.

        Args:
            frames: uint8 [H W 3] each, the anchor first; with a `state`, those from its `next_frame` on.
            xy: where the points are in the anchor, in pixels.
            state: where an earlier run was left; what follows has the same bits as without the break.

        Yields:
            A `Stretch` for each window; each frame from the anchor on is in one of them. Of two frames it is the second
            alone, as the network has nothing to say of the first.

        Raises:
            ValueError: frames or points that are not these.
        """
        xy = np.asarray(xy, np.float32)
        if xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
            raise ValueError(f"xy: expected finite [N 2], got {list(xy.shape)} or NaN among them")
        for seen, after in self._slide(frames, state):
            check_on_frame(xy, seen.size)
            values = self._at(seen, torch.from_numpy(xy).to(self.device)).cpu().numpy()  # F N 4
            tracks = (xy + values[..., :2]).astype(np.float32)
            if seen.start == 0:
                tracks[0] = xy
            visible, sure = _probabilities(values[..., 2]), _probabilities(values[..., 3])
            visibility = (visible * sure >= self.visible_above) & inside(tracks, seen.size)
            yield Stretch(seen.start, tracks, visibility, sure, after)

    def load_state(self, path: str | Path) -> State:
        """What `State.save` wrote.

        Raises:
            ValueError: another file.
        """
        return State.load(path, self.device)

    def describe(self) -> dict:
        """Name, settings and the SHA-256 of the weights."""
        return {
            "name": "alltracker" if self.variant == "tiny" else f"alltracker-{self.variant}",
            "iters": self.iters,
            "dtype": self.dtype,
            "visible_above": self.visible_above,
            "weights_sha256": self.sha256,
        }

    @torch.inference_mode()
    def _at(self, seen: Estimate, xy: Tensor) -> Float[Tensor, "F N 4"]:
        """Flow and logits at points of the anchor, blended from the four nearest pixels."""
        (H, W), stream = seen.size, self.arithmetic.stream
        (top, _), (left, _) = margins(H), margins(W)
        limit = xy.new_tensor([W - 1, H - 1])
        within = xy.clamp(min=0).minimum(limit)
        corner = within.floor()
        share = (within - corner).to(stream)
        near, far = corner.long(), (corner + 1).minimum(limit).long()
        x = torch.stack([near[:, 0], far[:, 0]], dim=1)[:, None] + left  # N 1 2
        y = torch.stack([near[:, 1], far[:, 1]], dim=1)[:, :, None] + top  # N 2 1
        cells, place = torch.unique((y // CELL) * (grid_of((H, W))[1]) + x // CELL, return_inverse=True)
        pixels = place * CELL**2 + (y % CELL) * CELL + x % CELL  # N 2 2
        results = []
        for values in self.arithmetic.upsample(seen, cells):
            four = values.flatten(0, 1)[pixels]  # N 2 2 4
            above, below = torch.lerp(four[:, :, 0], four[:, :, 1], share[:, None, :1]).unbind(dim=1)
            results.append(torch.lerp(above, below, share[:, 1:]))
        return torch.stack(results)

    def _slide(
        self, frames: Iterable[np.ndarray], state: State | None = None
    ) -> Iterator[tuple[Estimate, State | None]]:
        coming = slide(self.arithmetic, (_checked(frame) for frame in frames), self.iters, state)
        while True:
            with torch.inference_mode():
                part = next(coming, None)
            if part is None:
                return
            yield part

    def _check_frames(self, frames: np.ndarray) -> None:
        check_length(len(frames))
        check_frame_size(*frames.shape[1:3])


def check_on_frame(xy: np.ndarray, size: tuple[int, int]) -> None:
    """Raise `ValueError` unless points [N 2] lie on a frame of `size`: beyond it the network has nothing to say."""
    if (outside := ~inside(xy, size)).any():
        count, first = int(outside.sum()), xy[outside][0].tolist()
        expected = f"(x, y) on the frame of {size[1]} by {size[0]} pixels"
        raise ValueError(f"queries: expected {expected}, got {count} outside it, the first at {first}")


def _checked(frame: np.ndarray) -> np.ndarray:
    if frame.dtype != np.uint8:
        raise ValueError(f"frames: expected uint8 from 0 to 255, got {frame.dtype}")
    return frame


def _probabilities(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a logit of -100 is a probability of 0
        return (1 / (1 + np.exp(-logits))).astype(np.float32)


def make(weights: str, device: str) -> Tracker:
    """For `make_tracker`: the tiny network."""
    return AllTrackerTracker(load_alltracker(weights), device=device)


def make_full(weights: str, device: str) -> Tracker:
    """For `make_tracker`: the full network."""
    return AllTrackerTracker(load_alltracker(weights, variant="full"), device=device)
