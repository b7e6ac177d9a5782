"""`HandFrames` and `HandSequences`: the crops of a store of hands as samples for torch.

A sample is a mapping, which `default_collate` batches; what it holds is made when it is asked for, so reading poses
alone decodes no depth. For one frame (`HandFrames`; for a whole sequence, `HandSequences`, with a leading axis S in
all but `action`, `length`, `key` and `subject`):

    crop      float32 [1 H W] in [-1, 1]: -1 the cube's front, 1 its back and where nothing was measured
    pose      float32 [J 3]: the true joints as the crop sees them, in halves of the cube: what a network learns
    joints    float32 [J 3] in mm, the true joints in the depth camera's frame
    visible   bool [J]: whether the camera sees the joint; all true where that isn't known
    centre    float32 [3] in mm, rotation float32 [3 3], cube float32 [] in mm: of the crop;
              joints = crop.restore(pose, centre, rotation, cube), for a batch, too
    intrinsics  float32 [4]: (fx, fy, ux, uy) of the crop's camera, in its pixels, for points that rotation has turned
    frame     int64 []: the frame's number in the source
    action    int64 []: the class of what the hand does; -1 where there are none
    length    int64 [] (sequences): S
    key       str: of the sequence, unique;  subject  str: whose hand

`sample.augmented(augment, generator)` is the same sample after a motion that the generator draws: the raw depth is
cropped anew, once, and pose, centre, rotation and cube follow. `pose` of an augmented sample still restores to the true
joints. All frames of a sequence share one motion. `CropConfig.truth` says what truth the crops contain.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from flowlib.hands.augment import HandAugment, Motion
from flowlib.hands.crop import STILL, CropConfig, View, normalise, share_outside, view
from flowlib.hands.pca import PCAConfig, PosePCA, fit_pca
from flowlib.hands.sequences import HandCollection, HandSequence
from flowlib.hands.store import HandStore, StoredSequence, UnpackedDepth, store_paths, unpack
from flowlib.hdf5 import OpenFiles
from flowlib.splits import SPLITS

FRAME = ("crop", "pose", "joints", "visible", "centre", "rotation", "cube", "intrinsics", "frame", "action")
FRAME += ("key", "subject")
SEQUENCE = (*FRAME, "length")
RIM = 0.04  # of a stored window's side that a turned crop may reach beyond it: the tips of its corners


@dataclass(frozen=True, eq=False)
class _Take:
    """The frames in use of a stored sequence, its arrays in memory; centres as the config has them."""

    about: StoredSequence
    path: Path
    rows: Int[np.ndarray, " S"]  # the frames' places in the store
    joints: Float[np.ndarray, "S J 3"]
    visible: Bool[np.ndarray, "S J"]
    numbers: Int[np.ndarray, " S"]
    origin: Int[np.ndarray, "S 2"]
    centres: Float[np.ndarray, "S 3"]
    views: View  # of the stored windows
    poses: Float[np.ndarray, "S J 3"]


def poses_of(joints: Float[np.ndarray, "*n J 3"], seen: View) -> Float[np.ndarray, "*n J 3"]:
    """Joints in mm as views see them, float32, in halves of the cube."""
    return normalise(joints.astype(np.float64), seen.centre, seen.rotation, seen.cube).astype(np.float32)


class HandSample(Mapping[str, Any]):
    """One frame, or the frames of a sequence; see the module's header."""

    def __init__(self, hands: _Hands, take: _Take, rows: int | slice, moved: View | None = None) -> None:
        self._hands, self._take, self._rows = hands, take, rows
        self._seen, self._is_moved = moved or take.views[rows], moved is not None
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(FRAME if isinstance(self._rows, int) else SEQUENCE)

    def __len__(self) -> int:
        return len(FRAME if isinstance(self._rows, int) else SEQUENCE)

    def augmented(self, augment: HandAugment, generator: torch.Generator) -> HandSample:
        """This sample after a motion that `augment` draws from a generator; the same state gives the same motion.

        Raises:
            ValueError: turned crops would read what the store doesn't hold.
        """
        self._hands.check_turns(augment)
        return self.moved(augment.draw(int(torch.randint(2**62, (), generator=generator))))

    def moved(self, motion: Motion) -> HandSample:
        """This sample after a motion; one that was applied before is forgotten."""
        take, rows = self._take, self._rows
        seen = view(take.about.camera, self._hands.config, take.centres[rows], motion, take.joints[rows])
        return HandSample(self._hands, take, rows, seen.of_window(take.origin[rows]))

    def _make(self, name: str) -> Any:
        take, rows, seen = self._take, self._rows, self._seen
        match name:
            case "crop":
                return torch.from_numpy(self._crop())
            case "pose":
                pose = take.poses[rows] if not self._is_moved else poses_of(take.joints[rows], seen)
                return torch.from_numpy(pose.copy())
            case "joints" | "visible":
                return torch.from_numpy((take.joints if name == "joints" else take.visible)[rows].copy())
            case "centre" | "rotation" | "cube" | "intrinsics":
                return torch.from_numpy(np.array(getattr(seen, name), np.float32))
            case "frame":
                return torch.from_numpy(np.array(take.numbers[rows]))
            case "action":
                return torch.tensor(-1 if take.about.action is None else take.about.action)
            case "length" if isinstance(rows, slice):
                return torch.tensor(len(take.joints))
            case "key":
                return take.about.key
            case "subject":
                return take.about.subject
        raise KeyError(f"{name}: expected one of {', '.join(self)}")

    def _crop(self) -> np.ndarray:
        if isinstance(self._rows, int):
            return self._hands.read(self._take, self._rows, self._seen)[None]
        frames = range(len(self._take.joints))
        return np.stack([self._hands.read(self._take, frame, self._seen[frame])[None] for frame in frames])


def _collate(batch: list[HandSample], *, collate_fn_map: dict | None = None) -> dict:
    return {key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map) for key in batch[0]}


# As torch's default_collate is to be told; without it a mapping of another type than dict is put together twice.
default_collate_fn_map[HandSample] = _collate


class _Hands(Dataset):
    """What both datasets share: the sequences of a split, and how their crops are made."""

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        crop: CropConfig | None = None,
        *,
        splits: Mapping[str, str] | None = None,
        step: int = 1,
        most: int | None = None,
        unpacked: bool | str | Path = False,
        seed: int = 0,
    ) -> None:
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, all; got {split!r}")
        if step < 1:
            raise ValueError(f"step: expected a whole number from 1 up, got {step}")
        self._rows, self.step = (slice(None, None, step), slice(None, most)), step
        self.root, self.config, self.split, self.seed = Path(root).expanduser(), crop or CropConfig(), split, seed
        self._unpacked = self.root / "unpacked" if unpacked is True else Path(unpacked) if unpacked else None
        self._files = OpenFiles(self._open)
        paths, found = store_paths(self.root), []
        with HandStore(paths[0]) as store:
            settings, self.store_config = store.settings, store.config
            self.skeleton, self.actions = store.skeleton, store.actions
        for path in paths:
            with HandStore(path) as store:
                if store.settings != settings:
                    raise ValueError(f"{path}: expected the config and collection of {paths[0]}, got others")
                found += [(path, about, store.arrays(about)) for about in store.sequences]
        for key, count in Counter(about.key for _, about, _ in found).items():
            if count > 1:
                files = " and ".join(path.name for path, about, _ in found if about.key == key)
                raise ValueError(f"{self.root}: expected each sequence once, got {key!r} in {files}; remove one")
        window = self.store_config.window
        if self.config.cube > window:
            made = f"write the store again with StoreConfig(window={self.config.cube:g})"
            raise ValueError(f"cube: expected at most the {window:g} mm that {self.root} holds; {made}")
        assigned = self._assign(found, splits)
        self._takes: list[_Take] = []
        for path, about, arrays in sorted(found, key=lambda entry: entry[1].key):
            if split in ("all", assigned[about.key]) and (take := self._take(path, about, arrays)):
                self._takes.append(take)
        if not self._takes:
            there = Counter(assigned.values())
            raise ValueError(f"split: {split!r} has no sequences in {self.root} ({dict(sorted(there.items()))})")
        self.share_outside = self.outside([self.config.cube])[self.config.cube]

    def _assign(self, found: list, splits: Mapping[str, str] | None) -> dict[str, str]:
        """The split of each sequence: whole ones, so that no frame is learned and a neighbour of it tested."""
        if splits is None:
            return {about.key: about.split for _, about, _ in found}
        if lacking := [about.key for _, about, _ in found if splits.get(about.key) not in SPLITS]:
            got = splits.get(lacking[0])
            raise ValueError(f"splits: expected one of {', '.join(SPLITS)} for {lacking[0]!r}, got {got!r}")
        return {about.key: splits[about.key] for _, about, _ in found}

    def _take(self, path: Path, about: StoredSequence, arrays: dict[str, np.ndarray]) -> _Take | None:
        centres = arrays["centre"].astype(np.float64)
        if self.config.centre == "estimated":
            centres = arrays["estimated"].astype(np.float64)
            if not np.isfinite(centres).all():
                warnings.warn(f"{about.key}: left out, since no hand was found in its depth", stacklevel=5)
                return None
        elif self.config.centre_noise:
            # Of each sequence its own, the same in every run; a function of the key, whatever else there is.
            key = [int(word, 16) for word in (about.group[:8], about.group[8:])]
            noise = np.random.default_rng((self.seed, *key)).standard_normal(centres.shape)
            centres = centres + self.config.centre_noise * noise
        every, first = self._rows
        rows = np.arange(about.num_frames)[every][first]
        joints, visible = arrays["joints"], arrays.get("visible", np.ones(arrays["joints"].shape[:2], bool))
        try:
            views = view(about.camera, self.config, centres[rows], STILL, joints[rows])
            views = views.of_window(arrays["origin"][rows])
        except ValueError as error:
            raise ValueError(f"{about.key}: {error}") from error
        own = (joints[rows], visible[rows], arrays["numbers"][rows], arrays["origin"][rows], centres[rows])
        return _Take(about, path, rows, *own, views, poses_of(joints[rows], views))

    def read(self, take: _Take, frame: int, seen: View) -> Float[np.ndarray, "H W"]:
        """What one view has of a frame."""
        depth = self._files[take.path].depth(take.about, int(take.rows[frame]))
        return seen.read(depth, size=self.config.size, unit=self.store_config.unit)

    def _open(self, path: Path) -> HandStore | UnpackedDepth:
        store = HandStore(path)
        if self._unpacked is None:
            return store
        target = self._unpacked / f"{store.content_sha256[:16]}.depth"
        if not target.exists():
            unpack(store, target)
        return UnpackedDepth(store, target)

    @property
    def subjects(self) -> list[str]:
        """Whose hands these are, sorted."""
        return sorted({take.about.subject for take in self._takes})

    @property
    def videos(self) -> list[str]:
        """The keys of the sequences, sorted."""
        return [take.about.key for take in self._takes]

    @property
    def fingerprints(self) -> list[str]:
        """The SHA-256 of the source of each of these."""
        return [take.about.fingerprint for take in self._takes]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the samples; equal fingerprints, equal samples."""
        about = [asdict(self.config), asdict(self.store_config), self.seed, list(self.actions)]
        about += [[take.about.key, take.about.fingerprint, take.numbers.tolist()] for take in self._takes]
        return hashlib.sha256(json.dumps([type(self).__name__, *about]).encode()).hexdigest()

    @property
    def joints(self) -> Float[np.ndarray, "N J 3"]:
        """The true joints of all frames in mm, in the cameras' frames; decodes no depth."""
        return np.concatenate([take.joints for take in self._takes])

    @property
    def centres(self) -> Float[np.ndarray, "N 3"]:
        """The centres of all frames' crops in mm."""
        return np.concatenate([take.centres for take in self._takes])

    @property
    def poses(self) -> Float[np.ndarray, "N J 3"]:
        """The true poses of all frames, float32, as `pose` of the samples; decodes no depth."""
        return np.concatenate([take.poses for take in self._takes])

    def check_turns(self, augment: HandAugment) -> None:
        """Raise `ValueError` if the corners of turned crops lie where the store has no depth and would read as empty.

        Their outermost tips may: no more than `RIM` of the window's side, where a hand in its middle doesn't reach.
        """
        window, cube = self.store_config.window, self.config.cube
        if (needed := augment.reach(cube)) > window * (1 + RIM):
            raise ValueError(
                f"augment: crops of {cube:g} mm turned by up to {augment.angle:g}° need windows of {needed:.0f} mm, "
                f"{self.root} holds {window:g}; turn by less, or write it again with StoreConfig(window={needed:.0f})"
            )

    def fit_pca(self, config: PCAConfig | None = None, *, folder: str | Path | None = None) -> PosePCA:
        """A basis of this split's poses, see `pca.fit_pca`; kept in `pca/` of the store, or in `folder`.

        Raises:
            ValueError: this isn't the training split, of which alone a basis may know.
        """
        if self.split != "train":
            raise ValueError(f"split: expected a basis to be fitted on train alone, got {self.split!r}")
        return fit_pca(self.joints, self.centres, self.config, config, folder=folder or self.root / "pca")

    def outside(self, cubes: Sequence[float]) -> dict[float, float]:
        """The share of joints outside cubes around these centres, by their side in mm; warns of over 1 %."""
        return share_outside(self.poses * (self.config.cube / 2), cubes)


class HandFrames(_Hands):
    """The frames of one split, each a sample; see the module's header.

    Args:
        root: the store's folder.
        split: "train", "val", "test" or "all".
        crop: how crops are made.
        splits: the split of every sequence by its key, in place of the store's (another protocol).
        step: every how many frames of a sequence one is taken.
        unpacked: read unpacked, memory-mapped depth, many times as fast, for 2 bytes a pixel of the windows. True: made
            once in `unpacked/` of the store; a folder: made there.
        seed: of the noise on true centres (`CropConfig.centre_noise`).

    Attributes:
        config: the crops'.
        skeleton: of the joints.
        actions: the names of the classes.
        share_outside: the share of joints that lie outside the cube; over 1 % there is a warning.

    Raises:
        FileNotFoundError: no store there.
        StoreError: it is damaged.
        ValueError: a split without sequences, `splits` that lacks one, a cube larger than the store's windows, or files
            that don't belong together.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        crop: CropConfig | None = None,
        *,
        splits: Mapping[str, str] | None = None,
        step: int = 1,
        unpacked: bool | str | Path = False,
        seed: int = 0,
    ) -> None:
        super().__init__(root, split, crop, splits=splits, step=step, unpacked=unpacked, seed=seed)
        self._starts = np.cumsum([0] + [len(take.joints) for take in self._takes])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> HandSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected one below {len(self)}, got {index}")
        index = int(index) % len(self)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        take, row = self._takes[number], index - int(self._starts[number])
        return HandSample(self, take, row)


class HandSequences(_Hands):
    """The sequences of one split, each a sample; see the module's header.

    Args:
        root, split, crop, splits, step, unpacked, seed: as for `HandFrames`.
        max_frames: longer sequences are cut to their first frames; 0 cuts none.

    Raises:
        FileNotFoundError, StoreError, ValueError: as `HandFrames`.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        crop: CropConfig | None = None,
        *,
        splits: Mapping[str, str] | None = None,
        step: int = 1,
        max_frames: int = 0,
        unpacked: bool | str | Path = False,
        seed: int = 0,
    ) -> None:
        if max_frames < 0:
            raise ValueError(f"max_frames: expected a number of frames, or 0 for all, got {max_frames}")
        most = max_frames or None
        super().__init__(root, split, crop, splits=splits, step=step, most=most, unpacked=unpacked, seed=seed)

    def __len__(self) -> int:
        return len(self._takes)

    def __getitem__(self, index: int) -> HandSample:
        take = self._takes[index]
        return HandSample(self, take, slice(0, len(take.joints)))

    def sequence(self, index: int) -> HandSequence:
        """A sequence as a reader gives it, for a viewer: its depth is 0 outside the stored windows."""
        take = self._takes[index]
        about, size = take.about, take.about.camera.size

        def read(frame: int) -> np.ndarray:
            depth = np.zeros(size, np.float32)
            (x, y), (height, width) = take.origin[frame], about.window
            stored = self._files[take.path].depth(about, int(take.rows[frame]))
            rows, columns = slice(max(0, y), min(size[0], y + height)), slice(max(0, x), min(size[1], x + width))
            inner = stored[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
            depth[rows, columns] = inner * np.float32(self.store_config.unit)
            return depth

        visible = take.visible if about.visible else None
        parts = (about.key, about.subject, about.action, about.camera, self.skeleton, take.joints, read)
        return HandSequence(*parts, visible=visible, numbers=take.numbers)


class TruePoses(Dataset):
    """The true poses of one split of a collection, each sequence a sample, as crops around the true centre see them.

    Needs no store and reads no depth: for actions. A sample has `pose`, `visible`, `cube`, `frame`, `action`, `length`,
    `key` and `subject`, as those of `HandSequences`.

    Args:
        collection: of hands.
        split: "train", "val" or "test".
        crop: method and cube of the crops; its centre is the true one.
        max_frames: as in `HandSequences`.

    Attributes:
        config: the crops'.
        skeleton, actions: of the collection.

    Raises:
        ValueError: a split without sequences.
    """

    def __init__(
        self, collection: HandCollection, split: str = "train", crop: CropConfig | None = None, *, max_frames: int = 0
    ) -> None:
        self.config, self.split, self.actions = replace(crop or CropConfig(), centre="truth"), split, collection.actions
        self.max_frames, self._sequences = max_frames, collection.split(split)
        if not self._sequences:
            raise ValueError(f"split: {split!r} has no sequences")
        self.skeleton = self._sequences[0].skeleton

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sequence, first = self._sequences[index], slice(0, self.max_frames or None)
        joints = sequence.joints[first]
        seen = view(sequence.camera, self.config, joints[:, self.skeleton.centre].astype(np.float64), STILL, joints)
        visible = np.ones(joints.shape[:2], bool) if sequence.visible is None else sequence.visible[first]
        arrays = {"pose": poses_of(joints, seen), "visible": visible, "cube": np.array(seen.cube, np.float32)}
        arrays |= {"frame": np.asarray(sequence.numbers)[first], "length": np.array(len(joints))}
        sample: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        sample["action"] = torch.tensor(-1 if sequence.action is None else sequence.action)
        return sample | {"key": sequence.key, "subject": sequence.subject}

    @property
    def subjects(self) -> list[str]:
        """Whose hands these are, sorted."""
        return sorted({sequence.subject for sequence in self._sequences})

    @property
    def videos(self) -> list[str]:
        """The keys of the sequences, in the order of the samples."""
        return [sequence.key for sequence in self._sequences]

    @property
    def fingerprints(self) -> list[str]:
        """The SHA-256 of the joints of each of these."""
        return [hashlib.sha256(sequence.joints.tobytes()).hexdigest() for sequence in self._sequences]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the samples."""
        about = [asdict(self.config), self.max_frames, list(self.actions), self.videos, self.fingerprints]
        return hashlib.sha256(json.dumps([type(self).__name__, *about]).encode()).hexdigest()
