"""`HandAugment`: draw how a camera and the cube around a hand are changed, before anything is cropped.

What is drawn is a `Motion`: a turn of the camera about its axis, a factor on the cube, an offset of the centre. It acts
on points and camera; `crop.crop` then reads the raw depth once, and joints are normalised with the same numbers, so
picture and joints can't part. (Turning a finished crop instead shears the joints: 7 mm off the camera's axis.)
Knows nothing of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

Mode = Literal["none", "rot", "scale", "trans"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class Motion:
    """How the camera and the cube of one crop, or of n, are changed.

    Attributes:
        angle: the camera's turn about its axis, in radians; the hand turns in the picture from x towards y.
        factor: on the cube's side; joints and picture become smaller in it where it is above 1.
        offset: of the cube's centre, in mm, in the camera's frame.
    """

    angle: Float[np.ndarray, "*n"] = field(default_factory=lambda: np.zeros(()))
    factor: Float[np.ndarray, "*n"] = field(default_factory=lambda: np.ones(()))
    offset: Float[np.ndarray, "*n 3"] = field(default_factory=lambda: np.zeros(3))

    @property
    def turn(self) -> Float[np.ndarray, "*n 3 3"]:
        """The rotation about the camera's axis that takes points to where they are seen after the turn."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.zeros((*np.shape(self.angle), 3, 3))
        turn[..., 0, 0], turn[..., 0, 1] = cos, -sin
        turn[..., 1, 0], turn[..., 1, 1], turn[..., 2, 2] = sin, cos, 1
        return turn


@dataclass(frozen=True)
class HandAugment:
    """By how much crops are changed: one of `modes` for each sample, all equally likely.

    Raises:
        ValueError: an unknown mode, or none, or a number out of its range.
    """

    modes: Sequence[str] = MODES  # of none, rot, scale, trans
    angle: float = 180.0  # rot: degrees, evenly from -angle to angle
    scale: float = 0.02  # scale: the cube times |1 + scale·n|, n normal
    offset: float = 5.0  # trans: the centre moves by offset·n mm along each axis

    def __post_init__(self) -> None:
        object.__setattr__(self, "modes", tuple(self.modes))  # a list, after a round through JSON
        if not self.modes or set(self.modes) - set(MODES):
            raise ValueError(f"modes: expected some of {', '.join(MODES)}, got {self.modes}")
        for name, most in (("angle", 180.0), ("scale", 0.2), ("offset", math.inf)):
            if not 0 <= (value := getattr(self, name)) <= most or math.isinf(value):
                raise ValueError(f"{name}: expected a number from 0 to {most:g}, got {value!r}")

    def reach(self, cube: float) -> float:
        """Side in mm, of a square picture, that crops of a cube's own size read at any turn that may be drawn.

        >>> round(HandAugment(("rot",), angle=30.0).reach(200.0), 1), HandAugment(("trans",)).reach(200.0)
        (273.2, 200.0)
        """
        turn = math.radians(min(self.angle, 45.0)) if "rot" in self.modes else 0.0
        return cube * (math.cos(turn) + math.sin(turn))

    def draw(self, *seed: int) -> Motion:
        """The motion of one sample: a function of the seed's numbers (say seed, epoch and index) alone.

        >>> a, b = HandAugment(modes=("rot",)).draw(0, 3, 7), HandAugment(modes=("rot",)).draw(0, 3, 7)
        >>> bool(a.angle == b.angle != 0)
        True
        """
        many = self.draw_many(1, seed)
        return Motion(many.angle.reshape(()), many.factor.reshape(()), many.offset[0])

    def draw_many(self, count: int, seed: int | Sequence[int]) -> Motion:
        """The motions of `count` samples at once, [n] each: a function of the seed alone."""
        rng = np.random.default_rng(seed)
        kind = np.array([MODES.index(mode) for mode in self.modes])[rng.integers(len(self.modes), size=count)]
        angle = np.radians(rng.uniform(-self.angle, self.angle, count)) * (kind == MODES.index("rot"))
        factor = np.abs(1 + self.scale * rng.standard_normal(count) * (kind == MODES.index("scale")))
        offset = self.offset * rng.standard_normal((count, 3)) * (kind == MODES.index("trans"))[:, None]
        return Motion(angle, factor, offset)
