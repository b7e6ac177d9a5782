"""Follow points through a video of any length with few frames in memory: piece by piece, where the tracker allows.

A tracker that goes from frame to frame (`FrameToFrame`) gives the same tracks as in one go. Others see the whole video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from flowlib.geometry import inside, rescale_points
from flowlib.trackers import FrameToFrame, Tracker
from flowlib.tracks import Tracks, check_queries
from flowlib.video import Video, iterate_frames, resize_frame

PIECE = 24  # steps from frame to frame
MOST_BYTES = 4_000_000_000  # of frames, for a tracker that sees them all

SMALLEST_SIDE = 16  # pixels, of frames made smaller

Read = Callable[[int, int], Iterator[np.ndarray]]  # (start, stop) -> these frames uint8 [H W 3], in order


def track_video(
    tracker: Tracker,
    video: Video,
    queries: np.ndarray,
    *,
    num_frames: int = 0,
    longest: int = 0,
    progress: Callable[[int], object] = lambda count: None,
) -> Tracks:
    """Follow points through a video, of which few frames are in memory where the tracker allows it.

    Args:
        tracker: of any kind.
        video: as `video.probe` gives it.
        queries: [N 3] (t, x, y) in the video's own pixels.
        num_frames: from its first on; 0 for all.
        longest: pixels of the longer side while tracking, aspect kept to a pixel; 0, or more than it has: as it is.
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

    if size == video.size:
        return track_stream(tracker, read, num_frames, queries, advance=progress)
    small = queries.copy()
    small[:, 1:] = rescale_points(queries[:, 1:], video.size, size)
    found = track_stream(tracker, read, num_frames, small, advance=progress)
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
    advance: Callable[[int], object] = lambda count: None,
) -> Tracks:
    """Follow points through a video that is read as it is needed.

    Args:
        tracker: of any kind.
        read: (start, stop) -> these frames; called once, and once more for each piece before a query in a later frame.
        num_frames: S.
        queries: [N 3] (t, x, y) in pixels of the frames.
        piece: how many steps are taken between readings; `piece` + 2 frames are in memory.
        advance: called with a number of frames that are done, again and again.

    Raises:
        ValueError: queries that are none, a video that ends early, or one that is too long for a tracker that has to
            see all of it.
    """
    queries = np.asarray(queries, np.float32)
    check_queries(queries, num_frames)
    if not isinstance(tracker, FrameToFrame):
        frames = _whole(read, num_frames, tracker)
        tracks = tracker(frames, queries)
        advance(num_frames)
        return tracks
    journey = _Journey(tracker, queries, num_frames)
    source, frames = read(0, num_frames), []
    for start in range(0, max(1, num_frames - 1), piece):
        end = min(start + piece, num_frames - 1)
        before = frames[-2:]
        frames = before + list(islice(source, end + 1 - (start + 1 if before else 0)))
        if (found := len(frames) + max(0, start - 1)) <= end:
            raise ValueError(f"expected {num_frames} frames, the video ends after {found}")
        journey.forward(np.stack(frames), start, end)
        advance(len(frames) - len(before))
    for start in reversed(range(0, num_frames - 1, piece)):
        end = min(start + piece, num_frames - 1)
        if journey.goes_back(end):
            journey.backward(np.stack(list(read(start, min(end + 2, num_frames)))), start, end)
    return Tracks(journey.tracks, journey.visibility, queries)


class _Journey:
    """Where points are so far; a lost one stays where it was seen last.

    A piece begins one frame before the one that its new steps set out from: trackers keep what a point's very first
    step said even if it was lost in it, and the first step of a piece isn't the first one of a point.
    """

    def __init__(self, tracker: Tracker, queries: np.ndarray, num_frames: int) -> None:
        self.tracker, self.queries, self.asked = tracker, queries, queries[:, 0].astype(int)
        self.tracks = np.repeat(queries[None, :, 1:], num_frames, axis=0)
        self.visibility = np.zeros(self.tracks.shape[:2], bool)

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
    whole = np.stack(list(chain([first], frames)))
    if len(whole) != num_frames:
        raise ValueError(f"expected {num_frames} frames, the video ends after {len(whole)}")
    return whole
