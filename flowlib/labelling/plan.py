"""The plan: all clips of a source, decided by the videos and the config alone, and how they are cut into chunks."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from flowlib.clips import Clip
from flowlib.labelling.config import LabelConfig, check_at_least
from flowlib.progress import Progress
from flowlib.quantities import counted
from flowlib.shots import Scan, scan_all
from flowlib.video import Skipped, Video, describe_fit, working_size
from flowlib.workspace import read_json

MOST_SHAPES = 12  # sizes of videos that a plan lists
SLOW = "motion too slow or small to be seen within a clip takes a larger frame_step; skip_still=False keeps all clips"


@dataclass(frozen=True)
class Plan:
    """All clips of a source, in order, and what is skipped.

    Attributes:
        config: what was asked for, with the working size that fit="auto" has chosen.
        videos: the videos that give clips, by name.
        clips: in the order of their videos' names, then of their frames.
        skipped: videos that are broken, too short or there twice, with a reason each.
        skipped_clips: clips with nothing to learn from, with a reason each: "black" or "frozen".
        num_cuts: how many cuts there are in the videos.
        num_others: how many files and folders of the source are no videos.
    """

    config: LabelConfig
    videos: dict[str, Video]
    clips: list[Clip]
    skipped: list[Skipped]
    skipped_clips: list[Skipped] = field(default_factory=list)
    num_cuts: int = 0
    num_others: int = 0

    def chunk(self, chunk: int, num_chunks: int) -> list[Clip]:
        """The clips of chunk 0 ≤ `chunk` < `num_chunks`: contiguous, equal in number to within one.

        Clips have the same number of frames and about that of points, so equal numbers are equal work for the tracker.
        """
        check_chunk(chunk, num_chunks)
        total = len(self.clips)
        return self.clips[total * chunk // num_chunks : total * (chunk + 1) // num_chunks]

    def renamed(self, names: dict[str, str]) -> Plan:
        """The same plan with other names for its videos, by their names now."""
        videos = {names[name]: replace(video, name=names[name]) for name, video in self.videos.items()}
        clips = [replace(clip, video=names[clip.video]) for clip in self.clips]
        return replace(self, videos=videos, clips=clips)

    def into(self, folder: Path) -> Plan:
        """The plan with the working size of the dataset in `folder`, if there is one: with fit="auto" a dataset goes on
        as it began, also when videos of other shapes have been added."""
        path = folder / "config.json"
        if self.config.fit != "auto" or not path.exists():
            return self
        try:
            there = {"fit": "crop"} | read_json(path)  # the first ones didn't say
            kept = {name: there[name] for name in ("height", "width", "fit")}
            return replace(self, config=replace(self.config, **kept))
        except (ValueError, LookupError, TypeError):
            return self  # the store will say what is wrong there

    def __str__(self) -> str:
        points = Counter(math.prod(self.config.cells_on(clip.source_size)) for clip in self.clips)
        each = " to ".join(map(str, sorted({min(points, default=0), max(points, default=0)})))
        lines = [
            f"{counted(len(self.videos), 'video')}, {counted(len(self.clips), 'clip')} of {self.config.frames} frames, "
            f"{each} points each: {sum(count * clips for count, clips in points.items()):,} trajectories"
        ]
        size = self.config.size
        lines += [f"working size: height {size[0]}, width {size[1]}, fit={self.config.fit!r}"]
        shapes = Counter(video.size for video in self.videos.values()).most_common()
        for shape, number in shapes[:MOST_SHAPES]:
            lines += [
                f"{counted(number, 'video')} of {shape[1]}×{shape[0]}: {describe_fit(shape, size, self.config.fit)}"
            ]
        lines += [f"videos of {len(shapes) - MOST_SHAPES} more sizes"] if len(shapes) > MOST_SHAPES else []
        if self.num_cuts:
            lines += [f"cuts: {self.num_cuts}, no clip straddles one" if self.config.split_shots else "cuts: not kept"]
        counts = Counter((one.name.rpartition(", ")[0], one.reason) for one in self.skipped_clips)
        lines += [f"skipped: {name}: {counted(number, 'clip')}, {reason}" for (name, reason), number in counts.items()]
        lines += [SLOW] if any(one.reason == "frozen" for one in self.skipped_clips) else []
        lines += [f"skipped: {one.name}: {one.reason}" for one in self.skipped]
        what = counted(self.num_others, "file or folder that is no video", "files and folders that are no videos")
        others = f"left out: {what}; `flowlib probe` tells more"
        return "\n".join(lines + [others] * bool(self.num_others))


def make_plan(source: str | Path, config: LabelConfig, *, cache: Path | None = None, progress: bool = False) -> Plan:
    """Decode every video below `source` once and decide the clips.

    Args:
        source: a folder of videos or one video.
        config: what the dataset is made of.
        cache: `Workspace.scans`; what is known of a video's content there is not found out again. None: no cache.
        progress: show a bar with the time left.

    Raises:
        FileNotFoundError: nothing at `source`, or no video in it.
        ValueError: there are videos, but not one that gives a clip; every reason is in the message.

    >>> from flowlib.sources import SAMPLE
    >>> plan = make_plan(SAMPLE / "bikes.mp4", LabelConfig(max_clips=4))
    >>> [len(plan.chunk(number, 2)) for number in range(2)]
    [2, 2]
    """
    bar = partial(Progress, title="reading videos", unit="video", disable=not progress)
    scans, bad = scan_all(source, cache=cache, progress=bar)
    skipped = [one for one in bad if one.is_video]
    videos, clips, skipped_clips, seen = {}, [], [], {}
    for scan in scans:
        video = scan.video
        kept, nothing = _clips_of(scan, config)
        if video.fingerprint in seen:
            skipped.append(Skipped(video.name, f"{video.path}: same content as {seen[video.fingerprint]}"))
        elif kept:
            videos[video.name], seen[video.fingerprint] = video, video.path
            clips += kept
            skipped_clips += nothing
        else:
            skipped.append(Skipped(video.name, _why_no_clip(scan, config, nothing)))
    if not clips:
        reasons = "; ".join(one.reason for one in skipped)
        raise ValueError(
            f"source: expected at least one video of {config.span} frames in {source}, got none ({reasons})"
        )
    num_cuts = sum(len(scan.cuts) for scan in scans if scan.video.name in videos)
    height, width = working_size(videos.values(), config.size, config.fit)
    config = replace(config, height=height, width=width)
    return Plan(config, videos, clips, skipped, skipped_clips, num_cuts, len(bad) - sum(one.is_video for one in bad))


def check_chunk(chunk: int, num_chunks: int) -> None:
    """Raise `ValueError` unless 0 ≤ `chunk` < `num_chunks`."""
    check_at_least("num_chunks", num_chunks, 1)
    if not 0 <= chunk < num_chunks:
        raise ValueError(f"chunk: expected 0 to {num_chunks - 1} (num_chunks is {num_chunks}), got {chunk}")


def _clips_of(scan: Scan, config: LabelConfig) -> tuple[list[Clip], list[Skipped]]:
    """A video's clips, and those with nothing to learn from."""
    shots = scan.shots if config.split_shots else scan.video.even_runs
    step = config.clip_step or config.span
    starts = [start for first, stop in shots for start in range(first, stop - config.span + 1, step)]
    reasons = {start: scan.nothing_in((start, start + config.span)) for start in starts} if config.skip_still else {}
    nothing = [
        Skipped(f"{scan.video.name}, frames {start} to {start + config.span - 1}", reason)
        for start, reason in reasons.items()
        if reason
    ]
    starts = _spread([start for start in starts if not reasons.get(start)], config.max_clips)
    return [Clip.of(scan.video, start, config.frame_step, config.frames) for start in starts], nothing


def _spread(starts: list[int], most: int) -> list[int]:
    """At most so many of them (0: all), evenly spread, the first and the last among them."""
    if not most or len(starts) <= most:
        return starts
    return [starts[round(i * (len(starts) - 1) / max(1, most - 1))] for i in range(most)]


def _why_no_clip(scan: Scan, config: LabelConfig, nothing: list[Skipped]) -> str:
    path, longest = scan.video.path, max((stop - first for first, stop in scan.shots), default=0)
    if scan.video.num_frames < config.span:
        return f"{path}: has {scan.video.num_frames} frames, a clip needs {config.span}"
    if nothing:
        return f"{path}: nothing to learn from, all {len(nothing)} clips are black or frozen; {SLOW}"
    return f"{path}: its longest shot has {longest} frames, a clip needs {config.span}"
