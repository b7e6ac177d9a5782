"""`FuturesTask`: learning to give several futures of a clip, and how well that is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator, Tensor, nn

from flowlib.models.futures import LATENTS, LearnsLatent, check_futures, futures_of, motion_cells
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.futures.loss import futures_counts, futures_sums
from flowlib.tasks.futures.metrics import METRICS, FuturesAnswer
from flowlib.tasks.futures.summary import summarise
from flowlib.tasks.protocol import MetricSpec, Results
from flowlib.tasks.trajectories.batch import Frames, check_prediction
from flowlib.tasks.trajectories.case import TrajectoryCase
from flowlib.tasks.trajectories.loss import total_loss
from flowlib.tasks.trajectories.task import TrajectoryTask


class LatentFrames(Frames):
    """Frames of a model that takes the true motion, too, in training."""


@dataclass(frozen=True)
class FuturesTask(TrajectoryTask):
    """Several futures of a clip; for networks that give one answer it is `TrajectoryTask` with more metrics.

    Raises:
        ValueError: a field out of its range; the message names it.
    """

    name: ClassVar[str] = "futures"
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    score: ClassVar[str] = "min_ade"
    headline: ClassVar[str] = "How well does “{main}” tell what may happen?"

    relaxed: float = 0.05  # share of the loss of displacement that a clip's losers have between them
    choice_weight: float = 0.2  # of the weights' cross-entropy beside the loss of displacement
    kl_weight: float = 0.01  # of the posterior's divergence, likewise; a mean over points is beside a sum over a code
    kl_warmup: int = 200  # batches over which it comes to count in full

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "relative":
            raise ValueError("loss: expected another than 'relative' with several futures, laplace_2d for example")
        if not 0 <= self.relaxed < 1:
            raise ValueError(f"relaxed: expected a share from 0 to below 1, got {self.relaxed!r}")
        for name in ("choice_weight", "kl_weight", "kl_warmup"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected a number from 0 up, got {getattr(self, name)!r}")

    def inputs(self, model: nn.Module) -> Frames | LatentFrames:
        frames = super().inputs(model)
        latent = isinstance(model, LearnsLatent) and model.latent != "none"
        return LatentFrames(*frames) if latent else frames

    def example(self, sample: Any, inputs: Frames, generator: Generator | None) -> dict[str, Any]:
        """A clip as `TrajectoryTask` has it; for a model with a latent variable also its `motion` [F 3 rows columns],
        see `models.futures.LearnsLatent`."""
        example = super().example(sample, inputs, generator)
        if isinstance(inputs, LatentFrames):
            seen, size = example["visibility"], example["images"].shape[-2:]
            example["motion"] = motion_cells(example["tracks"], seen, example["queries"], (size[0], size[1]))
        return example

    def counts(self, batch: dict[str, Any]) -> Tensor:
        """[5] See `loss.futures_counts`."""
        return futures_counts(self._targets(batch), self.masked)

    def sums(self, network: nn.Module, batch: dict[str, Any], constants: Mapping[str, float]) -> Tensor:
        """[7] See `loss.futures_sums`."""
        prediction = network(batch["images"], *([batch["motion"]] if "motion" in batch else []))
        if not isinstance(prediction, TrajectoryPrediction):
            got = type(prediction).__name__
            raise ValueError(f"model: expected it to give a TrajectoryPrediction, got {got}")
        check_prediction(prediction, batch)
        options = {"loss": self.loss, "huber_delta": self.huber_delta, "masked": self.masked}
        options |= {"scale": constants["target_scale"], "relaxed": self.relaxed, "kl_warmup": self.kl_warmup}
        return futures_sums(prediction, self._targets(batch), **options)

    def total_loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Losses of displacement, visibility, weights and the posterior's divergence, weighed."""
        per_clip = sums[5:7] / counts[4].clamp(min=1)
        more = self.choice_weight * per_clip[0] + self.kl_weight * per_clip[1]
        return total_loss(sums[:4], counts[:4], self.visibility_weight) + more

    def values(self, sums: Tensor, counts: Tensor) -> dict[str, float]:
        """As of trajectories, `ade` being that of the likeliest future; with `min_ade`, the error of each clip's best
        one, the weights' cross-entropy `choice_loss`, and `kl`."""
        values = super().values(sums[:4], counts[:4]) | {"loss": float(self.total_loss(sums, counts))}
        measured, clips = float(counts[2]), max(float(counts[4]), 1.0)
        values["min_ade"] = float(sums[4]) / measured if measured else float("nan")
        return values | {"choice_loss": float(sums[5]) / clips, "kl": float(sums[6]) / clips}

    def answer(self, prediction: TrajectoryPrediction, case: TrajectoryCase) -> FuturesAnswer:
        return FuturesAnswer(prediction, case)

    def summary(self, results: Results) -> list[str]:
        return summarise(results)


def task_for(model: Any, **settings: Any) -> TrajectoryTask:
    """The task that suits a model: `FuturesTask` for one that gives several futures, else `TrajectoryTask`.

    >>> task_for(None, loss="l1").name
    'trajectories'
    """
    latent = isinstance(model, LearnsLatent) and model.latent != "none"
    return FuturesTask(**settings) if latent or futures_of(model) > 1 else TrajectoryTask(**settings)


def latent_experiments(futures: int = 5) -> dict[str, dict[str, Any]]:
    """Modes, auto-encoder, variational auto-encoder and conditional one, each with so many futures: a list for
    `training.run_experiments`, with `GuidedTrajectories` or `OneFrameTrajectories`.

    >>> list(latent_experiments(3).values())[-1]
    {'futures': 3, 'latent': 'cvae'}
    """
    check_futures(futures)
    return {"modes" if kind == "none" else kind: {"futures": futures, "latent": kind} for kind in LATENTS}
