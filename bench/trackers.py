"""Time PIPs or AllTracker on one clip of eight frames of 360 × 640, ours against the authors' code; or all trackers.

    python bench/trackers.py alltracker --reference ../alltracker   # a clone of github.com/aharley/alltracker
    python bench/trackers.py pips --reference ../pips               # a clone of github.com/aharley/pips
    python bench/trackers.py pips --points 256 --repeats 1          # no clone: PIPs by its published operations
    python bench/trackers.py alltracker --memory                    # peak memory of one call in a new process
    python bench/trackers.py all --data ../shared/data --threads 1  # every tracker beside the others, with errors

Everything runs in one process, interleaved, with the same random weights; ratios are medians over the rounds. Wall
and CPU seconds both, because cores may be shared: on a busy machine compare CPU seconds. Feature networks are included.
PIPs follows `--points` points, AllTracker every pixel. Beside it the machine's best matrix product, and the largest
convolution of AllTracker. A later call's memory is in part what an earlier one left: only `--memory` tells it.
`all` runs each tracker in a process of its own, on the same clip and points, and measures its error on Sintel's pair,
BADJA (`--animals`, at `--size`) and rendered clips in TAP-Vid's form, if its weights are real: those of PIPs and
AllTracker are generated unless `--weights pips=FILE alltracker=FILE` names the published ones, and follow nothing.
Prints a table, last line JSON. The clones need einops.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from ground_truth import badja, flow

from flowlib.clips import Clip, ClipSample
from flowlib.geometry import cell_grid
from flowlib.synthetic import random_scene
from flowlib.trackers import make_tracker
from flowlib.trackers.alltracker import AllTracker, AllTrackerTracker
from flowlib.trackers.benchmark import COLUMNS, evaluate_tracker
from flowlib.trackers.pips import PIPs, PIPsTracker
from flowlib.trackers.products import Conv, choose_path

SIZE, FRAMES = (360, 640), 8
# Multiplications and additions of PIPs: 52 MFLOP a particle, frame and iteration; 60.4 GFLOP a frame of this size.
FLOP_TOKEN, FLOP_FRAME = 51.9e6, 60.4e9
# Of AllTracker, this clip, 4 iterations, direct convolutions: its 8 frames encoded and upsampled once.
FLOP_DENSE = {"alltracker": 2054e9, "alltracker-full": 2628e9}
VARIANTS = {"alltracker": "tiny", "alltracker-full": "full"}
ALL = ("lucas_kanade", "raft", "pips", *VARIANTS)
ERRORS = {"sintel": ("epe",), "badja": ("pck_t", "mean_error"), "rendered": ("average_jaccard", "occlusion_accuracy")}


def make_clip(points: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured clip that moves by (3, 1) px a frame, and a grid of queries in frame 0."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 48, 84)).astype(np.float32))
    canvas = torch.nn.functional.interpolate(coarse, (384, 672), mode="bicubic").clamp(0, 255)[0].byte().numpy()
    frames = [canvas[:, 8 + t : 368 + t, 3 * t : 640 + 3 * t].transpose(1, 2, 0) for t in range(FRAMES)]
    rows = round(points**0.5)
    xy = cell_grid(SIZE, rows, -(-points // rows))[:points]
    return np.stack(frames), np.concatenate([np.zeros((points, 1)), xy], axis=1).astype(np.float32)


def random_net(args) -> PIPs | AllTracker:
    """Weights of variance 1/inputs: activations stay in range, and rounding grows about as much as it can."""
    torch.manual_seed(0)
    net = PIPs(args.stride) if args.tracker == "pips" else AllTracker(VARIANTS[args.tracker])
    net = net.eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name.endswith("layer_scale"):
            parameter.fill_(0.3)
        elif parameter.ndim > 1:
            small = 0.2 if name in ("flow_head.2.weight", "visconf_head.2.weight") else 1.0
            parameter.normal_(std=small * parameter[0].numel() ** -0.5)
    return net


def load_reference(args, state: dict) -> torch.nn.Module:
    """The authors' network from a clone, unchanged; on a machine without CUDA its `.cuda()` calls are made to stay."""
    sys.path.insert(0, str(args.reference))
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda tensor, *args, **kwargs: tensor
    if args.tracker == "pips":
        from nets.pips import Pips

        net = Pips(S=FRAMES, stride=args.stride).eval()
    else:
        from nets.alltracker import Net

        tiny = {"use_basicencoder": True, "no_split": True} if args.tracker == "alltracker" else {}
        net = Net(16, init_weights=False, **tiny).eval()
    net.load_state_dict(state)
    return net


@torch.no_grad()
def run_reference(net, frames: np.ndarray, queries: np.ndarray, args) -> np.ndarray:
    rgb = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float()
    if args.tracker == "pips":
        return net(torch.from_numpy(queries[None, :, 1:]), rgb, iters=args.iters)[0][-1][0].numpy()
    return net.forward_sliding(rgb, iters=args.iters)[0].reshape(FRAMES, 2, *SIZE).numpy()


def run_plain(net: PIPs, frames: np.ndarray, queries: np.ndarray, iters: int) -> np.ndarray:
    rgb = torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    return net(rgb, torch.from_numpy(queries[None, :, 1:]), iters).tracks[-1, 0].numpy()


def run_ours(net, frames: np.ndarray, queries: np.ndarray, dtype: str, args) -> np.ndarray:
    """Points' tracks [S N 2], or for AllTracker the flow of every pixel [S 2 H W]."""
    if args.tracker == "pips":
        return PIPsTracker(net, args.iters, dtype, args.block)(frames, queries).tracks
    return AllTrackerTracker(net, args.iters, dtype).track_dense(frames).flow


def timed(call) -> tuple[np.ndarray, float, float]:
    """What a call returns, its wall seconds and its CPU seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


class PeakMemory:
    """The most memory the process holds while the block runs, above what it held before, in GB; CUDA's on CUDA."""

    def __enter__(self):
        self.start, self.top, self.stop = self._now(), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.stop.set()
        self.thread.join()
        self.gigabytes = (self.top - self.start) / 1e9

    @staticmethod
    def _now() -> int:
        if torch.cuda.is_available():
            return torch.cuda.memory_allocated()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def _watch(self):
        while not self.stop.wait(0.005):
            self.top = max(self.top, self._now())


def measured_peak(dtype: str) -> dict:
    """GFLOP to a CPU second, at best: of a matrix product, and of AllTracker's largest convolution as it is taken."""
    product = getattr(torch, dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = choose_path(product, device)
    x = torch.randn(1024, 2048, dtype=product, device=device)
    weight = path.prepare(torch.randn(512, 2048, dtype=product, device=device))
    bias = torch.zeros(512, dtype=product, device=device)
    image = torch.randn(1, 512, 48, 80, dtype=product, device=device)
    conv = Conv(torch.randn(192, 512, 3, 3, device=device), torch.zeros(192, device=device), True, product, padding=1)
    calls = {
        "product": (lambda: path.product(x, weight, bias), 2 * x.numel() * 512),
        "convolution": (lambda: conv(image), 2 * image.numel() * 9 * 192),
    }
    return {name: round(work / min(cpu_seconds(call) for _ in range(40)) / 1e9) for name, (call, work) in calls.items()}


def cpu_seconds(call) -> float:
    begin = time.process_time() if not torch.cuda.is_available() else time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter() - begin
    return time.process_time() - begin


def compare(args) -> dict:
    """Interleaved rounds of every contestant; rows of the table by name."""
    net = random_net(args)
    frames, queries = make_clip(args.points)
    calls = {
        f"ours {dtype}": functools.partial(run_ours, net, frames, queries, dtype, args)
        for dtype in ("float32", "bfloat16")
    }
    if args.reference:
        reference = load_reference(args, net.state_dict())
        calls["reference"] = functools.partial(run_reference, reference, frames, queries, args)
    elif isinstance(net, PIPs):
        calls["reference"] = functools.partial(run_plain, net, frames, queries, args.iters)
    runs = {name: [] for name in calls}
    if args.warm:
        for call in calls.values():
            call()
    for i in range(args.repeats):
        for name in list(calls) if i % 2 else list(calls)[::-1]:
            with PeakMemory() as memory:
                tracks, wall, cpu = timed(calls[name])
            runs[name].append((wall, cpu, memory.gigabytes, tracks))
            print(f"round {i} {name}: {wall:.1f} s wall, {cpu:.1f} s CPU, load {os.getloadavg()[0]:.1f}", flush=True)
    first = "reference" if "reference" in runs else "ours float32"
    table = {name: summary(rounds, runs[first], args) for name, rounds in runs.items()}
    return table | {f"difference from {first}": differences(runs, first)} | errors(runs, net, frames, queries, args)


def summary(rounds: list, first: list, args) -> dict:
    if args.tracker == "pips":
        work = FLOP_TOKEN * args.points * FRAMES * args.iters + FLOP_FRAME * FRAMES
    else:
        work = FLOP_DENSE[args.tracker]
    wall, cpu = statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds)
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "gflop_per_cpu_s": round(work / cpu / 1e9),
        "peak_gb": round(max(r[2] for r in rounds), 2),
        "times_faster": round(statistics.median(b[0] / a[0] for a, b in zip(rounds, first, strict=True)), 2),
        "times_faster_cpu": round(statistics.median(b[1] / a[1] for a, b in zip(rounds, first, strict=True)), 2),
    }


def differences(runs: dict, first: str) -> dict:
    """Pixels, mean and largest, of every contestant's result from the first's."""
    # Where the anchor's own pixels are in the anchor is no question: ours says so, the authors' code estimates it.
    gaps = {name: np.abs(rounds[0][3] - runs[first][0][3])[1:] for name, rounds in runs.items() if name != first}
    return {name: [float(f"{gap.mean():.2g}"), float(f"{gap.max():.2g}")] for name, gap in gaps.items()}


def errors(runs: dict, net, frames: np.ndarray, queries: np.ndarray, args) -> dict:
    """Mean distance in px from our float64 over the first `--exact` points of PIPs, of every contestant."""
    if not args.exact or args.tracker != "pips":
        return {}
    few = queries[: args.exact]
    exact = PIPsTracker(net, args.iters, "float64", 32)(frames, few).tracks
    distances = {
        name: round(float(np.linalg.norm(rounds[0][3][:, : args.exact] - exact, axis=-1).mean()), 5)
        for name, rounds in runs.items()
    }
    return {"mean_error_px": distances}


def only_memory(args) -> dict:
    net = random_net(args)
    frames, queries = make_clip(args.points)
    with PeakMemory() as memory:
        _, wall, cpu = timed(functools.partial(run_ours, net, frames, queries, args.dtype, args))
    return {"ours": {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_gb": round(memory.gigabytes, 3)}}


def rendered(count: int = 3, length: int = 16, size: tuple[int, int] = (256, 256)):
    """Clips in TAP-Vid's form: things that move over one another, points asked for in frame 0, hidden ones known."""
    for seed in range(count):
        scene = random_scene(length, size, seed, motion="wander", camera="wander", num_sprites=8)
        truth = scene.tracks(np.insert(cell_grid(size, 16), 0, 0, axis=1).astype(np.float32))
        frames = scene.clip()
        yield ClipSample(Clip.named(f"rendered_{seed}", frames), frames, truth.points(truth.visibility[0]))


def measure_one(args) -> dict:
    """CPU seconds a frame, peak memory and errors of the tracker `--name`, in this process."""
    weights = dict(entry.split("=", 1) for entry in args.weights)
    weights.setdefault("raft", str(args.data / "weights/raft_large_things_torchvision.pth"))
    real = args.name == "lucas_kanade" or args.name in weights
    if real:
        tracker = make_tracker(args.name, weights=weights.get(args.name, ""), device="cpu")
    else:
        args.tracker = args.name
        net = random_net(args)
        tracker = PIPsTracker(net, device="cpu") if args.name == "pips" else AllTrackerTracker(net, device="cpu")
    frames, queries = make_clip(args.points)
    with PeakMemory() as memory:
        _, wall, cpu = timed(lambda: tracker(frames, queries))
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    row = {"cpu_s_a_frame": round(cpu / FRAMES, 3), "wall_s": round(wall, 1), "above_gb": round(memory.gigabytes, 2)}
    row |= {"process_gb": round(int(peak[1]) / 1e6, 2) if peak else 0.0}
    parts = {
        "sintel": lambda: [clip for clip in flow(args.data) if "alley" in clip.name],
        "badja": lambda: [clip for clip in badja(args.data, tuple(args.size)) if clip.name in args.animals],
        "rendered": rendered,
    }
    for part in args.parts if real else ():
        row[part] = {name: round(value, 4) for name, value in evaluate_tracker(tracker, parts[part]()).mean().items()}
        print(f"{args.name}, {part}: {row[part]}", flush=True)
    return row


def overview(args) -> dict:
    """Every tracker's row, each measured in a process of its own."""
    given = [item for item in sys.argv[2:] if item != "all"]
    rows = {}
    for name in ALL:
        said = subprocess.run(
            [sys.executable, __file__, "one", "--name", name, *given], stdout=subprocess.PIPE, text=True, check=True
        )
        rows[name] = json.loads(said.stdout.splitlines()[-1])["row"]
        print(f"{name}: {rows[name]}", flush=True)
    columns = [(part, column) for part in args.parts for column in ERRORS[part]]
    print("| tracker | CPU s a frame | GB above the clip | " + " | ".join(f"{p}, {COLUMNS[c][0]}" for p, c in columns))
    for name, row in rows.items():
        values = [f"{row[p][c] * COLUMNS[c][1]:.{COLUMNS[c][2]}f}" if p in row else "–" for p, c in columns]
        print("| " + " | ".join([name, f"{row['cpu_s_a_frame']}", f"{row['above_gb']}", *values]) + " |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tracker", choices=["pips", *VARIANTS, "all", "one"], help="one: by --name, as `all` calls it")
    parser.add_argument("--name", choices=ALL, help=argparse.SUPPRESS)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="for all: ground truth, RAFT's weights"
    )
    parser.add_argument("--weights", nargs="*", default=[], metavar="TRACKER=FILE", help="for all: the published ones")
    parser.add_argument(
        "--parts", nargs="*", default=list(ERRORS), choices=list(ERRORS), help="for all: errors on what"
    )
    parser.add_argument("--animals", nargs="+", default=["bear", "camel", "cows"], help="for all: of BADJA")
    parser.add_argument("--size", type=int, nargs=2, default=[192, 320], help="for all: height and width for BADJA")
    parser.add_argument("--reference", type=Path, help="folder of a clone of the authors' code")
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--iters", type=int, help="6 for PIPs and 4 for AllTracker by default")
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--block", type=int, help="points to a block; the tracker's own choice by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--exact", type=int, default=64, help="points compared with float64; 0 for none")
    parser.add_argument("--memory", action="store_true", help="only the peak memory of one call")
    parser.add_argument("--dtype", default="float32", help="for --memory")
    parser.add_argument("--no-warm", dest="warm", action="store_false", help="leave out the round that warms up")
    args = parser.parse_args()
    args.iters = args.iters or (6 if args.tracker == "pips" else 4)
    torch.set_num_threads(args.threads)
    if args.tracker == "one":
        print(json.dumps({"row": measure_one(args)}))
        return
    measure = overview if args.tracker == "all" else only_memory if args.memory else compare
    results = measure(args)
    results["peak"] = {dtype: measured_peak(dtype) for dtype in ("float32", "bfloat16")}
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    results["machine"] = f"{machine}, {args.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    for name, row in results.items():
        print(f"{name:>26}", row)
    settings = {key: str(value) for key, value in vars(args).items() if value is not None}
    print(json.dumps({"benchmark": "trackers", "settings": settings, **results}))


if __name__ == "__main__":
    main()
