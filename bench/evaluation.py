"""Evaluating many clips with four predictors: time for each clip, peak memory, and what a kill and a rerun repeat.

    python bench/evaluation.py --clips 200 --size 360 640

Clips are cut from a few rendered scenes. The same evaluation is run in child processes on a fifth of the clips and on
all of them (memory must not grow with their number), then killed half way and run again. Prints a table and, last, one
line of JSON.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from flowlib.evaluation import evaluate
from flowlib.geometry import cell_grid
from flowlib.models.baselines import ConstantVelocity, OwnTracks, Scaled, ZeroMotion
from flowlib.synthetic import random_scene

CLIPS_PER_SCENE = 10


class Scenes:
    """Clips of rendered scenes, made one at a time."""

    def __init__(self, clips: int, size: tuple[int, int], grid: tuple[int, int] = (45, 80)) -> None:
        self.count, self.size, self.num_frames = clips, size, 8
        self.queries = np.insert(cell_grid(size, *grid), 0, 0, axis=1)
        self.videos = tuple(f"scene_{seed}" for seed in range(-(-clips // CLIPS_PER_SCENE)))
        self.fingerprint = f"rendered scenes, {clips} clips of {size}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        seed, clip = divmod(index, CLIPS_PER_SCENE)
        scene = random_scene(80, self.size, seed, motion="wander", camera="wander")
        tracks = scene.tracks(self.queries, 8, clip * 8)
        arrays = {"frames": scene.clip(8, clip * 8), "tracks": tracks.tracks}
        arrays |= {"visibility": tracks.visibility, "queries": tracks.queries}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {**tensors, "video": f"scene_{seed}", "clip": f"scene_{seed}/{clip}"}


def child(clips: int, size: tuple[int, int], folder: Path) -> None:
    """One evaluation; the last line of its output is JSON."""
    torch.set_num_threads(1)
    flow = ConstantVelocity()
    predictors = {"constant velocity": flow, "half of it": Scaled(flow, [0.5] * 8)}
    predictors |= {"zero motion": ZeroMotion(8), "ceiling": OwnTracks()}
    start = time.perf_counter()
    report = evaluate(predictors, Scenes(clips, size), folder=folder)
    seconds = time.perf_counter() - start
    report.save(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    means = {name: report.overall[name]["ade"].mean for name in predictors}
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "reused": report.run["scores_reused"], "ade": means}))


def start(clips: int, size: tuple[int, int], folder: Path) -> subprocess.Popen:
    arguments = ["--child", str(folder), "--clips", str(clips), "--size", *map(str, size)]
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict:
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"the evaluation failed with exit status {process.returncode}")
    return json.loads(output.splitlines()[-1])


def scores_so_far(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / "scores").glob("*.jsonl"))


def killed_half_way(clips: int, size: tuple[int, int], folder: Path) -> int:
    """Start an evaluation, kill it once half its scores are there, and say how many there were."""
    process = start(clips, size, folder)
    while scores_so_far(folder) < 2 * clips:
        if process.poll() is not None:
            raise SystemExit("the evaluation ended before it was killed")
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return scores_so_far(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=[360, 640])
    parser.add_argument("--child", type=Path, default=None)
    arguments = parser.parse_args()
    clips, size = arguments.clips, tuple(arguments.size)
    if arguments.child:
        return child(clips, size, arguments.child)
    with tempfile.TemporaryDirectory() as root:
        few = finish(start(clips // 5, size, Path(root) / "few"))
        kept = killed_half_way(clips, size, Path(root) / "all")
        rest = finish(start(clips, size, Path(root) / "all"))
        again = finish(start(clips, size, Path(root) / "all"))
    print("| run | clips | s | peak MB | scores reused |\n| --- | ---: | ---: | ---: | ---: |")
    for name, run in (("a fifth", few), ("after the kill", rest), ("once more", again)):
        count = clips // 5 if run is few else clips
        print(f"| {name} | {count} | {run['seconds']:.1f} | {run['peak_mb']:.0f} | {run['reused']} of {4 * count} |")
    print(f"scores on the disk at the kill: {kept}; same numbers after kill and rerun: {rest['ade'] == again['ade']}")
    machine = f"{platform.processor() or platform.machine()}, torch {torch.__version__}"
    print(json.dumps({"machine": machine, "size": size, "kept": kept, "few": few, "rest": rest, "again": again}))


if __name__ == "__main__":
    main()
