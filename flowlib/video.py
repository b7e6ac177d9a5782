"""Videos in, frames out, and back. The only module that knows a codec.

A video is a file that FFmpeg reads, a folder `<name>/frames/` of numbered pictures, or a .zip of such a folder.
All three give uint8 RGB frames [H W 3], upright, with square pixels. Knows nothing of clips, trackers or shards.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from flowlib.geometry import FitRule, Size, fit_frame
from flowlib.workspace import atomic_write, sha256_file

VIDEO_SUFFIXES = frozenset(".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split())
IMAGE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .webp".split())
SMALLEST_SIDE = 16  # pixels; below that there is nothing to track
FRAMES_FPS = 25.0  # assumed for pictures, which carry no frame rate

Frame = UInt8[np.ndarray, "H W 3"]
Clip = UInt8[np.ndarray, "S H W 3"]


class VideoError(ValueError):
    """A video that can't be used. The message is one sentence that starts with the file."""


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
        return cls(**content | {"size": tuple(content["size"])})


@dataclass(frozen=True)
class Skipped:
    """A video that is left out, and why: one sentence."""

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
        return {_bare_name(source): source}
    paths = sorted(path for path in source.rglob("*") if _is_video(path, source))
    if not paths:
        expected = "video files, <name>/frames/ folders of pictures, or .zip files of these"
        raise FileNotFoundError(f"source: expected {expected} in {source}, found none")
    bare = [path.relative_to(source).with_name(_bare_name(path)).as_posix() for path in paths]
    full = [path.relative_to(source).as_posix() for path in paths]
    return {short if bare.count(short) == 1 else long: path for short, long, path in zip(bare, full, paths)}


def probe(path: str | Path, name: str = "") -> Video:
    """Decode a video once to its end and say what it is.

    Raises:
        VideoError: it can't be opened, holds no picture, is smaller than 16 pixels, breaks off, or a frame is corrupt.
    """
    path = Path(path)
    with _opened(path) as reader:
        count, size = 0, None
        for frame in reader:
            size = size or frame.size
            if frame.size != size:
                raise VideoError(f"{path}: expected frames of one size, got {size} and then {frame.size}")
            count += 1
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
    video: Video | str | Path, start: int = 0, stop: int | None = None, step: int = 1
) -> Iterator[Frame]:
    """Decode the frames `start`, `start+step`, … before `stop` in order, at the video's own size.

    Frames before `start` are decoded but not converted: exact for every codec, and cheap beside tracking.
    """
    path = Path(video.path if isinstance(video, Video) else video)
    with _opened(path) as reader:
        for frame in islice(reader, start, stop, step):
            yield frame.read()


def read_frames(
    video: Video | str | Path, indices: Iterable[int], size: Size | None = None, fit: FitRule = "crop"
) -> Clip:
    """The frames with the given ascending indices, brought to `size` by the rule `fit` (see `geometry.fit_frame`).

    Raises:
        VideoError: the video has fewer frames.
    """
    wanted = list(indices)
    if not wanted or wanted != sorted(set(wanted)) or wanted[0] < 0:
        raise ValueError(f"indices: expected ascending frame numbers from 0, got {wanted}")
    path = Path(video.path if isinstance(video, Video) else video)
    with _opened(path) as reader:
        numbered = ((i, frame) for i, frame in enumerate(islice(reader, wanted[-1] + 1)) if i in set(wanted))
        frames = [resize_frame(frame.read(), size, fit) for _, frame in numbered]
    if len(frames) < len(wanted):
        raise VideoError(f"{path}: expected at least {wanted[-1] + 1} frames, not all of them are there")
    return np.stack(frames)


def resize_frame(frame: Frame, size: Size | None, fit: FitRule = "crop") -> UInt8[np.ndarray, "height width 3"]:
    """Bring one frame to `size` (height, width); None leaves it as it is."""
    if size is None or frame.shape[:2] == tuple(size):
        return frame
    placed = fit_frame(frame.shape[:2], size, fit)
    top, left, height, width = placed.source_box
    cut = frame[top : top + height, left : left + width]
    top, left, height, width = placed.target_box
    shrinks = height < cut.shape[0] or width < cut.shape[1]
    resized = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if (height, width) == tuple(size):
        return resized
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = resized
    return canvas


def encode_image(frame: Frame, kind: str = "jpeg", quality: int = 95) -> bytes:
    """One frame as JPEG (full colour resolution, 4:4:4) or lossless WebP bytes, by `kind`: "jpeg", "webp"."""
    if kind == "jpeg":
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
    elif kind == "webp":
        suffix, options = ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]  # above 100: lossless
    else:
        raise ValueError(f"kind: expected 'jpeg' or 'webp', got {kind!r}")
    done, data = cv2.imencode(suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
    assert done, f"OpenCV could not encode a {frame.shape} frame as {kind}"
    return data.tobytes()


def decode_image(data: bytes | np.ndarray) -> Frame:
    """The uint8 RGB frame [H W 3] that image bytes (JPEG, PNG, WebP, BMP) hold; `ValueError` if they hold none."""
    buffer = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if buffer.size else None
    if image is None:
        raise ValueError(f"expected the bytes of a picture, got {buffer.size} bytes that are none")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    fps: float = 10.0,
    lossless: bool = False,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> Path:
    """Write frames as .gif or as H.264 video (.mp4, .mkv, .mov), atomically.

    Args:
        path: the suffix decides the format.
        frames: [S H W 3] or any iterable of [H W 3] uint8 of one size; H.264 loses an odd last row or column.
        fps: frames a second.
        lossless: keep every RGB value exactly (H.264 in RGB, which browsers don't play).
        progress: wraps the frames while they are written, for example `Progress`.
    """
    path = Path(path)
    frames = iter(progress(frames) if progress else frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: expected at least one frame to write, got none")
    writers = {".gif": _write_gif, ".mp4": _write_h264, ".mkv": _write_h264, ".mov": _write_h264}
    if path.suffix.lower() not in writers:
        raise ValueError(f"{path}: expected a name ending in {', '.join(writers)}")
    with atomic_write(path) as temporary:
        writers[path.suffix.lower()](temporary, path.suffix.lower(), first, frames, fps, lossless)
    return path


def write_frames(
    videos: Iterable[Video],
    folder: str | Path,
    *,
    layout: str = "folder",
    quality: int = 95,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> list[Path]:
    """Write videos as numbered pictures, for those who work with frames; `find_videos` reads them back as videos.

    Args:
        videos: which.
        folder: where `<name>/frames/00000.jpg …` or `<name>.zip` (of the same) go.
        layout: "folder", "zip", "both", or "none" to write nothing. A mounted Drive wants few, large files: "zip".
        quality: of the JPEGs, 1 to 100.
        progress: wraps the videos, for example `Progress`.

    Returns:
        What was written or was there already: an interrupted call goes on where it stopped.
    """
    if layout not in ("none", "folder", "zip", "both"):
        raise ValueError(f"layout: expected none, folder, zip or both, got {layout!r}")
    written = []
    for video in (progress(videos) if progress else videos) if layout != "none" else ():
        if layout in ("folder", "both"):
            written.append(_write_pictures(video, Path(folder) / video.name, quality))
        if layout in ("zip", "both"):
            written.append(_write_archive(video, Path(folder) / f"{video.name}.zip", quality))
    return written


def _write_pictures(video: Video, target: Path, quality: int) -> Path:
    paths = [target / "frames" / f"{i:05d}.jpg" for i in range(video.num_frames)]
    first = next((i for i, path in enumerate(paths) if not path.exists()), video.num_frames)
    if first < video.num_frames:
        for path, frame in zip(paths[first:], iterate_frames(video, start=first)):
            with atomic_write(path) as temporary:
                temporary.write_bytes(encode_image(frame, quality=quality))
    return target


def _write_archive(video: Video, target: Path, quality: int) -> Path:
    if not target.exists():
        with atomic_write(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for i, frame in enumerate(iterate_frames(video)):
                archive.writestr(f"{Path(video.name).name}/frames/{i:05d}.jpg", encode_image(frame, quality=quality))
    return target


def middle_frames(videos: Iterable[Video], size: Size, fit: FitRule = "crop") -> list[np.ndarray]:
    """The frame in the middle of each video, at `size`: what a contact sheet shows."""
    return [read_frames(video, [video.num_frames // 2], size, fit)[0] for video in videos]


def describe_videos(videos: Iterable[Video], skipped: Iterable[Skipped] = ()) -> str:
    """A line for each video, and for each that is left out its reason."""
    lines = [
        f"{video.name}: {video.size[1]}×{video.size[0]}, {video.fps:.4g} frames/s, {video.num_frames} frames"
        for video in videos
    ]
    left_out = [f"left out: {one.name}: {one.reason}" for one in skipped]
    return "\n".join([*lines, *left_out, f"{len(lines)} videos, {len(left_out)} left out"])


def _write_gif(path: Path, suffix: str, first: Frame, rest: Iterator[Frame], fps: float, lossless: bool) -> None:
    from PIL import Image  # a palette fitted to each frame; FFmpeg's own GIF palette is a fixed one

    options = {"duration": max(20, round(1000 / fps)), "loop": 0}
    Image.fromarray(first).save(
        path, format="GIF", save_all=True, append_images=(Image.fromarray(frame) for frame in rest), **options
    )


def _write_h264(path: Path, suffix: str, first: Frame, rest: Iterator[Frame], fps: float, lossless: bool) -> None:
    height, width = first.shape[:2]
    if not lossless:
        height, width = height // 2 * 2, width // 2 * 2
    container_format = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}[suffix]
    with av.open(str(path), "w", format=container_format) as container:
        rate = Fraction(fps).limit_denominator(10000)
        stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=rate)
        stream.height, stream.width = height, width
        stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        stream.options = {"crf": "0" if lossless else "18", "preset": "medium"}
        for frame in chain([first], rest):
            cut = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        container.mux(stream.encode())


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


@contextmanager
def _opened(path: Path) -> Iterator[_FileReader | _PictureReader]:
    """The reader for whatever kind of video `path` is; what FFmpeg or zip can't read becomes a `VideoError`."""
    try:
        if path.is_dir():
            yield _PictureReader(path, {entry.name: entry.read_bytes for entry in (path / "frames").iterdir()})
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                yield _PictureReader(path, {name: partial(archive.read, name) for name in names})
        else:
            with av.open(str(path)) as container:
                yield _FileReader(path, container)
    except (FileNotFoundError, av.FileNotFoundError) as error:
        raise VideoError(f"{path}: expected a video, found nothing there") from error
    except (av.FFmpegError, zipfile.BadZipFile, zlib.error) as error:
        raise VideoError(
            f"{path}: expected a video, can't be decoded ({getattr(error, 'strerror', None) or error})"
        ) from error


@dataclass(frozen=True)
class _Decoded:
    """A frame that is decoded but not yet converted, for whoever may not need its pixels."""

    size: Size
    read: Callable[[], np.ndarray]


class _FileReader:
    """The frames of a video file, upright and with square pixels."""

    def __init__(self, path: Path, container: av.container.InputContainer) -> None:
        if not container.streams.video:
            raise VideoError(f"{path}: expected a video, got a file without a picture stream")
        self.path, self.container, self.stream = path, container, container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self.promised = self.stream.frames
        self.fps = float(self.stream.average_rate or self.stream.guessed_rate or FRAMES_FPS)

    def __iter__(self) -> Iterator[_Decoded]:
        for number, frame in enumerate(self.container.decode(self.stream)):
            if frame.is_corrupt:
                raise VideoError(f"{self.path}: frame {number} is corrupt")
            aspect = self.stream.sample_aspect_ratio or 1  # width of a stored pixel over its height
            size = (frame.height, max(1, round(frame.width * aspect)))
            turned = size[::-1] if frame.rotation % 180 else size
            yield _Decoded(turned, partial(self._read, frame, size))

    @staticmethod
    def _read(frame: av.VideoFrame, size: Size) -> np.ndarray:
        pixels = resize_frame(frame.to_ndarray(format="rgb24"), size, "stretch")
        return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))

    def fingerprint(self) -> str:
        return sha256_file(self.path)


class _PictureReader:
    """The frames of a folder or .zip of pictures, in the order of the numbers in their names."""

    fps = FRAMES_FPS

    def __init__(self, path: Path, entries: dict[str, Callable[[], bytes]]) -> None:
        pictures = [name for name in entries if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        folders = {Path(name).parent for name in pictures}
        if len(folders) > 1:
            raise VideoError(f"{path}: expected the pictures of one video, got {len(folders)} folders of pictures")
        self.path, self.entries, self.names = path, entries, sorted(pictures, key=_by_number)
        self.promised = len(self.names)

    def __iter__(self) -> Iterator[_Decoded]:
        for name in self.names:
            try:
                pixels = decode_image(self.entries[name]())
            except ValueError as error:
                raise VideoError(f"{self.path}: {name} is not a picture that can be read") from error
            yield _Decoded(pixels.shape[:2], lambda pixels=pixels: pixels)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self.names:
            content = self.entries[name]()
            digest.update(f"{Path(name).name} {len(content)}\n".encode() + content)
        return digest.hexdigest()


def _by_number(name: str) -> list:
    """Sort key that puts 2.jpg before 10.jpg."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
