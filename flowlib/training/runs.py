"""Run folders: where a run lives, its metrics as lines of JSON, its TensorBoard, and how long it still takes.

metrics.jsonl holds only what the data, config and seed decide, so that a resumed run's file equals an undisturbed
one's; seconds go to timings.jsonl.
"""

from __future__ import annotations

import fcntl
import glob
import json
import logging
import os
import platform
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

import flowlib
from flowlib.workspace import Workspace, atomic_write, check_name

FLUSH_SECONDS = 5.0
_held: set[int] = set()  # descriptors of the folders that this process trains into
logger = logging.getLogger(__name__)


def run_folder(name: str, runs: Path | None = None) -> Path:
    """The newest run called `name`, or the folder of a new one, `<time>_<name>` (not made yet).

    >>> run_folder("demo", Path("/tmp/no-runs-here")).name.endswith("_demo")
    True
    """
    runs = Workspace().runs if runs is None else Path(runs)
    pattern = f"*_{glob.escape(check_name('run', name))}"
    found = [folder for folder in runs.glob(pattern) if folder.name.partition("_")[2] == name]
    if found:
        return max(found)
    return runs / f"{datetime.now():%Y%m%d-%H%M%S}_{name}"


def versions() -> dict[str, str]:
    """What the numbers of a run depend on."""
    import torchvision  # here: it takes over a second, and who only reads runs needs nothing of it

    return {
        "flowlib": flowlib.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is made, for one training.

    Processes of this machine see the lock, those of others need not; it goes when its process does, however that ends.

    Raises:
        BlockingIOError: another training holds it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        _let_go(descriptor)
        raise BlockingIOError(
            f"{folder}: another training is writing into this run's folder: wait until it has ended, or give this one "
            "another name (only trainings on the same machine are noticed: never use one folder from two)"
        ) from error
    except OSError:
        logger.warning("%s: this disk knows no locks, so have only one training use this folder", folder)
    try:
        yield
    finally:
        _let_go(descriptor)


def _let_go(*descriptors: int) -> None:
    for descriptor in descriptors:
        _held.discard(descriptor)
        os.close(descriptor)


# A worker process of a killed training lives on for seconds, and must not hold the folder for so long.
os.register_at_fork(after_in_child=lambda: _let_go(*_held))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a disk's error which file it is about, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: can't be written ({error.strerror or error}); what was saved before is untouched: make room or "
            "mend the disk, and run again to go on"
        ) from error


@contextmanager
def _quiet_board() -> Iterator[None]:
    """Keep TensorBoard's thread from printing what a disk refuses it, which is raised here, too."""
    before = threading.excepthook
    threading.excepthook = lambda what: None if "tensorboard" in type(what.thread).__module__ else before(what)
    try:
        yield
    finally:
        threading.excepthook = before


class MetricsLog:
    """Lines of JSON that are appended by opening, writing and closing, as mounted Drives want it.

    What is logged reaches the disk within seconds, and in any case before the checkpoint of its step (`flush`). Of
    several processes one writes; the others' logs are quiet.
    """

    def __init__(self, folder: Path, *, resume_at: int, quiet: bool = False) -> None:
        self.folder, self.quiet = folder, quiet
        self.waiting: dict[str, list[str]] = {"metrics.jsonl": [], "timings.jsonl": []}
        self.scalars: list[tuple[str, float, int, float]] = []  # for TensorBoard: name, value, step, time
        self.flushed = time.monotonic()
        if quiet:
            return
        from torch.utils.tensorboard import SummaryWriter

        with writing(folder), _quiet_board():
            for name in self.waiting:
                _cut_after(folder / name, resume_at)
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1)
        there = sum("grad_norm" in line for line in read_metrics(folder))
        if there != resume_at:
            expected = f"expected the lines of {resume_at} steps, got {there}"
            warnings.warn(f"{folder / 'metrics.jsonl'}: {expected}: the curve has a gap", stacklevel=4)

    def write(self, values: dict[str, Any], name: str = "metrics.jsonl") -> None:
        """Note the values of a step but those that are NaN; `values["step"]` counts finished optimiser steps."""
        if self.quiet:
            return
        values = {key: value for key, value in values.items() if value == value}  # JSON has no NaN
        self.waiting[name].append(json.dumps(values))
        for key, value in values.items():
            if key != "step" and isinstance(value, (int, float)):
                self.scalars.append((key, value, values["step"], time.time()))
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring everything to the disk."""
        if self.quiet:
            return
        for name, lines in self.waiting.items():
            text = "".join(line + "\n" for line in lines)
            lines.clear()  # also of a disk that refuses them, which is not to be asked again when the log is closed
            if text:
                with writing(self.folder / name), open(self.folder / name, "a", encoding="utf-8") as file:
                    file.write(text)
        with writing(self.folder / "tensorboard"), _quiet_board():
            scalars, self.scalars = self.scalars, []
            for scalar in scalars:
                self.board.add_scalar(*scalar)
            self.board.flush()
        self.flushed = time.monotonic()

    def close(self) -> None:
        """Flush, and let go of the files."""
        self.flush()
        if not self.quiet:
            with writing(self.folder / "tensorboard"), _quiet_board():
                self.board.close()


class BatchNormDrift:
    """How far each batch's statistics lie from the running ones, for every batch norm that is in training.

    A running mean moves by momentum × (batch mean - running mean), so its own movement tells; in units of the running
    standard deviation, root mean square over a layer's channels.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers: list[tuple[str, Any]] = [
            (name, m) for name, m in model.named_modules() if isinstance(m, BatchNorm) and m.running_mean is not None
        ]
        self.means = [module.running_mean.clone() for _, module in self.layers]

    @torch.no_grad()
    def read(self) -> dict[str, Any]:
        """`bn_shift` and `bn_layer`, the largest shift since the last call and where; empty where nothing moved."""
        moving = [i for i, (_, module) in enumerate(self.layers) if module.training]
        if not moving:
            return {}
        shifts = torch.stack([self._shift(i) for i in moving])
        for i in moving:
            self.means[i].copy_(self.layers[i][1].running_mean)
        largest = int(shifts.argmax())
        return {"bn_shift": float(shifts[largest]), "bn_layer": self.layers[moving[largest]][0]}

    def _shift(self, index: int) -> torch.Tensor:
        module = self.layers[index][1]
        moved = (module.running_mean - self.means[index]) / (module.momentum or 0.1)
        return (moved / (module.running_var + module.eps).sqrt()).square().mean().sqrt()


def read_metrics(folder: str | Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The lines of a run's metrics, none before its first step; a last line cut short by a kill is left out."""
    path = Path(folder).expanduser() / name
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [values for values in map(_parsed, lines) if values is not None]


def minutes_of(folder: str | Path) -> float:
    """What a run's steps took so far, over all sessions."""
    return sum(line.get("step_seconds", 0.0) for line in read_metrics(folder, "timings.jsonl")) / 60


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return None
    return values if isinstance(values, dict) and isinstance(values.get("step"), int) else None


def _cut_after(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint of `step`; those steps are done again."""
    if path.exists():
        kept = [values for values in read_metrics(path.parent, path.name) if values["step"] <= step]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(json.dumps(values) + "\n" for values in kept), encoding="utf-8")
