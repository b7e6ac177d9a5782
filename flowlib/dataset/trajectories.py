"""`TrajectoryDataset`: read the labelled clips of one split, or of all; the few files it keeps open."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import Dataset
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from flowlib.clips import Clip, ClipSample
from flowlib.dataset.local import copy_shards, local_folder, on_drive, unpack_shards
from flowlib.dataset.mmap_reader import MmapReader
from flowlib.dataset.shard_reader import ShardReader
from flowlib.hdf5 import OpenFiles
from flowlib.quantities import counted
from flowlib.shards import find_shards
from flowlib.splits import CALIBRATION, PARTS, SPLITS, load_splits, name_videos
from flowlib.tracks import Tracks, check_min_confidence

Reader = TypeVar("Reader")


def _collate(batch: list[ClipSample], *, collate_fn_map: dict | None = None) -> dict:
    return {key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map) for key in batch[0]}


# As torch's default_collate is to be told; without it a mapping of another type than dict is put together twice.
default_collate_fn_map[ClipSample] = _collate


class TrajectoryDataset(Dataset):
    """The labelled clips of one split, at random access; memory does not grow with the samples read.

    Each sample is a `ClipSample`, which a `DataLoader` reads as a mapping: `frames` uint8 [K H W 3], `tracks` float32
    [S N 2] in pixels of these frames, `visibility` bool [S N], `queries` float32 [N 3] (t, x, y), and the strings
    `video` and `clip`. K = S where all frames are kept. The arrays are a sample's own, however it is read.

    Args:
        root: a dataset's folder, or a workspace that holds exactly one.
        split: "train", "val", "test", "calibration" or "all"; whole videos, see `splits.load_splits`.
        transform: applied to each sample.
        local_copy: read copies of the shards on the local disk; None: only if the dataset lies on a mounted Drive.
        unpacked: read unpacked, memory-mapped clips, the same bit for bit and many times as fast, for 0.7 MB a frame
            of 360×640. True: made once in `unpacked/` of the dataset, on the local disk if that lies on a Drive; a
            folder: made there.
        min_confidence: leave out sightings whose confidence is lower, see `ClipSample.trusted`; 0: keep all.
        progress: show a bar while copying or unpacking.

    Attributes:
        clips: the clips, in order.
        videos: the names of their videos, sorted; a video is its content, and has one name in a dataset.
        fingerprints: the SHA-256 of each of these videos.
        num_frames: S.
        size: (H, W) of the stored frames.
        fingerprint: of everything that is in the split; equal fingerprints, equal data.

    Raises:
        FileNotFoundError: no dataset or no shard there.
        ValueError: unknown split, a split without clips, or several datasets to choose from.
        OSError: `unpacked`, and the disk is too small or can't be written.
        ShardError: when unpacking or reading meets damage; the message names the file.

    A file that is no shard at all is skipped with a warning that names it.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        transform: Callable[[ClipSample], ClipSample] | None = None,
        local_copy: bool | None = None,
        unpacked: bool | str | Path = False,
        min_confidence: float = 0.0,
        progress: bool = True,
    ) -> None:
        _check_split(split)
        check_min_confidence(min_confidence)
        self.min_confidence = float(min_confidence)
        self.root, self.split, self.transform = find_dataset(root), "all", transform
        found, bad = find_shards(self.root)
        for reason in bad:
            warnings.warn(f"skipped: {reason}", stacklevel=2)
        everything = [(path, clip) for path, clips in found.items() for clip in clips]
        names = name_videos(self.root, ((clip.fingerprint, clip.video) for _, clip in everything))
        everything = [
            (path, clip if clip.video == (name := names[clip.fingerprint]) else replace(clip, video=name))
            for path, clip in everything
        ]
        if not everything:
            raise FileNotFoundError(f"{self.root}: expected shards with labelled clips, found none; label some first")
        self.entries: list[tuple[Path, Clip]] = sorted(
            everything, key=lambda entry: (entry[1].video, entry[1].first_frame, entry[1].key)
        )
        if split != "all":
            self._restrict(split)
        self._files, self._places = self._sources(list(found), local_copy, unpacked, progress)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> ClipSample:
        sample = self.read(index)
        return self.transform(sample) if self.transform else sample

    def read(self, index: int) -> ClipSample:
        """A clip without the transform."""
        path, clip = self.entries[index]
        return self._open(path).read(clip).trusted(self.min_confidence)

    def tracks(self, index: int) -> Tracks:
        """A clip's tracks alone; no picture is decoded."""
        path, clip = self.entries[index]
        return self._open(path).tracks(clip).trusted(self.min_confidence)

    def only(self, split: str) -> TrajectoryDataset:
        """One split of this dataset, which shares its files.

        Raises:
            ValueError: as the constructor.
        """
        _check_split(split)
        part = copy.copy(self)
        if split != "all":
            part._restrict(split)
        return part

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
        return self.entries[0][1].num_frames

    @property
    def size(self) -> tuple[int, int]:
        return self._open(self.entries[0][0]).size

    @property
    def fingerprint(self) -> str:
        shards = sorted({path for path, _ in self.entries})
        parts = [self._open(path).content_sha256 for path in shards] + [clip.key for clip in self.clips]
        parts += [f"min_confidence {self.min_confidence}"] if self.min_confidence else []
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _open(self, shard: Path) -> ShardReader | MmapReader:
        return self._files[self._places[shard]]

    def _restrict(self, split: str) -> None:
        """Leave the clips of one split."""
        splits = load_splits(self.root, self.videos)
        chosen = [(path, clip) for path, clip in self.entries if splits[clip.video] == split]
        if not chosen:
            there = ", ".join(f"{name}: {assigned}" for name, assigned in splits.items())
            remedy = "edit splits.json, or choose another split"
            if split == CALIBRATION:
                remedy = "keep some with `splits.reserve_calibration`, before anything is trained"
            elif len(splits) < len(SPLITS):
                remedy = "with so few videos some split must be empty: label more of them, or choose another split"
                remedy += " (evaluating on videos that were trained on takes allow_leak, and says nothing of others)"
            raise ValueError(f"split: {split!r} has no clips in {self.root} ({there}); {remedy}")
        self.split, self.entries = split, chosen

    def _sources(
        self, shards: list[Path], local_copy: bool | None, unpacked: bool | str | Path, progress: bool
    ) -> tuple[OpenFiles, dict[Path, Path]]:
        """How to open a file, and which file to open for each shard."""
        mine, remote = sorted({path for path, _ in self.entries}), on_drive(self.root)
        if unpacked:
            elsewhere = "" if unpacked is True else unpacked
            folder = local_folder(self.root, elsewhere) if elsewhere or remote else self.root
            return OpenFiles(MmapReader), unpack_shards(mine, folder / "unpacked", others=shards, progress=progress)
        if remote if local_copy is None else local_copy:
            return OpenFiles(ShardReader), copy_shards(shards, local_folder(self.root) / "shards", progress=progress)
        return OpenFiles(ShardReader), {path: path for path in mine}


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
    if not found and root.parent.name == "datasets":  # of a workspace
        there = ", ".join(sorted(path.parent.name for path in root.parent.glob("*/shards"))) or "none"
        raise FileNotFoundError(
            f"dataset: expected one that is labelled in {root.parent} ({there}), got {root.name!r}: run "
            f"02_pips_dataset first, or `flowlib label sample --dataset {root.name}` for the two clips that come with "
            "flowlib"
        )
    if not found:
        raise FileNotFoundError(f"root: expected a dataset's folder (with shards/ in it) or a workspace, got {root}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"root: expected one dataset in {root}, found {names}; name one of these folders")
    return found[0]


def open_splits(
    root: str | Path,
    *,
    local_copy: bool | None = None,
    unpacked: bool | str | Path = False,
    min_confidence: float = 0.0,
) -> dict[str, TrajectoryDataset]:
    """The splits of a dataset that have clips, by name; with few videos "val" or "test" may be missing, and
    "calibration" is there where videos were kept for it.

    Args:
        root, local_copy, unpacked, min_confidence: as for `TrajectoryDataset`.

    Raises:
        FileNotFoundError, ValueError, OSError: as `TrajectoryDataset`.
    """
    options: dict[str, Any] = {"local_copy": local_copy, "unpacked": unpacked, "min_confidence": min_confidence}
    everything = TrajectoryDataset(root, split="all", **options)
    splits = load_splits(everything.root, everything.videos)
    return {name: everything.only(name) for name in PARTS if name in splits.values()}


def describe_splits(splits: dict[str, TrajectoryDataset]) -> str:
    """A line for each split: clips, videos and their names."""
    lines = [
        f"{name}: {counted(len(split), 'clip')} of {counted(len(split.videos), 'video')} ({', '.join(split.videos[:8])}"
        f"{', …' if len(split.videos) > 8 else ''})"
        for name, split in splits.items()
    ]
    missing = [f"{name}: none; label more videos, or edit splits.json" for name in SPLITS if name not in splits]
    return "\n".join(lines + missing)


def _check_split(split: str) -> None:
    if split not in (*PARTS, "all"):
        raise ValueError(f"split: expected one of {', '.join(PARTS)}, all; got {split!r}")
