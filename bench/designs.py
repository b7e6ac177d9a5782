"""Which design of the guided predictor learns most in the same CPU time, and whether data or time is what is missing.

    python bench/designs.py designs --labels DIR --workspace DIR --minutes 5
    python bench/designs.py videos --labels DIR --workspace DIR --videos 5 20 0 --seeds 0 1 --steps 150
    python bench/designs.py cross --labels DIR --workspace DIR --folds 3 --steps 200 --variants unet pan

`--labels` is the workspace of `bench/train_default.py`, whose labels, settings and measure are taken. "designs" trains
each design for so many CPU minutes: its steps are what goes into them, from the time of a few steps; measured on
"develop". "cross" tells variants apart by many more videos: those of "train" and "develop" are dealt into folds, those
of one source into the same; each variant is trained once without each fold and measured on it, and set against the
first one on the same videos.
"videos" trains the first variant without the first fold, on so many of the other videos (0: all), drawn by seed, for
the same number of steps, and measures on that fold. All with DIS flow, with all of what was learned and with a share
of it; never on "test". A call that is repeated goes on where it stopped. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset
from train_default import (
    INPUT_FRAMES,
    LEFT_OUT,
    LOCAL_RATE,
    NUM_FRAMES,
    PARTS,
    SETTINGS,
    changed,
    ladder,
    measure,
    read_part,
    show,
)

from flowlib.augmentation import AugmentConfig
from flowlib.clips import ClipSample
from flowlib.flow import CachedFlow
from flowlib.models.baselines import ConstantVelocity, Scaled
from flowlib.models.guided import DESIGNS, FLOWS, GuidedTrajectories
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit, load_checkpoint
from flowlib.workspace import Workspace, atomic_write

TASK = TrajectoryTask(
    loss="laplace_2d", visibility_weight=0.0, augment=AugmentConfig(flip_x=0.5, reverse=0.5, scale=(1.0, 1.5))
)
TRUSTS = (1.0, 0.6)
PROBE = 6  # steps that are timed
BASE = "constant velocity"
ABOVE = 1.05  # of constant velocity's error, which no video should pass
FLOOR = 0.5  # pixels: half of what two trackers differ by at most
PAN = replace(TASK, augment=AugmentConfig(flip_x=0.5, reverse=0.5, scale=(1.0, 1.5), pan=0.5))
# As it is, mirrored or backwards, so that every flow is measured once.
PLAIN = replace(TASK, augment=AugmentConfig(flip_x=0.5, reverse=0.5))
RELATIVE = replace(PLAIN, loss="relative")
# Name -> design, how it is trained, and whether a clip counts by its own size of error.
VARIANTS = {
    "unet": ("unet", TASK, False),
    "plain": ("unet", PLAIN, False),
    "relative loss": ("unet", RELATIVE, False),
    "local": ("local", RELATIVE, False),
    "pan": ("unet", PAN, False),
    "relative": ("unet", replace(TASK, confidence_weighted=True), True),
    "recurrent": ("recurrent", TASK, False),
    "pretrained": ("pretrained", TASK, False),
    "gains": ("gains", TASK, False),  # one number a frame, fitted, nothing trained
}


def clips(labels: Workspace) -> ConcatDataset:
    """The training clips that the shipped predictor learned from."""
    sets = [read_part("train", labels, step)["consensus"] for step in PARTS["train"]]
    return ConcatDataset(
        [Subset(one, [i for i, clip in enumerate(one.clips) if clip.video not in LEFT_OUT]) for one in sets]
    )


def make(design: str, args: Any) -> GuidedTrajectories:
    """Untrained; the flow is measured anew in every step, for hardly a pair of pictures comes twice, cut out as they
    are."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_frames": NUM_FRAMES, "input_frames": INPUT_FRAMES, "cells": args.cells}
    if design == "pretrained":
        options |= {"weights": args.resnet_weights, "stride_in": args.resnet_stride_in}
    return GuidedTrajectories(design=design, flow=args.flow, **options)


def flow_of(labels: Workspace, args: Any) -> CachedFlow:
    """The flow that guides and that constant velocity goes by."""
    return CachedFlow(FLOWS[args.flow](""), labels.root / "flows")


def train(
    name: str,
    model: GuidedTrajectories,
    data: Any,
    workspace: Workspace,
    steps: int,
    seed: int = 0,
    task: TrajectoryTask = TASK,
) -> tuple[GuidedTrajectories, float]:
    """The trained model (averaged weights), and the CPU seconds of this call."""
    warmup, decay = max(1, min(100, steps // 5)), min(0.995, 1 - 10 / max(steps, 20))
    settings: dict[str, Any] = SETTINGS | {"num_workers": 0, "warmup_steps": warmup, "ema_decay": decay, "seed": seed}
    settings |= {"learning_rate": LOCAL_RATE} if model.config["design"] == "local" else {}
    spent = time.process_time()
    run = fit(model, task, data, None, TrainConfig(name=name, steps=steps, **settings), folder=workspace.runs / name)
    spent = time.process_time() - spent
    trained = load_checkpoint(run.last)[0]
    assert isinstance(trained, GuidedTrajectories)
    return trained.eval(), spent


def steps_in(minutes: float, design: str, data: Any, workspace: Workspace, args: Any) -> int:
    """How many steps of a design go into so many CPU minutes; noted beside its runs, for a call that goes on."""
    noted = workspace.runs / f"{design}.json"
    if not noted.is_file():
        spent = [train(f"probe-{n}-{design}", make(design, args), data, workspace, n)[1] for n in (2, 2 + PROBE)]
        with atomic_write(noted) as temporary:
            temporary.write_text(json.dumps((spent[1] - spent[0]) / PROBE))
    return max(1, int(60 * minutes / json.loads(noted.read_text())))


def compare(models: dict[str, GuidedTrajectories], labels: Workspace, flow: CachedFlow) -> dict[str, Any]:
    """Ratios to constant velocity on "develop"."""
    base = "constant velocity (DIS)"
    methods: dict[str, Any] = {base: ConstantVelocity(flow, input_frames=INPUT_FRAMES)}
    for name, model in models.items():
        for trust in TRUSTS:
            methods[f"{name}, {trust:g}"] = changed(model, trust=trust)
            methods[f"{name}, {trust:g}"].flow = flow
    found = measure("develop", labels, methods, ("consensus",))
    show("develop", found)
    return {"ladder": ladder(found["errors"]["consensus"], base)} | found


# Cross-validation


class Relative(Dataset):
    """Clips whose points weigh the less the more constant velocity misses them by in the mean: each clip counts for
    how much better it is told than by that, not for how many pixels are at stake."""

    def __init__(self, clips: Any, flow: CachedFlow) -> None:
        self.whole, self.flow, self._weights = clips, flow, {}

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> ClipSample:
        sample = self.whole[index]
        if index not in self._weights:
            missed = errors_of(sample, {BASE: linear_at(sample, self.flow)}).get(BASE, 0.0)
            self._weights[index] = FLOOR / (FLOOR + missed)
        confidence = np.full(sample.truth.visibility.shape, self._weights[index], np.float32)
        return replace(sample, truth=replace(sample.truth, confidence=confidence))


def linear_at(sample: ClipSample, flow: CachedFlow) -> np.ndarray:
    """[S N 2] Where constant velocity moves a clip's points."""
    made = ConstantVelocity(flow, input_frames=INPUT_FRAMES)(sample.images(INPUT_FRAMES))
    return made.at(torch.from_numpy(sample.truth.queries[None, :, 1:]))[0][0].numpy()


def errors_of(sample: ClipSample, moved: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean error in pixels over what is seen in the frames ahead; empty where next to nothing is."""
    ahead = slice(INPUT_FRAMES[-1] + 1, None)
    seen = sample.truth.visibility[ahead]
    if seen.sum() < 50:
        return {}
    true = sample.truth.displacement[ahead]
    return {name: float(np.linalg.norm(own[ahead] - true, axis=-1)[seen].mean()) for name, own in moved.items()}


class Kept(Dataset):
    """Clips that are read once."""

    def __init__(self, clips: Any) -> None:
        self.clips, self.whole, self._read = clips.clips, clips, {}

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> ClipSample:
        if index not in self._read:
            self._read[index] = self.whole[index]
        return self._read[index]


@lru_cache
def known_clips(root: Path) -> list[tuple[int, Kept]]:
    """Frame step and clips of all parts that are for learning."""
    known = [(part, step) for part in ("train", "develop") for step in PARTS[part]]
    return [(step, Kept(read_part(part, Workspace(root), step)["consensus"])) for part, step in known]


def deal(
    labels: Workspace, folds: int, fold: int, videos: int = 0, seed: int = 0
) -> tuple[ConcatDataset, ConcatDataset]:
    """The clips to train on without a fold, of the steps that the shipped predictor learned from and of so many videos
    (0: all), and all clips of the videos in the fold."""
    parts = known_clips(labels.root)
    known = sorted({clip.video for _, one in parts for clip in one.clips})
    mixed = np.random.default_rng(0).permutation(known).tolist()
    held = set(fold_of(known, folds, fold))
    others = [video for video in mixed if video not in held]
    if not 0 <= videos <= len(others):
        raise ValueError(f"videos: expected up to {len(others)}, as many as there are, got {videos}")
    drawn = set(np.random.default_rng(seed).permutation(others)[: videos or None].tolist())

    def of(wanted: set[str], steps: Collection[int]) -> ConcatDataset:
        taken = [one for step, one in parts if step in steps]
        indices = [[i for i, clip in enumerate(one.clips) if clip.video in wanted] for one in taken]
        return ConcatDataset([Subset(one, own) for one, own in zip(taken, indices) if own])

    return of(drawn, PARTS["train"]), of(held, {step for step, _ in parts})


def fold_of(videos: Sequence[str], folds: int, fold: int) -> list[str]:
    """The videos of one fold. Those of one source, by the name before the first "_", lie in one: they have a place, a
    camera or a person in common. The largest source first, each to the fold that has the fewest."""
    sources: dict[str, list[str]] = {}
    for video in videos:
        sources.setdefault(video.partition("_")[0], []).append(video)
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for source in sorted(sources, key=lambda name: (-len(sources[name]), name)):
        min(dealt, key=len).extend(sources[source])
    return dealt[fold]


def fold_errors(
    variant: str, fold: int, labels: Workspace, workspace: Workspace, args: Any, videos: int = 0, seed: int = 0
) -> dict[str, dict[str, float]]:
    """For constant velocity and each share of what was learned: video of the fold -> mean error in pixels; noted beside
    the runs, for a call that goes on."""
    name = f"{variant}-{args.cells}-{args.steps}-seed{seed}-fold{fold}of{args.folds}"
    name += f"-{videos}-videos" if videos else ""
    name += "-" + args.flow.removeprefix("dis ") if args.flow != "dis" else ""
    noted = workspace.runs / f"{name}.json"
    if not noted.is_file():
        flow = flow_of(labels, args)
        design, task, weigh = VARIANTS[variant]
        data, held = deal(labels, args.folds, fold, videos, seed)
        if design == "gains":
            model: Any = Scaled.fit(ConstantVelocity(flow, input_frames=INPUT_FRAMES), data)
            print(f"{name}: {np.round(model.gains, 3).tolist()}", flush=True)
        else:
            shown = Relative(data, flow) if weigh else data
            model = make(design, args)
            if task.augment is not None and task.augment.scale == (1.0, 1.0):
                model.flow = flow
            model, spent = train(name, model, shown, workspace, args.steps, seed, task)
            print(f"{name}: {len(data)} clips, {spent:.0f} CPU s in this call", flush=True)
        with atomic_write(noted) as temporary:
            temporary.write_text(json.dumps(held_out(model, held, flow)))
    found = json.loads(noted.read_text())
    return {method: {video: float(np.mean(own)) for video, own in one.items()} for method, one in found.items()}


def cross(variant: str, labels: Workspace, workspace: Workspace, args: Any) -> dict[str, dict[str, float]]:
    """The errors of all folds."""
    parts = [fold_errors(variant, fold, labels, workspace, args, 0, args.seeds[0]) for fold in range(args.folds)]
    return {method: {video: error for part in parts for video, error in part[method].items()} for method in parts[0]}


def held_out(model: Any, clips: Any, flow: CachedFlow) -> dict[str, dict[str, list[float]]]:
    """Method -> video -> mean error in pixels of each clip."""
    found: dict[str, dict[str, list[float]]] = {}
    guided = isinstance(model, GuidedTrajectories)
    if guided:
        model.flow = flow
    for index in range(len(clips)):
        sample = clips[index]
        xy = torch.from_numpy(sample.truth.queries[None, :, 1:])
        with torch.inference_mode():
            whole = model(sample.images(INPUT_FRAMES), **({"points": xy} if guided else {})).at(xy)[0][0]
        linear = linear_at(sample, flow)
        moved = {BASE: linear} | {f"{trust:g}": linear + trust * (whole.numpy() - linear) for trust in TRUSTS}
        for method, error in errors_of(sample, moved).items():
            found.setdefault(method, {}).setdefault(sample.clip.video, []).append(error)
    return found


def show_cross(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Prints each variant against constant velocity, and against the first one on the same videos."""
    told: dict[str, Any] = {}
    first = next(iter(found))
    for trust in (f"{trust:g}" for trust in TRUSTS):
        errors = {BASE: found[first][BASE]} | {variant: own[trust] for variant, own in found.items()}
        for base in (BASE, first):
            rows = told[f"{trust}, against {base}"] = ladder(errors, base)
            print(f"{len(errors[base])} videos, {trust} of what was learned, against {base}")
            for variant, row in rows.items():
                row["above"] = sum(errors[variant][video] > ABOVE * own for video, own in errors[base].items())
                pooled, geometric = (
                    "{:.3f} [{:.3f}, {:.3f}]".format(row[key], *row[f"{key} interval"])
                    for key in ("pooled", "geometric")
                )
                print(f"  {variant:24s} {row['px']:.3f} px  pooled {pooled}  geometric {geometric}  worst "
                      f"{row['worst']:.2f} {row['worst video']}  above {ABOVE}: {row['above']}")  # fmt: skip
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("designs", "videos", "cross"))
    parser.add_argument("--labels", type=Path, required=True, help="workspace with the labels of train_default.py")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/designs"))
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=DESIGNS)
    parser.add_argument("--minutes", type=float, default=5, help="CPU minutes of each design's training")
    parser.add_argument("--videos", type=int, nargs="+", default=[5, 20, 0], help="0: all there are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of videos and training; cross: the first")
    parser.add_argument("--steps", type=int, default=150, help="of each training of the learning curve or a fold")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--cells", type=int, default=3840)
    parser.add_argument("--flow", default="dis", choices=("dis", "dis refined", "dis wide"))
    parser.add_argument("--resnet-weights", default="auto", help="of the design pretrained, as in train_default.py")
    parser.add_argument("--resnet-stride-in", default="1x1", help="3x3 for torchvision's own file")
    args = parser.parse_args()
    labels, workspace = Workspace(args.labels), Workspace(args.workspace)
    flow, models = flow_of(labels, args), {}
    for design in args.designs if args.what == "designs" else ():
        steps = steps_in(args.minutes, design, clips(labels), workspace, args)
        models[design], spent = train(design, make(design, args), clips(labels), workspace, steps)
        size = sum(one.numel() for one in models[design].parameters() if one.requires_grad)
        print(f"{design}: {steps} steps, {size / 1e6:.2f} M parameters, {spent:.0f} CPU s in this call", flush=True)
    if args.what == "designs":
        found = compare(models, labels, flow)
    else:
        errors: dict[str, Any] = {}
        for variant in args.variants if args.what == "cross" else ():
            errors[variant] = cross(variant, labels, workspace, args)
        for count, seed in itertools.product(args.videos, args.seeds) if args.what == "videos" else ():
            one = fold_errors(args.variants[0], 0, labels, workspace, args, count, seed)
            errors[f"{count or 'all'} videos, seed {seed}"] = one
        found = {"errors": errors, "ladder": show_cross(errors)}
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
