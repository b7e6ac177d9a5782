"""`HandSequence`: one take of a hand with its joints and depth; `HandCollection`: what a reader found of a data set.

The types that readers, the synthetic hand, crops and the store share. Knows no file format.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from flowlib.camera import Camera
from flowlib.hands.skeleton import Skeleton
from flowlib.splits import SPLITS
from flowlib.workspace import sha256_file


@dataclass(frozen=True, eq=False)
class HandSequence:
    """One take: S frames of one hand.

    Attributes:
        key: its name, unique in its collection: "Subject_1/put_salt/1".
        subject: whose hand.
        action: class of what the hand does, a whole number; None where the data set has no actions.
        camera: of the depth.
        skeleton: names and order of the joints.
        joints: float32 [S J 3] in mm, in the camera's frame.
        read: the depth of a frame in mm, [H W] of any number type; called by `depth` alone.
        visible: bool [S J], whether the camera sees the joint; None where that isn't known.
        numbers: int64 [S], the number each frame has in the files, ascending, perhaps with gaps; 0 to S-1 if None.
        source: the files it is read from, or a text that says all that it is made of.

    Raises:
        ValueError: no name, no frame, shapes that don't belong together, joints that aren't finite, or numbers that
            don't ascend.
    """

    key: str
    subject: str
    action: int | None
    camera: Camera
    skeleton: Skeleton
    joints: Float[np.ndarray, "S J 3"]
    read: Callable[[int], np.ndarray] = field(repr=False)
    visible: Bool[np.ndarray, "S J"] | None = field(default=None, repr=False)
    numbers: np.ndarray | None = field(default=None, repr=False)
    source: tuple[Path, ...] | str = field(default="", repr=False)

    def __post_init__(self) -> None:
        joints, J = np.asarray(self.joints, np.float32), self.skeleton.num_joints
        if not (self.key and self.subject):
            raise ValueError(f"key and subject: expected a name for each, got {self.key!r} and {self.subject!r}")
        if not (self.action is None or isinstance(self.action, int)):
            raise ValueError(f"{self.key}: expected a whole number as action, or None, got {self.action!r}")
        if joints.ndim != 3 or joints.shape[1:] != (J, 3) or len(joints) == 0:
            raise ValueError(f"{self.key}: expected joints [S {J} 3] of at least one frame, got {list(joints.shape)}")
        if not np.isfinite(joints).all():
            frame = int(np.argmax(~np.isfinite(joints).all(axis=(1, 2))))
            raise ValueError(f"{self.key}: expected finite joints, got NaN or infinity in frame {frame}")
        S = len(joints)
        numbers = np.arange(S) if self.numbers is None else np.asarray(self.numbers, np.int64)
        if numbers.shape != (S,):
            raise ValueError(f"{self.key}: expected a number for each of {S} frames, got {list(numbers.shape)}")
        if (np.diff(numbers) <= 0).any():
            late = int(np.argmax(np.diff(numbers) <= 0))
            got = f"{numbers[late]} before {numbers[late + 1]}"
            raise ValueError(f"{self.key}: expected numbers of frames that ascend, got {got}")
        if self.visible is not None and (self.visible.shape != (S, J) or self.visible.dtype != bool):
            got = f"{self.visible.dtype} {list(self.visible.shape)}"
            raise ValueError(f"{self.key}: expected visible as bool [{S} {J}], got {got}")
        object.__setattr__(self, "joints", joints)
        object.__setattr__(self, "numbers", numbers)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.joints)

    def depth(self, frame: int) -> Float[np.ndarray, "H W"]:
        """The depth of frame 0 to S-1: float32 [H W] in mm, 0 where nothing was measured; read anew at every call.

        Raises:
            IndexError: no such frame.
            ValueError: the picture is damaged, or not of the camera's size.
            OSError: its file can't be read.
        """
        if not 0 <= frame < len(self):
            raise IndexError(f"{self.key}: expected a frame from 0 to {len(self) - 1}, got {frame}")
        depth = np.asarray(self.read(frame), np.float32)
        if depth.shape != self.camera.size:
            expected = f"depth of {list(self.camera.size)} pixels"
            raise ValueError(f"{self.key}, frame {frame}: expected {expected}, got {list(depth.shape)}")
        return depth

    def fingerprint(self) -> str:
        """SHA-256, as 64 hexadecimal digits, of all that the sequence is made of.

        Of joints, visibility, camera, skeleton and action, and of the content of its files, which are read to their
        end: a change in any of them, or in how a reader understands them, changes it; where they lie doesn't.
        """
        digest = hashlib.sha256(f"{self.subject} {self.action} {self.camera} {self.skeleton}".encode())
        for array in (self.joints, self.numbers, self.visible):
            digest.update(b"none" if array is None else f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
        source = [self.source] if isinstance(self.source, str) else map(sha256_file, self.source)
        digest.update("\n".join(source).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Skipped:
    """A sequence or frame that is skipped, and why: one sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class DepthCheck:
    """Whether joints and depth belong together, measured on some frames of a data set.

    Attributes:
        near: share of joints whose pixel shows depth where the hand must be.
        worst: lowest such share of any sequence that was looked at, and its key.
        right: share of frames that show a right hand, of those whose fingers are curled enough to tell; None if none.
        frames: how many were looked at.
        unread: how many more could not be read.
    """

    near: float
    worst: tuple[float, str]
    right: float | None
    frames: int
    unread: int = 0

    def __str__(self) -> str:
        hand = "no frame tells left from right" if self.right is None else f"{self.right:.0%} of poses are right hands"
        unread = f", {self.unread} could not be read" if self.unread else ""
        worst = f"worst {self.worst[1]}: {self.worst[0]:.0%}"
        return f"{self.near:.0%} of joints lie in the hand ({self.frames} frames{unread}; {worst}), {hand}"


@dataclass(frozen=True, eq=False)
class HandCollection:
    """A data set of hands, as a reader found it.

    Attributes:
        sequences: in the order of their keys' parts, whatever order the files were listed in.
        splits: "train", "val" or "test" of each sequence by its key.
        actions: name of each class; empty where the data set has none.
        skipped: what is there and isn't used.
        check: what its reader found of joints and depth; None where there is nothing to doubt.

    Raises:
        ValueError: keys that aren't unique, splits of other keys, unknown classes, or several skeletons.
    """

    sequences: tuple[HandSequence, ...]
    splits: dict[str, str]
    actions: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    check: DepthCheck | None = None

    def __post_init__(self) -> None:
        keys = Counter(sequence.key for sequence in self.sequences)
        if twice := [key for key, count in keys.items() if count > 1]:
            raise ValueError(f"sequences: expected a key of its own for each, got {twice[0]!r} twice")
        if strays := keys.keys() ^ self.splits.keys():
            raise ValueError(f"splits: expected one for every sequence and no others, got {sorted(strays)[0]!r}")
        if wrong := {split for split in self.splits.values()} - set(SPLITS):
            raise ValueError(f"splits: expected one of {', '.join(SPLITS)}, got {sorted(wrong)[0]!r}")
        if len(skeletons := {sequence.skeleton for sequence in self.sequences}) > 1:
            names = ", ".join(sorted(skeleton.name for skeleton in skeletons))
            raise ValueError(f"sequences: expected one skeleton, got {names}")
        for sequence in self.sequences:
            if sequence.action is not None and not 0 <= sequence.action < len(self.actions):
                expected = f"a class from 0 to {len(self.actions) - 1}"
                raise ValueError(f"{sequence.key}: expected {expected}, got {sequence.action}")

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.sequences)

    def split(self, name: str) -> tuple[HandSequence, ...]:
        """The sequences of one split.

        Raises:
            ValueError: no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {name!r}")
        return tuple(sequence for sequence in self.sequences if self.splits[sequence.key] == name)
