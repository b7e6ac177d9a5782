"""What is measured of actions: a number of each sequence, and what only many sequences together have.

Actions 2f and 2f+1 are partners, the two of family f, where the task says so. To add a metric, add its `MetricSpec`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowlib.tasks.protocol import Answer, MetricSpec, SeriesSpec

SHARES = tuple(range(10, 101, 10))  # per cent of a sequence that are seen
BINS = 10  # of confidence, for calibration


@dataclass(frozen=True, eq=False)
class ActionCase:
    """A sequence, and what it shows.

    Attributes:
        key: of the sequence.
        vectors: float32 [S D], of each frame.
        action: its class.
        partners: whether classes come in pairs.
    """

    key: str
    vectors: Float[Tensor, "S D"]
    action: int
    partners: bool


class ActionAnswer(Answer):
    """A sequence's logits beside its class; [S K], as if it ended with each frame, the last of the whole."""

    prediction: Float[np.ndarray, "S K"]
    case: ActionCase

    @property
    def available(self) -> frozenset[str]:
        return frozenset(["partners"] if self.case.partners else [])

    @cached_property
    def order(self) -> Int[np.ndarray, " K"]:
        """Classes from the likeliest on; of equals the first."""
        return np.argsort(-self.prediction[-1], kind="stable")

    @cached_property
    def probabilities(self) -> Float[np.ndarray, " K"]:
        off = np.exp(self.prediction[-1] - self.prediction[-1].max())
        return off / off.sum()

    def after(self, share: int) -> Float[np.ndarray, " K"]:
        """Logits with `share` per cent of the sequence seen, at least one frame."""
        return self.prediction[max(1, math.ceil(share * len(self.prediction) / 100)) - 1]

    def told_from_partner(self, logits: Float[np.ndarray, " K"]) -> float:
        """1 where the true action is likelier than its partner, 0.5 where both are alike."""
        true, partner = logits[self.case.action], logits[self.case.action ^ 1]
        return 0.5 if true == partner else float(true > partner)


def _over_shares(number: Callable[[ActionAnswer, np.ndarray], float]) -> Callable[[ActionAnswer], dict[int, float]]:
    return lambda answer: {share: number(answer, answer.after(share)) for share in SHARES}


_RIGHT: dict[str, Any] = {"unit": "%", "better": "high", "scale": 100, "digits": 1, "group": "What the hand does"}
_PAIRS: dict[str, Any] = {"needs": ("partners",), **_RIGHT}
_KEPT: dict[str, Any] = {"unit": "", "better": "high", "group": ""}  # for what is counted over sequences

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec("top1", "Right action", function=lambda a: float(a.order[0] == a.case.action), headline=True,
        meaning="How often the true action is thought the likeliest.", **_RIGHT),
    MetricSpec("top3", "Among three", function=lambda a: float(a.case.action in a.order[:3]), headline=True,
        meaning="How often it is among the three likeliest.", **_RIGHT),
    MetricSpec("family", "Right family", function=lambda a: float(a.order[0] // 2 == a.case.action // 2), headline=True,
        meaning="How often the likeliest action is the true one or its partner.", **_PAIRS),
    MetricSpec("partner", "Told from its partner", function=lambda a: a.told_from_partner(a.prediction[-1]),
        headline=True, meaning="How often the true action is thought likelier than its partner; chance is 50 %.",
        **_PAIRS),
    MetricSpec("nll", "NLL", "", "low", lambda a: float(-np.log(max(a.probabilities[a.case.action], 1e-300))),
        group="What the hand does", meaning="Negative log-likelihood of the true action: the surer a mistake, the more "
        "it costs."),
    MetricSpec("confidence", "Confidence", function=lambda a: float(a.probabilities[a.order[0]]), **_KEPT),
    MetricSpec("guess", "Guess", function=lambda a: float(a.order[0]), **_KEPT),
    MetricSpec("truth", "Truth", function=lambda a: float(a.case.action), **_KEPT),
    MetricSpec("frames", "Frames", function=lambda a: float(len(a.prediction)), digits=0, **_KEPT),
)  # fmt: skip


def series_of(actions: tuple[str, ...]) -> tuple[SeriesSpec, ...]:
    """Accuracy over what has been seen of a sequence, and of each class."""
    share: dict[str, Any] = {"label": "Share", "unit": "", "better": "high", "axis": "% of the sequence seen"}
    return (
        SeriesSpec("observed", "Right action by how much is seen", digits=3, **share,
            function=_over_shares(lambda a, logits: float(np.argsort(-logits, kind="stable")[0] == a.case.action)),
            meaning="Share of right actions when only the beginning of each sequence is seen."),
        SeriesSpec("observed_partner", "Told from its partner by how much is seen", digits=3, needs=("partners",),
            function=_over_shares(lambda a, logits: a.told_from_partner(logits)),
            meaning="Share of sequences in which the true action is likelier than its partner then.", **share),
        SeriesSpec("class", "Each action", "Share right", "", "high", "action", digits=3, names=actions,
            function=lambda a: {a.case.action: float(a.order[0] == a.case.action)}),
    )  # fmt: skip


# ------------------------------------------------------------------------------------- of many sequences together


def confusion(truth: Int[np.ndarray, " N"], guess: Int[np.ndarray, " N"], num_actions: int) -> Int[np.ndarray, "K K"]:
    """How many sequences of each class (rows) were taken for each (columns).

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(num_actions * truth + guess, minlength=num_actions**2).reshape(num_actions, num_actions)


def class_accuracy(truth: Int[np.ndarray, " N"], guess: Int[np.ndarray, " N"]) -> float:
    """Share that is right of each class, then the mean over the classes that occur."""
    return float(np.mean([(guess[truth == action] == action).mean() for action in np.unique(truth)]))


def calibration_error(confidence: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence lies from the share that is right, over bins of
    equal width, weighed by how many are in each.

    >>> round(calibration_error(np.array([0.95, 0.95, 0.65, 0.65]), np.array([True, True, True, False])), 3)
    0.1
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = np.bincount(place, confidence - right, minlength=bins)
    return float(np.abs(sums).sum() / len(confidence))


def wilson(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share, `right` of `count` independent ones; as good for 0 and for all.

    >>> [round(end, 3) for end in wilson(9, 10)]
    [0.596, 0.982]
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    share, spread = right / count, z * z / count
    middle = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def mcnemar(first: Bool[np.ndarray, " N"], second: Bool[np.ndarray, " N"]) -> tuple[int, int, float]:
    """Whether two classifiers differ on the same sequences, by the exact test of McNemar (1947).

    Args:
        first, second: which sequences each has right.

    Returns:
        How many only the first has right, only the second, and p: how likely a split that uneven is by chance.

    >>> mcnemar(np.array([True] * 8 + [False]), np.array([False] * 9))
    (8, 0, 0.0078125)
    """
    from scipy.stats import binomtest

    ahead, behind = int((first & ~second).sum()), int((second & ~first).sum())
    return ahead, behind, float(binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0
