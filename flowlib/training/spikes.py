"""Why a loss curve jumps: what was seen around each jump, from a run's own metrics."""

from __future__ import annotations

import torch
from torch import nn


class StatisticsWatch:
    """How far each batch's statistics lie from the running ones, for every batch norm that is in training.

    A running mean moves by momentum × (batch mean - running mean), so its own movement tells; in units of the running
    standard deviation, root mean square over a layer's channels.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        self.means = [module.running_mean.clone() for _, module in self.layers]

    @torch.no_grad()
    def read(self) -> dict:
        """`bn_shift` and `bn_layer`, the largest shift since the last call and where; empty where nothing moved."""
        moving = [i for i, (_, module) in enumerate(self.layers) if module.training]
        if not moving:
            return {}
        shifts = torch.stack([self._shift(i) for i in moving])
        for i in moving:
            self.means[i].copy_(self.layers[i][1].running_mean)
        largest = int(shifts.argmax())
        return {"bn_shift": float(shifts[largest]), "bn_layer": self.layers[moving[largest]][0]}

    def _shift(self, index: int) -> torch.Tensor:
        module = self.layers[index][1]
        moved = (module.running_mean - self.means[index]) / (module.momentum or 0.1)
        return (moved / (module.running_var + module.eps).sqrt()).square().mean().sqrt()
