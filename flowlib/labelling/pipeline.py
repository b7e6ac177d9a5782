"""Decode, track and write clips at the same time, with few of them in memory.

Decoding and writing have a thread each, so that the tracker waits for neither; both give back to this thread what they
can't do. Knows trackers by their call, and the store as a place where clips are committed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np

from flowlib.clips import Clip, ClipSample
from flowlib.geometry import fit_frame
from flowlib.labelling.plan import Plan
from flowlib.labelling.store import Store
from flowlib.trackers import NeedsClip, Tracker, make_tracker
from flowlib.trackers.confidence import ConfidentTracker
from flowlib.tracks import Tracks
from flowlib.video import Skipped, Video, VideoError, fingerprint, iterate_frames, resize_frame

DEPTH = 2  # clips that wait, decoded, for the tracker, and tracked, for the disk
STAGES = ("decoding", "tracking", "writing")

ClipFrames = tuple[Clip, np.ndarray]


class Clock(dict):
    """Seconds by stage: `with clock("tracking"):` adds what its block takes."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self[stage] += time.perf_counter() - start

    @property
    def total(self) -> float:
        return sum(self.values())

    def __str__(self) -> str:
        return ", ".join(f"{stage} {100 * spent / max(self.total, 1e-9):.0f} %" for stage, spent in self.items())


def label_clips(
    plan: Plan,
    clips: list[Clip],
    tracker: Tracker,
    store: Store,
    write: Callable[[Clip, ClipSample | None], object],
    clock: Clock,
    skipped: list[Skipped],
) -> Iterator[Clip]:
    """Decode, track and write clips; yields each once it is committed.

    Args:
        plan: which the clips are of.
        clips: in the plan's order.
        store: knows which clips another process has labelled meanwhile.
        write: commits a labelled clip; None: it is committed already. In another thread, one by one.
        clock: gets the seconds that this thread spends tracking, and waiting for the other two stages.
        skipped: gets the videos that broke off, with a reason each.

    Whatever ends this early, an error or an interrupt, the clips that were tracked are written first.
    """
    with WriteQueue(write, store.stopping) as writer:
        with prefetch(lambda stopped: decode_clips(plan, clips, skipped, stopped)) as decoded:
            for clip, frames in _timed(decoded, clock):
                sample = None
                if not store.has(clip):
                    tracks = store.journaled(clip)  # if a kill came before they were written
                    if tracks is None:
                        with clock("tracking"):
                            tracks = track(plan, clip, frames, tracker)
                        with clock("writing"):
                            store.journal(clip, tracks)
                    sample = ClipSample(clip.labelled(tracks.num_points), frames, tracks)
                with clock("writing"):
                    writer.put(clip, sample)
                yield from writer.done()
        with clock("writing"):
            writer.finish()
        yield from writer.done()


def _timed(decoded: Iterator[ClipFrames], clock: Clock) -> Iterator[ClipFrames]:
    while True:
        with clock("decoding"):
            item = next(decoded, None)
        if item is None:
            return
        yield item


def decode_clips(
    plan: Plan, clips: list[Clip], skipped: list[Skipped], stopped: threading.Event | None = None
) -> Generator[ClipFrames, None, None]:
    """Each clip with its frames [S H W 3] at the working size; every video is decoded once for all its clips."""
    stopped = stopped or threading.Event()
    for name, group in groupby(clips, lambda clip: clip.video):
        waiting = sorted(group, key=lambda clip: clip.first_frame)
        try:
            yield from _decode_video(plan, plan.videos[name], waiting, stopped)
        except VideoError as error:  # it was whole when the plan was made
            skipped.append(Skipped(name, f"{error}; {len(waiting)} of its clips are missing"))


def _decode_video(plan: Plan, video: Video, waiting: list[Clip], stopped: threading.Event) -> Iterator[ClipFrames]:
    """The clips of one video; those that are done leave `waiting`, so that an error can count the rest."""
    if fingerprint(video.path) != video.fingerprint:
        raise VideoError(f"{video.path}: has changed since the plan was made; make it again")
    first, last = waiting[0].first_frame, max(clip.frame_numbers[-1] for clip in waiting)
    wanted = {number for clip in waiting for number in clip.frame_numbers}
    frames: dict[int, np.ndarray] = {}
    for number, frame in enumerate(iterate_frames(video, first, last + 1, stopped=stopped.is_set), first):
        if number in wanted:
            frames[number] = resize_frame(frame, plan.config.size, plan.config.fit)
        while waiting and waiting[0].frame_numbers[-1] <= number:
            clip = waiting.pop(0)
            yield clip, np.stack([frames[i] for i in clip.frame_numbers])
            frames = {i: kept for i, kept in frames.items() if waiting and i >= waiting[0].first_frame}
    if waiting and not stopped.is_set():
        raise VideoError(f"{video.path}: ended before frame {last}, it had {video.num_frames} frames")


def track(plan: Plan, clip: Clip, frames: np.ndarray, tracker: Tracker) -> Tracks:
    """The tracks of a clip's points."""
    if isinstance(tracker, NeedsClip):
        fit = fit_frame(clip.source_size, plan.config.size, plan.config.fit)
        tracker = tracker.for_clip(clip, Path(plan.videos[clip.video].path), fit)
    return tracker(frames, plan.config.queries(clip.key, clip.source_size))


def tracker_of(plan: Plan, device: str) -> Tracker:
    """The tracker that the plan's config names."""
    tracker = make_tracker(plan.config.tracker, weights=plan.config.weights, device=device)
    return ConfidentTracker(tracker) if plan.config.confidence else tracker


@contextmanager
def prefetch(
    make: Callable[[threading.Event], Generator[ClipFrames, None, None]], depth: int = DEPTH
) -> Iterator[Iterator[ClipFrames]]:
    """Run an iterator in a thread of its own, up to `depth` items ahead of who reads it.

    Args:
        make: makes the iterator, which ends early once the event it is given is set.
        depth: how many items may wait.
    """
    stopped = threading.Event()
    items = make(stopped)
    with ThreadPoolExecutor(1, "decoding") as thread:
        waiting = deque(thread.submit(next, items, None) for _ in range(depth))

        def read() -> Iterator[ClipFrames]:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, items, None))
                yield item

        try:
            yield read()
        finally:
            stopped.set()
            thread.shutdown(cancel_futures=True)
            items.close()


class WriteQueue:
    """Calls of one function, one after another in a thread of its own; at most `DEPTH` wait.

    As a context manager it ends when every call has; an error of a call is raised by whichever method comes next.

    Args:
        function: what is called.
        stopping: is set once an error ends the block, so that the calls that are left don't wait for a disk.
    """

    def __init__(self, function: Callable[[Clip, ClipSample | None], object], stopping: threading.Event) -> None:
        self.function, self.stopping, self.thread = function, stopping, ThreadPoolExecutor(1, "writing")
        self.waiting: deque[tuple[Clip, Future]] = deque()
        self.committed: list[Clip] = []

    def __enter__(self) -> WriteQueue:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception) -> None:
        if kind:
            self.stopping.set()
        self.thread.shutdown()

    def put(self, clip: Clip, sample: ClipSample | None) -> None:
        """Have a clip written, after those before it; waits while too many do."""
        while len(self.waiting) > DEPTH:
            self._wait()
        self.waiting.append((clip, self.thread.submit(self.function, clip, sample)))

    def done(self) -> list[Clip]:
        """The clips committed since the last call."""
        while self.waiting and self.waiting[0][1].done():
            self._wait()
        committed, self.committed = self.committed, []
        return committed

    def finish(self) -> None:
        """Wait until all are written."""
        while self.waiting:
            self._wait()

    def _wait(self) -> None:
        clip, future = self.waiting.popleft()
        future.result()
        self.committed.append(clip)
