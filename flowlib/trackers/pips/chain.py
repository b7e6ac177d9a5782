"""Chain windows of eight frames through a clip of any length: which frames, which particles, from where.

Takes particles and whatever can take a block of them through one window. Knows nothing of the network's inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlib.trackers.pips.network import CHANNELS, FRAMES, Pyramid, sample_map
from flowlib.workspace import atomic_write

CACHED_FRAMES = 2 * FRAMES
# The authors' chain_demo: a particle restarts from its last frame of 7 to 2 that is visible enough.
THRESHOLD, THRESHOLD_STEP, EARLIEST = 0.9, 0.02, 2


@runtime_checkable
class Windows(Protocol):
    """What takes particles through eight frames."""

    block: int
    visible_above: float

    def window(self, pyramids: Sequence[Pyramid], start: Tensor, look: Tensor) -> tuple[Tensor, Tensor]:
        """At most `block` particles: start [n 2] in cells, look [n 128] -> coords [n 8 2], visibility [n 8]."""
        ...


@dataclass(frozen=True, eq=False)
class ChainState:
    """All that a chain needs of the frames before `next_frame`, to go on forwards with those from there on.

    Attributes:
        next_frame: counted from the one that points were asked for in.
        frame, fresh, waiting: as those of `Particles`, frames counted from `next_frame`.
        place, look: as those of `Particles`.
        tracks: float64 [F N 2] what is known of the frames from `next_frame` on.
        visibility: bool [F N].
    """

    next_frame: int
    frame: np.ndarray
    fresh: np.ndarray
    waiting: np.ndarray
    place: np.ndarray
    look: np.ndarray
    tracks: np.ndarray
    visibility: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write it to a file (.npz) that `load` reads, all of it or nothing."""
        with atomic_write(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> ChainState:
        """Read what `save` wrote.

        Raises:
            ValueError: another file.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays: dict[str, Any] = {name: data[name] for name in cls.__dataclass_fields__}
            arrays["next_frame"] = int(arrays["next_frame"])
            return cls(**arrays)
        except FileNotFoundError:
            raise
        except (ValueError, TypeError, KeyError, EOFError, OSError, BadZipFile) as error:
            raise ValueError(f"{path}: expected the state of a chain, got another or a damaged file") from error


@dataclass(eq=False)
class Particles:
    """The particles of a chain and where each has got to.

    Attributes:
        column: int [n], which point of the call each one is.
        frame: int [n], the frame from which each goes on.
        place: float64 [n 2] on the device, its (x, y) there, in cells.
        look: [n 128] on the device, the features it was first seen with; zero until then.
        fresh: bool [n], not through any window yet.
        waiting: bool [n], not at the end of the clip yet.
        stride: pixels to a cell.
    """

    column: np.ndarray
    frame: np.ndarray
    place: Tensor
    look: Tensor
    fresh: np.ndarray
    waiting: np.ndarray
    stride: int

    @classmethod
    def at(cls, queries: np.ndarray, points: np.ndarray, stride: int, like: Tensor) -> Particles:
        """The `points` among `queries` [N 3] (t, x, y), at their queries; looks of the dtype and device of `like`."""
        t, xy = queries[points, 0], queries[points, 1:].astype(np.float64)
        place = torch.from_numpy(xy).to(like.device) / stride
        look = torch.zeros(len(points), CHANNELS, dtype=like.dtype, device=like.device)
        new = np.ones(len(points), bool)
        return cls(points, t.astype(int), place, look, new, new.copy(), stride)

    def on(self, like: Tensor, state: ChainState) -> Particles:
        """These particles where a state left them."""
        place = torch.from_numpy(state.place).to(like.device)
        look = torch.from_numpy(state.look).to(like)
        return replace(
            self, place=place, look=look, frame=state.frame.copy(), fresh=state.fresh.copy(),
            waiting=state.waiting.copy(),
        )  # fmt: skip


class FeatureCache:
    """The pyramids of a clip's frames, each made when first asked for; of a long clip the latest used are kept."""

    def __init__(self, frames: np.ndarray, make: Callable[[np.ndarray], Pyramid]) -> None:
        self.frames, self.make = frames, make
        self.kept: dict[int, Pyramid] = {}

    def __getitem__(self, t: int) -> Pyramid:
        made = self.kept.pop(t, None) or self.make(self.frames[t])
        if len(self.kept) >= CACHED_FRAMES:
            self.kept.pop(next(iter(self.kept)))
        self.kept[t] = made
        return made


class RollingChain:
    """Goes forwards through a video whose frames come one by one; keeps the nine that a window needs.

    Nine, since whether a frame comes after the eight of a window decides if it is the last one.

    Args:
        windows: as for `Chain`.
        particles: asked for in the first frame that comes.
        tracks: float64 [9 N 2] where they are, as far as that is known: there, or in a state's frames.
        visibility: bool [9 N].
        start: the number of that frame.
    """

    REACH = FRAMES + 1

    def __init__(
        self, windows: Windows, particles: Particles, tracks: np.ndarray, visibility: np.ndarray, start: int
    ) -> None:
        self.particles, self.tracks, self.visibility, self.next_frame = particles, tracks, visibility, start
        self.maps: list[Pyramid] = []
        self.chain = Chain(windows, self.maps, 0, lambda done, total: None)

    def step(self) -> tuple[np.ndarray, np.ndarray]:
        """Be done with the first of the frames in `maps`: tracks [N 2] and visibility [N] in it."""
        left = len(self.maps)
        self.chain.advance(self.particles, 0, 1, self.tracks[:left], self.visibility[:left])
        done = self.tracks[0].copy(), self.visibility[0].copy()
        self.tracks[:-1], self.visibility[:-1] = self.tracks[1:].copy(), self.visibility[1:].copy()
        self.maps.pop(0)
        self.particles.frame -= 1
        self.next_frame += 1
        return done

    def state(self) -> ChainState:
        """What is needed to go on from here, its arrays its own."""
        arrays = {name: getattr(self.particles, name).copy() for name in ("frame", "fresh", "waiting")}
        arrays |= {name: getattr(self.particles, name).cpu().numpy().copy() for name in ("place", "look")}
        return ChainState(self.next_frame, **arrays, tracks=self.tracks.copy(), visibility=self.visibility.copy())


class Chain:
    """Goes through a clip frame by frame, and takes all particles that wait in a frame on by one window.

    Args:
        windows: takes a block of particles through eight frames.
        maps: the clip's features.
        total: particles in all runs, for `progress`.
        progress: called with (particles done, total) after each block.
    """

    def __init__(
        self,
        windows: Windows,
        maps: FeatureCache | Sequence[Pyramid],
        total: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self.windows, self.maps, self.total, self.progress = windows, maps, total, progress
        self.done = 0

    def run(self, particles: Particles, step: int, tracks: np.ndarray, visibility: np.ndarray) -> None:
        """Follow particles forwards (step 1) or backwards (-1) into their columns of tracks and visibility [S N]."""
        for t in range(len(tracks))[::step]:
            self.advance(particles, t, step, tracks, visibility)

    def advance(self, particles: Particles, t: int, step: int, tracks: np.ndarray, visibility: np.ndarray) -> None:
        """Take all particles that wait in frame `t` through a window."""
        here = np.flatnonzero(particles.waiting & (particles.frame == t))
        for i in range(0, len(here), self.windows.block):
            self._advance(particles, here[i : i + self.windows.block], t, step, tracks, visibility)

    def _advance(
        self, particles: Particles, block: np.ndarray, t: int, step: int, tracks: np.ndarray, visibility: np.ndarray
    ) -> None:
        left = len(tracks) - t if step > 0 else t + 1  # frames from here to the end, this one included
        times = [t + step * min(i, left - 1) for i in range(FRAMES)]
        index = torch.from_numpy(block).to(particles.place.device)
        new = index[torch.from_numpy(particles.fresh[block]).to(index.device)]
        particles.look[new] = sample_map(self.maps[t], particles.place[new]).to(particles.look)
        pyramids = [self.maps[time] for time in times]
        coords, seen = self.windows.window(pyramids, particles.place[index], particles.look[index])
        covered = np.ix_(np.array(times[:left]), particles.column[block])  # pyright: ignore
        tracks[covered] = (coords[:, :left].transpose(0, 1) * particles.stride).cpu().numpy()
        visibility[covered] = (self.windows.visible_above < seen[:, :left].T).cpu().numpy()
        self._restart(particles, block, index, coords, restart_frames(seen), step, left)

    def _restart(
        self,
        particles: Particles,
        block: np.ndarray,
        index: Tensor,
        coords: Float[Tensor, "n 8 2"],
        onward: Int[Tensor, " n"],
        step: int,
        left: int,
    ) -> None:
        particles.place[index] = coords[torch.arange(len(index), device=index.device), onward]
        moved = onward.cpu().numpy()
        particles.frame[block] += step * moved
        # A way of eight frames or fewer is one window, as in the authors' demo; only a longer one is chained, and
        # then up to its last frame.
        one_window = particles.fresh[block] & (left <= FRAMES)
        particles.waiting[block] = ~one_window & (moved < left - 1)
        particles.fresh[block] = False
        self.done += int((~particles.waiting[block]).sum())
        self.progress(self.done, self.total)


def restart_frames(visibility: Float[Tensor, "n 8"]) -> Int[Tensor, " n"]:
    """The frame of its window from which each particle goes on, 2 to 7, from its visibility there (0 to 1)."""
    candidates = visibility[:, EARLIEST:].nan_to_num()
    threshold = torch.full_like(candidates[:, :1], THRESHOLD)
    while True:
        enough = candidates > threshold
        found = enough.any(dim=1, keepdim=True)
        if found.all():
            last = candidates.shape[1] - 1 - enough.flip(1).int().argmax(dim=1)
            return last + EARLIEST
        threshold = torch.where(found, threshold, threshold - THRESHOLD_STEP)
