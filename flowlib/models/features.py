"""What an action network is told of each frame: vectors of a fixed length, from the joints of a hand or from tracks.

Those of joints are differentiable, so that a loss on actions reaches the network that found them. Knows nothing of
networks, files and videos.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowlib.geometry import Size, cell_index, check_size
from flowlib.hands.skeleton import Skeleton
from flowlib.tracks import Tracks

FEATURES = ("given", "centre", "root", "bones")
LEAST = 1e-6  # a bone that short has no direction
PER_HEIGHT = 10  # units of displacement in the height of a frame
POOLED = 10  # numbers that are told of each cell of a frame's tracks


def from_joints(joints: Float[Tensor, "*n J 3"], skeleton: Skeleton, kind: str = "given") -> Float[Tensor, "*n D"]:
    """Vectors of D = 3J numbers from the joints of each frame.

    Args:
        joints: in any unit.
        skeleton: of the joints.
        kind: "given" (as they are, flattened); "centre" or "root" (as seen from the skeleton's centre or its root); or
            "bones": every bone made 1 long and the chains put together anew from the root, so that the size and build
            of a hand don't count.

    Raises:
        ValueError: no such kind, or not as many joints as the skeleton has.

    >>> from flowlib.hands.skeleton import FPHA_21
    >>> large = from_joints(2 * torch.rand(5, 21, 3, generator=torch.Generator().manual_seed(0)), FPHA_21, "bones")
    >>> small = from_joints(torch.rand(5, 21, 3, generator=torch.Generator().manual_seed(0)), FPHA_21, "bones")
    >>> bool(torch.allclose(large, small, atol=1e-5))
    True
    """
    if joints.shape[-2:] != (skeleton.num_joints, 3):
        expected = f"[… {skeleton.num_joints} 3] as {skeleton.name} has them"
        raise ValueError(f"joints: expected {expected}, got {list(joints.shape)}")
    if kind not in FEATURES:
        raise ValueError(f"features: expected one of {', '.join(FEATURES)}, got {kind!r}")
    if kind in ("centre", "root"):
        joints = joints - joints[..., getattr(skeleton, kind), None, :]
    if kind == "bones":
        joints = _of_unit_bones(joints, skeleton)
    return joints.flatten(-2)


def _of_unit_bones(joints: Tensor, skeleton: Skeleton) -> Tensor:
    """The joints of a hand with these directions of its bones, each of length 1, its root at 0."""
    placed = {skeleton.root: torch.zeros_like(joints[..., 0, :])}
    for joint in skeleton.by_finger[1:]:
        parent = skeleton.parents[joint]
        bone = joints[..., joint, :] - joints[..., parent, :]
        placed[joint] = placed[parent] + bone / bone.norm(dim=-1, keepdim=True).clamp(min=LEAST)
    return torch.stack([placed[joint] for joint in range(skeleton.num_joints)], dim=-2)


def from_tracks(tracks: Tracks, size: Size, *, cells: tuple[int, int] | None = (4, 4)) -> Float[np.ndarray, "S D"]:
    """The tracks of a clip as one vector a frame, float32.

    A track counts by its displacement from its query less the median of all visible ones, which takes a moving camera
    away, in tenths of the frame's height: so the second moments are about as large as the means.

    Args:
        tracks: of points asked for anywhere; those of one data set on the same grid where `cells` is None.
        size: (height, width) of the frames in pixels.
        cells: rows and columns of cells; each tells of the points asked for in it, in whatever order. Ten numbers of
            the visible ones: the mean displacement (x, y), its variance (x, y) and covariance, the covariance of
            displacement and place (dx·x, dx·y, dy·x, dy·y: how the cell turns, grows and shears), and the share that is
            visible. Zeros where none is. None: displacement (x, y) and visibility of each point, point by point.

    Returns:
        [S D] with D = 10 · rows · columns, or 3 · N without cells.

    Raises:
        ValueError: a size or cells that are not positive.

    >>> still = Tracks.still(np.array([[0, 3.0, 4.0], [0, 9.0, 4.0]]), num_frames=8)
    >>> from_tracks(still, (12, 16), cells=(2, 2)).shape, from_tracks(still, (12, 16), cells=None).shape
    ((8, 40), (8, 6))
    """
    check_size(size)
    seen = tracks.visibility
    unit = size[0] / PER_HEIGHT
    moved = tracks.displacement.astype(np.float64) / unit
    moved = moved - np.stack([_median(frame[here]) for frame, here in zip(moved, seen)])[:, None]
    moved[~seen] = 0
    S, N, _ = moved.shape
    if cells is None:
        return np.concatenate([moved, seen[..., None]], axis=-1).reshape(S, 3 * N).astype(np.float32)
    check_size(cells, "cells")
    place = tracks.queries[:, 1:].astype(np.float64)
    row, column = cell_index(place, size, cells).T
    cell = row * cells[1] + column
    pooled = np.zeros((S, cells[0] * cells[1], POOLED))
    for index in np.unique(cell):
        here = cell == index
        pooled[:, index] = _pool(moved[:, here], place[here] / unit, seen[:, here])
    return pooled.reshape(S, -1).astype(np.float32)


def _median(moved: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " 2"]:
    return np.median(moved, axis=0) if len(moved) else np.zeros(2)


def _pool(
    moved: Float[np.ndarray, "S n 2"], place: Float[np.ndarray, "n 2"], seen: Bool[np.ndarray, "S n"]
) -> Float[np.ndarray, "S 10"]:
    """What one cell tells: see `from_tracks`."""
    weight = seen / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    mean, centre = np.einsum("sn,snd->sd", weight, moved), weight @ place
    about = np.concatenate([moved - mean[:, None], place - centre[:, None]], axis=-1)
    spread = np.einsum("sn,sni,snj->sij", weight, about, about)  # of (dx, dy, x, y)
    displacement, turning = spread[:, (0, 1, 0), (0, 1, 1)], spread[:, :2, 2:].reshape(len(moved), 4)
    return np.concatenate([mean, displacement, turning, seen.mean(axis=1, keepdims=True)], axis=1)
