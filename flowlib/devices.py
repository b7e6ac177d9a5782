"""The device a network computes on, from the name a user gives; and how busy the machine is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowlib.quantities import counted

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """The device called `name`: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: no name of a device, or of one that is not here.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:1, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = counted(torch.cuda.device_count(), "GPU")
        raise ValueError(f"device: expected one that is here, got {name!r} with {found}")
    return device


def describe_load() -> str:
    """How many processes wait for a core, or have one, and how many cores this process may use; "" if unknown."""
    try:
        load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # not Linux
        return ""
    busy = ", so it will take longer" if load > cores + 1 else ""
    return f"load {load:.1f} on {counted(cores, 'core')}{busy}"
