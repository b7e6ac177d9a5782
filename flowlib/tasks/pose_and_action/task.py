"""`JointTask`: learning poses and the action of a sequence together, end to end, and how well both are done.

Networks are called with padded sequences of crops [B S 1 H W] and their lengths [B], and give a `HandPrediction`. Knows
no loop by name; one that is told an action, or that has a teacher, says so by having its members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import normalise
from flowlib.hands.skeleton import FPHA_21, SKELETONS
from flowlib.models.actions import ActionLSTM
from flowlib.models.loops import HandPrediction, within
from flowlib.models.protocols import Role, device_of
from flowlib.tasks.hand_pose import PoseTask
from flowlib.tasks.hand_pose.case import PoseCase
from flowlib.tasks.hand_pose.pictures import READING, strip_of
from flowlib.tasks.hand_pose.summary import truth_told
from flowlib.tasks.hand_pose.task import HasSize
from flowlib.tasks.pose_and_action.metrics import METRICS, JointAnswer, series_for
from flowlib.tasks.protocol import Estimate, Identity, MetricSpec, Results, SeriesSpec, Strip, Task

SEQUENCES = ("crop", "pose", "visible", "half")  # what has an entry for each frame


@runtime_checkable
class TellsAction(Protocol):
    """A method that is told an action vector, which it makes itself of the true classes [B]: a control."""

    def vector(self, classes: Tensor) -> Tensor: ...
    def __call__(self, *given: Any) -> Any: ...


@runtime_checkable
class HasTeacher(Protocol):
    """A network that, given the true classes [B], says what its teacher says of the batch."""

    def teach(self, crops: Tensor, lengths: Tensor, classes: Tensor) -> HandPrediction: ...


@runtime_checkable
class SeesCase(Protocol):
    """An oracle: predicts from the case, with its answer."""

    def from_case(self, case: PoseCase) -> HandPrediction: ...


class Found(NamedTuple):
    """What a method said of one sequence."""

    joints: Float[np.ndarray, "S J 3"]  # mm, in the camera's frame
    logits: Float[np.ndarray, " K"]


class OnTruePoses:
    """The true joints, and what an action net says of them: as good as a chain could get with its action net."""

    role: ClassVar[Role] = "oracle"

    def __init__(self, action: ActionLSTM) -> None:
        self.action = action.eval()

    @torch.inference_mode()
    def from_case(self, case: PoseCase) -> HandPrediction:
        joints = case.joints.astype(np.float64), case.centre.astype(np.float64), case.rotation.astype(np.float64)
        poses = torch.from_numpy(normalise(*joints, case.cube.astype(np.float64))).float()[None]
        logits = self.action(poses.flatten(2), torch.tensor([len(case.joints)])).logits
        return HandPrediction(poses, logits)


@dataclass(frozen=True)
class JointTask(Task):
    """Joints and action of a sequence; the fields say how they are learned and measured.

    The loss is (1 - β) [α NLL + (1 - α) MSE + smoothness · MSE of the change of velocity] + β · the teacher's, over
    sequences for the actions and over the coordinates of all frames for the joints.

    Raises:
        ValueError: a field out of its range; the message names it.
    """

    name: ClassVar[str] = "pose_and_action"
    unit: ClassVar[str] = "sequence"
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    score: ClassVar[str] = "joint_score"
    free: ClassVar[tuple[str, ...]] = ("intervals",)
    headline: ClassVar[str] = "How well does “{main}” find the joints of a hand, and what it does?"
    about: ClassVar[str] = (
        "The joints of a hand from depth crops, in millimetres, of every frame of every sequence, and the sequence's "
        "action. Means are over the joints of a frame, then the frames of a sequence. A joint counts as hidden where "
        "the camera doesn't see it. Controls are told an action instead of guessing it."
    )
    reading: ClassVar[str] = READING

    alpha: float = 0.002  # α, share of the action in the loss
    hidden_weight: float = 1.0  # of hidden joints in the loss
    smoothness: float = 0.0  # weight of the error's change of velocity from frame to frame; true motion costs nothing
    teacher: float = 0.0  # β, share of the teacher in the loss
    teacher_action: float = 0.02  # share of the action in the teacher's part; the rest is its poses
    temperature: float = 1.2  # at which both networks' probabilities are compared
    augment: HandAugment | None = None  # of training sequences, one motion for all frames of each
    skeleton: str = FPHA_21.name
    intervals: str = "sequence"  # what means and intervals are over: sequence or subject

    def __post_init__(self) -> None:
        for name in ("alpha", "hidden_weight", "teacher", "teacher_action"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {getattr(self, name)!r}")
        if not self.smoothness >= 0:
            raise ValueError(f"smoothness: expected 0 or more, got {self.smoothness!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected more than 0, got {self.temperature!r}")
        _ = self.poses  # which checks skeleton and intervals

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> JointTask:
        augment = settings.get("augment")
        made = augment and HandAugment(**augment | {"modes": tuple(augment["modes"])})
        return cls(**{**settings, "augment": made})

    @cached_property
    def poses(self) -> PoseTask:
        """The task of the poses alone, on the same hands."""
        return PoseTask(skeleton=self.skeleton, intervals=self.intervals)

    @property
    def group(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.intervals

    @property
    def series(self) -> tuple[SeriesSpec, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return series_for(SKELETONS[self.skeleton])

    def one_series(self, name: str) -> SeriesSpec:
        """One of the series, by name: "time", "pck", "joint", …

        Raises:
            ValueError: the task has none of that name.
        """
        known = {series.name: series for series in self.series}
        if name not in known:
            raise ValueError(f"series: expected one of {', '.join(known)}, got {name!r}")
        return known[name]

    # ------------------------------------------------------------------------------------------------ training

    def check(self, model: nn.Module, dataset: Any, name: str) -> None:
        """Raise `ValueError` unless these are sequences with actions, as many as the network tells apart, and joints
        and crops as it takes them."""
        sample, poses = dataset[0], self.poses
        if "length" not in sample:
            raise ValueError(f"{name}: expected sequences, as HandSequences has them, got single frames")
        about = poses.describe_data(dataset)  # checks the skeleton
        if sample["pose"].shape[1:] != (SKELETONS[self.skeleton].num_joints, 3):
            got = list(sample["pose"].shape)
            raise ValueError(f"{name}: expected poses [S {SKELETONS[self.skeleton].num_joints} 3], got {got}")
        side = model.size if isinstance(model, HasSize) else sample["crop"].shape[-1]
        if list(sample["crop"].shape[1:]) != [1, side, side]:
            got = list(sample["crop"].shape)
            raise ValueError(f"{name}: expected crops of {side} pixels, as the model takes them, got {got}")
        actions, have = getattr(model, "num_actions", about["num_actions"]), about["num_actions"]
        if have < 1 or actions != have:
            raise ValueError(f"{name}: expected hands of {actions} actions, as the model tells apart, got {have}")
        if self.teacher and not isinstance(model, HasTeacher):
            raise ValueError(f"teacher: expected a model with a teacher (`Taught`), got {type(model).__name__}")

    def describe_data(self, dataset: Any) -> dict[str, Any]:
        return self.poses.describe_data(dataset)

    def example(self, sample: Any, inputs: Any, generator: torch.Generator | None) -> dict[str, Any]:
        """A sequence, augmented if there is a generator: `crop` [S 1 H W], `pose` [S J 3], `visible` [S J], `half` [S]
        (of the cube's side, mm), `action` and `length`."""
        if int(sample["length"]) < 1:
            raise ValueError(f"{sample['key']}: expected a sequence of 1 frame or more, got none")
        if int(sample["action"]) < 0:
            raise ValueError(f"{sample['key']}: expected a sequence whose action is known, got one without")
        if self.augment is not None and generator is not None:
            sample = sample.augmented(self.augment, generator)
        example = {name: sample[name] for name in ("crop", "pose", "visible", "action", "length")}
        return example | {"name": sample["key"], "half": sample["cube"] / 2}

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Sequences as one batch, padded behind with zeros."""
        batch: dict[str, Any] = {"name": [example["name"] for example in examples]}
        batch |= {name: pad_sequence([one[name] for one in examples], batch_first=True) for name in SEQUENCES}
        return batch | {name: torch.stack([one[name] for one in examples]) for name in ("action", "length")}

    def counts(self, batch: dict[str, Any]) -> Tensor:
        """[6] Coordinates that the loss is over (as they are weighed), sequences, coordinates' changes of velocity,
        coordinates, seen joints, hidden joints."""
        J = batch["pose"].shape[2]
        lengths = batch["length"].float()
        frames, seen = lengths.sum(), batch["visible"].sum().float()
        hidden = J * frames - seen
        weighed = 3 * (seen + self.hidden_weight * hidden)
        changes = 3 * J * (lengths - 2).clamp(min=0).sum()
        sequences = torch.full_like(frames, len(lengths))
        return torch.stack([weighed, sequences, changes, 3 * J * frames, seen, hidden])

    def sums(self, network: nn.Module, batch: dict[str, Any], constants: Mapping[str, float]) -> Tensor:
        """[9] Squared errors (weighed), NLL, squared changes of velocity of the error, the teacher's two parts; for
        the values, squared errors, mm of seen joints and of hidden ones, right actions."""
        given = (batch["crop"], batch["length"])
        prediction = network(*given)
        _check_prediction(prediction, batch)
        real = within(batch["length"], batch["pose"].shape[1])
        off = torch.where(real[:, :, None, None], prediction.joints - batch["pose"], 0.0)
        squares = off.square().sum(dim=3)  # B S J
        weighed = (squares * torch.where(batch["visible"], 1.0, self.hidden_weight)).sum()
        nll = F.cross_entropy(prediction.logits, batch["action"], reduction="sum")
        bent = off[:, 2:] - 2 * off[:, 1:-1] + off[:, :-2]
        jerky = torch.where(real[:, 2:, None, None], bent, 0.0).square().sum()
        parts = [weighed, nll, jerky, *self._taught(network, given, batch, prediction, real)]
        with torch.no_grad():
            mm = squares.sqrt() * batch["half"][:, :, None]
            seen = torch.where(batch["visible"], mm, 0.0).sum()
            right = (prediction.logits.argmax(dim=1) == batch["action"]).sum().to(mm)
            told = [squares.sum(), seen, mm.sum() - seen, right]
        return torch.stack([*parts, *told])

    def _taught(
        self, network: nn.Module, given: tuple[Tensor, Tensor], batch: dict[str, Any], prediction: HandPrediction,
        real: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """How far the network is from its teacher: squared distances of joints, and the probabilities' divergence."""
        if not self.teacher:
            return (zero := prediction.logits.new_zeros(())), zero
        assert isinstance(network, HasTeacher)
        with torch.no_grad():
            taught = network.teach(*given, batch["action"])
        off = torch.where(real[:, :, None, None], prediction.joints - taught.joints, 0.0).square().sum()
        T = self.temperature
        own, its = (F.log_softmax(one.logits / T, dim=1) for one in (prediction, taught))
        return off, T * T * F.kl_div(own, its, reduction="sum", log_target=True)

    def total_loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """What is descended; see the class."""
        weighed, nll, jerky, taught, divergence = sums[:5]
        own = self.alpha * nll / counts[1] + (1 - self.alpha) * weighed / counts[0]
        own = own + self.smoothness * jerky / counts[2].clamp(min=1)
        share = self.teacher_action
        its = share * divergence / counts[1] + (1 - share) * taught / counts[3]
        return (1 - self.teacher) * own + self.teacher * its

    def values(self, sums: Tensor, counts: Tensor) -> dict[str, float]:
        """`loss`; `joint_score`, (100 · mean squared error + NLL) / 2; `nll`, `accuracy`; mean distances in mm, of all
        joints, of the seen and of the hidden (NaN where there are none)."""
        _, nll, _, _, _, squares, seen_mm, hidden_mm, right = sums.tolist()
        _, sequences, _, numbers, seen, hidden = counts.tolist()
        values = {
            "loss": float(self.total_loss(sums.detach(), counts)),
            "nll": nll / sequences,
            "mse": squares / numbers,
        }
        values["joint_score"] = (100 * values["mse"] + values["nll"]) / 2
        values |= {"accuracy": right / sequences, "mpjpe": (seen_mm + hidden_mm) / (seen + hidden)}
        values["mpjpe_seen"] = seen_mm / seen if seen else float("nan")
        return values | {"mpjpe_hidden": hidden_mm / hidden if hidden else float("nan")}

    def unchanged(self) -> JointTask:
        return replace(self, augment=None)

    def ideas(self, model: nn.Module) -> list[str]:
        return ["another learning rate", "a larger alpha, if the action is not learned", "trained=() for all parts"]

    # ---------------------------------------------------------------------------------------------- evaluation

    def score_settings(self) -> dict[str, Any]:
        return {"skeleton": self.skeleton}

    def identify(self, dataset: Any, index: int, sample: Any) -> Identity:
        return self.poses.identify(dataset, index, sample)

    def case(self, sample: Any) -> PoseCase:
        return self.poses.case(sample)

    @torch.inference_mode()
    def predict(self, method: Any, case: PoseCase, name: str) -> Found:
        """A method's joints in mm and logits, checked.

        Raises:
            ValueError: no `HandPrediction`, one of another shape, or with NaN in it; names the method and the sequence.
        """
        where, S = f"method {name!r}, sequence {case.key}", len(case.joints)
        if isinstance(method, SeesCase):
            prediction = method.from_case(case)
        else:
            device = device_of(method)
            given = (case.crops[None].to(device), torch.tensor([S], device=device))
            if isinstance(method, TellsAction):
                if case.action < 0:
                    raise ValueError(f"{where}: expected a known action to tell it, got none")
                given = (*given, method.vector(torch.tensor([case.action], device=device)))
            prediction = method(*given)
        if not isinstance(prediction, HandPrediction):
            raise ValueError(f"{where}: expected a HandPrediction, got {type(prediction).__name__}")
        expected = [1, S, case.skeleton.num_joints, 3]
        if list(prediction.joints.shape) != expected:
            raise ValueError(f"{where}: expected joints {expected}, got {list(prediction.joints.shape)}")
        if prediction.logits.shape[1] <= case.action:
            got = prediction.logits.shape[1]
            raise ValueError(f"{where}: expected logits of more than {case.action} actions, for it is one, got {got}")
        joints, logits = (part[0].float().cpu().numpy() for part in (prediction.joints, prediction.logits))
        for part in (joints, logits):
            if not np.isfinite(part).all():
                raise ValueError(
                    f"{where}: expected finite numbers, got NaN or infinity in {(~np.isfinite(part)).sum()}"
                )
        return Found(case.restore(joints), logits)

    def answer(self, prediction: Found, case: PoseCase) -> JointAnswer:
        return JointAnswer(prediction.joints, case, prediction.logits)

    def strip(self, title: str, identity: Identity, case: PoseCase, predictions: Mapping[str, Any]) -> Strip:
        return strip_of(title, identity, case, {name: found.joints for name, found in predictions.items()})

    def facts(self, data: Mapping[str, Any], results: Results) -> list[str]:
        return [truth_told(data)]

    def summary(self, results: Results) -> list[str]:
        """The main method's numbers, and how far each other one is from it in what is covered, and in accuracy."""
        main = results.main
        known = [metric for metric in map(self.metric, ("mpjpe", "mpjpe_covered", "top1")) if results.has(metric.name)]
        said = [f"{one.label.lower()} {_shown(one, results.estimate(main, one.name))}" for one in known]
        sentences = [f"“{main}”: {', '.join(said)}."]
        for other in results.methods[1:]:
            parts = []
            for metric in known[-2:]:
                found = results.difference(main, other, metric.name)
                sure = "more than chance" if found.excludes_zero else "this may well be chance"
                if found.videos:
                    parts.append(f"{metric.label.lower()} {_shown(metric, found, '+')}: {sure}")
            sentences.append(f"Against “{other}”: {'; '.join(parts) or 'nothing to compare'}.")
        return [*sentences, truth_told(results.data)]


def _shown(metric: MetricSpec, value: Estimate, sign: str = "") -> str:
    numbers = (value.mean, value.low, value.high)
    mean, low, high = (f"{one * metric.scale:{sign}.{metric.digits}f}" for one in numbers)
    return f"{mean}{f' [{low}, {high}]' if value.has_interval else ''} {metric.unit}".strip()


def _check_prediction(prediction: Any, batch: dict[str, Any]) -> None:
    """Raise `ValueError` unless a network gave joints and logits for the whole batch."""
    if not isinstance(prediction, HandPrediction):
        raise ValueError(f"model: expected it to give a HandPrediction, got {type(prediction).__name__}")
    if prediction.joints.shape != batch["pose"].shape:
        expected, got = list(batch["pose"].shape), list(prediction.joints.shape)
        raise ValueError(f"model: expected joints {expected}, got {got}")
    K = prediction.logits.shape[1]
    if int(batch["action"].max()) >= K:
        raise ValueError(f"model: expected logits of more than {int(batch['action'].max())} actions, got {K}")
