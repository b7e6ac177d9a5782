"""From videos to shards: a plan of clips, worked off in chunks by a tracker, resumable at any clip.

The plan is decided by the videos and the config alone, so any machine can do any chunk and all agree on the whole.
A finished clip is at once a small closed shard of its own in the workspace's scratch folder; the pieces of a chunk are
merged, copied to the dataset's folder and compared. Killed at any moment, the next run finds all pieces but the one at
work. Knows nothing of torch, models or splits beyond writing them down.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from flowlib.geometry import FIT_RULES, FitRule, cell_grid, check_size, fit_frame
from flowlib.progress import Progress
from flowlib.shards import (
    Clip,
    LabelledClip,
    Shard,
    ShardError,
    find_shards,
    merge_shards,
    save_splits,
    write_shard,
)
from flowlib.sources import read_scene
from flowlib.synthetic import SceneTracker
from flowlib.trackers import NAMES, Tracker, make_tracker
from flowlib.video import Skipped, Video, VideoError, iterate_frames, probe_all, resize_frame
from flowlib.workspace import Workspace, publish, write_json

SHARD_BYTES = 500_000_000
SESSION_HOURS = 12


@dataclass(frozen=True)
class LabelConfig:
    """What a dataset is made of. Runs whose configs agree in `content()` make parts of the same dataset."""

    frames: int = 8  # S, frames of a clip
    frame_step: int = 1  # frames of the video from one frame of a clip to the next
    clip_step: int = 0  # frames of the video from one clip's beginning to the next; 0: clips follow on one another
    grid: int = 64  # points a side: grid × grid points a clip, spread evenly over frame 0
    height: int = 360  # of the working size, pixels
    width: int = 640
    fit: FitRule = "crop"  # how frames come to the working size: crop, pad or stretch
    tracker: str = "lucas_kanade"  # lucas_kanade, raft, pips; exact for synthetic videos
    weights: str = ""  # of the tracker: "" for the published ones, else a path, URL or gdown id
    encoding: str = "jpeg"  # of the stored frames: jpeg (quality 95) or webp (lossless)
    max_clips: int = 0  # clips a video at most, spread evenly over it; 0: all
    seed: int = 0  # decides which videos are for training, validation and test

    def __post_init__(self) -> None:
        check_size((self.height, self.width), "height and width")
        _check_at_least("frames", self.frames, 2)
        _check_at_least("frame_step", self.frame_step, 1)
        _check_at_least("clip_step", self.clip_step, 0)
        _check_at_least("grid", self.grid, 1)
        _check_at_least("max_clips", self.max_clips, 0)
        for name, value, known in (
            ("fit", self.fit, FIT_RULES),
            ("tracker", self.tracker, (*NAMES, "exact")),
            ("encoding", self.encoding, ("jpeg", "webp")),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def span(self) -> int:
        """How many frames of a video a clip reaches over."""
        return (self.frames - 1) * self.frame_step + 1

    def content(self) -> dict:
        """The settings that decide what a labelled clip looks like; the others decide which clips there are.

        Weights are left to the tracker's description, which has their SHA-256: a path may differ by machine.
        """
        chosen = {"clip_step", "max_clips", "seed", "weights"}
        return {name: value for name, value in asdict(self).items() if name not in chosen}

    def queries(self) -> np.ndarray:
        """The points that are followed: float32 [grid² 3], t = 0."""
        points = cell_grid(self.size, self.grid)
        return np.concatenate([np.zeros((len(points), 1), np.float32), points], axis=1)


@dataclass(frozen=True)
class Plan:
    """All clips of a source, in order, and the videos that are left out.

    Attributes:
        config: what was asked for.
        videos: the videos that give clips, by name.
        clips: in the order of their videos' names, then of their frames.
        skipped: videos that are broken, too short or there twice, with a reason each.
    """

    config: LabelConfig
    videos: dict[str, Video]
    clips: list[Clip]
    skipped: list[Skipped]

    def chunk(self, chunk: int, num_chunks: int) -> list[Clip]:
        """The clips of chunk 0 ≤ `chunk` < `num_chunks`: contiguous, equal in number to within one."""
        check_chunk(chunk, num_chunks)
        total = len(self.clips)
        return self.clips[total * chunk // num_chunks : total * (chunk + 1) // num_chunks]

    def __str__(self) -> str:
        points = self.config.grid**2
        lines = [
            f"{len(self.videos)} videos, {len(self.clips)} clips of {self.config.frames} frames, "
            f"{points} points each: {len(self.clips) * points:,} trajectories"
        ]
        lines += [f"left out: {one.name}: {one.reason}" for one in self.skipped]
        return "\n".join(lines)


def make_plan(source: str | Path, config: LabelConfig, *, progress: bool = False) -> Plan:
    """Decode every video below `source` once and decide the clips.

    Raises:
        FileNotFoundError: nothing at `source`, or no video in it.
        ValueError: there are videos, but not one that gives a clip; every reason is in the message.
    """
    good, skipped = probe_all(source, partial(Progress, title="reading videos", unit="video", disable=not progress))
    videos, seen = {}, {}
    for video in good:
        reason = ""
        if video.num_frames < config.span:
            reason = f"{video.path}: has {video.num_frames} frames, a clip needs {config.span}"
        elif video.fingerprint in seen:
            reason = f"{video.path}: has the same content as {seen[video.fingerprint]}"
        if reason:
            skipped.append(Skipped(video.name, reason))
        else:
            videos[video.name], seen[video.fingerprint] = video, video.path
    if not videos:
        reasons = "; ".join(one.reason for one in skipped)
        raise ValueError(
            f"source: expected at least one video of {config.span} frames in {source}, got none ({reasons})"
        )
    clips = [clip for video in videos.values() for clip in _clips_of(video, config)]
    return Plan(config, videos, clips, skipped)


@dataclass
class LabelReport:
    """What a run of `label` found, did and left out.

    Attributes:
        folder: the dataset's folder.
        planned: clips of this chunk.
        found: clips of them that were there already.
        labelled: clips labelled now.
        skipped: videos and clips left out, with a reason each.
        damaged: shards that could not be read; they were set aside and their clips done again.
        seconds: spent on "decoding", "tracking" and "writing".
    """

    folder: Path
    planned: int
    found: int = 0
    labelled: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("decoding", "tracking", "writing"), 0.0))

    def __str__(self) -> str:
        total = sum(self.seconds.values()) or 1.0
        shares = ", ".join(f"{name} {100 * spent / total:.0f} %" for name, spent in self.seconds.items())
        lines = [
            f"{self.folder}: {self.planned} clips in this chunk, {self.found} were there, {self.labelled} labelled now"
        ]
        lines += [f"{total / self.labelled:.2f} s a clip: {shares}"] if self.labelled else []
        lines += [f"left out: {one.name}: {one.reason}" for one in self.skipped]
        return "\n".join(lines + [f"set aside: {reason}" for reason in self.damaged])


def label(
    plan: Plan,
    workspace: Workspace,
    *,
    dataset: str = "default",
    chunk: int = 0,
    num_chunks: int = 1,
    device: str = "auto",
    tracker: Tracker | None = None,
    strict: bool = False,
    progress: bool = True,
) -> LabelReport:
    """Label one chunk of a plan into the dataset's folder; what is done already is not done again.

    Args:
        plan: from `make_plan`.
        workspace: where the dataset's folder `datasets/<dataset>` is or will be.
        dataset: name of the dataset; one config each.
        chunk, num_chunks: which part of the plan, see `Plan.chunk`.
        device: for the tracker: "auto", "cpu", "cuda", "cuda:1".
        tracker: used instead of the one the config names.
        strict: raise when a video or clip had to be left out, after the others are done.
        progress: show a bar with the time left.

    Raises:
        ValueError: bad chunk, or a dataset of that name was made with another config.
        OSError: the workspace can't be written.
        RuntimeError: with `strict`, something was left out.
    """
    clips = plan.chunk(chunk, num_chunks)
    folder = workspace.writable().dataset(dataset)
    tracker = tracker or (None if plan.config.tracker == "exact" else _tracker_of(plan.config, device))
    about = tracker.describe() if tracker else {"name": "exact", "weights_sha256": ""}
    _claim(folder, plan, about)
    report = LabelReport(folder, len(clips), skipped=list(plan.skipped), damaged=set_aside_damaged(folder))
    present = {clip.key for found in find_shards(folder)[0].values() for clip in found}
    todo = [clip for clip in clips if clip.key not in present]
    report.found = len(clips) - len(todo)
    pieces = _Pieces(
        workspace.scratch / dataset, folder / "shards", {"tracker": about, "config": plan.config.content()}
    )
    safe = _label_clips(plan, todo, tracker, pieces, report)
    for _ in Progress(safe, "labelling", len(todo), unit="clip", disable=not progress):
        report.labelled += 1
    with _timed(report, "writing"):
        pieces.merge()
    if strict and report.skipped:
        raise RuntimeError(f"strict: {len(report.skipped)} were left out\n{report}")
    return report


def estimate(plan: Plan, *, device: str = "auto", clips: int = 2, found: int = 0) -> str:
    """Label a few clips of the plan for timing, keep nothing, and say what the whole job will take.

    Args:
        plan: from `make_plan`.
        device: for the tracker.
        clips: how many to time, after one to warm up.
        found: clips that are done already.
    """
    sample = [plan.clips[i * len(plan.clips) // (clips + 1)] for i in range(clips + 1)]
    tracker = None if plan.config.tracker == "exact" else _tracker_of(plan.config, device)
    report = LabelReport(Path(), 0)
    for number, (clip, frames) in enumerate(_decoded(plan, sorted(set(sample), key=sample.index), report)):
        with _timed(report, "tracking"):
            _track(plan, clip, frames, tracker)
        if number == 0 and len(plan.clips) > 1:
            report.seconds = dict.fromkeys(report.seconds, 0.0)
    seconds = sum(report.seconds.values()) / max(1, len(set(sample)) - 1)
    hours = (len(plan.clips) - found) * seconds / 3600
    sessions = max(1, int(np.ceil(hours / SESSION_HOURS)))
    share = 100 * report.seconds["tracking"] / max(1e-9, sum(report.seconds.values()))
    return (
        f"{seconds:.2f} s a clip with {plan.config.tracker} ({share:.0f} % tracking); {len(plan.clips) - found} clips: "
        f"{hours:.2f} h, {sessions} session{'s' if sessions > 1 else ''} of {SESSION_HOURS} h"
    )


def check_chunk(chunk: int, num_chunks: int) -> None:
    """Raise `ValueError` unless 0 ≤ `chunk` < `num_chunks`."""
    _check_at_least("num_chunks", num_chunks, 1)
    if not 0 <= chunk < num_chunks:
        raise ValueError(f"chunk: expected 0 to {num_chunks - 1} (num_chunks is {num_chunks}), got {chunk}")


def set_aside_damaged(folder: Path) -> list[str]:
    """Rename shards that can't be opened to `*.damaged`, so that their clips count as missing; a sentence for each."""
    _, bad = find_shards(folder)
    for path in sorted((folder / "shards").glob("[!.]*.h5")) if bad else []:
        try:
            Shard(path).close()
        except ShardError:
            path.rename(path.with_suffix(".h5.damaged"))
    return bad


class _Pieces:
    """One-clip shards in the scratch folder, on their way to becoming shards of the dataset."""

    def __init__(self, scratch: Path, shards: Path, settings: dict) -> None:
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.folder, self.shards, self.settings = scratch / key, shards, settings
        self.paths: list[Path] = []
        self.bytes = 0

    def has(self, clip: Clip) -> bool:
        """Whether an earlier run left this clip's piece; one that can't be read is removed."""
        path = self._path(clip)
        try:
            Shard(path).close()
        except FileNotFoundError:
            return False
        except ShardError:
            path.unlink()
            return False
        return True

    def write(self, sample: LabelledClip) -> None:
        encoding = self.settings["config"]["encoding"]
        write_shard(self._path(sample.clip), [sample], encoding=encoding, **self.settings)

    def add(self, clip: Clip) -> None:
        """Count a written piece in; a full shard is merged at once."""
        self.paths.append(self._path(clip))
        self.bytes += self.paths[-1].stat().st_size
        if self.bytes >= SHARD_BYTES:
            self.merge()

    def merge(self) -> None:
        """Make one shard of the pieces, put it into the dataset, compare it, and only then remove the pieces."""
        if not self.paths:
            return
        name = hashlib.sha256(" ".join(path.name for path in self.paths).encode()).hexdigest()[:16]
        merged = merge_shards(self.paths, self.folder / f"{name}.h5")
        publish(merged, self.shards / f"{name}.h5")
        for path in (merged, *self.paths):
            path.unlink(missing_ok=True)
        self.paths, self.bytes = [], 0

    def _path(self, clip: Clip) -> Path:
        return self.folder / f"{clip.key}.h5"


def _label_clips(
    plan: Plan, clips: list[Clip], tracker: Tracker | None, pieces: _Pieces, report: LabelReport
) -> Iterator[Clip]:
    """Label and write clip by clip; yields each once it is safe."""
    missing = []
    for clip in clips:
        if pieces.has(clip):
            pieces.add(clip)
            yield clip
        else:
            missing.append(clip)
    for clip, frames in _decoded(plan, missing, report):
        with _timed(report, "tracking"):
            tracks = _track(plan, clip, frames, tracker)
        with _timed(report, "writing"):
            pieces.write(LabelledClip(clip, frames, tracks))
            pieces.add(clip)
        yield clip


def _decoded(plan: Plan, clips: list[Clip], report: LabelReport) -> Iterator[tuple[Clip, np.ndarray]]:
    """Each clip with its frames [S H W 3] at the working size; every video is decoded once for all its clips."""
    for name, group in groupby(sorted(clips, key=lambda clip: (clip.video, clip.first_frame)), lambda clip: clip.video):
        waiting = list(group)
        try:
            yield from _decoded_video(plan, plan.videos[name], waiting, report)
        except VideoError as error:  # it was whole when the plan was made
            report.skipped.append(Skipped(name, f"{error}; {len(waiting)} of its clips are missing"))


def _decoded_video(
    plan: Plan, video: Video, waiting: list[Clip], report: LabelReport
) -> Iterator[tuple[Clip, np.ndarray]]:
    """The clips of one video; those that are done leave `waiting`, so that an error can count the rest."""
    last = max(clip.frame_numbers[-1] for clip in waiting)
    wanted = {number for clip in waiting for number in clip.frame_numbers}
    frames: dict[int, np.ndarray] = {}
    decoded = enumerate(iterate_frames(video, waiting[0].first_frame, last + 1), waiting[0].first_frame)
    while waiting:
        with _timed(report, "decoding"):
            number, frame = next(decoded, (None, None))
            if frame is None:
                raise VideoError(f"{video.path}: ended before frame {last}, it had {video.num_frames} frames")
            if number in wanted:
                frames[number] = resize_frame(frame, plan.config.size, plan.config.fit)
        while waiting and waiting[0].frame_numbers[-1] <= number:
            clip = waiting.pop(0)
            yield clip, np.stack([frames[i] for i in clip.frame_numbers])
            frames = {i: kept for i, kept in frames.items() if waiting and i >= waiting[0].first_frame}


def _track(plan: Plan, clip: Clip, frames: np.ndarray, tracker: Tracker | None):
    if tracker is None:
        fit = fit_frame(clip.source_size, plan.config.size, plan.config.fit)
        scene = read_scene(plan.videos[clip.video].path)
        tracker = SceneTracker(scene, first_frame=clip.first_frame, frame_step=clip.frame_step, fit=fit)
    return tracker(frames, plan.config.queries())


def _tracker_of(config: LabelConfig, device: str) -> Tracker:
    return make_tracker(config.tracker, weights=config.weights, device=device)


def _clips_of(video: Video, config: LabelConfig) -> list[Clip]:
    step = config.clip_step or config.span
    starts = list(range(0, video.num_frames - config.span + 1, step))
    if config.max_clips and len(starts) > config.max_clips:
        starts = [starts[round(i * (len(starts) - 1) / max(1, config.max_clips - 1))] for i in range(config.max_clips)]
    return [Clip.of(video, start, config.frame_step, config.frames) for start in starts]


def _claim(folder: Path, plan: Plan, tracker: dict) -> None:
    """Write the dataset's config.json, or see that the one there says the same; and assign the videos to splits."""
    path = folder / "config.json"
    wanted = {**plan.config.content(), "tracker": tracker}
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else write_json(path, wanted) and wanted
    other = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    if other:
        changes = ", ".join(f"{name}: {there.get(name)!r} there, {wanted.get(name)!r} now" for name in other)
        raise ValueError(f"dataset: {folder} was made with other settings ({changes}); choose another name for these")
    save_splits(folder, list(plan.videos), seed=plan.config.seed)


def _check_at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")


class _timed:
    """`with _timed(report, "tracking"):` adds the block's seconds to the report."""

    def __init__(self, report: LabelReport, stage: str) -> None:
        self.report, self.stage = report, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *exception) -> None:
        self.report.seconds[self.stage] += time.perf_counter() - self.start
