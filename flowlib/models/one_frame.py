"""`OneFrameTrajectories`: from a single picture, what will move, how far, and how sure that is.

A single picture doesn't say which way a thing goes, so the displacement starts at zero and leaves it only where the
picture tells; the scale of the error, learned with it, says where motion is to be expected. Features of early layers of
a pretrained ResNet-50 go into the same U-Net as flow does in `guided`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowlib.geometry import pixel_grid
from flowlib.models.backbones import MEAN, STD, make_backbone
from flowlib.models.futures import FuturesHead, futures_config
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.models.unet import JointHead, UNet, check_shape, enlarge, grid_size, shrink, split_said

UNIT_SHARE = 0.01  # of a picture's side (the root of its area): what the network says is in this unit
REDUCED = (32, 64)  # channels kept of the features of stride 4 and 8


class OneFrameTrajectories(nn.Module):
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

    mean: Tensor
    std: Tensor
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
        super().__init__()
        if num_frames < 2:
            raise ValueError(f"num_frames: expected 2 or more, got {num_frames}")
        check_shape(widths, cells)
        self.num_frames, self.frames, self.cells = num_frames, tuple(range(num_frames)), cells
        self.config: dict[str, Any] = {"num_frames": num_frames, "widths": list(widths), "cells": cells}
        self.config |= {"stride_in": stride_in} | futures_config(futures, latent)
        made = make_backbone("fcn_resnet50", head="fine", channels=1, weights=str(weights), stride_in=stride_in)
        self.weights = made.weights
        layers = dict(made.features.named_children())
        self.early = nn.Sequential(*[layers[name] for name in ("conv1", "bn1", "relu", "maxpool", "layer1")])
        self.late = layers["layer2"]
        for part in (self.early, self.late):
            part.requires_grad_(False)
        self.reduce = nn.ModuleList(nn.Conv2d(inner, outer, 1) for inner, outer in zip((256, 512), REDUCED))
        self.trunk = UNet(sum(REDUCED) + 2, widths)
        self.head = JointHead(widths[0], num_frames - 1)
        several = futures > 1 or latent != "none"
        self.many = FuturesHead(widths[0], num_frames - 1, futures, latent, apart=True) if several else None
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(3, 1, 1) * 255, persistent=False)

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
        picture = (images[:, 0].to(self.mean.dtype) - self.mean) / self.std
        with torch.no_grad():
            fine = self.early(F.interpolate(picture, (4 * h, 4 * w), mode="bilinear", align_corners=False))
            coarse = self.late(fine)
        side = max(H, W)
        place = (torch.from_numpy(pixel_grid((H, W))).to(picture).permute(2, 0, 1) - side / 2) / side
        told = [
            self.reduce[0](fine),
            enlarge(self.reduce[1](coarse), (h, w)),
            shrink(place.expand(B, -1, -1, -1), (h, w)),
        ]
        features = self.trunk(torch.cat(told, dim=1))
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

    def train(self, mode: bool = True) -> OneFrameTrajectories:
        """Training or evaluation mode; the pretrained stages stay as they are."""
        super().train(mode)
        self.early.eval()
        self.late.eval()
        return self
