"""`OneFrameTrajectories`: from a single picture, what will move, how far, and how sure that is.

A single picture doesn't say which way a thing goes, so the displacement starts at zero and leaves it only where the
picture tells; the scale of the error, learned with it, says where motion is to be expected. Features of early layers of
a pretrained ResNet-50 go into the same U-Net as flow does in `guided`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowlib.geometry import pixel_grid
from flowlib.models.backbones import REDUCED, EarlyStages
from flowlib.models.futures import FuturesHead, futures_config
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.models.unet import JointHead, UNet, check_shape, enlarge, grid_size, shrink, split_said

UNIT_SHARE = 0.01  # of a picture's side (the root of its area): what the network says is in this unit


class OneFrameTrajectories(EarlyStages):
    """Dense trajectories from the first frame of a clip alone.

    Args:
        num_frames: S, the frames of a clip.
        widths: channels of the U-Net's levels.
        cells: about how many cells its grid has; 3840 are 48×80.
        weights: of a ResNet-50, for its first two stages: "none", "auto", "imagenet", or a file, see
            `pretrained.fill_backbone`. They are not trained further.
        stride_in: "3x3" or "1x1", see `fcn.TrajectoryFCN`.
        futures, latent: see `guided.GuidedTrajectories`.

    Raises:
        ValueError: an argument outside these; the message names it.

    >>> OneFrameTrajectories(weights="none")(torch.zeros(1, 1, 3, 64, 96, dtype=torch.uint8)).displacement.shape
    torch.Size([1, 8, 2, 64, 96])
    """

    input_frames = (0,)

    def __init__(
        self,
        *,
        num_frames: int = 8,
        widths: Sequence[int] = (48, 64, 96, 128),
        cells: int = 3840,
        weights: str = "auto",
        stride_in: str = "3x3",
        futures: int = 1,
        latent: str = "none",
    ) -> None:
        if num_frames < 2:
            raise ValueError(f"num_frames: expected 2 or more, got {num_frames}")
        check_shape(widths, cells)
        super().__init__(str(weights), stride_in)
        self.num_frames, self.frames, self.cells = num_frames, tuple(range(num_frames)), cells
        self.config: dict[str, Any] = {"num_frames": num_frames, "widths": list(widths), "cells": cells}
        self.config |= {"stride_in": stride_in} | futures_config(futures, latent)
        self.trunk = UNet(sum(REDUCED) + 2, widths)
        self.head = JointHead(widths[0], num_frames - 1)
        several = futures > 1 or latent != "none"
        self.many = FuturesHead(widths[0], num_frames - 1, futures, latent, apart=True) if several else None

    @property
    def latent(self) -> str:
        return self.config.get("latent", "none")

    def forward(self, images: Tensor, motion: Tensor | None = None) -> TrajectoryPrediction:
        """Predict from images [B 1 3 H W] of frame 0, uint8 or floating from 0 to 255; in training with a latent
        variable, with the true motion, see `futures.LearnsLatent`."""
        if images.ndim != 5 or images.shape[1:3] != (1, 3):
            raise ValueError(f"images: expected shape [B 1 3 H W] of frame 0, got {list(images.shape)}")
        B, _, _, H, W = images.shape
        h, w = grid_size((H, W), self.cells)
        seen, side = self.seen_on(images[:, 0], (h, w)), max(H, W)
        place = (torch.from_numpy(pixel_grid((H, W))).to(seen).permute(2, 0, 1) - side / 2) / side
        features = self.trunk(torch.cat([seen, shrink(place.expand(B, -1, -1, -1), (h, w))], dim=1))
        _, residual, log_scale, visibility = split_said(enlarge(self.head(features), (H, W)))
        unit = UNIT_SHARE * (H * W) ** 0.5
        when = torch.arange(1, self.num_frames, device=images.device).to(residual)[:, None, None] / 3
        moved = unit * when[:, None] * residual
        spread = torch.log(unit * when + 0.2) + log_scale.clamp(-6, 6)
        still = torch.zeros_like(moved[:, :1])
        displacement = torch.cat([still, moved], dim=1)
        logits = torch.cat([torch.full_like(still[:, :, 0], 4.0), 2 + visibility], dim=1)
        spread = torch.cat([torch.full_like(still[:, :, 0], -3.0), spread], dim=1)
        base = TrajectoryPrediction(displacement.float(), logits.float(), self.frames, spread.float())
        if self.many is None:
            return base
        return self.many(features, base, residual.new_full((B,), unit * float(when[-1])), motion=motion)
