"""Which design of the guided predictor learns most in the same CPU time, and whether data or time is what is missing.

    python bench/designs.py designs --labels DIR --workspace DIR --minutes 5
    python bench/designs.py videos --labels DIR --workspace DIR --videos 5 20 76 --seeds 0 1 2 --steps 150

`--labels` is the workspace of `bench/train_default.py`, whose labels, settings and measure are taken. "designs" trains
each design for so many CPU minutes: its steps are what goes into them, from the time of a few steps. "videos" trains
the shipped one on so many of the training videos, drawn by seed, for the same number of steps. Measured is on
"develop", with DIS flow, with all of what was learned and with a share of it; never on "test". The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset
from train_default import INPUT_FRAMES, LEFT_OUT, NUM_FRAMES, PARTS, SETTINGS, changed, ladder, measure, read_part, show

from flowlib.augmentation import AugmentConfig
from flowlib.flow import CachedFlow, DISFlow
from flowlib.models.baselines import ConstantVelocity
from flowlib.models.guided import DESIGNS, GuidedTrajectories
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit, load_checkpoint
from flowlib.workspace import Workspace, atomic_write

TASK = TrajectoryTask(
    loss="laplace_2d", visibility_weight=0.0, augment=AugmentConfig(flip_x=0.5, reverse=0.5, scale=(1.0, 1.5))
)
TRUSTS = (1.0, 0.6)
PROBE = 6  # steps that are timed


def clips(labels: Workspace, videos: int = 0, seed: int = 0) -> ConcatDataset:
    """The training clips that the shipped predictor learned from; of so many videos alone."""
    sets = [read_part("train", labels, step)["consensus"] for step in PARTS["train"]]
    known = sorted({clip.video for one in sets for clip in one.clips} - set(LEFT_OUT))
    if not 0 <= videos <= len(known):
        raise ValueError(f"videos: expected up to {len(known)}, as many as there are, got {videos}")
    drawn = set(np.random.default_rng(seed).permutation(known)[: videos or None].tolist())
    return ConcatDataset([Subset(one, [i for i, clip in enumerate(one.clips) if clip.video in drawn]) for one in sets])


def make(design: str, args: Any, flow: CachedFlow) -> GuidedTrajectories:
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_frames": NUM_FRAMES, "input_frames": INPUT_FRAMES, "cells": args.cells}
    model = GuidedTrajectories(design=design, **options)
    model.flow = flow
    return model


def train(
    name: str, model: GuidedTrajectories, data: Any, workspace: Workspace, steps: int, seed: int = 0
) -> tuple[GuidedTrajectories, float]:
    """The trained model (averaged weights), and the CPU seconds of this call."""
    warmup, decay = max(1, min(100, steps // 5)), min(0.995, 1 - 10 / max(steps, 20))
    settings: dict[str, Any] = SETTINGS | {"num_workers": 0, "warmup_steps": warmup, "ema_decay": decay, "seed": seed}
    spent = time.process_time()
    run = fit(model, TASK, data, None, TrainConfig(name=name, steps=steps, **settings), folder=workspace.runs / name)
    spent = time.process_time() - spent
    trained = load_checkpoint(run.last)[0]
    assert isinstance(trained, GuidedTrajectories)
    return trained.eval(), spent


def steps_in(minutes: float, design: str, data: Any, workspace: Workspace, args: Any, flow: CachedFlow) -> int:
    """How many steps of a design go into so many CPU minutes; noted beside its runs, for a call that goes on."""
    noted = workspace.runs / f"{design}.json"
    if not noted.is_file():
        spent = [train(f"probe-{n}-{design}", make(design, args, flow), data, workspace, n)[1] for n in (2, 2 + PROBE)]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("designs", "videos"))
    parser.add_argument("--labels", type=Path, required=True, help="workspace with the labels of train_default.py")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/designs"))
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=DESIGNS)
    parser.add_argument("--minutes", type=float, default=5, help="CPU minutes of each design's training")
    parser.add_argument("--videos", type=int, nargs="+", default=[5, 20, 76])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the videos drawn and the training")
    parser.add_argument("--steps", type=int, default=150, help="of each training of the learning curve")
    parser.add_argument("--cells", type=int, default=3840)
    args = parser.parse_args()
    labels, workspace = Workspace(args.labels), Workspace(args.workspace)
    flow, models = CachedFlow(DISFlow(), labels.root / "flows"), {}
    for design in args.designs if args.what == "designs" else ():
        steps = steps_in(args.minutes, design, clips(labels), workspace, args, flow)
        models[design], spent = train(design, make(design, args, flow), clips(labels), workspace, steps)
        size = sum(one.numel() for one in models[design].parameters() if one.requires_grad)
        print(f"{design}: {steps} steps, {size / 1e6:.2f} M parameters, {spent:.0f} CPU s in this call", flush=True)
    for count in args.videos if args.what == "videos" else ():
        for seed in args.seeds:
            data, name = clips(labels, count, seed), f"{count} videos, seed {seed}"
            models[name], spent = train(name.replace(", ", "-").replace(" ", "-"), make("unet", args, flow), data,
                                        workspace, args.steps, seed)  # fmt: skip
            print(f"{name}: {len(data)} clips, {spent:.0f} CPU s in this call", flush=True)
    found = compare(models, labels, flow)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
