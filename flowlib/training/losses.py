"""What a prediction is held against, and by how much it fails: sums over points, and how many points they are over.

Sums and counts are kept apart so that a step over several small batches, or several processes, divides by the number
of all its points and equals one step over a large batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from flowlib.geometry import bilinear_sample
from flowlib.models import TrajectoryPrediction
from flowlib.training.config import TrainConfig

CHARBONNIER_EPSILON = 1e-2  # in units of the target scale; below it the loss is quadratic


@dataclass(frozen=True, eq=False)
class Targets:
    """The truth at the query positions of a batch, for the frames that are predicted.

    Attributes:
        positions: [B N 2] pixels (x, y) in frame 0.
        displacement: [B F N 2] pixels.
        visible: [B F N].
        ahead: [F] which frames lie after frame 0; frame 0's displacement is zero by definition and isn't counted.
    """

    positions: Float[Tensor, "B N 2"]
    displacement: Float[Tensor, "B F N 2"]
    visible: Bool[Tensor, "B F N"]
    ahead: Bool[Tensor, F]

    @property
    def measured(self) -> Bool[Tensor, "B F N"]:
        """The sightings that an error is measured on."""
        return self.visible & self.ahead[:, None]

    def counts(self, masked: bool) -> Float[Tensor, 3]:
        """How many points the sums of `loss_sums` are over: displacement loss, visibility loss, errors in pixels."""
        counted = self.measured if masked else self.ahead[:, None].expand_as(self.visible)
        numbers = [counted.sum(), torch.tensor(self.visible.numel()), self.measured.sum()]
        return torch.stack([number.to(self.positions) for number in numbers])


def make_targets(batch: dict, frames: tuple[int, ...]) -> Targets:
    """The targets of a batch of samples (tracks [B S N 2], visibility [B S N], queries [B N 3]) for `frames`."""
    chosen = list(frames)
    positions = batch["queries"][..., 1:]
    displacement = batch["tracks"][:, chosen] - positions[:, None]
    ahead = torch.tensor([frame > 0 for frame in frames], device=positions.device)
    return Targets(positions, displacement, batch["visibility"][:, chosen], ahead)


def loss_sums(
    prediction: TrajectoryPrediction, targets: Targets, config: TrainConfig, scale: Tensor
) -> Float[Tensor, 4]:
    """Sums of a batch: displacement loss, visibility loss, error in pixels, rightly told visibility (frames ahead).

    Args:
        prediction: for the frames of `targets`.
        targets: the truth.
        config: names the loss, and whether invisible points count.
        scale: pixels that are 1 in the loss.

    Returns:
        Differentiable in the first two; to be divided by `Targets.counts` (the last one by the points ahead).
    """
    displacement, logits = prediction.at(targets.positions)
    error = displacement.float() - targets.displacement
    counted = targets.measured if config.masked else targets.ahead[:, None].expand_as(targets.visible)
    log_scale = None
    if config.loss == "laplace":
        log_scale = bilinear_sample(prediction.log_scale, targets.positions)[..., None] - scale.log()
    # Chosen before they are weighed: a zero weight would not take the NaN out of a point that doesn't count.
    values = torch.where(counted, pointwise(error / scale, config, log_scale), 0.0)
    visible = targets.visible.float()
    visibility = F.binary_cross_entropy_with_logits(logits.float(), visible, reduction="sum")
    with torch.no_grad():
        pixels = torch.where(targets.measured, error.norm(dim=-1), 0.0).sum()
        right = (((logits > 0) == targets.visible) & targets.ahead[:, None]).sum()
    return torch.stack([values.sum(), visibility, pixels, right.to(pixels)])


def pointwise(error: Tensor, config: TrainConfig, log_scale: Tensor | None = None) -> Tensor:
    """The loss of each point, a mean over its two coordinates: error [... 2] in units of the scale -> [...]."""
    if config.loss == "mse":
        values = error**2
    elif config.loss == "l1":
        values = error.abs()
    elif config.loss == "huber":
        values = F.huber_loss(error, torch.zeros_like(error), delta=config.huber_delta, reduction="none")
    elif config.loss == "charbonnier":
        values = (error**2 + CHARBONNIER_EPSILON**2).sqrt() - CHARBONNIER_EPSILON
    else:  # the negative logarithm of the Laplace density
        values = error.abs() * (-log_scale).exp() + log_scale + torch.log(error.new_tensor(2.0))
    return values.mean(dim=-1)


def total_loss(sums: Tensor, counts: Tensor, visibility_weight: float) -> Tensor:
    """The loss that is descended: [4] sums and [3] counts -> a scalar; zero counts (nothing visible) weigh nothing."""
    means = sums[:2] / counts[:2].clamp(min=1)
    return means[0] + visibility_weight * means[1]


def fit_target_scale(dataset, frames: tuple[int, ...], most: int = 64) -> float:
    """Root mean square of a coordinate's displacement over visible points, in pixels, from up to `most` clips.

    A set in which nothing moves has the scale 1.
    """
    chosen = range(0, len(dataset), max(1, len(dataset) // most))
    total, count = 0.0, 0
    for index in list(chosen)[:most]:
        sample = dataset[index]
        targets = make_targets({k: sample[k][None] for k in ("tracks", "visibility", "queries")}, frames)
        moved = targets.displacement[targets.measured].double()
        total, count = total + float((moved**2).sum()), count + moved.numel()
    scale = (total / count) ** 0.5 if count else 0.0
    return scale if scale > 1e-3 else 1.0
