"""`TrajectoryTask`: learning to predict where every pixel of frame 0 goes, and how well that is done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from flowlib.augmentation import AugmentConfig, augment
from flowlib.clips import ClipSample
from flowlib.dataset.about import shape_of
from flowlib.models.protocols import HasConfig, Predictor, TakesPoints, TrajectoryPrediction, num_actions_of
from flowlib.tasks.protocol import Task
from flowlib.tasks.trajectories.batch import Frames, check_prediction, make_batch, make_example, uniform
from flowlib.tasks.trajectories.figures import predict_clips, show_predictions
from flowlib.tasks.trajectories.loss import SCALED, Loss, Targets, loss_sums, total_loss
from flowlib.tasks.trajectories.scoring import Condition, ScoringConfig, TrajectoryEvaluation
from flowlib.tracks import check_min_confidence

if TYPE_CHECKING:
    from flowlib.plots import Figure

SCALE_CLIPS = 64  # from how many clips the target scale is fitted


@runtime_checkable
class PredictsFrames(Protocol):
    """Predicts chosen frames of clips of one length; a network without it predicts all frames of any clip."""

    @property
    def num_frames(self) -> int: ...

    @property
    def frames(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class TrajectoryTask(TrajectoryEvaluation, Task):
    """Dense trajectories; the fields say how they are learned and measured.

    Raises:
        ValueError: a field out of its range; the message names it.
    """

    measured_on: ClassVar[str] = "on visible points"
    free: ClassVar[tuple[str, ...]] = ("scoring",)

    loss: Loss = "l1"  # mse, l1, huber, charbonnier; laplace, laplace_2d, relative (need a model with log_scale)
    huber_delta: float = 1.0  # where Huber turns linear, in units of the target scale
    masked: bool = True  # count visible points only; False counts all, as the tracker guessed them
    visibility_weight: float = 0.1  # of the visibility's cross-entropy beside the displacement's loss
    target_scale: float = 0.0  # pixels that count as 1 in the loss; 0 fits it to the training set (root mean square)
    augment: AugmentConfig | None = None
    confidence_weighted: bool = False  # weigh displacement's loss by the labels' confidence
    min_confidence: float = 0.0  # sightings whose label is less sure count for nothing; 0: all count
    scoring: ScoringConfig = field(default_factory=ScoringConfig)  # what is measured in an evaluation
    condition: Condition = "true"  # what a model that takes an action is told: the clip's own, or 1/K everywhere
    condition_dropout: float = 0.25  # in training only: share of clips of which it is told 1/K instead

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss: expected one of {', '.join(get_args(Loss))}, got {self.loss!r}")
        if not 0 < self.huber_delta < math.inf:
            raise ValueError(f"huber_delta: expected a number above 0, got {self.huber_delta!r}")
        check_min_confidence(self.min_confidence)
        if self.condition not in get_args(Condition):
            raise ValueError(f"condition: expected one of {', '.join(get_args(Condition))}, got {self.condition!r}")
        if not 0 <= self.condition_dropout <= 1:
            raise ValueError(f"condition_dropout: expected a share from 0 to 1, got {self.condition_dropout!r}")
        for name in ("visibility_weight", "target_scale"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number from 0 up, got {getattr(self, name)!r}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TrajectoryTask:
        nested = {"augment": AugmentConfig, "scoring": ScoringConfig}
        made = {key: kind(**_tuples(settings[key])) for key, kind in nested.items() if settings.get(key) is not None}
        return cls(**{**settings, **made})

    def check(self, model: nn.Module, dataset: Any, name: str) -> None:
        """Raise `ValueError` unless the clips have the frames that `model` sees and predicts, all of them pictured, and
        points asked for in frame 0."""
        if not isinstance(model, Predictor):
            raise ValueError(f"model: expected `input_frames`, the frames it sees, got {type(model).__name__} without")
        clip = ClipSample.of(dataset[0])
        S, K = clip.truth.num_frames, len(clip.frames)
        if isinstance(model, PredictsFrames) and model.num_frames != S:
            raise ValueError(f"{name}: expected clips of {model.num_frames} frames, as the model predicts, got {S}")
        if K != S:
            raise ValueError(f"{name}: expected clips with the pictures of all {S} frames, got {K} of them")
        if max(model.input_frames) >= S:
            raise ValueError(f"{name}: expected clips with the frames {tuple(model.input_frames)}, got {S} frames")
        if (actions := num_actions_of(model)) and self.condition == "true":
            try:
                self.told(clip, actions)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if self._uses_confidence and clip.truth.confidence is None:
            used = "min_confidence" if self.min_confidence else "confidence_weighted"
            raise ValueError(f"{used}: expected labels with a confidence in {name}, got some without")
        if (clip.truth.queries[:, 0] != 0).any():
            raise ValueError(f"{name}: expected points that are asked for in frame 0, got other frames, too")
        if self.loss in SCALED and isinstance(model, HasConfig) and not model.config.get("log_scale", True):
            raise ValueError(f"loss: {self.loss!r} expects a model made with log_scale=True, got one without")

    def describe_data(self, dataset: Any) -> dict[str, Any]:
        """Length and size of a dataset's clips."""
        return shape_of(dataset)

    def prepare(self, model: nn.Module, dataset: Any) -> dict[str, float]:
        """`target_scale`: the setting, or the one fitted to the data; a model with a buffer of that name is told."""
        scale = torch.tensor(self.target_scale or self._fit_scale(model, dataset))
        buffer = dict(model.named_buffers()).get("target_scale")
        if buffer is not None:
            buffer.copy_(scale)
        return {"target_scale": float(scale)}

    def _fit_scale(self, model: nn.Module, dataset: Any) -> float:
        return fit_target_scale(dataset, self.inputs(model), min_confidence=self.min_confidence)

    def inputs(self, model: nn.Module) -> Frames:
        """The frames that a model sees, and those that it predicts, and how many actions it takes."""
        assert isinstance(model, Predictor), "see check"
        predicted = tuple(model.frames) if isinstance(model, PredictsFrames) else None
        return Frames(tuple(model.input_frames), predicted, num_actions_of(model))

    def example(self, sample: Any, inputs: Frames, generator: torch.Generator | None) -> dict[str, Any]:
        """A clip, augmented if there is a generator; see `batch.make_example`."""
        if self.augment is not None and generator is not None:
            sample = augment(dict(sample), self.augment, generator, inputs.seen)
        example = make_example(sample, inputs._replace(num_actions=0), confidence=self._uses_confidence)
        if actions := inputs.num_actions:
            dropped = generator is not None and float(torch.rand((), generator=generator)) < self.condition_dropout
            example["action"] = uniform(actions) if dropped else self.told(ClipSample.of(sample), actions)
        return example

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Examples as one batch, padded where clips have different numbers of points."""
        return make_batch(examples)

    def counts(self, batch: dict[str, Any]) -> Tensor:
        """[4] See `loss.Targets.counts`."""
        return self._targets(batch).counts(self.masked)

    def sums(self, network: nn.Module, batch: dict[str, Any], constants: Mapping[str, float]) -> Tensor:
        """[4] See `loss.loss_sums`."""
        bare = getattr(network, "module", network)  # of several processes
        points = {"points": batch["queries"][..., 1:]} if isinstance(bare, TakesPoints) and bare.takes_points else {}
        prediction = network(*(batch[name] for name in ("images", "action") if name in batch), **points)
        if not isinstance(prediction, TrajectoryPrediction):
            got = type(prediction).__name__
            raise ValueError(f"model: expected it to give a TrajectoryPrediction, got {got}")
        check_prediction(prediction, batch)
        options = {"loss": self.loss, "huber_delta": self.huber_delta, "masked": self.masked}
        return loss_sums(prediction, self._targets(batch), scale=constants["target_scale"], **options)

    @property
    def _uses_confidence(self) -> bool:
        return self.confidence_weighted or self.min_confidence > 0

    def _targets(self, batch: dict[str, Any]) -> Targets:
        return Targets.of(batch, weighted=self.confidence_weighted, min_confidence=self.min_confidence)

    def total_loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Displacement's loss and visibility's, weighed."""
        return total_loss(sums, counts, self.visibility_weight)

    def values(self, sums: Tensor, counts: Tensor) -> dict[str, float]:
        """Losses and errors from their sums, as plain numbers; `ade` is NaN where no point was visible."""
        loss = total_loss(sums, counts, self.visibility_weight)
        displacement, visibility, pixels, right = sums.tolist()
        points, told, measured, ahead = counts.tolist()
        return {
            "loss": float(loss),
            "displacement_loss": displacement / max(points, 1),
            "visibility_loss": visibility / max(told, 1),
            "ade": pixels / measured if measured else float("nan"),
            "visibility_accuracy": right / max(ahead, 1),
        }

    def unchanged(self) -> TrajectoryTask:
        return replace(self, augment=None, condition_dropout=0.0)

    def ideas(self, model: nn.Module) -> list[str]:
        config = model.config if isinstance(model, HasConfig) else {}
        ideas = ["head='fine'"] if config.get("head", "fine") != "fine" else []
        ideas += ["a larger working_size"] if config.get("working_size") else []
        return [*ideas, "another learning rate", "clips with steadier labels, for a tracker's slips can't be fitted"]

    def figure(self, model: nn.Module, dataset: Any, count: int) -> Figure:
        """The first clips: labels and prediction; see `figures.show_predictions`."""
        return show_predictions(*predict_clips(model, dataset, min(count, len(dataset))))


def fit_target_scale(dataset: Any, frames: Frames, most: int = SCALE_CLIPS, *, min_confidence: float = 0.0) -> float:
    """Root mean square of a coordinate's displacement over visible points, in pixels, from up to `most` clips.

    A set in which nothing moves has the scale 1.
    """
    chosen = range(0, len(dataset), max(1, len(dataset) // most))
    total, count = 0.0, 0
    for index in list(chosen)[:most]:
        batch = make_batch([make_example(dataset[index], frames, confidence=min_confidence > 0)])
        targets = Targets.of(batch, min_confidence=min_confidence)
        moved = targets.displacement[targets.measured].double()
        total, count = total + float((moved**2).sum()), count + moved.numel()
    scale = (total / count) ** 0.5 if count else 0.0
    return scale if scale > 1e-3 else 1.0


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
