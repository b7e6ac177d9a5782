"""Follow points through a video of any length with few frames in memory: piece by piece, where the tracker allows.

A tracker that goes from frame to frame (`FrameToFrame`) gives the same tracks as in one go, and so does one that takes
frames as they come (`Streams`), with a confidence (`ConfidentTracker`) or without. Others see the whole video. What is
done can be kept in a folder, a file for each piece and what the tracker needs to go on, so that a run that is killed
goes on where it was, with the same bits.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from flowlib.geometry import inside, rescale_points
from flowlib.trackers import FrameToFrame, Streams, StreamState, Tracker
from flowlib.trackers.confidence import ConfidentTracker, stretches, to_confidence
from flowlib.tracks import Tracks, check_queries
from flowlib.video import Video, iterate_frames, resize_frame
from flowlib.workspace import atomic_write, clear_stale

PIECE = 24  # steps from frame to frame
MOST_BYTES = 4_000_000_000  # of frames, for a tracker that sees them all

RATING = 3  # times the tracking: how much of the time confidence takes, for progress alone

SMALLEST_SIDE = 16  # pixels, of frames made smaller

Read = Callable[[int, int], Iterator[np.ndarray]]  # (start, stop) -> these frames uint8 [H W 3], in order


def track_video(
    tracker: Tracker,
    video: Video,
    queries: np.ndarray,
    *,
    num_frames: int = 0,
    longest: int = 0,
    reanchor: int = 0,
    keep: Path | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> Tracks:
    """Follow points through a video, of which few frames are in memory where the tracker allows it.

    Args:
        tracker: of any kind.
        video: as `video.probe` gives it.
        queries: [N 3] (t, x, y) in the video's own pixels.
        num_frames: from its first on; 0 for all.
        longest: pixels of the longer side while tracking, aspect kept to a pixel; 0, or more than it has: as it is.
        reanchor: as for `track_stream`.
        keep: a folder that holds what is done until the caller removes it: the same call goes on from there, another
            one begins anew. None: nothing is kept.
        progress: called with a number of frames that are done, again and again.

    Returns:
        Tracks in the video's own pixels.

    Raises:
        ValueError: more frames than it has, a point outside its frames, or as `track_stream`.
    """
    if not 0 <= num_frames <= video.num_frames:
        raise ValueError(f"num_frames: expected up to {video.num_frames}, as {video.name} has, got {num_frames}")
    if longest < 0:
        raise ValueError(f"longest: expected a number of pixels, or 0, got {longest}")
    num_frames, queries = num_frames or video.num_frames, np.asarray(queries, np.float32)
    check_queries(queries, num_frames)
    outside = ~inside(queries[:, 1:], video.size)
    if outside.any():
        _, x, y = queries[outside][0]
        raise ValueError(f"points: expected places on frames of {video.size[1]}×{video.size[0]}, got {x:g},{y:g}")
    scale = min(1.0, longest / max(video.size)) if longest else 1.0
    height, width = (max(min(side, SMALLEST_SIDE), round(side * scale)) for side in video.size)
    size = (height, width)

    def read(start: int, stop: int) -> Iterator[np.ndarray]:
        return (resize_frame(frame, size, "stretch") for frame in iterate_frames(video, start, stop))

    about = {"video": video.fingerprint, "size": size, "reanchor": reanchor}
    kept = Kept.open(keep, tracker, queries, num_frames, about) if keep else None
    if size == video.size:
        return track_stream(tracker, read, num_frames, queries, reanchor=reanchor, kept=kept, advance=progress)
    small = queries.copy()
    small[:, 1:] = rescale_points(queries[:, 1:], video.size, size)
    found = track_stream(tracker, read, num_frames, small, reanchor=reanchor, kept=kept, advance=progress)
    tracks = rescale_points(found.tracks, size, video.size)
    tracks[queries[:, 0].astype(int), np.arange(len(queries))] = queries[:, 1:]
    return replace(found, tracks=tracks, queries=queries)


def track_stream(
    tracker: Tracker,
    read: Read,
    num_frames: int,
    queries: np.ndarray,
    *,
    piece: int = PIECE,
    reanchor: int = 0,
    kept: Kept | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> Tracks:
    """Follow points through a video that is read as it is needed.

    Args:
        tracker: of any kind.
        read: (start, stop) -> these frames; called once, and once more for each piece before a query in a later frame.
            For a tracker that streams once for each frame with queries.
        num_frames: S.
        queries: [N 3] (t, x, y) in pixels of the frames.
        piece: how many steps are taken between readings; `piece` + 2 frames are in memory.
        reanchor: a point that isn't seen any more for so many frames up to the last one is asked for again in the frame
            it was seen last in, and so on; each such frame is a way of its own through the rest of the video. 0: never.
            For trackers that stream; those from frame to frame would lose it in the same step.
        kept: what is done, of this very call.
        advance: called with a number of frames that are done, again and again.

    Raises:
        ValueError: queries that are none, `reanchor` for a tracker that has no use for it, a video that ends early, or
            one that is too long for a tracker that has to see all of it.
    """
    queries = np.asarray(queries, np.float32)
    check_queries(queries, num_frames)
    kept = kept or Kept(None)
    if isinstance(tracker, ConfidentTracker):
        return _confident(tracker, read, num_frames, queries, piece, reanchor, kept, advance)
    if reanchor < 0 or (reanchor and not isinstance(tracker, Streams)):
        name = tracker.describe().get("name", "the tracker")
        expected = "0, or a number of frames for a tracker that streams (pips, alltracker)"
        raise ValueError(f"reanchor: expected {expected}, got {reanchor} for {name}")
    if isinstance(tracker, Streams) and num_frames > 1:
        tracks = _along_streams(tracker, read, num_frames, queries, piece, kept, advance)
        return _reanchored(tracker, read, tracks, reanchor, piece, kept) if reanchor else tracks
    if not isinstance(tracker, FrameToFrame):
        frames = _whole(read, num_frames, tracker)
        tracks = tracker(frames, queries)
        advance(num_frames)
        return tracks
    journey, pieces = _Journey(tracker, queries, num_frames), range(0, max(1, num_frames - 1), piece)
    ends = {start: min(start + piece, num_frames - 1) for start in pieces}
    back = [start for start in reversed(pieces) if journey.goes_back(ends[start])] if num_frames > 1 else []
    meter = _Meter(advance, num_frames, num_frames + sum(ends[start] - start for start in back))
    window = _Window(read, num_frames)
    for start, end in ends.items():
        rows = journey.rows(start, end + 1)
        if not kept.load(f"forward-{start}", rows):
            journey.forward(window(max(0, start - 1), end + 1), start, end)
            kept.save(f"forward-{start}", rows)
        meter(end - start + (start == 0))
    for start in back:
        rows = journey.rows(start, ends[start])
        if not kept.load(f"backward-{start}", rows):
            stop = min(ends[start] + 2, num_frames)
            journey.backward(_Window(read, stop)(start, stop), start, ends[start])
            kept.save(f"backward-{start}", rows)
        meter(ends[start] - start)
    return Tracks(journey.tracks, journey.visibility, queries)


class _Window:
    """Frames of a video that is read once and onwards; of those read, the ones asked for last are in memory."""

    def __init__(self, read: Read, num_frames: int) -> None:
        self.read, self.num_frames = read, num_frames
        self.source: Iterator[np.ndarray] | None = None
        self.first, self.held = 0, deque[np.ndarray]()

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` [F H W 3]; neither may be less than the last time."""
        if self.source is None:
            self.source, self.first = self.read(start, self.num_frames), start
        while self.first < start or self.first + len(self.held) < stop:
            if self.first < start and self.held:
                self.held.popleft()
                self.first += 1
            elif (frame := next(self.source, None)) is not None:
                self.held.append(frame)
            else:
                raise ValueError(
                    f"expected {self.num_frames} frames, the video ends after {self.first + len(self.held)}"
                )
        return np.stack(self.held)


class _Meter:
    """Tells how many frames are done, of `num_frames`, by how much of the work is."""

    def __init__(self, advance: Callable[[int], object], num_frames: int, work: int) -> None:
        self.advance, self.num_frames, self.work, self.done, self.told = advance, num_frames, work, 0, 0

    def __call__(self, done: int) -> None:
        self.done += done
        frames = self.num_frames * self.done // self.work - self.told
        self.told += frames
        self.advance(frames)


def _confident(
    tracker: ConfidentTracker,
    read: Read,
    num_frames: int,
    queries: np.ndarray,
    piece: int,
    reanchor: int,
    kept: Kept,
    advance: Callable[[int], object],
) -> Tracks:
    """The tracks, and then the same way back, some frames at a time."""
    order = list(stretches(queries, num_frames))
    meter = _Meter(advance, num_frames, num_frames + RATING * sum(len(rows) for rows, _ in order))
    options: dict[str, Any] = {"piece": piece, "reanchor": reanchor, "kept": kept, "advance": meter}
    tracks = track_stream(tracker.tracker, read, num_frames, queries, **options)
    expected, window = tracker.unrated(tracks), _Window(read, num_frames)
    for rows, needed in order:
        first, stop = min(rows), max(rows) + 1
        name = f"rated-{'forth' if rows.step > 0 else 'back'}-{first}"
        filled = {"expected": expected[first:stop]}
        if not kept.load(name, filled):
            # Backwards each stretch is before the last one, so it is read by itself.
            frames = (window if rows.step > 0 else _Window(read, needed.stop))(needed.start, needed.stop)
            tracker.rate(frames, needed.start, rows, tracks, expected)
            kept.save(name, filled)
        meter(RATING * len(rows))
    return replace(tracks, confidence=to_confidence(expected))


class Kept:
    """The pieces of one call that are done, in a folder.

    Args:
        folder: of this call alone; None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path, tracker: Tracker, queries: np.ndarray, num_frames: int, about: dict[str, Any]) -> Kept:
        """What `folder` holds of a call; what it holds of others is removed, for it would never be asked for again."""
        about = about | {"tracker": tracker.describe(), "num_frames": num_frames, "piece": PIECE}
        said = json.dumps(about, sort_keys=True).encode() + np.ascontiguousarray(queries, np.float32).tobytes()
        mine = folder / f"tracking-{hashlib.sha256(said).hexdigest()[:16]}"
        for other in folder.glob("tracking-*"):
            if other != mine:
                shutil.rmtree(other, ignore_errors=True)
        mine.mkdir(parents=True, exist_ok=True)
        clear_stale(mine)
        return cls(mine)

    def load(self, name: str, rows: dict[str, np.ndarray]) -> bool:
        """Fill arrays by what was saved of them; False if nothing was, or something else."""
        if self.folder is None:
            return False
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as content:
                found = {key: content[key] for key in rows}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return False
        if any(found[key].shape != row.shape or found[key].dtype != row.dtype for key, row in rows.items()):
            return False
        for key, row in rows.items():
            row[:] = found[key]
        return True

    def save(self, name: str, rows: dict[str, np.ndarray]) -> None:
        """Keep some arrays."""
        if self.folder is not None:
            with atomic_write(self.folder / f"{name}.npz") as temporary, open(temporary, "wb") as file:
                np.savez(file, **rows)  # pyright: ignore[reportArgumentType]

    def bounds(self, way: str) -> list[tuple[int, int]]:
        """Of the pieces of a way, (start, stop) each, in order."""
        found = [re.fullmatch(rf"{way}-(\d+)-(\d+)", path.stem) for path in (self.folder or Path()).glob("*.npz")]
        return sorted((int(one[1]), int(one[2])) for one in found if one) if self.folder else []

    def states(self, way: str) -> list[Path]:
        """The states of a tracker on its way, the latest first."""
        found = self.folder.glob(f"{way}-state-*.npz") if self.folder else ()
        return sorted(found, key=lambda path: int(path.stem.rpartition("-")[2]), reverse=True)

    def save_state(self, way: str, state: StreamState) -> None:
        """Keep a state, and then none before it."""
        if self.folder is not None:
            before = self.states(way)
            state.save(self.folder / f"{way}-state-{state.next_frame}.npz")
            for path in before:
                path.unlink(missing_ok=True)  # another process may be at the same


def _along_streams(
    tracker: Streams,
    read: Read,
    num_frames: int,
    queries: np.ndarray,
    piece: int,
    kept: Kept,
    advance: Callable[[int], object],
    ways: str = "back forth",
    prefix: str = "",
) -> Tracks:
    """Each frame with queries goes through the video by itself, backwards and then forwards."""
    S, N = num_frames, len(queries)
    tracks = np.repeat(queries[None, :, 1:], S, axis=0)
    visibility, confidence = np.zeros((S, N), bool), np.zeros((S, N), np.float32)
    asked = queries[:, 0].astype(int)
    # Where a tracker says nothing of the query's frame itself, the query counts.
    visibility[asked, np.arange(N)], confidence[asked, np.arange(N)] = True, 1
    anchors, confident = np.unique(asked), True
    meter = _Meter(advance, S, max(1, len(anchors)) * (S + 1))  # two ways share the query's frame
    for anchor in anchors:
        points = np.flatnonzero(queries[:, 0] == anchor)
        # Backwards first, so that where both directions meet, in the query's frame, the forward one has its say.
        for way, times in (("back", range(anchor, -1, -1)), ("forth", range(anchor, S))):
            if len(times) < 2 or way not in ways:
                continue
            name = f"{prefix}{way}-{anchor}"
            for start, stop, part in _along_way(tracker, read, times, queries[points, 1:], piece, kept, name):
                cells = np.array(times[start:stop])[:, None], points
                tracks[cells], visibility[cells], confidence[cells] = part["tracks"], part["seen"], part["sure"]
                confident = confident and not np.isnan(part["sure"]).any()
                meter(stop - start)
    meter(meter.work - meter.done)
    tracks[asked, np.arange(N)] = queries[:, 1:]
    return Tracks(tracks, visibility, queries, confidence if confident else None)


def _reanchored(tracker: Streams, read: Read, tracks: Tracks, patience: int, piece: int, kept: Kept) -> Tracks:
    """Ask again for points that aren't seen any more, where they were seen last, until that helps none."""
    S, frame = tracks.num_frames, np.arange(tracks.num_frames)[:, None]
    asked = tracks.queries[:, 0].astype(int)
    for number in count(1):
        last = np.where(tracks.visibility, frame, -1).max(axis=0)
        lost = np.flatnonzero((S - 1 - last >= patience) & (last > asked))
        if not len(lost):
            break
        queries = np.insert(tracks.tracks[last[lost], lost], 0, last[lost], axis=1)
        again = _along_streams(
            tracker, read, S, queries, piece, kept, lambda done: None, ways="forth", prefix=f"again-{number}-"
        )
        rows, points = np.nonzero(frame > last[lost])
        for name, array in tracks.arrays().items():
            if name != "queries":
                array[rows, lost[points]] = again.arrays()[name][rows, points]
        asked[lost] = last[lost]
    return tracks


def _along_way(
    tracker: Streams, read: Read, times: range, xy: np.ndarray, piece: int, kept: Kept, name: str
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """Follow points from the first of some frames to the last: (start, stop, arrays) of the way, one after another."""
    done, state = _done_before(tracker, kept, name, len(times), len(xy))
    yield from done
    begin = done[-1][1] if done else 0
    if begin == len(times):
        return
    frames = _in_order(read, times[state.next_frame if state else 0 :], piece)
    for stretch in tracker.stream(frames, xy, state):
        start, stop = stretch.start, stretch.start + len(stretch.tracks)
        sure = np.full(stretch.visibility.shape, np.nan, np.float32)
        part = {"tracks": stretch.tracks, "seen": stretch.visibility, "sure": sure}
        if stretch.confidence is not None:
            sure[:] = stretch.confidence
        kept.save(f"{name}-{start}-{stop}", part)
        if stretch.state is not None:
            kept.save_state(name, stretch.state)
        yield start, stop, part
        begin = stop
    if begin != len(times):
        raise ValueError(f"expected {len(times)} frames, the video ends after {begin}")


def _done_before(
    tracker: Streams, kept: Kept, name: str, num_frames: int, num_points: int
) -> tuple[list[tuple[int, int, dict[str, np.ndarray]]], StreamState | None]:
    """What an earlier run has done of a way, and the state to go on from; None where it is done, or nothing is."""
    done = []
    for start, stop in kept.bounds(name):
        part = _empty(stop - start, num_points)
        if (done and start != done[-1][1]) or not kept.load(f"{name}-{start}-{stop}", part):
            break
        done.append((start, stop, part))
    if done and done[-1][1] == num_frames:
        return done, None
    for path in kept.states(name):
        try:
            state = tracker.load_state(path)
        except (ValueError, OSError):
            continue
        reached = [i for i, (_, stop, _) in enumerate(done) if stop == state.next_frame]
        if reached:
            return done[: reached[0] + 1], state
    return [], None


def _empty(num_frames: int, num_points: int) -> dict[str, np.ndarray]:
    """Arrays of a part of a way, to be filled."""
    kinds = {"tracks": (np.float32, (2,)), "seen": (np.bool_, ()), "sure": (np.float32, ())}
    return {key: np.empty((num_frames, num_points, *rest), dtype) for key, (dtype, rest) in kinds.items()}


def _in_order(read: Read, times: range, piece: int) -> Iterator[np.ndarray]:
    """Frames in the order of `times`, forwards or backwards; a piece of them in memory."""
    if times.step > 0:
        yield from read(times[0], times[-1] + 1)
        return
    for stop in range(times[0] + 1, times[-1], -piece):
        yield from reversed(list(read(max(times[-1], stop - piece), stop)))


class _Journey:
    """Where points are so far; a lost one stays where it was seen last.

    A piece begins one frame before the one that its new steps set out from: trackers keep what a point's very first
    step said even if it was lost in it, and the first step of a piece isn't the first one of a point.
    """

    def __init__(self, tracker: Tracker, queries: np.ndarray, num_frames: int) -> None:
        self.tracker, self.queries, self.asked = tracker, queries, queries[:, 0].astype(int)
        self.tracks = np.repeat(queries[None, :, 1:], num_frames, axis=0)
        self.visibility = np.zeros(self.tracks.shape[:2], bool)

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The rows of some frames, to be kept or filled."""
        return {"tracks": self.tracks[start:stop], "seen": self.visibility[start:stop]}

    def forward(self, frames: np.ndarray, start: int, end: int) -> None:
        """From frame `start` to `end`, with the frame before: points that come from before or are asked for there."""
        first, last = max(0, start - 1), len(self.tracks) - 1
        new = np.flatnonzero((self.asked >= start) & (self.asked < end + (end == last)))
        self._follow(frames, first, new, self.asked[new], slice(start, end + 1))
        old = np.flatnonzero(self.asked < start)
        self.tracks[start + 1 : end + 1, old] = self.tracks[start, old]
        seen = old[self.visibility[start, old]]
        self._follow(frames, first, seen, np.full(len(seen), first), slice(start + 1, end + 1))

    def goes_back(self, end: int) -> bool:
        """Whether any point that is asked for in frame `end` or later has frames before it."""
        return bool((self.asked >= end).any())

    def backward(self, frames: np.ndarray, start: int, end: int) -> None:
        """From frame `end` back to `start`, with the frame after: points that are asked for there or later."""
        old = np.flatnonzero(self.asked >= end)
        self.tracks[start:end, old] = self.tracks[end, old]
        seen = old[self.visibility[end, old]]
        self._follow(frames, start, seen, np.minimum(self.asked[seen], end + 1), slice(start, end))

    def _follow(self, frames: np.ndarray, first: int, points: np.ndarray, entry: np.ndarray, kept: slice) -> None:
        """Follow points from where they are in the frames `entry`; keep what that says of some frames."""
        if len(points):
            places = self.tracks[entry, points]
            found = self.tracker(frames, np.insert(places, 0, entry - first, axis=1))
            span = slice(kept.start - first, kept.stop - first)
            self.tracks[kept, points], self.visibility[kept, points] = found.tracks[span], found.visibility[span]


def _whole(read: Read, num_frames: int, tracker: Tracker) -> np.ndarray:
    frames = read(0, num_frames)
    first = next(frames)
    if first.nbytes * num_frames > MOST_BYTES:
        name = tracker.describe().get("name", "the tracker")
        most = MOST_BYTES // first.nbytes
        raise ValueError(
            f"{name} sees all frames at once: expected up to {most} of this size, got {num_frames}; take fewer, or "
            "smaller ones, or a tracker that goes from frame to frame"
        )
    whole, found = np.empty((num_frames, *first.shape), first.dtype), 0
    for found, frame in enumerate(chain([first], frames), 1):
        whole[found - 1] = frame
    if found != num_frames:
        raise ValueError(f"expected {num_frames} frames, the video ends after {found}")
    return whole
