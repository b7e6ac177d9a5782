"""`PosePCA`: hand poses as a few coefficients, fitted on training poses alone, and kept by what it was fitted on.

A network that learns 30 coefficients instead of 63 coordinates learns what hands can do (Oberweger & Lepetit 2017).
Poses are as crops see them, in halves of the cube, so a basis belongs to a data set, a centre, a cube and an
augmentation; the file it is kept in is named by a hash of all of these.
Knows nothing of pictures, files of hands or torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import STILL, CropConfig, axes, normalise
from flowlib.workspace import atomic_write

logger = logging.getLogger(__name__)

CHUNK = 20_000  # poses that are drawn at once
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what reading a damaged .npz may end in


@dataclass(frozen=True)
class PCAConfig:
    """What a basis is fitted on, and how large it is.

    Raises:
        ValueError: a number out of its range; the message names it.
    """

    components: int = 30
    draws: int = 200_000  # poses drawn with replacement, each augmented anew; 0 takes every pose once, as it is
    augment: HandAugment | None = None  # of these draws; the training's own may be another
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("components", 1), ("draws", 0), ("seed", 0)):
            if not isinstance(value := getattr(self, name), (int, np.integer)) or value < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
        if self.augment and not self.draws:
            raise ValueError("augment: expected draws above 0, for each pose is drawn to be changed, got 0")


@dataclass(frozen=True, eq=False)
class PosePCA:
    """An orthonormal basis of poses.

    Attributes:
        mean: float64 [D], D = 3·J, the joints' coordinates one after the other.
        components: float64 [K D], the rows orthonormal, the one with the largest variance first.
        variance: float64 [K], along each of them.
        total: variance along all D.
    """

    mean: Float[np.ndarray, " D"]
    components: Float[np.ndarray, "K D"]
    variance: Float[np.ndarray, " K"]
    total: float

    @classmethod
    def fit(cls, poses: Float[np.ndarray, "N J C"], components: int = 30) -> PosePCA:
        """The basis of these poses, C = 3, or of other points.

        Raises:
            ValueError: no poses, some that aren't finite, no component, or more than coordinates or poses.

        >>> poses = np.random.default_rng(0).normal(size=(100, 21, 3))
        >>> pca = PosePCA.fit(poses, 63)
        >>> bool(np.allclose(pca.decode(pca.encode(poses)), poses))
        True
        """
        return _fit([poses], components)

    def encode(self, poses: Float[np.ndarray, "*n J 3"]) -> Float[np.ndarray, "*n K"]:
        """The coefficients of poses."""
        return (poses.reshape(*poses.shape[:-2], -1) - self.mean) @ self.components.T

    def decode(self, coefficients: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n J 3"]:
        """The poses that have these coefficients."""
        flat = coefficients @ self.components + self.mean
        return flat.reshape(*flat.shape[:-1], -1, 3)

    @property
    def share(self) -> float:
        """How much of the poses' variance the basis holds, of 1."""
        return float(self.variance.sum() / self.total) if self.total else 1.0

    def rms_mm(self, mse: float, cube: float) -> float:
        """The root mean square distance of joints in mm that a mean squared error of coefficients stands for.

        The basis is orthonormal, so both are the same sum: √(K·mse / J) halves of a cube, besides what the basis can't
        hold at all (`floor_mm`).

        Args:
            mse: over samples and coefficients, the loss of a network that learns these.
            cube: its side in mm.

        >>> pca = PosePCA.fit(np.random.default_rng(0).normal(size=(100, 21, 3)), 30)
        >>> round(pca.rms_mm(0.05, 200.0), 1)
        26.7
        """
        return math.sqrt(len(self.components) * mse / (len(self.mean) / 3)) * cube / 2

    def floor_mm(self, poses: Float[np.ndarray, "*n J 3"], cube: float) -> float:
        """The mean distance in mm of joints to what the basis can say of them: no network of it gets below."""
        error = np.linalg.norm(self.decode(self.encode(poses)) - poses, axis=-1)
        return float(error.mean()) * cube / 2


def draw_poses(
    joints: Float[np.ndarray, "N J 3"],
    centres: Float[np.ndarray, "N 3"],
    crop: CropConfig,
    augment: HandAugment | None,
    count: int,
    seed: tuple[int, ...],
) -> Float[np.ndarray, "count J 3"]:
    """Poses as crops would see them, drawn with replacement, each after a motion of its own: float64.

    Args:
        joints: in mm, centres: of their crops in mm, both in the cameras' frames.
        crop: the method and the cube.
        augment: what motions are drawn from; None leaves each as it is.
        count: how many.
        seed: decides, with `count`.
    """
    chosen = np.random.default_rng((*seed, 0)).integers(len(joints), size=count)
    motion = augment.draw_many(count, (*seed, 1)) if augment else STILL
    centre = centres[chosen].astype(np.float64) + motion.offset
    cube = crop.cube * np.broadcast_to(motion.factor, (count,))
    return normalise(joints[chosen].astype(np.float64), centre, axes(crop, centre, motion), cube)


def fit_pca(
    joints: Float[np.ndarray, "N J 3"],
    centres: Float[np.ndarray, "N 3"],
    crop: CropConfig,
    config: PCAConfig | None = None,
    *,
    folder: str | Path | None = None,
) -> PosePCA:
    """Fit a basis to training poses, or take the one that was fitted to the very same and kept.

    Args:
        joints: of training samples alone, in mm.
        centres: of their crops, in mm.
        crop: the crops' method, cube and centre.
        config: what is drawn of them, and the number of components.
        folder: where bases are kept, as `pca_<hash>.npz`; None keeps none.

    Raises:
        ValueError: as `PosePCA.fit`, or not as many centres as poses.
        OSError: the folder can't be written.
    """
    config = config or PCAConfig()
    if len(joints) == 0 or len(joints) != len(centres):
        got = f"{len(joints)} and {len(centres)}"
        raise ValueError(f"joints and centres: expected at least one, as many of each, got {got}")
    key = _key(joints, centres, crop, config)
    path = Path(folder) / f"pca_{key[:16]}.npz" if folder else None
    if path and path.exists():
        try:
            return _load(path, key)
        except DAMAGE as error:
            logger.warning("%s: can't be used (%s); fitted anew", path, error)
    if config.draws:
        counts = [min(CHUNK, config.draws - first) for first in range(0, config.draws, CHUNK)]
        parts = (
            draw_poses(joints, centres, crop, config.augment, count, (config.seed, part))
            for part, count in enumerate(counts)
        )
    else:
        parts = [normalise(joints.astype(np.float64), centres, axes(crop, centres), crop.cube)]
    pca = _fit(parts, config.components, distinct=len(joints))
    if path:
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            about = np.frombuffer(key.encode(), np.uint8)
            np.savez(file, key=about, mean=pca.mean, components=pca.components, variance=pca.variance, total=pca.total)
    return pca


def _key(joints: np.ndarray, centres: np.ndarray, crop: CropConfig, config: PCAConfig) -> str:
    """SHA-256 of all that decides a basis."""
    about = {"crop": {name: asdict(crop)[name] for name in ("method", "cube", "centre", "centre_noise")}}
    digest = hashlib.sha256(json.dumps(about | asdict(config), sort_keys=True).encode())
    for array in (joints, centres):
        digest.update(f"{array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _load(path: Path, key: str) -> PosePCA:
    with np.load(path, allow_pickle=False) as content:
        if content["key"].tobytes().decode() != key:
            raise ValueError("expected the basis of these poses, got another one's")
        pca = PosePCA(content["mean"], content["components"], content["variance"], float(content["total"]))
    if not (np.isfinite(pca.components).all() and np.isfinite(pca.mean).all()):
        raise ValueError("expected finite numbers")
    return pca


def _fit(parts, components: int, distinct: int | None = None) -> PosePCA:
    """The basis of poses that come in parts: by the sums of their products, in float64."""
    count, origin, total, products = 0, np.zeros(0), np.zeros(0), np.zeros(0)
    for poses in parts:
        if not len(poses):
            raise ValueError("poses: expected at least one, got none")
        flat = np.asarray(poses, np.float64).reshape(len(poses), -1)
        if not np.isfinite(flat).all():
            raise ValueError("poses: expected finite ones, got NaN or infinity")
        if count == 0:  # taken from a point near the mean, so that nothing cancels out
            origin, total, products = flat.mean(axis=0), np.zeros(flat.shape[1]), np.zeros((flat.shape[1],) * 2)
        flat = flat - origin
        count, total, products = count + len(flat), total + flat.sum(axis=0), products + flat.T @ flat
    samples, D = count if distinct is None else distinct, len(origin)
    if components < 1:
        raise ValueError(f"components: expected 1 or more, got {components}")
    if components > min(D, samples):
        raise ValueError(f"components: expected at most {D} coordinates and {samples} poses, got {components}")
    covariance = products / count - np.outer(total, total) / count**2
    variance, vectors = np.linalg.eigh(covariance)
    order = np.argsort(variance)[::-1][:components]
    basis = vectors[:, order].T
    basis *= np.sign(basis[np.arange(components), np.abs(basis).argmax(axis=1)])[:, None]  # eigh leaves the sign open
    return PosePCA(origin + total / count, basis, np.maximum(variance[order], 0), float(np.trace(covariance)))
