"""What the notebook of actions shows and compares: data sets by where they come from, noise, three ways of one LSTM.

Each function takes sequences of hands or tracks (and methods that name their actions) and returns a figure, a table or
text.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flowlib.evaluation import Report, evaluate
from flowlib.hands.crop import CropConfig
from flowlib.hands.dataset import HandSequences, TruePoses
from flowlib.hands.published import published
from flowlib.models.action_baselines import LastFrame, Majority, NearestSequence
from flowlib.models.actions import MODES, ActionLSTM, pad
from flowlib.plots import Axes, learning_curves
from flowlib.progress import Progress
from flowlib.quantities import counted
from flowlib.sources import write_actions
from flowlib.splits import SPLITS
from flowlib.synthetic import ACTIONS
from flowlib.tasks.action import ActionTask, training_set
from flowlib.tasks.action.metrics import calibration_error, class_accuracy, mcnemar, wilson
from flowlib.tasks.action.task import MEAN_LENGTH
from flowlib.tasks.action.tracks import TrackConfig, TrackSequences, track_videos
from flowlib.tasks.hand_pose import PoseTask
from flowlib.tasks.pose_and_action import PosedSequences, predict_poses
from flowlib.training import TrainConfig, run_experiments
from flowlib.training.checkpoints import find_checkpoint, load_checkpoint, load_task
from flowlib.training.runs import read_metrics
from flowlib.training.sweeps import RunTable
from flowlib.workspace import Workspace

PUBLISHED_DRIFT = (
    (10, 1e-5),
    (20, 1e-4),
    (100, 1e-3),
)  # (epochs, difference up to there), laboratory notes of hsed/fyp
KINDS = ("anew in every frame", "alike in all frames")  # noise on joints
Hands = HandSequences | PosedSequences | TruePoses
Sequences = Hands | TrackSequences
SOURCES = ("hands", "tracks")


def open_sequences(
    source: str, store: str | Path, *, poses: str = "truth", runs: str | Path | None = None, max_frames: int = 0,
    folder: str | Path = "", scenes: int = 30, tracker: str = "lucas_kanade", weights: str = "", seed: int = 0,
    device: str = "auto",
) -> tuple[Sequences, Sequences, Sequences]:  # fmt: skip
    """The sequences to train on, to validate on and to test on, of hands (`open_actions`) or of videos' tracks.

    Args:
        source: "hands" or "tracks".
        store, poses, runs, max_frames: as `open_actions`; of tracks, `store` is where they are kept, and 64 frames the
            most if `max_frames` is 0.
        folder: of videos, a folder for each class; "" for the built-in motions, rendered in `store`.
        scenes: of the built-in motions, each with all of them.
        tracker: one of `trackers.NAMES`.
        weights: of the tracker: "" for the published ones, else a path, URL or gdown id.
        seed: of the splits of videos.
        device: for the tracker.

    Raises:
        As `open_actions` and `track_videos`; ValueError: another source, or too few scenes for three splits.
    """
    if source not in SOURCES:
        raise ValueError(f"source: expected one of {', '.join(SOURCES)}, got {source!r}")
    if source == "tracks" and not folder and scenes < len(SPLITS):
        raise ValueError(f"scenes: expected {len(SPLITS)} or more, one for each split, got {scenes}")
    if source == "hands":
        return open_actions(store, poses, runs=runs, max_frames=max_frames)
    store, actions = Path(store).expanduser(), () if folder else ACTIONS
    videos = folder or write_actions(store / "videos", count=scenes, progress=Progress)
    config = TrackConfig(tracker=tracker, weights=weights)
    config = replace(config, max_frames=max_frames) if max_frames else config
    tracked = track_videos(
        videos, store / "sequences", config, actions=actions, seed=seed, device=device, progress=Progress
    )
    print(tracked.describe())
    parts = TrackSequences(tracked, "train"), TrackSequences(tracked, "val"), TrackSequences(tracked, "test")
    _warn_of_missing(*parts)
    return parts


def action_net(train: Any, **options: Any) -> ActionLSTM:
    """A network for the sequences of `train`, see `open_sequences`: as many inputs and actions, and of hands their
    skeleton; with further arguments of `ActionLSTM`."""
    if isinstance(train, TrackSequences):
        return ActionLSTM(train.inputs, len(train.actions), **options)
    joints = train.skeleton.num_joints
    return ActionLSTM(3 * joints, len(train.actions), skeleton=train.skeleton.name, **options)


def open_actions(
    store: str | Path, poses: str = "truth", *, runs: str | Path | None = None, max_frames: int = 0
) -> tuple[Hands, Hands, Hands]:
    """The sequences to train on, to validate on and to test on, with true poses or those that a network finds.

    Args:
        store: the folder of the hands.
        poses: "truth", or the name of a run that was trained on hands (notebook 06). Its poses are made once and kept
            in the store's folder `poses`; a line tells how far they are from the truth, for a network knows the people
            that it was trained on better than others.
        runs: the folder of the runs; the workspace's by default.
        max_frames: longer sequences are cut to their first frames; 0 cuts none.

    Raises:
        FileNotFoundError: no store, or no such run.
        ValueError: the run is of another task, or the store's hands have no actions.
    """
    store = Path(store).expanduser()
    if poses == "truth":
        found: list[Any] = [HandSequences(store, split, max_frames=max_frames) for split in SPLITS]
    else:
        model, about = load_checkpoint(find_checkpoint(Workspace().runs if runs is None else runs, poses))
        if not isinstance(task := load_task(about["path"]), PoseTask):
            raise ValueError(f"poses: expected a run trained on hands, got {about['path']}, of a {type(task).__name__}")
        crop = {key: value for key, value in about["data"]["train"]["crop"].items() if key != "truth"}
        found = []
        for split in SPLITS:
            sequences = HandSequences(store, split, CropConfig(**crop), max_frames=max_frames)
            made = predict_poses(model, sequences, store / "poses")
            error = joint_error(sequences, made)
            print(f"{split}: joints {error:.1f} mm from the truth")
            found.append(PosedSequences(sequences, made, f"joints that the run {poses!r} found, {error:.1f} mm off"))
    if len(found[0].actions) < 2:
        raise ValueError(f"{store}: expected hands of two or more actions, got {len(found[0].actions)}")
    _warn_of_missing(*found)
    return found[0], found[1], found[2]


def _warn_of_missing(train: Sequences, validation: Sequences, test: Sequences) -> None:
    """Print which classes can't be learned, or aren't measured, for want of sequences."""
    wants = [(train, "to learn from", "never named right"), (validation, "to choose by", "not counted")]
    for part, what, result in [*wants, (test, "to test on", "not counted")]:
        have = {int(part[index]["action"]) for index in range(len(part))}
        if missing := [name for number, name in enumerate(part.actions) if number not in have]:
            print(f"no sequence {what} of {', '.join(missing)}: {result}")


def joint_error(sequences: HandSequences | TruePoses, poses: Mapping[str, np.ndarray]) -> float:
    """Mean distance in mm of poses to the true ones, over joints, then frames, then sequences."""
    errors = []
    for index in range(len(sequences)):
        sample = sequences[index]
        off = np.linalg.norm(poses[sample["key"]] - sample["pose"].numpy(), axis=-1).mean(axis=1)
        errors.append((off * sample["cube"].numpy() / 2).mean())
    return float(np.mean(errors))


def action_methods(model: nn.Module, task: ActionTask, train: Any) -> dict[str, Any]:
    """A trained network and what it has to beat, by name."""
    known = training_set(task, train)
    methods = {"model": model, "nearest sequence": NearestSequence.fit(*known), "last frame": LastFrame.fit(*known)}
    return methods | {"majority": Majority.fit(*known)}


def accuracy_table(report: Report) -> str:
    """Right actions of every method with Wilson's intervals, and the main method against each, as a Markdown table."""
    rows, main = [], report.per_sample(report.main, "top1") == 1
    for name in report.methods:
        truth, guess = (report.per_sample(name, part).astype(int) for part in ("truth", "guess"))
        right = truth == guess
        low, high = wilson(int(right.sum()), len(right))
        parts = [f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"]
        parts += [f"{100 * class_accuracy(truth, guess):.1f}"]
        parts += [f"{100 * calibration_error(report.per_sample(name, 'confidence'), right):.1f}"]
        ahead, behind, p = mcnemar(main, right)
        parts += ["", ""] if name == report.main else [f"{ahead} : {behind}", f"{p:.2g}"]
        rows.append(f"| {name} | {' | '.join(parts)} |")
    head = f"| method | right % (Wilson) | each action alike % | ECE % | {report.main} alone right : other alone | p |"
    return "\n".join([head, "| --- | ---: | ---: | ---: | ---: | ---: |", *rows])


# --------------------------------------------------------------------------------------------------------------- noise


def noisy_poses(
    sequences: HandSequences | TruePoses, mm: float, *, lasting: bool = False, seed: int = 0
) -> PosedSequences:
    """Sequences whose true joints are moved at random, `mm` on average, each by itself.

    The directions are the same for every `mm`, so that accuracies differ by how far alone.

    Args:
        sequences: with their true poses.
        mm: mean distance.
        lasting: alike in all frames of a sequence; else in each anew.
        seed: of the directions.
    """
    poses = {}
    for index in range(len(sequences)):
        sample = sequences[index]
        key = int(hashlib.sha256(sample["key"].encode()).hexdigest()[:16], 16)
        frames = 1 if lasting else len(sample["pose"])
        moved = np.random.default_rng((seed, key)).standard_normal((frames, *sample["pose"].shape[1:]))
        scale = mm / MEAN_LENGTH / (sample["cube"].numpy() / 2)
        poses[sample["key"]] = (sample["pose"].numpy() + moved * scale[:, None, None]).astype(np.float32)
    kind = KINDS[lasting]
    return PosedSequences(sequences, poses, f"true joints moved by {mm:g} mm on average, each by itself, {kind}")


@dataclass(frozen=True)
class NoiseCurve:
    """How often actions are told from joints that lie so far off.

    Attributes:
        levels: for each of `KINDS`: mean distance of a joint in mm -> (right, of so many).
        beside: what others have published: mm -> share right.
    """

    levels: dict[str, dict[float, tuple[int, int]]]
    beside: dict[float, float]

    @property
    def falls(self) -> dict[str, bool]:
        """Of each kind, whether more noise never helps, up to what chance does: no share's interval lies above that of
        any with less noise."""
        ends = {kind: [wilson(*level) for level in levels.values()] for kind, levels in self.levels.items()}
        return {
            kind: all(low <= before[1] for place, (low, _) in enumerate(own) for before in own[:place])
            for kind, own in ends.items()
        }

    def figure(self, ax: Axes | None = None) -> Axes:
        """Shares over millimetres with Wilson's intervals, and the published points."""
        curves: dict[str, Any] = {}
        intervals: dict[str, Any] = {}
        for kind, levels in self.levels.items():
            name = f"true joints moved, {kind}"
            curves[name] = (list(levels), [right / count for right, count in levels.values()])
            intervals[name] = tuple(zip(*(wilson(*level) for level in levels.values())))
        if self.beside:
            curves["pose networks on FPHA, 45 actions (published)"] = tuple(zip(*sorted(self.beside.items())))
        axis = "mean joint error, mm"
        return learning_curves(curves, label="share right", log=False, axis=axis, intervals=intervals, ax=ax)

    def _repr_markdown_(self) -> str:
        lines = ["| joints moved | mm | right | share |", "| --- | ---: | ---: | --- |"]
        for kind, levels in self.levels.items():
            for mm, (right, count) in levels.items():
                low, high = wilson(right, count)
                lines.append(
                    f"| {kind} | {mm:.1f} | {right} of {count} | {right / count:.3f} [{low:.3f}, {high:.3f}] |"
                )
        return "\n".join(lines)


def noise_of(
    model: nn.Module, task: ActionTask, sequences: Sequences, levels: str, folder: str | Path, seed: int = 0
) -> NoiseCurve | None:
    """`noise_curve` on the true joints of sequences of hands; None, and a word of it, for tracks, which have none."""
    if isinstance(sequences, TrackSequences):
        print("no joints to move: tracks come with the errors of their tracker")
        return None
    truth = sequences.truth if isinstance(sequences, PosedSequences) else sequences
    return noise_curve(model, task, truth, levels, folder, seed)


def noise_curve(
    model: nn.Module, task: ActionTask, truth: HandSequences | TruePoses, levels: str, folder: str | Path, seed: int = 0
) -> NoiseCurve:
    """Evaluate a network on true joints that were moved at random, by more and more.

    Args:
        model: in evaluation mode.
        task: of the evaluation.
        truth: the sequences with their true poses.
        levels: mean distances in mm by comma, "0,5,10,20".
        folder: where scores are kept.
        seed: of the directions.

    Raises:
        ValueError: no numbers.
    """
    found: dict[str, dict[float, tuple[int, int]]] = {kind: {} for kind in KINDS}
    for mm in parse_levels(levels):
        for lasting, kind in enumerate(KINDS):
            noisy = noisy_poses(truth, mm, lasting=bool(lasting), seed=seed)
            error = joint_error(truth, {sample["key"]: sample["pose"].numpy() for sample in noisy})
            report = evaluate({"model": model}, task, noisy, folder=folder, pictures=False, progress=False)
            right = report.per_sample("model", "top1")
            found[kind][round(error, 2)] = (int(right.sum()), len(right))
    entries = [figure for entry in published("fpha", "noise") for figure in entry["figures"]]
    return NoiseCurve(found, {figure["mm"]: figure["accuracy"] for figure in entries})


def parse_levels(text: str) -> tuple[float, ...]:
    """Amounts of noise from a parameter's text, ascending.

    >>> parse_levels("10, 0,5")
    (0.0, 5.0, 10.0)
    """
    try:
        levels = sorted({float(word) for word in text.split(",") if word.strip()})
    except ValueError:
        levels = []
    if not levels or not 0 <= levels[0] <= levels[-1] < np.inf:
        raise ValueError(f"noise: expected numbers of mm by comma like '0,5,10,20', got {text!r}")
    return tuple(levels)


# ---------------------------------------------------------------------------------------------------------- three ways


@dataclass(frozen=True)
class ThreeWays:
    """One network run over packed sequences, over padded ones, and frame by frame.

    Attributes:
        rows: for each number type and mode: largest difference of a logit from "packed", how many actions are other
            ones, and seconds for all sequences.
        h_n: whether the packed logits are, bit for bit, those of the LSTM's last hidden state.
    """

    rows: list[dict[str, Any]]
    h_n: bool

    def _repr_markdown_(self) -> str:
        head = ["| numbers | way | largest difference of a logit | other actions | seconds |"]
        rows = [
            f"| {row['dtype']} | {row['mode']} | {row['difference']:.1e} | {row['changed']} | {row['seconds']:.2f} |"
            for row in self.rows
        ]
        bits = f"Packed is h_n bit for bit: {'yes' if self.h_n else 'no'}."
        return "\n".join([*head, "| --- | --- | ---: | ---: | ---: |", *rows, "", bits])


@torch.inference_mode()
def three_ways(model: ActionLSTM, task: ActionTask, sequences: Any) -> ThreeWays:
    """Compare the three ways on all sequences as one batch, in the order they come in."""
    joints, lengths = pad([task.case(sequences[index]).vectors for index in range(len(sequences))])
    state, rows, h_n = model.state_dict(), [], True
    for dtype in (torch.float32, torch.float64):
        twin = ActionLSTM(**model.config)
        twin.load_state_dict(state)
        twin = twin.to(dtype).eval()
        packed = twin(joints.to(dtype), lengths, "packed").logits
        if twin.attention == "none":
            h_n = h_n and torch.equal(packed, twin.head(_last_hidden(twin, joints.to(dtype), lengths)))
        for mode in MODES:
            began = time.process_time()
            logits = twin(joints.to(dtype), lengths, mode).logits
            row: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "mode": mode}
            row |= {"difference": float((logits - packed).abs().max()), "seconds": time.process_time() - began}
            rows.append(row | {"changed": int((logits.argmax(dim=1) != packed.argmax(dim=1)).sum())})
    return ThreeWays(rows, h_n)


def _last_hidden(model: ActionLSTM, joints: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What torch's own LSTM says of packed sequences, as its users do it."""
    inputs = model.encode(joints)
    packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    return model.lstm(packed)[1][0][-1]


@dataclass(frozen=True)
class Drift:
    """How far trainings of one start drift apart when the LSTM is run another way.

    Attributes:
        rows: for each way but the first: mode, epochs -> largest difference of a step's loss so far (`loss`), and of a
            logit of the sequences at the end (`logits`).
    """

    rows: list[dict[str, Any]]

    def _repr_markdown_(self) -> str:
        epochs = list(self.rows[0]["loss"])
        head = [f"loss, {counted(count, 'epoch')}" for count in epochs] + [f"logits, {counted(epochs[-1], 'epoch')}"]
        lines = [f"| against packed | {' | '.join(head)} |", "| --- |" + " ---: |" * len(head)]
        for row in self.rows:
            parts = [f"{value:.1e}" for value in (*row["loss"].values(), row["logits"])]
            lines.append(f"| {row['mode']} | {' | '.join(parts)} |")
        known = ", ".join(f"{value:g} below {count}" for count, value in PUBLISHED_DRIFT)
        lines += ["", f"Reported by others (they don't say of what), by epochs: {known}."]
        return "\n".join(lines)


def training_drift(
    model: ActionLSTM,
    task: ActionTask,
    train: Any,
    test: Any,
    config: TrainConfig,
    epochs: int = 10,
    *,
    runs: Path | None = None,
) -> Drift:
    """Train the same network anew from one start, each way, and compare losses step by step and the last logits.

    Args:
        model: whose arguments are taken.
        task, train: as in `fit`.
        test: sequences whose logits are compared.
        config: of each run; its name begins theirs.
        epochs: passes over the training sequences.
        runs: the folder of the runs; the workspace's by default.
    """
    each = -(-len(train) // config.batch_size)
    base = replace(config, steps=epochs * each, save_every=epochs * each)
    changes = {f"mode={mode}": {"mode": mode} for mode in MODES}
    table = run_experiments(ActionLSTM, task, train, None, changes, base, model=model.config, runs=runs)
    joints, lengths = pad([task.case(test[index]).vectors for index in range(len(test))])
    losses, logits = [], []
    for row in table.rows:
        losses.append(np.array([line["loss"] for line in read_metrics(row["folder"]) if "loss" in line]))
        trained, _ = load_checkpoint(Path(row["folder"]) / "last.pt")
        with torch.inference_mode():
            logits.append(trained(joints, lengths).logits)
    marks = sorted({count for count in (1, 2, 5, epochs) if count <= epochs})
    rows = []
    for mode, loss, last in zip(MODES[1:], losses[1:], logits[1:]):
        apart = np.abs(loss - losses[0])
        worst = {count: float(apart[: count * each].max()) for count in marks}
        rows.append({"mode": mode, "loss": worst, "logits": float((last - logits[0]).abs().max())})
    return Drift(rows)


def try_attention(
    model: ActionLSTM,
    task: ActionTask,
    train: Any,
    validation: Any,
    config: TrainConfig,
    attentions: str,
    seeds: int = 3,
    *,
    runs: Path | None = None,
) -> RunTable | None:
    """Train a run for each kind of attention and seed, or go on with them.

    Args:
        model: whose other arguments are taken.
        task, train, validation: as in `fit`.
        config: of each run; its name begins theirs.
        attentions: kinds by comma, "none,logits_relu".
        seeds: runs of each.
        runs: the folder of the runs; the workspace's by default.

    Returns:
        The spread of each kind over its seeds; None, and a word of it, where no list is given.
    """
    names = [name.strip() for name in attentions.split(",") if name.strip()]
    if not names:
        print('no list to try: give attentions = "none,logits_relu,logits_sigmoid"')
        return None
    tried = [{"attention": name, "seed": seed} for name in names for seed in range(seeds)]
    changes = {f"attention={one['attention']} seed={one['seed']}": one for one in tried}
    table = run_experiments(ActionLSTM, task, train, validation, changes, config, model=model.config, runs=runs)
    return RunTable([row | one for row, one in zip(table.rows, tried, strict=True)]).spread("attention")
