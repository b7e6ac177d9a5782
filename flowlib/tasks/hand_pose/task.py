"""`PoseTask`: learning where the joints of a hand are from a depth crop, and how well that is done.

A network is trained on single frames and measured on whole sequences. Knows no network by name: one that conditions on
an action, or has a linear pose prior to be filled, says so by having its members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import axes, normalise
from flowlib.hands.pca import PCAConfig, PosePCA, fit_pca
from flowlib.hands.skeleton import FPHA_21, SKELETONS
from flowlib.models.pose import PosePrediction
from flowlib.models.protocols import device_of, num_actions_of
from flowlib.tasks.hand_pose.case import PoseCase
from flowlib.tasks.hand_pose.metrics import METRICS, PoseAnswer, series_of
from flowlib.tasks.hand_pose.pictures import READING, strip_of
from flowlib.tasks.hand_pose.summary import summarise, truth_told
from flowlib.tasks.protocol import Identity, MetricSpec, Results, SeriesSpec, Strip, Task, hash_content

Loss = Literal["coefficients", "joints"]
Condition = Literal["true", "uniform"]
BATCH = 64  # crops that are predicted at a time


@runtime_checkable
class HasBasis(Protocol):
    """A network with a linear pose prior: joints, flattened, are `mean + coefficients @ basis.T`."""

    @property
    def basis(self) -> Tensor: ...  # [3J K]
    @property
    def mean(self) -> Tensor: ...  # [3J]
    def set_basis(self, components: Tensor, mean: Tensor) -> None: ...


@runtime_checkable
class HasSize(Protocol):
    """A network that takes crops of one size, of so many pixels a side."""

    @property
    def size(self) -> int: ...


class Inputs(NamedTuple):
    """What an example must know of the model."""

    basis: np.ndarray | None  # [3J K], columns of unit length at right angles to each other
    mean: np.ndarray | None  # [3J]
    num_actions: int


@dataclass(frozen=True)
class PoseTask(Task):
    """Joints of a hand; the fields say how they are learned and measured.

    Raises:
        ValueError: a field out of its range; the message names it.
    """

    name: ClassVar[str] = "hand_pose"
    unit: ClassVar[str] = "sequence"
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    score: ClassVar[str] = "mpjpe"
    free: ClassVar[tuple[str, ...]] = ("intervals",)
    headline: ClassVar[str] = "How well does “{main}” find the joints of a hand?"
    about: ClassVar[str] = (
        "The joints of a hand from depth crops, in millimetres, of every frame of every sequence. Means are over the "
        "joints of a frame, then the frames of a sequence. A joint counts as hidden where the camera doesn't see it."
    )

    reading: ClassVar[str] = READING

    loss: Loss = "coefficients"  # squared error of the pose prior's coefficients, or of the normalised joints
    hidden_weight: float = 1.0  # of hidden joints in the joints' loss; what can't be seen is mostly noise to learn from
    augment: HandAugment | None = None  # of training crops, drawn anew each time
    pca_augment: HandAugment | None = None  # of the poses that the pose prior is fitted to
    pca_draws: int = 200_000  # how many of these, with replacement; 0: each once, as it is
    condition: Condition = "true"  # what a network that takes an action is given: the true one, or 1/K everywhere
    condition_dropout: float = 0.25  # in training only: share of samples that get 1/K instead of the true action
    skeleton: str = FPHA_21.name
    intervals: str = "sequence"  # what means and intervals are over: sequence or subject

    def __post_init__(self) -> None:
        choices = {"loss": get_args(Loss), "condition": get_args(Condition), "intervals": ("sequence", "subject")}
        choices["skeleton"] = tuple(SKELETONS)
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 0 <= self.hidden_weight <= 1 or (self.loss == "coefficients" and self.hidden_weight != 1):
            expected = "a share from 0 to 1 with loss='joints', 1 with 'coefficients'"
            raise ValueError(f"hidden_weight: expected {expected}, got {self.hidden_weight!r}")
        if not self.pca_draws >= 0:
            raise ValueError(f"pca_draws: expected 0 or more, got {self.pca_draws!r}")
        if not 0 <= self.condition_dropout <= 1:
            raise ValueError(f"condition_dropout: expected a share from 0 to 1, got {self.condition_dropout!r}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> PoseTask:
        known = {name: settings.get(name) for name in ("augment", "pca_augment")}
        made = {name: HandAugment(**value | {"modes": tuple(value["modes"])}) for name, value in known.items() if value}
        return cls(**{**settings, **made})

    @property
    def group(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.intervals

    @property
    def series(self) -> tuple[SeriesSpec, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return series_of(SKELETONS[self.skeleton])

    def one_series(self, name: str) -> SeriesSpec:
        """One of the series, by name: "pck", "success", "joint", "finger", …

        Raises:
            ValueError: the task has none of that name.
        """
        known = {series.name: series for series in self.series}
        if name not in known:
            raise ValueError(f"series: expected one of {', '.join(known)}, got {name!r}")
        return known[name]

    # ------------------------------------------------------------------------------------------------ training

    def check(self, model: nn.Module, dataset: Any, name: str) -> None:
        """Raise `ValueError` unless the joints are the skeleton's, and crops, joints and actions as the network takes
        them."""
        sample = dataset[0]
        skeleton = SKELETONS[self.skeleton]
        if sample["pose"].shape != (skeleton.num_joints, 3):
            got = list(sample["pose"].shape)
            raise ValueError(f"{name}: expected poses [{skeleton.num_joints} 3] of {skeleton.name}, got {got}")
        self._check_skeleton(dataset, name)
        if self.loss == "coefficients":
            if not isinstance(model, HasBasis):
                got = type(model).__name__
                raise ValueError(f"loss: 'coefficients' expects a model with a pose prior (`basis`), got {got}")
            if model.basis.shape[0] != 3 * skeleton.num_joints:
                got = model.basis.shape[0] // 3
                raise ValueError(f"model: expected {skeleton.num_joints} joints, as {name} has, got {got}")
            if model.basis.requires_grad:
                raise ValueError("loss: expected 'joints' with a pose prior that is trained, got 'coefficients'")
        side = model.size if isinstance(model, HasSize) else sample["crop"].shape[-1]
        if list(sample["crop"].shape) != [1, side, side]:
            got = list(sample["crop"].shape)
            raise ValueError(f"{name}: expected crops of {side} pixels, as the model takes them, got {got}")
        actions = num_actions_of(model)
        have = len(_hands(dataset).actions)
        if actions and self.condition == "true" and actions != have:
            raise ValueError(f"{name}: expected hands of {actions} actions, as the model is told of, got {have}")

    def _check_skeleton(self, dataset: Any, name: str) -> None:
        """As many joints in another order would be other joints: quietly wrong names, roots and bones."""
        there, wanted = _hands(dataset).skeleton, SKELETONS[self.skeleton]
        if there.joints != wanted.joints:
            raise ValueError(f"{name}: expected the joints of {wanted.name}, in its order, got those of {there.name}")

    def describe_data(self, dataset: Any) -> dict[str, Any]:
        """Subjects, number of actions, skeleton, and how the crops were made, with what truth they contain."""
        hands = _hands(dataset)
        self._check_skeleton(dataset, "dataset")
        crop = asdict(hands.config) | {"truth": hands.config.truth}
        about = {"subjects": list(hands.subjects), "num_actions": len(hands.actions), "crop": crop}
        return about | {"skeleton": hands.skeleton.name}

    def prepare(self, model: nn.Module, dataset: Any) -> dict[str, float]:
        """Fit the pose prior of a network whose own is still empty; `floor_mm` is what the prior can't say of the
        training poses, as the mean distance of a joint: no network of it gets below."""
        if not isinstance(model, HasBasis):
            return {}
        hands, frames = _frames(dataset)
        joints, centres, config = hands.joints[frames], hands.centres[frames], hands.config
        if not model.basis.any():
            chosen = PCAConfig(model.basis.shape[1], self.pca_draws, self.pca_augment)
            pca = fit_pca(joints, centres, config, chosen)
            model.set_basis(torch.from_numpy(pca.components).float(), torch.from_numpy(pca.mean).float())
        components, mean = (part.detach().cpu().double().numpy() for part in (model.basis.T, model.mean))
        poses = normalise(joints.astype(np.float64), centres, axes(config, centres), config.cube)
        return {"floor_mm": PosePCA(mean, components, np.zeros(len(components)), 0.0).floor_mm(poses, config.cube)}

    def inputs(self, model: nn.Module) -> Inputs:
        basis, mean = (None, None) if not isinstance(model, HasBasis) else (model.basis, model.mean)
        basis, mean = (None if part is None else part.detach().cpu().numpy() for part in (basis, mean))
        return Inputs(basis, mean, num_actions_of(model))

    def example(self, sample: Any, inputs: Inputs, generator: torch.Generator | None) -> dict[str, Any]:
        """A frame, augmented if there is a generator: `crop` [1 H W], `pose` [J 3], `coefficients` [K], `visible` [J],
        `half` (of the cube's side, mm), and `action` [K] for a network that takes one."""
        if self.augment is not None and generator is not None:
            sample = sample.augmented(self.augment, generator)
        pose = sample["pose"]
        example: dict[str, Any] = {"name": f"{sample['key']} {int(sample['frame'])}"}
        example |= {name: sample[name] for name in ("crop", "pose", "visible")} | {"half": sample["cube"] / 2}
        if inputs.basis is not None:
            assert inputs.mean is not None
            example["coefficients"] = (pose.flatten() - torch.from_numpy(inputs.mean)) @ torch.from_numpy(inputs.basis)
        if inputs.num_actions:
            dropped = generator is not None and float(torch.rand((), generator=generator)) < self.condition_dropout
            example["action"] = self._action(int(sample["action"]), inputs.num_actions, dropped)
        return example

    def _action(self, action: int, count: int, dropped: bool = False) -> Tensor:
        """[K] What a network is told of the action."""
        if self.condition == "uniform" or dropped:
            return torch.full((count,), 1 / count)
        if not 0 <= action < count:
            raise ValueError(f"action: expected a class from 0 to {count - 1}, as the model has, got {action}")
        return torch.eye(count)[action]

    def counts(self, batch: dict[str, Any]) -> Tensor:
        """[4] Numbers that the loss is over, joints that it is over (as they are weighed), seen and hidden joints."""
        B, J, _ = batch["pose"].shape
        seen = batch["visible"].sum().float()
        weighed = seen + self.hidden_weight * (B * J - seen)
        numbers = B * batch["coefficients"].shape[1] if self.loss == "coefficients" else 3 * weighed
        return torch.stack([torch.as_tensor(numbers).to(seen), weighed, seen, B * J - seen])

    def sums(self, network: nn.Module, batch: dict[str, Any], constants: Mapping[str, float]) -> Tensor:
        """[4] Squared errors (the loss), the same in mm², distances in mm of seen joints and of hidden ones."""
        action = (batch["action"],) if "action" in batch else ()
        prediction = network(batch["crop"], *action)
        _check_prediction(prediction, batch)
        if self.loss == "coefficients":
            squared = (prediction.coefficients - batch["coefficients"]).square().sum(dim=1)
        else:
            weights = torch.where(batch["visible"], 1.0, self.hidden_weight)
            squared = ((prediction.joints - batch["pose"]).square().sum(dim=2) * weights).sum(dim=1)
        with torch.no_grad():
            mm = (prediction.joints - batch["pose"]).norm(dim=2) * batch["half"][:, None]
            square_mm = (squared * batch["half"].square()).sum()
            seen = torch.where(batch["visible"], mm, 0.0).sum()
        return torch.stack([squared.sum(), square_mm, seen, mm.sum() - seen])

    def total_loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Mean squared error."""
        return sums[0] / counts[0]

    def values(self, sums: Tensor, counts: Tensor) -> dict[str, float]:
        """`loss`; `rms_mm`, the same as the root mean square distance of a joint; mean distances in mm, of all joints,
        of the seen and of the hidden (NaN where there are none)."""
        loss, square_mm, seen_mm, hidden_mm = sums.tolist()
        numbers, weighed, seen, hidden = counts.tolist()
        values = {"loss": loss / numbers, "rms_mm": (square_mm / weighed) ** 0.5}
        values["mpjpe"] = (seen_mm + hidden_mm) / (seen + hidden)
        values["mpjpe_seen"] = seen_mm / seen if seen else float("nan")
        return values | {"mpjpe_hidden": hidden_mm / hidden if hidden else float("nan")}

    def unchanged(self) -> PoseTask:
        return replace(self, augment=None, condition_dropout=0.0)

    def ideas(self, model: nn.Module) -> list[str]:
        return ["dropout=0", "another learning rate", "more components, if the pose prior's floor is near the target"]

    # ---------------------------------------------------------------------------------------------- evaluation

    def score_settings(self) -> dict[str, Any]:
        return {"condition": self.condition, "skeleton": self.skeleton}

    def identify(self, dataset: Any, index: int, sample: Any) -> Identity:
        self._check_skeleton(dataset, "dataset")
        group = sample["key"] if self.intervals == "sequence" else sample["subject"]
        return Identity(sample["key"], group, hash_content(sample), f"{len(sample['crop'])} frames")

    def case(self, sample: Any) -> PoseCase:
        """A sequence, as `HandSequences` has it.

        Raises:
            ValueError: a single frame.
        """
        if "length" not in sample:
            raise ValueError(f"{sample['key']}: expected a whole sequence, as HandSequences has it, got one frame")
        arrays = {name: sample[name].numpy() for name in ("joints", "visible", "centre", "rotation", "cube")}
        known: dict[str, Any] = arrays | {"frames": sample["frame"].numpy(), "action": int(sample["action"])}
        known |= {"intrinsics": sample["intrinsics"].numpy(), "crops": sample["crop"]}
        return PoseCase(sample["key"], sample["subject"], SKELETONS[self.skeleton], **known)

    @torch.inference_mode()
    def predict(self, method: Any, case: PoseCase, name: str) -> np.ndarray:
        """A method's joints in mm [S J 3], checked.

        Raises:
            ValueError: no `PosePrediction`, one of another shape, or with NaN in it; names the method and the sequence.
        """
        where, actions = f"method {name!r}, sequence {case.key}", num_actions_of(method)
        given = (self._action(case.action, actions).expand(BATCH, -1).to(device_of(method)),) if actions else ()
        found = []
        for crops in case.crops.split(BATCH):
            prediction = method(crops.to(device_of(method)), *(part[: len(crops)] for part in given))
            if not isinstance(prediction, PosePrediction):
                raise ValueError(f"{where}: expected a PosePrediction, got {type(prediction).__name__}")
            expected = [len(crops), case.skeleton.num_joints, 3]
            if list(prediction.joints.shape) != expected:
                raise ValueError(f"{where}: expected joints {expected}, got {list(prediction.joints.shape)}")
            found.append(prediction.joints.float().cpu())
        poses = torch.cat(found).numpy()
        if not np.isfinite(poses).all():
            raise ValueError(f"{where}: expected finite joints, got NaN or infinity in {(~np.isfinite(poses)).sum()}")
        return case.restore(poses)

    def answer(self, prediction: np.ndarray, case: PoseCase) -> PoseAnswer:
        return PoseAnswer(prediction, case)

    def strip(self, title: str, identity: Identity, case: PoseCase, predictions: Mapping[str, Any]) -> Strip:
        return strip_of(title, identity, case, predictions)

    def facts(self, data: Mapping[str, Any], results: Results) -> list[str]:
        return [truth_told(data)]

    def summary(self, results: Results) -> list[str]:
        return summarise(results)


def _hands(dataset: Any) -> Any:
    """The data set of hands that a subset is of."""
    return _hands(dataset.dataset) if isinstance(dataset, Subset) else dataset


def _frames(dataset: Any) -> tuple[Any, Any]:
    """The data set of hands that a subset of frames is of, and which frames of it."""
    if not isinstance(dataset, Subset):
        return dataset, slice(None)
    hands, frames = _frames(dataset.dataset)
    return hands, np.arange(len(hands))[frames][list(dataset.indices)]


def _check_prediction(prediction: Any, batch: dict[str, Any]) -> None:
    """Raise `ValueError` unless a network gave joints, and coefficients where there are any, for the whole batch."""
    if not isinstance(prediction, PosePrediction):
        raise ValueError(f"model: expected it to give a PosePrediction, got {type(prediction).__name__}")
    for part, target in (("joints", "pose"), ("coefficients", "coefficients")):
        values, expected = getattr(prediction, part), batch.get(target)
        if expected is not None and (values is None or values.shape != expected.shape):
            got = "none" if values is None else list(values.shape)
            raise ValueError(f"model: expected {part} {list(expected.shape)}, got {got}")
