"""Find where a video is cut, and where it shows nothing to learn from.

A scan decodes a video once to its end, as `video.probe` does, and looks at a thumbnail of each frame. Cuts are found
by PySceneDetect's adaptive detector, which a moving camera doesn't deceive as easily as a plain threshold. Scans are
cached by the video's content, so that ten machines or sessions that work on one job don't each decode everything anew.
Knows nothing of clips, trackers or shards.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from flowlib.video import Skipped, Video, VideoError, find_all, fingerprint, probe
from flowlib.video.reading import THUMBNAIL_SIDE
from flowlib.workspace import write_json

VERSION = 3  # of what a scan says; another version's are made anew
CELLS = 96  # across the longer side: 13 pixels of an HD frame, so that a ball of 12 pixels is seen to move
DARK = 16.0  # grey levels: a frame whose brightest cell is below is black
# From a still picture's first frame no cell is further off than eight times what nine in ten change by from frame to
# frame (a camera's noise), nor than eight grey levels (a codec refreshes a block; measured: 7). What moves is, in time.
# The last is the most that is taken for noise.
NOISE, STILL, LOUD = 8.0, 8.0, 24.0
MOST_FIRSTS = 32  # pictures that frames are compared with at a time
SAVE_SECONDS = 30.0  # between two writings of the cache

FrameRange = tuple[int, int]  # frames first ≤ i < stop


@dataclass(frozen=True)
class Scan:
    """What one pass over a video found.

    Attributes:
        video: what it is.
        cuts: the first frame of every shot but the first.
        dark: runs of black frames.
        still: of frames that the next one looks like: the first later frame that shows another picture.
    """

    video: Video
    cuts: tuple[int, ...] = ()
    dark: tuple[FrameRange, ...] = ()
    still: Mapping[int, int] = field(default_factory=dict)

    @property
    def shots(self) -> list[FrameRange]:
        """The runs of frames between cuts, and between holes in time."""
        return [
            (max(first, start), min(stop, end))
            for first, stop in pairwise((0, *self.cuts, self.video.num_frames))
            for start, end in self.video.even_runs
            if max(first, start) < min(stop, end)
        ]

    def nothing_in(self, run: FrameRange) -> str:
        """Why there is nothing to learn from in these frames: "black", "frozen", or "" where there may be."""
        if any(first <= run[0] and run[1] <= stop for first, stop in self.dark):
            return "black"
        return "frozen" if run[1] <= self.still.get(run[0], 0) else ""

    @classmethod
    def from_dict(cls, content: dict) -> Scan:
        still = {int(frame): int(stop) for frame, stop in content["still"].items()}
        dark = tuple((int(first), int(stop)) for first, stop in content["dark"])
        return cls(Video.from_dict(content["video"]), tuple(map(int, content["cuts"])), dark, still)


def scan(path: str | Path, name: str = "") -> Scan:
    """Decode a video once to its end and say what it is and where there is something to learn from.

    Raises:
        VideoError: as `video.probe`.

    >>> from flowlib.sources import SAMPLE
    >>> found = scan(SAMPLE / "bikes.mp4")
    >>> found.video.num_frames, len(found.cuts)
    (250, 5)
    """
    watcher = _Watcher()
    video = probe(path, name, watch=watcher)
    return Scan(video, watcher.cuts(), _runs(watcher.dark), watcher.still())


def cuts_among(frames: UInt8[np.ndarray, "S H W 3"]) -> tuple[int, ...]:
    """The numbers of the frames, among these of a video, with which another shot begins; the detector needs two frames
    before a cut and two after it.

    >>> from flowlib.sources import SAMPLE
    >>> from flowlib.video import read_frames
    >>> cuts_among(read_frames(SAMPLE / "bikes.mp4", range(132, 142)))
    (5,)
    """
    watcher = _Watcher()
    for frame in frames:
        shrink = min(1.0, THUMBNAIL_SIDE / max(frame.shape))
        watcher(cv2.resize(frame, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA))
    return watcher.cuts()


def scan_all(
    source: str | Path, *, cache: Path | None = None, progress: Callable[[Iterable], Iterable] | None = None
) -> tuple[list[Scan], list[Skipped]]:
    """Scan every video of a source: the good ones, and the bad ones with a reason each.

    Args:
        source: as for `video.find_videos`; what is there and no video is listed with the bad ones, `is_video=False`.
        cache: a JSON file of scans by the content of their videos, read first and written again; None for none.
        progress: wraps the list of videos while it is worked off, for example `Progress`.
    """
    good, (found, bad), kept = [], find_all(source), ScanCache(cache)
    for name, path in progress(found.items()) if progress else found.items():
        try:
            good.append(kept.scan(path, name))
        except VideoError as error:
            bad.append(Skipped(name, str(error)))
    kept.save()
    return good, bad


class ScanCache:
    """Scans in a JSON file, by the SHA-256 of their videos' content: a changed video is never taken for the old one.

    The file is only a saving: one that can't be read or written costs time and nothing else, and so does an entry that
    is not as it was written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.new, self.saved = path, {}, time.monotonic()
        self.known = self._read()

    def scan(self, path: Path, name: str) -> Scan:
        """The scan of a video, from the file if its content is known."""
        key = fingerprint(path)
        if key not in self.known:
            self.known[key] = self.new[key] = scan(path, name)
            if time.monotonic() - self.saved > SAVE_SECONDS:
                self.save()
        found = self.known[key]
        return replace(found, video=replace(found.video, name=name, path=str(path)))

    def save(self) -> None:
        """Add what is new to the file, and to what another process has written there meanwhile."""
        if self.path is None or not self.new:
            return
        entries = {key: asdict(one) for key, one in (self._read() | self.new).items()}
        content = {key: entry | {"sha256": _digest(entry)} for key, entry in entries.items()}
        with suppress(OSError):  # a folder that can't be written: every run scans anew
            write_json(self.path, {"version": VERSION, "surveys": content})
        self.new, self.saved = {}, time.monotonic()

    def _read(self) -> dict[str, Scan]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8")) if self.path else {}
            scans = content["surveys"] if content.get("version") == VERSION else {}
            return {key: Scan.from_dict(one) for key, one in scans.items() if one.pop("sha256") == _digest(one)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def _digest(entry: dict) -> str:
    return hashlib.sha256(json.dumps(entry).encode()).hexdigest()


@dataclass
class _Same:
    """Frames that show one picture so far, the cells of the first, and the most that noise changed meanwhile."""

    cells: np.ndarray
    frames: list[int]
    noise: float = 0.0

    def until(self, stop: int) -> dict[int, int]:
        return {frame: stop for frame in self.frames if stop > frame + 1}


class _Watcher:
    """Is shown a video's thumbnails in order, and remembers what a scan needs of them."""

    def __init__(self) -> None:
        # Loaded when the first video is decoded: half a second that nobody else should wait for.
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        # A shot may be a single frame; how long one must be to give a clip is not decided here.
        self.detector, self.timecode = AdaptiveDetector(min_scene_len=1), FrameTimecode(0, fps=25.0)
        self.dark: list[bool] = []
        self.cells: np.ndarray | None = None
        self.found: list[int] = []
        self.open: list[_Same] = []
        self.until: dict[int, int] = {}

    def __call__(self, thumbnail: np.ndarray) -> None:
        cuts = self.detector.process_frame(self.timecode + len(self.dark), np.ascontiguousarray(thumbnail[..., ::-1]))
        self.found += [cut.frame_num for cut in cuts]
        cells = _to_cells(thumbnail)
        self._compare(cells, len(self.dark))
        self.dark.append(bool(cells.max() < DARK))
        self.cells = cells

    def _compare(self, cells: np.ndarray, number: int) -> None:
        """Ask of every frame that was like all later ones so far whether it is like this one, too.

        Not the frame before is what counts: slow motion is below any threshold from frame to frame.
        """
        step = cells - self.cells if self.cells is not None else cells
        noise = float(np.quantile(np.abs(step - np.median(step)), 0.9))  # less what light changes everywhere
        seen, self.open = self.open, []
        for one in seen:
            one.noise = max(one.noise, noise)
            like = cv2.norm(cells, one.cells, cv2.NORM_INF) < min(max(STILL, NOISE * one.noise), LOUD)
            self.open += [one] if like else []
            self.until |= {} if like else one.until(number)
        if len(self.open) < MOST_FIRSTS:
            self.open.append(_Same(cells, [number]))
        else:  # a long still: comparing with a frame before this one errs on the side of motion
            self.open[-1].frames.append(number)

    def still(self) -> dict[int, int]:
        for one in self.open:
            self.until |= one.until(len(self.dark))
        return dict(sorted(self.until.items()))

    def cuts(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.found)))


def _to_cells(thumbnail: np.ndarray) -> np.ndarray:
    """Mean grey levels float32 [h w] of equal cells."""
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY).astype(np.float32)
    shrink = min(1.0, CELLS / max(grey.shape))
    size = tuple(max(1, round(side * shrink)) for side in grey.shape[::-1])
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _runs(flags: Iterable[bool]) -> tuple[FrameRange, ...]:
    """Runs of true flags, as (first, stop)."""
    runs, number = [], 0
    for flag, group in groupby(flags):
        length = len(list(group))
        runs += [(number, number + length)] if flag else []
        number += length
    return tuple(runs)
