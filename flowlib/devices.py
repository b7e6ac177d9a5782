"""The device a network computes on, from the name a user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """The device called `name`: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: no name of a device, or of one that is not here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:1, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: expected one that is here, got {name!r} with {torch.cuda.device_count()} GPUs")
    return device
