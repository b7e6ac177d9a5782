"""What flow and pictures show around each place, for a network that sees no further than its own cell.

A network that looks at whole pictures learns from a hundred videos what these videos are like. One that is told, for
each place by itself, how the flow there goes with its surroundings, and how well each candidate motion explains the
second picture, has much less to learn, and does better on other videos (`bench/designs.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowlib.flow import OUTSIDE, WORST
from flowlib.geometry import bilinear_sample, inside, pixel_grid
from flowlib.models.unet import shrink

WINDOWS = (0.02, 0.06, 0.16)  # radii, as shares of the picture's longer side
DROPPED = 0.1  # share of features left out in training


class OwnCell(nn.Module):
    """Two layers for each cell by itself: [B C h w] -> [B width h w]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner in (channels, width):
            layers += [nn.Conv2d(inner, width, 1), nn.GELU(), nn.Dropout(DROPPED)]
        self.said = nn.Sequential(*layers)

    def forward(self, values: Tensor) -> Tensor:
        return self.said(values)


def around_channels(candidates: int) -> int:
    """Channels of `around` with so many candidates."""
    return 3 * len(WINDOWS) + 2 * candidates + 1


def around(grey: Tensor, candidates: Sequence[Tensor], unit: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B C h w] on a grid (h, w), for pictures and motions of H×W pixels.

    Args:
        grey: [B 2 H W] from 0 to 1: the first picture, and the last.
        candidates: motions [B 2 H W] from the first to the last, in pixels; the first one is the flow.
        unit: [B] pixels that count as one.
    """
    flow = shrink(candidates[0], grid)
    scaled = unit[:, None, None, None]
    square = flow.square().sum(dim=1, keepdim=True)
    channels = []
    for share in WINDOWS:
        mean, level = _window(flow, share), _window(square, share)
        spread = (level - mean.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt()
        channels += [(mean - flow) / scaled, spread / scaled]
    unlike = [torch.log1p(_unlike(grey, motion, grid)) for motion in candidates]
    channels += [*unlike, *(other - unlike[0] for other in unlike[1:])]
    channels += [
        torch.log(norm + 0.1)
        for norm in (square.sqrt(), (flow - shrink(candidates[-1], grid)).norm(dim=1, keepdim=True))
    ]
    return torch.cat(channels, dim=1)


def _window(values: Tensor, share: float) -> Tensor:
    """Means over square windows, [B C h w]; beyond the edge the edge goes on."""
    radius = max(1, round(share * max(values.shape[-2:])))
    padded = F.pad(values, (radius,) * 4, mode="replicate")
    for kernel in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        padded = F.avg_pool2d(padded, kernel, stride=1)
    return padded


def _unlike(grey: Tensor, motion: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B 1 h w] Grey levels by which the last picture, taken from where a motion leads, differs from the first."""
    B, _, H, W = motion.shape
    at = (motion.movedim(1, -1) + torch.from_numpy(pixel_grid((H, W))).to(motion)).flatten(1, 2)
    there = bilinear_sample(grey[:, 1:], at).reshape(B, 1, H, W)
    differs = (255 * (grey[:, :1] - there).abs()).clamp(max=WORST)
    stays = inside(at, (H, W)).reshape(B, 1, H, W)
    return _window(shrink(torch.where(stays, differs, differs.clamp(min=OUTSIDE)), grid), WINDOWS[0])
