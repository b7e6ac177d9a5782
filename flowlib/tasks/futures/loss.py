"""Loss of several futures: the best one of each clip learns its truth, and the weights learn which one that was.

Winner takes all over the whole clip (Guzman-Rivera and others 2012), with a small share for the losers, so that none is
left behind that never wins (Rupprecht and others 2017). Sums and counts are kept apart as in `trajectories.loss`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flowlib.geometry import bilinear_sample
from flowlib.models.futures import Departures
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.trajectories.loss import SCALED, Loss, Targets, pointwise

SUMS = ("displacement", "visibility", "pixels", "right", "best pixels", "choice", "kl")


def futures_sums(
    prediction: TrajectoryPrediction,
    targets: Targets,
    *,
    loss: Loss = "l1",
    huber_delta: float = 1.0,
    masked: bool = True,
    scale: float = 1.0,
    relaxed: float = 0.05,
    kl_warmup: int = 0,
) -> Float[Tensor, " 7"]:
    """Sums of a batch, to be divided by `futures_counts`: losses of displacement and visibility, error of the likeliest
    future in pixels, rightly told visibility, error of each clip's best future in pixels, cross-entropy of the weights
    in nats, and divergence of the posterior in nats, of which the warm-up lets so much through.

    Args:
        prediction: for the frames of `targets`.
        targets: the truth.
        loss, huber_delta, masked, scale: as in `trajectories.loss.loss_sums`.
        relaxed: share of the loss that the losers have between them.
        kl_warmup: batches over which the divergence comes to count in full.
    """
    xy = targets.positions
    weights = prediction.weights
    weights = prediction.displacement.new_ones(len(xy), 1) if weights is None else weights
    error = prediction.futures_at(xy).float() - targets.displacement[:, None]  # B K F N 2
    unit = torch.tensor(scale, dtype=torch.float32, device=error.device)
    log_scale = None
    if loss in SCALED:
        if prediction.log_scale is None:
            raise ValueError(f"loss: {loss!r} expects a prediction with a log_scale, got one without")
        log_scale = bilinear_sample(prediction.log_scale, xy)[:, None, ..., None] - unit.log()
    measured = targets.measured
    with torch.no_grad():
        pixels = torch.where(measured[:, None], error.norm(dim=-1), 0.0).sum(dim=(2, 3))  # B K
        winner = pixels.argmin(dim=1)
        best = pixels.gather(1, winner[:, None]).sum()
        chosen = pixels.gather(1, weights.argmax(dim=1, keepdim=True)).sum()
    values = torch.where(targets.counted(masked)[:, None], pointwise(error / unit, loss, huber_delta, log_scale), 0.0)
    if targets.weight is not None:
        values = values * targets.weight[:, None]
    K = weights.shape[1]
    shares = torch.full_like(weights, relaxed / (K - 1) if K > 1 else 1.0)
    shares.scatter_(1, winner[:, None], 1.0 - relaxed if K > 1 else 1.0)
    displacement = (shares * values.sum(dim=(2, 3))).sum()
    logits = bilinear_sample(prediction.visibility_logits, xy.to(prediction.visibility_logits)).float()
    told = F.binary_cross_entropy_with_logits(logits, targets.visible.float(), reduction="none")
    visibility = torch.where(targets.told, told, 0.0).sum()
    right = (((logits > 0) == targets.visible) & targets.told & targets.ahead[:, None]).sum()
    likely = weights.gather(1, winner[:, None])[:, 0].clamp(min=1e-9)
    choice = torch.where(measured.any(dim=(1, 2)), -likely.log(), 0.0).sum()
    kl = displacement.new_zeros(())
    if isinstance(prediction, Departures) and prediction.kl is not None and prediction.batches is not None:
        kl = prediction.kl.sum() * (prediction.batches / max(kl_warmup, 1)).clamp(max=1)
    return torch.stack([displacement, visibility, chosen, right.to(chosen), best, choice, kl])


def futures_counts(targets: Targets, masked: bool) -> Float[Tensor, " 5"]:
    """What `futures_sums` are over: the four of `Targets.counts`, and clips in which something was seen."""
    clips = targets.measured.any(dim=(1, 2)).sum()
    return torch.cat([targets.counts(masked), clips.reshape(1).to(targets.positions)])
