"""Crops: the depth in a cube around a hand's centre as a square picture in [-1, 1], and joints in the same units.

A crop is a camera that is turned, and sees only the cube. "virtual", the default, turns it until its axis passes
through the centre; there a turn of the picture is exactly a turn of the hand. "cube" (method 0 of DeepPrior) leaves it
as it is and cuts a window; "padded_box" (method 2 of the original thesis code) takes its window from the true joints,
so its results contain truth. Each depth is read once, the nearest pixel's, from the raw picture.
Knows nothing of files, datasets or torch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import cv2
import numpy as np
from jaxtyping import Float, Int, Num

from flowlib.camera import Camera
from flowlib.geometry import check_size, from_shares
from flowlib.hands.augment import Motion

Method = Literal["virtual", "cube", "padded_box"]
Centre = Literal["truth", "estimated"]
PADDING = 40.0  # px around the joints' box, of "padded_box"
BEHIND = 100.0  # mm behind the farthest joint up to which "padded_box" sees
STILL = Motion()
MOST_OUTSIDE = 0.01  # share of joints outside the cube from which on there is a warning
BLOB = 200  # px: the least that may be a hand, of `estimate_centre`
SLICE = 100.0  # mm of depth in which such a blob is looked for


@dataclass(frozen=True)
class CropConfig:
    """How crops are made.

    Raises:
        ValueError: an unknown method or centre, or a number out of its range; the message names it.
    """

    method: Method = "virtual"  # virtual, cube, padded_box
    cube: float = 200.0  # side of the cube in mm
    size: int = 128  # side of the picture in pixels
    centre: Centre = "truth"  # truth (the skeleton's centre joint) or estimated (from the depth alone)
    centre_noise: float = 0.0  # mm, standard deviation along each axis that is added to a true centre

    def __post_init__(self) -> None:
        for name, known in (("method", get_args(Method)), ("centre", get_args(Centre))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 0 < self.cube < math.inf:
            raise ValueError(f"cube: expected the side of a cube in mm, above 0, got {self.cube!r}")
        check_size((self.size, self.size), "size")
        if not 0 <= self.centre_noise < math.inf:
            raise ValueError(f"centre_noise: expected mm from 0 up, got {self.centre_noise!r}")
        if self.centre == "estimated" and self.centre_noise:
            raise ValueError(f"centre_noise: expected 0 for an estimated centre, got {self.centre_noise}")

    @property
    def uses_truth(self) -> bool:
        """Whether a crop can't be made without true joints."""
        return self.centre == "truth" or self.method == "padded_box"

    @property
    def truth(self) -> str:
        """What truth a network's input contains, for tables.

        >>> CropConfig(centre_noise=5).truth, CropConfig(centre="estimated").truth
        ('truth + noise (5 mm)', 'estimated')
        """
        noise = f" + noise ({self.centre_noise:g} mm)" if self.centre_noise else ""
        return self.centre + noise + (", box of the true joints" if self.method == "padded_box" else "")


@dataclass(frozen=True, eq=False)
class Crop:
    """The depth in a cube around a hand, and the numbers that took it there.

    Attributes:
        image: float32 [H W] in [-1, 1]: -1 is the cube's front and all before it, 1 its back, all behind it, and
            where nothing was measured.
        rotation: float64 [3 3], takes points of the original camera's frame to that of the crop's camera.
        centre: float64 [3] in mm, in the original camera's frame.
        cube: side in mm.
        camera: of the crop, for points that `rotation` has turned.
    """

    image: Float[np.ndarray, "H W"]
    rotation: Float[np.ndarray, "3 3"]
    centre: Float[np.ndarray, " 3"]
    cube: float
    camera: Camera

    def normalise(self, joints: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Points in mm as the crop sees them: turned, from its centre, in halves of its cube."""
        return normalise(joints, self.centre, self.rotation, self.cube)

    def restore(self, poses: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """The inverse of `normalise`: points in mm in the original camera's frame."""
        return restore(poses, self.centre, self.rotation, self.cube)

    def pixels(self, joints: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Points in mm of the original camera's frame to (x px, y px, z mm) of the crop."""
        return self.camera.project(joints @ self.rotation.T)


def normalise(joints: Any, centre: Any, rotation: Any, cube: Any) -> Any:
    """Points in mm as crops see them: R (p - centre) / (cube / 2).

    Arrays or tensors alike, of one crop or of a batch.

    Args:
        joints: [... J 3] in mm in the camera's frame.
        centre: [... 3] in mm, rotation: [... 3 3], cube: [...] in mm; as a crop or a batch of samples has them.

    Returns:
        [... J 3], in halves of the cube.
    """
    return (joints - centre[..., None, :]) @ _transposed(rotation) / _column(cube / 2)


def restore(poses: Any, centre: Any, rotation: Any, cube: Any) -> Any:
    """The inverse of `normalise`: [... J 3] in mm in the camera's frame.

    >>> pose, turn = np.ones((21, 3)), np.eye(3)
    >>> restore(pose, np.array([0.0, 0.0, 400.0]), turn, 200.0)[0].tolist()
    [100.0, 100.0, 500.0]
    """
    return poses @ rotation * _column(cube / 2) + centre[..., None, :]


def pixels_of(
    joints: Float[np.ndarray, "*n J 3"], rotation: Float[np.ndarray, "*n 3 3"], intrinsics: Float[np.ndarray, "*n 4"]
) -> Float[np.ndarray, "*n J 2"]:
    """Where joints in mm in the camera's frame are seen in crops, (x, y) in their pixels, float64."""
    x, y, z = np.moveaxis(joints.astype(np.float64) @ rotation.astype(np.float64).swapaxes(-1, -2), -1, 0)
    fx, fy, ux, uy = np.moveaxis(intrinsics.astype(np.float64), -1, 0)[..., None]
    return np.stack([fx * x / z + ux, fy * y / z + uy], axis=-1)


def _transposed(rotation: Any) -> Any:
    return rotation.swapaxes(-1, -2)


def _column(cube: Any) -> Any:
    return cube[..., None, None] if np.ndim(cube) else cube


@dataclass(frozen=True, eq=False)
class View:
    """The geometry of one crop, or of n: where its camera looks, and what its pixels see. Made by `view`.

    Attributes:
        rotation: float64 [*n 3 3], centre: float64 [*n 3], cube: float64 [*n]: as of a `Crop`.
        homography: float64 [*n 3 3], takes pixels (x, y, 1) of the crop to pixels of the picture.
        intrinsics: float64 [*n 4], (fx, fy, ux, uy) of the crop's camera.
        far: float64 [*n], depth in mm of the picture beyond which nothing is seen, besides the cube.
    """

    rotation: Float[np.ndarray, "*n 3 3"]
    centre: Float[np.ndarray, "*n 3"]
    cube: Float[np.ndarray, "*n"] | np.float64
    homography: Float[np.ndarray, "*n 3 3"]
    intrinsics: Float[np.ndarray, "*n 4"]
    far: Float[np.ndarray, "*n"] | np.float64

    def __getitem__(self, index: int | slice) -> View:
        """One of n, or some."""
        parts: tuple[Any, ...] = (self.rotation, self.centre, self.cube, self.homography, self.intrinsics, self.far)
        return View(*(part[index] for part in parts))

    def of_window(self, origin: Int[np.ndarray, "*n 2"]) -> View:
        """The same view of a window of the picture, by the window's top left pixel (x, y)."""
        homography = self.homography.copy()
        homography[..., :2, :] -= origin[..., None] * homography[..., 2:, :]
        return replace(self, homography=homography)

    def read(self, depth: Num[np.ndarray, "h w"], *, size: int, unit: float = 1.0) -> Float[np.ndarray, "size size"]:
        """The picture that one view has of depth: see `Crop.image`.

        Args:
            depth: float32 or uint16, 0 where nothing was measured.
            size: of the crop in pixels.
            unit: mm of one step of depth.
        """
        homography, scale = self.homography, 2 / float(self.cube)
        seen = cv2.warpPerspective(depth, homography, (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        x, y, one = (homography[2] / (scale * unit)).tolist()
        steps = _steps(size)
        # A depth is along the picture's axis; along the crop's it is z, the last row of the homography times less.
        image = x * steps + (y * steps + one)[:, None]
        np.divide(seen, image, out=image, casting="same_kind")
        image -= np.float32(scale * float(self.rotation[2] @ self.centre))
        np.clip(image, -1, 1, out=image)
        background = seen == 0
        if math.isfinite(self.far):
            background |= seen > self.far / unit
        cv2.copyTo(_ones(size), background.view(np.uint8), image)
        return image


@lru_cache
def _steps(size: int) -> np.ndarray:
    return np.arange(size, dtype=np.float32)


def view(
    camera: Camera,
    config: CropConfig,
    centre: Float[np.ndarray, "*n 3"],
    motion: Motion = STILL,
    joints: Float[np.ndarray, "*n J 3"] | None = None,
) -> View:
    """The geometry of crops around `centre`, changed by `motion`.

    Args:
        camera: of the depth.
        config: the method, cube and size.
        centre: in mm, in the camera's frame, before the motion.
        motion: of one crop, or as many as there are centres.
        joints: the true ones in mm, for "padded_box".

    Raises:
        ValueError: a centre that isn't finite and before the camera, or no joints for "padded_box".
    """
    centre = np.asarray(centre, np.float64) + motion.offset
    if not np.isfinite(centre).all():
        raise ValueError(f"centre: expected finite numbers of mm, got {centre[~np.isfinite(centre).all(axis=-1)]}")
    if not (centre[..., 2] > 0).all():
        raise ValueError(f"centre: expected one before the camera (z > 0 mm), got z = {centre[..., 2].min():g}")
    rotation, cube = axes(config, centre, motion), config.cube * np.broadcast_to(motion.factor, centre.shape[:-1])
    ahead = rotation @ centre[..., None]
    x, y, z = np.moveaxis(ahead[..., 0], -1, 0)
    half, far = (cube / 2 * camera.fx / z, cube / 2 * camera.fy / z), np.full(z.shape, np.inf)
    if config.method == "padded_box":
        if joints is None:
            raise ValueError('joints: expected the true ones, of which method "padded_box" takes the window, got None')
        turned = np.asarray(joints, np.float64) @ rotation.swapaxes(-1, -2)
        pixels = camera.project(np.concatenate([turned, ahead.swapaxes(-1, -2)], axis=-2))[..., :2]
        half = np.moveaxis(np.abs(pixels[..., :-1, :] - pixels[..., -1:, :]).max(axis=-2) + PADDING, -1, 0)
        far = turned[..., 2].max(axis=-1) + BEHIND
    size, (middle, _) = (config.size, config.size), _middle(config.size)
    fx, fy = camera.fx * size[1] / (2 * half[0]), camera.fy * size[0] / (2 * half[1])
    ux, uy = middle - fx * x / z, middle - fy * y / z
    away = np.zeros((*z.shape, 3, 3))  # the inverse of the crop's intrinsics
    away[..., 0, 0], away[..., 0, 2], away[..., 1, 1], away[..., 1, 2] = 1 / fx, -ux / fx, 1 / fy, -uy / fy
    away[..., 2, 2] = 1
    homography = _intrinsics(camera) @ rotation.swapaxes(-1, -2) @ away
    return View(*map(np.asarray, (rotation, centre, cube, homography, np.stack([fx, fy, ux, uy], -1), far)))


def axes(config: CropConfig, centre: Float[np.ndarray, "*n 3"], motion: Motion = STILL) -> Float[np.ndarray, "*n 3 3"]:
    """The rotation of crops around `centre`, the motion's offset included in it."""
    still = facing(centre) if config.method == "virtual" else np.broadcast_to(np.eye(3), (*centre.shape[:-1], 3, 3))
    return motion.turn @ still


def facing(centre: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """The least rotation that brings the direction to `centre` onto the camera's axis, so that z is its distance."""
    x, y, z = np.moveaxis(centre / np.linalg.norm(centre, axis=-1, keepdims=True), -1, 0)
    turn = np.empty((*z.shape, 3, 3))
    turn[..., 0, 0], turn[..., 0, 1], turn[..., 0, 2] = 1 - x * x / (1 + z), -x * y / (1 + z), -x
    turn[..., 1, 0], turn[..., 1, 1], turn[..., 1, 2] = -x * y / (1 + z), 1 - y * y / (1 + z), -y
    turn[..., 2, 0], turn[..., 2, 1], turn[..., 2, 2] = x, y, z
    return turn


@lru_cache
def _ones(size: int) -> np.ndarray:
    return np.ones((size, size), np.float32)


@lru_cache
def _intrinsics(camera: Camera) -> np.ndarray:
    return np.array([[camera.fx, 0, camera.ux], [0, camera.fy, camera.uy], [0, 0, 1]])


@lru_cache
def _middle(size: int) -> tuple[float, float]:
    x, y = from_shares(np.full(2, 1 / 2), (size, size))
    return float(x), float(y)


def crop(
    depth: Num[np.ndarray, "H W"],
    camera: Camera,
    config: CropConfig,
    *,
    centre: Float[np.ndarray, " 3"],
    motion: Motion = STILL,
    joints: Float[np.ndarray, "J 3"] | None = None,
) -> Crop:
    """Crop a hand out of a depth picture, once, the nearest pixel for each.

    Args:
        depth: in mm, 0 where nothing was measured.
        camera: of the picture.
        config: the method, cube and size; which centre is up to the caller.
        centre: of the hand in mm, in the camera's frame.
        motion: of the augmentation, see `HandAugment.draw`.
        joints: the true ones in mm, for method "padded_box" alone.

    Raises:
        ValueError: a picture not of the camera's size, with NaN or negative depth, or in which nothing was measured;
            as `view`.

    >>> wall, camera = np.full((240, 320), 450.0), Camera(240.0, 240.0, 160.0, 120.0, (240, 320))
    >>> made = crop(wall, camera, CropConfig(size=64), centre=np.array([0.0, 0.0, 400.0]))
    >>> float(made.image[32, 32]), made.normalise(np.array([[0.0, 0.0, 450.0]])).tolist()
    (0.5, [[0.0, 0.0, 0.5]])
    """
    _check_size(depth, camera)
    if not depth.min() >= 0:  # nor is NaN
        raise ValueError(f"depth: expected mm from 0 up, got {depth.min():g}")
    if not depth.any():
        raise ValueError("depth: expected some that was measured, got zeros alone")
    seen = view(camera, config, centre, motion, joints)
    depth = depth if depth.dtype == np.uint16 else depth.astype(np.float32, copy=False)
    image, size = seen.read(depth, size=config.size), (config.size, config.size)
    fx, fy, ux, uy = seen.intrinsics.tolist()
    return Crop(image, seen.rotation, seen.centre, float(seen.cube), Camera(fx, fy, ux, uy, size))


def _check_size(depth: np.ndarray, camera: Camera) -> None:
    if depth.shape != camera.size:
        raise ValueError(f"depth: expected a picture of {list(camera.size)}, as the camera's, got {list(depth.shape)}")


def share_outside(offsets: Float[np.ndarray, "*n 3"], cubes: Sequence[float]) -> dict[float, float]:
    """The share of joints that lie outside cubes around their hand's centre, by the cube's side.

    A picture doesn't show them; the PCA of poses doesn't mind. Warns of a cube that over 1 % lie outside of.

    Args:
        offsets: joints in mm from their crop's centre, along its axes.
        cubes: sides in mm.

    Raises:
        ValueError: a side that isn't above 0.

    >>> share_outside(np.array([[0.0, 90.0, 0.0], [0.0, 0.0, 101.0]]), [220.0])
    {220.0: 0.0}
    """
    if wrong := [cube for cube in cubes if not 0 < cube < math.inf]:
        raise ValueError(f"cubes: expected sides in mm, above 0, got {wrong[0]!r}")
    farthest = np.abs(offsets).max(axis=-1)
    shares = {cube: float((farthest > cube / 2).mean()) for cube in cubes}
    for cube, share in shares.items():
        if share > MOST_OUTSIDE:
            warnings.warn(f"cube: {100 * share:.1f} % of joints lie outside a cube of {cube:g} mm", stacklevel=2)
    return shares


def estimate_centre(
    depth: Num[np.ndarray, "H W"], camera: Camera, cube: float = 200.0
) -> Float[np.ndarray, " 3"] | None:
    """Where the nearest thing is that may be a hand, by the depth alone: float64 [3] in mm.

    The mean of all points inside a cube around the mean of the nearest blob of over 200 px, taken five times over, as
    DeepPrior's detector does (Oberweger et al. 2015). Whatever is held nearer than the hand draws it to itself.

    Args:
        depth: in mm, 0, NaN or infinite where nothing was measured.
        camera: of the picture.
        cube: side in mm.

    Returns:
        None if there is no such blob.

    Raises:
        ValueError: a picture not of the camera's size, or no cube.
    """
    _check_size(depth, camera)
    if not 0 < cube < math.inf:
        raise ValueError(f"cube: expected the side of a cube in mm, above 0, got {cube!r}")
    blob = _nearest_blob(depth)
    if blob is None:
        return None
    centre = _points(depth, camera, blob).mean(axis=0)
    rows, columns = np.nonzero((depth > 0) & (np.abs(depth - centre[2]) <= 3 * cube))  # more than five means can drift
    points = _points(depth, camera, (rows, columns))
    for _ in range(5):
        inside = (np.abs(points - centre) <= cube / 2).all(axis=1)
        if not inside.any():
            break
        centre = points[inside].mean(axis=0)
    return centre


def _nearest_blob(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(rows, columns) of the largest connected piece in the nearest slice of depth that has one large enough."""
    measured = depth[(depth > 0) & np.isfinite(depth)]
    if len(measured) < BLOB:
        return None
    near, farthest = float(measured.min()), float(measured.max())
    while near <= farthest:
        slab = (depth >= max(near, 1e-3)) & (depth < near + SLICE)
        _, labels, about, _ = cv2.connectedComponentsWithStats(slab.astype(np.uint8))
        areas = about[1:, cv2.CC_STAT_AREA]
        if areas.size and areas.max() > BLOB:
            rows, columns = np.nonzero(labels == 1 + areas.argmax())
            return rows, columns
        near += SLICE / 2
    return None


def _points(depth: np.ndarray, camera: Camera, pixels: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    rows, columns = pixels
    z = depth[rows, columns].astype(np.float64)
    return camera.unproject(np.stack([columns.astype(np.float64), rows.astype(np.float64), z], axis=-1))
