"""What a model must be: to be trained, to be evaluated, and to predict trajectories. Small, and checked at the door.

A class fulfils a protocol by having its members; nothing is inherited or registered. Optional parts are protocols of
their own (`HasRole`, `HasParts`, …), so that whoever asks for one says so. Knows nothing of any one model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowlib.clips import ClipSample
from flowlib.geometry import bilinear_sample

# model: what is evaluated. baseline: learns little or nothing; a model has to beat it. null: the baseline that does
# nothing at all, which everything else is compared with. oracle: sees the answer; shows how good a result can get.
Role = Literal["model", "baseline", "null", "oracle"]
ROLES: tuple[Role, ...] = ("model", "baseline", "null", "oracle")


@dataclass(frozen=True, eq=False)
class TrajectoryPrediction:
    """A dense prediction: for every pixel of frame 0 its way through the frames to come.

    Attributes:
        displacement: [B F 2 H W] pixels (x, y) from frame 0, in pixels of the images given.
        visibility_logits: [B F H W]; visible where positive.
        frames: which frame of the clip each of the F entries stands for, ascending; (0, 1, …, S-1) for a whole clip.
        log_scale: [B F H W] logarithm of the Laplace scale in pixels of each displacement, or None.
        futures: [B K F 2 H W] K whole futures, where the predictor gives several: each is one way that all of the
            scene may go. `displacement` then is the likeliest of them, so that who asks for one answer gets one.
        weights: [B K] how likely each future is; a row sums to 1. None without futures.
        radius, path_radius: [B F H W] pixels around each displacement that hold a promised share of the points, in
            each frame and for whole paths, or None; see `tasks.trajectories.regions`.
    """

    displacement: Float[Tensor, "B F 2 H W"]
    visibility_logits: Float[Tensor, "B F H W"]
    frames: tuple[int, ...]
    log_scale: Float[Tensor, "B F H W"] | None = None
    futures: Float[Tensor, "B K F 2 H W"] | None = None
    weights: Float[Tensor, "B K"] | None = None
    radius: Float[Tensor, "B F H W"] | None = None
    path_radius: Float[Tensor, "B F H W"] | None = None

    @classmethod
    def of_futures(
        cls,
        futures: Float[Tensor, "B K F 2 H W"],
        weights: Float[Tensor, "B K"],
        visibility_logits: Float[Tensor, "B F H W"],
        frames: tuple[int, ...],
        log_scale: Float[Tensor, "B F H W"] | None = None,
    ) -> TrajectoryPrediction:
        """Several futures as a prediction whose `displacement` is the likeliest, the first of equals."""
        likeliest = futures[torch.arange(len(futures), device=futures.device), weights.argmax(dim=1)]
        return cls(likeliest, visibility_logits, frames, log_scale, futures, weights)

    def spread(self) -> tuple[Float[Tensor, "B F H W"], Float[Tensor, "B F H W"]]:
        """How far off the prediction itself expects to be, as root mean square distances in pixels: of its scale (a
        plane Laplace density of scale b has the root mean square sqrt(6) b), and of its futures from their mean (0
        where it gives none). Their squares add up to the whole: the variance within futures and that between them.

        Raises:
            ValueError: a prediction without a scale.
        """
        if self.log_scale is None:
            raise ValueError("log_scale: expected a prediction that says how sure it is, got one without")
        futures, weights = self.each_future()
        share = weights[:, :, None, None, None, None]
        mean = (share * futures).sum(dim=1, keepdim=True)
        between = (share * (futures - mean).square()).sum(dim=(1, 3)).sqrt()
        return 6**0.5 * self.log_scale.exp(), between

    def on(self, device: torch.device | str) -> TrajectoryPrediction:
        """The prediction on another device."""
        parts = {name: part.to(device) for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **parts)

    def each_future(self) -> tuple[Float[Tensor, "B K F 2 H W"], Float[Tensor, "B K"]]:
        """The futures and their weights; the one answer, for sure, of a predictor that gives no others."""
        if self.futures is None or self.weights is None:
            return self.displacement[:, None], self.displacement.new_ones(len(self.displacement), 1)
        return self.futures, self.weights

    def futures_at(self, xy: Float[Tensor, "B N 2"]) -> Float[Tensor, "B K F N 2"]:
        """The displacement of every future (see `each_future`) read bilinearly at positions xy of frame 0."""
        futures, _ = self.each_future()
        B, K, F, _, H, W = futures.shape
        values = bilinear_sample(futures.reshape(B, K * F * 2, H, W), xy.to(futures.dtype))
        return values.reshape(B, K, F, 2, -1).movedim(3, -1)

    def at(self, xy: Float[Tensor, "B N 2"]) -> tuple[Float[Tensor, "B F N 2"], Float[Tensor, "B F N"]]:
        """Displacement and visibility logits read bilinearly at positions xy [B N 2] of frame 0, in pixels."""
        B, F, _, H, W = self.displacement.shape
        stacked = torch.cat([self.displacement, self.visibility_logits[:, :, None]], dim=2)
        values = bilinear_sample(stacked.reshape(B, F * 3, H, W), xy.to(stacked.dtype))
        values = values.reshape(B, F, 3, -1).movedim(2, -1)  # B F N 3
        return values[..., :2], values[..., 2]

    def scale_at(self, xy: Float[Tensor, "B N 2"]) -> Float[Tensor, "B F N"]:
        """The logarithm of the scale, read in the same way.

        Raises:
            ValueError: a prediction without a scale.
        """
        if self.log_scale is None:
            raise ValueError("log_scale: expected a prediction that says how sure it is, got one without")
        return bilinear_sample(self.log_scale, xy.to(self.log_scale.dtype))


@dataclass(frozen=True, eq=False)
class PointPrediction(TrajectoryPrediction):
    """A prediction for N points alone, as a picture of one row whose pixels are these points: [B F 2 1 N]. `at` and
    `scale_at` give them as they are, and have to be asked for the same points."""

    def at(self, xy: Float[Tensor, "B N 2"]) -> tuple[Float[Tensor, "B F N 2"], Float[Tensor, "B F N"]]:
        """Displacement and visibility logits of the points."""
        N = self.displacement.shape[-1]
        if xy.shape[1] != N:
            raise ValueError(f"xy: expected the {N} points that were predicted, got {xy.shape[1]}")
        return self.displacement[..., 0, :].movedim(2, -1), self.visibility_logits[..., 0, :]

    def scale_at(self, xy: Float[Tensor, "B N 2"]) -> Float[Tensor, "B F N"]:
        """The logarithm of the scale of the points."""
        assert self.log_scale is not None, "who predicts points says how sure it is"
        return self.log_scale[..., 0, :]


@runtime_checkable
class Predictor(Protocol):
    """What predicts trajectories: every network and every baseline.

    `role` and `describe` may be left out by a network: it then is a "model" that is described by its `config`.

    Attributes:
        input_frames: the frames of a clip that it sees.
    """

    @property
    def input_frames(self) -> Sequence[int]: ...

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B n 3 H W], RGB from 0 to 255, uint8 or floating, one for each input frame."""
        ...


@runtime_checkable
class HasRole(Protocol):
    """Says what it is in a comparison."""

    @property
    def role(self) -> Role: ...


@runtime_checkable
class Describes(Protocol):
    """Says what it is, as plain JSON values: `name`, `summary` (what it does, in one or two sentences for a reader who
    has met none of them), and the settings that decide its answers. Equal descriptions, equal answers."""

    def describe(self) -> dict[str, Any]: ...


@runtime_checkable
class HasConfig(Protocol):
    """Says with which arguments its class makes it again, as plain JSON values."""

    @property
    def config(self) -> Mapping[str, Any]: ...


@runtime_checkable
class Fitted(Protocol):
    """Was fitted on videos: `trained_on` has their fingerprints, or names."""

    @property
    def trained_on(self) -> Sequence[str]: ...


@runtime_checkable
class Calibrated(Protocol):
    """Promises something that was calibrated on videos: `calibrated_on` has their fingerprints, or names."""

    @property
    def calibrated_on(self) -> Sequence[str]: ...


@runtime_checkable
class SeesTruth(Protocol):
    """An oracle: predicts from the sample, with its answer."""

    def from_sample(self, sample: ClipSample) -> TrajectoryPrediction: ...


@runtime_checkable
class TakesAction(Protocol):
    """Is told the probabilities of so many actions [B K] as its second argument; 0 for a network that takes none."""

    @property
    def num_actions(self) -> int: ...


@runtime_checkable
class TakesPoints(Protocol):
    """Predicts, if `takes_points`, chosen points alone where its `forward` is given `points` [B N 2], pixels (x, y) of
    frame 0: a `PointPrediction`, for much less than all pixels cost. A loss needs no more."""

    @property
    def takes_points(self) -> bool: ...


@runtime_checkable
class HasProvenance(Protocol):
    """Says in `weights` where its weights come from; its class takes an argument of that name, "none" for no file."""

    weights: str


@runtime_checkable
class HasParts(Protocol):
    """Can be trained in parts: "stem", "second", "backbone", "head"; each parameter is in one of them."""

    @property
    def parts(self) -> Mapping[str, Sequence[nn.Parameter]]: ...


@runtime_checkable
class TrainableModel(HasConfig, Protocol):
    """What `training.fit` takes: an `nn.Module` that can say its `config`, so that a checkpoint can be loaded again as
    `type(model)(**model.config)`. What its `forward` takes and gives is the task's business."""

    def parameters(self) -> Any: ...
    def state_dict(self) -> Any: ...
    def forward(self, *inputs: Any) -> Any: ...


def check_trainable(model: Any) -> None:
    """Raise `ValueError` unless `model` is a `TrainableModel`."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    config = model.config if isinstance(model, HasConfig) else None
    if not isinstance(config, Mapping):
        kind = type(model).__name__
        raise ValueError(
            f"model: expected a `config`, a dict of the arguments that {kind}(**config) is made with (checkpoints are "
            f"loaded by it), got {kind} without one"
        )
    try:
        json.dumps(dict(config))
    except TypeError as error:
        raise ValueError(f"model: expected a config of plain JSON values, got one in which {error}") from error
    if next(iter(model.parameters()), None) is None:
        raise ValueError(f"model: expected parameters to train, got {type(model).__name__} without any")


def role_of(method: Any) -> Role:
    """What a method says it is in a comparison; "model" if it doesn't say.

    Raises:
        ValueError: it says something else than one of `ROLES`.
    """
    role = method.role if isinstance(method, HasRole) else "model"
    if role not in ROLES:
        raise ValueError(f"role: expected one of {', '.join(ROLES)} of {type(method).__name__}, got {role!r}")
    return role


def description_of(method: Any) -> dict[str, Any] | None:
    """What a method says of itself: `describe()`, or its class's name and its config; None if it says nothing."""
    if isinstance(method, Describes):
        return method.describe()
    return {"name": type(method).__name__, **method.config} if isinstance(method, HasConfig) else None


def trained_on(method: Any) -> tuple[str, ...]:
    """The videos that a method was fitted on, by fingerprint or name; empty if it doesn't say."""
    return tuple(method.trained_on or ()) if isinstance(method, Fitted) else ()


def calibrated_on(method: Any) -> tuple[str, ...]:
    """The videos that a method's promises were calibrated on, by fingerprint or name; empty if it doesn't say."""
    return tuple(method.calibrated_on or ()) if isinstance(method, Calibrated) else ()


def num_actions_of(method: Any) -> int:
    """How many actions a method is to be told the probabilities of; 0 for one that takes none."""
    return method.num_actions if isinstance(method, TakesAction) else 0


def device_of(method: Any) -> torch.device:
    """Where a network lives; the CPU for everything else."""
    first = next(iter(method.parameters()), None) if isinstance(method, nn.Module) else None
    return torch.device("cpu") if first is None else first.device
