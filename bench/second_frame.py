"""What a second frame is worth, on real videos: `flowlib.second_frame.second_frame_sweep`, figure and numbers.

    python bench/second_frame.py --labels DIR --resnet-weights FILE

`--labels` is the workspace of `bench/train_default.py`, whose labels are taken: trained is on half of the videos of
"train", drawn by name, which leaves the rest to calibrate regions on (`bench/regions.py`), and measured on "test".
Networks are small (a quarter of the shipped ones' cells), and all settings the same but the frames seen. Killed and run
again, it goes on. Writes `second_frame.png` to `--workspace`; the last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Subset
from train_default import LEFT_OUT, PARTS, SETTINGS, read_part

from flowlib.augmentation import AugmentConfig
from flowlib.flow import CachedFlow, DISFlow
from flowlib.second_frame import CLASSES, second_frame_sweep
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig
from flowlib.workspace import Workspace

MODEL = {"widths": (24, 32, 48, 64), "cells": 960}


def half(video: str) -> bool:
    """Whether a training video is trained on here; the others are kept for calibration."""
    return hashlib.sha256(video.encode()).digest()[0] % 2 == 0 and video not in LEFT_OUT


def clips_of(part: str, labels: Workspace, steps: Sequence[int], chosen: Any = None) -> ConcatDataset:
    """What both trackers agree on in clips of a part; of chosen videos alone."""
    sets = [read_part(part, labels, step)["consensus"] for step in steps]
    if chosen is None:
        return ConcatDataset(sets)
    return ConcatDataset([Subset(one, [i for i, clip in enumerate(one.clips) if chosen(clip.video)]) for one in sets])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="workspace with the labels of train_default.py")
    parser.add_argument("--resnet-weights", required=True)
    parser.add_argument("--resnet-stride-in", default="1x1")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/second_frame"))
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    labels, workspace = Workspace(args.labels), Workspace(args.workspace)
    flow = CachedFlow(DISFlow("refined"), workspace.root / "flows")
    task = TrajectoryTask(loss="laplace_2d", visibility_weight=0.0, augment=AugmentConfig(flip_x=0.5, reverse=0.5))
    settings: dict[str, Any] = SETTINGS | {"batch_size": 4, "num_workers": 0, "warmup_steps": 15, "ema_decay": 0.98}
    base = TrainConfig(name="second", steps=args.steps, **settings)
    weights = {"weights": args.resnet_weights, "stride_in": args.resnet_stride_in}
    spent = time.process_time()
    found = second_frame_sweep(
        clips_of("train", labels, tuple(PARTS["train"]), half),
        clips_of("test", labels, tuple(PARTS["test"])),
        base,
        runs=workspace.runs,
        folder=workspace.reports / "second_frame",
        task=task,
        model=MODEL | weights,
        flow=flow,
        progress=False,
    )
    print(found.runs)
    print(found)
    one = next(iter(found.report.methods))
    for name in found.report.methods[1:]:
        gain = found.gain(one, name)
        print(f"{one} minus {name}: {gain.mean:.2f} [{gain.low:.2f}, {gain.high:.2f}] px")
    found.figure().savefig(args.workspace / "second_frame.png", dpi=110, bbox_inches="tight")
    print(f"{time.process_time() - spent:.0f} CPU s in this call, {torch.get_num_threads()} threads")
    keys = ("ade", *CLASSES, *(f"epe_{frame}" for frame in range(1, 8)))
    print(
        json.dumps(
            {name: {key: asdict(found.report.estimate(name, key)) for key in keys} for name in found.report.methods}
        )
    )


if __name__ == "__main__":
    main()
