"""What is measured of predicted hand poses: plain functions of joints in mm, and a `MetricSpec` for each number.

A mean is over joints, then frames, then (in a report) sequences or subjects. To add a metric, add its `MetricSpec`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from flowlib.hands.skeleton import Skeleton, bone_lengths
from flowlib.tasks.hand_pose.case import PoseCase
from flowlib.tasks.protocol import Answer, Better, MetricSpec, SeriesSpec

NAN = float("nan")
FARTHEST = 80  # mm, where curves end
TABLED = (5, 10, 20, 30, 40, 50, 80)  # mm that tables show of them
FINGERS = ("palm", "thumb", "index", "middle", "ring", "pinky")


def joint_errors(predicted: Float[np.ndarray, "S J 3"], true: Float[np.ndarray, "S J 3"]) -> Float[np.ndarray, "S J"]:
    """Distance of every joint from its true place.

    >>> float(joint_errors(np.zeros((1, 2, 3)), np.full((1, 2, 3), 3.0)).mean().round(3))
    5.196
    """
    return np.linalg.norm(predicted - true, axis=-1)


def mean_error(errors: Float[np.ndarray, "S J"], counted: Bool[np.ndarray, "S J"] | None = None) -> float:
    """Mean over the joints that count, then over the frames that have any; NaN if none has."""
    if counted is None:
        return float(errors.mean(axis=1).mean())
    numbers = counted.sum(axis=1)
    sums = np.where(counted, errors, 0).sum(axis=1)
    return float((sums[numbers > 0] / numbers[numbers > 0]).mean()) if numbers.any() else NAN


def success(errors: Float[np.ndarray, ...]) -> dict[int, float]:
    """Share of errors of up to 0, 1, …, 80 mm: PCK for joints; Taylor et al. 2012 count a frame's largest error."""
    ordered = np.sort(errors, axis=None)
    return {mm: float(np.searchsorted(ordered, mm, "right") / ordered.size) for mm in range(FARTHEST + 1)}


def area(curve: dict[int, float], low: int, high: int) -> float:
    """Area under a success curve from `low` to `high` mm by the trapezoid rule, 1 for a curve that is 1."""
    return float(np.trapezoid([curve[mm] for mm in range(low, high + 1)]) / (high - low))


def aligned(predicted: Float[np.ndarray, "S J 3"], true: Float[np.ndarray, "S J 3"]) -> Float[np.ndarray, "S J 3"]:
    """Each frame's predicted joints, turned, scaled and moved to lie as near as can be to the true ones.

    The least-squares similarity without reflection (Umeyama 1991).
    """
    means = predicted.mean(axis=1, keepdims=True), true.mean(axis=1, keepdims=True)
    p, t = predicted - means[0], true - means[1]
    U, strength, Vt = np.linalg.svd(p.swapaxes(1, 2) @ t)
    sign = np.ones_like(strength)
    sign[:, -1] = np.sign(np.linalg.det(U @ Vt))
    scale = (strength * sign).sum(axis=1) / np.maximum(np.square(p).sum(axis=(1, 2)), 1e-12)
    return scale[:, None, None] * (p @ (U * sign[:, None]) @ Vt) + means[1]


def jitter(joints: Float[np.ndarray, "S J 3"], steady: Bool[np.ndarray, " T"]) -> float:
    """Mean length of the second difference over time in mm/frame², at the frames between steady neighbours."""
    bent = np.linalg.norm(joints[2:] - 2 * joints[1:-1] + joints[:-2], axis=-1)[steady]
    return float(bent.mean()) if bent.size else NAN


class PoseAnswer(Answer):
    """A sequence's predicted joints in mm beside the true ones."""

    prediction: Float[np.ndarray, "S J 3"]
    case: PoseCase

    @property
    def available(self) -> frozenset[str]:
        return frozenset(["three frames in a row"] if self.steady.any() else [])

    @cached_property
    def errors(self) -> Float[np.ndarray, "S J"]:
        return joint_errors(self.prediction, self.case.joints)

    @cached_property
    def steady(self) -> Bool[np.ndarray, " T"]:
        """Which frames, of the T = S-2 with a neighbour on both sides, have no gap beside them."""
        return (np.diff(self.case.frames) == 1)[1:] & (np.diff(self.case.frames) == 1)[:-1]

    @cached_property
    def relative(self) -> Float[np.ndarray, "S J"]:
        """Errors of the joints as seen from the skeleton's root."""
        root = self.case.skeleton.root
        moved = (joints - joints[:, root : root + 1] for joints in (self.prediction, self.case.joints))
        return np.delete(joint_errors(*moved), root, axis=1)

    @cached_property
    def aligned(self) -> Float[np.ndarray, "S J"]:
        return joint_errors(aligned(self.prediction, self.case.joints), self.case.joints)

    @cached_property
    def pck(self) -> dict[int, float]:
        return success(self.errors)

    def mean(self, seen: bool, joints: np.ndarray | None = None) -> float:
        """Mean error of the seen joints, or of the hidden ones; of some of the joints only, if they are given."""
        counted = self.case.visible == seen
        return mean_error(self.errors, counted if joints is None else counted & joints)


def bones_off(answer: PoseAnswer) -> float:
    """Mean deviation of the bones' lengths."""
    skeleton = answer.case.skeleton
    lengths = (bone_lengths(joints, skeleton) for joints in (answer.prediction, answer.case.joints))
    return float(np.abs(np.subtract(*lengths)).mean())


def per_joint(answer: PoseAnswer) -> dict[int, float]:
    """Mean error of each joint by its index."""
    return dict(enumerate(map(float, answer.errors.mean(axis=0))))


def per_finger(pick: Callable[[PoseAnswer, np.ndarray], float]) -> Callable[[PoseAnswer], dict[int, float]]:
    """A number of each finger's joints, by its place in `FINGERS`."""

    def function(answer: PoseAnswer) -> dict[int, float]:
        fingers = np.array(answer.case.skeleton.fingers)
        of = {place: fingers == finger for place, finger in enumerate(FINGERS)}
        found = {place: pick(answer, own) for place, own in of.items() if own.any()}
        return {place: value for place, value in found.items() if value == value}

    return function


def _spec(name: str, label: str, function: Callable[[PoseAnswer], float], meaning: str, **more: Any) -> MetricSpec:
    """An error in mm, if not said otherwise."""
    unit, better = more.pop("unit", "mm"), more.pop("better", "low")
    return MetricSpec(name, label, unit, better, function, meaning=meaning, **more)


def _curve(name: str, title: str, errors: Callable[[PoseAnswer], np.ndarray], meaning: str) -> SeriesSpec:
    def function(answer: PoseAnswer) -> dict[int, float]:
        return success(errors(answer))

    better: Better = "high"
    return SeriesSpec(name, title, "Share", "", better, "mm", function, digits=3, meaning=meaning, tabled=TABLED)


_ERROR: dict[str, Any] = {"group": "Where the joints are", "digits": 1}
_SHAPE: dict[str, Any] = {"group": "The shape of the hand", "digits": 1}
_RIGHT: dict[str, Any] = {"group": "How many are right", "unit": "", "better": "high", "digits": 3}
_MOVED: dict[str, Any] = {"group": "Over time", "unit": "mm/frame²", "needs": ("three frames in a row",)}

METRICS: tuple[MetricSpec, ...] = (
    _spec("mpjpe", "Joint error", lambda a: mean_error(a.errors), "Mean distance of a joint from its true place, over "
        "joints, then frames.", **_ERROR, headline=True),
    _spec("mpjpe_seen", "Seen joints", lambda a: a.mean(True), "The same of the joints that the camera sees (all "
        "of them where that isn't known).", **_ERROR,
        headline=True),
    _spec("mpjpe_hidden", "Hidden joints", lambda a: a.mean(False), "The same of the joints that it doesn't see: "
        "behind the hand itself, or behind something held.", **_ERROR, headline=True),
    _spec("median", "Median", lambda a: float(np.median(a.errors)), "Half of all joints are nearer.", **_ERROR),
    _spec("percentile_90", "90 %", lambda a: float(np.percentile(a.errors, 90)), "Nine of ten joints are nearer.",
        **_ERROR),
    _spec("auc", "AUC", lambda a: area(a.pck, 0, 50), "Area under the share of joints right within 0 to 50 mm; 1 is "
        "all right.", **_RIGHT, headline=True),
    _spec("auc_20_50", "AUC 20–50", lambda a: area(a.pck, 20, 50), "The same from 20 mm on, as the STB benchmark has "
        "it.", **_RIGHT),
    _spec("root_relative", "Root-relative", lambda a: float(a.relative.mean()), "Joint error as seen from the root "
        "joint: where the hand is doesn't count.", **_SHAPE),
    _spec("procrustes", "Aligned", lambda a: float(a.aligned.mean()), "Joint error after each frame is turned, scaled "
        "and moved onto the truth: only its posture counts (Procrustes).", **_SHAPE),
    _spec("bones", "Bone lengths", bones_off, "Mean deviation of a bone's length.", **_SHAPE),
    _spec("jitter", "Jitter", lambda a: jitter(a.prediction, a.steady), "Mean change of a joint's velocity from frame "
        "to frame; the truth has its own, beside it.", **_MOVED),
    _spec("jitter_truth", "True jitter", lambda a: jitter(a.case.joints, a.steady), "That of the true joints, which "
        "no method changes.", **_MOVED),
    _spec("frames", "Frames", lambda a: float(len(a.errors)), "", unit="", better="high", group="", digits=0),
)  # fmt: skip

_FINGER: dict[str, Any] = {"names": FINGERS, "digits": 1}


def series_of(skeleton: Skeleton) -> tuple[SeriesSpec, ...]:
    """Success curves, and errors by finger and by joint of a skeleton."""
    parts = "mm", "low", "finger"
    return (
        _curve("pck", "Joints right within so many mm", attrgetter("errors"), "Share of all joints (PCK)."),
        _curve("success_mean", "Frames right on average", lambda a: a.errors.mean(axis=1), "Share of frames whose mean "
            "joint error is no larger."),
        _curve("success", "Frames with all joints right", lambda a: a.errors.max(axis=1), "Share of frames whose "
            "largest joint error is no larger: the hard way to count (Taylor et al. 2012)."),
        SeriesSpec("seen", "Seen joints of each finger", "Error", *parts, **_FINGER,
            function=per_finger(lambda answer, own: answer.mean(True, own))),
        SeriesSpec("hidden", "Hidden joints of each finger", "Error", *parts, **_FINGER,
            function=per_finger(lambda answer, own: answer.mean(False, own))),
        SeriesSpec("finger", "All joints of each finger", "Error", *parts, **_FINGER,
            function=per_finger(lambda answer, own: float(answer.errors[:, own].mean()))),
        SeriesSpec("joint", "Each joint", "Error", "mm", "low", "joint", per_joint, digits=1, names=skeleton.joints),
    )  # fmt: skip
