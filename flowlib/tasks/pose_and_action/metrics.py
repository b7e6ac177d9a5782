"""What is measured of poses and actions together: the poses' own numbers, and what was said of the action."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from flowlib.hands.skeleton import Skeleton
from flowlib.tasks.hand_pose.metrics import METRICS as OF_POSES
from flowlib.tasks.hand_pose.metrics import PoseAnswer, series_of
from flowlib.tasks.protocol import MetricSpec, SeriesSpec

PARTS = 20  # of a sequence's time, for curves over it
COVERED = ("ring", "pinky")  # the fingers that the synthetic hand's held bars cover


@dataclass(frozen=True, eq=False)
class JointAnswer(PoseAnswer):
    """A sequence's predicted joints in mm, and the logits of its action; None where a method says nothing of it."""

    logits: Float[np.ndarray, " K"] | None = None

    @property
    def available(self) -> frozenset[str]:
        told = ["an action"] if self.logits is not None and self.case.action >= 0 else []
        return super().available | frozenset(told)

    @property
    def log_probabilities(self) -> Float[np.ndarray, " K"]:
        assert self.logits is not None
        off = self.logits.astype(np.float64) - self.logits.max()
        return off - np.log(np.exp(off).sum())

    @property
    def rank(self) -> int:
        """How many classes come before the true one, the likeliest first; of equals the first, as `argmax` has it."""
        own, before = self.log_probabilities[self.case.action], self.log_probabilities[: self.case.action]
        return int((self.log_probabilities > own).sum() + (before == own).sum())

    @property
    def nll(self) -> float:
        """Negative log-likelihood of the true class."""
        return float(-self.log_probabilities[self.case.action])

    @property
    def covered(self) -> np.ndarray:
        """[J] Which joints are of the fingers in `COVERED`."""
        return np.isin(self.case.skeleton.fingers, COVERED)

    @property
    def score(self) -> float:
        """What chooses a checkpoint: (100 · mean squared error of the normalised joints + NLL) / 2."""
        half = self.case.cube[:, None] / 2
        return (100 * float(np.square(self.errors / half).mean() / 3) + self.nll) / 2


def over_time(answer: JointAnswer) -> dict[int, float]:
    """Mean error of the fingers in `COVERED` in each of `PARTS` equal parts of the sequence's time."""
    S = len(answer.errors)
    if not answer.covered.any():
        return {}
    own = answer.errors[:, answer.covered].mean(axis=1)
    part = np.arange(S) * PARTS // S
    return {int(place): float(own[part == place].mean()) for place in np.unique(part)}


_ACTION: dict[str, Any] = {"group": "What the hand does", "needs": ("an action",)}
_HEADLINES = ("mpjpe", "mpjpe_seen")

METRICS: tuple[MetricSpec, ...] = (
    *(replace(metric, headline=metric.name in _HEADLINES) for metric in OF_POSES),
    MetricSpec("mpjpe_covered", "Covered joints", "mm", "low", lambda a: a.mean(False, a.covered), digits=1,
        group="Where the joints are", headline=True, meaning="Mean error of the hidden joints of ring and little "
        "finger, which the synthetic hand's held bars cover: what only the action can tell."),
    MetricSpec("top1", "Right action", "%", "high", lambda a: float(a.rank == 0), scale=100, digits=1, headline=True,
        meaning="How often the true action is thought the likeliest.", **_ACTION),
    MetricSpec("top3", "Among three", "%", "high", lambda a: float(a.rank < 3), scale=100, digits=1,
        meaning="How often it is among the three likeliest.", **_ACTION),
    MetricSpec("member", "Right member", "%", "high", lambda a: float(np.argmax(a.logits) % 2 == a.case.action % 2),
        scale=100, digits=1, meaning="How often the likeliest action is even or odd as the true one is: which of the "
        "two of a family, whichever family; chance is 50 %.", **_ACTION),
    MetricSpec("nll", "NLL", "", "low", lambda a: a.nll, digits=2, headline=True, meaning="Negative log-likelihood of "
        "the true action: the surer a mistake, the more it costs.", **_ACTION),
    MetricSpec("joint_score", "Joint score", "", "low", lambda a: a.score, digits=3, meaning="(100 · mean squared "
        "error of the joints in halves of the cube + NLL) / 2: what chooses the checkpoint.", **_ACTION),
)  # fmt: skip


def series_for(skeleton: Skeleton) -> tuple[SeriesSpec, ...]:
    """The poses' own, and the error of ring and little finger over a sequence's time."""
    tabled = tuple(range(0, PARTS, 2))
    meaning = f"Mean error of ring and little finger in each of {PARTS} equal parts of the sequence's time."
    time = SeriesSpec("time", "Ring and little finger over time", "Error", "mm", "low", "twentieth of the sequence",
        over_time, digits=1, meaning=meaning, tabled=tabled)  # fmt: skip
    return (*series_of(skeleton), time)
