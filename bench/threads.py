"""What a second CPU thread is worth to small networks, and what it is worth that freed memory is kept.

    python bench/threads.py            # steps of the hands' networks on one thread and on all, interleaved
    python bench/threads.py --memory   # a step of a network on pictures, before and after `keep_freed_memory`

Every step is forward, backward and an optimiser's. Threads: medians of wall and CPU seconds over `--repeats` rounds, in
which each number of threads has its turn, and the ratio to one thread; the CPU's time of threads that wake and wait
counts. Memory: this can't be taken back, so the rounds before come first; kernel seconds and page faults tell it from
what else the machine does. The load is printed, for a busy machine makes threads wait for one another. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from flowlib.devices import cpu_threads, describe_load, keep_freed_memory
from flowlib.models.actions import ActionLSTM
from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.loops import Feedback
from flowlib.models.pose import PoseNet

ACTIONS, JOINTS = 12, 21


def pose_net(size: int, **told: object) -> PoseNet:
    return PoseNet.named("small", size=size, components=30, joints=JOINTS, dropout=0.0, **told)


def step_of(model: nn.Module, forward: Callable[[], torch.Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad])

    def step() -> None:
        optimizer.zero_grad()
        forward().backward()
        optimizer.step()

    return step


def make_steps() -> dict[str, Callable[[], None]]:
    """A training step of each network, on random numbers."""
    torch.manual_seed(0)
    steps = {}
    for size in (32, 64):
        net, crops = pose_net(size), torch.randn(64, 1, size, size)
        steps[f"pose net, 64 crops of {size} px"] = step_of(net, lambda n=net, x=crops: n(x).joints.square().mean())
    action = ActionLSTM(3 * JOINTS, ACTIONS)
    poses, lengths = torch.randn(20, 40, 3 * JOINTS), torch.full((20,), 40)
    steps["action net, 20 sequences of 40"] = step_of(action, lambda: action(poses, lengths).logits.square().mean())
    loop = Feedback(pose_net(32, num_actions=ACTIONS, film=("linear",)), ActionLSTM(3 * JOINTS, ACTIONS))
    frames, four = torch.randn(4, 20, 1, 32, 32), torch.full((4,), 20)
    steps["feedback loop, 4 sequences of 20"] = step_of(loop, lambda: loop(frames, four).joints.square().mean())
    return steps


def threads(repeats: int) -> dict[str, dict[str, list[float]]]:
    """Network -> number of threads -> median wall and CPU seconds of a step."""
    found: dict[str, dict[str, list[float]]] = {}
    counts = (1, max(2, torch.get_num_threads()))
    for name, step in make_steps().items():
        seconds: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
        for _ in range(repeats + 1):
            for count in counts:
                with cpu_threads(count):
                    wall, cpu = time.perf_counter(), time.process_time()
                    step()
                    seconds[count].append((time.perf_counter() - wall, time.process_time() - cpu))
        found[name] = {str(c): [statistics.median(one) for one in zip(*own[1:])] for c, own in seconds.items()}
        one, more = (found[name][str(count)] for count in counts)
        shown = " ".join(f"{1000 * value:7.0f}" for value in (*one, *more))
        print(f"{name:34s} {shown}   {more[0] / one[0]:.2f} (CPU {more[1] / one[1]:.2f})")
    return found


def memory(repeats: int) -> dict[str, list[float]]:
    """Before and after: wall, CPU and kernel seconds, and page faults, of a step."""
    torch.manual_seed(0)
    net = TrajectoryFCN(backbone="lraspp_mobilenet_v3_large", num_frames=8, input_frames=(0,), weights="none")
    images = torch.rand(4, 1, 3, 192, 320) * 255
    step = step_of(net, lambda: net(images).displacement.square().mean())
    found = {}
    for kept in (False, True):
        if kept and not keep_freed_memory():
            raise SystemExit("this C library isn't glibc, or MALLOC_… is set: nothing to compare")
        step()
        before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        for _ in range(repeats):
            step()
        after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - wall
        user, kernel = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        spent = (wall, user + kernel, kernel, float(after.ru_minflt - before.ru_minflt))
        name = "freed memory kept" if kept else "as it comes"
        found[name] = [value / repeats for value in spent]
        print("{:20s} {:.2f} s, CPU {:.2f} s, of it kernel {:.2f} s, {:.0f} page faults".format(name, *found[name]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {describe_load()}")
    if not args.memory:
        print(f"{'ms a step':34s}   1: wall     CPU  all: wall   CPU   all against 1")
    found = memory(args.repeats) if args.memory else threads(args.repeats)
    waits = {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
    print(json.dumps({"load": os.getloadavg()[0], "environment": waits, "found": found}))


if __name__ == "__main__":
    main()
