"""Pinhole cameras: millimetres to pixels and back. Knows nothing of hands, files or pictures.

Points are (x, y, z) in millimetres in the camera's frame as OpenCV has it: x right, y *down*, z forward.
Pixels are (x, y) as in `flowlib.geometry`: whole numbers are pixel centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from flowlib.geometry import Size, check_size, inside


@dataclass(frozen=True)
class Camera:
    """The intrinsics of a pinhole camera without distortion.

    Attributes:
        fx: focal length along x, in pixels.
        fy: focal length along y, in pixels; not always that of x.
        ux: x of the principal point, in pixels.
        uy: y of the principal point, in pixels.
        size: (height, width) of its pictures in pixels.

    Raises:
        ValueError: a focal length that isn't positive, a principal point that isn't finite, or no such size.

    >>> camera = Camera(475.0, 475.0, 316.0, 245.0, (480, 640))
    >>> camera.project(np.array([[40.0, -20.0, 400.0]])).tolist()
    [[363.5, 221.25, 400.0]]
    """

    fx: float
    fy: float
    ux: float
    uy: float
    size: Size

    def __post_init__(self) -> None:
        check_size(self.size, "size of the camera's pictures")
        for name in ("fx", "fy"):
            if not (np.isfinite(focal := getattr(self, name)) and focal > 0):
                raise ValueError(f"{name}: expected a positive focal length in pixels, got {focal}")
        if not np.isfinite([self.ux, self.uy]).all():
            raise ValueError(f"ux and uy: expected a finite principal point, got ({self.ux}, {self.uy})")

    def project(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Points in mm to (x px, y px, z mm), in the points' own precision.

        Raises:
            ValueError: a point that isn't before the camera (z ≤ 0), which no pixel shows.
        """
        x, y, z = _in_front(points, "points")
        return np.stack([x * (self.fx / z) + self.ux, y * (self.fy / z) + self.uy, z], axis=-1, dtype=points.dtype)

    def unproject(self, pixels: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """(x px, y px, z mm) to points in mm: the inverse of `project`.

        Raises:
            ValueError: z ≤ 0.
        """
        x, y, z = _in_front(pixels, "pixels")
        return np.stack([(x - self.ux) * (z / self.fx), (y - self.uy) * (z / self.fy), z], axis=-1, dtype=pixels.dtype)

    def sees(self, points: Float[np.ndarray, "*n 3"]) -> Bool[np.ndarray, "*n"]:
        """Whether each point is before the camera and inside its picture."""
        before = points[..., 2] > 0
        xy = self.project(np.where(before[..., None], points, np.ones((), points.dtype)))[..., :2]
        return np.asarray(before & inside(xy, self.size))


def _in_front(points: Float[np.ndarray, "*n 3"], name: str) -> tuple[Any, Any, Any]:
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    if np.any(z <= 0):
        raise ValueError(f"{name}: expected them before the camera (z > 0 mm), got z = {np.min(z):g}")
    return x, y, z


FPHA_DEPTH = Camera(475.065948, 475.065857, 315.944855, 245.287079, (480, 640))  # Garcia-Hernando et al. 2018, SR300
MSRA15 = Camera(241.42, 241.42, 160.0, 120.0, (240, 320))  # Sun et al. 2015
ICVL = Camera(241.42, 241.42, 160.0, 120.0, (240, 320))  # Tang et al. 2014
NYU = Camera(588.03, 587.07, 320.0, 240.0, (480, 640))  # Tompson et al. 2014
