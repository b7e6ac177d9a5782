"""Evaluating many clips with four methods: time for each clip, peak memory, and what a kill and a rerun repeat.

    python bench/evaluation.py --clips 200 --size 360 640

The same evaluation is run in child processes on a fifth of the clips and on
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

from flowlib.clips import Clip, ClipSample
from flowlib.evaluation import evaluate
from flowlib.geometry import cell_grid
from flowlib.models.baselines import ConstantVelocity, OracleTracks, Scaled, ZeroMotion
from flowlib.synthetic import synthetic_clip
from flowlib.tasks.trajectories import TrajectoryTask

SCENES, CLIPS_PER_VIDEO = 4, 10


class Scenes:
    """Clips of a few rendered scenes, each brightened differently, so that no two are alike and none costs much."""

    def __init__(self, clips: int, size: tuple[int, int], grid: tuple[int, int] = (45, 80)) -> None:
        self.count, self.size, self.num_frames = clips, size, 8
        queries = np.insert(cell_grid(size, *grid), 0, 0, axis=1)
        scenes = [synthetic_clip(8, size, seed, motion="wander", camera="wander") for seed in range(SCENES)]
        self.rendered = [(frames, scene.tracks(queries)) for frames, scene in scenes]
        self.videos = tuple(f"video_{video}" for video in range(-(-clips // CLIPS_PER_VIDEO)))
        self.fingerprint = f"{clips} clips of {SCENES} rendered scenes, {size}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ClipSample:
        video = index // CLIPS_PER_VIDEO
        frames, tracks = self.rendered[video % SCENES]
        brighter = np.clip(frames.astype(np.int16) + index % 50 - 25, 0, 255).astype(np.uint8)
        brighter[0, 0, 0] = index % 256  # clips of the same brightness differ in a corner
        clip = Clip.named(f"video_{video}/{index}", brighter, video=f"video_{video}", num_points=tracks.num_points)
        return ClipSample(clip, brighter, tracks)


def child(clips: int, size: tuple[int, int], folder: Path) -> None:
    """One evaluation; the last line of its output is JSON."""
    torch.set_num_threads(1)
    flow = ConstantVelocity()
    methods = {"constant velocity": flow, "half of it": Scaled(flow, [0.5] * 8)}
    methods |= {"zero motion": ZeroMotion(8), "oracle": OracleTracks()}
    start = time.perf_counter()
    report = evaluate(methods, TrajectoryTask(), Scenes(clips, size), folder=folder)
    seconds = time.perf_counter() - start
    report.save(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    means = {name: report.overall[name]["ade"].mean for name in methods}
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
    return sum(path.read_bytes().count(b"\n") for path in (folder / "scores").glob("scores_*.jsonl"))


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
