"""Writers: frames as a video or a GIF, and videos as numbered pictures, each atomically."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain, count
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

from flowlib.video.images import Frame, encode_image, is_picture
from flowlib.video.reading import is_hd
from flowlib.video.videos import ORIGIN, Video, iterate_frames
from flowlib.workspace import atomic_write


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

    >>> frames = np.zeros((5, 32, 48, 3), np.uint8)
    >>> write_video("black.mp4", frames).name
    'black.mp4'
    """
    path = Path(path).expanduser()
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
        What was written or was there already: an interrupted call goes on where it stopped. Pictures of what a video
        was before, or of another quality, are deleted; what has the place of a video's pictures and wasn't written
        here is renamed to `….old`, with a warning.
    """
    if layout not in ("none", "folder", "zip", "both"):
        raise ValueError(f"layout: expected none, folder, zip or both, got {layout!r}")
    written, folder = [], Path(os.path.expanduser(folder))
    for video in (progress(videos) if progress else videos) if layout != "none" else ():
        target = folder / video.name
        archive = target.with_name(f"{target.name}.zip")
        origin = f"flowlib {video.fingerprint} {video.num_frames} frames {video.size} quality {quality}"
        for path in (target, archive):  # both, whatever the layout: the one that is stale would be taken for the video
            if path.exists() and not _is_itself(path, video):
                _clear_unless(origin, path)
        if layout in ("folder", "both"):
            if not _is_itself(target, video):
                _write_pictures(video, target / "frames", quality, origin)
            written.append(target)
        if layout in ("zip", "both"):
            if not archive.exists():
                _write_archive(video, archive, quality, origin)
            written.append(archive)
    return written


def _is_itself(path: Path, video: Video) -> bool:
    """Whether a video is read from where its pictures would be written."""
    inner = "frames" if Path(video.path).is_dir() else ""
    here, there = path / inner, Path(video.path) / inner
    return here.exists() and there.exists() and os.path.samefile(here, there)


def _clear_unless(origin: str, path: Path) -> None:
    """Keep a folder or .zip of pictures that has this origin, delete another of ours, move away what is not ours."""
    pictures = path / "frames" if path.is_dir() else path
    found = _origin_of(pictures)
    if found == origin:
        return
    if found.startswith("flowlib ") and pictures.is_dir():
        for name in os.listdir(pictures):
            if re.fullmatch(r"\d{5,}\.jpg", name):
                (pictures / name).unlink()
        (pictures / ORIGIN).unlink()  # last: a kill on the way leaves the rest known as ours
        with suppress(OSError):  # something else is there
            pictures.rmdir()
            path.rmdir()
    elif found.startswith("flowlib "):
        pictures.unlink()
    if pictures.is_file() or (pictures.is_dir() and any(map(is_picture, os.listdir(pictures)))):
        old = next(old for i in count(1) if not (old := Path(f"{pictures}.old{i if i > 1 else ''}")).exists())
        os.rename(pictures, old)
        warnings.warn(f"{pictures}: expected pictures written here, found others; they are now {old}", stacklevel=3)


def _origin_of(pictures: Path) -> str:
    try:
        if pictures.is_dir():
            return (pictures / ORIGIN).read_text(encoding="utf-8").strip()
        with zipfile.ZipFile(pictures) as archive:
            return archive.comment.decode(errors="replace")
    except (FileNotFoundError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return ""


def _write_pictures(video: Video, folder: Path, quality: int, origin: str) -> None:
    if _origin_of(folder) != origin:
        with atomic_write(folder / ORIGIN) as temporary:
            temporary.write_text(origin, encoding="utf-8")
    paths = [folder / f"{i:05d}.jpg" for i in range(video.num_frames)]
    first = next((i for i, path in enumerate(paths) if not path.exists()), video.num_frames)
    if first < video.num_frames:
        for path, frame in zip(paths[first:], iterate_frames(video, start=first)):
            with atomic_write(path) as temporary:
                temporary.write_bytes(encode_image(frame, quality=quality))


def _write_archive(video: Video, target: Path, quality: int, origin: str) -> None:
    with atomic_write(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = origin.encode()
        for i, frame in enumerate(iterate_frames(video)):
            archive.writestr(f"{Path(video.name).name}/frames/{i:05d}.jpg", encode_image(frame, quality=quality))


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
        tag = 1 if is_hd(height, width) else 6  # FFmpeg's numbers of BT.709 and BT.601: what players take each size for
        if not lossless:
            about = stream.codec_context
            about.colorspace, about.color_primaries, about.color_trc, about.color_range = tag, tag, tag, 1
        for rgb in chain([first], rest):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
            if not lossless:
                frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709 if tag == 1 else None)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
