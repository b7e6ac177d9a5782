"""Find where a video is cut, and where it shows nothing to learn from.

A scan decodes a video once to its end, as `video.probe` does, and looks at a thumbnail of each frame. Cuts are found
by PySceneDetect's adaptive detector, which a moving camera doesn't deceive as easily as a plain threshold. Scans are
cached by the video's content, so that ten machines or sessions that work on one job don't each decode everything anew.
Knows nothing of clips, trackers or shards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import cv2
import numpy as np

from flowlib.video import Skipped, Video, VideoError, find_all, fingerprint, probe
from flowlib.workspace import write_json

VERSION = 2  # of what a scan says; another version's are made anew
CELLS = 32  # across the longer side: what is too small to fill a cell's share of change is no motion to learn from
DARK = 16.0  # grey levels: a frame whose brightest cell is below is black
STILL = 1.5  # grey levels: no cell changes by more; coding a still picture anew changes cells by less than one
SAVE_SECONDS = 30.0  # between two writings of the cache

FrameRange = tuple[int, int]  # frames first ≤ i < stop


@dataclass(frozen=True)
class Scan:
    """What one pass over a video found.

    Attributes:
        video: what it is.
        cuts: the first frame of every shot but the first.
        dark: runs of black frames.
        still: runs of frames that all show the same picture.
    """

    video: Video
    cuts: tuple[int, ...] = ()
    dark: tuple[FrameRange, ...] = ()
    still: tuple[FrameRange, ...] = ()

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
        for reason, found in (("black", self.dark), ("frozen", self.still)):
            if any(first <= run[0] and run[1] <= stop for first, stop in found):
                return reason
        return ""

    @classmethod
    def from_dict(cls, content: dict) -> Scan:
        runs = {name: tuple(map(tuple, content[name])) for name in ("dark", "still")}
        return cls(Video.from_dict(content["video"]), tuple(content["cuts"]), **runs)


def scan(path: str | Path, name: str = "") -> Scan:
    """Decode a video once to its end and say what it is and where there is something to learn from.

    Raises:
        VideoError: as `video.probe`.
    """
    watcher = _Watcher()
    video = probe(path, name, watch=watcher)
    return Scan(video, watcher.cuts(), _runs(watcher.dark), _still_runs(watcher.change))


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

    The file is only a saving: one that can't be read or written costs time and nothing else.
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
        content = {key: asdict(one) for key, one in (self._read() | self.new).items()}
        with suppress(OSError):  # a folder that can't be written: every run scans anew
            write_json(self.path, {"version": VERSION, "surveys": content})
        self.new, self.saved = {}, time.monotonic()

    def _read(self) -> dict[str, Scan]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8")) if self.path else {}
            scans = content["surveys"] if content.get("version") == VERSION else {}
            return {key: Scan.from_dict(one) for key, one in scans.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


class _Watcher:
    """Is shown a video's thumbnails in order, and remembers what a scan needs of them."""

    def __init__(self) -> None:
        # Loaded when the first video is decoded: half a second that nobody else should wait for.
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        # A shot may be a single frame; how long one must be to give a clip is not decided here.
        self.detector, self.timecode = AdaptiveDetector(min_scene_len=1), FrameTimecode(0, fps=25.0)
        self.dark: list[bool] = []
        self.change: list[float] = []
        self.cells: np.ndarray | None = None
        self.found: list[int] = []

    def __call__(self, thumbnail: np.ndarray) -> None:
        cuts = self.detector.process_frame(self.timecode + len(self.dark), np.ascontiguousarray(thumbnail[..., ::-1]))
        self.found += [cut.frame_num for cut in cuts]
        cells = _to_cells(thumbnail)
        self.dark.append(bool(cells.max() < DARK))
        same = self.cells is not None and self.cells.shape == cells.shape
        self.change.append(float(np.abs(cells - self.cells).max()) if same else np.inf)
        self.cells = cells

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


def _still_runs(change: list[float]) -> tuple[FrameRange, ...]:
    """Runs of two frames and more of which each is like the one before; `change[i]` is from frame i-1 to i."""
    return tuple((first - 1, stop) for first, stop in _runs(value < STILL for value in change))
