"""Estimate how long a job takes and how large its dataset gets, from a few clips labelled for timing."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from flowlib.clips import Clip, ClipSample
from flowlib.devices import describe_load
from flowlib.labelling.pipeline import Clock, is_long, track, tracker_of
from flowlib.labelling.plan import Plan
from flowlib.quantities import counted, duration, file_size
from flowlib.shards import write_shard
from flowlib.trackers import Tracker
from flowlib.video import iterate_frames, resize_frame

SESSION_HOURS = 12  # what Colab gives at most
STRETCHES = (16, 32)  # frames of a long clip that are timed: what the second takes more is what each 16 more take


def estimate(
    plan: Plan, *, device: str = "auto", clips: int = 2, found: int = 0, tracker: Tracker | None = None,
    chunk: int = 0, num_chunks: int = 1,
) -> str:  # fmt: skip
    """Label a few clips of the plan for timing, keep nothing, and say what the whole job will take.

    Args:
        plan: from `make_plan`.
        device: for the tracker.
        clips: how many to time, after one to warm up; of long clips their first 32 frames, for all in proportion.
        found: clips that are done already.
        tracker: used instead of the one the config names.
        chunk, num_chunks: the part of the job that is to be done here, said beside the whole.
    """
    clock, size, timed = _label_sample(plan, tracker or tracker_of(plan, device), clips)
    # Decoding and writing have threads of their own; whatever is slowest decides.
    seconds, stored = max(clock.values()) / timed, size / timed
    stages = ", ".join(f"{stage} {spent / timed:.2f} s" for stage, spent in clock.items())
    lines = [f"a clip: {stages}, beside one another; {file_size(stored)}"]
    here = len(plan.chunk(chunk, num_chunks))
    lines += [f"chunk {chunk} of {num_chunks}, {_taken(here, seconds, stored)}"] * (num_chunks > 1)
    lines += [("all " if num_chunks > 1 else "") + _taken(len(plan.clips) - found, seconds, stored)]
    return "\n".join(filter(None, [*lines, describe_load()]))


def _taken(clips: int, seconds: float, stored: float) -> str:
    """What so many clips take, of so many seconds and bytes each."""
    sessions = counted(max(1, math.ceil(clips * seconds / 3600 / SESSION_HOURS)), "session")
    spent = f"{duration(clips * seconds)}, {sessions} of {SESSION_HOURS} h, {file_size(clips * stored)}"
    return f"{counted(clips, 'clip')}: {spent}"


def _label_sample(plan: Plan, tracker: Tracker, clips: int) -> tuple[Clock, int, int]:
    """Seconds by stage and bytes of a few clips spread over the plan, and how many they are; the first is a warm-up."""
    numbers = {i * len(plan.clips) // (clips + 1) for i in range(clips + 1)}
    sample = [plan.clips[i] for i in sorted(numbers)]
    clock, sizes = Clock(), []
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate([sample[0], *sample] if len(sample) == 1 else sample):
            if number == 1:
                clock, sizes = Clock(), []
            label_one = _label_long if is_long(plan.config) else _label_one
            sizes.append(label_one(plan, clip, tracker, clock, Path(folder) / "clip.h5"))
    return clock, sum(sizes), len(sizes)


def _label_long(plan: Plan, clip: Clip, tracker: Tracker, clock: Clock, path: Path) -> int:
    """What a long clip takes, by two stretches of it."""
    if clip.num_frames <= STRETCHES[1]:  # few frames, but large ones
        return _label_one(plan, clip, tracker, clock, path)
    few, more = Clock(), Clock()
    sizes = [
        _label_one(plan, replace(clip, num_frames=length), tracker, spent, path)
        for length, spent in zip(STRETCHES, (few, more))
    ]
    times = (clip.num_frames - STRETCHES[1]) / (STRETCHES[1] - STRETCHES[0])
    for stage in clock:
        clock[stage] += more[stage] + times * max(0.0, more[stage] - few[stage])
    return round(sizes[1] + times * (sizes[1] - sizes[0]))


def _label_one(plan: Plan, clip: Clip, tracker: Tracker, clock: Clock, path: Path) -> int:
    numbers, bring = clip.frame_numbers, lambda frame: resize_frame(frame, plan.config.size, plan.config.fit)
    decoded = iterate_frames(plan.videos[clip.video], numbers[0], numbers[-1] + 1, clip.frame_step)
    frames = [bring(next(decoded))]  # untimed: on the way there all frames before are decoded, which a job does once
    with clock("decoding"):
        frames += map(bring, decoded)
    with clock("tracking"):
        tracks = track(plan, clip, np.stack(frames), tracker)
    with clock("writing"):
        sample = ClipSample(clip.labelled(tracks.num_points), np.stack(frames), tracks)
        write_shard(path, [sample], tracker={}, config={}, encoding=plan.config.encoding)
    return path.stat().st_size
