"""A small U-Net on a coarse grid, and the head that says how every pixel moves: what the guided models share.

The grid has about the same number of cells whatever the pictures' size. Knows nothing of flow, frames or units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4  # each halves the grid
MULTIPLE = 2 ** (LEVELS - 1)


def check_shape(widths: Sequence[int], cells: int) -> None:
    """Raise `ValueError` unless a U-Net can have these widths, and a grid so many cells."""
    if len(widths) != LEVELS or min(widths) < 8 or any(width % 8 for width in widths):
        raise ValueError(f"widths: expected {LEVELS} multiples of 8, got {list(widths)}")
    if cells < MULTIPLE**2:
        raise ValueError(f"cells: expected at least {MULTIPLE**2}, got {cells}")


def grid_size(size: tuple[int, int], cells: int) -> tuple[int, int]:
    """Rows and columns of a grid of about `cells` cells with the aspect of `size`, multiples of what the U-Net needs;
    never more than there are pixels to fill two a side."""
    factor = (cells / (size[0] * size[1])) ** 0.5
    height, width = (max(1, round(side * min(factor, 0.5) / MULTIPLE)) * MULTIPLE for side in size)
    return height, width


class UNet(nn.Module):
    """Four levels of two convolutions with group norm; features of the finest grid come out."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(inner, outer) for inner, outer in zip((channels, *widths), widths))
        pairs = list(zip(widths[::-1], widths[-2::-1]))
        self.up = nn.ModuleList(_block(coarse + fine, fine) for coarse, fine in pairs)

    def forward(self, values: Tensor) -> Tensor:
        """[B C h w], sides multiples of 8 -> [B widths[0] h w]."""
        kept = []
        for level, block in enumerate(self.down):
            values = block(F.avg_pool2d(values, 2) if level else values)
            kept.append(values)
        kept.pop()
        for block in self.up:
            fine = kept.pop()
            values = block(torch.cat([enlarge(values, fine.shape[-2:]), fine], dim=1))
        return values


class JointHead(nn.Module):
    """Gain, residual, log scale and visibility of all frames at once."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.said = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 5 * frames, 1))
        start_at_zero(self.said[-1])

    def forward(self, features: Tensor) -> Tensor:
        """[B 5F h w] on the grid; `split_said` takes it apart."""
        return self.said(features)


def _block(inner: int, outer: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inner, outer):
        layers += [nn.Conv2d(channels, outer, 3, padding=1, bias=False), nn.GroupNorm(8, outer), nn.ReLU()]
    return nn.Sequential(*layers)


def start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def split_said(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a head said, [B 5F H W] -> [B F H W], [B F 2 H W], [B F H W], [B F H W]."""
    values = values.unflatten(1, (-1, 5))
    return values[:, :, 0], values[:, :, 1:3], values[:, :, 3], values[:, :, 4]


def shrink(values: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.interpolate(values, grid, mode="area")


def enlarge(values: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(values, list(size), mode="bilinear", align_corners=False)
