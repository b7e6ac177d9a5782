"""Read clips from an unpacked shard: one file that is memory-mapped, so that a sample costs a copy and no decoding.

    frames      uint8 [F H W 3], each once, however many clips use it
    per clip    float32 tracks [S N 2], float32 queries [N 3], bool visibility [S N], uint8 confidence [S N] if any
    index       JSON: content_sha256 of the shard, size, fit if that is auto, num_frames F, for each clip's key the
                rows of its frames and where its tracks begin, and the keys of the clips with a confidence if there are
                any
    tail        32 bytes: SHA-256 of the index; 8 bytes: length of the index, little-endian; 16 bytes: MAGIC

Written atomically and for the content of one shard, so a killed build leaves whole files and goes on with the next, and
a shard that changes gets a new one. A cache on a local disk: anyone may delete it. What the index says is checked when
the file is opened; pictures and tracks aren't when they are read, which would take longer than reading them.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from flowlib.clips import Clip, ClipSample
from flowlib.dataset.shard_reader import ShardReader, picture_box
from flowlib.geometry import Size
from flowlib.shards import LEVELS
from flowlib.tracks import Tracks
from flowlib.workspace import atomic_write

MAGIC = b"flowlib-unpack-2"  # 1 had no hash
TAIL = 32 + 8 + len(MAGIC)
ALIGNED = 64  # where a clip's arrays begin
POINT = 8 + 1  # bytes of a point in a frame: x and y as float32, and whether it is seen
QUERY = 12  # bytes of t, x and y as float32


class MmapReader:
    """An unpacked shard, mapped for reading. What it gives are copies, so they can be written and outlive it.

    Attributes:
        path: the file.
        size: (H, W) of its frames.
        content_sha256: of the shard it was made from.

    Raises:
        ValueError: the file is no whole unpacked shard.
        FileNotFoundError: there is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open(self.path, "rb") as file:
            index = _read_index(file, self.path.stat().st_size)
            if index is None:
                raise ValueError(f"{self.path}: expected an unpacked shard, got another file or a part of one")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.size: Size = tuple(index["size"])
        self.fit = str(index.get("fit", "crop"))
        self.content_sha256, self._clips = index["content_sha256"], index["clips"]
        self._confident = frozenset(index.get("confident", ()))
        self._frames = np.ndarray((index["num_frames"], *self.size, 3), np.uint8, self._bytes)

    def read(self, clip: Clip) -> ClipSample:
        """One of its clips, whole."""
        rows, _ = self._clips[clip.key]
        frames, box = np.take(self._frames, rows, axis=0), picture_box(clip, self.size, self.fit)
        return ClipSample(clip, frames, self.tracks(clip), box=box)

    def tracks(self, clip: Clip) -> Tracks:
        """The tracks of one of its clips."""
        (_, offset), S, N = self._clips[clip.key], clip.num_frames, clip.num_points
        parts, kinds = [], [(np.float32, (S, N, 2)), (np.float32, (N, 3)), (np.bool_, (S, N))]
        kinds += [(np.uint8, (S, N))] if clip.key in self._confident else []
        for dtype, shape in kinds:
            mapped = np.ndarray(shape, dtype, self._bytes, offset)
            parts.append(mapped.copy())
            offset += mapped.nbytes
        tracks, queries, visibility, *confidence = parts
        return Tracks(tracks, visibility, queries, *(levels.astype(np.float32) / LEVELS for levels in confidence))


def unpacked_bytes(reader: ShardReader) -> int:
    """How many bytes a shard takes unpacked, the index and gaps aside."""
    clips, (height, width) = reader.shard.clips, reader.size
    confident = sum(clip.num_points * clip.num_frames for clip in clips if reader.shard.has_confidence(clip))
    return len(_pictures(clips)) * height * width * 3 + sum(map(_tracks_bytes, clips)) + confident


def unpack(path: str | Path, target: str | Path, *, advance: Callable[[int], object] = lambda count: None) -> Path:
    """Unpack a shard, atomically.

    Args:
        path: the shard.
        target: the file to make.
        advance: called with the bytes written, again and again.

    Raises:
        ShardError: the shard is damaged.
        OSError: `target` can't be written; there is none then.
    """
    reader = ShardReader(path)
    pictures, places = _pictures(reader.shard.clips), {}
    rows = {name: row for row, name in enumerate(pictures)}
    with atomic_write(target) as temporary, open(temporary, "wb") as file:
        for clip, index in pictures.values():
            advance(file.write(reader.frame(clip, index).data))
        for clip in reader.shard.clips:
            file.write(bytes(-file.tell() % ALIGNED))
            places[clip.key] = [rows[name] for name in _names(clip)], file.tell()
            advance(_write_tracks(file, reader, clip))
        about = {"content_sha256": reader.content_sha256, "size": reader.size, "num_frames": len(rows)}
        if reader.fit == "auto":
            about["fit"] = reader.fit
        if confident := [clip.key for clip in reader.shard.clips if reader.shard.has_confidence(clip)]:
            about["confident"] = confident
        content = json.dumps(about | {"clips": places}).encode()
        file.write(content + hashlib.sha256(content).digest() + len(content).to_bytes(8, "little") + MAGIC)
    return Path(target)


def _names(clip: Clip) -> list[tuple[str, int]]:
    """What tells a clip's stored frames from others: the video and the number in it."""
    numbers = clip.frame_numbers
    return [(clip.fingerprint, numbers[index]) for index in clip.kept]


def _pictures(clips: Sequence[Clip]) -> dict[tuple[str, int], tuple[Clip, int]]:
    """Each frame of the clips once, in the order of the video: where it is to be had."""
    found = {name: (clip, index) for clip in clips for name, index in zip(_names(clip), clip.kept)}
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _tracks_bytes(clip: Clip) -> int:
    return clip.num_points * (clip.num_frames * POINT + QUERY)


def _write_tracks(file, reader: ShardReader, clip: Clip) -> int:
    tracks = reader.tracks(clip)
    arrays = [tracks.tracks.astype(np.float32), tracks.queries.astype(np.float32), tracks.visibility]
    if tracks.confidence is not None:
        arrays.append(np.rint(tracks.confidence * LEVELS).astype(np.uint8))
    return sum(file.write(np.ascontiguousarray(array).data) for array in arrays)


def _read_index(file, length: int) -> dict | None:
    """The index of an unpacked shard of `length` bytes, or None if the file is no whole one."""
    if length < TAIL:
        return None
    file.seek(length - TAIL)
    tail = file.read(TAIL)
    begin = length - TAIL - int.from_bytes(tail[32:40], "little")
    if tail[40:] != MAGIC or begin < 0:
        return None
    file.seek(begin)
    content = file.read(length - TAIL - begin)
    return json.loads(content) if hashlib.sha256(content).digest() == tail[:32] else None
