"""Assign videos to training, validation and test. Whole videos, so that none is learned and tested.

Knows names of videos and one JSON file, `splits.json` in a dataset's folder, which a person may edit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from flowlib.workspace import write_json

SPLITS = ("train", "val", "test")


def assign_splits(videos: Sequence[str], *, seed: int = 0, known: dict[str, str] | None = None) -> dict[str, str]:
    """Assign whole videos to "train", "val" and "test": about 80, 10 and 10 %, so no video is learned and tested.

    Decided by the names and the seed alone. One video is all for training; of two the second is for testing; from
    three on each split has one at least. Videos in `known` stay where they are, later ones fill what is short.

    >>> sorted(assign_splits(["a", "b", "c"]).values())
    ['test', 'train', 'val']
    """
    splits = dict(known or {})
    new = sorted(set(videos) - set(splits), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    for name in new:
        counts = {split: list(splits.values()).count(split) for split in SPLITS}
        splits[name] = _shortest_split(counts, total=len(splits) + len(new) - new.index(name))
    return {name: splits[name] for name in sorted(splits)}


def _shortest_split(counts: dict[str, int], total: int) -> str:
    """The split to fill next, so that `total` videos end as one for training first, then test, then validation."""
    if counts["train"] == 0:
        return "train"
    if counts["test"] < max(1, round(0.1 * total)):
        return "test"
    if counts["val"] < max(1, round(0.1 * total)):
        return "val"
    return "train"


def load_splits(folder: str | Path, videos: Sequence[str]) -> dict[str, str]:
    """Which split each of `videos` is in, by `splits.json` in the dataset's folder; a person may edit that file.

    Videos that it doesn't name, or all if there is no file, are assigned by `assign_splits`.

    Raises:
        ValueError: the file is no JSON object of names and "train", "val" or "test".
    """
    splits = assign_splits(videos, known=_read_splits(folder))
    return {name: splits[name] for name in videos}


def save_splits(folder: str | Path, videos: Sequence[str], *, seed: int = 0) -> dict[str, str]:
    """Write `splits.json` for `videos`; what the file says already stays."""
    known = _read_splits(folder)
    splits = assign_splits(videos, seed=seed, known=known)
    if splits != known:
        write_json(Path(folder) / "splits.json", splits)
    return splits


def _read_splits(folder: str | Path) -> dict[str, str]:
    path = Path(folder) / "splits.json"
    if not path.exists():
        return {}
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, {error}") from error
    if not isinstance(splits, dict) or not set(splits.values()) <= set(SPLITS):
        raise ValueError(f"{path}: expected an object of video names and one of {', '.join(SPLITS)} for each")
    return splits
