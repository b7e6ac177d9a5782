"""Trackers on real ground truth: BADJA (PCK-T, as the PIPs paper counts) and optical flow (end-point error).

    python bench/ground_truth.py --data ../shared/data --trackers still lucas_kanade raft --parts flow badja
    python bench/ground_truth.py --data ../shared/data --trackers pips --weights pips=model-000200000.pth --parts badja

The data: `gt/badja/*.json` with DAVIS frames in `davis480/` (bear: a video), Middlebury and Sintel pairs in `gt/`.
Prints a table for each part and, last, one line of JSON. A tracker whose weights can't be had is named and skipped.
RAFT needs 536 flows for BADJA: 5 minutes on one core at 192×320, more than half an hour at 320×512. Trackers that
need no weights take seconds. `pips` follows every pixel of a pair of frames one by one, so leave it to BADJA on a CPU.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from flowlib.dataset.benchmarks import read_badja, read_flow_pair
from flowlib.downloads import DownloadError
from flowlib.trackers import make_tracker
from flowlib.trackers.benchmark import StillTracker, TrackerReport, compare, evaluate_tracker


def badja(data: Path, size: tuple[int, int] | None):
    for animal in ("bear", "camel", "cows"):
        folder = data / "davis480" / animal
        frames, masks = folder / "frames", folder / "masks"
        if not folder.is_dir():
            frames, masks = data / f"videos/davis_{animal}.mp4", ""
        yield read_badja(data / f"gt/badja/{animal}.json", frames, masks, size=size)


def flow(data: Path):
    for name in ("RubberWhale", "Urban2"):
        folder = data / "gt/middlebury" / name
        yield read_flow_pair(folder / "frame10.png", folder / "frame11.png", folder / "flow10.flo")
    folder = data / "gt/sintel_alley_1"
    yield read_flow_pair(folder / "frame_0001.png", folder / "frame_0002.png", folder / "flow_0001.flo")


def make(names: list[str], weights: dict[str, str]) -> dict:
    """Name -> tracker, those left out whose weights can't be had."""
    trackers = {}
    for name in names:
        try:
            trackers[name] = StillTracker() if name == "still" else make_tracker(name, weights=weights.get(name, ""))
        except (DownloadError, FileNotFoundError) as error:
            print(f"{name}: left out, {error}")
    return trackers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trackers", nargs="+", default=["still", "lucas_kanade", "raft", "pips"])
    parser.add_argument("--parts", nargs="+", default=["flow", "badja"], choices=["flow", "badja"])
    parser.add_argument("--weights", nargs="*", default=[], metavar="TRACKER=FILE", help="not the published ones")
    parser.add_argument("--size", type=int, nargs=2, default=None, help="height and width for BADJA; native if none")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    weights = {"raft": str(arguments.data / "weights/raft_large_things_torchvision.pth")}
    weights |= dict(entry.split("=", 1) for entry in arguments.weights)
    trackers = make(arguments.trackers, weights)
    machine = f"{platform.processor() or platform.machine()}, torch {torch.__version__}"
    results = {"machine": machine, "size": arguments.size}
    for part in arguments.parts:
        reports = {}
        for name, tracker in trackers.items():
            clips = flow(arguments.data) if part == "flow" else badja(arguments.data, arguments.size)
            start = time.perf_counter()
            reports[name] = TrackerReport(tracker.describe())
            for clip in clips:  # one by one: a slow tracker's first numbers are there long before its last
                reports[name].rows.extend(evaluate_tracker(tracker, [clip]).rows)
                print(f"{time.perf_counter() - start:.0f} s, {name}: {reports[name].rows[-1]}", flush=True)
            seconds = round(time.perf_counter() - start, 1)
            results |= {f"{part}_{name}": reports[name].rows, f"{part}_{name}_seconds": seconds}
        print(f"\n{part}\n\n{compare(reports)}\n", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
