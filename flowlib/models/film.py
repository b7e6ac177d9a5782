"""Conditioning on an action: `Film`, a scale and a shift for each channel; `ActionChannels`, further input channels.

Both start at zero, so that at first a conditioned network gives exactly what its unconditioned twin gives. An action is
a vector of K probabilities; a class that is known is one-hot, one that is not is 1/K everywhere. `Retold` is a control:
a conditioned network that is told something else than what is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

from flowlib.models.protocols import Role

CHANNELS = ("none", "index", "embedding", "linear")
TELLINGS = ("true", "uniform", "wrong")
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


def retold(action: Float[Tensor, "B K"], telling: str) -> Float[Tensor, "B K"]:
    """What a network is told where `action` is true: "true" (the same), "uniform" (1/K everywhere: nothing), or "wrong"
    (the partner: classes 2k and 2k+1 change places; a last one without partner becomes the one before).

    Raises:
        ValueError: another word.

    >>> retold(torch.eye(4)[:2], "wrong").argmax(dim=1).tolist()
    [1, 0]
    """
    if telling not in TELLINGS:
        raise ValueError(f"telling: expected one of {', '.join(TELLINGS)}, got {telling!r}")
    K = action.shape[1]
    if telling == "uniform":
        return torch.full_like(action, 1 / K)
    if telling == "true":
        return action
    partners = [k ^ 1 if k ^ 1 < K else max(0, k - 1) for k in range(K)]
    return action @ torch.eye(K, device=action.device, dtype=action.dtype)[partners]


class Retold(nn.Module):
    """A conditioned network that is told the truth, nothing, or what is wrong: what its gain is to be compared with.

    Args:
        network: called with its inputs and an action [B K].
        telling: what it is told of that, see `retold`.
    """

    def __init__(self, network: Any, telling: str) -> None:
        super().__init__()
        retold(torch.ones(1, 1), telling)
        self.network, self.telling, self.num_actions = network, telling, network.num_actions
        self.config: dict[str, Any] = {"network": network.config, "telling": telling}

    @property
    def role(self) -> Role:
        return "oracle" if self.telling == "true" else "baseline"

    @property
    def input_frames(self) -> Sequence[int]:
        """Of a network of trajectories."""
        return self.network.input_frames

    @property
    def trained_on(self) -> Sequence[str]:
        return self.network.trained_on

    def forward(self, inputs: Tensor, action: Float[Tensor, "B K"]) -> Any:
        """What the network says of its inputs, told `retold(action)`."""
        return self.network(inputs, retold(action, self.telling))


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
