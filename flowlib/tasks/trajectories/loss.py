"""Loss terms for trajectories: sums over points, and how many points they are over.

Sums and counts are kept apart so that a step over several small batches, or several processes, divides by the number
of all its points and equals one step over a large batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from flowlib.models.protocols import TrajectoryPrediction

Loss = Literal["mse", "l1", "huber", "charbonnier", "laplace", "laplace_2d", "relative"]
SCALED = ("laplace", "laplace_2d", "relative")  # need a prediction with a log_scale
RELATIVE_FLOOR = 0.3  # pixels, about half of what two trackers differ by: "relative" asks for no less
CHARBONNIER_EPSILON = 1e-2  # in units of the target scale; below it the loss is quadratic


@dataclass(frozen=True, eq=False)
class Targets:
    """The truth at the query positions of a batch, for the frames that are predicted.

    Attributes:
        positions: [B N 2] pixels (x, y) in frame 0.
        displacement: [B F N 2] pixels.
        visible: [B F N].
        ahead: [F] which frames lie after frame 0; frame 0's displacement is zero by definition and isn't counted.
        asked: [B N] which points are no padding; None where all of them count.
        weight: [B F N] what each point's displacement counts in the loss; None: all the same.
        trusted: [B F N] which sightings count at all; None: all of them.
    """

    positions: Float[Tensor, "B N 2"]
    displacement: Float[Tensor, "B F N 2"]
    visible: Bool[Tensor, "B F N"]
    ahead: Bool[Tensor, " F"]
    asked: Bool[Tensor, "B N"] | None = None
    weight: Float[Tensor, "B F N"] | None = None
    trusted: Bool[Tensor, "B F N"] | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Any], *, weighted: bool = False, min_confidence: float = 0.0) -> Targets:
        """The targets of a batch as `batch.make_batch` gives it.

        Args:
            batch: with `confidence` if the others are used.
            weighted: the confidence is the weight.
            min_confidence: sightings with less don't count; a point that is called hidden still is.
        """
        positions = batch["queries"][..., 1:]
        displacement = batch["tracks"] - positions[:, None]
        targets = cls(positions, displacement, batch["visibility"], batch["frames"][0] > 0, batch.get("asked"))
        weight = batch["confidence"] if weighted else None
        trusted = batch["confidence"] >= min_confidence if min_confidence else None
        return replace(targets, weight=weight, trusted=trusted)

    @property
    def measured(self) -> Bool[Tensor, "B F N"]:
        """The sightings that an error is measured on; padding never is visible."""
        seen = self.visible & self.ahead[:, None]
        return seen if self.trusted is None else seen & self.trusted

    @property
    def told(self) -> Bool[Tensor, "B F N"]:
        """Where visibility is to be told: everywhere but in padding and where a sighting isn't trusted."""
        told = torch.ones_like(self.visible) if self.asked is None else self.asked[:, None].expand_as(self.visible)
        return told if self.trusted is None else told & (self.trusted | ~self.visible)

    def counted(self, masked: bool) -> Bool[Tensor, "B F N"]:
        """Where the displacement's loss counts."""
        if masked:
            return self.measured
        counted = self.told & self.ahead[:, None]
        return counted if self.trusted is None else counted & self.trusted

    def counts(self, masked: bool) -> Float[Tensor, " 4"]:
        """How many points the sums of `loss_sums` are over: displacement loss, visibility loss, errors in pixels,
        visibility ahead."""
        counted = self.counted(masked)
        weights = counted if self.weight is None else torch.where(counted, self.weight, 0.0)
        numbers = [weights, self.told, self.measured, self.told & self.ahead[:, None]]
        return torch.stack([number.sum().to(self.positions) for number in numbers])


def loss_sums(
    prediction: TrajectoryPrediction,
    targets: Targets,
    *,
    loss: Loss = "l1",
    huber_delta: float = 1.0,
    masked: bool = True,
    scale: float = 1.0,
) -> Float[Tensor, " 4"]:
    """Sums of a batch: displacement loss, visibility loss, error in pixels, rightly told visibility (frames ahead).

    Args:
        prediction: for the frames of `targets`.
        targets: the truth.
        loss, huber_delta: of displacement, see `pointwise`.
        masked: count visible points only.
        scale: pixels that are 1 in the loss.

    Returns:
        Differentiable in the first two; to be divided by `Targets.counts`.
    """
    displacement, logits = prediction.at(targets.positions)
    unit = torch.tensor(scale, dtype=torch.float32, device=displacement.device)
    error = displacement.float() - targets.displacement
    log_scale = None
    if loss in SCALED:
        if prediction.log_scale is None:
            raise ValueError(f"loss: {loss!r} expects a prediction with a log_scale, got one without")
        log_scale = prediction.scale_at(targets.positions)[..., None] - unit.log()
    # Chosen before they are weighed: a zero weight would not take the NaN out of a point that doesn't count.
    counted = targets.counted(masked)
    values = torch.where(counted, pointwise(error / unit, loss, huber_delta, log_scale), 0.0)
    if loss == "relative":
        values = values + relative(error, counted)
    if targets.weight is not None:
        values = values * targets.weight
    visible = targets.visible.float()
    if targets.asked is None and targets.trusted is None:
        visibility = F.binary_cross_entropy_with_logits(logits.float(), visible, reduction="sum")
    else:
        told = F.binary_cross_entropy_with_logits(logits.float(), visible, reduction="none")
        visibility = torch.where(targets.told, told, 0.0).sum()
    with torch.no_grad():
        pixels = torch.where(targets.measured, error.norm(dim=-1), 0.0).sum()
        right = (((logits > 0) == targets.visible) & targets.told & targets.ahead[:, None]).sum()
    return torch.stack([values.sum(), visibility, pixels, right.to(pixels)])


def relative(error: Tensor, counted: Bool[Tensor, "B F N"]) -> Float[Tensor, "B F N"]:
    """Each point's distance [B F N], of errors [B F N 2] in pixels, as a share of its clip's mean distance.

    Its descent is that of the logarithm of that mean: clips count alike, whether things move far in them or little, and
    what is best is best in the geometric mean of clips.
    """
    distance = torch.where(counted, error.norm(dim=-1), 0.0)
    mean = distance.detach().sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)
    return distance / (RELATIVE_FLOOR + mean)[:, None, None]


def pointwise(error: Tensor, loss: Loss, huber_delta: float = 1.0, log_scale: Tensor | None = None) -> Tensor:
    """The loss of each point: error [... 2] in units of the scale -> [...].

    A mean over its two coordinates; "laplace_2d" has one density in the plane, exp(-|e|/b) / (2πb²), whose 90 % radius
    is 3.89 b, and is weighted by √b, held fixed: likelihood alone would give up where much moves, for there b is large
    and its gradient small (Seitzer and others, "On the pitfalls of heteroscedastic uncertainty estimation with
    probabilistic neural networks", ICLR 2022). "relative" is here that density without the weight, which teaches the
    scale and leaves the motion to the function `relative`.
    """
    if loss in ("laplace_2d", "relative"):
        assert log_scale is not None, "the Laplace loss needs a scale"
        spread, distance = log_scale[..., 0], error.norm(dim=-1)
        if loss == "relative":
            return distance.detach() * (-spread).exp() + 2 * spread + math.log(2 * math.pi)
        density = distance * (-spread).exp() + 2 * spread + math.log(2 * math.pi)
        return density * (spread.detach() / 2).exp()
    if loss == "mse":
        values = error**2
    elif loss == "l1":
        values = error.abs()
    elif loss == "huber":
        values = F.huber_loss(error, torch.zeros_like(error), delta=huber_delta, reduction="none")
    elif loss == "charbonnier":
        values = (error**2 + CHARBONNIER_EPSILON**2).sqrt() - CHARBONNIER_EPSILON
    else:  # the negative logarithm of the Laplace density
        assert log_scale is not None, "the Laplace loss needs a scale"
        values = error.abs() * (-log_scale).exp() + log_scale + torch.log(error.new_tensor(2.0))
    return values.mean(dim=-1)


def total_loss(sums: Tensor, counts: Tensor, visibility_weight: float) -> Tensor:
    """The loss that is descended: sums and counts -> a scalar; zero counts (nothing visible) weigh nothing."""
    means = sums[:2] / counts[:2].clamp(min=1)
    return means[0] + visibility_weight * means[1]
