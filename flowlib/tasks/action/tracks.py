"""Videos as sequences of vectors: a folder of videos for each class, told by the tracks of a grid of points.

    <folder>/<class>/<video>      any file, folder of pictures or .zip that `flowlib.video` reads

`track_videos` follows the points, once for each content and setting, and keeps the tracks; `TrackSequences` is one
split of them, as `ActionTask` takes it. A video that can't be read is listed and skipped. Knows no network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from flowlib.clips import Clip
from flowlib.geometry import FIT_RULES, FitRule, Size, cell_grid, check_size, fit_frame
from flowlib.models.features import from_tracks
from flowlib.quantities import counted
from flowlib.splits import SPLITS, save_splits
from flowlib.trackers import NeedsClip, Tracker, make_tracker
from flowlib.tracks import Tracks, read_tracks, write_tracks
from flowlib.video import Skipped, VideoError, find_all, fingerprint, iterate_frames, probe, resize_frame
from flowlib.video.images import is_hidden
from flowlib.video.reading import printable

POOLING = ("rows", "columns")  # settings that no track depends on
NAMES_OF_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class TrackConfig:
    """How videos become sequences.

    Raises:
        ValueError: a field out of its range; the message names it.
    """

    tracker: str = "lucas_kanade"  # one of trackers.NAMES; exact for rendered videos
    weights: str = ""  # of the tracker: "" for the published ones, else a path, URL or gdown id
    height: int = 96  # of the frames that are tracked, pixels
    width: int = 128
    fit: FitRule = "crop"  # how frames come to that size: crop, pad or stretch
    grid: int = 16  # points a side: grid × grid, spread evenly over the first frame
    frame_step: int = 1  # frames of the video from one frame of the sequence to the next
    max_frames: int = 64  # of a sequence; what comes later in a video is not looked at
    rows: int = 4  # cells that the points are pooled in, see `features.from_tracks`; 0: told point by point
    columns: int = 4

    def __post_init__(self) -> None:
        check_size(self.size, "height and width")
        for name, least in (("grid", 1), ("frame_step", 1), ("max_frames", 2), ("rows", 0), ("columns", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
        if (self.rows == 0) != (self.columns == 0):
            raise ValueError(f"rows, columns: expected both or none to be 0, got {self.rows} and {self.columns}")
        if self.fit not in FIT_RULES:
            raise ValueError(f"fit: expected one of {', '.join(FIT_RULES)}, got {self.fit!r}")

    @property
    def size(self) -> Size:
        return self.height, self.width

    @property
    def queries(self) -> np.ndarray:
        """The points that are followed: float32 [N 3] (t, x, y), all of the first frame."""
        return np.insert(cell_grid(self.size, self.grid), 0, 0, axis=1)

    def vectors(self, tracks: Tracks) -> np.ndarray:
        """[S D] of a video's tracks."""
        return from_tracks(tracks, self.size, cells=(self.rows, self.columns) if self.rows else None)


@dataclass(frozen=True, eq=False)
class TrackedVideo:
    """A video and where its points go.

    Attributes:
        key: its name, that of its class first.
        action: the class, by number.
        fingerprint: SHA-256 of its content.
        tracks: over its frames, in pixels of the size they were tracked at.
        split: "train", "val" or "test".
    """

    key: str
    action: int
    fingerprint: str
    tracks: Tracks
    split: str


@dataclass(frozen=True, eq=False)
class TrackedVideos:
    """The videos of all classes.

    Attributes:
        config: how they became sequences.
        tracker: what the tracker says of itself.
        actions: names of the classes, in the order given or sorted.
        videos: those that could be tracked, by class and name.
        skipped: the others, with a reason each; so, too, folders without a video, which are no classes.
    """

    config: TrackConfig
    tracker: dict[str, Any]
    actions: tuple[str, ...]
    videos: tuple[TrackedVideo, ...]
    skipped: tuple[Skipped, ...]

    def describe(self) -> str:
        """A line for each class and for each video that is skipped, and the total."""
        lines = []
        for number, action in enumerate(self.actions):
            own = [video for video in self.videos if video.action == number]
            parts = ", ".join(f"{sum(video.split == split for video in own)} {split}" for split in SPLITS)
            lines.append(f"{action}: {counted(len(own), 'video')} ({parts})")
        lines += [f"skipped: {one.name}: {one.reason}" for one in self.skipped]
        count = sum(one.is_video for one in self.skipped)
        return "\n".join([*lines, f"{counted(len(self.videos), 'video')}, {count} skipped"])


def track_videos(
    folder: str | Path,
    store: str | Path,
    config: TrackConfig | None = None,
    *,
    actions: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[Iterable], Iterable] | None = None,
) -> TrackedVideos:
    """Follow points through the videos of a folder's classes; killed and run again, it goes on where it was.

    Args:
        folder: has a folder of videos for each class.
        store: where tracks are kept, by content and settings, and the splits of each class, in
            `<store>/<class>/splits.json`, which a person may edit. Whole videos are split, in each class by itself, by
            their names: videos that are called alike in every class, such as takes of one scene, come into one split.
        config: how videos become sequences.
        actions: names of the classes in an order of one's own, such as opposites side by side; () sorts them.
        seed: of the splits.
        device: for the tracker.
        progress: wraps the list of videos, for example `Progress`.

    Raises:
        FileNotFoundError: no videos there.
        ValueError: fewer than two classes, folders that are named after splits, `actions` that are others than the
            folders, or a class none of whose videos can be read.
    """
    folder, store, config = Path(os.path.expanduser(folder)), Path(os.path.expanduser(store)), config or TrackConfig()
    classes, skipped = _find_classes(folder)
    names = tuple(actions) or tuple(sorted(classes))
    if len(classes) < 2:
        got = ", ".join(classes) or "videos without folders"
        raise ValueError(f"{folder}: expected a folder of videos for each of two or more classes, got {got}")
    if {name.casefold() for name in classes} <= NAMES_OF_SPLITS:
        got = f"{', '.join(sorted(classes))}, which are names of splits"
        raise ValueError(f"{folder}: expected a folder of videos for each class, for each is split here, got {got}")
    if sorted(names) != sorted(classes):
        raise ValueError(f"actions: expected the folders in {folder} ({', '.join(sorted(classes))}), got {list(names)}")
    tracker = make_tracker(config.tracker, weights=config.weights, device=device)
    jobs = [(action, short, path) for action in names for short, path in classes[action].items()]
    tracked: dict[str, dict[str, tuple[str, Tracks]]] = {action: {} for action in names}
    known: dict[str, str] = {}
    for action, short, path in progress(jobs) if progress else jobs:
        try:
            content = fingerprint(path)
            if content in known:
                raise VideoError(f"{path}: the same content as {known[content]}, which is used")
            tracked[action][short] = content, _tracks(path, content, store / "tracks", tracker, config)
            known[content] = f"{action}/{short}"
        except (VideoError, FileNotFoundError) as error:  # the latter: of the scene that "exact" asks for
            skipped.append(Skipped(f"{action}/{short}", str(error)))
    videos = []
    for number, action in enumerate(names):
        if not tracked[action]:
            why = "; ".join([one.reason for one in skipped if one.name.startswith(f"{action}/")][:3])
            raise ValueError(f"{folder / action}: expected a video that can be read, got none ({why})")
        splits = save_splits(store / action, list(tracked[action]), seed=seed)
        for short, (content, tracks) in tracked[action].items():
            videos.append(TrackedVideo(f"{action}/{short}", number, content, tracks, splits[short]))
    return TrackedVideos(config, tracker.describe(), names, tuple(videos), tuple(skipped))


def _find_classes(folder: Path) -> tuple[dict[str, dict[str, Path]], list[Skipped]]:
    """The videos of each class by name, and what is left out."""
    found, others = find_all(folder)
    skipped, classes = [one for one in others if one.is_video], defaultdict(dict)
    for name, path in found.items():
        action, _, short = name.partition("/")
        if short:
            classes[action][short] = path
        else:
            skipped.append(Skipped(name, "lies in no class's folder"))
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = printable(Path(path.name))
        if path.is_dir() and not is_hidden(path.name) and name not in classes and name not in found:
            inside = [one.reason for one in others if one.name.startswith(f"{name}/")][:1]
            skipped.append(Skipped(name, ": ".join(["has no video, so it is no class", *inside]), is_video=False))
    return dict(classes), skipped


def _tracks(path: Path, content: str, folder: Path, tracker: Tracker, config: TrackConfig) -> Tracks:
    """A video's tracks, from the file of its content and these settings, or made, and kept there."""
    settings = {name: value for name, value in asdict(config).items() if name not in (*POOLING, "weights")}
    about = json.dumps([content, settings, tracker.describe()], sort_keys=True)
    kept = folder / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.npz"
    try:
        return read_tracks(kept)
    except (FileNotFoundError, ValueError):  # not made yet, or damaged
        return read_tracks(write_tracks(_track(path, tracker, config), kept))


def _track(path: Path, tracker: Tracker, config: TrackConfig) -> Tracks:
    video = probe(path)
    first, stop = max(video.even_runs, key=lambda run: run[1] - run[0])
    stop = min(stop, first + (config.max_frames - 1) * config.frame_step + 1)
    read = iterate_frames(video, first, stop, config.frame_step)
    frames = [resize_frame(frame, config.size, config.fit) for frame in read]
    if len(frames) < 2:
        raise VideoError(f"{path}: expected two or more frames at steps of {config.frame_step}, got {len(frames)}")
    if isinstance(tracker, NeedsClip):
        fit = fit_frame(video.size, config.size, config.fit)
        tracker = tracker.for_clip(Clip.of(video, first, config.frame_step, len(frames)), path, fit)
    return tracker(np.stack(frames), config.queries)


class TrackSequences(Dataset):
    """The videos of one split as sequences of vectors, each a sample:

        vectors   float32 [S D], see `features.from_tracks`
        action    int: the class;  key  str: of the video, unique;  subject  str: the same

    Args:
        tracked: videos of all splits.
        split: "train", "val", "test" or "all".

    Attributes:
        actions: names of the classes.
        inputs: D.
        videos, fingerprints: their names, and the SHA-256 of their content.
        fingerprint: SHA-256 of everything that decides the samples; equal fingerprints, equal samples.

    Raises:
        ValueError: no such split, or none of the videos is in it.
    """

    def __init__(self, tracked: TrackedVideos, split: str = "train") -> None:
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, all, got {split!r}")
        self.tracked, self.split, self.actions = tracked, split, tracked.actions
        self._videos = [video for video in tracked.videos if split in ("all", video.split)]
        if not self._videos:
            hint = "three videos of a class give each split one"
            raise ValueError(f"split: {split!r} has none of the {counted(len(tracked.videos), 'video')}; {hint}")
        self._vectors = [torch.from_numpy(tracked.config.vectors(video.tracks)) for video in self._videos]

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        video = self._videos[index]
        about = {"action": video.action, "key": video.key, "subject": video.key}
        return {"vectors": self._vectors[index], **about}

    def tracks(self, index: int) -> Tracks:
        """The tracks of a sample."""
        return self._videos[index].tracks

    @property
    def inputs(self) -> int:
        return self._vectors[0].shape[1]

    @property
    def videos(self) -> list[str]:
        return [video.key for video in self._videos]

    @property
    def fingerprints(self) -> list[str]:
        return [video.fingerprint for video in self._videos]

    @property
    def poses_from(self) -> str:
        """Where the vectors come from, for reports."""
        grid = self.tracked.config.grid
        return f"tracks of {grid}×{grid} points by {self.tracked.tracker['name']}"

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([type(self).__name__, list(self.actions), self.videos]).encode())
        for video, vectors in zip(self._videos, self._vectors):
            digest.update(f"{video.action} {video.fingerprint} {list(vectors.shape)}".encode())
            digest.update(np.ascontiguousarray(vectors.numpy()).data)
        return digest.hexdigest()
