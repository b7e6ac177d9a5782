"""The largest batch that fits the device, found by trying."""

from __future__ import annotations

import copy
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import find_executable_batch_size
from torch import nn

from flowlib.tasks.protocol import Task
from flowlib.training.config import TrainConfig
from flowlib.training.optim import choose_trained, make_optimizer
from flowlib.training.session import make_accelerator
from flowlib.training.stream import SampleStream, to_device


def largest_batch(
    model: nn.Module, task: Task, dataset: Any, config: TrainConfig | None = None, *, most: int = 64
) -> int:
    """How many samples of `dataset` one training step can take at a time, up to `most`.

    On a GPU steps of shrinking size are tried until one fits, each a tenth smaller. On a CPU, where the system would
    end the process, they grow, and it stops before: when the memory that the steps so far took says that the next
    would leave less than a tenth free.

    Args:
        model: what is to be trained; left as it is.
        task: what is to be learned.
        dataset: its first sample stands for all.
        config: how it is to be trained (parts, optimiser, precision); its batch size is not looked at.
        most: where to stop asking.

    Raises:
        MemoryError: not even one sample fits.

    >>> largest_batch(model, task, dataset, most=8)   # doctest: +SKIP
    8
    """
    config = TrainConfig() if config is None else config
    accelerator = make_accelerator(config)
    trial = copy.deepcopy(model).to(accelerator.device).train()
    choose_trained(trial, config.trained)
    network, optimizer = accelerator.prepare(trial, make_optimizer(trial, config))
    constants = task.prepare(trial, dataset)
    sample = SampleStream(task, trial, dataset)[0]

    def step(batch_size: int) -> int:
        try:
            batch = to_device(task.collate([sample] * batch_size), accelerator.device)
            accelerator.backward(task.total_loss(task.sums(network, batch, constants), task.counts(batch)))
            optimizer.step()
            return batch_size
        finally:
            optimizer.zero_grad()

    fits = _grow(step, most) if accelerator.device.type == "cpu" else _shrink(step, most)
    if fits == 0:
        raise MemoryError(f"not even one {task.unit} fits {accelerator.device}")
    return fits


def _shrink(step: Callable[[int], int], most: int) -> int:
    """The first size, from `most` down, at which a step doesn't run out of memory; 0 if there is none."""
    try:
        return find_executable_batch_size(step, starting_batch_size=most)()
    except RuntimeError as error:
        if "reached zero" in str(error):
            return 0
        raise


def _grow(step: Callable[[int], int], most: int) -> int:
    """The largest size that is likely to leave a tenth of the memory free, told from the steps of smaller sizes."""
    start, per_sample, fits, fails = _peak_bytes(), 0.0, 0, most + 1
    while fails - fits > 1:
        size = min(2 * fits or 1, most) if fails > most else (fits + fails) // 2
        free, total = _memory_bytes()
        if per_sample * size < free - total / 10:
            fits = step(size)
            per_sample = max(per_sample, (_peak_bytes() - start) / size)
        else:
            fails = size
    return fits


def _memory_bytes() -> tuple[int, int]:
    """What can be had, the cache of files included, which the system gives back when asked; and all there is."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(known["MemAvailable"].split()[0])
    except (OSError, KeyError):  # not Linux
        free = page * os.sysconf("SC_AVPHYS_PAGES")
    return free, page * os.sysconf("SC_PHYS_PAGES")


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # the one place where a Mac counts bytes
