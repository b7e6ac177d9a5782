"""What a training step costs beside other work: CPU seconds with none and with four busy processes on the same cores.

Threads that wait for one another by spinning burn the cores that the others hold up. Three ways are compared, in turn,
each in a process of its own: as `import flowlib` sets it (waiting threads sleep), as torch has it by itself, and with
one thread. The step is notebook 03's in the demo.

    python bench/busy.py --rounds 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

WAYS = {
    "flowlib's": ("import flowlib, torch", {}),
    "torch's own": ("import torch, flowlib", {}),  # its threads are set up before flowlib says how
    "one thread": ("import flowlib, torch", {"OMP_NUM_THREADS": "1"}),
}
STEPS = """
import json, resource, time
from flowlib.models.fcn import TrajectoryFCN

torch.manual_seed(0)
model = TrajectoryFCN(num_frames=8, working_size=(120, 240), weights="none", batch_norm="group")
optimizer = torch.optim.AdamW(model.parameters())
images = torch.randint(0, 255, (2, 1, 3, 360, 640), dtype=torch.uint8)

def step():
    model(images).displacement.abs().mean().backward()
    optimizer.step()
    optimizer.zero_grad()

def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

step()
began, before = time.perf_counter(), spent()
for _ in range(STEPS):
    step()
print(json.dumps({"cpu": (spent() - before) / STEPS, "wall": (time.perf_counter() - began) / STEPS}))
"""
BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--busy", type=int, default=4, help="processes beside it")
    arguments = parser.parse_args()
    found = {(way, busy): [] for way in WAYS for busy in (0, arguments.busy)}
    for _ in range(arguments.rounds):
        for busy in (0, arguments.busy):
            others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
            try:
                for way in WAYS:
                    found[way, busy].append(measure(way, arguments.steps))
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    print(f"{len(os.sched_getaffinity(0))} cores, load at the end {os.getloadavg()[0]:.1f}; seconds a step, median")
    print(f"{'':14}{'CPU':>8}{'busy':>8}{'ratio':>8}{'wall':>9}{'busy':>8}")
    table = {}
    for way in WAYS:
        one = {
            f"{what} {busy}": statistics.median(part[what] for part in found[way, busy])
            for what in ("cpu", "wall")
            for busy in (0, arguments.busy)
        }
        cpu, beside, wall, slow = one.values()
        table[way] = one | {"ratio": beside / cpu}
        print(f"{way:14}{cpu:8.2f}{beside:8.2f}{beside / cpu:8.2f}{wall:9.2f}{slow:8.2f}")
    print(json.dumps(table))


def measure(way: str, steps: int) -> dict[str, float]:
    """CPU and wall seconds a step, in a process of its own."""
    imports, settings = WAYS[way]
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("OMP_", "MKL_", "GOMP_"))}
    began = time.monotonic()
    code = imports + STEPS.replace("STEPS", str(steps))
    done = subprocess.run([sys.executable, "-c", code], env=kept | settings, capture_output=True, text=True, check=True)
    print(f"{way}: {time.monotonic() - began:.0f} s, {done.stdout.strip()}", file=sys.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
