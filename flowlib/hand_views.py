"""What the notebooks of hands show and compare: crops, pose priors, lists of settings, and viewers of predictions.

Each function takes a store or a data set of hands (and methods that predict) and returns a figure, a table or a viewer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from flowlib.colours import TRUTH
from flowlib.evaluation import Report, evaluate
from flowlib.evaluation.comparison import difference_between
from flowlib.hands.augment import MODES, HandAugment
from flowlib.hands.crop import CropConfig, pixels_of
from flowlib.hands.dataset import HandFrames, HandSequences
from flowlib.hands.pca import PCAConfig, PosePCA
from flowlib.hands.sequences import HandCollection
from flowlib.hands.synthetic import SyntheticHands
from flowlib.models.hand_baselines import MeanPose, NearestCrop
from flowlib.models.pose import PoseNet
from flowlib.plots import Axes, contact_sheet, error_by_frame
from flowlib.tasks.hand_pose import PoseTask
from flowlib.tasks.hand_pose.pictures import draw_hand
from flowlib.tasks.protocol import Estimate
from flowlib.training import TrainConfig, run_experiments
from flowlib.training.sweeps import RunTable
from flowlib.viewer import HandViewer


def parse_augment(text: str) -> HandAugment | None:
    """Augmentation from a parameter's text: modes by comma, each perhaps with its strength; "" or "none" for none.

    >>> parse_augment("none, rot 30, trans")
    HandAugment(modes=('none', 'rot', 'trans'), angle=30.0, scale=0.02, offset=5.0)
    """
    fields = {"rot": "angle", "scale": "scale", "trans": "offset"}
    words = [word.split() for word in text.split(",") if word.strip()]
    strengths: dict[str, Any] = {}
    for mode, *strength in words:
        wrong = strength and (len(strength) > 1 or mode not in fields or not re.fullmatch(r"\d+\.?\d*", strength[0]))
        if wrong or mode not in MODES:
            raise ValueError(f"augment: expected modes like 'none,rot 30,scale 0.1,trans 5', got {text!r}")
        strengths |= {fields[mode]: float(strength[0])} if strength else {}
    modes = tuple(word[0] for word in words)
    return HandAugment(modes=modes, **strengths) if set(modes) - {"none"} else None


def parse_cubes(text: str) -> tuple[float, ...]:
    """Sides of cubes from a parameter's text, by comma.

    >>> parse_cubes("180, 200")
    (180.0, 200.0)
    """
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise ValueError(f"cubes: expected numbers by comma like '180,200', got {text!r}") from None


def open_hands(
    store: str | Path, crop: CropConfig, *, unpacked: bool = False
) -> tuple[HandFrames, HandFrames, HandSequences]:
    """The frames to train on, every second frame to validate on, and the sequences to test on.

    Args:
        store: the folder.
        crop: how crops are made.
        unpacked: read depth from an unpacked copy beside the store: faster, and some 15 times as large.
    """
    train = HandFrames(store, "train", crop, unpacked=unpacked)
    validation = HandFrames(store, "val", crop, step=2, unpacked=unpacked)
    return train, validation, HandSequences(store, "test", crop, unpacked=unpacked)


def hand_sheet(frames: HandFrames, count: int = 12) -> Axes:
    """Crops spread over a data set with their true joints; hollow ones are hidden from the camera."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    pictures, titles = [], []
    for index in chosen:
        sample = frames[int(index)]
        layers = [(pixels_of(*(sample[name].numpy() for name in ("joints", "rotation", "intrinsics"))), TRUTH)]
        pictures.append(draw_hand(sample["crop"][0].numpy(), frames.skeleton, layers, sample["visible"].numpy()))
        titles.append(f"{sample['key']} {int(sample['frame'])}")
    return contact_sheet(pictures, titles)


def outside_table(frames: HandFrames, cubes: Sequence[float]) -> str:
    """The share of joints that lie outside each cube, as a Markdown table; a crop doesn't show these."""
    shares = frames.outside(cubes)
    rows = [f"| {cube:g} mm | {share:.2%} |" for cube, share in shares.items()]
    return "\n".join(["| cube | joints outside |", "| --- | ---: |", *rows])


def prior_figure(frames: HandFrames, components: int, augment: HandAugment | None = None) -> Axes:
    """What a pose prior of 0, 1, 2, … components leaves of the training poses, in mm; prints that of `components`."""
    D = min(3 * frames.skeleton.num_joints, len(frames))
    if not 1 <= components <= D:
        raise ValueError(f"components: expected 1 to {D}, got {components}")
    pca = frames.fit_pca(PCAConfig(components=D, augment=augment))
    poses = frames.poses[:: max(1, len(frames) // 2000)].astype(np.float64)
    coefficients = pca.encode(poses)
    floors = []
    for kept in range(D + 1):
        flat = coefficients[:, :kept] @ pca.components[:kept] + pca.mean
        off = np.linalg.norm(flat.reshape(poses.shape) - poses, axis=-1)
        floors.append(float(off.mean()) * frames.config.cube / 2)
    chosen = PosePCA(pca.mean, pca.components[:components], pca.variance[:components], pca.total)
    print(
        f"{components} components hold {chosen.share:.2%} of the variance; no network of them gets below the floor of"
    )
    print(f"{floors[components]:.2f} mm. A loss (mean squared error) of 0.01 stands for", end=" ")
    print(f"{chosen.rms_mm(0.01, frames.config.cube):.1f} mm RMS.")
    return error_by_frame({"floor": floors}, label="left over, mm", axis="components")


def pose_methods(model: nn.Module, train: HandFrames) -> dict[str, Any]:
    """A trained network and what it has to beat, by name."""
    return {"model": model, "nearest crop": NearestCrop.fit(train), "mean pose": MeanPose.fit(train)}


def hidden_limit(collection: HandCollection, split: str = "test") -> str:
    """How far covered joints can be known from a single frame, where that is known: of the synthetic hand."""
    if not isinstance(collection, SyntheticHands):
        return "How far hidden joints could be known at all is not known of these hands."
    known = collection.expected_gain(split)
    return (
        f"Covered joints, told from the true visible ones of the same frame (the 15 nearest in training): "
        f"{known.without:.1f} mm off without the action, {known.action:.1f} mm with it. A network that sees one frame "
        "and comes far below the first knows more than it should."
    )


def hand_viewer(methods: Mapping[str, Any], sequences: HandSequences, index: int | None, task: PoseTask) -> HandViewer:
    """A sequence in 3D with what each method says of its joints; the first one if `index` is None."""
    case = task.case(sequences[index or 0])
    joints = {name: task.predict(method, case, name).astype(np.float32) for name, method in methods.items()}
    return HandViewer(sequences.sequence(index or 0), joints)


def try_settings(
    store: str | Path,
    crop: CropConfig,
    model: Mapping[str, Any],
    task: PoseTask,
    config: TrainConfig,
    *,
    cubes: str = "",
    augments: str = "",
    seeds: int = 3,
    unpacked: bool = False,
    runs: Path | None = None,
) -> RunTable | None:
    """Train a small run for each cube, augmentation and seed, or go on with them; see `RunTable.spread`.

    Args:
        store: the folder of the hands.
        crop: what is common to all crops.
        model: the arguments of `PoseNet`.
        task: what is common to all tasks.
        config: of each run; its name begins theirs.
        cubes: sides in mm by comma, "180,200"; "" for the crop's own.
        augments: lists of modes by semicolon, "none;rot;rot,trans"; "" for the task's own. Poses of the pose prior are
            augmented alike, for it has to hold them.
        seeds: runs of each.
        unpacked: as in `open_hands`.
        runs: the folder of the runs; the workspace's by default.

    Returns:
        A row for each run with its `cube`, `augment` and `seed`; None, and a word of it, where no list is given.
    """
    if not cubes.strip() and not augments.strip():
        print('no list to try: give cubes = "180,200,220" or augments = "none;rot;rot,trans"')
        return None
    lists = {text.strip() or "none": parse_augment(text) for text in augments.split(";")} if augments.strip() else {}
    lists = lists or {"as above": task.augment}
    rows: list[dict[str, Any]] = []
    for cube in parse_cubes(cubes) or (crop.cube,):
        train, validation, _ = open_hands(store, replace(crop, cube=cube), unpacked=unpacked)
        tried = [{"cube": cube, "augment": name, "seed": seed} for name in lists for seed in range(seeds)]
        changes = {
            " ".join(f"{key}={value}" for key, value in one.items()): {"seed": one["seed"]}
            | {field: lists[one["augment"]] for field in ("augment", "pca_augment")}
            for one in tried
        }
        table = run_experiments(PoseNet, task, train, validation, changes, config, model=model, runs=runs)
        rows += [row | one for row, one in zip(table.rows, tried, strict=True)]
    return RunTable(rows)


@dataclass(frozen=True)
class CentreCost:
    """What it costs to estimate the crops' centre instead of being told it.

    Attributes:
        reports: centre -> the evaluation with it.
        extra: mm more of all joints, sequence by sequence.
        seen: the same of the joints that the camera sees.
    """

    reports: dict[str, Report]
    extra: Estimate
    seen: Estimate

    def __repr__(self) -> str:
        told = f"An estimated centre costs {_signed(self.extra)} mm ({_signed(self.seen)} mm on seen joints)"
        means = (f"{report.estimate(report.main, 'mpjpe').mean:.1f} mm {name}" for name, report in self.reports.items())
        return f"{told}: {', '.join(means)}."


def centre_cost(
    model: nn.Module, task: PoseTask, store: str | Path, crop: CropConfig, folder: str | Path
) -> CentreCost:
    """Evaluate a network on the test sequences with the true centre and with the estimated one, and compare them.

    Args:
        model: as it was trained.
        task: of the evaluation.
        store: the folder of the hands.
        crop: its cube, size and method; the centre is set here.
        folder: where scores are kept.
    """
    reports = {}
    for centre in ("truth", "estimated"):
        sequences = HandSequences(store, "test", replace(crop, centre=centre, centre_noise=0.0))
        where = Path(folder).expanduser() / f"centre_{centre}"
        reports[centre] = evaluate({"model": model}, task, sequences, folder=where, pictures=False)
    told, found = reports["truth"], reports["estimated"]
    extra, seen = (difference_between(found, told, "model", metric) for metric in ("mpjpe", "mpjpe_seen"))
    return CentreCost(reports, extra, seen)


def _signed(value: Estimate) -> str:
    interval = f" [{value.low:+.1f}, {value.high:+.1f}]" if value.has_interval else ""
    return f"{value.mean:+.1f}{interval}"
