"""`TrajectoryDataset`: labelled clips as tensors, for training and evaluation.

Opens the shards of a dataset's folder, each lazily and once per worker, and gives the clips of one split by video.
Knows the shards; knows nothing of models, losses or augmentation.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import Dataset

from flowlib.shards import SPLITS, Clip, LabelledClip, Shard, find_shards, load_splits
from flowlib.tracks import Tracks

Sample = dict[str, torch.Tensor | str]


class TrajectoryDataset(Dataset):
    """The labelled clips of one split.

    Each sample is a dict: `frames` uint8 [K H W 3], `tracks` float32 [S N 2] in pixels of these frames, `visibility`
    bool [S N], `queries` float32 [N 3] (t, x, y), and the strings `video` and `clip`. K = S where all frames are kept.

    Args:
        root: a dataset's folder, or a workspace that holds exactly one.
        split: "train", "val", "test" or "all"; whole videos, see `shards.load_splits`.
        transform: applied to each sample.

    Attributes:
        clips: the clips, in order.
        videos: the names of their videos, sorted.
        fingerprints: the SHA-256 of each of these videos.
        num_frames: S.
        size: (H, W) of the stored frames.
        fingerprint: of everything that is in the split; equal fingerprints, equal data.

    Raises:
        FileNotFoundError: no dataset or no shard there.
        ValueError: unknown split, a split without clips, or several datasets to choose from.

    A shard that is damaged is left out with a warning that names it.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, transform: Callable[[Sample], Sample] | None = None
    ) -> None:
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, all; got {split!r}")
        self.root, self.split, self.transform = find_dataset(root), split, transform
        found, bad = find_shards(self.root)
        for reason in bad:
            warnings.warn(f"left out: {reason}", stacklevel=2)
        everything = [(path, clip) for path, clips in found.items() for clip in clips]
        if not everything:
            raise FileNotFoundError(f"{self.root}: expected shards with labelled clips, found none; label some first")
        everything.sort(key=lambda entry: (entry[1].video, entry[1].first_frame, entry[1].key))
        splits = load_splits(self.root, sorted({clip.video for _, clip in everything}))
        chosen = [(path, clip) for path, clip in everything if split in (splits[clip.video], "all")]
        if not chosen:
            there = ", ".join(f"{name}: {assigned}" for name, assigned in splits.items())
            raise ValueError(f"split: {split!r} has no clips in {self.root} ({there})")
        self.entries: list[tuple[Path, Clip]] = chosen
        self._open: tuple[int, dict[Path, Shard]] = (os.getpid(), {})

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        one = self.read(index)
        sample: Sample = {
            "frames": torch.from_numpy(one.frames),
            "tracks": torch.from_numpy(one.tracks.tracks),
            "visibility": torch.from_numpy(one.tracks.visibility),
            "queries": torch.from_numpy(one.tracks.queries),
            "video": one.clip.video,
            "clip": one.clip.key,
        }
        return self.transform(sample) if self.transform else sample

    def read(self, index: int) -> LabelledClip:
        """A clip as NumPy arrays and `Tracks`, without the transform: for looking at and measuring."""
        path, clip = self.entries[index]
        return self._shard(path).read(clip)

    def tracks(self, index: int) -> Tracks:
        """A clip's tracks alone; no picture is decoded."""
        path, clip = self.entries[index]
        return self._shard(path).tracks(clip)

    @property
    def clips(self) -> list[Clip]:
        return [clip for _, clip in self.entries]

    @property
    def videos(self) -> list[str]:
        return sorted({clip.video for clip in self.clips})

    @property
    def fingerprints(self) -> list[str]:
        by_name = {clip.video: clip.fingerprint for clip in self.clips}
        return [by_name[name] for name in self.videos]

    @property
    def num_frames(self) -> int:
        return self.clips[0].num_frames

    @property
    def size(self) -> tuple[int, int]:
        config = self._shard(self.entries[0][0]).config
        return config["height"], config["width"]

    @property
    def fingerprint(self) -> str:
        shards = sorted({path for path, _ in self.entries})
        parts = [self._shard(path).file.attrs["content_sha256"] for path in shards] + [clip.key for clip in self.clips]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": (0, {})}  # open files don't travel to workers

    def _shard(self, path: Path) -> Shard:
        owner, shards = self._open
        if owner != os.getpid():  # a forked worker must not read through its parent's file handles
            owner, shards = self._open = (os.getpid(), {})
        if path not in shards:
            shards[path] = Shard(path)
        return shards[path]


def find_dataset(root: str | Path) -> Path:
    """The dataset's folder that `root` is, or the only one in the workspace that `root` is.

    Raises:
        FileNotFoundError: neither.
        ValueError: several datasets in that workspace.
    """
    root = Path(root).expanduser()
    if (root / "shards").is_dir():
        return root
    found = sorted(path.parent for path in (root / "datasets").glob("*/shards"))
    if not found:
        raise FileNotFoundError(f"root: expected a dataset's folder (with shards/ in it) or a workspace, got {root}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"root: expected one dataset in {root}, found {names}; name one of these folders")
    return found[0]


def open_splits(root: str | Path) -> dict[str, TrajectoryDataset]:
    """The splits of a dataset that have clips, by name; with few videos "val" or "test" may be missing.

    Raises:
        FileNotFoundError, ValueError: as `TrajectoryDataset`.
    """
    everything = TrajectoryDataset(root, split="all")
    splits = load_splits(everything.root, everything.videos)
    return {name: TrajectoryDataset(everything.root, split=name) for name in SPLITS if name in splits.values()}


def describe_splits(splits: dict[str, TrajectoryDataset]) -> str:
    """A line for each split: clips, videos and their names."""
    lines = [
        f"{name}: {len(split)} clips of {len(split.videos)} videos ({', '.join(split.videos[:8])}"
        f"{', …' if len(split.videos) > 8 else ''})"
        for name, split in splits.items()
    ]
    missing = [f"{name}: none; label more videos, or edit splits.json" for name in SPLITS if name not in splits]
    return "\n".join(lines + missing)
