"""PIPs as a tracker: any clip, points queried in any frame, the same result for a point whatever else is in the call.

Points are computed in blocks of one fixed size, the last one filled up, because a matrix product's rounding depends
on its shape. A block's size is thus part of the result's last bits, and `describe` names it. Memory holds the
feature maps of the frames in reach, one block, and the tracks. Knows nothing of files.
"""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowlib.devices import pick_device
from flowlib.geometry import inside
from flowlib.trackers import Stretch, Tracker
from flowlib.trackers.pips.chain import Chain, ChainState, FeatureCache, Particles, RollingChain
from flowlib.trackers.pips.fast import Fast
from flowlib.trackers.pips.loading import load_pips
from flowlib.trackers.pips.network import FRAMES, PIPs, Pyramid, pyramid
from flowlib.trackers.products import tensor_cores
from flowlib.tracks import Tracks, check_clip

# Measured on 2 cores (bench/LOG.md): smaller blocks read the weights too often, larger ones outgrow the cache.
# The figure for CUDA is an estimate, not yet measured.
BLOCKS = {"cpu": 128, "cuda": 1024}
SMALLEST_BLOCK = 8
STRETCH = 24  # frames that a video's tracks are told in

ReportProgress = Callable[[int, int], None]  # (points done, points to do)


class PIPsTracker:
    """Follow points with a PIPs network.

    A point sees the eight frames from its query on (the last one repeated where the clip ends), and those before its
    query played backwards. Longer ways are chained as the authors do: each particle restarts from the last of frames
    7 to 2 in which its visibility is above 0.9 (0.88, … until there is one) and keeps its first look.
    A point outside the frame sees the frame's border; it is tracked, and never visible while it is outside.

    Args:
        net: a network, as `load_pips` returns it; its weights are taken as they are at the first call.
        iters: how often tracks are refined; the authors' scripts use 6.
        dtype: of the matrix products, feature network included: "float32"; "bfloat16", 1.7 times as fast where the
            CPU or GPU has it; on CUDA also "float16" and "tf32". Nothing has been run on CUDA yet. With random
            weights of full variance, the worst case, the mean distance from float64 after 3 iterations was 0.03 px
            in float32 (the authors' code: 0.37) and 1.2 px in bfloat16; after 6, 0.94 (1.07) and 1.75 px.
            "float64" is for checks.
        block: points computed together; None for the measured size of the device. Halved, with a warning, if memory
            runs out.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1".
        visible_above: a point is visible where the sigmoid of its logit is above this.

    Raises:
        ValueError: a setting that is none of these.

    >>> tracker = PIPsTracker(PIPs(), iters=1)
    >>> tracker(np.zeros((8, 64, 64, 3), np.uint8), np.array([[0, 5.0, 6.0]])).tracks.shape
    (8, 1, 2)
    """

    def __init__(
        self,
        net: PIPs,
        iters: int = 6,
        dtype: str = "float32",
        block: int | None = None,
        device: str = "auto",
        visible_above: float = 0.5,
    ) -> None:
        if int(iters) != iters or iters < 1:
            raise ValueError(f"iters: expected a whole number from 1 on, got {iters}")
        if block is not None and (int(block) != block or block < 1):
            raise ValueError(f"block: expected a whole number of points from 1 on, or None, got {block}")
        if not 0 <= visible_above < 1:
            raise ValueError(f"visible_above: expected a probability from 0 to below 1, got {visible_above}")
        self.device = pick_device(device)
        self.iters, self.dtype, self.visible_above = int(iters), dtype, float(visible_above)
        self.block = int(block or BLOCKS.get(self.device.type, BLOCKS["cpu"]))
        self.arithmetic = Fast(net, dtype, self.device)
        self.net = self.arithmetic.net

    def __call__(self, frames: np.ndarray, queries: np.ndarray, progress: ReportProgress | None = None) -> Tracks:
        """Follow points through a clip.

        Args:
            frames: [S H W 3] uint8, S ≥ 1, H and W at least 16 strides (64 pixels).
            queries: [N 3] (t, x, y), N ≥ 0; t in 0..S-1.
            progress: called with (points done, points to do) after each block; a point queried in neither the first
                nor the last frame counts twice, once for each direction.

        Returns:
            Tracks, float32; exactly the query's position in the query's frame.

        Raises:
            ValueError: frames or queries that are not these.
        """
        frames, queries = check_clip(frames, queries)
        self.net.check(torch.empty(1, FRAMES, 3, *frames.shape[1:3], device="meta"), self.iters)
        while True:
            try:
                return self._track(frames, queries, progress or (lambda done, total: None))
            except (RuntimeError, MemoryError) as error:
                self._halve_block(error)

    def stream(
        self, frames: Iterable[np.ndarray], xy: np.ndarray, state: ChainState | None = None
    ) -> Iterator[Stretch]:
        """Follow points of a video's first frame through all of it, of any length, as its frames come.

        Args:
            frames: uint8 [H W 3] each, that of the queries first; with a `state`, those from its `next_frame` on.
            xy: [N 2] where the points are in the first frame, in pixels.
            state: where an earlier run was left; what follows has the same bits as without the break.

        Yields:
            A `Stretch` for every `STRETCH` frames; together the same as a call would give.
        """
        xy, coming = np.asarray(xy, np.float32), iter(frames)
        points, like = np.insert(xy, 0, 0, axis=1), self.net.norm.weight
        particles = Particles.at(points, np.arange(len(xy)), self.net.stride, like)
        rows = np.repeat(xy[None].astype(np.float64), RollingChain.REACH, axis=0)
        seen = np.zeros(rows.shape[:2], bool)
        if state is not None:
            particles, rows, seen = particles.on(like, state), state.tracks.copy(), state.visibility.copy()
        chain = RollingChain(self, particles, rows, seen, state.next_frame if state else 0)
        size, done = None, []
        for frame in itertools.chain(coming, (None,)):
            if frame is not None:
                if size is None:
                    size = frame.shape[:2]
                    self.net.check(torch.empty(1, FRAMES, 3, *size, device="meta"), self.iters)
                with torch.inference_mode(), tensor_cores(self.dtype, self.device):
                    chain.maps.append(self._pyramid(frame))
            while chain.maps and (frame is None or len(chain.maps) == RollingChain.REACH):
                with torch.inference_mode(), tensor_cores(self.dtype, self.device):
                    done.append(chain.step())
                if len(done) == STRETCH or not chain.maps:
                    tracks, visibility = (np.stack(part) for part in zip(*done))
                    start, tracks = chain.next_frame - len(done), tracks.astype(np.float32)
                    if start == 0:
                        tracks[0] = xy
                    after = chain.state() if chain.maps else None
                    assert size is not None
                    yield Stretch(start, tracks, visibility & inside(tracks, size), None, after)
                    done = []

    def load_state(self, path: str | Path) -> ChainState:
        """What `ChainState.save` wrote.

        Raises:
            ValueError: another file.
        """
        return ChainState.load(path)

    def describe(self) -> dict:
        """Name, settings and the SHA-256 of the weights."""
        return {
            "name": "pips",
            "iters": self.iters,
            "dtype": self.dtype,
            "block": self.block,
            "stride": self.net.stride,
            "visible_above": self.visible_above,
            "weights_sha256": getattr(self.net, "sha256", ""),
        }

    def _halve_block(self, error: Exception) -> None:
        if not _is_out_of_memory(error) or self.block <= SMALLEST_BLOCK:
            raise error
        self.block = max(SMALLEST_BLOCK, self.block // 2)
        warnings.warn(
            f"out of memory: starting again with blocks of {self.block} points; the last bits of tracks differ "
            "from those of larger blocks",
            stacklevel=3,
        )

    @torch.inference_mode()
    def _track(self, frames: np.ndarray, queries: np.ndarray, progress: ReportProgress) -> Tracks:
        S, N = len(frames), len(queries)
        start_frame = queries[:, 0].astype(int)
        later, earlier = np.flatnonzero(start_frame < S - 1), np.flatnonzero(start_frame > 0)
        if S == 1:
            later = np.arange(N)
        tracks = np.repeat(queries[None, :, 1:].astype(np.float64), S, axis=0)
        visibility = np.zeros((S, N), bool)
        with tensor_cores(self.dtype, self.device):
            chain = Chain(self, FeatureCache(frames, self._pyramid), len(later) + len(earlier), progress)
            # Backwards first, so that where both directions meet, in the query's frame, the forward one has its say.
            for points, step in ((earlier, -1), (later, 1)):
                particles = Particles.at(queries, points, self.net.stride, self.net.norm.weight)
                chain.run(particles, step, tracks, visibility)
        tracks = tracks.astype(np.float32)
        tracks[start_frame, np.arange(N)] = queries[:, 1:]
        return Tracks(tracks, visibility & inside(tracks, frames.shape[1:3]), queries)

    def _pyramid(self, frame: np.ndarray) -> Pyramid:
        image = torch.tensor(frame, device=self.device).permute(2, 0, 1)
        return pyramid(self.arithmetic.features(self.net, image))

    def window(self, pyramids: Sequence[Pyramid], start: Tensor, look: Tensor) -> tuple[Tensor, Tensor]:
        """One block through eight frames: start [n 2] in cells, look [n 128] -> coords [n 8 2], visibility [n 8]."""
        n = len(start)
        filled = torch.arange(self.block, device=self.device).clamp(max=n - 1)
        steps = self.net.refine(pyramids, start[filled], look[filled], self.iters, self.arithmetic)
        ((coords, features),) = deque(steps, maxlen=1)
        logits = self.net.vis_predictor(features)[..., 0]
        return coords[:n], torch.sigmoid(logits[:n])


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA has a class for it; on a CPU torch says so in words only."""
    said = "can't allocate memory" in str(error) or "not enough memory" in str(error)
    return said or isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError))


def make(weights: str, device: str) -> Tracker:
    """For `make_tracker`."""
    return PIPsTracker(load_pips(weights), device=device)
