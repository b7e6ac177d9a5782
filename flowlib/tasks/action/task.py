"""`ActionTask`: learning what happens in a sequence from a vector of each frame, and how well that is done.

A sample is a mapping with `pose` [S J 3] (as `HandSequences` has it) or `vectors` [S D] (of anything else), and
`action`, `key` and `subject`; noise needs `cube`, too. Methods are called with [B S D] and lengths [B] and give an
`ActionPrediction`. Knows no network by name: one with a linear prior to be filled says so by having its members.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Subset

from flowlib.hands.pca import PosePCA
from flowlib.models.actions import ActionPrediction, pad
from flowlib.models.features import from_joints
from flowlib.models.protocols import HasConfig, device_of
from flowlib.tasks.action.metrics import METRICS, ActionAnswer, ActionCase, series_of
from flowlib.tasks.action.summary import summarise
from flowlib.tasks.hand_pose.task import HasBasis
from flowlib.tasks.protocol import Identity, MetricSpec, Results, SeriesSpec, Task, hash_content

Labels = Literal["true", "random"]
MEAN_LENGTH = math.sqrt(8 / math.pi)  # of three normal numbers of deviation 1


@runtime_checkable
class HasActions(Protocol):
    """A data set that names its classes."""

    @property
    def actions(self) -> Sequence[str]: ...


@runtime_checkable
class IsOfHands(Protocol):
    """A data set that knows whose hands it has, and how its crops were made."""

    @property
    def subjects(self) -> Sequence[str]: ...
    @property
    def config(self) -> Any: ...


@runtime_checkable
class HasPoses(Protocol):
    """A data set whose poses come from somewhere, as a few words."""

    @property
    def poses_from(self) -> str: ...


@dataclass(frozen=True)
class ActionTask(Task):
    """What happens in a sequence; the fields say how it is learned and measured.

    Raises:
        ValueError: a field out of its range; the message names it.
    """

    name: ClassVar[str] = "action"
    unit: ClassVar[str] = "sequence"
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    score: ClassVar[str] = "top1"
    free: ClassVar[tuple[str, ...]] = ("intervals",)
    headline: ClassVar[str] = "How well does “{main}” tell actions?"
    about: ClassVar[str] = (
        "What happens in a sequence, from a vector of each frame, such as the joints of a hand. Shares are of whole "
        "sequences; how much of them has to be seen is told apart."
    )

    actions: tuple[str, ...] = ()  # names of the classes; partners, if there are any, side by side; none yet: ()
    partners: bool = False  # whether classes 2f and 2f+1 are alike but for the order or the tempo of what they show
    labels: Labels = "true"  # or "random": a class by the sequence's name, whatever it shows: a control
    noise: float = 0.0  # mm, how far joints of training sequences are moved on average, each by itself in every frame
    offset: float = 0.0  # mm, the same, but alike in all frames of a sequence
    intervals: str = "sequence"  # what means and intervals are over: sequence or subject

    def __post_init__(self) -> None:
        if len(self.actions) == 1 or len(set(self.actions)) < len(self.actions):
            raise ValueError(f"actions: expected two or more names, each once, got {list(self.actions)}")
        if self.partners and len(self.actions) % 2:
            raise ValueError(f"partners: expected an even number of actions, got {len(self.actions)}")
        for name, known in (("labels", get_args(Labels)), ("intervals", ("sequence", "subject"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("noise", "offset"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 mm or more, got {getattr(self, name)!r}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> ActionTask:
        return cls(**{**settings, "actions": tuple(settings["actions"])})

    @property
    def group(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.intervals

    @property
    def series(self) -> tuple[SeriesSpec, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return series_of(self.actions)

    # ------------------------------------------------------------------------------------------------ training

    def check(self, model: nn.Module, dataset: Any, name: str) -> None:
        """Raise `ValueError` unless the actions are the task's, and vectors and actions as the network takes them."""
        self._check_actions(dataset, name)
        config = model.config if isinstance(model, HasConfig) else {}
        K, D = len(self.actions), _vectors(dataset[0]).shape[1]
        if config.get("num_actions", K) != K:
            raise ValueError(f"model: expected one of {K} actions, as {name} has, got {config['num_actions']}")
        if config.get("inputs", D) != D:
            raise ValueError(f"model: expected one of {D} inputs a frame, as {name} has, got {config['inputs']}")

    def _check_actions(self, dataset: Any, name: str) -> None:
        have = _whole(dataset)
        if not self.actions:
            raise ValueError("actions: expected the names of the classes, got none")
        if isinstance(have, HasActions) and tuple(have.actions) != self.actions:
            raise ValueError(
                f"{name}: expected the {len(self.actions)} actions of the task ({self.actions[0]}, …), got "
                f"{len(have.actions)} ({', '.join(have.actions[:1]) or 'none'}, …)"
            )

    def describe_data(self, dataset: Any) -> dict[str, Any]:
        """Actions, and of hands subjects, crops and where their poses come from."""
        self._check_actions(dataset, "dataset")
        whole = _whole(dataset)
        about: dict[str, Any] = {"num_actions": len(self.actions)}
        if isinstance(whole, IsOfHands):
            about |= {"subjects": list(whole.subjects), "poses": "truth", "crop": asdict(whole.config)}
            about |= {"step": step} if (step := getattr(whole, "step", 1)) > 1 else {}
        return about | ({"poses": whole.poses_from} if isinstance(whole, HasPoses) else {})

    def prepare(self, model: nn.Module, dataset: Any) -> dict[str, float]:
        """Fit the linear prior of a network whose own is still empty to the frames of the training sequences."""
        if not isinstance(model, HasBasis) or model.basis.any():
            return {}
        frames = np.concatenate([self._features(model, _vectors(sample)) for sample in _samples(dataset)])
        pca = PosePCA.fit(frames[:, :, None], model.basis.shape[1])
        model.set_basis(torch.from_numpy(pca.components).float(), torch.from_numpy(pca.mean).float())
        return {"variance_share": pca.share}

    @staticmethod
    def _features(model: Any, vectors: Tensor) -> np.ndarray:
        """What the network makes of joints before its prior."""
        if model.features == "given":
            return vectors.numpy()
        return from_joints(vectors.unflatten(1, (-1, 3)), model.skeleton, model.features).numpy()

    def example(self, sample: Any, inputs: Any, generator: torch.Generator | None) -> dict[str, Any]:
        """A sequence: `joints` [S D], moved at random if there is a generator, and `action`."""
        vectors = _vectors(sample)
        if generator is not None and (self.noise or self.offset):
            half, S = sample["cube"][:, None] / 2, len(vectors)
            for mm, frames in ((self.noise, S), (self.offset, 1)):
                moved = torch.randn((frames, vectors.shape[1]), generator=generator)
                vectors = vectors + moved * (mm / MEAN_LENGTH) / half
        return {"name": sample["key"], "joints": vectors, "action": self._action(sample)}

    def _action(self, sample: Any) -> int:
        action, K = int(sample["action"]), len(self.actions)
        if not 0 <= action < K:
            raise ValueError(f"{sample['key']}: expected an action from 0 to {K - 1}, got {action}")
        if self.labels == "random":
            return int(hashlib.sha256(str(sample["key"]).encode()).hexdigest(), 16) % K
        return action

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Sequences of different lengths as one batch, padded: `joints` [B S D], `lengths` [B], `action` [B]."""
        joints, lengths = pad([example["joints"] for example in examples])
        batch: dict[str, Any] = {"name": [example["name"] for example in examples], "joints": joints}
        return batch | {"lengths": lengths, "action": torch.tensor([example["action"] for example in examples])}

    def counts(self, batch: dict[str, Any]) -> Tensor:
        """[1] Sequences."""
        return batch["lengths"].new_tensor([len(batch["lengths"])]).float()

    def sums(self, network: nn.Module, batch: dict[str, Any], constants: Mapping[str, float]) -> Tensor:
        """[3] Negative log-likelihoods (the loss), and how many are right, first and among three."""
        prediction = network(batch["joints"], batch["lengths"])
        _check_prediction(prediction, (*batch["joints"].shape[:2], len(self.actions)), "model")
        logits = prediction.logits.float()
        nll = F.cross_entropy(logits, batch["action"], reduction="sum")
        order = logits.detach().argsort(dim=1, descending=True, stable=True)
        right = (order[:, :3] == batch["action"][:, None]).cumsum(dim=1)
        return torch.stack([nll, right[:, 0].sum().to(nll), right[:, -1].sum().to(nll)])

    def total_loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Mean negative log-likelihood."""
        return sums[0] / counts[0]

    def values(self, sums: Tensor, counts: Tensor) -> dict[str, float]:
        """`loss`, the shares `top1` and `top3`."""
        return {name: value / float(counts[0]) for name, value in zip(("loss", "top1", "top3"), sums.tolist())}

    def unchanged(self) -> ActionTask:
        return replace(self, noise=0.0, offset=0.0)

    # ---------------------------------------------------------------------------------------------- evaluation

    def score_settings(self) -> dict[str, Any]:
        return {"actions": list(self.actions), "partners": self.partners, "labels": self.labels}

    def identify(self, dataset: Any, index: int, sample: Any) -> Identity:
        self._check_actions(dataset, "dataset")
        vectors = _vectors(sample)
        content = hash_content([sample["key"], sample["subject"], int(sample["action"]), vectors])
        group = sample["key"] if self.intervals == "sequence" else sample["subject"]
        return Identity(sample["key"], group, content, f"{len(vectors)} frames")

    def case(self, sample: Any) -> ActionCase:
        return ActionCase(sample["key"], _vectors(sample), self._action(sample), self.partners)

    @torch.inference_mode()
    def predict(self, method: Any, case: ActionCase, name: str) -> np.ndarray:
        """A method's logits [S K], as if the sequence ended with each frame; the last row is of the whole.

        Raises:
            ValueError: no `ActionPrediction`, one of another shape, or with NaN in it; names the method and the
                sequence.
        """
        where, device = f"method {name!r}, sequence {case.key}", device_of(method)
        S = len(case.vectors)
        prediction = method(case.vectors[None].to(device), torch.tensor([S], device=device))
        _check_prediction(prediction, (1, S, len(self.actions)), where)
        logits = torch.cat([prediction.frames[0, :-1], prediction.logits]).double().cpu().numpy()
        if not np.isfinite(logits).all():
            raise ValueError(f"{where}: expected finite logits, got NaN or infinity in {(~np.isfinite(logits)).sum()}")
        return logits

    def answer(self, prediction: np.ndarray, case: ActionCase) -> ActionAnswer:
        return ActionAnswer(prediction, case)

    def facts(self, data: Mapping[str, Any], results: Results) -> list[str]:
        return [f"{len(self.actions)} actions"]

    def summary(self, results: Results) -> list[str]:
        return summarise(results, len(self.actions))


def training_set(task: ActionTask, dataset: Any) -> tuple[list[np.ndarray], np.ndarray, int, Any]:
    """What baselines are fitted to: vectors [S D] and action of each sequence, how many actions, and the data set."""
    examples = [task.example(sample, None, None) for sample in _samples(dataset)]
    vectors = [example["joints"].numpy() for example in examples]
    return vectors, np.array([example["action"] for example in examples]), len(task.actions), dataset


def _samples(dataset: Any) -> list[Any]:
    return [dataset[index] for index in range(len(dataset))]


def _vectors(sample: Any) -> Tensor:
    """[S D] of a sample, checked."""
    vectors = sample["vectors"] if "vectors" in sample else sample["pose"]
    if vectors.ndim != (2 if "vectors" in sample else 3):
        raise ValueError(f"{sample['key']}: expected a whole sequence, got one frame {list(vectors.shape)}")
    vectors = vectors.flatten(1)
    if len(vectors) == 0:
        raise ValueError(f"{sample['key']}: expected at least one frame, got none")
    if not torch.isfinite(vectors).all():
        frame = int((~torch.isfinite(vectors)).any(dim=1).float().argmax())
        raise ValueError(f"{sample['key']}: expected finite numbers, got NaN or infinity in frame {frame}")
    return vectors


def _whole(dataset: Any) -> Any:
    """The data set that a subset is of."""
    return _whole(dataset.dataset) if isinstance(dataset, Subset) else dataset


def _check_prediction(prediction: Any, shape: tuple[int, int, int], where: str) -> None:
    """Raise `ValueError` unless a method gave logits of all sequences and frames."""
    if not isinstance(prediction, ActionPrediction):
        raise ValueError(f"{where}: expected an ActionPrediction, got {type(prediction).__name__}")
    B, _, K = shape
    for part, expected in (("logits", (B, K)), ("frames", shape)):
        if getattr(prediction, part).shape != expected:
            got = list(getattr(prediction, part).shape)
            raise ValueError(f"{where}: expected {part} {list(expected)}, got {got}")
