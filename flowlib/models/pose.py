"""`PoseNet`: the joints of a hand from a depth crop, by the plan of DeepPrior++ (Oberweger & Lepetit 2017).

A crop in [-1, 1] goes in; coefficients of a linear pose prior (PCA) come out, and through a fixed linear layer the
joints in units of half a cube. Can be conditioned on an action, see `film`. Knows nothing of losses, data or
millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowlib.models.film import CHANNELS, ActionChannels, Film, check_action
from flowlib.models.norms import POLICIES, set_statistics, use_group_norm

STRIDE = 16  # of the whole: the pool and three groups
STEPS = (2, 2, 2, 1)  # stride of each group
EPS = 1e-4  # of batch norm
FILM = ("input", "residual", "linear", "output")
# Stage widths, blocks a group and head's width: DeepPrior++'s, and one for two CPU cores.
SHAPES: dict[str, dict[str, Any]] = {
    "deepprior++": {"stages": (32, 64, 128, 256, 256), "blocks": 5, "head": 1024},
    "small": {"stages": (16, 32, 64, 128, 128), "blocks": 2, "head": 512},
}


@dataclass(frozen=True, eq=False)
class PosePrediction:
    """Poses of a batch of crops.

    Attributes:
        coefficients: [B K] of the pose prior; None of a method that has none.
        joints: [B J 3], relative to the crop's centre, in units of half its cube.
    """

    coefficients: Float[Tensor, "B K"] | None
    joints: Float[Tensor, "B J 3"]


class PoseNet(nn.Module):
    """A residual network of pre-activation bottleneck blocks, a two-layer head, and a frozen PCA layer.

    Args:
        size: side of the square crops in pixels, a multiple of 16.
        stages: channels of the stem and of the four groups.
        blocks: a group has.
        head: width of the two hidden layers.
        components: K, coefficients of the pose prior.
        joints: J.
        num_actions: of the action that conditions it; 0 for none.
        film: where `Film` acts: "input" (on the crop), "residual" (on a block's input: one layer for a group's first
            block, one that its other blocks share; norms inside such blocks have no scale and shift of their own),
            "linear" (on both hidden layers, after dropout), "output" (on the coefficients).
        concat: the action as further input channels: "none", "index", "embedding" or "linear", see `ActionChannels`.
        dropout: in the head.
        batch_norm: "train" (statistics of the batch, running ones in evaluation), "frozen" (the running ones in both,
            and no dropout), or "group" (group norm).
        train_basis: let the PCA layer be trained, too, as end-to-end fine-tuning may want.

    Raises:
        ValueError: an argument outside these; the message names it.

    >>> PoseNet.named("small", size=64)(torch.zeros(2, 1, 64, 64)).joints.shape
    torch.Size([2, 21, 3])
    """

    basis: Tensor
    mean: Tensor

    def __init__(
        self,
        *,
        size: int = 128,
        stages: Sequence[int] = (32, 64, 128, 256, 256),
        blocks: int = 5,
        head: int = 1024,
        components: int = 30,
        joints: int = 21,
        num_actions: int = 0,
        film: Sequence[str] = (),
        concat: str = "none",
        dropout: float = 0.3,
        batch_norm: str = "train",
        train_basis: bool = False,
    ) -> None:
        super().__init__()
        stages, film = tuple(stages), tuple(film)
        _check(size, stages, blocks, head, components, joints, num_actions, film, concat, dropout, batch_norm)
        self.config: dict[str, Any] = {"size": size, "stages": list(stages), "blocks": blocks, "head": head}
        self.config |= {"components": components, "joints": joints, "num_actions": num_actions, "film": list(film)}
        self.config |= {"concat": concat, "dropout": dropout, "batch_norm": batch_norm, "train_basis": train_basis}
        self.size, self.num_actions, self.batch_norm = size, num_actions, batch_norm

        self.stem = nn.Conv2d(1, stages[0], 5, padding=2)
        self.pool = nn.MaxPool2d(2)
        affine = "residual" not in film
        self.groups = nn.ModuleList(
            _group(inner, outer, step, blocks, affine) for (inner, outer), step in zip(pairwise(stages), STEPS)
        )
        self.norm = nn.BatchNorm2d(stages[-1], eps=EPS)
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, head), nn.ReLU(), nn.Dropout(dropout))
            for inputs in ((size // STRIDE) ** 2 * stages[-1], head)
        )
        self.last = nn.Linear(head, components)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if batch_norm == "group":
            use_group_norm(self)
        # What knows of the action comes last and draws nothing, so that a twin without it starts with the same weights.
        K = num_actions
        self.film_input = Film(K, 1) if "input" in film else None
        self.film_residual = nn.ModuleList(
            nn.ModuleList(Film(K, width) for width in (inner, outer))
            for inner, outer in pairwise(stages)
            if "residual" in film
        )
        self.film_linear = nn.ModuleList(Film(K, head) for _ in self.hidden if "linear" in film)
        self.film_output = Film(K, components) if "output" in film else None
        self.channels = None if concat == "none" else ActionChannels(concat, K, self.stem)
        basis, mean = torch.zeros(3 * joints, components), torch.zeros(3 * joints)
        if train_basis:
            self.basis, self.mean = nn.Parameter(basis), nn.Parameter(mean)
        else:
            self.register_buffer("basis", basis)
            self.register_buffer("mean", mean)

    @classmethod
    def named(cls, name: str, **options: Any) -> PoseNet:
        """The network of one of `SHAPES`, by name, with further arguments of the class.

        Raises:
            ValueError: no such name.
        """
        if name not in SHAPES:
            raise ValueError(f"net: expected one of {', '.join(SHAPES)}, got {name!r}")
        return cls(**SHAPES[name] | options)

    @torch.no_grad()
    def set_basis(self, components: Tensor, mean: Tensor) -> None:
        """Fill the PCA layer: joints, flattened to D = 3J numbers, are `mean` [D] + coefficients @ `components` [K D].

        Raises:
            ValueError: other shapes than the network's.
        """
        got, expected = [list(components.shape), list(mean.shape)], [list(self.basis.T.shape), list(self.mean.shape)]
        if got != expected:
            raise ValueError(f"components, mean: expected shapes {expected}, got {got}")
        self.basis.copy_(components.T)
        self.mean.copy_(mean)

    def forward(self, crops: Tensor, action: Tensor | None = None) -> PosePrediction:
        """Predict from depth crops [B 1 H W] in [-1, 1] and, where it has actions, their probabilities [B K]."""
        if list(crops.shape[1:]) != [1, self.size, self.size] or crops.ndim != 4 or not crops.is_floating_point():
            got = f"{crops.dtype} {list(crops.shape)}"
            raise ValueError(f"crops: expected floating [B 1 {self.size} {self.size}], got {got}")
        check_action(action, len(crops), self.num_actions)
        x = crops.to(self.stem.weight.dtype)
        given: Any = None if action is None else action.to(x)
        x = x if self.film_input is None else self.film_input(x, given)
        stem = self.stem(x)
        x = self.pool(stem if self.channels is None else stem + self.channels(given, (self.size, self.size)))
        for index, group in enumerate(self.groups):
            assert isinstance(group, nn.ModuleList)
            for number, block in enumerate(group):
                if self.film_residual:
                    x = self.film_residual[index][min(number, 1)](x, given)  # pyright: ignore[reportIndexIssue]
                x = block(x)
        x = torch.relu(self.norm(x)).flatten(1)
        for index, layer in enumerate(self.hidden):
            x = layer(x)
            x = self.film_linear[index](x, given) if self.film_linear else x
        coefficients = self.last(x)
        coefficients = coefficients if self.film_output is None else self.film_output(coefficients, given)
        coefficients = coefficients.float()
        joints = coefficients @ self.basis.T + self.mean
        return PosePrediction(coefficients, joints.unflatten(1, (-1, 3)))

    def train(self, mode: bool = True) -> PoseNet:
        """Training or evaluation mode. With `batch_norm="frozen"` norms keep their running statistics in both, and
        dropout does nothing: a few sequences in a batch make its statistics worthless."""
        super().train(mode and self.batch_norm != "frozen")
        self.training = mode
        set_statistics(self, mode, self.batch_norm)
        return self


class Block(nn.Module):
    """Pre-activation bottleneck: norm, ReLU and convolution three times (1×1, 3×3 with the stride, 1×1) beside a skip.

    The stride is in the 3×3 convolution; DeepPrior++ has it in the first.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, affine: bool) -> None:
        super().__init__()
        middle = outputs // 4
        self.branch = nn.Sequential(
            *_pre(inputs, affine), nn.Conv2d(inputs, middle, 1),
            *_pre(middle, affine), nn.Conv2d(middle, middle, 3, stride, 1),
            *_pre(middle, affine), nn.Conv2d(middle, outputs, 1),
        )  # fmt: skip
        self.skip = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(*_pre(inputs, True), nn.Conv2d(inputs, outputs, 1, stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + self.skip(x)


def _pre(channels: int, affine: bool) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels, eps=EPS, affine=affine), nn.ReLU()


def _group(inputs: int, outputs: int, stride: int, blocks: int, affine: bool) -> nn.ModuleList:
    rest = (Block(outputs, outputs, 1, affine) for _ in range(blocks - 1))
    return nn.ModuleList([Block(inputs, outputs, stride, affine), *rest])


def _check(
    size: int, stages: tuple[int, ...], blocks: int, head: int, components: int, joints: int, num_actions: int,
    film: tuple[str, ...], concat: str, dropout: float, batch_norm: str,
) -> None:  # fmt: skip
    if size < STRIDE or size % STRIDE:
        raise ValueError(f"size: expected a multiple of {STRIDE}, got {size!r}")
    if len(stages) != len(STEPS) + 1 or any(width < 4 or width % 4 for width in stages):
        raise ValueError(f"stages: expected {len(STEPS) + 1} multiples of 4, got {stages}")
    for name, value in (("blocks", blocks), ("head", head), ("joints", joints), ("components", components)):
        if not value >= 1:
            raise ValueError(f"{name}: expected 1 or more, got {value!r}")
    if components > 3 * joints:
        raise ValueError(f"components: expected up to {3 * joints}, three for each joint, got {components}")
    if any(place not in FILM for place in film):
        raise ValueError(f"film: expected places among {', '.join(FILM)}, got {film}")
    for name, value, known in (("concat", concat, CHANNELS), ("batch_norm", batch_norm, POLICIES)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if (num_actions > 0) != bool(film or concat != "none") or num_actions < 0:
        expected = "0 without film and concat, 1 or more with one of them"
        raise ValueError(f"num_actions: expected {expected}, got {num_actions!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a share below 1, got {dropout!r}")
