"""Windows of 16 frames that slide over a video by 8: which frames, what they start from, what passes on.

A video goes in frame by frame and each frame's estimate comes out once, from the window that saw it first. Memory is
that of one window whatever the video's length. What passes from a window to the next is a `State`, which can be
saved and taken up again, in another process, with the same bits. Knows nothing of the network's inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flowlib.trackers.alltracker.arithmetic import Arithmetic, Encoded, Estimate
from flowlib.trackers.alltracker.network import FRAMES, check_frame_size, check_length
from flowlib.workspace import atomic_write

STEP = FRAMES // 2


@dataclass(frozen=True, eq=False)
class State:
    """All that the next window needs of those before it: with the frames from `next_frame` on, a video goes on.

    Attributes:
        next_frame: the first frame no window has seen, counted from the anchor.
        size: (height, width) of the frames, in pixels.
        anchor: [cells C] features of the anchor frame.
        features: [8 cells C] of the 8 frames before `next_frame`.
        flow: [8 cells 2] their flow in cells, where the next window starts.
        logits: [8 cells 2] their visibility and confidence, before the factor of the upsampling.
    """

    next_frame: int
    size: tuple[int, int]
    anchor: Float[Tensor, "cells C"]
    features: Float[Tensor, "8 cells C"]
    flow: Float[Tensor, "8 cells 2"]
    logits: Float[Tensor, "8 cells 2"]

    def save(self, path: str | Path) -> None:
        """Write it to a file (.npz) that `load` reads, all of it or nothing."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays = {name: value.cpu().numpy() if isinstance(value, Tensor) else value for name, value in arrays.items()}
        with atomic_write(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType] (its stub takes them for options)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> State:
        """Read what `save` wrote.

        Raises:
            ValueError: another file.
        """
        names = {field.name for field in fields(cls)}
        try:
            with np.load(path, allow_pickle=False) as data:
                found = {name: data[name] for name in names & set(data)}
        except (ValueError, EOFError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path}: expected the state of a window, got another or a damaged file") from error
        if missing := sorted(names - set(found)):
            raise ValueError(f"{path}: expected the state of a window, got a file without {', '.join(missing)}")
        tensors = {name: torch.from_numpy(found[name]).to(device) for name in ("anchor", "features", "flow", "logits")}
        height, width = found["size"].tolist()
        return cls(int(found["next_frame"]), (height, width), **tensors)


def slide(
    arithmetic: Arithmetic, frames: Iterable[Tensor | np.ndarray], iters: int, state: State | None = None
) -> Iterator[tuple[Estimate, State | None]]:
    """Go through a video; frames are read as they are needed.

    Args:
        arithmetic: of the network.
        frames: [H W 3] each, 0 to 255, all of one size, the anchor first; with a `state`, those from its `next_frame`.
        iters: how often each window is refined.
        state: where an earlier run was left.

    Yields:
        The estimate of the frames each window saw first, and the state from which the next window goes on, None after
        the last. Two frames alone give the second alone, as published.

    Raises:
        ValueError: fewer than 2 frames, frames that are too small, of different sizes or not those of the state.
    """
    coming = iter(frames)
    fresh = STEP if state else 0  # where in the window the frames begin that none saw before
    batch = list(islice(coming, FRAMES - fresh))
    if state is None:
        check_length(len(batch))
        check_frame_size(*batch[0].shape[:2])
        size, start = (int(batch[0].shape[0]), int(batch[0].shape[1])), 0
        encode = _Encoder(arithmetic, size)
        window = [anchor := encode(batch.pop(0))]
        if len(batch) == 1:
            zero = arithmetic.zeros(1, size)
            pair = arithmetic.window(anchor, [encode(batch[0])], zero, zero, iters, slice(0, 1))
            yield Estimate(1, size, *pair), None
            return
        flow = logits = arithmetic.zeros(FRAMES, size)
    else:
        size, start = state.size, state.next_frame - STEP
        encode = _Encoder(arithmetic, size)
        anchor = arithmetic.encoded(state.anchor, size)
        window = [arithmetic.encoded(features, size) for features in state.features]
        flow, logits = arithmetic.carried(state.flow), arithmetic.carried(state.logits)
        if not batch:
            raise ValueError(f"frames: expected those from {state.next_frame} on, got none")
    while batch:
        window += [encode(frame) for frame in batch]
        batch = list(islice(coming, STEP))
        known = len(window)
        window += window[-1:] * (FRAMES - known)
        hidden, flow, logits = arithmetic.window(
            anchor, window, flow, logits, iters, slice(fresh, FRAMES if batch else known)
        )
        after = None
        if batch:
            features = torch.stack([frame.rows for frame in window[STEP:]])
            after = State(start + FRAMES, size, anchor.rows, features, flow[STEP:].clone(), logits[STEP:].clone())
        shown = slice(fresh, known)
        yield Estimate(start + fresh, size, hidden[shown], flow[shown], logits[shown]), after
        window, start, fresh = window[STEP:], start + STEP, STEP
        flow, logits = arithmetic.carried(flow[STEP:]), arithmetic.carried(logits[STEP:])


class _Encoder:
    """Encodes frames of one size."""

    def __init__(self, arithmetic: Arithmetic, size: tuple[int, int]) -> None:
        self.arithmetic, self.size = arithmetic, size

    def __call__(self, frame: Tensor | np.ndarray) -> Encoded:
        if tuple(frame.shape) != (*self.size, 3):
            raise ValueError(f"frames: expected {[*self.size, 3]} as the first, got {list(frame.shape)}")
        return self.arithmetic.encode(torch.as_tensor(frame))
