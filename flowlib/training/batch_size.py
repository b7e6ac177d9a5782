"""The largest batch that fits the device, found by trying."""

from __future__ import annotations

import copy
import os
import resource
import sys

import torch
from torch import nn
from torch.utils.data import default_collate

from flowlib.training.config import TrainConfig
from flowlib.training.losses import loss_sums, make_targets, total_loss
from flowlib.training.optimisers import choose_trained, make_optimizer
from flowlib.training.session import make_accelerator
from flowlib.training.stream import ClipStream, to_device


def largest_batch(model: nn.Module, dataset, config: TrainConfig | None = None, *, most: int = 64) -> int:
    """How many clips of `dataset` one training step can take at a time, up to `most`.

    On a GPU steps of growing size are tried until one does not fit. On a CPU, where the system would end the process,
    it stops before: when the memory that the steps so far took says that the next would leave less than a tenth free.

    Args:
        model: what is to be trained; left as it is.
        dataset: its first clip stands for all.
        config: how it is to be trained (parts, optimiser, precision); its batch size is not looked at.
        most: where to stop asking.

    Raises:
        MemoryError: not even one clip fits.

    >>> largest_batch(model, dataset, most=8)   # doctest: +SKIP
    8
    """
    config = TrainConfig() if config is None else config
    accelerator = make_accelerator(config)
    trial = copy.deepcopy(model).to(accelerator.device).train()
    choose_trained(trial, config.trained)
    optimizer = make_optimizer(trial, config)
    network, optimizer = accelerator.prepare(trial, optimizer)
    sample = ClipStream(dataset, model.input_frames)[0]
    room, fits, fails = _Room(accelerator.device), 0, most + 1
    while fails - fits > 1:
        size = min(2 * fits or 1, most) if fails > most else (fits + fails) // 2
        fitting = room.for_clips(size) and _try_step(accelerator, trial, network, optimizer, sample, size, config)
        if fitting:
            fits = size
            room.learn(size)
        else:
            fails = size
    if fits == 0:
        raise MemoryError(f"not even one clip of {tuple(sample['images'].shape[-2:])} fits {accelerator.device}")
    return fits


def _try_step(accelerator, model, network, optimizer, sample: dict, size: int, config: TrainConfig) -> bool:
    """Whether a step on `size` clips fits; on a GPU, by having it fail."""
    try:
        batch = to_device(default_collate([sample] * size), accelerator.device)
        targets = make_targets(batch, model.frames)
        sums = loss_sums(network(batch["images"]), targets, config, model.target_scale)
        accelerator.backward(total_loss(sums, targets.counts(config.masked), config.visibility_weight))
        optimizer.step()
        return True
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        optimizer.zero_grad()
        if accelerator.device.type == "cuda":
            torch.cuda.empty_cache()


class _Room:
    """How many clips the machine's memory takes, foretold from the steps done so far; a GPU needs no foretelling."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.start, self.per_clip = device, _peak_bytes(), 0.0

    def for_clips(self, size: int) -> bool:
        """Whether a step on `size` clips is likely to leave a tenth of the memory free."""
        if self.device.type != "cpu":
            return True
        page = os.sysconf("SC_PAGE_SIZE")
        free, total = page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
        return self.per_clip * size < free - total / 10

    def learn(self, size: int) -> None:
        """Take in the peak after a step on `size` clips."""
        self.per_clip = max(self.per_clip, (_peak_bytes() - self.start) / size)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # the one place where a Mac counts bytes
