"""Readers: the frames of a file, a folder of pictures or a .zip of these, upright and with square pixels.

What FFmpeg or zip can't read becomes a `VideoError`, one sentence that starts with the file. Knows nothing of names,
sources or clips.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import av.container
import av.error
import numpy as np

from flowlib.geometry import Size
from flowlib.video.images import resize_frame
from flowlib.video.pictures import decode_whole, without_masks
from flowlib.workspace import sha256_file

IMAGE_SUFFIXES = frozenset([".bmp", ".jpeg", ".jpg", ".png", ".webp"])
THUMBNAIL_SIDE = 256  # pixels of the longer side, at most
LISTS = ("concat", "hls", "dash")  # FFmpeg plays what these name, whose content the file's fingerprint says nothing of
FRAMES_FPS = 25.0  # assumed for pictures, which carry no frame rate


class VideoError(ValueError):
    """A video that can't be used. The message is one sentence that starts with the file."""


@contextmanager
def open_video(path: Path) -> Iterator[FileReader | PictureReader]:
    """The reader for whatever kind of video `path` is; what FFmpeg, zip or the disk can't read is a `VideoError`."""
    if printable(path) != str(path):
        raise VideoError(f"{printable(path)}: expected a name in UTF-8; rename it")
    try:
        if path.is_dir():
            yield PictureReader(path, {entry.name: entry.read_bytes for entry in (path / "frames").iterdir()})
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                yield PictureReader(path, {name: partial(archive.read, name) for name in names})
        else:
            with av.open(str(path)) as container:
                yield FileReader(path, container)
    except (FileNotFoundError, av.error.FileNotFoundError) as error:
        raise VideoError(f"{path}: expected a video, found nothing there") from error
    except (av.error.FFmpegError, zipfile.BadZipFile, OSError) as error:
        raise VideoError(
            f"{path}: expected a video, can't be decoded ({getattr(error, 'strerror', None) or error})"
        ) from error


@dataclass(frozen=True)
class DecodedFrame:
    """A frame that is decoded but not yet converted, for whoever may not need its pixels."""

    size: Size
    read: Callable[[], np.ndarray]
    thumbnail: Callable[[], np.ndarray]  # uint8 [h w 3]; cheap, and not turned upright


class FileReader:
    """The frames of a video file, upright and with square pixels."""

    def __init__(self, path: Path, container: av.container.InputContainer) -> None:
        if not container.streams.video:
            raise VideoError(f"{path}: expected a video, got a file without a picture stream")
        if container.format.name in LISTS:
            raise VideoError(f"{path}: expected a video, got a list of other files ({container.format.name})")
        self.path, self.container, self.stream = path, container, container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self.promised = self.stream.frames
        self.fps = float(self.stream.average_rate or self.stream.guessed_rate or FRAMES_FPS)

    def __iter__(self) -> Iterator[DecodedFrame]:
        for number, frame in enumerate(self.container.decode(self.stream)):
            if frame.is_corrupt:
                raise VideoError(f"{self.path}: frame {number} is corrupt")
            aspect = self.stream.sample_aspect_ratio or 1  # width of a stored pixel over its height
            size = (frame.height, max(1, round(frame.width * aspect)))
            turned = (size[1], size[0]) if frame.rotation % 180 else size
            yield DecodedFrame(turned, partial(self._read, frame, size), partial(self._thumbnail, frame))

    @staticmethod
    def _read(frame: av.VideoFrame, size: Size) -> np.ndarray:
        pixels = resize_frame(frame.to_ndarray(format="rgb24"), size, "stretch")
        return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))

    @staticmethod
    def _thumbnail(frame: av.VideoFrame) -> np.ndarray:
        height, width = _thumbnail_size((frame.height, frame.width))
        return frame.to_ndarray(width=width, height=height, format="rgb24", interpolation="AREA")

    def fingerprint(self) -> str:
        return sha256_file(self.path)


class PictureReader:
    """The frames of a folder or .zip of pictures, in the order of the numbers in their names."""

    fps = FRAMES_FPS

    def __init__(self, path: Path, entries: dict[str, Callable[[], bytes]]) -> None:
        pictures = without_masks([name for name in entries if Path(name).suffix.lower() in IMAGE_SUFFIXES])
        stems = Counter(os.path.splitext(name)[0] for name in pictures)
        if twice := [name for name in sorted(pictures) if stems[os.path.splitext(name)[0]] > 1]:
            raise VideoError(f"{path}: expected one picture a frame, got {twice[0]} and {twice[1]}; move one kind away")
        folders = {Path(name).parent for name in pictures}
        if len(folders) > 1:
            raise VideoError(f"{path}: expected the pictures of one video, got {len(folders)} folders of pictures")
        self.path, self.entries, self.names = path, entries, sorted(pictures, key=_by_number)
        self.promised = len(self.names)

    def __iter__(self) -> Iterator[DecodedFrame]:
        peaks = []
        for name in self.names:
            try:
                pixels, peak = decode_whole(self._read(name))
            except VideoError:
                raise
            except ValueError as error:
                raise VideoError(f"{self.path}: {name} is not a picture that can be read ({error})") from error
            peaks.append(peak)
            small = partial(resize_frame, pixels, _thumbnail_size(pixels.shape[:2]), "stretch")
            yield DecodedFrame(pixels.shape[:2], lambda pixels=pixels: pixels, small)
        # All of them, for a dark frame may be dark: cameras' 10, 12 or 14 bits shown as 16 are black or nearly so.
        most = max((peak for peak in peaks if peak is not None), default=0)
        bits = most.bit_length()
        if bits and None not in peaks and (bits <= 12 or most == 2**bits - 1):
            advice = f"multiply them by {2 ** (16 - bits)}, or write 8 bits"
            raise VideoError(f"{self.path}: expected 16 bits a value, got pictures that use {bits} of 16; {advice}")

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self.names:
            content = self._read(name)
            digest.update(f"{Path(name).name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def _read(self, name: str) -> bytes:
        try:
            return self.entries[name]()
        # RuntimeError: zipfile's word for an encrypted entry and, by a subclass, for one of an unknown compression.
        except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(f"{self.path}: {name} can't be read ({reason})") from error


def printable(path: Path) -> str:
    """The path as text that can be printed and stored; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _thumbnail_size(size: Size) -> Size:
    shrink = min(1.0, THUMBNAIL_SIDE / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))


def _by_number(name: str) -> list:
    """Sort key that puts 2.jpg before 10.jpg."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
