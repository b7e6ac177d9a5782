"""Long videos: peak memory over 300 and over 3,000 frames, and the same bytes after a kill in the middle.

    python bench/long_videos.py --data ../shared/data                 # all; hours on a busy machine
    python bench/long_videos.py --cases lucas_kanade label --frames 300 3000

Each run is a process of its own with one thread; its peak is the kernel's VmHWM, imports included. Frames are made as
they are asked for and never listed: a crop that wanders over a large picture. `label` is the whole way instead, from a
video file to a shard, as one clip. After the runs to the end one is killed (SIGKILL) once half of its frames are kept,
and the same call goes on in a new process: what it leaves must have the checksum of the run that nobody killed.

Lucas-Kanade and `label` take 360×640 and 2,500 points. The networks would take hours for 3,000 frames of that, so they
get the smallest size they take, 128×128, PIPs 64×64, and one update each; PIPs and AllTracker have generated weights.
Prints a table, last line JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flowlib.geometry import Size, cell_grid

FULL, SMALL = (360, 640), (128, 128)
CASES = {  # name: (size of the frames, points a side of the grid)
    "lucas_kanade": (FULL, 50),
    "label": (FULL, 50),
    "confidence": (SMALL, 12),
    "alltracker": (SMALL, 20),
    "pips": ((64, 64), 2),
    "raft": (SMALL, 20),
}


def make_canvas(size: Size) -> np.ndarray:
    """A blurred noise picture, twice as large as the frames."""
    import cv2

    noise = np.random.default_rng(0).uniform(0, 255, (size[0] // 8, size[1] // 8, 3)).astype(np.float32)
    return cv2.resize(noise, (2 * size[1], 2 * size[0]), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def frames_of(size: Size, start: int, stop: int) -> Iterator[np.ndarray]:
    """Frames of a camera that wanders over the canvas, by up to three pixels a frame; some points leave and return."""
    canvas = make_canvas(size)
    for t in range(start, stop):
        y, x = (round(side * (1 + 0.4 * np.sin(t / period)) / 2) for side, period in zip(size, (97.0, 131.0)))
        yield np.ascontiguousarray(canvas[y : y + size[0], x : x + size[1]])


def tracker_of(case: str, data: Path):
    import torch
    from trackers import random_net

    from flowlib.trackers.alltracker import AllTrackerTracker
    from flowlib.trackers.confidence import ConfidentTracker
    from flowlib.trackers.lucas_kanade import LucasKanadeTracker
    from flowlib.trackers.pips import PIPsTracker
    from flowlib.trackers.raft import RAFTTracker

    torch.set_num_threads(1)
    if case == "alltracker":
        return AllTrackerTracker(random_net(argparse.Namespace(tracker=case)), iters=1, device="cpu")
    if case == "pips":
        return PIPsTracker(random_net(argparse.Namespace(tracker=case, stride=4)), iters=1, block=8, device="cpu")
    if case == "raft":
        return RAFTTracker(data / "weights/raft_large_things_torchvision.pth", iters=1, device="cpu")
    return ConfidentTracker(LucasKanadeTracker()) if case == "confidence" else LucasKanadeTracker()


def run_one(case: str, length: int, folder: Path, data: Path) -> None:
    """What a child process does: one run, from where an earlier one in `folder` was killed; prints its figures."""
    size, grid = CASES[case]
    began = time.process_time()
    if case == "label":
        from flowlib.labelling import LabelConfig, label, make_plan
        from flowlib.shards import Shard, shard_paths
        from flowlib.workspace import Workspace

        config = LabelConfig(frames=length, grid=grid, height=size[0], width=size[1], max_clips=1, split_shots=False)
        plan = make_plan(folder.parent / "video.mp4", config, cache=folder.parent / "scans.json")
        report = label(plan, Workspace(folder), progress=False)
        with Shard(*shard_paths(report.folder)) as shard:
            checksum = shard.content_sha256
    else:
        from flowlib.trackers.streaming import Kept, track_stream

        tracker, queries = tracker_of(case, data), np.insert(cell_grid(size, grid), 0, 0, axis=1)
        kept = Kept.open(folder, tracker, queries, length, {})
        tracks = track_stream(tracker, lambda *span: frames_of(size, *span), length, queries, kept=kept)
        checksum = hashlib.sha256(b"".join(array.tobytes() for array in tracks.arrays().values())).hexdigest()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    figures = {"cpu_s": round(time.process_time() - began, 1), "peak_mb": round(int(peak[1]) / 1000, 1)}
    print(json.dumps(figures | {"checksum": checksum}))


def start(case: str, length: int, folder: Path, data: Path) -> subprocess.Popen:
    command = [sys.executable, __file__, "--child", case, str(length), str(folder), "--data", str(data)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finished(process: subprocess.Popen) -> dict:
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return json.loads(said.splitlines()[-1])


def killed(case: str, length: int, folder: Path, data: Path) -> int:
    """Kill a run once half of its frames are kept; how many were."""
    process = start(case, length, folder, data)
    while process.poll() is None:
        numbers = [int(path.stem.rpartition("-")[2]) for path in folder.rglob("tracking-*/[fr]*-*.npz")]
        if max(numbers, default=0) >= length // 2:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return max(numbers)
        time.sleep(0.05)
    raise RuntimeError(f"{case}: ended before it could be killed")


def measure(case: str, lengths: list[int], kill_of: int, folder: Path, data: Path) -> dict:
    """Runs of each length, and one of `kill_of` frames that is killed and goes on."""
    if case == "label":
        from flowlib.video import write_video

        write_video(folder / "video.mp4", frames_of(FULL, 0, max(lengths)), fps=25)
    size, grid = CASES[case]
    found: dict = {"size": size, "points": grid**2}
    for length in lengths:
        found[f"frames_{length}"] = run = finished(start(case, length, folder / f"{length}", data))
        print(f"{case}, {length} frames: {run}", flush=True)
        shutil.rmtree(folder / f"{length}")
    few, many = found[f"frames_{lengths[0]}"], found[f"frames_{lengths[-1]}"]
    found["more_mb"] = round(many["peak_mb"] - few["peak_mb"], 1)
    found["killed_at"] = killed(case, kill_of, folder / "killed", data)
    found["again"] = finished(start(case, kill_of, folder / "killed", data))
    found["same_bytes"] = found["again"]["checksum"] == found[f"frames_{kill_of}"]["checksum"]
    print(f"{case}, killed at {found['killed_at']}: {found['again']}, same bytes: {found['same_bytes']}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--frames", type=int, nargs="+", default=[300, 3000])
    parser.add_argument("--kill-of", type=int, help="the run that is killed, one of --frames; the last by default")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where RAFT's weights are")
    parser.add_argument("--child", nargs=3, metavar=("CASE", "FRAMES", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        case, length, folder = arguments.child
        run_one(case, int(length), Path(folder), arguments.data)
        return
    results = {}
    for case in arguments.cases:
        with tempfile.TemporaryDirectory() as folder:
            results[case] = measure(
                case, arguments.frames, arguments.kill_of or arguments.frames[-1], Path(folder), arguments.data
            )
    lengths = arguments.frames
    columns = " | ".join(f"peak MB, {n} frames | CPU s" for n in lengths)
    print(f"\n| | size | points | {columns} | more MB | killed at | same bytes |")
    print("| --- | --- |" + " ---: |" * (2 * len(lengths) + 3) + " --- |")
    for case, row in results.items():
        runs = [f"{row[f'frames_{n}']['peak_mb']} | {row[f'frames_{n}']['cpu_s']}" for n in lengths]
        cells = [case, "×".join(map(str, row["size"])), row["points"], *runs, row["more_mb"], row["killed_at"]]
        print("| " + " | ".join(map(str, cells)) + f" | {'yes' if row['same_bytes'] else 'NO'} |")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread, load {os.getloadavg()[0]:.1f}"
    print(machine)
    print(json.dumps({"benchmark": "long_videos", "machine": machine, "frames": lengths, **results}))


if __name__ == "__main__":
    main()
