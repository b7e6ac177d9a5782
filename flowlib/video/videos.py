"""Videos of a source: found, decoded once to their end, and read frame by frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from flowlib.geometry import FitRule, Size, fit_frame
from flowlib.video.images import Frame, Frames, resize_frame
from flowlib.video.reading import IMAGE_SUFFIXES, FileReader, PictureReader, VideoError, open_video, printable

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
        fps: frames a second, on average.
        num_frames: how many frames really decode.
        fingerprint: SHA-256 of the content; another file under the same name has another one.
        runs: the frames (first ≤ i < stop) that are whole and follow one another evenly in time; () if all of them do.
        notes: what is unusual about it, and what to do: one sentence each, to follow the name.
    """

    name: str
    path: str
    size: Size
    fps: float
    num_frames: int
    fingerprint: str
    runs: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def even_runs(self) -> tuple[tuple[int, int], ...]:
        """As `runs`, spelled out: a clip stays within one of them."""
        return self.runs or ((0, self.num_frames),)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict) -> Video:
        runs, notes = tuple(map(tuple, content.get("runs", ()))), tuple(content.get("notes", ()))
        fields: dict[str, Any] = content | {"size": tuple(content["size"]), "runs": runs, "notes": notes}
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
    source = Path(source).expanduser()
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
    with open_video(Path(path)) as reader:
        return reader.fingerprint()


def probe(path: str | Path, name: str = "", *, watch: Callable[[np.ndarray], object] | None = None) -> Video:
    """Decode a video once to its end and say what it is.

    Args:
        path: the file, the folder of pictures, or the .zip.
        name: what to call it; by default after the file.
        watch: is shown a thumbnail of each frame, uint8 [h w 3], longer side at most 256 pixels, perhaps not upright.

    Raises:
        VideoError: it can't be opened, holds no picture, is smaller than 16 pixels or larger than `FLOWLIB_MAX_PIXELS`,
            breaks off, a frame is corrupt, or the next one takes longer than `FLOWLIB_MAX_SECONDS`.
    """
    path = Path(path)
    with open_video(path) as reader:
        times, combed, size = [], [], None
        for frame in reader:
            size = size or frame.size
            if frame.size != size:
                raise VideoError(f"{path}: expected frames of one size, got {size} and then {frame.size}")
            if len(times) % 32 == 5 and reader.kind != "gif":  # whose dithering goes up and down by row, too
                combed.append(_is_combed(frame.grey()))
            times.append(frame.time)
            if watch:
                watch(frame.thumbnail())
        if size is None:
            raise VideoError(f"{path}: expected a video, got a file without a single picture")
        count = len(times)
        if count < 0.97 * (promised := reader.expected(count)):
            raise VideoError(f"{path}: breaks off after {count} of {promised} frames")
        if min(size) < SMALLEST_SIDE:
            sides = f"{size[1]}×{size[0]}"
            raise VideoError(f"{path}: expected sides of at least {SMALLEST_SIDE} pixels, got {sides}")
        fps, runs, notes = _timing(times, reader)
        if sum(combed) > len(combed) / 4:
            notes.append("looks interlaced, and isn't marked so; deinterlace it: ffmpeg -i … -vf bwdif …")
        name = name or _bare_name(path)
        return Video(name, str(path), size, fps, count, reader.fingerprint(), runs, (*reader.notes, *notes))


def _is_combed(grey: np.ndarray) -> bool:
    """Whether every other row of [H W] is of another moment: it goes up and down from row to row, at many pixels."""
    rows = grey[:, :: max(1, grey.shape[1] // 256)].astype(np.int16)
    if len(rows) < 16:
        return False
    bent = 2 * rows[1:-1] - rows[:-2] - rows[2:]
    bent[1::2] *= -1
    same = abs(rows[2:] - rows[:-2]) < 16  # rows of one moment go on as they were
    comb = [(bent * sign > 32) & same for sign in (1, -1)]
    return bool(max((one[:-4] & one[1:-3] & one[2:-2] & one[3:-1] & one[4:]).mean() for one in comb) > 0.002)


def _timing(times: list[float | None], reader: FileReader | PictureReader) -> tuple[float, tuple, list[str]]:
    """Frames a second, the runs of frames evenly spaced in time and whole (() if all are), and what to say of both."""
    known = np.array(times, dtype=float)  # NaN where the file gives no time
    if reader.kind == "avi":  # gives the times of packets, which are decoded in another order
        known.sort()
    if len(times) < 2 or np.isnan(known).any():
        return reader.fps, (), ["misses data, nobody knows where; get it whole"] if reader.damaged else []
    gaps, lasts = np.diff(known), float(known[-1] - known[0])
    usual = float(np.median(gaps))
    uneven = not (_close(gaps, usual).all() and usual > 0)
    whole = np.ones(len(times), bool)
    for start, stop in reader.damaged:
        whole &= (known < start - 1e-6) | (known >= stop - 1e-6)
    runs, notes, expected = (), [], (len(times) - 1) / reader.fps
    steady = not uneven and abs(lasts - expected) <= 0.02 * expected + 0.001  # a millisecond: the clock of many files
    fps = reader.fps if steady or lasts <= 0 else (len(times) - 1) / lasts
    if uneven or not whole.all():
        runs = tuple(_even_runs(gaps, usual, whole)) or ((0, 0),)
    if uneven:
        inner = f"{1000 * gaps.min():.0f} to {1000 * gaps.max():.0f} ms apart, in {len(runs)} evenly spaced runs"
        notes.append(
            f"has frames {inner}; a clip stays within one. To use all, give it a constant rate: ffmpeg -i … -vf fps=…"
        )
    if not whole.all():
        notes.append(
            f"misses data; {len(whole) - whole.sum()} frames that are damaged by it are in no clip. Get it whole"
        )
    if reader.duration and (ends := float(known[-1])) < 0.9 * reader.duration - 1:
        notes.append(f"has pictures for {ends:.1f} of {reader.duration:.1f} s: it is cut short, or only sound goes on")
    return fps, runs, notes


def _close(gaps: np.ndarray | float, usual: float) -> Any:
    """Whether the time between two frames is the usual one, but for a clock's rounding and a camera's jitter."""
    return abs(gaps - usual) < 0.5 * usual


def _even_runs(gaps: np.ndarray, usual: float, whole: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs (first, stop) of two frames and more that are whole and evenly spaced; `gaps[i]` is from frame i to i+1."""
    first, spacing = 0, None
    for i, gap in enumerate([*gaps.tolist(), -1.0]):
        joined = gap > 0 and whole[i] and whole[i + 1]
        if joined and spacing is None:
            spacing = usual if _close(gap, usual) else gap
        if not (joined and _close(gap, spacing or gap)):
            if i + 1 - first >= 2:
                yield first, i + 1
            first, spacing = i + 1, None


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
    path = Path(video.path if isinstance(video, Video) else video)
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
    path = Path(video.path if isinstance(video, Video) else video)
    with open_video(path) as reader:
        numbered = ((i, frame) for i, frame in enumerate(islice(reader, wanted[-1] + 1)) if i in set(wanted))
        frames = [resize_frame(frame.read(), size, fit) for _, frame in numbered]
    if len(frames) < len(wanted):
        raise VideoError(f"{path}: expected at least {wanted[-1] + 1} frames, not all of them are there")
    return np.stack(frames)


def middle_frames(videos: Iterable[Video], size: Size, fit: FitRule = "crop") -> list[np.ndarray]:
    """The frame in the middle of each video, at `size`: what a contact sheet shows."""
    return [read_frames(video, [video.num_frames // 2], size, fit)[0] for video in videos]


def describe_videos(
    videos: Iterable[Video], skipped: Iterable[Skipped] = (), *, size: Size | None = None, fit: FitRule = "crop"
) -> str:
    """A line for each video, what is unusual about it, and for each that is skipped its reason.

    Args:
        videos: those that can be used.
        skipped: those that can't.
        size, fit: the working size and how frames are brought to it, to say where much is lost by that; None: unknown.
    """
    videos = list(videos)
    lines = [
        f"{video.name}: {video.size[1]}×{video.size[0]}, {video.fps:.4g} frames/s, {video.num_frames} frames"
        for video in videos
    ]
    unusual = [f"note: {video.name} {note}" for video in videos for note in (*video.notes, *_lost(video, size, fit))]
    reasons = [f"skipped: {one.name}: {one.reason}" for one in skipped]
    return "\n".join([*lines, *unusual, *reasons, f"{len(lines)} videos, {len(reasons)} skipped"])


def _lost(video: Video, size: Size | None, fit: FitRule) -> list[str]:
    """A word where a third of the picture, or more, doesn't come to the working size."""
    if size is None or fit == "stretch":
        return []
    placed = fit_frame(video.size, size, fit)
    (height, width), (inner_height, inner_width) = placed.source_box[2:], placed.target_box[2:]
    kept, used = height * width / math.prod(video.size), inner_height * inner_width / math.prod(size)
    if kept < 2 / 3:
        return [
            f"loses {1 - kept:.0%} of its picture by fit='crop'; fit='pad', or a size of its shape, keeps all of it"
        ]
    return [f"fills {used:.0%} of the frame by fit='pad'; take a size of its shape"] if used < 2 / 3 else []


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
