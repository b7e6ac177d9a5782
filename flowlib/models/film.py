"""Conditioning on an action: `Film`, a scale and a shift for each channel; `ActionChannels`, further input channels.

Both start at zero, so that at first a conditioned network gives exactly what its unconditioned twin gives. An action is
a vector of K probabilities; a class that is known is one-hot, one that is not is 1/K everywhere.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

CHANNELS = ("none", "index", "embedding", "linear")
TOLERANCE = 1e-3  # how far from 1 the sum of an action's probabilities may be


class Film(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018): (1 + γ) x + β, with γ and β linear in the action.

    Args:
        num_actions: K.
        channels: C, of what is modulated.

    >>> x, action = torch.rand(2, 5, 4, 4), torch.eye(3)[:2]
    >>> bool((Film(3, 5)(x, action) == x).all())
    True
    """

    def __init__(self, num_actions: int, channels: int) -> None:
        super().__init__()
        self.layer = zero_linear(num_actions, 2 * channels)

    def forward(self, x: Float[Tensor, "B C ..."], action: Float[Tensor, "B K"]) -> Float[Tensor, "B C ..."]:
        gain, shift = self.layer(action).reshape(*action.shape[:1], 2, -1, *[1] * (x.ndim - 2)).unbind(1)
        return x + gain * x + shift


class ActionChannels(nn.Module):
    """The action as constant channels beside a picture, seen by a convolution of its own that is added to the stem's.

    Args:
        kind: "index": the class's number over K-1, one channel; "embedding": a learned vector of K channels for each
            class; "linear": a linear layer of K channels. Probabilities that are not one-hot give the mean over them.
        num_actions: K.
        like: the stem's convolution; the one here has its output channels, kernel and stride.
    """

    numbers: Tensor

    def __init__(self, kind: str, num_actions: int, like: nn.Conv2d) -> None:
        super().__init__()
        numbers = torch.arange(num_actions)[:, None] / max(1, num_actions - 1)
        self.register_buffer("numbers", numbers, persistent=False)
        self.told = None if kind == "index" else nn.Linear(num_actions, num_actions, bias=kind == "linear")
        channels = 1 if kind == "index" else num_actions
        shape = (channels, like.out_channels, like.kernel_size, like.stride, like.padding)
        self.conv = cast("nn.Conv2d", skip_init(nn.Conv2d, *shape, bias=False))
        nn.init.zeros_(self.conv.weight)

    def forward(self, action: Float[Tensor, "B K"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
        """What is added to the stem's output for pictures of `size`."""
        values = action @ self.numbers if self.told is None else self.told(action)
        return self.conv(values[:, :, None, None].expand(-1, -1, *size))


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer of zeros; draws no random numbers, so that twins made from one seed are alike elsewhere."""
    layer = cast("nn.Linear", skip_init(nn.Linear, inputs, outputs))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def check_action(action: Tensor | None, batch: int, num_actions: int) -> None:
    """Raise `ValueError` unless `action` is [B K] of probabilities that sum to 1, or None where K is 0."""
    if num_actions == 0:
        if action is not None:
            raise ValueError(f"action: expected none, for the model has no actions, got {list(action.shape)}")
        return
    if action is None or list(action.shape) != [batch, num_actions]:
        got = "none" if action is None else list(action.shape)
        raise ValueError(f"action: expected probabilities [{batch} {num_actions}], got {got}")
    off = (action.detach().sum(dim=1) - 1).abs().max() if batch else torch.zeros(())
    if not float(off) <= TOLERANCE or float(action.detach().min()) < -TOLERANCE:
        raise ValueError(f"action: expected probabilities that sum to 1, got a sum {float(off):.3g} off, or below 0")
