"""The order of samples: which is read at which step, as a function of the seed and the step alone.

Samples form an endless stream: one shuffled pass over the dataset after the other. A run that is resumed starts in the
middle of it without having kept any state; processes and accumulated batches take consecutive pieces of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from flowlib.tasks.protocol import Task


class SampleStream(Dataset):
    """Position in the stream -> the task's example; in order and unchanged where there is no seed."""

    def __init__(self, task: Task, model: nn.Module, dataset: Any, seed: int | None = None) -> None:
        self.task, self.inputs, self.dataset, self.seed = task, task.inputs(model), dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        generator = None if self.seed is None else torch.Generator().manual_seed(mix(self.seed, position))
        index = self.index(position)
        return {"name": str(index)} | self.task.example(self.dataset[index], self.inputs, generator)

    def index(self, position: int) -> int:
        """The sample at `position`: of a shuffled pass, or the position itself where there is no seed."""
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
    stream: SampleStream, *, steps: range, batch_size: int, accumulate: int, process: int, processes: int, workers: int
) -> Iterator[list[dict[str, Any]]]:
    """For each step the list of its `accumulate` batches for this process."""
    places = (  # made as they are asked for: a billion steps may be meant as "until I stop it"
        [((step * accumulate + part) * processes + process) * batch_size + i for i in range(batch_size)]
        for step in steps
        for part in range(accumulate)
    )
    batches = iter(_loader(stream, places, min(workers, len(steps) * accumulate)))
    for _ in steps:
        yield [next(batches) for _ in range(accumulate)]


def validation_batches(
    stream: SampleStream, *, samples: int, batch_size: int, process: int, processes: int, workers: int
) -> Iterator[dict[str, Any]]:
    """The first `samples` samples in order (0: all), each once, shared among the processes."""
    mine = range(process, min(samples or len(stream), len(stream)), processes)
    places = [list(mine[i : i + batch_size]) for i in range(0, len(mine), batch_size)]
    return iter(_loader(stream, places, min(workers, len(places))))


def _loader(stream: SampleStream, places: Iterable[list[int]], workers: int) -> DataLoader:
    # A generator of its own, because the loader's seeding of workers would otherwise draw from the global one.
    generator = torch.Generator().manual_seed(0)
    pinned = torch.cuda.is_available()
    return DataLoader(
        stream, batch_sampler=places, num_workers=workers, generator=generator, pin_memory=pinned,
        collate_fn=stream.task.collate,
    )  # fmt: skip


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on `device`."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
