"""What is trained, how fast, and the averaged copy of it: parameter groups, schedules, clipping, EMA.

A schedule is a function of the step alone, so a resumed run needs no state of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from flowlib.models.protocols import HasParts
from flowlib.training.config import TrainConfig

TRAINED_PARTS = {
    "last": ("head",),
    "first+last": ("stem", "head"),
    "first+second+last": ("stem", "second", "head"),
    "all": ("stem", "second", "backbone", "head"),
}


def choose_trained(model: nn.Module, trained: str) -> None:
    """Let only the parts that `trained` names take gradients; a held layer's batch norm holds its statistics, too.

    Raises:
        ValueError: some parts of a model that has none.
    """
    if not isinstance(model, HasParts):
        if trained != "all":
            got = type(model).__name__
            raise ValueError(f"trained: {trained!r} expects a model with `parts`, got {got}, which has 'all' only")
        return
    for name, parameters in model.parts.items():
        for parameter in parameters:
            parameter.requires_grad_(name in TRAINED_PARTS[trained])


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser, with one group for each trained part and its own learning rate, kept as `base_lr`.

    On a CPU all parameters are stepped in one call (torch's `fused`): a quarter of the time, in bench/train_step.py an
    eighth of a step. A run that began without it goes on without it, because the saved state says so.
    """
    rates = {"stem": config.stem_learning_rate, "second": config.backbone_learning_rate}
    rates |= {"backbone": config.backbone_learning_rate}
    whole = {"all": [parameter for parameter in model.parameters() if parameter.requires_grad]}
    groups = []
    for name, parameters in (model.parts if isinstance(model, HasParts) else whole).items():
        if name in (*TRAINED_PARTS[config.trained], "all"):
            own = rates.get(name)
            rate = config.learning_rate if own is None else own
            groups.append({"params": parameters, "lr": rate, "base_lr": rate, "name": name})
    fused = all(parameter.device.type == "cpu" for parameter in model.parameters()) or None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, weight_decay=config.weight_decay, amsgrad=config.optimizer == "amsgrad", fused=fused)


def rate_factor(step: int, config: TrainConfig, steps: int = 0) -> float:
    """What the learning rates are multiplied by at optimiser step `step` (0, 1, …) of `steps` (0: the config's).

    >>> [round(rate_factor(step, TrainConfig(steps=4)), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    warmup, steps = config.warmup_steps, steps or config.steps
    if config.schedule == "one_cycle":
        warmup = warmup or math.ceil(steps / 3)
        rise = 0.5 - 0.5 * math.cos(math.pi * min(1.0, step / warmup))
        return (0.04 + 0.96 * rise) * _fall(step - warmup, steps - warmup)
    rise = min(1.0, (step + 1) / (warmup + 1))
    return rise * _fall(step - warmup, steps - warmup) if config.schedule == "cosine" else rise


def _fall(step: int, steps: int) -> float:
    """Half a cosine from 1 at step 0 to 0 at `steps`."""
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, max(0.0, step / max(1, steps))))


def set_rates(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig, steps: int = 0) -> float:
    """Give every group its learning rate for `step`, see `rate_factor`; returns the head's."""
    factor = rate_factor(step, config, steps)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return optimizer.param_groups[-1]["lr"]


def averaged_model(model: nn.Module, decay: float, step: int = 0) -> AveragedModel:
    """An exponential moving average of a model's weights after `step` optimiser steps; statistics are copied.

    Early on the average is short, so that the start fades fast. What isn't trained is equal in both and stays so.
    """

    def average(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        done = int(count)
        for mean, weight in zip(averages, weights):
            mean.lerp_(weight, 1 - min(decay, done / (9 + done)))

    averaged = AveragedModel(model, multi_avg_fn=average)
    averaged.n_averaged.fill_(step + 1)  # from 0 the first update would copy the weights
    return averaged.eval().requires_grad_(False)
