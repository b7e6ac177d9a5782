"""Check what a viewer is given, and pack it into its payload, the few bytes that travel to the page.

Frames become JPEG, one at a time. Positions become int16 fixed point from the frame's centre, in steps of 1/64 px
(coarser powers of two only where a point strays too far for that), told as differences between neighbours in time
and between neighbouring points, low bytes before high bytes, and deflated. The script unpacks the same layout.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowlib.geometry import Size, cell_grid
from flowlib.tracks import Tracks
from flowlib.video import decode_image, encode_image

FINEST_STEP = 1 / 64  # pixels; as fine as the shards keep them
MOST_ACROSS = 100  # points shown of what is known in every pixel
REACH = 3  # frame sides: positions further than that from the centre are drawn at this distance


@dataclass(frozen=True)
class PackedFrames:
    """The frames of a clip as JPEG bytes, and the (height, width) they share."""

    images: tuple[bytes, ...]
    size: Size

    def __len__(self) -> int:
        return len(self.images)

    def decode(self, index: int) -> np.ndarray:
        """Frame `index` as uint8 [H W 3]."""
        return decode_image(self.images[index])


def pack_frames(frames: Iterable[np.ndarray], quality: int, name: str = "frames") -> PackedFrames:
    """Encode frames one after the other; only one need be in memory.

    Args:
        frames: uint8 [S H W 3], or any iterable of uint8 [H W 3].
        quality: of the JPEGs, 1 to 100.
        name: of the argument, for the error.

    Raises:
        ValueError: no frame, or a frame of another shape, size or dtype.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    if getattr(frames, "ndim", 4) != 4 or isinstance(frames, (str, bytes)) or not isinstance(frames, Iterable):
        got = f"{list(frames.shape)}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise ValueError(f"{name}: expected shape [S H W 3], got {got}")
    images: list[bytes] = []
    size: Size | None = None
    for frame in frames:
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype != np.uint8:
            raise ValueError(f"{name}: expected uint8 [H W 3] each, got {frame.dtype} {list(frame.shape)}")
        size = size or frame.shape[:2]
        if frame.shape[:2] != size:
            raise ValueError(f"{name}: expected one size {size}, got {frame.shape[:2]} in frame {len(images)}")
        images.append(encode_image(np.ascontiguousarray(frame), "jpeg", quality))
    if size is None:
        raise ValueError(f"{name}: expected at least one frame, got none")
    return PackedFrames(tuple(images), size)


def as_tracks(source: Any, size: Size, num_frames: int, name: str, queries: np.ndarray | None = None) -> Tracks:
    """`Tracks` as they are; a dense trajectory, read at `queries` (or at a grid of up to 100 points across).

    Args:
        source: Tracks, or a displacement [S 2 H W] in pixels from frame 0 (array or tensor), or a prediction that has
            `displacement` [1 S 2 H W] and `visibility_logits` [1 S H W].
        size: (height, width) of the frames.
        num_frames: how many frames there are.
        name: of the argument, for the error.
        queries: [N 3] (t, x, y), where to read a dense trajectory.

    Raises:
        ValueError: another number of frames or points, another size, or a dense trajectory that is not finite.
    """
    if isinstance(source, Tracks):
        if source.num_frames != num_frames:
            raise ValueError(f"{name}: expected {num_frames} frames to go with the clip, got {source.num_frames}")
        if queries is not None and source.num_points != len(queries):
            raise ValueError(f"{name}: expected {len(queries)} points to go with the tracks, got {source.num_points}")
        return source
    displacement, visible = _dense(source, name)
    S, two, H, W = displacement.shape
    if (S, two, (H, W)) != (num_frames, 2, tuple(size)):
        expected = [num_frames, 2, *size]
        raise ValueError(f"{name}: expected a dense trajectory of shape {expected}, got {[S, two, H, W]}")
    if not np.isfinite(displacement).all():
        raise ValueError(f"{name}: expected finite displacements, got NaN or infinity")
    queries = _grid_queries(size) if queries is None else queries
    if queries[:, 0].any():
        late = int((queries[:, 0] > 0).sum())
        raise ValueError(f"{name}: a dense trajectory starts in frame 0, but {late} of the tracks' queries start later")
    moved = sample_bilinear(displacement.reshape(S * 2, H, W), queries[:, 1:]).reshape(S, 2, -1)
    seen = sample_bilinear(visible, queries[:, 1:]) > 0.5
    return Tracks(moved.transpose(0, 2, 1) + queries[None, :, 1:], seen, queries)


def _dense(source, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Displacement [S 2 H W] and visibility [S H W] (0 or 1) of whatever stands for a dense trajectory."""
    if hasattr(source, "visibility_logits"):
        displacement, logits = _array(source.displacement), _array(source.visibility_logits)
        if len(displacement) != 1:
            raise ValueError(f"{name}: expected a prediction for one clip, got {len(displacement)}")
        return displacement[0], (logits[0] > 0).astype(np.float32)
    displacement = _array(source)
    if displacement.ndim != 4 or displacement.dtype.kind not in "fiu":
        got = f"{displacement.dtype} {list(displacement.shape)}" if displacement.ndim else type(source).__name__
        raise ValueError(f"{name}: expected Tracks or a dense trajectory [S 2 H W], got {got}")
    return displacement, np.ones_like(displacement[:, 0], dtype=np.float32)


def _array(source) -> np.ndarray:
    """An array of an array or a tensor, wherever the tensor lives; torch itself need not be known here."""
    return np.asarray(source.detach().cpu() if hasattr(source, "detach") else source)


def _grid_queries(size: Size) -> np.ndarray:
    spacing = max(1.0, max(size) / MOST_ACROSS)
    xy = cell_grid(size, max(1, round(size[0] / spacing)), max(1, round(size[1] / spacing)))
    return np.concatenate([np.zeros((len(xy), 1), np.float32), xy], axis=1)


def every_few_pixels(size: Size) -> np.ndarray:
    """Which pixels of a frame, counted row by row, are shown of a dense clip: evenly spaced, up to 100 across."""
    step = -(-max(size) // MOST_ACROSS)
    rows, columns = (np.arange((side - 1) % step // 2, side, step) for side in size)
    return (rows[:, None] * size[1] + columns).ravel()


def sample_bilinear(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Read image [C H W] at xy [N 2], pixels; beyond the outermost pixel centres the nearest one counts: [C N]."""
    H, W = image.shape[1:]
    x, y = np.clip(xy[:, 0], 0, W - 1), np.clip(xy[:, 1], 0, H - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, W - 1), np.minimum(top + 1, H - 1)
    fx, fy = x - left, y - top
    upper = image[:, top, left] * (1 - fx) + image[:, top, right] * fx
    lower = image[:, bottom, left] * (1 - fx) + image[:, bottom, right] * fx
    return upper * (1 - fy) + lower * fy  # C N


def fixed_step(sets: list[Tracks], size: Size) -> float:
    """The finest step, in pixels, with which every position fits into int16 once it is drawn within reach."""
    reach = max((_reach(tracks.tracks, size) for tracks in sets if tracks.num_points), default=0.0)
    step = FINEST_STEP
    while min(reach, REACH * max(size)) / step > 32767:
        step *= 2
    return step


def _reach(xy: np.ndarray, size: Size) -> float:
    return float(np.abs(xy - _centre(size)).max())


def _centre(size: Size) -> np.ndarray:
    return np.array([size[1] / 2, size[0] / 2])


def pack_tracks(tracks: Tracks, size: Size, step: float, name: str = "tracks") -> bytes:
    """Queries, positions and visibility as deflated bytes (layout: see the module and `TrackSet` in viewer.js).

    Rows of int16: the queries' t, x, y; then x and y of frame 0, of frame 1, … Each of the latter is told as its
    difference from two rows above (frame 0 from the query), and every value as its difference from its left neighbour.
    """
    limit = REACH * max(size)
    far = int((np.abs(tracks.tracks - _centre(size)) > limit).any(axis=-1).sum())
    if far:
        warnings.warn(f"{name}: {far} positions lie over {limit} px from the frame's centre; drawn there", stacklevel=4)
    S, N = tracks.visibility.shape
    rows = np.empty((3 + 2 * S, N), np.int16)
    rows[0] = tracks.queries[:, 0]
    rows[1:3] = _fixed(tracks.queries[:, 1:], size, step).T
    rows[3:] = _fixed(tracks.tracks, size, step).transpose(0, 2, 1).reshape(2 * S, N)
    told = rows.copy()
    told[3:] -= rows[1:-2]
    told = np.diff(told, axis=1, prepend=np.zeros((len(told), 1), np.int16)).view(np.uint16)
    low, high = (told & 255).astype(np.uint8), (told >> 8).astype(np.uint8)
    bits = np.packbits(tracks.visibility.reshape(-1), bitorder="little")
    # level 9 takes 25 times as long for 1 %
    return zlib.compress(low.tobytes() + high.tobytes() + bits.tobytes(), 6)


def _fixed(xy: np.ndarray, size: Size, step: float) -> np.ndarray:
    limit = min(REACH * max(size), 32767 * step)
    return np.round(np.clip(xy - _centre(size), -limit, limit) / step).astype(np.int16)
