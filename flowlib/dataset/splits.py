"""All splits of a dataset at once, and what is in them."""

from __future__ import annotations

from pathlib import Path

from flowlib.dataset.trajectories import TrajectoryDataset
from flowlib.splits import SPLITS, load_splits


def open_splits(
    root: str | Path, *, local_copy: bool | None = None, unpacked: bool | str | Path = False
) -> dict[str, TrajectoryDataset]:
    """The splits of a dataset that have clips, by name; with few videos "val" or "test" may be missing.

    Args:
        root, local_copy, unpacked: as for `TrajectoryDataset`.

    Raises:
        FileNotFoundError, ValueError, OSError: as `TrajectoryDataset`.
    """
    everything = TrajectoryDataset(root, split="all", local_copy=local_copy, unpacked=unpacked)
    splits = load_splits(everything.root, everything.videos)
    return {name: everything.only(name) for name in SPLITS if name in splits.values()}


def describe_splits(splits: dict[str, TrajectoryDataset]) -> str:
    """A line for each split: clips, videos and their names."""
    lines = [
        f"{name}: {len(split)} clips of {len(split.videos)} videos ({', '.join(split.videos[:8])}"
        f"{', …' if len(split.videos) > 8 else ''})"
        for name, split in splits.items()
    ]
    missing = [f"{name}: none; label more videos, or edit splits.json" for name in SPLITS if name not in splits]
    return "\n".join(lines + missing)
