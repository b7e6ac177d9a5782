"""Videos of a source: found, decoded once to their end, and read frame by frame."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from flowlib.geometry import FitRule, Size, choose_size, fit_frame
from flowlib.quantities import counted
from flowlib.video.images import Frame, Frames, is_hidden, is_picture, resize_frame
from flowlib.video.reading import DecodedFrame, FileReader, PictureReader, VideoError, open_video, printable

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".264", ".265", ".3g2", ".3gp", ".3gpp", ".amv", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif",
    ".gxf", ".h263", ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2",
    ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mod", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf",
    ".nsv", ".nut", ".obu", ".ogg", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".tp", ".trp", ".ts", ".vob",
    ".vro", ".webm", ".wm", ".wmv", ".wtv", ".xvid", ".y4m",
])
# fmt: on
ARCHIVES = frozenset([".7z", ".bz2", ".gz", ".rar", ".tar", ".tbz", ".tgz", ".txz", ".xz", ".zst"])
ORIGIN = ".origin"  # lies among pictures that `write_frames` wrote, and says of what
MOST_NAMES = 100  # in one line of a description
MOST_IDLE = 3  # decoders of a video that wait to go on: for tracking, its way back, and storing pictures
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
    """A video that is skipped, and why: one sentence. Or, with `is_video=False`, what is no video, and what it is."""

    name: str
    reason: str
    is_video: bool = True


def find_videos(source: str | Path) -> dict[str, Path]:
    """All videos below a folder (or the one video that `source` is), by name, in the order of their names.

    Raises:
        FileNotFoundError: there is nothing at `source`, or no video in it.
    """
    return find_all(source)[0]


def find_all(source: str | Path) -> tuple[dict[str, Path], list[Skipped]]:
    """As `find_videos`, and whatever else lies there: every file and folder is a video, belongs to one, or is named.

    Linked folders are followed, each folder is read once.
    """
    source = Path(os.path.expanduser(source))
    if not source.exists():
        raise FileNotFoundError(f"source: expected a folder of videos or a video, found nothing at {source}")
    if not source.is_dir():
        return {printable(Path(source.stem)): source}, []
    paths, others = _walk(source)
    if not paths:
        expected = "video files, <name>/frames/ folders of pictures, or .zip files of these"
        there = "".join(f"; {line}" for line in _describe_skipped(others)[:5])
        raise FileNotFoundError(f"source: expected {expected} in {source}, found none{there}")
    top = Path(os.path.abspath(source)).name or "frames"  # what a folder is called that is itself a video
    full = [Path(top) if path == source else path.relative_to(source) for path in paths]
    bare = [long.with_name(_bare_name(path) or top) for long, path in zip(full, paths)]
    # Letter case is no difference: on some disks a.mp4 and A.mov would write into one folder.
    count = Counter(key for pair in zip(bare, full) for key in {str(name).casefold() for name in pair})
    found: dict[str, Path] = {}
    for short, long, path in zip(bare, full, paths):
        name = printable(short if count[str(short).casefold()] == 1 else long)
        while name in found:
            name += "+"
        found[name] = path
    return found, others


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
        VideoError: it can't be opened, holds no picture, is smaller than 16 pixels or larger than `FLOWLIB_MAX_PIXELS`,
            breaks off, a frame is corrupt, or the next one takes longer than `FLOWLIB_MAX_SECONDS`.

    >>> from flowlib.sources import SAMPLE
    >>> video = probe(SAMPLE / "bikes.mp4")
    >>> video.name, video.size, video.num_frames, video.fps
    ('bikes', (272, 640), 250, 25.0)
    """
    path = Path(os.path.expanduser(path))
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
            f"misses data; {counted(len(whole) - whole.sum(), 'frame')} damaged by it in no clip. Get it whole"
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
        source: as for `find_videos`; what is there and no video is listed with the bad ones, `is_video=False`.
        progress: wraps the list of videos while it is worked off, for example `Progress`.
    """
    good, (found, bad) = [], find_all(source)
    for name, path in progress(found.items()) if progress else found.items():
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


class OnwardReader:
    """A video whose frames are asked for in stretches, one after another, perhaps more than once and by some threads.

    Where reading has stopped it goes on: stretches of a long video don't each decode the way to their first frame.

    Args:
        video: as `probe` gives it.

    Raises:
        VideoError: it has another content now.
    """

    def __init__(self, video: Video) -> None:
        self.video, self._lock, self._stat = video, threading.Lock(), (0, 0)
        self._idle: list[tuple[int, Iterator[DecodedFrame]]] = []  # decoders, and the frame that each gives next
        self._check()

    def read(self, start: int, stop: int, step: int = 1, stopped: Callable[[], bool] = bool) -> Iterator[Frame]:
        """Frames `start`, `start` + `step`, … before `stop`, at the video's own size; see `iterate_frames`.

        Raises:
            VideoError: the video ends before, or was replaced by another.
        """
        at, decoded = self._take(start)
        wanted, ended = range(start, stop, step), False
        try:
            while wanted and at <= wanted[-1] and not stopped():
                ended = True
                if (frame := next(decoded, None)) is None:
                    raise VideoError(f"{self.video.path}: ended before frame {wanted[-1]}, it had {at} frames")
                at, ended = at + 1, False
                if at - 1 in wanted:
                    yield frame.read()
        finally:
            if not ended:
                with self._lock:
                    self._idle = [*self._idle[1 - MOST_IDLE :], (at, decoded)]

    def _take(self, start: int) -> tuple[int, Iterator[DecodedFrame]]:
        """The decoder that is nearest to a frame, and the frame that it gives next."""
        with self._lock:
            near = max((one for one in self._idle if one[0] <= start), key=lambda one: one[0], default=None)
            if near is not None:
                self._idle.remove(near)
                return near
        self._check()
        return 0, self._decode()

    def _decode(self) -> Iterator[DecodedFrame]:
        with open_video(Path(self.video.path)) as reader:
            yield from reader

    def _check(self) -> None:
        """Read the content again if the file looks like another one."""
        path = self.video.path
        try:
            found = os.stat(path)
        except OSError as error:
            raise VideoError(f"{path}: expected a video, can't be read ({error.strerror})") from error
        if self._stat != (stat := (found.st_size, found.st_mtime_ns)):
            if fingerprint(path) != self.video.fingerprint:
                raise VideoError(f"{path}: has changed since the plan was made; make it again")
            self._stat = stat


def read_frames(
    video: Video | str | Path, indices: Iterable[int], size: Size | None = None, fit: FitRule = "crop"
) -> Frames:
    """The frames with the given ascending indices, brought to `size` by the rule `fit` (see `geometry.fit_frame`).

    Raises:
        VideoError: the video has fewer frames.

    >>> from flowlib.sources import SAMPLE
    >>> read_frames(SAMPLE / "bikes.mp4", range(0, 16, 2), size=(136, 320)).shape
    (8, 136, 320, 3)
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


def working_size(videos: Iterable[Video], size: Size, fit: FitRule) -> Size:
    """The (height, width) that all videos come to: `size`, or with "auto" what `geometry.choose_size` chooses."""
    return choose_size([video.size for video in videos], size) if fit == "auto" else size


def middle_frames(videos: Iterable[Video], size: Size, fit: FitRule = "crop") -> list[np.ndarray]:
    """The frame in the middle of each video, at `size`: what a contact sheet shows."""
    return [read_frames(video, [video.num_frames // 2], size, fit)[0] for video in videos]


def describe_videos(
    videos: Iterable[Video], skipped: Iterable[Skipped] = (), *, size: Size | None = None, fit: FitRule = "crop"
) -> str:
    """A line for each video, what is unusual about it, for each that is skipped its reason, and what
    else there is by its kind.

    Args:
        videos: those that can be used.
        skipped: those that can't.
        size, fit: the working size and how frames are brought to it, to say what each video loses; None: unknown.
    """
    videos, skipped = list(videos), list(skipped)
    lines = [
        f"{video.name}: {video.size[1]}×{video.size[0]}, {video.fps:.4g} frames/s, {counted(video.num_frames, 'frame')}"
        + (f"; {describe_fit(video.size, size, fit)}" if size else "")
        for video in videos
    ]
    unusual = [f"note: {video.name} {note}" for video in videos for note in (*video.notes, *_lost(video, size, fit))]
    bad = sum(one.is_video for one in skipped)
    others = counted(len(skipped) - bad, "other file or folder", "other files and folders")
    total = f"{counted(len(lines), 'video')}, {bad} skipped" + (f", {others}" if len(skipped) > bad else "")
    total += f"; working size: height {size[0]}, width {size[1]}, fit={fit!r}" if size else ""
    return "\n".join([*lines, *unusual, *_describe_skipped(skipped), total])


def describe_fit(source: Size, size: Size, fit: FitRule) -> str:
    """How frames of a video come to the working size: how they are scaled, what is cut off, what stays black.

    >>> describe_fit((256, 256), (360, 640), "crop"), describe_fit((272, 640), (360, 640), "auto")
    ('scaled by 2.5, 44% cut off', 'not scaled, fills 76% of the frame, the rest is black')
    """
    (height, width), kept, used = _scales(source, size, fit)
    alike = abs(height / width - 1) < 0.02
    scaled = f"scaled by {(height * width) ** 0.5:.2g}" if alike else f"scaled by {height:.2g} down, {width:.2g} across"
    said = ["not scaled" if alike and abs(height * width - 1) < 0.01 else scaled]
    said += [f"{1 - kept:.0%} cut off"] * (kept < 0.995)
    return ", ".join(said + [f"fills {used:.0%} of the frame, the rest is black"] * (used < 0.995))


def _scales(source: Size, size: Size, fit: FitRule) -> tuple[tuple[float, float], float, float]:
    """By how much height and width are scaled, the share of the picture that is kept, that of the frame it fills."""
    placed = fit_frame(source, size, fit)
    cut, filled = placed.source_box[2:], placed.target_box[2:]
    kept, used = math.prod(cut) / math.prod(source), math.prod(filled) / math.prod(size)
    return (filled[0] / cut[0], filled[1] / cut[1]), kept, used


def _lost(video: Video, size: Size | None, fit: FitRule) -> list[str]:
    """What to set where a third of the picture, or more, doesn't come to the working size, or it is enlarged much."""
    if size is None:
        return []
    (height, width), kept, used = _scales(video.size, size, fit)
    said = [f"loses {1 - kept:.0%} of its picture"] * (kept < 2 / 3)
    said += [f"fills {used:.0%} of the frame"] * (used < 2 / 3)
    said += [f"is enlarged {max(height, width):.2g} times"] * (max(height, width) > 1.5 and fit != "auto")
    other = "fit='auto' takes a size that suits"
    own = "the other videos have another shape or size; give it a dataset of its own"
    return [f"{' and '.join(said)} by fit={fit!r}; {own if fit == 'auto' else other}"] if said else []


def _describe_skipped(skipped: Iterable[Skipped]) -> list[str]:
    def kind(one: Skipped) -> tuple[str, str]:
        return one.reason, one.name.rpartition("/")[0]

    skipped = list(skipped)
    lines = [f"skipped: {one.name}: {one.reason}" for one in skipped if one.is_video]
    for (reason, _), group in groupby(sorted((one for one in skipped if not one.is_video), key=kind), kind):
        names = [one.name for one in group]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        lines.append(f"left out: {', '.join(names[:MOST_NAMES])}{more}: {reason}")
    return lines


def _walk(source: Path) -> tuple[list[Path], list[Skipped]]:
    """The videos below a folder, sorted, and what else there is."""
    videos, others, seen = [], [], {}
    real = os.path.realpath(source)
    folders, linked = [source], []

    def leave(path: Path, reason: str, is_video: bool = False) -> None:
        inside = sum(len(files) for *_, files in os.walk(path)) if is_hidden(path.name) and not path.is_symlink() else 0
        name = printable(path.relative_to(source)) + (f" ({counted(inside, 'file')})" if inside else "")
        others.append(Skipped(name, reason, is_video))

    while folders or linked:  # linked ones last: what is both in the source and linked to keeps its own name
        folder = folders.pop() if folders else linked.pop(0)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            pictures = folder.name == "frames" and folder != source and any(map(is_picture, os.listdir(folder)))
        except OSError as error:
            leave(folder, f"{printable(folder)}: expected a folder, can't be opened ({error.strerror})", is_video=True)
            continue
        place = os.path.realpath(folder)
        same = seen.get((place, pictures)) or (
            source if f"{real}{os.sep}".startswith(os.path.join(place, "")) else folder
        )
        if same != folder:
            leave(folder, f"the same folder as {printable(same)}, or one around it, and read there")
            continue
        seen[place, pictures] = folder
        if pictures:
            videos.append(folder.parent)
        for entry in entries:
            path, link = folder / entry.name, entry.is_symlink()
            is_folder = os.path.isdir(path) if link else entry.is_dir()
            if is_folder and not is_hidden(entry.name):
                (linked if link else folders).append(path)
            elif not (what := _what_else(path, entry)):
                videos.append(path)
            elif not (pictures and (is_picture(entry.name) or entry.name == ORIGIN)):
                leave(path, what)
    there = set(videos)
    for path in [path for path in there if path.suffix.lower() == ".zip" and path.with_suffix("") in there]:
        there.remove(path)
        leave(path, "a .zip beside a folder of pictures of its name, which is used")
    return sorted(there), others


def _what_else(path: Path, entry: os.DirEntry) -> str:
    """What is no video, by its name; "" for one."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if is_hidden(entry.name):
        return "hidden, trash or the system's own"
    # A link to nothing goes on, to be a video that can't be opened.
    if not entry.is_file(follow_symlinks=False) and os.path.exists(path) and not os.path.isfile(path):
        return "no file but a pipe, a socket or a device"
    if suffix in VIDEO_SUFFIXES or suffix == ".zip":
        return ""
    if is_picture(entry.name):
        return "a picture, but not in a folder <name>/frames/"
    if suffix in ARCHIVES:
        return "an archive of a kind that isn't read; unpack it"
    return "no video or picture of a kind that is read, by its name"


def _bare_name(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
