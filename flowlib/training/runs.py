"""Run folders: where a run lives, its metrics as lines of JSON, its TensorBoard, and how long it still takes.

metrics.jsonl holds only what the data, config and seed decide, so that a resumed run's file equals an undisturbed
one's; seconds go to timings.jsonl.
"""

from __future__ import annotations

import json
import platform
import time
from datetime import datetime
from pathlib import Path

import torch
import torchvision

import flowlib
from flowlib.workspace import Workspace, atomic_write

FLUSH_SECONDS = 5.0


def run_folder(name: str, runs: Path | None = None) -> Path:
    """The newest run called `name`, or the folder of a new one, `<time>_<name>` (not made yet).

    >>> run_folder("demo", Path("/tmp/no-runs-here")).name.endswith("_demo")
    True
    """
    runs = Workspace().runs if runs is None else Path(runs)
    found = [folder for folder in runs.glob(f"*_{name}") if folder.name.partition("_")[2] == name]
    if found:
        return max(found)
    return runs / f"{datetime.now():%Y%m%d-%H%M%S}_{name}"


def versions() -> dict[str, str]:
    """What the numbers of a run depend on."""
    return {
        "flowlib": flowlib.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }


class MetricsLog:
    """Lines of JSON that are appended by opening, writing and closing, as mounted Drives want it.

    What is logged reaches the disk within seconds, and in any case before the checkpoint of its step (`flush`). Of
    several processes one writes; the others' logs are quiet.
    """

    def __init__(self, folder: Path, *, resume_at: int, quiet: bool = False) -> None:
        self.folder, self.quiet = folder, quiet
        self.waiting: dict[str, list[str]] = {"metrics.jsonl": [], "timings.jsonl": []}
        self.flushed = time.monotonic()
        if quiet:
            return
        for name in self.waiting:
            _cut_after(folder / name, resume_at)
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1)

    def write(self, values: dict, name: str = "metrics.jsonl") -> None:
        """Note the values of a step but those that are NaN; `values["step"]` counts finished optimiser steps."""
        if self.quiet:
            return
        values = {key: value for key, value in values.items() if value == value}  # JSON has no NaN
        self.waiting[name].append(json.dumps(values))
        for key, value in values.items():
            if key != "step" and isinstance(value, (int, float)):
                self.board.add_scalar(key, value, values["step"])
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring everything to the disk."""
        if self.quiet:
            return
        for name, lines in self.waiting.items():
            if lines:
                with open(self.folder / name, "a", encoding="utf-8") as file:
                    file.write("".join(line + "\n" for line in lines))
                lines.clear()
        self.board.flush()
        self.flushed = time.monotonic()

    def close(self) -> None:
        """Flush, and let go of the files."""
        self.flush()
        if not self.quiet:
            self.board.close()


def read_metrics(folder: str | Path, name: str = "metrics.jsonl") -> list[dict]:
    """The lines of a run's metrics, none before its first step; a last line cut short by a kill is left out."""
    path = Path(folder) / name
    if not path.exists():
        return []
    return [values for values in map(_parsed, path.read_text(encoding="utf-8").splitlines()) if values is not None]


def _parsed(line: str) -> dict | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _cut_after(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint of `step`; those steps are done again."""
    if path.exists():
        kept = [values for values in read_metrics(path.parent, path.name) if values["step"] <= step]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(json.dumps(values) + "\n" for values in kept), encoding="utf-8")
