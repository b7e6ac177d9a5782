"""Time PIPs on one window of eight frames, ours against the authors' code or against our own plain path.

    python bench/pips_window.py --reference ../pips          # a clone of github.com/aharley/pips
    python bench/pips_window.py --points 256 --repeats 1     # no clone: float32 against the published operations
    python bench/pips_window.py --points 10000 --memory      # peak memory of one call, nothing else

Everything runs in one process, interleaved, with the same random weights; ratios are medians over the rounds. Wall
and CPU seconds both, because cores may be shared. The feature network is included. Prints a table, last line JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import resource
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from flowlib.geometry import cell_grid
from flowlib.trackers.pips import PIPs, PIPsTracker

SIZE, FRAMES = (360, 640), 8
# Multiplications and additions, twice: 52 MFLOP a particle, frame and iteration; 60.4 GFLOP a frame of this size.
FLOP_TOKEN, FLOP_FRAME = 51.9e6, 60.4e9


def make_clip(points: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured clip that moves by (3, 1) px a frame, and a grid of queries in frame 0."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 48, 84)).astype(np.float32))
    canvas = torch.nn.functional.interpolate(coarse, (384, 672), mode="bicubic").clamp(0, 255)[0].byte().numpy()
    frames = [canvas[:, 8 + t : 368 + t, 3 * t : 640 + 3 * t].transpose(1, 2, 0) for t in range(FRAMES)]
    rows = round(points**0.5)
    xy = cell_grid(SIZE, rows, -(-points // rows))[:points]
    return np.stack(frames), np.concatenate([np.zeros((points, 1)), xy], axis=1).astype(np.float32)


def random_net(stride: int) -> PIPs:
    """Weights of variance 1/inputs: activations stay in range, and rounding grows about as much as it can."""
    torch.manual_seed(0)
    net = PIPs(stride).eval().requires_grad_(False)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
    return net


def load_reference(folder: Path, state: dict, stride: int) -> torch.nn.Module:
    """The authors' network from a clone, unchanged; on a machine without CUDA its `.cuda()` calls are made to stay."""
    sys.path.insert(0, str(folder))
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda tensor, *args, **kwargs: tensor
    from nets.pips import Pips

    net = Pips(S=FRAMES, stride=stride).eval()
    net.load_state_dict(state)
    return net


@torch.no_grad()
def run_reference(net, frames: np.ndarray, queries: np.ndarray, iters: int, dtype=torch.float32) -> np.ndarray:
    rgb = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].to(dtype)
    xy = torch.from_numpy(queries[None, :, 1:]).to(dtype)
    return net(xy, rgb, iters=iters)[0][-1][0].numpy()


def run_plain(net: PIPs, frames: np.ndarray, queries: np.ndarray, iters: int) -> np.ndarray:
    rgb = torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    return net(rgb, torch.from_numpy(queries[None, :, 1:]), iters).tracks[-1, 0].numpy()


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
    """Of the mixer's matrix product by the path the tracker takes: GFLOP/s at best, and GFLOP to a CPU second."""
    from flowlib.trackers.products import choose_path

    product = getattr(torch, dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = choose_path(product, device)
    x = torch.randn(1024, 2048, dtype=product, device=device)
    weight = path.prepare(torch.randn(512, 2048, dtype=product, device=device))
    bias, times, cpu = torch.zeros(512, dtype=product, device=device), [], []
    for _ in range(200):
        cpu_begin = time.process_time()
        begin = time.perf_counter()
        path.product(x, weight, bias)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
    work = 2 * x.numel() * 512 / 1e9
    return {"gflops": round(work / min(times)), "gflop_per_cpu_s": round(work * len(cpu) / sum(cpu))}


def compare(args) -> dict:
    """Interleaved rounds of every contestant; rows of the table by name."""
    net = random_net(args.stride)
    frames, queries = make_clip(args.points)
    trackers = {dtype: PIPsTracker(net, args.iters, dtype, args.block) for dtype in ("float32", "bfloat16")}
    calls = {
        f"ours {dtype}": functools.partial(lambda t: t(frames, queries).tracks, tracker)
        for dtype, tracker in trackers.items()
    }
    if args.reference:
        reference = load_reference(args.reference, net.state_dict(), args.stride)
        calls["reference"] = lambda: run_reference(reference, frames, queries, args.iters)
    else:
        calls["reference"] = lambda: run_plain(net, frames, queries, args.iters)
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
    return {name: summary(rounds, runs["reference"], name, args) for name, rounds in runs.items()} | errors(
        runs, net, frames, queries, args
    )


def summary(rounds: list, reference: list, name: str, args) -> dict:
    work = FLOP_TOKEN * args.points * FRAMES * args.iters + FLOP_FRAME * FRAMES
    wall, cpu = statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds)
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "gflops": round(work / min(r[0] for r in rounds) / 1e9),
        "gflop_per_cpu_s": round(work / cpu / 1e9),
        "peak_gb": round(max(r[2] for r in rounds), 2),
        "times_faster": round(statistics.median(b[0] / a[0] for a, b in zip(rounds, reference, strict=True)), 2),
        "times_faster_cpu": round(statistics.median(b[1] / a[1] for a, b in zip(rounds, reference, strict=True)), 2),
    }


def errors(runs: dict, net: PIPs, frames: np.ndarray, queries: np.ndarray, args) -> dict:
    """Mean distance in px from our float64 over the first `--exact` points, of every contestant."""
    if not args.exact:
        return {}
    few = queries[: args.exact]
    exact = PIPsTracker(net, args.iters, "float64", 32)(frames, few).tracks
    distances = {
        name: round(float(np.linalg.norm(rounds[0][3][:, : args.exact] - exact, axis=-1).mean()), 5)
        for name, rounds in runs.items()
    }
    return {"mean_error_px": distances}


def only_memory(args) -> dict:
    net = random_net(args.stride)
    frames, queries = make_clip(args.points)
    with PeakMemory() as memory:
        _, wall, cpu = timed(lambda: PIPsTracker(net, args.iters, args.dtype, args.block)(frames, queries))
    return {"ours": {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_gb": round(memory.gigabytes, 3)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", type=Path, help="folder of a clone of aharley/pips (needs einops)")
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--iters", type=int, default=6)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--block", type=int, help="points to a block; the tracker's own choice by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--exact", type=int, default=64, help="points compared with float64; 0 for none")
    parser.add_argument("--memory", action="store_true", help="only the peak memory of one call, weights packed anew")
    parser.add_argument("--dtype", default="float32", help="for --memory")
    parser.add_argument("--no-warm", dest="warm", action="store_false", help="leave out the round that warms up")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = only_memory(args) if args.memory else compare(args)
    results["product"] = {dtype: measured_peak(dtype) for dtype in ("float32", "bfloat16")}
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    results["machine"] = f"{machine}, {args.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    for name, row in results.items():
        print(f"{name:>14}", row)
    settings = {key: str(value) for key, value in vars(args).items() if value is not None}
    print(json.dumps({"benchmark": "pips_window", "settings": settings, **results}))


if __name__ == "__main__":
    main()
