"""How busy labelling keeps its tracker, and what it costs over the bare tracker.

    python bench/label.py                            # a tracker that takes 0.5 s a clip
    python bench/label.py --tracker lucas_kanade     # a real one, which competes for the cores
    python bench/label.py --hours 430                # instead: what so much video takes with PIPs and with AllTracker

Renders videos of 360×640, then in each round follows 100×100 points through the same clips twice: with the bare
tracker on frames that are in memory, and by `label`, from videos to shards. Prints the share of the labelling time that
the tracker is busy, the overhead over the bare tracker, bytes a clip and the largest frame; the last line is JSON.

`--hours` times clips by `estimate`, which says what the job takes by the clock, and counts the tracker's CPU seconds
meanwhile, for a busy machine's clock says little: hours are these over the cores. PIPs follows 100×100 points; its time
is a line through those for 16×16 and 32×32 points. AllTracker (tiny) follows every pixel. Weights are generated. GPU
hours are the floating-point operations of a clip over a rate that a GPU keeps up (`--tflops`).
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from flowlib.labelling import LabelConfig, estimate, label, make_plan
from flowlib.shards import UNIT, Shard, find_shards
from flowlib.synthetic import random_scene
from flowlib.trackers import Tracker, make_tracker
from flowlib.tracks import Tracks
from flowlib.video import read_frames, write_video
from flowlib.workspace import Workspace

SIZE = (360, 640)
LABEL = ("median", "least", "most")


class SleepingTracker:
    """Takes `seconds` a clip without a core, as one on a GPU does, and answers with wavy tracks of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        time.sleep(self.seconds)
        times = np.arange(len(frames))[:, None, None]
        moved = queries[None, :, 1:] + times * (2 + np.sin(queries[None, :, :0:-1] / 40 + times / 3))
        return Tracks(moved.astype(np.float32), np.ones(moved.shape[:2], bool), queries)

    def describe(self) -> dict:
        return {"name": "sleeping", "weights_sha256": ""}


def write_videos(folder: Path, videos: int, clips: int) -> None:
    """Noisy pictures that move: a codec and a JPEG have something to do."""
    for number in range(videos):
        scene = random_scene(8, SIZE, seed=number, camera="linear")
        frames = [scene.render(t % 8) for t in range(8 * clips)]
        write_video(folder / f"video_{number}.mp4", frames, fps=25)


def bare(plan, tracker: Tracker) -> float:
    """Seconds that the tracker alone takes for all clips of the plan."""
    videos, seconds = plan.videos, 0.0
    for clip in plan.clips:
        frames = read_frames(videos[clip.video], clip.frame_numbers, SIZE)
        start = time.perf_counter()
        tracker(frames, plan.config.queries(clip.key))
        seconds += time.perf_counter() - start
    return seconds


def sizes(folder: Path) -> dict:
    """Bytes of a dataset: tracks and visibility of its largest clip, its largest frame, all files over the clips."""
    tracks, frames, clips = [], [], 0
    for path, found in find_shards(folder)[0].items():
        clips += len(found)
        with h5py.File(path) as file:
            stored = {
                name: [one.id.get_storage_size() for one in group.values()] for name, group in file["clips"].items()
            }
            tracks += [sum(parts) for parts in stored.values()]
            frames += [one.id.get_storage_size() for group in file["frames"].values() for one in group.values()]
    total = sum(path.stat().st_size for path in (folder / "shards").glob("*.h5"))
    return {"tracks": max(tracks), "frame": max(frames), "clip": total // clips, "frames_a_clip": len(frames) / clips}


def largest_error(folder: Path, plan, tracker: Tracker) -> float:
    """Pixels between stored and tracked positions of the plan's first clip."""
    path, found = next(iter(find_shards(folder)[0].items()))
    clip = plan.clips[0]
    with Shard(path) as shard:
        stored = shard.tracks(next(one for one in found if one.key == clip.key))
    tracked = tracker(read_frames(plan.videos[clip.video], clip.frame_numbers, SIZE), plan.config.queries(clip.key))
    return float(np.abs(stored.tracks - tracked.tracks).max())


class CountingTracker:
    """Another tracker, and the CPU seconds of its calls."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.seconds = tracker, []

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        start = time.process_time()
        tracks = self.tracker(frames, queries)
        self.seconds.append(time.process_time() - start)
        return tracks

    def describe(self) -> dict:
        return self.tracker.describe()


def hours_of_video(hours: float, fps: float, tflops: float) -> dict:
    """What labelling so much video takes with PIPs at 100×100 points and with AllTracker at every pixel."""
    from trackers import FLOP_DENSE, FLOP_FRAME, FLOP_TOKEN, random_net

    from flowlib.trackers.alltracker import AllTrackerTracker
    from flowlib.trackers.pips import PIPsTracker

    frames, iters, points, cores = 8, 6, 100 * 100, os.cpu_count() or 1
    clips = hours * 3600 * fps / frames
    pips = PIPsTracker(random_net(argparse.Namespace(tracker="pips", stride=4)), iters, device="cpu")
    dense = AllTrackerTracker(random_net(argparse.Namespace(tracker="alltracker")), device="cpu")
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder), 1, 1)
        for name, tracker, change in (
            ("256 points", pips, {"grid": 16}),
            ("1024 points", pips, {"grid": 32}),
            ("every pixel", dense, {"spacing": 1}),
        ):
            config = LabelConfig(height=SIZE[0], width=SIZE[1], skip_still=False, split_shots=False, **change)
            counting = CountingTracker(tracker)
            print(estimate(make_plan(Path(folder), config), tracker=counting, clips=1), flush=True)
            seconds[name] = counting.seconds[-1]
            print(f"{name}: {seconds[name]:.1f} CPU s a clip", flush=True)
    a_point = (seconds["1024 points"] - seconds["256 points"]) / (1024 - 256)
    cpu = {"pips": seconds["256 points"] + a_point * (points - 256), "alltracker": seconds["every pixel"]}
    work = {"pips": FLOP_TOKEN * points * frames * iters + FLOP_FRAME * frames, "alltracker": FLOP_DENSE["alltracker"]}
    results = {"clips": round(clips), "seconds": {name: round(value, 1) for name, value in seconds.items()}}
    print(f"{hours:g} h of {fps:g} frames a second are {clips:,.0f} clips of {frames} frames")
    for name in cpu:
        on_cpu, on_gpu = cpu[name] * clips / cores / 3600, work[name] * clips / (tflops * 1e12) / 3600
        print(f"{name}: {cpu[name]:.1f} CPU s a clip × {clips:,.0f} / {cores} cores = {on_cpu:,.0f} h here")
        print(f"  {work[name] / 1e12:.2f} TFLOP × {clips:,.0f} / {tflops:g} TFLOP/s = {on_gpu:,.1f} GPU hours")
        results[name] = {"cpu_s_a_clip": cpu[name], "hours_here": on_cpu, "tflop_a_clip": work[name] / 1e12}
        results[name] |= {"tflops": tflops, "gpu_hours": on_gpu}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracker", default="", help="lucas_kanade, raft or pips; else one that sleeps")
    parser.add_argument("--weights", default="")
    parser.add_argument("--seconds", type=float, default=0.5, help="that the sleeping tracker takes a clip")
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--clips", type=int, default=10, help="of each video")
    parser.add_argument("--clip-step", type=int, default=0, help="frames from clip to clip; below 8 they overlap")
    parser.add_argument("--source", type=Path, help="videos of your own instead of rendered ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=0, help="of video: say what they take, and do nothing else")
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--tflops", type=float, default=100.0, help="that a GPU keeps up: TF32 or bfloat16 products")
    arguments = parser.parse_args()
    if arguments.hours:
        results = hours_of_video(arguments.hours, arguments.fps, arguments.tflops)
        machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{machine}\n" + json.dumps({"hours": arguments.hours, "machine": machine} | results))
        return
    tracker = SleepingTracker(arguments.seconds)
    if arguments.tracker:
        tracker = make_tracker(arguments.tracker, weights=arguments.weights)
    config = LabelConfig(
        grid=100, height=SIZE[0], width=SIZE[1], fit="crop", clip_step=arguments.clip_step, max_clips=arguments.clips
    )
    busy, overhead = [], []
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.source:
            write_videos(Path(folder) / "videos", arguments.videos, arguments.clips)
        plan = make_plan(arguments.source or Path(folder) / "videos", config)
        for number in range(arguments.rounds):
            alone = bare(plan, tracker)
            report = label(plan, Workspace(Path(folder) / f"round {number}"), tracker=tracker, progress=False)
            busy.append(report.clock["tracking"] / report.seconds)
            overhead.append(report.seconds / alone)
            print(f"round {number}: {len(plan.clips)} clips in {report.seconds:.1f} s, bare tracker {alone:.1f} s; "
                  f"busy {100 * busy[-1]:.1f} %; {report.clock}", flush=True)  # fmt: skip
        found = sizes(report.folder) | {"error_px": largest_error(report.folder, plan, tracker)}
    print(f"tracks and visibility of a clip at most {found['tracks'] / 1000:.1f} kB, a frame at most "
          f"{found['frame'] / 1000:.1f} kB, {found['frames_a_clip']:.2f} frames stored a clip, largest error "
          f"{found['error_px'] * UNIT:.2f}/64 px")  # fmt: skip
    load, python = os.getloadavg()[0], platform.python_version()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {python}")
    figures = {
        name: dict(zip(LABEL, (statistics.median(values), min(values), max(values))))
        for name, values in (("busy", busy), ("times_bare_tracker", overhead))
    }
    print(
        json.dumps(
            {"tracker": arguments.tracker or f"sleeping {arguments.seconds} s", "clips": len(plan.clips)}
            | figures
            | found
        )
    )


if __name__ == "__main__":
    main()
