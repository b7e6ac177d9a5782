"""Videos of a source: found, decoded once to their end, and read frame by frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from flowlib.geometry import FitRule, Size
from flowlib.video.images import Frame, Frames, resize_frame
from flowlib.video.reading import IMAGE_SUFFIXES, VideoError, open_video, printable

VIDEO_SUFFIXES = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)
SMALLEST_SIDE = 16  # pixels; below that there is nothing to track


@dataclass(frozen=True)
class Video:
    """What is known of a video after it was decoded once to its end.

    Attributes:
        name: unique in its source: the path below the source's folder, without the suffix where that is enough.
        path: the file, the folder of pictures, or the .zip.
        size: (height, width) in pixels as shown: upright, square pixels.
        fps: frames a second.
        num_frames: how many frames really decode.
        fingerprint: SHA-256 of the content; another file under the same name has another one.
    """

    name: str
    path: str
    size: Size
    fps: float
    num_frames: int
    fingerprint: str

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict) -> Video:
        fields: dict[str, Any] = content | {"size": tuple(content["size"])}
        return cls(**fields)


@dataclass(frozen=True)
class Skipped:
    """A video that is skipped, and why: one sentence."""

    name: str
    reason: str


def find_videos(source: str | Path) -> dict[str, Path]:
    """All videos below a folder (or the one video that `source` is), by name, in the order of their names.

    Raises:
        FileNotFoundError: there is nothing at `source`, or no video in it.
    """
    source = Path(os.path.expanduser(source))
    if not source.exists():
        raise FileNotFoundError(f"source: expected a folder of videos or a video, found nothing at {source}")
    if source.is_file() or _is_frame_folder(source):
        return {printable(Path(_bare_name(source))): source}
    paths = sorted(path for path in source.rglob("*") if _is_video(path, source))
    if not paths:
        expected = "video files, <name>/frames/ folders of pictures, or .zip files of these"
        raise FileNotFoundError(f"source: expected {expected} in {source}, found none")
    bare = [printable(path.relative_to(source).with_name(_bare_name(path))) for path in paths]
    full = [printable(path.relative_to(source)) for path in paths]
    return {short if bare.count(short) == 1 else long: path for short, long, path in zip(bare, full, paths)}


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a video's content, as 64 hexadecimal digits; a folder of pictures and its .zip have the same.

    Raises:
        VideoError: it can't be opened.
    """
    with open_video(Path(os.path.expanduser(path))) as reader:
        return reader.fingerprint()


def probe(path: str | Path, name: str = "", *, watch: Callable[[np.ndarray], object] | None = None) -> Video:
    """Decode a video once to its end and say what it is.

    Args:
        path: the file, the folder of pictures, or the .zip.
        name: what to call it; by default after the file.
        watch: is shown a thumbnail of each frame, uint8 [h w 3], longer side at most 256 pixels, perhaps not upright.

    Raises:
        VideoError: it can't be opened, holds no picture, is smaller than 16 pixels, breaks off, or a frame is corrupt.
    """
    path = Path(os.path.expanduser(path))
    with open_video(path) as reader:
        count, size = 0, None
        for frame in reader:
            size = size or frame.size
            if frame.size != size:
                raise VideoError(f"{path}: expected frames of one size, got {size} and then {frame.size}")
            count += 1
            if watch:
                watch(frame.thumbnail())
        if size is None:
            raise VideoError(f"{path}: expected a video, got a file without a single picture")
        if count < 0.97 * reader.promised:  # edit lists and B-frames drop a few at the ends of sound files
            raise VideoError(f"{path}: breaks off after {count} of {reader.promised} frames")
        if min(size) < SMALLEST_SIDE:
            sides = f"{size[1]}×{size[0]}"
            raise VideoError(f"{path}: expected sides of at least {SMALLEST_SIDE} pixels, got {sides}")
        return Video(name or _bare_name(path), str(path), size, reader.fps, count, reader.fingerprint())


def probe_all(
    source: str | Path, progress: Callable[[Iterable], Iterable] | None = None
) -> tuple[list[Video], list[Skipped]]:
    """Probe every video of a source: the good ones, and the bad ones with a reason each.

    Args:
        source: as for `find_videos`.
        progress: wraps the list of videos while it is worked off, for example `Progress`.
    """
    good, bad = [], []
    found = find_videos(source).items()
    for name, path in progress(found) if progress else found:
        try:
            good.append(probe(path, name))
        except VideoError as error:
            bad.append(Skipped(name, str(error)))
    return good, bad


def iterate_frames(
    video: Video | str | Path,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    *,
    stopped: Callable[[], bool] = bool,
) -> Iterator[Frame]:
    """Decode the frames `start`, `start+step`, … before `stop` in order, at the video's own size.

    Frames before `start` are decoded but not converted: exact for every codec, and cheap beside tracking. Before each
    frame `stopped` is asked whether to end at once, since the way to `start` may take minutes.
    """
    path = Path(video.path if isinstance(video, Video) else os.path.expanduser(video))
    with open_video(path) as reader:
        wanted = takewhile(lambda _: not stopped(), reader)
        for frame in islice(wanted, start, stop, step):
            yield frame.read()


def read_frames(
    video: Video | str | Path, indices: Iterable[int], size: Size | None = None, fit: FitRule = "crop"
) -> Frames:
    """The frames with the given ascending indices, brought to `size` by the rule `fit` (see `geometry.fit_frame`).

    Raises:
        VideoError: the video has fewer frames.
    """
    wanted = list(indices)
    if not wanted or wanted != sorted(set(wanted)) or wanted[0] < 0:
        raise ValueError(f"indices: expected ascending frame numbers from 0, got {wanted}")
    path = Path(video.path if isinstance(video, Video) else os.path.expanduser(video))
    with open_video(path) as reader:
        numbered = ((i, frame) for i, frame in enumerate(islice(reader, wanted[-1] + 1)) if i in set(wanted))
        frames = [resize_frame(frame.read(), size, fit) for _, frame in numbered]
    if len(frames) < len(wanted):
        raise VideoError(f"{path}: expected at least {wanted[-1] + 1} frames, not all of them are there")
    return np.stack(frames)


def middle_frames(videos: Iterable[Video], size: Size, fit: FitRule = "crop") -> list[np.ndarray]:
    """The frame in the middle of each video, at `size`: what a contact sheet shows."""
    return [read_frames(video, [video.num_frames // 2], size, fit)[0] for video in videos]


def describe_videos(videos: Iterable[Video], skipped: Iterable[Skipped] = ()) -> str:
    """A line for each video, and for each that is skipped its reason."""
    lines = [
        f"{video.name}: {video.size[1]}×{video.size[0]}, {video.fps:.4g} frames/s, {video.num_frames} frames"
        for video in videos
    ]
    reasons = [f"skipped: {one.name}: {one.reason}" for one in skipped]
    return "\n".join([*lines, *reasons, f"{len(lines)} videos, {len(reasons)} skipped"])


def _is_frame_folder(path: Path) -> bool:
    pictures = path / "frames"
    return pictures.is_dir() and any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in pictures.iterdir())


def _is_video(path: Path, source: Path) -> bool:
    if any(part.startswith(".") for part in path.relative_to(source).parts):
        return False
    if path.is_dir():
        return _is_frame_folder(path)
    return path.suffix.lower() in VIDEO_SUFFIXES or (
        path.suffix.lower() == ".zip" and not path.with_suffix("").is_dir()
    )


def _bare_name(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
