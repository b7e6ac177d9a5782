"""The order of things: which clip is read at which step, as a function of the seed and the step alone.

Clips form an endless stream: one shuffled pass over the dataset after the other. A run that is resumed starts in the
middle of it without having kept any state; processes and accumulated batches take consecutive pieces of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from flowlib.augmentation import AugmentConfig, augment

TENSORS = ("tracks", "visibility", "queries")


class ClipStream(Dataset):
    """Position in the stream -> sample: images [n 3 H W] uint8, tracks, visibility, queries, and the clip's name."""

    def __init__(
        self, dataset, input_frames: tuple[int, ...], *, seed: int | None = None, augment: AugmentConfig | None = None
    ) -> None:
        self.dataset, self.input_frames, self.seed, self.augment = dataset, list(input_frames), seed, augment

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict:
        sample = self.dataset[self.index(position)]
        if self.augment is not None:
            sample = augment(sample, self.augment, torch.Generator().manual_seed(mix(self.seed, position)))
        images = sample["frames"][self.input_frames].movedim(-1, 1).contiguous()
        return {"images": images, "clip": str(sample.get("clip", position))} | {key: sample[key] for key in TENSORS}

    def index(self, position: int) -> int:
        """The clip at `position`: of a shuffled pass, or the position itself where there is no seed."""
        if self.seed is None:
            return position
        turn, place = divmod(position, len(self.dataset))
        return int(_order(self.seed, turn, len(self.dataset))[place])


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, length: int) -> np.ndarray:
    return np.random.default_rng((seed, turn)).permutation(length)


def mix(*numbers: int) -> int:
    """One seed out of several numbers, such that neighbours share nothing."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def training_batches(
    stream: ClipStream, *, steps: range, batch_size: int, accumulate: int, process: int, processes: int, workers: int
) -> Iterator[list[dict]]:
    """For each step the list of its `accumulate` batches for this process."""
    places = [
        [((step * accumulate + part) * processes + process) * batch_size + i for i in range(batch_size)]
        for step in steps
        for part in range(accumulate)
    ]
    batches = iter(_loader(stream, places, workers))
    for _ in steps:
        yield [next(batches) for _ in range(accumulate)]


def validation_batches(
    stream: ClipStream, *, clips: int, batch_size: int, process: int, processes: int, workers: int
) -> Iterator[dict]:
    """The first `clips` samples in order (0: all), each once, shared among the processes."""
    mine = range(process, min(clips or len(stream), len(stream)), processes)
    places = [list(mine[i : i + batch_size]) for i in range(0, len(mine), batch_size)]
    return iter(_loader(stream, places, workers))


def _loader(stream: ClipStream, places: list[list[int]], workers: int) -> DataLoader:
    # A generator of its own, because the loader's seeding of workers would otherwise draw from the global one.
    generator = torch.Generator().manual_seed(0)
    pinned = torch.cuda.is_available()
    workers = min(workers, len(places))
    return DataLoader(stream, batch_sampler=places, num_workers=workers, generator=generator, pin_memory=pinned)


def to_device(batch: dict, device: torch.device) -> dict:
    """The batch with its tensors on `device`."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
