"""Predictors: what one or two frames say about where every pixel goes. Networks and baselines share one call.

`predictor(images [B n 3 H W]) -> TrajectoryPrediction`, where the n images are the frames `predictor.input_frames`
of the clip, RGB from 0 to 255, uint8 or floating. Knows nothing of files, losses or drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from flowlib.geometry import bilinear_sample


@dataclass(frozen=True, eq=False)
class TrajectoryPrediction:
    """A dense prediction: for every pixel of frame 0 its way through the frames to come.

    Attributes:
        displacement: [B F 2 H W] pixels (x, y) from frame 0, in pixels of the images given.
        visibility_logits: [B F H W]; visible where positive.
        frames: which frame of the clip each of the F entries stands for, ascending; (0, 1, …, S-1) for a whole clip.
        log_scale: [B F H W] logarithm of the Laplace scale in pixels of each displacement, or None.
    """

    displacement: Float[Tensor, "B F 2 H W"]
    visibility_logits: Float[Tensor, "B F H W"]
    frames: tuple[int, ...]
    log_scale: Float[Tensor, "B F H W"] | None = None

    def at(self, xy: Float[Tensor, "B N 2"]) -> tuple[Float[Tensor, "B F N 2"], Float[Tensor, "B F N"]]:
        """Displacement and visibility logits read bilinearly at positions xy [B N 2] of frame 0, in pixels."""
        B, F, _, H, W = self.displacement.shape
        stacked = torch.cat([self.displacement, self.visibility_logits[:, :, None]], dim=2)
        values = bilinear_sample(stacked.reshape(B, F * 3, H, W), xy.to(stacked.dtype))
        values = values.reshape(B, F, 3, -1).movedim(2, -1)  # B F N 3
        return values[..., :2], values[..., 2]


@runtime_checkable
class Predictor(Protocol):
    """What every model and baseline is."""

    input_frames: tuple[int, ...]

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B n 3 H W], one for each of `input_frames`."""
        ...
