"""The device a network computes on, from the name a user gives; how busy the machine is; what becomes of its memory."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flowlib.quantities import counted

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


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


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Within this, PyTorch computes on so many threads of the CPU; 0: on as many as before.

    To share an operation out and wait for all costs some 0.1 ms, more than many an operation of a small network takes.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_load() -> str:
    """How many processes wait for a core, or have one, and how many cores this process may use; "" if unknown."""
    try:
        load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # not Linux
        return ""
    busy = ", so it will take longer" if load > cores + 1 else ""
    return f"load {load:.1f} on {counted(cores, 'core')}{busy}"


@functools.cache
def keep_freed_memory() -> bool:
    """Have the C library keep memory that is freed for what is asked for next; whether it does now.

    Otherwise glibc gives a tensor of megabytes back to the kernel as soon as it is freed, and the next one is mapped
    and cleared page by page again, which takes up to a third of the time of training on a CPU. What the user has set
    by MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_ stays; other C libraries are left alone.
    Source: mallopt(3).
    """
    if "glibc" not in platform.libc_ver() or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return False
    library = ctypes.CDLL(None)
    # Both, since to set one of them ends glibc's own adjustment of the other. 32 MiB is the most that it takes.
    return all(
        library.mallopt(name, size) for name, size in ((M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 2**31 - 1))
    )
