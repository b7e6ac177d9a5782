"""Kinematics of the synthetic hand: from joint angles to 21 joints in millimetres, in FPHA's order.

In goes θ [S 5 4], per finger (thumb, index, middle, ring, little) abduction and three flexions in radians, and the
measures of one person's hand; out come joints [S 21 3] in the hand's own axes, then, by `place`, in the camera's.
The hand's axes: origin at the wrist, y along the hand, z out of its back; fingers bend towards -z. The thumb is at +x
of a left hand and at -x of a right one, which is the left one mirrored.
Arithmetic, rounding and square roots alone, never a sine of the machine's: the same angles give the same bytes
everywhere. Knows nothing of pictures and actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FINGERS = ("thumb", "index", "middle", "ring", "little")
CHAINS = ((1, 6, 7, 8), (2, 9, 10, 11), (3, 12, 13, 14), (4, 15, 16, 17), (5, 18, 19, 20))  # FPHA's joint numbers

# Of a left hand in mm: where the fingers start, and their three bones.
MCP = ((28.0, 28.0, 8.0), (24.0, 88.0, 0.0), (2.0, 92.0, 0.0), (-18.0, 86.0, 0.0), (-36.0, 76.0, 0.0))
PHALANGES = ((40.0, 32.0, 26.0), (42.0, 25.0, 22.0), (46.0, 29.0, 24.0), (42.0, 27.0, 23.0), (33.0, 20.0, 20.0))
REST_ABDUCTION = (-0.75, -0.05, 0.0, 0.06, 0.14)

# (least, most) in radians of abduction and of flexion at the first, second and third joint.
FINGER_LIMITS = ((-0.35, 0.35), (-0.4, 1.6), (0.0, 1.9), (0.0, 1.4))
THUMB_LIMITS = ((-1 / 2, 0.9), (-0.3, 1.0), (-0.2, 1.3), (-0.2, 1.3))
LIMITS = np.array([THUMB_LIMITS] + [FINGER_LIMITS] * 4)  # 5 4 2

# The surface: capsules about the lines between two joints. Phalanges from the thumb's first to the little finger's
# last, metacarpals from the wrist, then across the knuckles.
CAPSULES = (
    *((chain[i], chain[i + 1]) for chain in CHAINS for i in range(3)),
    *((0, chain[0]) for chain in CHAINS),
    *((2, 3), (3, 4), (4, 5)),
)
RADII = (11.0, 9.8, 8.6, 9.4, 8.2, 7.0, 9.6, 8.4, 7.2, 9.0, 7.8, 6.7, 7.8, 6.7, 5.8)
RADII += (14.0, 13.5, 13.5, 13.0, 13.0, 10.0, 10.0, 10.0)  # mm, in the order of CAPSULES

# Half a turn of the reduction below, in two parts: the first has few enough bits that whole multiples are exact.
HALF_PI = (1.5707963267341256, 6.077100506506192e-11)
SINE = (1.0, *(sign / factorial for sign, factorial in ((-1, 6), (1, 120), (-1, 5040), (1, 362880), (-1, 39916800))))
SINE += (1 / 6227020800, -1 / 1307674368000, 1 / 355687428096000)
COSINE = (1.0, *(sign / factorial for sign, factorial in ((-1, 2), (1, 24), (-1, 720), (1, 40320), (-1, 3628800))))
COSINE += (1 / 479001600, -1 / 87178291200, 1 / 20922789888000)


@dataclass(frozen=True, eq=False)
class HandShape:
    """The measures of one person's hand, as a left one; `right` mirrors what `forward` makes of it.

    Attributes:
        mcp: [5 3] mm, where the fingers start.
        phalanges: [5 3] mm, lengths of their bones from the palm outward.
        abduction: [5] radians, how far the fingers point away from y at rest; positive turns from +x to +y.
        radii: [23] mm, of the capsules in `CAPSULES`.
        right: a right hand.
    """

    mcp: Float[np.ndarray, "5 3"]
    phalanges: Float[np.ndarray, "5 3"]
    abduction: Float[np.ndarray, " 5"]
    radii: Float[np.ndarray, " 23"]
    right: bool = True


def mean_shape(*, right: bool = True) -> HandShape:
    """The hand of which all others are variations.

    >>> forward(np.zeros((1, 5, 4)), mean_shape())[0, 3].tolist()  # the middle finger's knuckle of a right hand
    [-2.0, 92.0, 0.0]
    """
    return HandShape(np.array(MCP), np.array(PHALANGES), np.array(REST_ABDUCTION), np.array(RADII), right)


def random_shape(rng: np.random.Generator, *, right: bool = True) -> HandShape:
    """Another person's hand: size ±12 %, each bone ±4 %, knuckles ±2 mm, thickness ±6 %; decided by the generator."""
    scale = 0.88 + 0.24 * rng.random()
    mcp = (np.array(MCP) + 2 * gaussian(rng, (5, 3))) * scale
    phalanges = np.array(PHALANGES) * (1 + 0.04 * gaussian(rng, (5, 3))) * scale
    radii = np.array(RADII) * (1 + 0.06 * gaussian(rng, (len(RADII),))) * scale
    return HandShape(mcp, phalanges, np.array(REST_ABDUCTION), radii, right)


def forward(theta: Float[np.ndarray, "S 5 4"], shape: HandShape) -> Float[np.ndarray, "S 21 3"]:
    """Joints [S 21 3] in mm in the hand's axes, float64; the wrist is the origin.

    Args:
        theta: per finger abduction and flexion at its three joints, in radians; see `LIMITS`.
        shape: the person's measures. The angles mean the same in a left and a right hand.
    """
    (sin_side, cos_side), (sin_bend, cos_bend) = (
        sine_cosine(angle) for angle in (theta[..., 0] + shape.abduction, _running_sum(theta[..., 1:]))
    )
    bones = np.stack([-sin_side[..., None] * cos_bend, cos_side[..., None] * cos_bend, -sin_bend], axis=-1)  # S 5 3 3
    bones *= shape.phalanges[..., None]
    joints = np.zeros((len(theta), 21, 3))
    for finger, chain in enumerate(CHAINS):
        joints[:, chain[0]] = shape.mcp[finger]
        for i in range(3):
            joints[:, chain[i + 1]] = joints[:, chain[i]] + bones[:, finger, i]
    if shape.right:
        joints[..., 0] *= -1
    return joints


def within_limits(theta: Float[np.ndarray, "S 5 4"]) -> Float[np.ndarray, "S 5 4"]:
    """The angles, brought to the nearest a hand can take."""
    return theta.clip(LIMITS[..., 0], LIMITS[..., 1])


def rotation(angles: Float[np.ndarray, "S 3"]) -> Float[np.ndarray, "S 3 3"]:
    """Matrices that turn a hand about the camera's x, then y, then z axis, after its resting view.

    At rest the camera looks at the back of the hand, fingers up: the camera's axes are x, -y, -z of the hand.
    """
    sin, cos = sine_cosine(angles)
    (sx, sy, sz), (cx, cy, cz) = sin.T, cos.T
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2) * (1.0, -1.0, -1.0)


def place(
    points: Float[np.ndarray, "S *N 3"], turn: Float[np.ndarray, "S 3 3"], position: Float[np.ndarray, "S 3"]
) -> Float[np.ndarray, "S *N 3"]:
    """Points of the hand's axes in the camera's, turned by `turn` [S 3 3] with their origin at `position` [S 3] mm."""
    spread = (slice(None), *(None,) * (points.ndim - 2))
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack(
        [
            (turn[:, i, 0][spread] * x + turn[:, i, 1][spread] * y) + turn[:, i, 2][spread] * z + position[:, i][spread]
            for i in range(3)
        ],
        axis=-1,
    )


def sine_cosine(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of angles up to some thousand radians to 3e-16, by arithmetic alone: the machine's own differ.

    >>> [round(float(part), 12) for part in sine_cosine(np.array(0.5))]
    [0.479425538604, 0.87758256189]
    """
    quarter = np.rint(angle * (2 / np.pi))
    rest = (angle - quarter * HALF_PI[0]) - quarter * HALF_PI[1]
    square = rest * rest
    sin, cos = np.zeros_like(rest), np.zeros_like(rest)
    for a, b in zip(SINE[::-1], COSINE[::-1]):
        sin, cos = sin * square + a, cos * square + b
    sin = sin * rest
    turns = quarter.astype(int) % 4
    swap = turns % 2 == 1
    sin, cos = np.where(swap, cos, sin), np.where(swap, sin, cos)
    return np.where(turns >= 2, -sin, sin), np.where((turns == 1) | (turns == 2), -cos, cos)


def gaussian(rng: np.random.Generator, shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    """Numbers of mean 0 and deviation 1, nearly normal and within ±3.5: sums of four equal draws, exact everywhere."""
    draws = rng.random((4, *shape), dtype=dtype)
    return (draws[0] + draws[1] + draws[2] + draws[3] - dtype(2)) * dtype(np.sqrt(3))


def _running_sum(values: np.ndarray) -> np.ndarray:
    """Sums of the last axis up to each place, in this order."""
    return np.cumsum(values, axis=-1)
