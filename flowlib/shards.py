"""The shard: one HDF5 file that holds a run of labelled clips, and is never changed once it is closed.

    attributes   format = "flowlib-shard", version = 1 (2 where a clip has a field), flowlib, tracker and config (JSON),
                 settings_sha256 (of these two), content_sha256
    /index       uint8: JSON, one entry a clip in order: key, video, fingerprint, first_frame, frame_step, num_frames,
                 num_points, kept (the frames of the clip whose pictures are stored), source_size, fps, source_frames
    /frames/<fingerprint>/<number>   uint8: JPEG (q95, 4:4:4) or lossless WebP bytes of one frame at the working size;
                                     a JPEG that would take over 0.41 bytes a pixel, and 95 kB, has a lower quality
    /clips/<key>/queries             float32 [N 3] (t, x, y)
    /clips/<key>/steps               int16 [S N 2] in 1/64 px: displacement from the query's position, in frame 0 as it
                                     is, then its change from frame to frame; int32 where ±512 px don't do
    /clips/<key>/visibility          uint8 [S ceil(N/8)], packed along the points, first point in the highest bit
    /clips/<key>/confidence          uint8 [S N] in 1/255; only where the tracker gave one

A dense clip, whose points are all pixels of frame 0 row by row, has a field in place of `queries` and `steps`:

    /clips/<key>/field               uint16 [S 2 H W]: the residuals of the steps, x then y; uint32 as above
    /clips/<key>/confidence          uint8 [S H W]: the residuals of the above

Residuals are differences from the left neighbour, 0 outside. They wrap around, and small ones of both signs come first:
0, -1, 1, -2, … are 0, 1, 2, 3, … A field reads as its points would, bit for bit; those of 8 frames of 360×640 take
0.80 MB by RAFT instead of 0.96, 1.24 MB by Lucas-Kanade instead of 1.55.

Each frame is stored once, however many clips use it. Readable by anything that reads HDF5; nothing is pickled.
Everything carries HDF5's checksum or a hash, so a flipped bit is an error when it is read, or changes nothing. Changes
instead of displacements make a clip's tracks 10 to 23 % smaller, and are as exact.
A shard of one clip and a shard of thousands are the same format, so partial shards are merged as they are.
Knows the format; knows nothing of trackers, plans or torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flowlib import __version__
from flowlib.clips import Clip, ClipSample, UnreadSample
from flowlib.geometry import Size, pixel_grid
from flowlib.hdf5 import (
    CHECKED,
    DAMAGE,
    PACKED,
    content_sha256,
    new_file,
    read_array,
    read_attribute,
    system_error,
)
from flowlib.tracks import Tracks
from flowlib.video import decode_image, encode_image
from flowlib.workspace import atomic_write

FORMAT, VERSION = "flowlib-shard", 2
UNIT = 64  # steps a pixel: rounding costs at most 1/128 px, an eighth of what float32 costs inside PIPs
LEVELS = 255  # of confidence: rounding costs at most 1/510
QUALITIES = (95, 92, 89, 86, 83, 80)  # of JPEGs; the first that is small enough
MOST_FRAMES = 1_000_000  # of a clip; an index that says more is wrong


class ShardError(ValueError):
    """A file that is no whole shard of this format. The message starts with the file."""


def write_shard(
    path: str | Path,
    samples: Iterable[ClipSample | UnreadSample],
    *,
    tracker: dict,
    config: dict,
    encoding: str = "jpeg",
    make_folder: bool = True,
) -> Path:
    """Write labelled clips as one shard, atomically.

    Args:
        path: where; an existing file is replaced only by a whole one.
        samples: the clips, all of one working size.
        tracker: who labelled them (`Tracker.describe()`), JSON values.
        config: the settings of the stage, JSON values.
        encoding: of the pictures, "jpeg" or "webp".
        make_folder: make the folder it goes into if there is none.

    Raises:
        ValueError: no clips, or one that is known by name alone.
    """
    with atomic_write(path, make_folder=make_folder) as temporary, new_file(temporary) as file:
        clips = [_write_clip(file, sample, encoding) for sample in samples]
        _finish(file, clips, {"tracker": json.dumps(tracker), "config": json.dumps(config)})
    return Path(path)


def merge_shards(
    paths: Sequence[str | Path],
    target: str | Path,
    *,
    keep: Callable[[Clip], bool] = lambda clip: True,
    make_folder: bool = True,
) -> Path:
    """Put shards of the same config and tracker together into one, atomically; nothing is coded again.

    Args:
        paths: the shards.
        target: where the new one goes.
        keep: says which of their clips come along, with their frames.
        make_folder: make the folder it goes into if there is none.

    Raises:
        ShardError: one of them is no whole shard, or they were made with different settings.
        OSError: one can't be read, see `Shard`, or `target` can't be written.
    """
    with atomic_write(target, make_folder=make_folder) as temporary, new_file(temporary) as merged:
        clips, settings = [], {}
        for path in paths:
            with Shard(path) as shard:
                settings = settings or shard.settings
                if shard.settings != settings:
                    raise ShardError(f"{path}: expected the config and tracker of {paths[0]}, got others")
                there = {clip.key for clip in clips}
                new = [clip for clip in shard.clips if clip.key not in there and keep(clip)]
                try:
                    _copy_new(shard.file, merged, new)
                except DAMAGE as error:
                    raise _broken(shard.path, error) from error
                clips += new
        try:
            _finish(merged, clips, settings)
        except (OSError, RuntimeError) as error:  # what was copied is read for the first time
            which = f"{paths[0]}" + (f" or one of {len(paths) - 1} more" if len(paths) > 1 else "")
            raise ShardError(f"{which}: expected whole shards, got a damaged one ({error})") from error
    return Path(target)


class Shard:
    """A closed shard, opened for reading. Use it as a context manager, or `close()` it.

    Attributes:
        path: the file.
        clips: what it holds, in order.
        tracker, config: as given to `write_shard`.

        content_sha256: of everything in it.

    Raises:
        ShardError: the file is no whole shard.
        OSError: it can't be read, which says nothing of what is in it: no permission, an I/O error, too many open
            files, or no such file. So do the methods.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            # Closed shards never change, and mounted Drives often have no locks to give.
            self.file = h5py.File(self.path, "r", locking=False)
            try:
                self._read_head()
            except DAMAGE:
                self.file.close()
                raise
        except ShardError:
            raise
        except DAMAGE as error:
            what = "expected a shard, got a file that is truncated, damaged or none"
            raise _broken(self.path, error, what) from error
        self.keys = {clip.key for clip in self.clips}

    def _read_head(self) -> None:
        """Attributes and index, their types and ranges checked: what comes later counts on them."""
        if read_attribute(self.file, "format") != FORMAT or int(read_attribute(self.file, "version")) > VERSION:
            raise ShardError(f"{self.path}: expected {FORMAT} up to version {VERSION}")
        self.settings = {name: str(read_attribute(self.file, name)) for name in ("tracker", "config")}
        # HDF5 has no checksum for long attributes. Shards of flowlib before 0.1 have no hash for them, either.
        digest = _hash_of_settings(self.settings).hexdigest()
        if "settings_sha256" in self.file.attrs and read_attribute(self.file, "settings_sha256") != digest:
            raise ShardError(f"{self.path}: the tracker's name or the config differ from the hash stored with them")
        self.tracker, self.config = (json.loads(self.settings[name]) for name in ("tracker", "config"))
        self.content_sha256 = str(read_attribute(self.file, "content_sha256"))
        if not isinstance(self.tracker, dict) or not isinstance(self.config, dict):
            raise ShardError(f"{self.path}: expected JSON objects as tracker and config, got other values")
        if not re.fullmatch("[0-9a-f]{64}", self.content_sha256):
            raise ShardError(f"{self.path}: expected a SHA-256 as content_sha256, got {self.content_sha256[:80]!r}")
        entries = json.loads(read_array(self.file, "index", "u1").tobytes())
        self.clips = [_clip_of(entry, self.path) for entry in entries]

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    def tracks(self, clip: Clip) -> Tracks:
        """The tracks of one of its clips, in pixels of the working size."""
        group, S, N = f"clips/{clip.key}", clip.num_frames, clip.num_points
        with self._reading(clip):
            if self.is_dense(clip):
                return self._field(clip)
            queries = read_array(self.file, f"{group}/queries", "f4", (N, 3))
            steps = read_array(self.file, f"{group}/steps", "i2 i4", (S, N, 2))
            packed = read_array(self.file, f"{group}/visibility", "u1", (S, -(-N // 8)))
            positions = steps.astype(np.float32)
            for before, after in pairwise(positions):
                after += before  # whole numbers below 2^24, so the sums are exact
            positions /= UNIT
            positions += queries[:, 1:]
            visibility = np.unpackbits(packed, axis=1, count=len(queries)).view(bool)
            confidence = None
            if self.has_confidence(clip):
                levels = read_array(self.file, f"{group}/confidence", "u1", (S, N))
                confidence = levels.astype(np.float32) / LEVELS
            return Tracks(positions, visibility, queries, confidence)

    def _field(self, clip: Clip) -> Tracks:
        """The tracks of a dense clip."""
        group, S, N = f"clips/{clip.key}", clip.num_frames, clip.num_points
        *_, H, W = (0, 0, *self.file[f"{group}/field"].shape)  # pyright: ignore[reportAttributeAccessIssue]
        if H * W != N:
            raise ValueError(f"field: expected one of {N} pixels, got {H}×{W}")
        steps = _from_residuals(read_array(self.file, f"{group}/field", "u2 u4", (S, 2, H, W)))
        packed = read_array(self.file, f"{group}/visibility", "u1", (S, -(-N // 8)))
        visibility = np.unpackbits(packed, axis=1, count=N).view(bool)
        confidence = None
        if self.has_confidence(clip):
            levels = _from_residuals(read_array(self.file, f"{group}/confidence", "u1", (S, H, W))).view(np.uint8)
            confidence = levels.reshape(S, N).astype(np.float32) / LEVELS
        displacement = np.cumsum(steps, axis=0, dtype=steps.dtype)
        xy = pixel_grid((H, W)).reshape(N, 2)
        positions = displacement.reshape(S, 2, N).transpose(0, 2, 1).astype(np.float32, order="C")
        positions /= UNIT
        positions += xy
        return Tracks(positions, visibility, np.insert(xy, 0, 0, axis=1), confidence)

    def has_confidence(self, clip: Clip) -> bool:
        """Whether the tracks of one of its clips have a confidence."""
        return self.file.id.links.exists(f"clips/{clip.key}/confidence".encode())

    def is_dense(self, clip: Clip) -> bool:
        """Whether the points of one of its clips are all pixels of frame 0, stored as a field."""
        return self.file.id.links.exists(f"clips/{clip.key}/field".encode())

    def frames(self, clip: Clip) -> np.ndarray:
        """The stored frames of one of its clips: uint8 [K H W 3], K = len(clip.kept)."""
        with self._reading(clip):
            return np.stack([decode_image(self.picture(clip, i)) for i in clip.kept])

    def picture(self, clip: Clip, index: int) -> np.ndarray:
        """The bytes, as uint8, of the picture of frame `index` of a clip."""
        return read_array(self.file, _frame_name(clip, index), "u1")

    def read(self, clip: Clip) -> ClipSample:
        """One of its clips, whole."""
        return ClipSample(clip, self.frames(clip), self.tracks(clip))

    def check(self, clip: Clip) -> None:
        """Read one of its clips to the last byte, a picture at a time."""
        self.tracks(clip)
        with self._reading(clip):
            if len(sizes := {decode_image(self.picture(clip, i)).shape for i in clip.kept}) != 1:
                raise ValueError(f"expected pictures of one size, got {sizes}")

    @contextmanager
    def _reading(self, clip: Clip) -> Iterator[None]:
        """Make what HDF5 and the picture's decoder say of damaged bytes one sentence that names the file."""
        if clip.key not in self.keys:
            raise KeyError(f"{self.path}: holds no clip {clip.key}")
        try:
            yield
        except DAMAGE as error:
            what = f"clip {clip.key} is damaged; label again with verify=True, which does its clips anew"
            raise _broken(self.path, error, what) from error


def _broken(path: Path, error: BaseException, what: str = "expected a whole shard, got a damaged one") -> Exception:
    """What to raise for an error of HDF5, or of a picture's decoder."""
    return system_error(path, error) or ShardError(f"{path}: {what}")


def check_shard(path: str | Path) -> list[Clip]:
    """Read a shard to the last byte: format, checksums, content hash, ranges, pictures. Returns its clips.

    Raises:
        ShardError: what is wrong with it.
        OSError: as `Shard`.
    """
    with Shard(path) as shard:
        try:
            intact = _content_sha256(shard.file) == shard.content_sha256
        except DAMAGE as error:
            raise _broken(shard.path, error) from error
        if not intact:
            raise ShardError(f"{path}: the content differs from the hash that was stored with it")
        for clip in shard.clips:
            shard.check(clip)
        return shard.clips


def shard_paths(folder: str | Path) -> list[Path]:
    """The files that are shards of a dataset's folder by their names; temporary and quarantined ones aren't."""
    shards = Path(folder) / "shards"
    names = os.listdir(shards) if shards.exists() else []  # glob would pass over a folder that can't be read
    return sorted(shards / name for name in names if name.endswith(".h5") and not name.startswith("."))


def find_shards(folder: str | Path) -> tuple[dict[Path, list[Clip]], list[str]]:
    """The shards of a dataset's folder with their clips, and a sentence for each file that is no whole shard.

    A clip that stands in several shards (chunks cut differently in two runs) is counted in the first.

    Raises:
        OSError: as `Shard`; a dataset of which a part can't be read isn't taken for a smaller one.
    """
    good, bad, seen = {}, [], set()
    for path in shard_paths(folder):
        try:
            with Shard(path) as shard:
                good[path] = [clip for clip in shard.clips if clip.key not in seen]
                seen.update(clip.key for clip in good[path])
        except FileNotFoundError:
            continue  # another process has just quarantined it or put a larger one in its place
        except ShardError as error:
            bad.append(str(error))
    return good, bad


def verify_shards(
    folder: str | Path, *, progress: Callable[[Iterable], Iterable] | None = None
) -> dict[Path, ShardError]:
    """Check every shard of a dataset's folder to the last byte; the bad ones, each with what is wrong with it.

    Args:
        folder: the dataset's.
        progress: wraps the paths while they are worked off, for example `Progress`.

    Raises:
        OSError: as `Shard`.
    """
    bad, paths = {}, shard_paths(folder)
    for path in progress(paths) if progress else paths:
        try:
            check_shard(path)
        except FileNotFoundError:
            continue  # another process has just quarantined it or put a larger one in its place
        except ShardError as error:
            bad[path] = error
    return bad


def _write_clip(file: h5py.File, sample: ClipSample | UnreadSample, encoding: str) -> Clip:
    clip, tracks = replace(sample.clip, num_points=sample.truth.num_points), sample.truth
    if clip.name or not clip.fingerprint:
        raise ValueError(f"{clip.key}: expected a clip of a video with a fingerprint, got one known by name alone")
    for index, frame in zip(clip.kept, sample.frames, strict=True):
        if _frame_name(clip, index) not in file:
            picture = np.frombuffer(_encode_frame(frame, encoding), np.uint8)
            _add(file, _frame_name(clip, index), picture, CHECKED)
    group = file.create_group(f"clips/{clip.key}")
    encode = _encode_field if tracks.is_dense(sample.size) else _encode_tracks
    for name, array in encode(tracks, sample.size).items():
        _add(group, name, array, PACKED if array.size else {})
    return clip


def _clip_of(entry: Any, path: Path) -> Clip:
    """A clip by its entry in the index."""
    try:
        clip = Clip.from_dict(entry)
        counts = (clip.first_frame, clip.num_points, clip.source_frames, *clip.source_size, *clip.kept)
        right = (
            all(type(number) is int and 0 <= number < 2**31 for number in counts)
            and all(type(number) is int and 1 <= number < MOST_FRAMES for number in (clip.frame_step, clip.num_frames))
            and all(before < after for before, after in pairwise((-1, *clip.kept, clip.num_frames)))
            and isinstance(clip.fps, (int, float))
            and all(isinstance(text, str) and text for text in (clip.video, clip.fingerprint))
            and (len(clip.source_size), clip.name, entry["key"]) == (2, "", clip.key)
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ShardError(f"{path}: expected clips in its index, got {str(entry)[:80]}") from error
    if not right:
        raise ShardError(f"{path}: expected a clip in its index, got wrong types or ranges: {str(entry)[:400]}")
    return clip


def _add(group: h5py.Group, name: str, array: np.ndarray, filters: dict) -> None:
    """Store an array in one piece, or one a coordinate: HDF5 by itself cuts a picture into eight, tracks into 45.

    A field has one a coordinate and frame.
    """
    pieces = (*array.shape[:-1], 1) if name in ("steps", "queries") else array.shape
    pieces = (1, 1, *array.shape[2:]) if name == "field" else pieces
    group.create_dataset(name, data=array, chunks=pieces if filters else None, **filters)


def _encode_frame(frame: np.ndarray, encoding: str) -> bytes:
    """The frame's bytes, few enough to tell a dataset's size from its plan: foliage and fur give way a little.

    Not below quality 80, so noise all over may take more.

    A bear before leaves, 360×640, takes 118 kB at quality 95 (43.2 dB) and 93 kB at 92 (40.6 dB).
    """
    if encoding != "jpeg":
        return encode_image(frame, encoding)
    most = max(95_000, 0.41 * frame.shape[0] * frame.shape[1])
    codes = (encode_image(frame, quality=quality) for quality in QUALITIES)
    return next((code for code in codes if len(code) <= most), None) or encode_image(frame, quality=QUALITIES[-1])


def _encode_field(tracks: Tracks, size: Size) -> dict[str, np.ndarray]:
    S, N = tracks.visibility.shape
    displacement = np.empty((S, 2, N), np.int32)
    for frame, moved in zip(displacement, tracks.displacement):
        frame[:] = np.round(moved.T.astype(np.float64) * UNIT)
    limits = np.iinfo(np.int16)
    fits = displacement.min() >= limits.min and displacement.max() <= limits.max
    displacement = displacement.astype(np.int16 if fits else np.int32).reshape(S, 2, *size)
    steps = displacement.copy()
    steps[1:] -= displacement[:-1]
    arrays = {"field": _to_residuals(steps), "visibility": np.packbits(tracks.visibility, axis=1)}
    if tracks.confidence is not None:
        arrays["confidence"] = _to_residuals(_levels(tracks.confidence).reshape(S, *size).view(np.int8))
    return arrays


def _to_residuals(values: np.ndarray) -> np.ndarray:
    """Signed integers [... H W] as their residuals, see the header; unsigned, as wide."""
    told = values.copy()
    told[..., 1:] -= values[..., :-1]
    return ((told << 1) ^ (told >> (8 * told.itemsize - 1))).view(f"u{told.itemsize}")


def _from_residuals(told: np.ndarray) -> np.ndarray:
    """What `_to_residuals` was given."""
    signed = ((told >> 1) ^ (~(told & 1) + 1)).view(f"i{told.itemsize}")
    return np.cumsum(signed, axis=-1, dtype=signed.dtype)


def _levels(confidence: np.ndarray) -> np.ndarray:
    return np.rint(confidence * LEVELS).astype(np.uint8)


def _encode_tracks(tracks: Tracks, size: Size) -> dict[str, np.ndarray]:
    steps, before = np.empty(tracks.tracks.shape, np.int32), 0
    for moved, there in zip(steps, tracks.tracks):  # one frame as float64 at a time
        displacement = np.round((there - tracks.queries[:, 1:]).astype(np.float64) * UNIT)
        moved[:], before = displacement - before, displacement
    limits = np.iinfo(np.int16)
    fits = steps.size == 0 or (steps.min() >= limits.min and steps.max() <= limits.max)
    arrays = {
        "queries": tracks.queries.astype(np.float32),
        "steps": steps.astype(np.int16) if fits else steps,
        "visibility": np.packbits(tracks.visibility, axis=1),
    }
    if tracks.confidence is not None:
        arrays["confidence"] = _levels(tracks.confidence)
    return arrays


def _frame_name(clip: Clip, index: int) -> str:
    return f"frames/{clip.fingerprint[:16]}/{clip.first_frame + index * clip.frame_step:08d}"


def _copy_new(source: h5py.File, target: h5py.File, clips: list[Clip]) -> None:
    """Copy what `target` lacks of the clips' tracks and frames."""
    frames = {_frame_name(clip, index) for clip in clips for index in clip.kept}
    for name in sorted(frames | {f"clips/{clip.key}" for clip in clips}):
        if name not in target:
            source.copy(name, target.require_group(name.rpartition("/")[0]))


def _finish(file: h5py.File, clips: list[Clip], settings: dict[str, str]) -> None:
    if not clips:
        raise ValueError("expected at least one clip for a shard, got none")
    entries = [{"key": clip.key} | asdict(clip) for clip in clips]
    for entry in entries:
        del entry["name"]  # of clips that are known by name alone; the index of a shard has never had it
    index = np.frombuffer(json.dumps(entries, ensure_ascii=False).encode(), np.uint8)
    _add(file, "index", index, CHECKED)
    dense = any(f"clips/{clip.key}/field" in file for clip in clips)
    version = 2 if dense else 1  # so that what reads version 1 reads all it can, and says of the others what is amiss
    file.attrs.update({"format": FORMAT, "version": version, "flowlib": __version__, **settings})
    file.attrs["settings_sha256"] = _hash_of_settings(settings).hexdigest()
    file.attrs["content_sha256"] = _content_sha256(file)


def _hash_of_settings(settings: Mapping[str, str]):
    return hashlib.sha256("".join(str(settings[name]) for name in ("tracker", "config")).encode())


def _content_sha256(file: h5py.File) -> str:
    return content_sha256(file, *(str(file.attrs[name]) for name in ("tracker", "config")))
