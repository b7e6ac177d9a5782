"""Loops between an estimator and a classifier: poses tell the action, and the action tells what the pose must be.

`chain`, `feedback` and `two_pass` are written over two callables, so that they serve tracks as well as hands:

    estimate(inputs [N ...], action [N K] or None) -> values [N ...], each of the N frames by itself
    classify(values [B S ...], lengths [B]) -> ActionPrediction, of sequences that are padded behind; `feedback`
        asks for its `start` and `step`, too

`Chain`, `Feedback` and `TwoPass` are these three as networks of hands, made of a `PoseNet` and an `ActionLSTM`, which
can be trained end to end. `Told` is a control: a loop that is told an action instead of guessing it.
Knows nothing of losses, data or millimetres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flowlib.models.actions import ActionLSTM, ActionPrediction
from flowlib.models.film import TELLINGS, check_action, retold
from flowlib.models.pose import PoseNet
from flowlib.models.protocols import Role

Estimate = Callable[[Tensor, Tensor | None], Tensor]
Classify = Callable[[Tensor, Tensor], ActionPrediction]


@runtime_checkable
class Stepwise(Protocol):
    """A classifier that is told one frame after the other, as `ActionLSTM` is."""

    def start(self, batch: int) -> Any: ...
    def step(self, values: Tensor, state: Any) -> tuple[Tensor, Any]: ...


Norm = Literal["frozen", "norms frozen", "no dropout", "train"]
PARTS = ("first body", "first head", "second body", "second head", "action")


@dataclass(frozen=True, eq=False)
class LoopPrediction:
    """What a loop says of padded sequences.

    Attributes:
        values: [B S ...], what was estimated of each frame; 0 behind a sequence's end.
        logits: [B K]; their softmax are the actions' probabilities.
        told: [B K], the action that the last pass was told; None where there was none.
        first_pass: what was said before the action was known; None where that is all there is.
    """

    values: Tensor
    logits: Float[Tensor, "B K"]
    told: Float[Tensor, "B K"] | None = None
    first_pass: LoopPrediction | None = None


@dataclass(frozen=True, eq=False)
class HandPrediction:
    """Poses and action of padded sequences of crops.

    Attributes:
        joints: [B S J 3], relative to the crops' centres, in units of half their cubes; 0 behind a sequence's end.
        logits: [B K]; their softmax are the actions' probabilities.
        first_pass: what was said before the action was known; None where that is all there is.
    """

    joints: Float[Tensor, "B S J 3"]
    logits: Float[Tensor, "B K"]
    first_pass: HandPrediction | None = None


def chain(
    estimate: Estimate, classify: Classify, inputs: Tensor, lengths: Tensor, *, action: Tensor | None = None,
    smoothing: float | Tensor = 0.0,
) -> LoopPrediction:  # fmt: skip
    """Estimate every frame, then classify the sequence: what there is without a loop.

    Args:
        estimate, classify: see the module's header.
        inputs: [B S ...], padded behind.
        lengths: int [B], from 1 to S.
        action: [B K] that the estimator is told; None for one that takes none.
        smoothing: see `smoothed`.
    """
    values = smoothed(estimate_frames(estimate, inputs, lengths, action), smoothing)
    values = blank_padding(values, lengths)
    return LoopPrediction(values, classify(values, lengths).logits, action)


def feedback(
    estimate: Estimate, classify: Stepwise, inputs: Tensor, lengths: Tensor, *, num_actions: int,
    action: Tensor | None = None, smoothing: float | Tensor = 0.0,
) -> LoopPrediction:  # fmt: skip
    """Frame by frame: the action as it is known after each frame is told to the estimator of the next.

    The first frame is told 1/K everywhere.

    Args:
        estimate, classify, inputs, lengths, smoothing: as in `chain`.
        num_actions: K.
        action: [B K] that is told in every frame instead.
    """
    _check_lengths(inputs, lengths)
    (B, S), device = inputs.shape[:2], inputs.device
    told = torch.full((B, num_actions), 1 / num_actions, device=device) if action is None else action
    logits, past, state = torch.zeros(B, num_actions, device=device), [], classify.start(B)
    for frame in range(S):
        going = torch.nonzero(lengths > frame)[:, 0]
        found = estimate(inputs[going, frame], told[going])
        values = found.new_zeros(B, *found.shape[1:]).index_put((going,), found)
        past.append(values if not past else smoothing * past[-1] + (1 - smoothing) * values)
        said, state = classify.step(past[-1], state)
        logits = logits.to(said).index_put((going,), said[going])
        told = told.to(said).index_put((going,), said[going].softmax(dim=1)) if action is None else told
    return LoopPrediction(blank_padding(torch.stack(past, dim=1), lengths), logits, told)


def two_pass(
    first: Estimate, second: Estimate, classify: Classify, inputs: Tensor, lengths: Tensor, *, eta: float = 0.5,
    zeta: float = 0.5, action: Tensor | None = None, classify_again: Classify | None = None,
    smoothing: float | Tensor = 0.0,
) -> LoopPrediction:  # fmt: skip
    """A chain; its action is told to a second estimator for all frames; both passes are averaged.

    Args:
        first, second: estimators of both passes; the second is told the action.
        classify, inputs, lengths, smoothing: as in `chain`.
        eta: share of the second pass in the values.
        zeta: its share in the logits: the geometric mean of both probabilities, which a softmax re-normalises.
        action: [B K] that the second pass is told instead of what the first found.
        classify_again: of the second pass; None for the same.
    """
    before = chain(first, classify, inputs, lengths, smoothing=smoothing)
    told = before.logits.softmax(dim=1) if action is None else action
    after = chain(second, classify_again or classify, inputs, lengths, action=told, smoothing=smoothing)
    values = eta * after.values + (1 - eta) * before.values
    return LoopPrediction(values, zeta * after.logits + (1 - zeta) * before.logits, told, before)


def estimate_frames(estimate: Estimate, inputs: Tensor, lengths: Tensor, action: Tensor | None = None) -> Tensor:
    """What an estimator says of every frame [B S ...], all at once, and each told its sequence's action [B K].

    Padding is not estimated, so that it costs nothing and changes no statistics; there is 0.
    """
    _check_lengths(inputs, lengths)
    real = within(lengths, inputs.shape[1])
    found = estimate(inputs[real], None if action is None else action[torch.nonzero(real)[:, 0]])
    return found.new_zeros(*real.shape, *found.shape[1:]).index_put((real,), found)


def smoothed(values: Tensor, share: float | Tensor) -> Tensor:
    """An exponential average over time of values [B S ...]: share · what was before + (1 - share) · what is now."""
    if isinstance(share, float) and share == 0:
        return values
    kept = [values[:, 0]]
    for now in values.unbind(dim=1)[1:]:
        kept.append(share * kept[-1] + (1 - share) * now)
    return torch.stack(kept, dim=1)


def within(lengths: Tensor, frames: int) -> Tensor:
    """[B S] Which frames are of a sequence, not of the padding behind it."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def blank_padding(values: Tensor, lengths: Tensor) -> Tensor:
    """Values [B S ...] with 0 behind each sequence's end."""
    real = within(lengths, values.shape[1])
    return torch.where(real.reshape(*real.shape, *[1] * (values.ndim - 2)), values, 0.0)


def _check_lengths(inputs: Tensor, lengths: Tensor) -> None:
    B, S = inputs.shape[:2]
    if list(lengths.shape) != [B] or lengths.is_floating_point():
        raise ValueError(f"lengths: expected whole numbers [{B}], got {lengths.dtype} {list(lengths.shape)}")
    if B == 0 or int(lengths.min()) < 1 or int(lengths.max()) > S:
        raise ValueError(f"lengths: expected sequences of 1 to {S} frames, got {lengths.tolist()}")


class Loop(nn.Module):
    """What the loops of hands share: how they are made and trained.

    A loop takes its nets as they are, and says which of their parameters take gradients: two loops that are to be
    trained need copies of their own.

    Norms and dropout: batches of few sequences make a batch norm's statistics worthless, and a loop calls its pose net
    on batches of changing size, so with `norm="frozen"` both stay as in evaluation, whatever `train` says, and norms'
    scale and shift are held. Others are there to measure what that is worth.
    """

    def __init__(
        self, pose: PoseNet | Mapping[str, Any], action: ActionLSTM | Mapping[str, Any], *, norm: Norm = "frozen",
        trained: Sequence[str] = (), smoothing: float = 0.0, train_smoothing: bool = False, **config: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if norm not in get_args(Norm):
            raise ValueError(f"norm: expected one of {', '.join(get_args(Norm))}, got {norm!r}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing: expected a share from 0 up, below 1, got {smoothing!r}")
        if wrong := [part for part in trained if part not in PARTS]:
            raise ValueError(f"trained: expected parts among {', '.join(PARTS)}, got {', '.join(map(repr, wrong))}")
        self.pose = pose if isinstance(pose, PoseNet) else PoseNet(**pose)
        self.action = action if isinstance(action, ActionLSTM) else ActionLSTM(**action)
        self.num_actions, self.norm = self.action.num_actions, norm
        given = torch.tensor(float(smoothing))
        self.share = nn.Parameter(torch.logit(given)) if train_smoothing else None
        self.smoothing, self._trained = float(smoothing), tuple(trained)
        self.config: dict[str, Any] = {"pose": self.pose.config, "action": self.action.config, "norm": norm}
        self.config |= {"trained": list(trained), "smoothing": smoothing, "train_smoothing": train_smoothing, **config}
        if train_smoothing and smoothing == 0:
            raise ValueError("smoothing: expected a share above 0 to begin with where it is trained, got 0")
        self._fits(self.pose, self.action)

    @property
    def size(self) -> int:
        """Side of the crops it takes, in pixels."""
        return self.pose.size

    def _fits(self, pose: PoseNet, action: ActionLSTM) -> None:
        told, known = pose.num_actions, action.num_actions
        if told not in (0, known):
            raise ValueError(f"pose, action: expected the same number of actions, got {told} and {known}")
        if pose.config["joints"] * 3 != action.config["inputs"]:
            got = f"{pose.config['joints']} joints and {action.config['inputs']} inputs"
            raise ValueError(f"pose, action: expected three inputs for each joint, got {got}")

    def _hold(self) -> None:
        """Let only the parts in `trained` take gradients (all where none is named), and no frozen norm."""
        nets = {"first": self.pose, "second": self._modules.get("second")}
        for name, net in nets.items():
            for key, parameter in net.named_parameters() if net is not None else ():
                part = "head" if key.split(".")[0] in ("hidden", "last", "film_linear", "film_output") else "body"
                parameter.requires_grad_(not self._trained or f"{name} {part}" in self._trained)
        for net in (self.action, self._modules.get("action_again")):
            for parameter in net.parameters() if net is not None else ():
                parameter.requires_grad_(not self._trained or "action" in self._trained)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and self.norm in ("frozen", "norms frozen"):
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Loop:
        """Training or evaluation mode; norms and dropout as `norm` says."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and self.norm in ("frozen", "norms frozen"):
                module.train(False)
            if isinstance(module, nn.Dropout) and self.norm in ("frozen", "no dropout"):
                module.train(False)
        return self

    def _smoothing(self) -> float | Tensor:
        return self.smoothing if self.share is None else torch.sigmoid(self.share)

    def _check(self, crops: Tensor, action: Tensor | None) -> None:
        side = self.size
        if crops.ndim != 5 or list(crops.shape[2:]) != [1, side, side]:
            raise ValueError(f"crops: expected [B S 1 {side} {side}], got {list(crops.shape)}")
        if action is not None:
            check_action(action, len(crops), self.num_actions)


class Chain(Loop):
    """A pose net and an action net, one behind the other; "type 1" of the published loops.

    Args:
        pose: a `PoseNet`, or its config. One that is conditioned is told 1/K everywhere if nothing else is given.
        action: an `ActionLSTM`, or its config.
        unrolled: frame by frame instead of all frames at once: the same numbers, many times as slow.
        norm: "frozen" (norms and dropout as in evaluation, whatever the mode), "norms frozen" (dropout acts in
            training), "no dropout" (norms use the batch's statistics in training), or "train" (both as in training).
        trained: the parts that are trained, of `PARTS`; none named: all.
        smoothing: share of the frame before in an exponential average of the poses; 0 for none.
        train_smoothing: let that share be learned.

    Raises:
        ValueError: an argument outside these, or nets that don't fit together.
    """

    def __init__(
        self, pose: PoseNet | Mapping[str, Any], action: ActionLSTM | Mapping[str, Any], *, unrolled: bool = False,
        norm: Norm = "frozen", trained: Sequence[str] = (), smoothing: float = 0.0, train_smoothing: bool = False,
    ) -> None:  # fmt: skip
        options: dict[str, Any] = {"norm": norm, "trained": trained, "smoothing": smoothing}
        super().__init__(pose, action, train_smoothing=train_smoothing, unrolled=unrolled, **options)
        self.unrolled = unrolled
        self._hold()

    def forward(
        self, crops: Float[Tensor, "B S 1 H W"], lengths: Int[Tensor, " B"], action: Float[Tensor, "B K"] | None = None
    ) -> HandPrediction:
        """Predict from padded sequences; `action` is told to a pose net that takes one."""
        self._check(crops, action)
        if self.pose.num_actions and action is None:
            action = crops.new_full((len(crops), self.num_actions), 1 / self.num_actions)
        told = action if self.pose.num_actions else None
        if not self.unrolled:
            found = chain(
                joints_of(self.pose), _OfJoints(self.action), crops, lengths, action=told, smoothing=self._smoothing()
            )
            return HandPrediction(found.values, found.logits)
        fixed = crops.new_zeros(len(crops), self.num_actions) if told is None else told
        found = feedback(
            joints_of(self.pose), _OfJoints(self.action), crops, lengths, num_actions=self.num_actions, action=fixed,
            smoothing=self._smoothing(),
        )  # fmt: skip
        return HandPrediction(found.values, found.logits)


class Feedback(Loop):
    """The action after each frame conditions the pose of the next; "type 2, per frame".

    Args:
        pose: a conditioned `PoseNet`, or its config.
        action, norm, trained, smoothing, train_smoothing: as of `Chain`.
    """

    def __init__(
        self, pose: PoseNet | Mapping[str, Any], action: ActionLSTM | Mapping[str, Any], *, norm: Norm = "frozen",
        trained: Sequence[str] = (), smoothing: float = 0.0, train_smoothing: bool = False,
    ) -> None:  # fmt: skip
        options: dict[str, Any] = {"norm": norm, "trained": trained, "smoothing": smoothing}
        super().__init__(pose, action, train_smoothing=train_smoothing, **options)
        if not self.pose.num_actions:
            raise ValueError("pose: expected one that is conditioned on the action, got one without")
        self._hold()

    def forward(
        self, crops: Float[Tensor, "B S 1 H W"], lengths: Int[Tensor, " B"], action: Float[Tensor, "B K"] | None = None
    ) -> HandPrediction:
        """Predict from padded sequences; `action` is told in every frame instead of what was found."""
        self._check(crops, action)
        found = feedback(
            joints_of(self.pose), _OfJoints(self.action), crops, lengths, num_actions=self.num_actions, action=action,
            smoothing=self._smoothing(),
        )  # fmt: skip
        return HandPrediction(found.values, found.logits)


class TwoPass(Loop):
    """A chain, whose action conditions a second pose net; poses and probabilities averaged; "type 2, per sequence".

    Args:
        pose: of the first pass, a plain `PoseNet`, or its config.
        second: of the second pass, conditioned; a plain one makes this two networks averaged, the control.
        action, norm, smoothing, train_smoothing: as of `Chain`; the action net may have attention.
        action_again: of the second pass; None: the same as of the first, which is trained by both.
        eta: share of the second pass in the poses.
        zeta: its share in the geometric mean of the probabilities.
        trained: as of `Chain`; by default all but the first pose net, as published.
    """

    second: PoseNet

    def __init__(
        self, pose: PoseNet | Mapping[str, Any], second: PoseNet | Mapping[str, Any],
        action: ActionLSTM | Mapping[str, Any], *, action_again: ActionLSTM | Mapping[str, Any] | None = None,
        eta: float = 0.5, zeta: float = 0.5, norm: Norm = "frozen",
        trained: Sequence[str] = ("second body", "second head", "action"), smoothing: float = 0.0,
        train_smoothing: bool = False,
    ) -> None:  # fmt: skip
        options: dict[str, Any] = {"norm": norm, "trained": trained, "smoothing": smoothing}
        super().__init__(pose, action, train_smoothing=train_smoothing, eta=eta, zeta=zeta, **options)
        for name, share in (("eta", eta), ("zeta", zeta)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {share!r}")
        if self.pose.num_actions:
            raise ValueError("pose: expected one for the first pass that takes no action, got a conditioned one")
        self.eta, self.zeta = eta, zeta
        self.second = second if isinstance(second, PoseNet) else PoseNet(**second)
        again = action_again
        self.action_again = again if again is None or isinstance(again, ActionLSTM) else ActionLSTM(**again)
        self.config["second"] = self.second.config
        self.config["action_again"] = None if self.action_again is None else self.action_again.config
        if self.second.size != self.pose.size:
            raise ValueError(f"second: expected crops of {self.pose.size} pixels, got {self.second.size}")
        self._fits(self.second, self.action)
        if self.action_again is not None:
            self._fits(self.second, self.action_again)
        self._hold()

    def forward(
        self, crops: Float[Tensor, "B S 1 H W"], lengths: Int[Tensor, " B"], action: Float[Tensor, "B K"] | None = None
    ) -> HandPrediction:
        """Predict from padded sequences; `action` is told to the second pass instead of what the first found."""
        self._check(crops, action)
        again = None if self.action_again is None else _OfJoints(self.action_again)
        found = two_pass(
            joints_of(self.pose), joints_of(self.second), _OfJoints(self.action), crops, lengths, eta=self.eta,
            zeta=self.zeta, action=action, classify_again=again, smoothing=self._smoothing(),
        )  # fmt: skip
        assert found.first_pass is not None
        before = HandPrediction(found.first_pass.values, found.first_pass.logits)
        return HandPrediction(found.values, found.logits, before)


LOOPS: dict[str, type[Loop]] = {kind.__name__: kind for kind in (Chain, Feedback, TwoPass)}


def told_of(loop: Loop) -> dict[str, Any]:
    """A loop as plain JSON values, of which `made_loop` makes it again, without its weights."""
    return {"kind": type(loop).__name__, **loop.config}


def made_loop(loop: Loop | Mapping[str, Any]) -> Loop:
    """A loop, or the one that `told_of` told of.

    Raises:
        ValueError: a kind that is none.
    """
    if isinstance(loop, Loop):
        return loop
    config = dict(loop)
    if (kind := config.pop("kind", None)) not in LOOPS:
        raise ValueError(f"kind: expected one of {', '.join(LOOPS)}, got {kind!r}")
    return LOOPS[kind](**config)


class Told(nn.Module):
    """A loop that is told an action instead of guessing it: what its gain is to be compared with.

    Args:
        loop: a `Chain`, `Feedback` or `TwoPass`, or what `told_of` says of one.
        telling: of the truth, see `film.retold`: "uniform", "true" or "wrong".
    """

    def __init__(self, loop: Loop | Mapping[str, Any], telling: str) -> None:
        super().__init__()
        loop = made_loop(loop)
        if telling not in TELLINGS:
            raise ValueError(f"telling: expected one of {', '.join(TELLINGS)}, got {telling!r}")
        self.loop, self.telling, self.num_actions = loop, telling, loop.num_actions
        self.config = {"loop": told_of(loop), "telling": telling}

    @property
    def role(self) -> Role:
        return "baseline" if self.telling == "uniform" else "oracle"

    @property
    def size(self) -> int:
        return self.loop.size

    def vector(self, classes: Int[Tensor, " B"]) -> Float[Tensor, "B K"]:
        """What is told where these are the true classes."""
        return retold(torch.eye(self.num_actions, device=classes.device)[classes], self.telling)

    def forward(self, crops: Tensor, lengths: Tensor, action: Tensor) -> HandPrediction:
        """Predict from padded sequences, told `vector` of the true classes."""
        return self.loop(crops, lengths, action)


class Taught(nn.Module):
    """A student and the teacher it learns from, which is told the true action and stays as it is.

    Args:
        student: a loop, or what `told_of` says of one; it alone predicts.
        teacher: likewise, mostly a `Feedback` of a conditioned pose net.
    """

    def __init__(self, student: Loop | Mapping[str, Any], teacher: Loop | Mapping[str, Any]) -> None:
        super().__init__()
        student, teacher = made_loop(student), made_loop(teacher)
        if student.num_actions != teacher.num_actions or student.size != teacher.size:
            got = f"{student.num_actions}, {student.size} and {teacher.num_actions}, {teacher.size}"
            raise ValueError(f"teacher: expected the student's number of actions and size of crops, got {got}")
        self.student, self.teacher = student, teacher.requires_grad_(False)
        self.num_actions, self.size = student.num_actions, student.size
        self.config = {"student": told_of(student), "teacher": told_of(teacher)}

    def forward(self, crops: Tensor, lengths: Tensor) -> HandPrediction:
        """What the student says."""
        return self.student(crops, lengths)

    def teach(self, crops: Tensor, lengths: Tensor, classes: Int[Tensor, " B"]) -> HandPrediction:
        """What the teacher says, told the true classes."""
        return self.teacher(crops, lengths, torch.eye(self.num_actions, device=crops.device)[classes])

    def train(self, mode: bool = True) -> Taught:
        """Training or evaluation mode; the teacher stays in evaluation."""
        super().train(mode)
        self.teacher.eval()
        return self


def joints_of(pose: PoseNet) -> Estimate:
    """A pose net as the estimator of a loop; one that takes no action is told none."""

    def estimate(crops: Tensor, action: Tensor | None) -> Tensor:
        return pose(crops, action if pose.num_actions else None).joints

    return estimate


@dataclass(frozen=True, eq=False)
class _OfJoints:
    """An action net as the classifier of a loop, fed joints [B S J 3] instead of their coordinates [B S 3J]."""

    net: ActionLSTM

    def __call__(self, joints: Tensor, lengths: Tensor) -> ActionPrediction:
        return self.net(joints.flatten(2), lengths)

    def start(self, batch: int) -> Any:
        return self.net.start(batch)

    def step(self, values: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.net.step(values.flatten(1), state)
