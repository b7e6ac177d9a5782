"""What the fault tests share: jobs as processes, what a dataset holds as hashes, and the book of faults."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from flowlib.shards import Shard, find_shards

CLONE = Path(__file__).parents[1]
PATIENCE = 60.0  # seconds until a job that should have got somewhere counts as stuck


class Job:
    """A labelling job in a process of its own, see labelling_job.py for the options.

    Args:
        source: the videos.
        root: the workspace's folder.
        **options: the job's.
    """

    def __init__(self, source: Path, root: Path, **options) -> None:
        self.root, self.output = root, tempfile.TemporaryFile("w+")
        self.errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, str(CLONE / "tests" / "labelling_job.py")]
        command.append(json.dumps({"source": str(source), "root": str(root)} | options))
        environment = os.environ | {"PYTHONPATH": str(CLONE), "OMP_NUM_THREADS": "1"}
        streams = {"stdin": subprocess.PIPE, "stdout": self.output, "stderr": self.errors}
        self.process = subprocess.Popen(command, env=environment, text=True, **streams)

    def said(self, word: str) -> list:
        """What it has said after `word` so far, once for each time."""
        lines = os.pread(self.output.fileno(), 1 << 20, 0).decode().splitlines(keepends=True)
        whole = [line.partition(" ") for line in lines if line.endswith("\n")]
        return [json.loads(rest) for first, _, rest in whole if first == word]

    def wait_until(self, word: str, times: int = 1) -> None:
        """Wait until it has said `word` so often."""
        waiting = time.monotonic()
        while len(self.said(word)) < times:
            assert self.process.poll() is None, f"ended before it said {word!r} {times} times: {self.complaint()}"
            assert time.monotonic() - waiting < PATIENCE, f"didn't say {word!r} {times} times"
            time.sleep(0.001)

    def go_on(self) -> None:
        """Let it go on from where it holds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def send(self, number: signal.Signals) -> float:
        """Send it a signal and wait until it has ended; how many seconds that took."""
        sent = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        return time.monotonic() - sent

    def finish(self, patience: float = PATIENCE) -> dict:
        """Wait until it has ended well; its report."""
        assert self.process.wait(patience) == 0, self.complaint()
        return self.said("report")[0]

    def fail(self, patience: float = PATIENCE) -> str:
        """Wait until it has ended with an error; what it says."""
        assert self.process.wait(patience) == 1, f"ended with {self.process.returncode}: {self.complaint()}"
        return self.complaint().rpartition("\nTraceback")[2]

    def complaint(self) -> str:
        """What it has written to standard error so far."""
        return os.pread(self.errors.fileno(), 1 << 20, 0).decode()


def samples(root: Path) -> dict[str, str]:
    """Every sample of the dataset below `root`: key -> a hash of its frames, tracks, visibility and queries."""
    found, bad = find_shards(root / "datasets" / "default")
    assert not bad, bad
    hashes = {}
    for path, clips in found.items():
        with Shard(path) as shard:
            for clip in clips:
                one = shard.read(clip)
                parts = (one.frames, one.tracks.tracks, one.tracks.visibility, one.tracks.queries)
                hashes[clip.key] = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    return hashes


def seen_in_training(root: Path) -> list:
    """Everything that a training gets to see of the dataset below `root`."""
    from flowlib.dataset import TrajectoryDataset

    dataset = TrajectoryDataset(root / "datasets" / "default", split="all")
    return [[part if isinstance(part, str) else part.numpy().tobytes() for part in one.values()] for one in dataset]


def left_over(root: Path) -> list[str]:
    """Files below `root` that are no part of a dataset: pieces and temporary files."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return [str(path.relative_to(root)) for path in files if "scratch" in path.parts or path.suffix == ".part"]


@dataclass
class Book:
    """Which faults were injected, and how many samples of an undisturbed job weren't there in the end, or others."""

    faults: Counter = field(default_factory=Counter)
    lost: int = 0
    compared: int = 0

    def compare(self, fault: str, root: Path, undisturbed: dict[str, str], times: int = 1) -> None:
        """Book a fault, and fail unless the dataset is the undisturbed one, sample by sample, with nothing beside."""
        there = samples(root)
        wrong = {key for key in undisturbed.keys() | there.keys() if undisturbed.get(key) != there.get(key)}
        self.faults[fault] += times
        self.lost, self.compared = self.lost + len(wrong), self.compared + len(undisturbed)
        assert not wrong, f"{fault}: {len(wrong)} of {len(undisturbed)} samples are lost or others"
        assert not left_over(root), f"{fault}: {left_over(root)}"

    def __str__(self) -> str:
        kinds = ", ".join(f"{number} {name}" for name, number in self.faults.items())
        return f"faults injected: {self.faults.total()} ({kinds}); lost: {self.lost} of {self.compared} samples"
