"""What notebook 08 trains and shows: pose nets, action nets and loops between them, each beside its controls.

The order is `LoopHands.open` → `train_net` of pose nets → `out_of_fold` poses → action nets → `glue` → `weigh_passes` →
`fine_tune` → `with_controls` → `evaluate` → `paired_table`, figures, viewer. Every training is a run of its own and
goes on where it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from flowlib.evaluation import Report
from flowlib.hands.crop import CropConfig
from flowlib.hands.dataset import HandFrames, HandSequences
from flowlib.models.actions import ActionLSTM
from flowlib.models.loops import Chain, Feedback, Loop, Told, TwoPass
from flowlib.models.pose import PoseNet
from flowlib.plots import Axes, error_by_frame, heat_map
from flowlib.splits import SPLITS
from flowlib.tasks.action import ActionTask
from flowlib.tasks.hand_pose import PoseTask
from flowlib.tasks.pose_and_action import JointTask, PosedSequences, predict_poses
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
ALPHAS = (0.2, 0.02, 0.002, 0.0002)
NORMS = ("train", "no dropout", "norms frozen", "frozen")
TRAINED: dict[str, tuple[str, ...]] = {
    "body of the pose net": ("first body",),
    "head of the pose net": ("first head",),
    "action net": ("action",),
    "head and action net": ("first head", "action"),
    "all": (),
}


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
    unpacked: bool

    @classmethod
    def open(
        cls, store: str | Path, crop: CropConfig, *, step: int = 1, max_frames: int = 0, unpacked: bool = False
    ) -> LoopHands:
        """Open a store; sequences are thinned to every `step`-th frame, and cut to `max_frames` of these (0: not)."""
        sequences = (
            HandSequences(store, split, crop, step=step, max_frames=max_frames, unpacked=unpacked) for split in SPLITS
        )
        frames = HandFrames(store, "train", crop, unpacked=unpacked)
        validation_frames = HandFrames(store, "val", crop, step=2 * step, unpacked=unpacked)
        return cls(Path(store).expanduser(), crop, frames, validation_frames, *sequences, step, unpacked)

    @property
    def num_actions(self) -> int:
        return len(self.train.actions)


# ------------------------------------------------------------------------------------------------------- training


def train_net(model: nn.Module, task: Task, train: Any, validation: Any, config: TrainConfig, runs: str | Path) -> Any:
    """Train a network, or go on with the run of that name, and give its best weights in evaluation mode."""
    run = fit(model, task, train, validation, config, folder=run_folder(config.name, Path(runs).expanduser()))
    device = "cpu" if config.device == "cpu" else "auto"
    return load_checkpoint(run.best, device=device)[0]


def load_pose(hands: LoopHands, runs: str | Path, run: str) -> PoseNet:
    """The pose net of a run, such as notebook 06's.

    Raises:
        FileNotFoundError: no such run.
        ValueError: it is no pose net, or was trained on another skeleton, other crops or another number of actions.
    """
    path = find_checkpoint(runs, run)
    model, about = load_checkpoint(path)
    if not isinstance(model, PoseNet):
        raise ValueError(f"{path}: expected a run of a PoseNet, got one of a {type(model).__name__}")
    was, data = about["data"]["train"], hands.train
    if was["skeleton"] != data.skeleton.name:
        raise ValueError(f"{path}: expected a run on joints of {data.skeleton.name}, got one on {was['skeleton']}")
    if model.num_actions and model.num_actions != hands.num_actions:
        raise ValueError(f"{path}: expected a model of {hands.num_actions} actions, got {model.num_actions}")
    now = {name: getattr(data.config, name) for name in ("method", "cube", "size", "centre")}
    other = {name: was["crop"].get(name) for name, value in now.items() if was["crop"].get(name) != value}
    if other:
        expected = ", ".join(f"{name}={now[name]!r}" for name in other)
        got = ", ".join(f"{name}={value!r}" for name, value in other.items())
        raise ValueError(f"{path}: expected a run on crops with {expected}, got {got}")
    return model


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
    if len(set(owners.values())) < folds:
        owners = {key: key for key in owners}
    names = sorted(set(owners.values()))
    if not 2 <= folds <= len(names):
        raise ValueError(f"folds: expected 2 to {len(names)}, for so many sequences are for training, got {folds}")
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
) -> dict[str, ActionLSTM]:
    """An action net for each kind of training poses; all are validated on what `pose` says of validation people.

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
        nets[name] = train_net(make_net(), task, train, validation, named, runs)
    return nets


def fine_tune(
    loops: Mapping[str, Loop], task: JointTask, hands: LoopHands, config: TrainConfig, runs: str | Path
) -> dict[str, Loop]:
    """Train copies of loops end to end; runs are named `<config.name>_<name>`."""
    found = {}
    for name, loop in loops.items():
        named = replace(config, name=f"{config.name}_{name.replace(' ', '_').replace(',', '')}")
        found[name] = train_net(copy.deepcopy(loop), task, hands.train, hands.validation, named, runs)
    return found


# --------------------------------------------------------------------------------------------- loops and controls


@dataclass(frozen=True, eq=False)
class Nets:
    """What loops are glued of.

    Attributes:
        first: a plain pose net. other: another one, of other first weights.
        second: a conditioned one.
        action: an action net. attentive: one with attention, or None.
    """

    first: PoseNet
    other: PoseNet
    second: PoseNet
    action: ActionLSTM
    attentive: ActionLSTM | None = None


def glue(
    nets: Nets, kinds: Sequence[str] = KINDS, *, eta: float = 0.5, zeta: float = 0.5, **options: Any
) -> dict[str, Loop]:
    """Loops of copies of nets, untrained as loops, and the control "two plain nets", which is told nothing.

    Args:
        nets: their parts.
        kinds: of `KINDS`.
        eta, zeta: as of `TwoPass`.
        **options: `norm`, `smoothing` and others of every loop.

    Raises:
        ValueError: a kind that is none.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"loops: expected kinds among {', '.join(KINDS)}, got {unknown[0]!r}")
    two = {"eta": eta, "zeta": zeta}
    made: dict[str, Loop] = {}
    if "chain" in kinds:
        made["chain"] = Chain(nets.first, nets.action, **options)
    if "feedback" in kinds:
        made["feedback"] = Feedback(nets.second, nets.action, **options)
    if "two_pass" in kinds:
        made["two-pass"] = TwoPass(nets.first, nets.second, nets.action, **two, **options)
        made["two plain nets"] = TwoPass(nets.first, nets.other, nets.action, **two, **options)
    if "two_pass" in kinds and nets.attentive is not None:
        made["two-pass, attention"] = TwoPass(nets.first, nets.second, nets.attentive, **two, **options)
    return copy.deepcopy(made)


def with_controls(loops: Mapping[str, Loop], *, oracle: bool = True, note: str = "") -> dict[str, nn.Module]:
    """Loops, the two-pass first, each that is told an action followed by itself told others.

    Args:
        loops: as `glue` makes them.
        oracle: with those that are told the true action, and its partner.
        note: is put behind every name.
    """
    found: dict[str, nn.Module] = {}
    for name in sorted(loops, key=lambda name: name != "two-pass"):
        loop = loops[name]
        found[name + note] = loop
        told = loop.second if isinstance(loop, TwoPass) else loop.pose
        if told.num_actions:
            tellings = {"uniform": "uniform action"} | (
                {"true": "true action", "wrong": "partner's action"} if oracle else {}
            )
            found |= {f"{name}, {text}{note}": Told(loop, telling) for telling, text in tellings.items()}
    return found


# ---------------------------------------------------------------------------------------------------- two passes


@dataclass(frozen=True, eq=False)
class PassWeights:
    """How much the second pass should count, by validation.

    Attributes:
        shares: [G], tried for both.
        scores: [G G], the joint score for each η (rows) and ζ (columns).
        mm: [G], mean joint error for each η.
        accuracy: [G], for each ζ.
        eta, zeta: of the least score.
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
        return heat_map(self.scores, names, names, axes=("η, poses", "ζ, action"), label="joint score", ax=ax)

    def __repr__(self) -> str:
        mm = ", ".join(f"{share:g}: {value:.2f}" for share, value in zip(self.shares, self.mm))
        right = ", ".join(f"{share:g}: {value:.1%}" for share, value in zip(self.shares, self.accuracy))
        return f"η={self.eta:g}, ζ={self.zeta:g}; mm by η: {mm}; right actions by ζ: {right}"


@torch.inference_mode()
def weigh_passes(
    loop: TwoPass, task: JointTask, sequences: HandSequences, shares: Sequence[float] = tuple(np.linspace(0, 1, 11))
) -> PassWeights:
    """Try every share of the second pass on sequences that neither net has learned; each is predicted once."""
    both, shares = copy.deepcopy(loop).eval(), tuple(round(float(share), 3) for share in shares)
    both.eta = both.zeta = 1.0
    squares, mm, nll, right = np.zeros((4, len(shares), len(sequences)))
    for index in range(len(sequences)):
        case = task.case(sequences[index])
        after = both(case.crops[None], torch.tensor([len(case.crops)]))
        assert after.first_pass is not None
        for place, share in enumerate(shares):
            logits = share * after.logits + (1 - share) * after.first_pass.logits
            joints = share * after.joints + (1 - share) * after.first_pass.joints
            said = Found(case.restore(joints[0].numpy()), logits[0].numpy())
            found = task.answer(said, case)
            half = case.cube[:, None] / 2
            squares[place, index] = np.square(found.errors / half).mean() / 3
            mm[place, index] = found.errors.mean()
            nll[place, index], right[place, index] = found.nll, found.rank == 0
    scores = (100 * squares.mean(axis=1)[:, None] + nll.mean(axis=1)[None]) / 2
    eta, zeta = np.unravel_index(scores.argmin(), scores.shape)
    return PassWeights(shares, scores, mm.mean(axis=1), right.mean(axis=1), shares[eta], shares[zeta])


# ------------------------------------------------------------------------------------------------ tables and figures

COMPARED = ("mpjpe", "mpjpe_covered", "mpjpe_seen", "top1")


def comparisons(methods: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of methods that say something of loops, of those that are there: first minus second."""
    pairs = [(name, f"{name}, uniform action") for name in methods]
    pairs += [(name, f"{name} (untrained)") for name in methods]
    pairs += [("two-pass", "two plain nets"), ("two-pass", "chain"), ("feedback", "chain"), ("two plain nets", "chain")]
    pairs += [(f"{loop}, true action", f"{loop}, uniform action") for loop in ("two-pass", "feedback")]
    pairs += [(f"{loop}, partner's action", f"{loop}, uniform action") for loop in ("two-pass", "feedback")]
    pairs += [("two-pass, attention", "two-pass")]
    pairs += [("two-pass (untrained)", f"two-pass, {control} (untrained)") for control in ("uniform action",)]
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
    """The error of ring and little finger over a sequence's time, of which most is spent behind what is held."""
    lines = {}
    for method in report.methods if methods is None else methods:
        found = [report.estimate(method, f"time_{part}") for part in range(PARTS)]
        lines[method] = found
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
    """A list of settings of a loop for `run_experiments` with `loop_maker`: "alpha", "norm" or "trained".

    Raises:
        ValueError: no such list.
    """
    lists: dict[str, dict[str, dict[str, Any]]] = {
        "alpha": {f"alpha {alpha:g}": {"alpha": alpha} for alpha in ALPHAS},
        "norm": {name: {"norm": name} for name in NORMS},
        "trained": {name: {"trained": parts} for name, parts in TRAINED.items()},
    }
    if kind not in lists:
        raise ValueError(f"list: expected one of {', '.join(lists)}, got {kind!r}")
    return lists[kind]


def loop_maker(nets: Nets, kind: str = "chain") -> Callable[..., Loop]:
    """Makes a loop of copies of nets, with the arguments that `loop_lists` change."""

    def make_loop(norm: str = "frozen", trained: tuple[str, ...] = (), smoothing: float = 0.0) -> Loop:
        return next(iter(glue(nets, [kind], norm=norm, trained=trained, smoothing=smoothing).values()))

    return make_loop
