"""Decode, track and write clips at the same time, with few of them in memory.

Decoding and writing have a thread each, so that the tracker waits for neither; both give back to this thread what they
can't do. The pictures of clips that are long are never in memory together: such a clip is read as it is tracked, and
again as it is written, and what is tracked of it is kept piece by piece for the next run.
Knows trackers by their call, and the store as a place where clips are committed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from flowlib.clips import Clip, ClipSample, UnreadSample
from flowlib.geometry import fit_frame
from flowlib.labelling.config import LabelConfig
from flowlib.labelling.plan import Plan
from flowlib.labelling.store import Store
from flowlib.trackers import NeedsClip, Tracker, make_tracker
from flowlib.trackers.confidence import ConfidentTracker
from flowlib.trackers.streaming import Kept, track_stream
from flowlib.tracks import Tracks
from flowlib.video import OnwardReader, Skipped, Video, VideoError, fingerprint, iterate_frames, resize_frame

DEPTH = 2  # clips that wait, decoded, for the tracker, and tracked, for the disk
LONG_BYTES = 64_000_000  # of a clip's pictures, from which on they aren't in memory together: 92 frames of 360×640
FRAMES_AHEAD = 8  # of a long clip, that wait for the tracker or the disk
STAGES = ("decoding", "tracking", "writing")

T = TypeVar("T")


class LongClip:
    """The frames of a clip at the working size, read as they are asked for, in a thread of its own.

    Args:
        reader: of its video.
        clip: which frames.
        config: has the working size.
        stopping: is set when nobody waits for them any more.
    """

    def __init__(self, reader: OnwardReader, clip: Clip, config: LabelConfig, stopping: threading.Event) -> None:
        self.reader, self.clip, self.config, self.stopping = reader, clip, config, stopping

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.read(0, self.clip.num_frames)

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Its frames `start` to `stop` uint8 [H W 3]; fewer when they are stopped.

        Raises:
            VideoError: the video ends before, or was replaced by another.
        """

        def decode(stopped: threading.Event) -> Generator[np.ndarray, None, None]:
            numbers = self.clip.frame_numbers[start:stop]
            over = lambda: stopped.is_set() or self.stopping.is_set()  # noqa: E731
            for frame in self.reader.read(numbers[0], numbers[-1] + 1, self.clip.frame_step, over):
                yield resize_frame(frame, self.config.size, self.config.fit)

        with prefetch(decode, FRAMES_AHEAD) as frames:
            yield from frames


ClipFrames = tuple[Clip, np.ndarray | LongClip]
Sample = ClipSample | UnreadSample


def is_long(config: LabelConfig) -> bool:
    """Whether the pictures of a clip are too many to be in memory together."""
    return config.frames * config.height * config.width * 3 > LONG_BYTES


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
    write: Callable[[Clip, Sample | None], object],
    clock: Clock,
    skipped: list[Skipped],
    advance: Callable[[Clip, int], object] = lambda clip, count: None,
) -> Iterator[Clip]:
    """Decode, track and write clips; yields each once it is committed.

    Args:
        plan: which the clips are of.
        clips: in the plan's order.
        store: knows which clips another process has labelled meanwhile.
        write: commits a labelled clip; None: it is committed already. In another thread, one by one.
        clock: gets the seconds that this thread spends tracking, and waiting for the other two stages.
        skipped: gets the videos that broke off, with a reason each.
        advance: called with a long clip and a number of its frames that are tracked, again and again.

    Whatever ends this early, an error or an interrupt, the clips that were tracked are written first.
    """
    broken = set()  # videos of which a long clip could not be read

    def miss(clip: Clip, error: VideoError) -> None:
        broken.add(clip.video)
        skipped.append(Skipped(clip.video, f"{error}; its clips from frame {clip.first_frame} on are missing"))

    with WriteQueue(write, store.stopping, miss) as writer:
        with prefetch(lambda stopped: decode_clips(plan, clips, skipped, stopped, store.stopping)) as decoded:
            for clip, frames in _timed(decoded, clock):
                if clip.video in broken:
                    continue
                sample = None
                if not store.has(clip):
                    tracks = store.journaled(clip)  # if a kill came before they were written
                    if tracks is None:
                        try:
                            with clock("tracking"):
                                told = partial(advance, clip)
                                tracks = track(plan, clip, frames, tracker, keep=store.working(clip), advance=told)
                        except VideoError as error:
                            miss(clip, error)
                            continue
                        with clock("writing"):
                            store.journal(clip, tracks)
                    sample = _sample(clip.labelled(tracks.num_points), frames, tracks, plan.config)
                with clock("writing"):
                    writer.put(clip, sample)
                yield from writer.done()
        with clock("writing"):
            writer.finish()
        yield from writer.done()


def _sample(clip: Clip, frames: np.ndarray | LongClip, tracks: Tracks, config: LabelConfig) -> Sample:
    if isinstance(frames, LongClip):
        return UnreadSample(clip, frames, tracks, config.size)
    return ClipSample(clip, frames, tracks)


def _timed(decoded: Iterator[ClipFrames], clock: Clock) -> Iterator[ClipFrames]:
    while True:
        with clock("decoding"):
            item = next(decoded, None)
        if item is None:
            return
        yield item


def decode_clips(
    plan: Plan,
    clips: list[Clip],
    skipped: list[Skipped],
    stopped: threading.Event | None = None,
    stopping: threading.Event | None = None,
) -> Generator[ClipFrames, None, None]:
    """Each clip with its frames [S H W 3] at the working size; every video is decoded once for all its clips.

    Long clips come as they are to be read: `stopping` is set once nobody will.
    """
    stopped, stopping = stopped or threading.Event(), stopping or threading.Event()
    for name, group in groupby(clips, lambda clip: clip.video):
        waiting = sorted(group, key=lambda clip: clip.first_frame)
        try:
            if is_long(plan.config):
                reader = OnwardReader(plan.videos[name])
                yield from ((clip, LongClip(reader, clip, plan.config, stopping)) for clip in waiting)
            else:
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


def track(
    plan: Plan,
    clip: Clip,
    frames: np.ndarray | LongClip,
    tracker: Tracker,
    *,
    keep: Path | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> Tracks:
    """The tracks of a clip's points; of a long one, what is done is kept in the folder `keep`, and gone on from."""
    if isinstance(tracker, NeedsClip):
        fit = fit_frame(clip.source_size, plan.config.size, plan.config.fit)
        tracker = tracker.for_clip(clip, Path(plan.videos[clip.video].path), fit)
    queries = plan.config.queries(clip.key, clip.source_size)
    if isinstance(frames, np.ndarray):
        return tracker(frames, queries)
    kept = Kept.open(keep, tracker, queries, clip.num_frames, {"clip": clip.key}) if keep else None
    return track_stream(tracker, frames.read, clip.num_frames, queries, kept=kept, advance=advance)


def tracker_of(plan: Plan, device: str) -> Tracker:
    """The tracker that the plan's config names."""
    tracker = make_tracker(plan.config.tracker, weights=plan.config.weights, device=device)
    return ConfidentTracker(tracker) if plan.config.confidence else tracker


@contextmanager
def prefetch(make: Callable[[threading.Event], Generator[T, None, None]], depth: int = DEPTH) -> Iterator[Iterator[T]]:
    """Run an iterator in a thread of its own, up to `depth` items ahead of who reads it.

    Args:
        make: makes the iterator, which ends early once the event it is given is set.
        depth: how many items may wait.
    """
    stopped = threading.Event()
    items = make(stopped)
    with ThreadPoolExecutor(1, "decoding") as thread:
        waiting = deque(thread.submit(next, items, None) for _ in range(depth))

        def read() -> Iterator[T]:
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
        miss: is told of a clip that could not be read for writing.
    """

    def __init__(
        self,
        function: Callable[[Clip, Sample | None], object],
        stopping: threading.Event,
        miss: Callable[[Clip, VideoError], object],
    ) -> None:
        self.function, self.stopping, self.miss = function, stopping, miss
        self.thread = ThreadPoolExecutor(1, "writing")
        self.waiting: deque[tuple[Clip, Future]] = deque()
        self.committed: list[Clip] = []

    def __enter__(self) -> WriteQueue:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception) -> None:
        if kind:
            self.stopping.set()
        self.thread.shutdown()

    def put(self, clip: Clip, sample: Sample | None) -> None:
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
        try:
            future.result()
        except VideoError as error:
            self.miss(clip, error)
        else:
            self.committed.append(clip)
