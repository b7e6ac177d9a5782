"""The store of hands: a folder of closed HDF5 files, `*.hands.h5`, that hold the depth around each hand and its joints.

    attributes   format = "flowlib-hands", version = 1, config and collection (JSON), settings_sha256 (of these two),
                 content_sha256
    /index       uint8: JSON, one entry a sequence in order: key, subject, action, split, camera, num_frames, window
                 (height, width), fingerprint (of the source), group, visible (whether that is known), skipped (number
                 and reason of the frames that are left out)
    /sequences/<group>/depth      uint16 [S h w] in units of `config.unit` mm (also its attribute `unit`), 0 = nothing
                                  measured; in chunks of a frame
    /sequences/<group>/origin     int32 [S 2], the picture's pixel (x, y) that a window starts at
    /sequences/<group>/joints     float32 [S J 3] in mm, in the camera's frame
    /sequences/<group>/visible    uint8 [S ceil(J/8)], packed along the joints, first joint in the highest bit
    /sequences/<group>/centre     float32 [S 3] in mm: the skeleton's centre joint
    /sequences/<group>/estimated  float32 [S 3] in mm: what `estimate_centre` says, NaN where it never found a hand
    /sequences/<group>/numbers    int64 [S], the frames' numbers in the source

A window holds what a crop of a cube of `config.window` mm can read, around the true centre and the estimated one, so
that every smaller crop and its augmentation are made later, from depth as it was measured. What lies so far behind that
no such cube reaches it counts as not measured: to a crop both are background. Nothing is pickled; everything carries
HDF5's checksum or a hash, so a flipped bit is an error when it is read.
Knows the format; knows nothing of readers, crops' settings or torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, UInt16

from flowlib.camera import Camera
from flowlib.hands.crop import estimate_centre, facing
from flowlib.hands.sequences import HandCollection, HandSequence, Skipped
from flowlib.hands.skeleton import Skeleton
from flowlib.hdf5 import (
    CHECKED,
    DAMAGE,
    DEFLATED,
    PACKED,
    content_sha256,
    new_file,
    read_array,
    read_attribute,
    system_error,
)
from flowlib.progress import Progress
from flowlib.splits import SPLITS
from flowlib.workspace import atomic_write, clear_stale, locked, read_json, write_json

logger = logging.getLogger(__name__)

FORMAT, VERSION, SUFFIX = "flowlib-hands", 1, ".hands.h5"
FILE_BYTES = 500_000_000  # a file is closed when its sequences take so much
MOST_FRAMES = 1_000_000  # of a sequence; an index that says more is wrong
MAGIC = b"flowlib hands unpacked 1"  # ends an unpacked file
RIM = np.stack([np.cos(angles := np.linspace(0, 2 * np.pi, 64, endpoint=False)), np.sin(angles)], -1)


class StoreError(ValueError):
    """A file that is no whole store of hands. The message starts with the file."""


@dataclass(frozen=True)
class StoreConfig:
    """What a store holds of each picture.

    Raises:
        ValueError: a number out of its range; the message names it.
    """

    window: float = 300.0  # mm: side of the largest cube that can be cropped; of 1/√2 of it at any turn
    unit: float = 1.0  # mm of one step of depth
    centre_cube: float = 200.0  # mm: the cube in which the centre is estimated

    def __post_init__(self) -> None:
        for name in ("window", "unit", "centre_cube"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}: expected mm above 0, got {value!r}")


@dataclass(frozen=True)
class StoredSequence:
    """One sequence of a store, as its index has it.

    Attributes:
        key, subject, action, camera: as of a `HandSequence`.
        split: "train", "val" or "test", as the collection had it.
        num_frames: S.
        window: (height, width) of the stored depth.
        fingerprint: of what it was made of.
        group: its name in the file.
        visible: whether it is known which joints are visible.
        skipped: (number in the source, reason) of each frame that is left out.
    """

    key: str
    subject: str
    action: int | None
    split: str
    camera: Camera
    num_frames: int
    window: tuple[int, int]
    fingerprint: str
    group: str
    visible: bool
    skipped: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, entry: Any) -> StoredSequence:
        """By its entry in an index.

        Raises:
            ValueError: it is none.
        """
        try:
            camera = Camera(**entry["camera"] | {"size": tuple(entry["camera"]["size"])})
            skipped = tuple((number, reason) for number, reason in entry["skipped"])
            made = cls(**entry | {"camera": camera, "window": tuple(entry["window"]), "skipped": skipped})
            texts = (made.key, made.subject, made.fingerprint, made.group)
            right = (
                all(isinstance(text, str) and text for text in texts)
                and made.group == group_of(made.key)
                and made.split in SPLITS
                and (made.action is None or type(made.action) is int)
                and type(made.visible) is bool
                and all(type(n) is int and 0 < n < MOST_FRAMES for n in (made.num_frames, *made.window))
                and len(made.window) == 2
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"expected sequences in its index, got {str(entry)[:80]}") from error
        if not right:
            raise ValueError(f"expected a sequence in its index, got wrong types or ranges: {str(entry)[:400]}")
        return made


def group_of(key: str) -> str:
    """The name in a file of the sequence called `key`, which may hold slashes."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


class HandStore:
    """One closed file of a store, opened for reading. Use it as a context manager, or `close()` it.

    Attributes:
        path: the file.
        config: how it was written.
        skeleton: of all its joints.
        actions: the names of the classes.
        sequences: what it holds, in order.
        content_sha256: of everything in it.

    Raises:
        StoreError: the file is no whole store; so do the methods.
        OSError: it can't be read, which says nothing of what is in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._depths: dict[str, tuple[h5py.h5d.DatasetID, Any]] = {}
        try:
            self.file = h5py.File(self.path, "r", locking=False)  # closed files never change
            try:
                self._read_head()
            except DAMAGE:
                self.file.close()
                raise
        except StoreError:
            raise
        except DAMAGE as error:
            what = "expected a store of hands, got a file that is truncated, damaged or none"
            raise _broken(self.path, error, f"{what} ({error})") from error

    def _read_head(self) -> None:
        if read_attribute(self.file, "format") != FORMAT or int(read_attribute(self.file, "version")) > VERSION:
            raise StoreError(f"{self.path}: expected {FORMAT} up to version {VERSION}")
        self.settings = {name: str(read_attribute(self.file, name)) for name in ("config", "collection")}
        if read_attribute(self.file, "settings_sha256") != _sha256(*self.settings.values()):
            raise StoreError(f"{self.path}: its config or collection differs from the hash stored with it")
        self.config = StoreConfig(**json.loads(self.settings["config"]))
        self.skeleton, self.actions = _collection_of(json.loads(self.settings["collection"]))
        self.content_sha256 = str(read_attribute(self.file, "content_sha256"))
        if not re.fullmatch("[0-9a-f]{64}", self.content_sha256):
            raise StoreError(f"{self.path}: expected a SHA-256 as content_sha256, got {self.content_sha256[:80]!r}")
        entries = json.loads(read_array(self.file, "index", "u1").tobytes())
        self.sequences = [StoredSequence.of(entry) for entry in entries]

    def __enter__(self) -> HandStore:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        self._depths.clear()
        self.file.close()

    def arrays(self, sequence: StoredSequence) -> dict[str, np.ndarray]:
        """A sequence without its depth: joints, visible (bool [S J]) if known, centre, estimated, origin, numbers."""
        S, J, group = sequence.num_frames, self.skeleton.num_joints, f"sequences/{sequence.group}"
        wanted = {"joints": ("f4", (S, J, 3)), "centre": ("f4", (S, 3)), "estimated": ("f4", (S, 3))}
        wanted |= {"origin": ("i4", (S, 2)), "numbers": ("i8", (S,))}
        wanted |= {"visible": ("u1", (S, -(-J // 8)))} if sequence.visible else {}
        with self._reading(sequence):
            found = {name: read_array(self.file, f"{group}/{name}", *claim) for name, claim in wanted.items()}
            if sequence.visible:
                found["visible"] = np.unpackbits(found["visible"], axis=1, count=J).view(bool)
            if not (np.isfinite(found["joints"]).all() and np.isfinite(found["centre"]).all()):
                raise ValueError("expected finite joints and centres")
            return found

    def depth(self, sequence: StoredSequence, frame: int) -> UInt16[np.ndarray, "h w"]:
        """The window of one frame, in units of `config.unit` mm."""
        shape = (sequence.num_frames, *sequence.window)
        with self._reading(sequence):
            if sequence.group not in self._depths:
                item = h5py.h5d.open(self.file.id, f"sequences/{sequence.group}/depth".encode())
                most = DEFLATED * item.get_storage_size()
                if item.shape != shape or item.dtype != np.uint16 or 2 * math.prod(shape) > most:
                    raise ValueError(f"expected depth uint16 {list(shape)}, got {item.dtype}{list(item.shape)}")
                self._depths[sequence.group] = item, h5py.h5s.create_simple((1, *sequence.window))
            item, memory = self._depths[sequence.group]
            where = item.get_space()
            where.select_hyperslab((frame, 0, 0), (1, *sequence.window))
            window = np.empty((1, *sequence.window), np.uint16)
            item.read(memory, where, window)
            return window[0]

    @contextmanager
    def _reading(self, sequence: StoredSequence) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            what = f"sequence {sequence.key} is damaged ({error}); write the store again with verify=True"
            raise _broken(self.path, error, what) from error


def _broken(path: Path, error: BaseException, what: str) -> Exception:
    return system_error(path, error) or StoreError(f"{path}: {what}")


def check_store(path: str | Path) -> list[StoredSequence]:
    """Read a file of a store to the last byte: format, checksums, content hash, ranges. Returns its sequences.

    Raises:
        StoreError: what is wrong with it.
        OSError: it can't be read.
    """
    with HandStore(path) as store:
        try:
            intact = content_sha256(store.file, *store.settings.values()) == store.content_sha256
        except DAMAGE as error:
            raise _broken(store.path, error, f"expected a whole store, got a damaged one ({error})") from error
        if not intact:
            raise StoreError(f"{path}: the content differs from the hash that was stored with it")
        for sequence in store.sequences:
            store.arrays(sequence)
            store.depth(sequence, 0)
        return store.sequences


def store_paths(folder: str | Path) -> list[Path]:
    """The files of a store, in order.

    Raises:
        FileNotFoundError: no such folder, or none in it.
    """
    folder = Path(folder).expanduser()
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not found:
        raise FileNotFoundError(f"{folder}: expected a store of hands (*{SUFFIX}), found none; write one first")
    return found


# ------------------------------------------------------------------------------------------------------------ writing


def write_hands(
    folder: str | Path,
    collection: HandCollection,
    config: StoreConfig | None = None,
    *,
    verify: bool = False,
    progress: bool = False,
) -> tuple[Skipped, ...]:
    """Write what is missing of a collection into the store `folder`: kill it at any time and call it again.

    A finished sequence is at once a small closed file in `partial/`; these are merged, in the collection's order, into
    files of about half a gigabyte. The bytes of those are the same, whatever was interrupted.

    Args:
        folder: of the store; made if it isn't there.
        collection: what to write; sequences that are stored are compared with it and left alone.
        config: what is kept of each picture.
        verify: read what is there to the last byte first (damaged files are renamed to `*.damaged` and their sequences
            written anew), and compare it with the content of the source files.
        progress: show a bar.

    Returns:
        What of the collection is not in the store, with the reason: frames whose picture can't be read or holds no
        depth, and sequences of which no frame is left. The reader's own list comes first.

    Raises:
        ValueError: the store was made with other settings, or of other data under the same name.
        StoreError: a file there is damaged.
        OSError: the folder can't be written.
    """
    folder, config = Path(folder).expanduser(), config or StoreConfig()
    if not collection.sequences:
        raise ValueError(f"collection: expected at least one sequence for {folder}, got none")
    partial = folder / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".hands.lock"):
        partial.mkdir(exist_ok=True)  # under the lock: another call may just be removing it
        settings = {"config": json.dumps(asdict(config)), "collection": json.dumps(_describe(collection))}
        _claim(folder, settings)
        for place in (folder, partial):
            clear_stale(place)
        if verify:
            _quarantine(folder)
        stored = _stored(folder, settings)
        if more := stored.keys() - {sequence.key for sequence in collection.sequences}:
            what = "also holds what isn't given now and stays part of it"
            logger.warning("%s: %s, %d of its sequences, such as %s", folder, what, len(more), min(more))
        skipped = list(collection.skipped)
        waiting: list[Path] = []
        for sequence in Progress(collection.sequences, "storing hands", unit="sequence", disable=not progress):
            path = partial / f"{group_of(sequence.key)}{SUFFIX}"
            if sequence.key in stored:
                path.unlink(missing_ok=True)  # a kill came between merging it and that
                entry = _compare(stored[sequence.key], sequence, collection, verify)
            else:
                entry = _write_partial(path, sequence, collection, config, settings, verify)
                waiting += [path] if entry else []
            if entry is None:
                skipped.append(Skipped(sequence.key, "none of its frames can be used; see the log"))
                continue
            skipped += [Skipped(f"{sequence.key}, frame {number}", reason) for number, reason in entry.skipped]
            if sum(path.stat().st_size for path in waiting) >= FILE_BYTES:
                waiting = _merge(folder, waiting, settings)
        _merge(folder, waiting, settings)
        if not any(folder.glob(f"*{SUFFIX}")):
            raise ValueError(f"{folder}: expected a sequence that can be stored, got none: {skipped[-1].reason}")
        if not any(partial.iterdir()):
            partial.rmdir()
    return tuple(skipped)


def _describe(collection: HandCollection) -> dict[str, Any]:
    return {"actions": list(collection.actions), "skeleton": asdict(collection.sequences[0].skeleton)}


def _collection_of(about: Mapping[str, Any]) -> tuple[Skeleton, tuple[str, ...]]:
    given: dict[str, Any] = dict(about["skeleton"])
    given |= {name: tuple(given[name]) for name in ("joints", "parents")}
    return Skeleton(**given), tuple(map(str, about["actions"]))


def _claim(folder: Path, settings: dict[str, str]) -> None:
    """Write the store's config.json, or see that the one there says the same."""
    path, wanted = folder / "config.json", json.loads(settings["config"]) | json.loads(settings["collection"])
    if not path.exists():
        write_json(path, wanted)
    there = read_json(path)
    if other := sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name)):
        changes = ", ".join(f"{name}: {there.get(name)!r} there, {wanted.get(name)!r} now" for name in other)
        raise ValueError(f"{folder}: made with other settings ({changes}); choose another folder for these")


def _quarantine(folder: Path) -> None:
    for path in (*folder.glob(f"*{SUFFIX}"), *(folder / "partial").glob(f"*{SUFFIX}")):
        try:
            check_store(path)
        except StoreError as error:
            logger.warning("%s; written anew", error)
            path.rename(path.with_name(path.name + ".damaged"))


def _stored(folder: Path, settings: dict[str, str]) -> dict[str, tuple[Path, StoredSequence]]:
    """Where each sequence of the closed files is."""
    found = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with HandStore(path) as store:
            if store.settings != settings:
                raise ValueError(f"{path}: made with other settings than {folder / 'config.json'}; remove one of them")
            found |= {sequence.key: (path, sequence) for sequence in store.sequences}
    return found


def _compare(
    stored: tuple[Path, StoredSequence], sequence: HandSequence, collection: HandCollection, verify: bool
) -> StoredSequence:
    """The stored sequence, if it is the given one by all that can be compared without its pictures."""
    path, entry = stored
    there = (entry.subject, entry.action, entry.camera, entry.split)
    wanted = (sequence.subject, sequence.action, sequence.camera, collection.splits[sequence.key])
    with HandStore(path) as store:
        arrays = store.arrays(entry)
    rows = np.isin(np.asarray(sequence.numbers), arrays["numbers"])
    same = there == wanted and np.array_equal(sequence.joints[rows], arrays["joints"])
    if same and (verify or isinstance(sequence.source, str)):
        same = entry.fingerprint == sequence.fingerprint()
    if not same:
        raise ValueError(
            f"{path}: holds another sequence {entry.key} than the one given (subject, action, camera, split, joints or "
            "source differ); choose another folder, or remove this one"
        )
    return entry


def _write_partial(
    path: Path, sequence: HandSequence, collection: HandCollection, config: StoreConfig, settings: dict, verify: bool
) -> StoredSequence | None:
    """A sequence's own file, made or found; None if there is nothing to store."""
    if path.exists():
        try:
            with HandStore(path) as store:
                found = store.sequences[0]
            check_store(path)
            return _compare((path, found), sequence, collection, verify)
        except StoreError:
            path.unlink()  # a power cut's; it is made anew
    made = _encode(sequence, config)
    if made is None:
        return None
    arrays, skipped = made
    entry = StoredSequence(
        sequence.key, sequence.subject, sequence.action, collection.splits[sequence.key], sequence.camera,
        len(arrays["depth"]), arrays["depth"].shape[1:], sequence.fingerprint(), group_of(sequence.key),
        "visible" in arrays, tuple(skipped),
    )  # fmt: skip
    with atomic_write(path, make_folder=False) as temporary, new_file(temporary) as file:
        group = file.create_group(f"sequences/{entry.group}")
        for name, array in sorted(arrays.items()):
            pieces = (1, *array.shape[1:]) if name == "depth" else array.shape
            group.create_dataset(name, data=array, chunks=pieces, **PACKED)
        group["depth"].attrs["unit"] = config.unit
        _finish(file, [entry], settings)
    return entry


def _finish(file: h5py.File, entries: Sequence[StoredSequence], settings: dict[str, str]) -> None:
    index = np.frombuffer(json.dumps([asdict(entry) for entry in entries], ensure_ascii=False).encode(), np.uint8)
    file.create_dataset("index", data=index, chunks=index.shape, **CHECKED)
    file.attrs.update({"format": FORMAT, "version": VERSION, **settings})
    file.attrs["settings_sha256"] = _sha256(*settings.values())
    file.attrs["content_sha256"] = content_sha256(file, *settings.values())


def _sha256(*texts: str) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def _merge(folder: Path, paths: list[Path], settings: dict[str, str]) -> list[Path]:
    """Make the next closed file of partial ones, and only then remove these; what is left to merge, nothing."""
    if paths:
        taken = [int(match[1]) for path in folder.iterdir() if (match := re.match(r"(\d+)\.hands\.h5", path.name))]
        target, entries = folder / f"{max(taken, default=-1) + 1:03d}{SUFFIX}", []
        with atomic_write(target, make_folder=False) as temporary, new_file(temporary) as file:
            file.create_group("sequences")
            for path in paths:
                with HandStore(path) as store:
                    entries += store.sequences
                    try:
                        for sequence in store.sequences:
                            name = f"sequences/{sequence.group}"
                            store.file.copy(name, file["sequences"])
                    except DAMAGE as error:
                        raise _broken(path, error, f"expected a whole store, got a damaged one ({error})") from error
            _finish(file, entries, settings)
        for path in paths:
            path.unlink()
    return []


def _encode(sequence: HandSequence, config: StoreConfig) -> tuple[dict[str, np.ndarray], list[tuple[int, str]]] | None:
    """The arrays of a sequence, and the frames that are left out; None if all are."""
    truths = sequence.joints[:, sequence.skeleton.centre].astype(np.float64)
    numbers = np.asarray(sequence.numbers)
    kept, skipped, windows, origins, estimates = [], [], [], [], []
    for frame, centre in enumerate(truths):
        number = int(numbers[frame])
        try:
            if centre[2] <= 0:
                raise ValueError(f"expected its centre before the camera, got z = {centre[2]:g} mm")
            depth = _check_depth(sequence.depth(frame))
        except (ValueError, OSError) as error:
            skipped.append((number, str(error)))
            continue
        estimate = estimate_centre(depth, sequence.camera, config.centre_cube)
        centres = [centre] if estimate is None else [centre, estimate]
        left, top, right, bottom = _window(centres, sequence.camera, config.window)
        window = depth[top:bottom, left:right] / config.unit
        window[window > min(65535.0, (max(place[2] for place in centres) + config.window) / config.unit)] = 0
        kept.append(frame)
        windows.append(np.rint(window).astype(np.uint16))
        origins.append((left, top))
        estimates.append(np.full(3, np.nan) if estimate is None else estimate)
    if skipped:
        count, (number, reason) = len(skipped), skipped[0]
        logger.warning("%s: %d frames are left out, the first is %d: %s", sequence.key, count, number, reason)
    if not kept:
        return None
    height, width = (max(window.shape[axis] for window in windows) for axis in (0, 1))
    depths = np.zeros((len(kept), height, width), np.uint16)
    for place, window in zip(depths, windows):
        place[: window.shape[0], : window.shape[1]] = window
    arrays = {
        "depth": depths,
        "origin": np.array(origins, np.int32),
        "joints": sequence.joints[kept],
        "centre": truths[kept].astype(np.float32),
        "estimated": _filled(np.array(estimates, np.float32)),
        "numbers": numbers[kept].astype(np.int64),
    }
    if sequence.visible is not None:
        arrays["visible"] = np.packbits(sequence.visible[kept], axis=1)
    return arrays, skipped


def _check_depth(depth: np.ndarray) -> np.ndarray:
    if not (np.isfinite(depth).all() and (depth >= 0).all()):
        raise ValueError("expected depth in mm from 0 up, got NaN, infinity or negative ones")
    if not depth.any():
        raise ValueError("expected depth that was measured, got zeros alone")
    return depth


def _window(centres: Iterable[np.ndarray], camera: Camera, window: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels, the latter two exclusive, of what crops around the centres may read.

    The outline of a disc of `window` mm, once across the line of sight, as "virtual" sees it, and once across the axis.
    """
    boxes = []
    for centre in centres:
        for axes in (facing(centre)[:2], np.eye(3)[:2]):
            rim = centre + window / 2 * RIM @ axes
            if (rim[:, 2] <= 1).any():  # it reaches behind the camera
                return 0, 0, camera.size[1], camera.size[0]
            xy = camera.project(rim)[:, :2]
            boxes.append((np.floor(xy.min(axis=0)) - 1, np.ceil(xy.max(axis=0)) + 2))
    most = np.array(camera.size[::-1])
    low = np.clip(np.min([box[0] for box in boxes], axis=0), 0, most - 1)
    high = np.clip(np.max([box[1] for box in boxes], axis=0), low + 1, most)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _filled(estimates: Float[np.ndarray, "S 3"]) -> Float[np.ndarray, "S 3"]:
    """Where a frame has no estimate, that of the nearest earlier frame that has one, else of the nearest later one."""
    known = np.flatnonzero(np.isfinite(estimates[:, 0]))
    if len(known) == 0:
        return estimates
    before = np.searchsorted(known, np.arange(len(estimates)), side="right") - 1
    return estimates[known[np.maximum(before, 0)]]


# ------------------------------------------------------------------------------------------------------------ unpacked


def unpack(store: HandStore, target: str | Path) -> Path:
    """Write the depth of a file of a store as plain uint16 numbers, one sequence after the other, atomically.

    Raises:
        StoreError: the store is damaged.
        OSError: `target` can't be written; there is none then.
    """
    with atomic_write(target) as temporary, open(temporary, "wb") as file:
        for sequence in store.sequences:
            for frame in range(sequence.num_frames):
                file.write(store.depth(sequence, frame).data)
        file.write(MAGIC + store.content_sha256.encode())
    return Path(target)


class UnpackedDepth:
    """The depth of a file of a store, memory-mapped from what `unpack` wrote; reading costs a copy and no decoding.

    Args:
        store: whose depth it is.
        path: the unpacked file.

    Raises:
        StoreError: it is not whole, or of another file.
    """

    def __init__(self, store: HandStore, path: str | Path) -> None:
        counts = [sequence.num_frames * math.prod(sequence.window) for sequence in store.sequences]
        tail = MAGIC + store.content_sha256.encode()
        mapped = np.memmap(path, np.uint8, "r")
        if len(mapped) != 2 * sum(counts) + len(tail) or mapped[-len(tail) :].tobytes() != tail:
            raise StoreError(f"{path}: expected the unpacked depth of {store.path}, got another file, or not all of it")
        numbers = mapped[: -len(tail)].view(np.uint16)
        parts = np.split(numbers, np.cumsum(counts)[:-1])
        self._depths = {
            sequence.group: np.asarray(part).reshape(sequence.num_frames, *sequence.window)
            for sequence, part in zip(store.sequences, parts)
        }

    def depth(self, sequence: StoredSequence, frame: int) -> UInt16[np.ndarray, "h w"]:
        """The window of one frame, read-only, in units of the store's `config.unit` mm."""
        return self._depths[sequence.group][frame]
