"""Writers: frames as a video or a GIF, and videos as numbered pictures, each atomically."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from flowlib.video.images import Frame, encode_image
from flowlib.video.videos import Video, iterate_frames
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
        What was written or was there already: an interrupted call goes on where it stopped.
    """
    if layout not in ("none", "folder", "zip", "both"):
        raise ValueError(f"layout: expected none, folder, zip or both, got {layout!r}")
    written, folder = [], Path(folder).expanduser()
    for video in (progress(videos) if progress else videos) if layout != "none" else ():
        if layout in ("folder", "both"):
            written.append(_write_pictures(video, folder / video.name, quality))
        if layout in ("zip", "both"):
            written.append(_write_archive(video, folder / f"{video.name}.zip", quality))
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
