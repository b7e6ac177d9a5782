"""How dense inverse search is best set for videos: what constant velocity by each setting makes of the next frames.

    python bench/flow.py --labels DIR --part train --every 2
    python bench/flow.py --labels DIR --part develop

`--labels` is the workspace of `bench/train_default.py`. Flow between frames 0 and 3 is extrapolated to frames 4 to 7,
and compared with what RAFT and Lucas-Kanade agree on; the error is told as a ratio to that of OpenCV's preset "medium".
Settings that the name of a row doesn't mention are those of `flowlib.flow.REFINED`, or of OpenCV's preset in the first
rows. Chosen on "train", looked at on "develop"; "test" isn't offered. One thread; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from train_default import INPUT_FRAMES, LEFT_OUT, PARTS, ladder, read_part

from flowlib.flow import PRESETS, REFINED, DISFlow, search, search_small
from flowlib.geometry import bilinear_sample
from flowlib.workspace import Workspace

SETTINGS: dict[str, dict[str, float]] = {name: {} for name in PRESETS if name not in ("refined", "wide")} | {
    "medium, stride 2": {"PatchStride": 2},
    "medium, 50 iterations": {"GradientDescentIterations": 50},
    "medium, 40 refinements": {"VariationalRefinementIterations": 40},
    "medium, alpha 80": {"VariationalRefinementAlpha": 80.0},
    "refined": REFINED,
    "alpha 40": REFINED | {"VariationalRefinementAlpha": 40.0},
    "alpha 160": REFINED | {"VariationalRefinementAlpha": 160.0},
    "alpha 320": REFINED | {"VariationalRefinementAlpha": 320.0},
    "20 refinements": REFINED | {"VariationalRefinementIterations": 20},
    "80 refinements": REFINED | {"VariationalRefinementIterations": 80},
    "gamma 10": REFINED | {"VariationalRefinementGamma": 10.0},
    "delta 5": REFINED | {"VariationalRefinementDelta": 5.0},
    "stride 3": REFINED | {"PatchStride": 3},
    "patch 12": REFINED | {"PatchSize": 12},
    "finest scale 0, alpha 160": REFINED | {"FinestScale": 0, "VariationalRefinementAlpha": 160.0},
    "finest scale 2": REFINED | {"FinestScale": 2},
}


# Whole ways to search, "wide" and what is left of it without its parts.
WAYS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "refined, from refined": lambda a, b: search(a, b, REFINED, start=search(a, b, REFINED)),
    "refined, from small": lambda a, b: search(a, b, REFINED, start=search_small(a, b)),
    "small": search_small,
    "wide": DISFlow("wide").between,
}


def measure(name: str, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
    """Flow [2 H W] by a setting, and its CPU seconds."""
    spent = time.process_time()
    if name in SETTINGS:
        flow = search(first, second, SETTINGS[name], name if name in PRESETS else "medium")
    else:
        flow = WAYS[name](first, second)
    return np.ascontiguousarray(flow.transpose(2, 0, 1)), time.process_time() - spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="workspace with the labels of train_default.py")
    parser.add_argument("--part", choices=("train", "develop"), default="train")
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth clip")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    labels, ahead = Workspace(args.labels), slice(INPUT_FRAMES[-1] + 1, None)
    errors: dict[str, dict[str, list[float]]] = {name: {} for name in (*SETTINGS, *WAYS)}
    spent, pairs = dict.fromkeys((*SETTINGS, *WAYS), 0.0), 0
    for step in PARTS[args.part]:
        data = read_part(args.part, labels, step)["consensus"]
        chosen = [i for i, clip in enumerate(data.clips) if clip.video not in LEFT_OUT][:: args.every]
        for index in chosen:
            sample = data[index]
            truth, seen = sample.truth.displacement[ahead], sample.truth.visibility[ahead]
            if seen.sum() < 50:
                continue
            pictures = sample.images(INPUT_FRAMES)[0].movedim(1, -1).numpy().astype(np.uint8)
            grey = [cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY) for picture in pictures]
            xy = torch.from_numpy(sample.truth.queries[None, :, 1:])
            times = np.arange(INPUT_FRAMES[-1] + 1, sample.clip.num_frames) / INPUT_FRAMES[-1]
            pairs += 1
            for name in (*SETTINGS, *WAYS):
                flow, seconds = measure(name, grey[0], grey[1])
                spent[name] += seconds
                moved = bilinear_sample(torch.from_numpy(flow)[None], xy)[0].numpy().T * times[:, None, None]
                error = np.linalg.norm(moved - truth, axis=-1)[seen]
                errors[name].setdefault(sample.clip.video, []).append(float(error.mean()))
    means = {name: {video: float(np.mean(own)) for video, own in by.items()} for name, by in errors.items()}
    found: dict[str, Any] = ladder(means, "medium")
    print(f"{args.part}: {pairs} clips of {len(means['medium'])} videos")
    print(f"{'':26s}   px  pooled  geometric  worst  above 1.05  CPU ms a pair")
    for name, row in found.items():
        ratios = np.array([means[name][video] / means["medium"][video] for video in means["medium"]])
        row |= {"above 1.05": int((ratios > 1.05).sum()), "cpu_ms": 1000 * spent[name] / pairs}
        print(f"{name:26s} {row['px']:5.2f} {row['pooled']:6.3f} {row['geometric']:9.3f} {row['worst']:7.2f} "
              f"{row['above 1.05']:8d} {row['cpu_ms']:12.1f}")  # fmt: skip
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, OpenCV {cv2.__version__}")
    print(json.dumps(found, default=float))


if __name__ == "__main__":
    main()
