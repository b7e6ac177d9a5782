"""Readers: the frames of a file, a folder of pictures or a .zip of these, upright and with square pixels.

What FFmpeg or zip can't read becomes a `VideoError`, one sentence that starts with the file. Interlaced video is
deinterlaced, HDR is tone-mapped. Knows nothing of names, sources or clips.

Two limits keep a file from taking the machine. They are environment variables: `FLOWLIB_MAX_PIXELS` of a picture as it
is shown (2²⁶: 8192×8192), and `FLOWLIB_MAX_SECONDS` until the next picture (60). A disk that hangs is not cut short.
"""

from __future__ import annotations

import gc
import hashlib
import lzma
import math
import os
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import av
import av.container
import av.error
import av.filter
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.reformatter import Colorspace

from flowlib.geometry import Size
from flowlib.quantities import counted
from flowlib.video import hdr
from flowlib.video.headers import limit, max_pixels
from flowlib.video.images import in_order, is_picture, resize_frame
from flowlib.video.pictures import decode_whole, without_masks
from flowlib.workspace import sha256_file

THUMBNAIL_SIDE = 256  # pixels of the longer side, at most
LISTS = ("concat", "hls", "dash")  # FFmpeg plays what these name, whose content the file's fingerprint says nothing of
STILL_CODECS = ("bmp", "jpegls", "mjpeg", "png", "tiff", "webp")  # of covers that aren't marked as such
UNSPECIFIED = 2  # FFmpeg's number for a colour tag that is missing
TRANSMITTED = ("mpegts", "mpeg")  # of which parts may be lost on the way: that costs these parts, not the file
FRAMES_FPS = 25.0  # assumed for pictures, which carry no frame rate


# What FFmpeg, OpenCV, zip and the disk throw at content that is damaged, made up or too large; none of it leaves the
# room. RuntimeError: an encrypted entry of a zip and, by a subclass, an unknown compression or version.
LIBRARY_ERRORS = (
    *(ArithmeticError, AssertionError, EOFError, LookupError, MemoryError, OSError, RuntimeError, ValueError),
    *(av.error.FFmpegError, cv2.error, lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error),
)


# FFmpeg's decoders and converters have threads, which a forked process (a DataLoader's worker) lacks: if one is thrown
# away there it waits for them for ever. What is garbage (frames, by the traceback of an error) goes before the fork.
_opened: list[Path] = []  # since garbage was collected last; collecting takes a tenth of a second


def _collect() -> None:
    if _opened:
        _opened.clear()
        gc.collect()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_collect)


class VideoError(ValueError):
    """A video that can't be used. The message is one sentence that starts with the file."""


@contextmanager
def open_video(path: Path) -> Iterator[FileReader | PictureReader]:
    """The reader for whatever kind of video `path` is; what FFmpeg, zip or the disk can't read is a `VideoError`."""
    if printable(path) != str(path):
        raise VideoError(f"{printable(path)}: expected a name in UTF-8; rename it")
    max_pixels()
    max_seconds()  # a limit that can't be read is not the file's fault
    _opened[:] = [path]
    with ExitStack() as stack:
        with refused(path):
            reader = _open(path, stack)
        yield reader


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Whatever a library throws here is a `VideoError`: one bad file costs that file, never the job."""
    try:
        yield
    except VideoError:
        raise
    except FileNotFoundError as error:
        raise VideoError(f"{path}: expected a video, found nothing there") from error
    except LIBRARY_ERRORS as error:
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        raise VideoError(f"{path}: expected a video, can't be decoded ({reason})") from error


def max_seconds() -> int:
    return limit("FLOWLIB_MAX_SECONDS", 60)


def check_pixels(what: str, height: int, width: int) -> None:
    """Raise `VideoError` for a picture of more pixels than `FLOWLIB_MAX_PIXELS`."""
    if height * width > max_pixels():
        raise VideoError(
            f"{what}: expected pictures of at most {max_pixels():,} pixels, got {width}×{height}; "
            "make it smaller, or set FLOWLIB_MAX_PIXELS"
        )


def _open(path: Path, stack: ExitStack) -> FileReader | PictureReader:
    if path.is_dir():
        entries = (path / "frames").iterdir()
        pictures = {printable(Path(entry.name)): partial(_open_picture, entry) for entry in entries}
        return PictureReader(path, pictures)
    if path.exists() and not path.is_file():  # opening a pipe waits until somebody writes into it
        raise VideoError(f"{path}: expected a file or a folder, got a pipe, a socket or a device")
    if path.suffix.lower() == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(path))
        names = [name for name in archive.namelist() if not name.endswith("/")]
        # Some programs of Windows write a\b.jpg, which elsewhere would be one name.
        entries = {name.replace("\\", "/"): partial(_open_entry, archive, name) for name in names}
        return PictureReader(path, entries)
    # Absolute, since FFmpeg takes what comes before a colon for a protocol. A title may be in any encoding.
    titles: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    return FileReader(
        path, stack.enter_context(av.open(os.path.abspath(path), timeout=(max_seconds(), None), **titles))
    )


def _open_picture(path: Path) -> IO[bytes]:
    if path.exists() and not path.is_file():
        raise OSError("expected a file, got a folder, a pipe or a device")
    _check_bytes(path.stat().st_size)
    return path.open("rb")


def _open_entry(archive: zipfile.ZipFile, name: str) -> Any:
    _check_bytes(archive.getinfo(name).file_size)
    return archive.open(name)


def _check_bytes(size: int) -> None:
    if size > (most := 8 * max_pixels()):  # four channels of 16 bits
        raise OSError(f"expected at most the {most:,} bytes of a picture, got {size:,}; set FLOWLIB_MAX_PIXELS")


@dataclass(frozen=True)
class DecodedFrame:
    """A frame that is decoded but not yet converted, for whoever may not need its pixels."""

    size: Size
    read: Callable[[], np.ndarray]
    thumbnail: Callable[[], np.ndarray]  # uint8 [h w 3]; cheap, and not turned upright
    grey: Callable[[], np.ndarray]  # uint8 [H W], as stored
    time: float | None = None  # seconds at which it is shown, if the file says so


class FileReader:
    """The frames of a video file, upright and with square pixels.

    Attributes:
        kind: FFmpeg's name of the container.
        fps: frames a second, as the file says.
        duration: seconds of the whole file, sound too, as it says; 0 if it doesn't.
        notes: what is unusual, one sentence each. Complete when the frames are read to their end, as is
        damaged: spans of time (start, stop in seconds) of which data is missing, each to the next whole picture.
    """

    def __init__(self, path: Path, container: av.container.InputContainer) -> None:
        covers = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [one for one in container.streams.video if one.codec_context and not one.disposition & covers]
        if not streams:
            raise VideoError(f"{path}: expected a video, got a file without a picture stream that can be decoded")
        self.kind = container.format.name
        if self.kind in LISTS:
            raise VideoError(f"{path}: expected a video, got a list of other files ({self.kind})")
        moving = [one for one in streams if one.frames != 1 and one.codec_context.name not in STILL_CODECS] or streams
        self.path, self.container, self.stream = path, container, moving[0]
        check_pixels(str(path), self.stream.codec_context.height, self.stream.codec_context.width)
        most = min(max_pixels() + 2**20, 2**31 - 1)  # for a picture that grows on the way; coded sizes are rounded up
        self.stream.codec_context.options = {"max_pixels": str(most)}
        self.stream.thread_type = "AUTO"
        self.fps = float(self.stream.average_rate or self.stream.guessed_rate or FRAMES_FPS)
        self.duration = (container.duration or 0) / av.time_base
        self.damaged: list[tuple[float, float]] = []
        self.notes = [f"holds {len(moving)} videos; the first is read"] if len(moving) > 1 else []
        self.packets = self.slots = self.since_loss = 0
        self.keys: list[float] = []  # when whole pictures are shown

    def __iter__(self) -> Iterator[DecodedFrame]:
        corrupt: list[float] = []
        with refused(self.path):
            for number, frame in enumerate(self._deinterlace(self._decode())):
                if frame.is_corrupt:
                    if self.kind not in TRANSMITTED or frame.time is None:
                        raise VideoError(f"{self.path}: frame {number} is corrupt")
                    corrupt.append(frame.time)
                aspect = self.stream.sample_aspect_ratio or 1  # width of a stored pixel over its height
                size = (frame.height, max(1, round(frame.width * aspect)))
                if aspect != 1:
                    check_pixels(f"{self.path}, with stored pixels of {aspect.numerator}:{aspect.denominator}", *size)
                turn = _turn_of(frame)
                shown = (size[1], size[0]) if turn.transposes else size
                if number == 0:
                    self._note(frame, turn)
                read, small = partial(self._read, frame, size, turn), partial(self._thumbnail, frame)
                yield DecodedFrame(shown, read, small, partial(self._grey, frame), frame.time)
        self.damaged += [(at, min((key for key in self.keys if key > at), default=math.inf)) for at in corrupt]

    def expected(self, count: int) -> int:
        """How many frames the file promises, when it gave `count`: more, if it breaks off."""
        if self.kind.startswith("mov"):  # what an edit list cuts away is not in the index, or marked
            listed = sum(1 for entry in self.stream.index_entries if entry.size and not entry.is_discard)
            promised, got = listed, self.packets
        elif self.kind != "avi":
            promised, got = self.stream.frames, self.packets
        elif self._ends_where_it_says():
            return count
        else:  # the header counts pictures that are empty, too
            promised, got = self.stream.frames, self.slots
        if not 0 < got < promised:
            return count
        return promised if got < 1.5 * count else round(count * promised / got)  # a packet may hold one field only

    def fingerprint(self) -> str:
        with refused(self.path):
            return sha256_file(self.path)

    def _ends_where_it_says(self) -> bool:
        """Whether an AVI is of one part, up to 1 or 2 GB, and all of it is there."""
        with self.path.open("rb") as file:
            says = struct.unpack("<4xI", file.read(8))[0]
        return 0 <= self.path.stat().st_size - 8 - says < 2**20

    def _decode(self) -> Iterator[av.VideoFrame]:
        patience, asked = max_seconds(), time.monotonic()
        for packet in self.container.demux(self.stream):
            if packet.size and not packet.is_discard:
                self.packets, self.slots = self.packets + 1, max(self.slots, (packet.pts or 0) + 1)
            if self.kind in TRANSMITTED:
                self._watch(packet)
            for frame in packet.decode():
                yield frame
                asked = time.monotonic()
            if time.monotonic() - asked > patience:
                raise VideoError(
                    f"{self.path}: expected a picture within {patience} s, got none; "
                    "convert it, or set FLOWLIB_MAX_SECONDS"
                )

    def _watch(self, packet: av.Packet) -> None:
        """Note what is missing: from a packet of which data was lost to the next whole picture."""
        self.since_loss = 0 if packet.is_corrupt else self.since_loss + 1
        open_end = bool(self.damaged) and self.damaged[-1][1] == math.inf
        # A loss is marked where it is found: the packet after may miss its beginning.
        if packet.is_keyframe and packet.pts is not None and self.since_loss > 1:
            self.keys.append(float(packet.pts * packet.time_base))
            if open_end:
                self.damaged[-1] = (self.damaged[-1][0], self.keys[-1])
        when = packet.pts if packet.dts is None else packet.dts
        if packet.is_corrupt and not open_end:
            self.damaged.append((-math.inf if when is None else float(when * packet.time_base), math.inf))

    def _deinterlace(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """From the first interlaced frame on through FFmpeg's filter, which leaves frames alone that aren't."""
        graph = None
        for frame in frames:
            if graph is None and frame.interlaced_frame:
                graph = _deinterlacer(self.stream)
                self.notes.append(
                    "is interlaced; deinterlaced to one frame from two fields. "
                    "For a frame from each field: ffmpeg -i … -vf bwdif=mode=send_field …"
                )
            if graph is None:
                yield frame
            else:
                graph.push(frame)
                yield from _pull(graph)
        if graph is not None:
            graph.push(None)
            yield from _pull(graph)

    def _note(self, frame: av.VideoFrame, turn: Turn) -> None:
        if frame.color_trc in hdr.NAMES:
            self.notes.append(
                f"is HDR ({hdr.NAMES[frame.color_trc]}); tone-mapped to SDR. To grade it otherwise, convert it yourself"
            )
            self._thumbnail(frame)  # whether its colours can be read at all
        if turn.angle:
            self.notes.append(
                f"is turned by {turn.angle:.0f}°, with black corners; crop it yourself to be rid of these"
            )

    def _read(self, frame: av.VideoFrame, size: Size, turn: Turn) -> np.ndarray:
        with refused(self.path):
            return turn(resize_frame(_to_rgb(frame), size, "stretch"))

    def _grey(self, frame: av.VideoFrame) -> np.ndarray:
        with refused(self.path):
            if not frame.format.name.startswith(("yuv420p", "yuvj420p")) or frame.format.bits_per_pixel != 12:
                return frame.to_ndarray(format="gray")
            plane = frame.planes[0]  # the same, without a copy
            return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
                : frame.height, : frame.width
            ]

    def _thumbnail(self, frame: av.VideoFrame) -> np.ndarray:
        height, width = _thumbnail_size((frame.height, frame.width))
        with refused(self.path):
            return _to_rgb(frame, width=width, height=height, interpolation="AREA")


@dataclass(frozen=True)
class Turn:
    """How stored pixels are brought upright: rows and columns swapped, then mirrored, then turned by an odd angle."""

    transposes: bool = False
    flips_rows: bool = False
    flips_columns: bool = False
    angle: float = 0.0  # degrees, clockwise

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.swapaxes(0, 1) if self.transposes else pixels
        pixels = np.ascontiguousarray(pixels[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1])
        if not self.angle:
            return pixels
        height, width = pixels.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -self.angle, 1.0)
        return cv2.warpAffine(pixels, matrix, (width, height))


def _turn_of(frame: av.VideoFrame) -> Turn:
    """As the ffmpeg program does it."""
    try:
        data: Any = cast("Mapping[SideData, Any]", frame.side_data).get(SideData.DISPLAYMATRIX)
    except (LookupError, ValueError):  # there is other data beside the frame of a kind that PyAV doesn't know
        turn = math.radians(-frame.rotation)
        a, b, c, d = math.cos(turn), math.sin(turn), -math.sin(turn), math.cos(turn)
    else:
        if data is None:
            return Turn()
        a, b, _, c, d = struct.unpack_from("=5i", bytes(data))  # x' = ax + cy, y' = bx + dy
    if not (a or c) or not (b or d):
        return Turn()
    angle = math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c)))
    quarters = round(angle / 90)
    if abs(angle - 90 * quarters) > 1:
        return Turn(angle=angle)
    return Turn(True, b < 0, c < 0) if quarters % 2 else Turn(False, d < 0, a < 0)


def _deinterlacer(stream: av.VideoStream) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pull(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield cast(av.VideoFrame, graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _to_rgb(frame: av.VideoFrame, **options) -> np.ndarray:
    """uint8 [h w 3]"""
    if frame.color_trc in hdr.NAMES:
        if frame.colorspace == UNSPECIFIED and not frame.format.is_rgb:
            options["src_colorspace"] = Colorspace.BT2020
        primaries = 9 if frame.color_primaries == UNSPECIFIED else frame.color_primaries
        return hdr.tone_map(frame.to_ndarray(format="rgb48le", **options), frame.color_trc, primaries)
    # Without a tag, high definition is BT.709, as players take it; FFmpeg would take it for BT.601.
    if frame.colorspace == UNSPECIFIED and not frame.format.is_rgb and is_hd(frame.height, frame.width):
        options["src_colorspace"] = Colorspace.ITU709
    return frame.to_ndarray(format="rgb24", **options)


def is_hd(height: int, width: int) -> bool:
    return width >= 1280 or height > 576


class PictureReader:
    """The frames of a folder or .zip of pictures, in the order of the numbers in their names."""

    kind, fps, duration = "pictures", FRAMES_FPS, 0.0

    def __init__(self, path: Path, entries: dict[str, Callable[[], IO[bytes]]]) -> None:
        all_pictures = [name for name in entries if is_picture(name)]
        pictures = without_masks(all_pictures)
        stems = Counter(os.path.splitext(name)[0] for name in pictures)
        if twice := [name for name in sorted(pictures) if stems[os.path.splitext(name)[0]] > 1]:
            raise VideoError(f"{path}: expected one picture a frame, got {twice[0]} and {twice[1]}; move one kind away")
        folders = {Path(name).parent for name in pictures}
        if len(folders) > 1:
            raise VideoError(
                f"{path}: expected the pictures of one video, got {len(folders)} folders of pictures; unpack it"
            )
        if not pictures:
            raise VideoError(f"{path}: expected pictures, found none among {len(entries)} files; unpack it")
        self.path, self.entries, self.names = path, entries, in_order(pictures)
        masks = len(all_pictures) - len(pictures)
        self.notes = [f"has {counted(masks, 'mask')} beside its pictures, by the names; left out"] * bool(masks)
        self.damaged: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[DecodedFrame]:
        peaks = []
        for name in self.names:
            try:
                pixels, peak = decode_whole(self._read(name))
            except VideoError:
                raise
            except LIBRARY_ERRORS as error:
                raise VideoError(f"{self.path}: {name} is not a picture that can be read ({error})") from error
            peaks.append(peak)
            small = partial(resize_frame, pixels, _thumbnail_size(pixels.shape[:2]), "stretch")
            yield DecodedFrame(
                pixels.shape[:2], lambda pixels=pixels: pixels, small, lambda pixels=pixels: pixels[..., 1]
            )
        # All of them, for a dark frame may be dark: cameras' 10, 12 or 14 bits shown as 16 are black or nearly so.
        most = max((peak for peak in peaks if peak is not None), default=0)
        bits = most.bit_length()
        if bits and None not in peaks and (bits <= 12 or most == 2**bits - 1):
            advice = f"multiply them by {2 ** (16 - bits)}, or write 8 bits"
            raise VideoError(f"{self.path}: expected 16 bits a value, got pictures that use {bits} of 16; {advice}")

    def expected(self, count: int) -> int:
        return len(self.names)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self.names:
            content = self._read(name)
            digest.update(f"{Path(name).name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def _read(self, name: str) -> bytes:
        try:
            with self.entries[name]() as file:
                return file.read()
        except LIBRARY_ERRORS as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise VideoError(f"{self.path}: {name} can't be read ({reason})") from error


def printable(path: Path) -> str:
    """The path as text that can be printed and stored; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _thumbnail_size(size: Size) -> Size:
    shrink = min(1.0, THUMBNAIL_SIDE / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))
