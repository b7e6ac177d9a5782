"""Exact depth pictures of the synthetic hand: rays cast at capsules, no mesh and no network.

In go joints in the camera's axes [21 3] mm, the capsules' radii and a camera; out comes depth [H W] in mm along the
optical axis, 0 where nothing is. Every capsule is met exactly: a quadratic for its cylinder, one for its ends; the
union is the least depth. Arithmetic and square roots alone, so the same joints give the same bytes everywhere.
Knows nothing of sensors, actions and files.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from flowlib.camera import Camera
from flowlib.hands.kinematics import CAPSULES

OWN_FLESH = 1.6  # radii of a joint's own flesh that may lie before it
Window = tuple[int, int, int, int]  # (left, top, right, bottom) in pixels, right and bottom excluded

STARTS, ENDS = (list(joints) for joints in zip(*CAPSULES))
THICKEST = [[i for i, capsule in enumerate(CAPSULES) if joint in capsule] for joint in range(21)]  # capsules of a joint


def hand_capsules(joints: Float[np.ndarray, "*S 21 3"]) -> Float[np.ndarray, "*S 23 2 3"]:
    """The two ends of every capsule's axis, in the order of `kinematics.CAPSULES`."""
    return np.stack([joints[..., STARTS, :], joints[..., ENDS, :]], axis=-2)


def render(
    joints: Float[np.ndarray, "21 3"],
    radii: Float[np.ndarray, " 23"],
    camera: Camera,
    window: Window | None = None,
    *,
    held: Float[np.ndarray, "K 2 3"] | None = None,
    held_radius: float = 0.0,
) -> Float[np.ndarray, "H W"]:
    """Depth of a hand in mm, float32 [H W], 0 where there is none.

    Args:
        joints: in the camera's axes, mm, FPHA's order.
        radii: of the capsules, see `HandShape`.
        camera: its picture's size is that of the result unless a window is asked for.
        window: (left, top, right, bottom) of the pixels wanted; it may reach outside the picture. The same pixels
            have the same bytes in every window.
        held: axes of further capsules, something the hand holds.
        held_radius: their radius in mm.

    Raises:
        ValueError: a part of the hand at or behind the camera, or an empty window.
    """
    axes = hand_capsules(joints)
    if held is not None:
        axes, radii = np.concatenate([axes, held]), np.concatenate([radii, np.full(len(held), held_radius)])
    return cast_capsules(axes, radii, camera, window)


def cast_capsules(
    axes: Float[np.ndarray, "C 2 3"], radii: Float[np.ndarray, " C"], camera: Camera, window: Window | None = None
) -> Float[np.ndarray, "H W"]:
    """Depth [H W] of the union of capsules, as `render` gives it; axes are their two ends in the camera's axes."""
    height, width = camera.size
    left, top, right, bottom = (0, 0, width, height) if window is None else window
    if left >= right or top >= bottom:
        raise ValueError(f"window: expected left < right and top < bottom, got {(left, top, right, bottom)}")
    nearest = float((axes[..., 2].min(axis=1) - radii).min())
    if not nearest > 0:
        raise ValueError(f"joints: expected a hand before the camera, got a part of it at {nearest:.1f} mm")
    x = (np.arange(left, right) - camera.ux) / camera.fx
    y = ((np.arange(top, bottom) - camera.uy) / camera.fy)[:, None]
    depth = np.zeros((bottom - top, right - left), np.float32)
    columns = _reach(axes[..., 0], axes[..., 2], radii, camera.fx, camera.ux, left, right)
    rows = _reach(axes[..., 1], axes[..., 2], radii, camera.fy, camera.uy, top, bottom)
    seen = (columns[:, 0] < columns[:, 1]) & (rows[:, 0] < rows[:, 1])
    if not seen.any():
        return depth
    hand = depth[rows[seen, 0].min() : rows[seen, 1].max(), columns[seen, 0].min() : columns[seen, 1].max()]
    hand[:] = np.inf
    for (a, b), r, (x0, x1), (y0, y1) in zip(axes.tolist(), radii.tolist(), columns.tolist(), rows.tolist()):
        if x0 < x1 and y0 < y1:
            box = depth[y0:y1, x0:x1]
            np.minimum(box, _entry(x[x0:x1], y[y0:y1], a, b, r), out=box)
    hand[hand == np.inf] = 0
    return depth


def visible_joints(
    joints: Float[np.ndarray, "S 21 3"],
    radii: Float[np.ndarray, " 23"],
    *,
    held: Float[np.ndarray, "S K 2 3"] | None = None,
    held_radius: float = 0.0,
) -> Bool[np.ndarray, "S 21"]:
    """Which joints the camera sees: the first surface on the ray to a joint is nearer than it by less than 1.6 r.

    r is the greatest radius about the joint, which lies on the axes, inside the hand: a bone that leans by up to 51
    degrees out of the picture's plane shows its joints, one that points further away hides them, as whatever else is
    before them does: a finger that touches is nearer by r and twice its own radius.
    """
    axes = hand_capsules(joints)  # S C 2 3
    if held is not None:
        axes = np.concatenate([axes, held], axis=1)
        radii = np.concatenate([radii, np.full(held.shape[1], held_radius)])
    x, y = (joints[:, None, :, i] / joints[:, None, :, 2] for i in range(2))  # S 1 J
    a, b = (np.moveaxis(axes[:, :, None, end], -1, 0) for end in range(2))  # 3 S C 1
    depth = _entry(x, y, a, b, radii[:, None]).min(axis=1)
    own = np.array([radii[capsules].max() for capsules in THICKEST])
    return joints[..., 2] - depth < OWN_FLESH * own


def _entry(x, y, a, b, r) -> np.ndarray:
    """Depth at which rays (x, y, 1) enter a capsule of radius r about the line from a to b, inf where they miss it.

    Everything broadcasts. With columns x and rows y the sums below are of a row and a column, and cheap.
    Measured from a point of the ray near the capsule, so that no large numbers cancel.
    """
    (ax, ay, az), (bx, by, bz) = a, (b[0] - a[0], b[1] - a[1], b[2] - a[2])
    square = bx * bx + by * by + bz * bz
    z = az + bz / 2
    px, py, pz = x * z - ax, y * z - ay, z - az
    dd = x * x + (y * y + 1)
    dp = x * px + (y * py + pz)
    pp = px * px + (py * py + (pz * pz - r * r))
    db = x * bx + (y * by + bz)
    pb = px * bx + (py * by + pz * bz)
    along, place = db / square, pb / square
    # the infinite cylinder: what remains of everything once its part along the axis is taken off
    across = np.maximum(dd - db * along, 1e-20)  # 0 for a ray along the axis, which then meets an end
    half = dp - db * place
    inner = half * half - across * (pp - pb * place)
    with np.errstate(invalid="ignore"):
        t = -(half + np.sqrt(inner)) / across
        s = place + along * t
        # before or past the axis' ends the sphere there is met instead, if at all
        end = s > 1
        past = end | (s < 0)
        dp = dp - end * db
        pp = pp - end * (2 * pb - square)
        cap = -(dp + np.sqrt(dp * dp - dd * pp)) / dd
        t = z + np.where(past, cap, t)
    return np.where(t > 0, t, np.inf)  # nan, too, is a miss


def _reach(side, z, radii, focal: float, centre: float, first: int, last: int) -> np.ndarray:
    """[C 2]: the pixels of one axis, from `first` on, that capsules can touch: tangents to their end spheres."""
    r = radii[:, None]
    root = r * np.sqrt(side * side + z * z - r * r)
    slopes = np.stack([side * z - root, side * z + root]) / (z * z - r * r)
    pixels = slopes * focal + centre
    low = np.ceil(pixels[0].min(axis=1)).clip(first, last) - first
    high = np.floor(pixels[1].max(axis=1)).clip(first - 1, last - 1) + 1 - first
    return np.stack([low, high], axis=1).astype(int)
