"""Hand skeletons: the joints of each data set by name, what each hangs on, and the way from one order to another.

A name is a finger (T thumb, I index, M middle, R ring, P pinky) and a place on it: MCP, PIP, DIP, TIP from the knuckle
to the tip, as FPHA has it. Joints that are the same point of the hand have the same name in every skeleton.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# (from, to) of the palm's thumb side, of its other side, and of the middle finger; from the palm, the wrist lies below.
PALMS = (
    (("Wrist", "IMCP"), ("Wrist", "PMCP"), ("MMCP", "MTIP")),
    (("Palm", "IROOT"), ("Palm", "PROOT"), ("MROOT", "MTIP")),
    (("Palm", "WristPinkySide"), ("Palm", "WristThumbSide"), ("Palm", "MTIP")),
)
FINGERS = {"T": "thumb", "I": "index", "M": "middle", "R": "ring", "P": "pinky"}


@dataclass(frozen=True)
class Skeleton:
    """The joints of a hand as one data set lists them.

    Attributes:
        name: of the skeleton.
        joints: name of each joint.
        parents: index of the joint that each hangs on; -1 for the root, the only one without.
        centre: index of the joint that crops are centred on and poses are relative to.
        right: whether the hands are right hands; else left ones.

    Raises:
        ValueError: names that aren't unique, parents that make no tree, or a centre that is no joint.

    >>> FPHA_21.joints[FPHA_21.centre], FPHA_21.fingers[8]
    ('MMCP', 'thumb')
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    centre: int
    right: bool

    def __post_init__(self) -> None:
        J = len(self.joints)
        if len(set(self.joints)) != J or len(self.parents) != J:
            raise ValueError(f"{self.name}: expected unique names and as many parents, got {self.joints}")
        if not 0 <= self.centre < J:
            raise ValueError(f"{self.name}: expected the centre among its {J} joints, got {self.centre}")
        reached = {-1}
        while more := {j for j in range(J) if self.parents[j] in reached} - reached:
            reached |= more
        if len(reached) != J + 1 or self.parents.count(-1) != 1:
            raise ValueError(f"{self.name}: expected parents that make one tree, got {self.parents}")

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @property
    def root(self) -> int:
        """The joint that hangs on none."""
        return self.parents.index(-1)

    @property
    def by_finger(self) -> tuple[int, ...]:
        """Indices of all joints finger by finger, each from the root outwards; the root comes first."""
        order: list[int] = []
        stack = [self.root]
        while stack:
            order.append(joint := stack.pop())
            stack += [child for child in reversed(range(self.num_joints)) if self.parents[child] == joint]
        return tuple(order)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) of each of the J-1 bones, in the order of the children."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def fingers(self) -> tuple[str, ...]:
        """The finger each joint is part of, "palm" for those of none."""
        return tuple(FINGERS[name[0]] if re.fullmatch("[TIMRP][A-Z]+", name) else "palm" for name in self.joints)

    def index(self, joint: str) -> int:
        """Where a joint of this name is.

        Raises:
            ValueError: it has none of this name.
        """
        if joint not in self.joints:
            raise ValueError(f"{self.name}: expected one of its joints ({', '.join(self.joints)}), got {joint!r}")
        return self.joints.index(joint)


def reorder(joints: Float[np.ndarray, "*n J 3"], of: Skeleton, to: Skeleton) -> Float[np.ndarray, "*n K 3"]:
    """Joints in the order of skeleton `of`, in the order of skeleton `to`.

    Raises:
        ValueError: not as many joints as `of` has, or `to` has joints that `of` lacks.

    >>> reorder(np.zeros((5, 21, 3)), MSRA_21, FPHA_21).shape
    (5, 21, 3)
    """
    _check_joints(joints, of)
    if missing := [name for name in to.joints if name not in of.joints]:
        raise ValueError(f"to: expected a skeleton whose joints {of.name} has, got {to.name} with {', '.join(missing)}")
    return joints[..., [of.joints.index(name) for name in to.joints], :]


def bone_lengths(joints: Float[np.ndarray, "*n J 3"], skeleton: Skeleton) -> Float[np.ndarray, "*n J-1"]:
    """The length of every bone in the joints' unit, in the order of `Skeleton.bones`.

    Raises:
        ValueError: not as many joints as the skeleton has.
    """
    _check_joints(joints, skeleton)
    parents, children = np.array(skeleton.bones).T
    return np.linalg.norm(joints[..., children, :] - joints[..., parents, :], axis=-1)


def handedness(joints: Float[np.ndarray, "*n J 3"], skeleton: Skeleton) -> Float[np.ndarray, "*n"]:
    """How right a hand is: above 0 for a right one, below for a left one, near 0 while its fingers are straight.

    det[thumb side of the palm, its other side, which way the middle finger curls], each of length 1, in a frame whose
    axes are right-handed, as the camera's are. A mirrored axis turns the sign.

    Raises:
        ValueError: not as many joints as the skeleton has, or a skeleton of which it isn't known how to tell.
    """
    _check_joints(joints, skeleton)
    bones = next((bones for bones in PALMS if all(name in skeleton.joints for bone in bones for name in bone)), None)
    if bones is None:
        raise ValueError(f"skeleton: expected one with knuckles or sides of the wrist, got {skeleton.name}")
    tails, heads = (joints[..., [skeleton.index(bone[end]) for bone in bones], :] for end in (0, 1))
    sides = heads - tails
    return np.asarray(np.linalg.det(sides / np.maximum(np.linalg.norm(sides, axis=-1, keepdims=True), 1e-6)))


def _check_joints(joints: np.ndarray, skeleton: Skeleton) -> None:
    if joints.shape[-2:] != (skeleton.num_joints, 3):
        expected = f"[… {skeleton.num_joints} 3] as {skeleton.name} has them"
        raise ValueError(f"joints: expected {expected}, got {list(joints.shape)}")


def _finger(letter: str) -> list[str]:
    return [f"{letter}{place}" for place in ("MCP", "PIP", "DIP", "TIP")]


FPHA_21 = Skeleton(  # Garcia-Hernando et al. 2018: knuckles first, then finger by finger
    "FPHA_21",
    ("Wrist", *(f"{letter}MCP" for letter in "TIMRP"), *(name for letter in "TIMRP" for name in _finger(letter)[1:])),
    (-1, 0, 0, 0, 0, 0, *(parent for f in range(5) for parent in (1 + f, 6 + 3 * f, 7 + 3 * f))),
    centre=3,
    right=True,
)
MSRA_21 = Skeleton(  # Sun et al. 2015
    "MSRA_21",
    ("Wrist", *(name for letter in "IMRPT" for name in _finger(letter))),
    (-1, *(parent for f in range(5) for parent in (0, 1 + 4 * f, 2 + 4 * f, 3 + 4 * f))),
    centre=5,
    right=True,
)
# Tang et al. 2014: the palm's centre; root, middle and tip of each finger. Of the published labels of both test
# sequences 97 and 99 % of the poses that tell are left hands.
ICVL_16 = Skeleton(
    "ICVL_16",
    ("Palm", *(f"{letter}{place}" for letter in "TIMRP" for place in ("ROOT", "MID", "TIP"))),
    (-1, *(parent for f in range(5) for parent in (0, 1 + 3 * f, 2 + 3 * f))),
    centre=0,
    right=False,
)
# Tompson et al. 2014: the joints that are scored, of the 36 (see `flowlib.hands.nyu`). All published labels of the test
# set that tell are right hands.
NYU_14 = Skeleton(
    "NYU_14",
    ("PTIP", "PMID", "RTIP", "RMID", "MTIP", "MMID", "ITIP", "IMID", "TTIP", "TMID", "TROOT")
    + ("WristPinkySide", "WristThumbSide", "Palm"),
    (1, 13, 3, 13, 5, 13, 7, 13, 9, 10, 13, 13, 13, -1),
    centre=13,
    right=True,
)
SKELETONS = {skeleton.name: skeleton for skeleton in (FPHA_21, MSRA_21, ICVL_16, NYU_14)}
