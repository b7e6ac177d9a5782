"""What notebook 08 trains and shows: pose nets, action nets and loops between them, each beside its controls.

The order is `LoopHands.open` → `train_pose_nets` → `train_action_nets` (on poses of `out_of_fold`) → `glue` →
`weigh_passes` → `fine_tune` → `compared` → `evaluate` → `paired_table`, figures, viewer. Every training is a run of its
own and goes on where it was.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from flowlib.evaluation import Report
from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import CropConfig
from flowlib.hands.dataset import HandFrames, HandSequences
from flowlib.models.actions import ActionLSTM
from flowlib.models.loops import Chain, Feedback, Loop, Norm, Told, TwoPass
from flowlib.models.pose import PoseNet
from flowlib.models.protocols import device_of
from flowlib.plots import Axes, error_by_frame, heat_map
from flowlib.quantities import counted
from flowlib.splits import SPLITS
from flowlib.tasks.action import ActionTask
from flowlib.tasks.hand_pose import PoseTask
from flowlib.tasks.pose_and_action import JointTask, OnTruePoses, PosedSequences, predict_poses
from flowlib.tasks.pose_and_action.metrics import PARTS
from flowlib.tasks.pose_and_action.task import Found
from flowlib.tasks.protocol import Estimate, Task
from flowlib.training import TrainConfig, fit, load_checkpoint, run_experiments
from flowlib.training.checkpoints import find_checkpoint
from flowlib.training.runs import run_folder
from flowlib.training.sweeps import RunTable
from flowlib.viewer import HandViewer

KINDS = ("chain", "feedback", "two_pass")
# Ways to tell a pose net the action, as arguments of `PoseNet`: the published table's, and none.
CONDITIONINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "T1, class index": {"concat": "index"},
    "T2, embedding": {"concat": "embedding"},
    "T3, linear": {"concat": "linear"},
    "FiLM on the input": {"film": ("input",)},
    "FiLM residual": {"film": ("residual",)},
    "FiLM linear": {"film": ("linear",)},
    "FiLM linear, output": {"film": ("linear", "output")},
    "FiLM residual, linear": {"film": ("residual", "linear")},
    "FiLM residual, linear, output": {"film": ("residual", "linear", "output")},
}
UNTRAINED = " (untrained)"
ALPHAS = (0.2, 0.02, 0.002, 0.0002)
RATES = (3e-3, 3e-4, 3e-5, 3e-6)
NORMS = ("train", "no dropout", "norms frozen", "frozen")
LISTED = ("run", "status", "steps", "true_mm", "uniform_mm", "true_hidden_mm", "uniform_hidden_mm", "best_joint_score")
LISTED += ("validation_mpjpe", "validation_nll", "validation_accuracy")
TRAINED: dict[str, tuple[str, ...]] = {
    "body of the pose net": ("first body",),
    "head of the pose net": ("first head",),
    "action net": ("action",),
    "head and action net": ("first head", "action"),
    "all": (),
}


@dataclass(frozen=True)
class LoopConfig:
    """How pose nets, action nets and loops of them are trained."""

    name: str = "loops"  # begins the names of all runs
    net: str = "small"  # the pose nets', of `models.pose.SHAPES`
    size: int = 32  # side of a crop in pixels
    components: int = 30  # of the pose prior
    film: tuple[str, ...] = ("linear",)  # where the conditioned net is told the action
    condition_dropout: float = 0.25  # share of its training crops that get 1/K instead of the true action
    steps: int = 1200  # of a plain pose net
    told_steps: int = 1500  # of the conditioned one
    told_weight: float = 0.5  # of hidden joints in its loss; a plain net's is 0.1, for it can't know them
    folds: int = 3  # of the training people, for poses of people unseen
    fold_steps: int = 500  # of the pose net of each fold
    batch_size: int = 64  # crops a step
    learning_rate: float = 1e-3  # of pose nets
    hidden: int = 100  # units of the action nets
    attention: str = "logits_relu"  # of the action net that is also tried; "none" for no such
    action_steps: int = 600  # of an action net, of 20 sequences
    offset: float = 4.0  # mm on the poses that action nets learn from, alike in all frames of a sequence
    tune_steps: int = 216  # of each loop, of `sequences` sequences
    tune_rate: float = 2e-4  # of loops
    sequences: int = 4  # a step of a loop
    alpha: float = 0.002  # share of the action in the loops' loss
    hidden_weight: float = 0.5  # of hidden joints in the loops' loss
    smoothing: float = 0.0  # share of the frame before in the loops' poses
    norm: Norm = "frozen"  # norms and dropout of loops in training
    augment: HandAugment | None = None  # of training crops and of the pose prior
    validations: int = 6  # of each training
    seed: int = 0
    device: str = "auto"  # auto or cpu
    threads: int = 1  # of the CPU; 0: as many as PyTorch takes

    def training(self, part: str, steps: int, batch_size: int, **options: Any) -> TrainConfig:
        """The config of one of the trainings."""
        every = max(1, steps // self.validations)
        fixed: dict[str, Any] = {"weight_decay": 0.0, "num_workers": 0, "validate_every": every, "save_every": every}
        fixed |= {"optimizer": "adam", "learning_rate": self.learning_rate, "seed": self.seed}
        fixed |= {"device": self.device, "threads": self.threads}
        return TrainConfig(f"{self.name}_{part}", steps, batch_size, **fixed | options)

    def pose_task(self, weight: float = 0.1) -> PoseTask:
        """The task of a pose net, hidden joints weighed so much."""
        changed: dict[str, Any] = {"augment": self.augment, "pca_augment": self.augment}
        return PoseTask("joints", weight, condition_dropout=self.condition_dropout, **changed)

    @property
    def joint_task(self) -> JointTask:
        """The task of the loops."""
        return JointTask(alpha=self.alpha, hidden_weight=self.hidden_weight, augment=self.augment)

    def pose_net(self, seed: int | None = None, **told: Any) -> PoseNet:
        """A new pose net."""
        torch.manual_seed(self.seed if seed is None else seed)
        return PoseNet.named(self.net, size=self.size, components=self.components, dropout=0.0, **told)


@dataclass(frozen=True)
class LoopHands:
    """The splits of a store of hands as loops need them.

    Attributes:
        store: the folder.
        crop: how crops are made.
        frames, validation_frames: for pose nets.
        train, validation, test: sequences.
        step: every how many frames of a sequence one is taken.
        unpacked: whether depth is read from an unpacked copy.
    """

    store: Path
    crop: CropConfig
    frames: HandFrames
    validation_frames: HandFrames
    train: HandSequences
    validation: HandSequences
    test: HandSequences
    step: int
    unpacked: bool | str | Path

    @classmethod
    def open(
        cls, store: str | Path, crop: CropConfig, *, step: int = 1, max_frames: int = 0,
        unpacked: bool | str | Path = False, runs: str | Path = "", pose_run: str = "",
    ) -> LoopHands:  # fmt: skip
        """Open a store; sequences are thinned to every `step`-th frame, and cut to `max_frames` of these (0: not).

        With `pose_run`, a run in the folder `runs`, crops are as large as that run's network takes them.
        """
        if pose_run:
            crop = replace(crop, size=int(_pose_of_run(runs, pose_run)[0].size))
        frames = HandFrames(store, "train", crop, unpacked=unpacked)
        validation_frames = HandFrames(store, "val", crop, step=2 * step, unpacked=unpacked)
        thinned: dict[str, Any] = {"step": step, "max_frames": max_frames, "unpacked": unpacked}
        train, validation, test = (HandSequences(store, split, crop, **thinned) for split in SPLITS)
        path = Path(store).expanduser()
        return cls(path, crop, frames, validation_frames, train, validation, test, step, unpacked)

    def __repr__(self) -> str:
        parts = {"to learn from": self.train, "to choose by": self.validation, "to test on": self.test}
        told = (
            f"{len(part)} sequences of {counted(len(part.subjects), 'person', 'people')} {what}"
            for what, part in parts.items()
        )
        return f"{', '.join(told)}; {self.num_actions} actions"

    @property
    def num_actions(self) -> int:
        return len(self.train.actions)


@dataclass(frozen=True, eq=False)
class Nets:
    """What loops are glued of.

    Attributes:
        first: a plain pose net. other: another one, of other first weights.
        second: a conditioned one.
        action: the action net that names most actions of the validation people right.
        learned_from: the poses that it was trained on: "out of fold", "in the fold" or "true"; or a run.
        attentive: one with attention, trained on the same, or None.
        others: action nets by the poses that they were trained on instead.
        accuracy: on validation people, by what action nets were trained on.
    """

    first: PoseNet
    other: PoseNet
    second: PoseNet
    action: ActionLSTM
    learned_from: str
    attentive: ActionLSTM | None = None
    others: Mapping[str, ActionLSTM] = field(default_factory=dict)
    accuracy: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        nets = {"pose": self.first, "conditioned pose": self.second, "action": self.action}
        size = {name: sum(parameter.numel() for parameter in net.parameters()) for name, net in nets.items()}
        told = [f"{name} net: {count:,} parameters" for name, count in size.items()]
        right = [f"{share:.1%} with one that learned from {name} poses" for name, share in self.accuracy.items()]
        names = ["actions of validation people named right: " + ", ".join(right)] if right else []
        return "; ".join([*told, *names, f"taken: {self.learned_from}"])


# ------------------------------------------------------------------------------------------------------- training


def run_of(config: LoopConfig, part: str, runs: str | Path) -> Path:
    """The folder of one of the trainings, such as "second" or "loop_chain"."""
    return run_folder(f"{config.name}_{part}", Path(runs).expanduser())


def split_words(text: str) -> tuple[str, ...]:
    """Words from a parameter's text, by comma.

    >>> split_words("chain, two_pass,")
    ('chain', 'two_pass')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def train_net(model: nn.Module, task: Task, train: Any, validation: Any, config: TrainConfig, runs: str | Path) -> Any:
    """Train a network, or go on with the run of that name, and give its best weights in evaluation mode."""
    run = fit(model, task, train, validation, config, folder=run_folder(config.name, Path(runs).expanduser()))
    return load_checkpoint(run.best, device=_device(config))[0]


def _device(config: TrainConfig) -> str:
    return "cpu" if config.device == "cpu" else "auto"


def load_pose(hands: LoopHands, runs: str | Path, run: str) -> PoseNet:
    """The pose net of a run, such as notebook 06's.

    Raises:
        FileNotFoundError: no such run.
        ValueError: it is no pose net, or was trained on another skeleton, other crops, another number of actions, or
            on sequences that are to be tested on.
    """
    model, about, path = _pose_of_run(runs, run)
    was, data = about["data"]["train"], hands.train
    if was["skeleton"] != data.skeleton.name:
        raise ValueError(f"{path}: expected a run on joints of {data.skeleton.name}, got one on {was['skeleton']}")
    if model.num_actions and model.num_actions != hands.num_actions:
        raise ValueError(f"{path}: expected a model of {hands.num_actions} actions, got {model.num_actions}")
    _check_crop(path, was["crop"], data.config, ("method", "cube", "size", "centre"))
    _check_unseen(path, model, hands)
    return model


def load_action(hands: LoopHands, runs: str | Path, run: str) -> ActionLSTM:
    """The action net of a run, such as notebook 07's; warns where it learned from sequences at another pace.

    Raises:
        FileNotFoundError: no such run.
        ValueError: it is no action net, or one of other actions, of other joints, of joints in another measure, or
            trained on sequences that are to be tested on.
    """
    path = find_checkpoint(runs, run)
    model, about = load_checkpoint(path)
    if not isinstance(model, ActionLSTM):
        raise ValueError(f"{path}: expected a run of an ActionLSTM, got one of a {type(model).__name__}")
    have, inputs = hands.num_actions, 3 * hands.train.skeleton.num_joints
    if (model.num_actions, model.inputs) != (have, inputs):
        got = f"{model.num_actions} and {model.inputs}"
        raise ValueError(
            f"{path}: expected a model of {have} actions and {inputs} inputs, as the hands have, got {got}"
        )
    actions = about["task"]["settings"].get("actions")
    if actions is not None and tuple(actions) != tuple(hands.train.actions):
        expected = ", ".join(hands.train.actions[:2])
        raise ValueError(f"{path}: expected the actions of the hands ({expected}, …), got {', '.join(actions[:2])}, …")
    was = about["data"]["train"]
    _check_crop(path, was.get("crop", {}), hands.train.config, ("method", "cube"))
    _check_unseen(path, model, hands)
    if (step := was.get("step", 1)) != hands.step:
        warnings.warn(
            f"{path}: learned from one frame in {step}, and will be given one in {hands.step}, so "
            f"actions look {hands.step / step:g} times as fast to it; frame_step={step} gives what it knows",
            stacklevel=2,
        )
    return model


def _check_crop(path: Path, was: Mapping[str, Any], config: CropConfig, names: Sequence[str]) -> None:
    """Raise `ValueError` unless a run's crops were made as these are, as far as `names` of `CropConfig` tell."""
    now = {name: getattr(config, name) for name in names}
    other = {name: was.get(name) for name, value in now.items() if was.get(name) != value}
    if other:
        expected = ", ".join(f"{name}={now[name]!r}" for name in other)
        got = ", ".join(f"{name}={value!r}" for name, value in other.items())
        raise ValueError(f"{path}: expected a run on crops with {expected}, got {got}")


def _check_unseen(path: Path, model: Any, hands: LoopHands) -> None:
    """Raise `ValueError` if a run's network was trained on sequences that loops are tested on; a loop of it knows only
    what the loop was trained on."""
    seen = set(model.trained_on) & {*hands.test.videos, *hands.test.fingerprints}
    if seen:
        count = f"{len(seen)} of the {counted(len(hands.test), 'sequence')} to test on"
        raise ValueError(f"{path}: expected a run on other hands than those to test on, got one trained on {count}")


def _pose_of_run(runs: str | Path, run: str) -> tuple[PoseNet, dict[str, Any], Path]:
    path = find_checkpoint(runs, run)
    model, about = load_checkpoint(path)
    if not isinstance(model, PoseNet):
        raise ValueError(f"{path}: expected a run of a PoseNet, got one of a {type(model).__name__}")
    return model, about, path


def out_of_fold(
    hands: LoopHands,
    folds: int,
    make_net: Callable[[], PoseNet],
    task: PoseTask,
    config: TrainConfig,
    runs: str | Path,
    folder: str | Path,
) -> dict[str, Float[np.ndarray, "S J 3"]]:
    """Poses of the training sequences as pose nets say them that have not seen these people.

    The people (sequences, where there are fewer people than folds) are shared among the folds; for each fold a net is
    trained on all others.

    Args:
        hands: the training split is what counts.
        folds: how many.
        make_net: makes each net.
        task, config: of its training; there is nothing to validate on, so it runs to the end.
        runs: the folder of the runs, named `<config.name>_fold<i>`.
        folder: where poses are kept.

    Raises:
        ValueError: fewer than two folds, or fewer sequences than folds.
    """
    train = hands.train
    owners = {key: train[index]["subject"] for index, key in enumerate(train.videos)}
    if not 2 <= folds <= len(owners):
        most = f"up to the {counted(len(owners), 'sequence')} for training"
        raise ValueError(f"folds: expected 2 or more, {most}, got {folds}")
    if len(set(owners.values())) < folds:
        owners = {key: key for key in owners}
    names = sorted(set(owners.values()))
    others = [key for part in (hands.validation, hands.test) for key in part.videos]
    poses: dict[str, np.ndarray] = {}
    for fold in range(folds):
        mine = {key for key, owner in owners.items() if names.index(owner) % folds == fold}
        splits = {key: "val" if key in mine else "train" for key in owners} | dict.fromkeys(others, "test")
        frames = HandFrames(hands.store, "train", hands.crop, splits=splits, unpacked=hands.unpacked)
        torch.manual_seed(config.seed)
        named = replace(config, name=f"{config.name}_fold{fold}")
        poses |= predict_poses(train_net(make_net(), task, frames, None, named, runs), train, folder, sorted(mine))
    return poses


def train_actions(
    hands: LoopHands,
    poses: Mapping[str, Mapping[str, np.ndarray] | None],
    pose: PoseNet,
    make_net: Callable[[], ActionLSTM],
    task: ActionTask,
    config: TrainConfig,
    runs: str | Path,
    folder: str | Path,
) -> dict[str, tuple[ActionLSTM, float]]:
    """An action net for each kind of training poses, and its accuracy on what `pose` says of validation people.

    Args:
        hands: the sequences.
        poses: name -> the poses of the training sequences; None for the true ones.
        pose: the net whose poses the action net will be given.
        make_net: makes each net.
        task, config: of each training; runs are named `<config.name>_<name>`.
        runs, folder: as in `out_of_fold`.
    """
    validation = PosedSequences(hands.validation, predict_poses(pose, hands.validation, folder))
    nets = {}
    for name, given in poses.items():
        train = hands.train if given is None else PosedSequences(hands.train, given)
        torch.manual_seed(config.seed)
        named = replace(config, name=f"{config.name}_{name.replace(' ', '_')}")
        run = fit(make_net(), task, train, validation, named, folder=run_folder(named.name, Path(runs).expanduser()))
        nets[name] = load_checkpoint(run.best, device=_device(config))[0], run.best_score
    return nets


def fine_tune(loops: Mapping[str, Loop], hands: LoopHands, config: LoopConfig, runs: str | Path) -> dict[str, Loop]:
    """Train copies of loops end to end; runs are named `<config.name>_loop_<name>`."""
    found = {}
    for name, loop in loops.items():
        part = f"loop_{name.replace(' ', '_').replace(',', '')}"
        steps = config.training(part, config.tune_steps, config.sequences, learning_rate=config.tune_rate)
        found[name] = train_net(copy.deepcopy(loop), config.joint_task, hands.train, hands.validation, steps, runs)
    return found


def train_nets(
    hands: LoopHands, config: LoopConfig, runs: str | Path, *, pose_run: str = "", action_run: str = ""
) -> Nets:
    """All parts of loops, by `train_pose_nets` and `train_action_nets`.

    Args:
        hands: what they learn from.
        config: of the trainings.
        runs: the folder of the runs.
        pose_run, action_run: takes the first pose net and the action net from these, such as notebook 06's and 07's,
            instead of training them; with the latter there are no folds and no other action nets.
    """
    pose = train_pose_nets(hands, config, runs, pose_run)
    if action_run:
        return Nets(*pose, load_action(hands, runs, action_run), f"the run {action_run!r}")
    folder = Path(runs).expanduser() / f"{config.name}_poses"
    return Nets(*pose, *train_action_nets(hands, config, pose[0], runs, folder))


def train_pose_nets(
    hands: LoopHands, config: LoopConfig, runs: str | Path, pose_run: str = ""
) -> tuple[PoseNet, PoseNet, PoseNet]:
    """A plain pose net, another one, and a conditioned one.

    Args:
        hands: the frames.
        config: of the trainings.
        runs: the folder of the runs.
        pose_run: takes the first one from this run, such as notebook 06's; "" trains one.
    """
    given, plain, told = (
        (hands.frames, hands.validation_frames),
        config.pose_task(),
        config.pose_task(config.told_weight),
    )
    seeds = {"first": config.seed, "other": config.seed + 1}
    nets = [
        load_pose(hands, runs, pose_run)
        if part == "first" and pose_run
        else train_net(
            config.pose_net(seed),
            plain,
            *given,
            config.training(part, config.steps, config.batch_size, seed=seed),
            runs,
        )
        for part, seed in seeds.items()
    ]
    second = config.pose_net(num_actions=hands.num_actions, film=config.film)
    steps = config.training("second", config.told_steps, config.batch_size)
    return nets[0], nets[1], train_net(second, told, *given, steps, runs)


def train_action_nets(
    hands: LoopHands, config: LoopConfig, pose: PoseNet, runs: str | Path, folder: str | Path
) -> tuple[ActionLSTM, str, ActionLSTM | None, dict[str, ActionLSTM], dict[str, float]]:
    """Action nets trained on poses "out of fold", "in the fold" (as `pose` has them of people that it has seen) and
    "true" ones; the best on validation people is taken.

    Poses in the fold are like those of other people as far as `pose` has learned nothing by heart; those out of fold
    come from nets that saw fewer people. Which is the better teacher is for the validation to say.

    Args:
        hands: the sequences.
        config: of the trainings.
        pose: the net whose poses of other people they will be given.
        runs: the folder of the runs.
        folder: where predicted poses are kept.

    Returns:
        The rest of `Nets`: action, learned_from, attentive, others, accuracy.
    """
    steps = config.training("fold", config.fold_steps, config.batch_size)
    poses = out_of_fold(hands, config.folds, config.pose_net, config.pose_task(), steps, runs, folder)
    task = ActionTask(hands.train.actions, partners=hands.num_actions % 2 == 0, offset=config.offset)
    quick = {"learning_rate": 3e-3, "optimizer": "amsgrad", "validate_every": 20}
    rest = task, config.training("action", config.action_steps, 20, **quick), runs, folder
    inputs = 3 * hands.train.skeleton.num_joints

    def make_net(attention: str = "none") -> ActionLSTM:
        return ActionLSTM(inputs, hands.num_actions, hidden=config.hidden, attention=attention)

    kinds = {"out of fold": poses, "in the fold": predict_poses(pose, hands.train, folder), "true": None}
    found = train_actions(hands, kinds, pose, make_net, *rest)
    accuracy = {name: score for name, (_, score) in found.items()}
    taken = max(accuracy, key=lambda name: accuracy[name])
    attentive = None
    if config.attention != "none":
        name = f"attention {taken}"
        attended = train_actions(hands, {name: kinds[taken]}, pose, lambda: make_net(config.attention), *rest)
        attentive, accuracy[f"{taken} (attention)"] = attended[name]
    return found[taken][0], taken, attentive, {n: net for n, (net, _) in found.items() if n != taken}, accuracy


# --------------------------------------------------------------------------------------------- loops and controls


def glue(
    nets: Nets, kinds: Sequence[str] = KINDS, *, eta: float = 0.5, zeta: float = 0.5, **options: Any
) -> dict[str, Loop]:
    """Loops of copies of nets, untrained as loops, and the control "two plain nets", which is told nothing.

    Args:
        nets: their parts.
        kinds: of `KINDS`.
        eta, zeta: as of `TwoPass`; of the control both stay one half, for with other shares it would be no average.
        **options: `norm`, `smoothing` and others of every loop.

    Raises:
        ValueError: a kind that is none.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"loops: expected kinds among {', '.join(KINDS)}, got {unknown[0]!r}")

    def copies(*names: str) -> list[Any]:
        # A loop says which of its parts take gradients, so no two may share any.
        return [copy.deepcopy(getattr(nets, name)) for name in names]

    two = {"eta": eta, "zeta": zeta, **options}
    made: dict[str, Loop] = {}
    if "chain" in kinds:
        made["chain"] = Chain(*copies("first", "action"), **options)
    if "feedback" in kinds:
        made["feedback"] = Feedback(*copies("second", "action"), **options)
    if "two_pass" in kinds:
        made["two-pass"] = TwoPass(*copies("first", "second", "action"), **two)
        made["two plain nets"] = TwoPass(*copies("first", "other", "action"), **options)
    if "two_pass" in kinds and nets.attentive is not None:
        made["two-pass, attention"] = TwoPass(*copies("first", "second", "attentive"), **two)
    return made


def tellings(oracle: bool) -> dict[str, str]:
    """What controls are told, and what that is called."""
    told: dict[str, str] = {"uniform": "uniform action"}
    if oracle:
        told |= {"true": "true action", "wrong": "partner's action"}
    return told


def with_controls(loops: Mapping[str, Loop], *, oracle: bool = True, note: str = "") -> dict[str, nn.Module]:
    """Loops, the two-pass first, each that is told an action followed by itself told others.

    Args:
        loops: as `glue` makes them.
        oracle: with those that are told the true action, and its partner; with attention that would be the same.
        note: is put behind every name.
    """
    found: dict[str, nn.Module] = {}
    for name in sorted(loops, key=lambda name: name != "two-pass"):
        loop = loops[name]
        found[name + note] = loop
        told = loop.second if isinstance(loop, TwoPass) else loop.pose
        if told.num_actions:
            more = oracle and "attention" not in name
            found |= {f"{name}, {text}{note}": Told(loop, telling) for telling, text in tellings(more).items()}
    return found


def compared(
    trained: Mapping[str, Loop], untrained: Mapping[str, Loop], nets: Nets, *, oracle: bool = True
) -> dict[str, Any]:
    """All that stands in the table, by name: trained loops and their controls, the two-pass first; the untrained ones;
    the conditioned net told each action; chains whose action net learned from other poses."""
    found: dict[str, Any] = with_controls(trained, oracle=oracle)
    found |= with_controls(untrained, oracle=False, note=UNTRAINED)
    second = Chain(*copy.deepcopy((nets.second, nets.action)))
    found |= {f"second net, {text}": Told(second, telling) for telling, text in tellings(oracle).items()}
    for name, net in nets.others.items():
        found[f"chain, action net on {name} poses"] = Chain(*copy.deepcopy((nets.first, net)))
    on_truth = OnTruePoses(nets.others.get("true", nets.action))
    return found | ({"true poses, action net on these": on_truth} if oracle else {})


# ---------------------------------------------------------------------------------------------------- two passes


@dataclass(frozen=True, eq=False)
class PassWeights:
    """How much the second pass should count, by validation.

    Attributes:
        shares: [G], tried for both.
        scores: [G G], the joint score for each η (rows) and ζ (columns).
        mm: [G], mean joint error for each η.
        accuracy: [G], for each ζ.
        eta, zeta: of the least score, or as given.
    """

    shares: tuple[float, ...]
    scores: Float[np.ndarray, "G G"]
    mm: Float[np.ndarray, " G"]
    accuracy: Float[np.ndarray, " G"]
    eta: float
    zeta: float

    def figure(self, *, ax: Axes | None = None) -> Axes:
        """The score by η and ζ."""
        names = [f"{share:g}" for share in self.shares]
        return heat_map(
            self.scores, names, names, axes=("η, poses", "ζ, action"), label="joint score, the less the better", ax=ax
        )

    def __repr__(self) -> str:
        mm = ", ".join(f"{share:g}: {value:.2f}" for share, value in zip(self.shares, self.mm))
        right = ", ".join(f"{share:g}: {value:.1%}" for share, value in zip(self.shares, self.accuracy))
        return f"η={self.eta:g}, ζ={self.zeta:g}; mm by η: {mm}; right actions by ζ: {right}"


@torch.inference_mode()
def weigh_passes(
    nets: Nets,
    config: LoopConfig,
    hands: LoopHands,
    *,
    eta: float = -1,
    zeta: float = -1,
    shares: Sequence[float] = tuple(np.linspace(0, 1, 11)),
) -> PassWeights:
    """Try every share of the second pass on the validation people; each sequence is predicted once.

    Args:
        nets: first and second pose net, action net.
        config: of the loops.
        hands: the sequences.
        eta, zeta: given ones; the best if below 0.
        shares: that are tried.
    """
    [loop, *_] = glue(nets, ["two_pass"], eta=1, zeta=1, smoothing=config.smoothing).values()
    task, sequences = config.joint_task, hands.validation
    shares = tuple(round(float(share), 3) for share in shares)
    squares, mm, nll, right = np.zeros((4, len(shares), len(sequences)))
    device = device_of(loop.eval())
    for index in range(len(sequences)):
        case = task.case(sequences[index])
        after = loop(case.crops[None].to(device), torch.tensor([len(case.crops)], device=device))
        assert after.first_pass is not None
        for place, share in enumerate(shares):
            logits = share * after.logits + (1 - share) * after.first_pass.logits
            joints = share * after.joints + (1 - share) * after.first_pass.joints
            found = task.answer(Found(case.restore(joints[0].cpu().numpy()), logits[0].cpu().numpy()), case)
            squares[place, index] = np.square(found.errors / (case.cube[:, None] / 2)).mean() / 3
            mm[place, index] = found.errors.mean()
            nll[place, index], right[place, index] = found.nll, found.rank == 0
    scores = (100 * squares.mean(axis=1)[:, None] + nll.mean(axis=1)[None]) / 2
    best = [shares[int(place)] for place in np.unravel_index(scores.argmin(), scores.shape)]
    chosen = [float(own) if given < 0 else given for own, given in zip(best, (eta, zeta))]
    return PassWeights(shares, scores, mm.mean(axis=1), right.mean(axis=1), *chosen)


# ------------------------------------------------------------------------------------------------ tables and figures

OVER_TIME = ("chain", "two plain nets", "two-pass, uniform action", "two-pass", "two-pass, true action", "feedback")
COMPARED = ("mpjpe", "mpjpe_covered", "mpjpe_seen", "top1")


def comparisons(methods: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of methods that say something of loops, of those that are there: first minus second."""
    pairs = [(name, f"{name}, uniform action") for name in methods]
    pairs += [(name, name + UNTRAINED) for name in methods if not name.endswith("action")]
    pairs += [("two-pass", "two plain nets"), ("two-pass", "chain"), ("feedback", "chain"), ("two plain nets", "chain")]
    pairs += [(f"{loop}, true action", f"{loop}, uniform action") for loop in ("two-pass", "feedback")]
    pairs += [(f"{loop}, partner's action", f"{loop}, uniform action") for loop in ("two-pass", "feedback")]
    pairs += [("two-pass, attention", "two-pass")]
    pairs += [(name + UNTRAINED, f"{name}, uniform action{UNTRAINED}") for name in ("two-pass", "feedback")]
    return [pair for pair in dict.fromkeys(pairs) if set(pair) <= set(methods)]


def paired_table(
    report: Report, pairs: Sequence[tuple[str, str]] | None = None, metrics: Sequence[str] = COMPARED
) -> str:
    """Differences of methods, paired by sequence, with their intervals, as a Markdown table; bold: more than chance.

    Args:
        report: an evaluation of loops.
        pairs: (first, second); those of `comparisons` by default.
        metrics: names of the numbers.
    """
    specs = [spec for spec in map(report.task.metric, metrics) if spec.name in report.specs]
    heads = ["first − second", *(f"{spec.label}, {spec.unit}" for spec in specs)]
    rows = []
    for first, second in comparisons(report.methods) if pairs is None else pairs:
        found = [_difference(report.difference(first, second, spec.name), spec.scale, spec.digits) for spec in specs]
        rows.append([f"{first} − {second}", *found])
    lines = [heads, ["---", *["---:"] * len(specs)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _difference(value: Estimate, scale: float, digits: int) -> str:
    if not value.videos:
        return "–"
    mean, low, high = (f"{scale * one:+.{digits}f}" for one in (value.mean, value.low, value.high))
    shown = f"**{mean}**" if value.excludes_zero else mean
    return f"{shown} [{low}, {high}]" if value.has_interval else shown


def over_time_figure(report: Report, methods: Sequence[str] | None = None, *, ax: Axes | None = None) -> Axes:
    """The error of ring and little finger over a sequence's time, of which most is spent behind what is held.

    Args:
        report: an evaluation of loops.
        methods: their names; those of `OVER_TIME` by default.
    """
    shown = [name for name in OVER_TIME if name in report.methods] if methods is None else methods
    lines = {method: [report.estimate(method, f"time_{part}") for part in range(PARTS)] for method in shown}
    intervals = {name: ([one.low for one in found], [one.high for one in found]) for name, found in lines.items()}
    means = {name: [one.mean for one in found] for name, found in lines.items()}
    label = "ring and little finger, mm"
    return error_by_frame(means, intervals=intervals, label=label, axis="twentieth of the sequence's time", ax=ax)


def loop_viewer(loops: Mapping[str, nn.Module], hands: LoopHands, index: int | None, task: JointTask) -> HandViewer:
    """A test sequence in 3D with what each loop says of its joints, and what the first one's action net thinks."""
    index = index or 0
    case = task.case(hands.test[index])
    joints = {name: task.predict(loop, case, name).joints.astype(np.float32) for name, loop in loops.items()}
    first = next(iter(loops.values()))
    assert isinstance(first, Loop)
    with torch.inference_mode():
        poses = first(case.crops[None], torch.tensor([len(case.crops)])).joints
        frames = first.action(poses.flatten(2)).frames[0].softmax(dim=1).numpy()
    return HandViewer(hands.test.sequence(index), joints, actions=frames, action_names=hands.test.actions)


# -------------------------------------------------------------------------------------------------- lists of settings


def try_conditionings(
    hands: LoopHands, names: Sequence[str], shape: Mapping[str, Any], task: PoseTask, config: TrainConfig, runs: Path
) -> RunTable:
    """Train a small pose net for each way of telling it the action, and measure it told the true one, and 1/K.

    Args:
        hands: frames to train and to validate on.
        names: of `CONDITIONINGS`.
        shape: arguments of `PoseNet`.
        task, config: of each training.
        runs: the folder of the runs.

    Returns:
        A row for each, with `true_mm` and `uniform_mm` on validation frames, of all joints, and the same of hidden
        ones.
    """
    changes = {name: _conditioned(hands, name) for name in names}
    table = run_experiments(
        PoseNet, task, hands.frames, hands.validation_frames, changes, config, model=shape, runs=runs
    )
    rows = []
    for name, row in zip(names, table.rows, strict=True):
        net, _ = load_checkpoint(Path(row["folder"]) / "best.pt")
        found = {"conditioning": name}
        for condition in ("true", "uniform"):
            values = _values(net, replace(task.unchanged(), condition=condition), hands.validation_frames)
            found |= {f"{condition}_mm": values["mpjpe"], f"{condition}_hidden_mm": values["mpjpe_hidden"]}
        rows.append(row | found)
    return RunTable(rows)


def _conditioned(hands: LoopHands, name: str) -> dict[str, Any]:
    if name not in CONDITIONINGS:
        raise ValueError(f"conditionings: expected some of {', '.join(CONDITIONINGS)}, got {name!r}")
    told = CONDITIONINGS[name]
    return told | ({"num_actions": hands.num_actions} if told else {})


@torch.inference_mode()
def _values(net: nn.Module, task: Task, dataset: Any, size: int = 64) -> dict[str, float]:
    """A task's values of a network over a data set."""
    net.eval()
    sums, counts, inputs = 0.0, 0.0, task.inputs(net)
    for first in range(0, len(dataset), size):
        places = range(first, min(first + size, len(dataset)))
        batch = task.collate([task.example(dataset[place], inputs, None) for place in places])
        sums, counts = sums + task.sums(net, batch, {}), counts + task.counts(batch)
    return task.values(torch.as_tensor(sums), torch.as_tensor(counts))


def loop_lists(kind: str) -> dict[str, dict[str, Any]]:
    """A list of settings of a loop for `run_experiments` with `loop_maker`: "alpha", "norm", "rate", "trained".

    Raises:
        ValueError: no such list.
    """
    lists: dict[str, dict[str, dict[str, Any]]] = {
        "alpha": {f"alpha {alpha:g}": {"alpha": alpha} for alpha in ALPHAS},
        "norm": {name: {"norm": name} for name in NORMS},
        "rate": {f"rate {rate:g}": {"learning_rate": rate} for rate in RATES},
        "trained": {name: {"parts": parts} for name, parts in TRAINED.items()},
    }
    if kind not in lists:
        raise ValueError(f"list: expected one of {', '.join(lists)}, got {kind!r}")
    return lists[kind]


def loop_maker(nets: Nets, kind: str = "chain") -> Callable[..., Loop]:
    """Makes a loop of copies of nets, with the arguments that `loop_lists` change (`parts`: those that are trained)."""

    def make_loop(norm: str = "frozen", parts: tuple[str, ...] = (), smoothing: float = 0.0) -> Loop:
        return next(iter(glue(nets, [kind], norm=norm, trained=parts, smoothing=smoothing).values()))

    return make_loop


def try_lists(
    kinds: Sequence[str], nets: Nets, hands: LoopHands, config: LoopConfig, steps: int, runs: str | Path
) -> RunTable | None:
    """Small runs of "conditioning", and of a chain's "norm", "trained", "alpha" and "rate", one table of all.

    Args:
        kinds: which lists; none says so, and gives None.
        nets, hands, config: as for loops.
        steps: of each run.
        runs: the folder of the runs.
    """
    if not kinds:
        print('no list to try: give lists = "conditioning,norm,trained,alpha,rate"')
        return None
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        if kind == "conditioning":
            shape = config.pose_net().config
            of_pose = config.training("told", steps, config.batch_size)
            task = config.pose_task(config.told_weight)
            rows += try_conditionings(hands, tuple(CONDITIONINGS), shape, task, of_pose, Path(runs)).rows
            continue
        of_loop = config.training(f"list_{kind}", steps, config.sequences, learning_rate=config.tune_rate)
        given = hands.train, hands.validation, loop_lists(kind), of_loop
        rows += run_experiments(loop_maker(nets), config.joint_task, *given, model={}, runs=Path(runs)).rows
    return RunTable([{name: value for name, value in row.items() if name in LISTED} for row in rows])
