"""What is measured of several futures, beside all that is measured of the likeliest one.

Joint numbers ask for one future of the whole scene that is right everywhere; numbers per point let every point take the
future that suits it, which no one can, so they flatter. A method with one answer is one future, for sure.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from flowlib.geometry import bilinear_sample
from flowlib.tasks.protocol import MetricSpec
from flowlib.tasks.trajectories.metrics import METRICS as TRAJECTORY_METRICS
from flowlib.tasks.trajectories.metrics import TrajectoryAnswer

NAN = float("nan")


class FuturesAnswer(TrajectoryAnswer):
    """Several futures of a clip beside the true one."""

    @property
    def available(self) -> frozenset[str]:
        scaled = {"a scale of the error (log_scale)"} if self.prediction.log_scale is not None else set()
        return super().available | scaled

    @cached_property
    def _counted_frames(self) -> tuple[list[int], np.ndarray]:
        """Of the predicted frames the places of those whose errors count, and where points are seen there [F N]."""
        kept = self.counting[1:]
        places = [self.prediction.frames.index(self.frames[index]) for index in kept]
        return places, self.true.visibility[kept]

    @cached_property
    def _xy(self) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.true.queries[None, :, 1:], np.float32))

    @cached_property
    def moved(self) -> Float[np.ndarray, "K F N 2"]:
        """Displacement of the true points in each future, in the frames that count."""
        return self.prediction.futures_at(self._xy)[0].numpy()[:, self._counted_frames[0]]

    @cached_property
    def weights(self) -> Float[np.ndarray, " K"]:
        return self.prediction.each_future()[1][0].double().numpy()

    @cached_property
    def errors(self) -> Float[np.ndarray, "K F N"]:
        """Distance from the truth in pixels; NaN where the point can't be seen."""
        true = self.true.displacement[self.counting[1:]]
        return np.where(self._counted_frames[1], np.linalg.norm(self.moved - true, axis=-1), np.nan)

    @cached_property
    def ade(self) -> Float[np.ndarray, " K"]:
        """The mean error of each future; NaN where nothing is seen."""
        seen = self._counted_frames[1].sum()
        return np.nansum(self.errors, axis=(1, 2)) / seen if seen else np.full(len(self.errors), np.nan)


def min_ade(answer: FuturesAnswer) -> float:
    return float(answer.ade.min())


def min_ade_points(answer: FuturesAnswer) -> float:
    seen = answer._counted_frames[1].sum()
    return float(np.nansum(answer.errors, axis=1).min(axis=0).sum() / seen) if seen else NAN


def expected_ade(answer: FuturesAnswer) -> float:
    return float(answer.weights @ answer.ade)


def diversity(answer: FuturesAnswer) -> float:
    seen, K = answer._counted_frames[1], len(answer.moved)
    if not seen.any():
        return NAN
    pairs = [(i, j) for i in range(K) for j in range(i)]
    apart = [np.linalg.norm(answer.moved[i] - answer.moved[j], axis=-1)[seen].mean() for i, j in pairs]
    return float(np.mean(apart)) if apart else 0.0


def likelihood(answer: FuturesAnswer) -> float:
    """-log Σ w_k Π p(true place | future k) over all sightings of a clip, per sighting; p is the plane's Laplace
    density exp(-e/b) / (2πb²), its scale b the same for all futures."""
    assert answer.prediction.log_scale is not None
    places, seen = answer._counted_frames
    if not seen.any():
        return NAN
    spread = bilinear_sample(answer.prediction.log_scale, answer._xy)[0].double().numpy()[places]
    logs = -np.where(seen, answer.errors, 0.0) * np.exp(-spread) - 2 * spread - np.log(2 * np.pi)
    joint = np.where(seen, logs, 0.0).sum(axis=(1, 2)) + np.log(np.maximum(answer.weights, 1e-300))
    return float(-np.logaddexp.reduce(joint) / seen.sum())


def best_weight(answer: FuturesAnswer) -> float:
    return float(answer.weights[answer.ade.argmin()]) if np.isfinite(answer.ade).all() else NAN


_FUTURES: dict[str, Any] = {"group": "Several futures"}

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec("min_ade", "minADE", "px", "low", min_ade, **_FUTURES, headline=True, meaning="The mean error of the "
        "best of the futures: one for the whole clip. More guesses make it smaller, so compare methods of as many."),
    MetricSpec("min_ade_points", "minADE per point", "px", "low", min_ade_points, **_FUTURES, meaning="The same where "
        "every point may take the future that suits it best."),
    MetricSpec("expected_ade", "Weighted ADE", "px", "low", expected_ade, **_FUTURES, meaning="The mean error over all "
        "futures, each as often as the method itself holds it likely."),
    MetricSpec("best_weight", "Weight of the best", "%", "high", best_weight, **_FUTURES, digits=0, scale=100,
        meaning="How likely the method held the future that came nearest."),
    MetricSpec("diversity", "Diversity", "px", "high", diversity, **_FUTURES, meaning="How far two of the futures lie "
        "apart in the mean. Not good by itself: guesses at random are far apart, too."),
    MetricSpec("nll", "NLL", "nats", "low", likelihood, needs=("a scale of the error (log_scale)",), **_FUTURES,
        meaning="Negative log-likelihood of the true places, per sighting: a mixture of the futures by their weights, "
        "each with the method's own scale. It counts guesses, weights and claimed accuracy in one."),
    *TRAJECTORY_METRICS,
)  # fmt: skip
