# pyright: strict
"""The type `Tracks`, and checks of what a tracker is given. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from flowlib.geometry import Size, pixel_grid, rescale_points

_Index = slice | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class Tracks:
    """The trajectories of N points over the S frames of a clip.

    Attributes:
        tracks: [S N 2] absolute (x, y) in pixels, float32 (float64 is kept).
        visibility: [S N] bool, True = visible.
        queries: [N 3] (t, x, y): the frame each point was asked for in, and its position there; t is a whole number.
        confidence: [S N] float32 from 0 to 1, how far each position can be trusted: 1 is sure; None where nobody says.

    Raises:
        ValueError: shapes that do not belong together, visibility that is not boolean, a query outside the clip's
            frames, positions that are not finite, or a confidence outside 0 to 1.

    >>> still = Tracks.still(np.array([[0, 3.0, 4.0]]), num_frames=8)
    >>> still.tracks.shape, still.visibility.shape
    ((8, 1, 2), (8, 1))
    """

    tracks: Float[np.ndarray, "S N 2"]
    visibility: Bool[np.ndarray, "S N"]
    queries: Float[np.ndarray, "N 3"]
    confidence: Float[np.ndarray, "S N"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tracks", _as_float(self.tracks, "tracks"))
        object.__setattr__(self, "queries", _as_float(self.queries, "queries"))
        object.__setattr__(self, "visibility", np.asarray(self.visibility))
        if self.tracks.ndim != 3 or self.tracks.shape[2] != 2:
            raise ValueError(f"tracks: expected shape [S N 2], got {list(self.tracks.shape)}")
        S, N, _ = self.tracks.shape
        if self.visibility.shape != (S, N) or self.visibility.dtype != bool:
            got = f"{self.visibility.dtype} {list(self.visibility.shape)}"
            raise ValueError(f"visibility: expected bool [{S} {N}] to go with the tracks, got {got}")
        check_queries(self.queries, S)
        if len(self.queries) != N:
            raise ValueError(f"queries: expected {N} to go with the tracks, got {len(self.queries)}")
        if not np.isfinite(self.tracks).all():
            raise ValueError("tracks: expected finite positions, got NaN or infinity")
        if self.confidence is not None:
            object.__setattr__(self, "confidence", _as_confidence(self.confidence, (S, N)))

    @classmethod
    def still(cls, queries: np.ndarray, num_frames: int) -> Tracks:
        """Points that never move and are always visible: queries [N 3] -> Tracks over `num_frames` frames."""
        queries = _as_float(queries, "queries")
        tracks = np.repeat(queries[None, :, 1:], num_frames, axis=0)
        return cls(tracks, np.ones(tracks.shape[:2], bool), queries)

    @property
    def num_frames(self) -> int:
        return self.tracks.shape[0]

    @property
    def num_points(self) -> int:
        return self.tracks.shape[1]

    @property
    def displacement(self) -> Float[np.ndarray, "S N 2"]:
        """Pixels from the query's position; exactly zero in the query's own frame."""
        return self.tracks - self.queries[None, :, 1:]

    def is_dense(self, size: Size) -> bool:
        """Whether the points are all pixels of frame 0, row by row, of a clip of this (height, width)."""
        height, width = size
        if self.num_points != height * width or self.queries[:, 0].any():
            return False
        return np.array_equal(self.queries[:, 1:], pixel_grid(size).reshape(-1, 2))

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by their names; without `confidence` where there is none."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def points(self, index: slice | Sequence[int] | np.ndarray) -> Tracks:
        """The points that `index` (slice, integer array or boolean mask over N) selects, in its order."""
        return self._picked(slice(None), index, self.queries[index])

    def frames(self, start: int, stop: int) -> Tracks:
        """Frames `start` to `stop` (not included) as a clip of its own; points queried outside it are dropped."""
        if not 0 <= start < stop <= self.num_frames:
            raise ValueError(f"frames: expected 0 <= start < stop <= {self.num_frames}, got {start} and {stop}")
        kept = (self.queries[:, 0] >= start) & (self.queries[:, 0] < stop)
        queries = self.queries[kept] - np.array([start, 0, 0], self.queries.dtype)
        return self._picked(slice(start, stop), kept, queries)

    def trusted(self, min_confidence: float) -> Tracks:
        """The same tracks, visible only where their confidence is at least `min_confidence`; 0 leaves them as they are.

        Raises:
            ValueError: they have no confidence, or `min_confidence` isn't from 0 to 1.
        """
        check_min_confidence(min_confidence)
        if not min_confidence:
            return self
        if self.confidence is None:
            raise ValueError("min_confidence: expected tracks with a confidence, got some without; label with one")
        return replace(self, visibility=self.visibility & (self.confidence >= min_confidence))

    def resize(self, source: Size, target: Size) -> Tracks:
        """The same tracks in a clip resized from `source` to `target`, both (height, width)."""
        return self._moved(lambda xy: rescale_points(xy, source, target))

    def flip(self, width: int) -> Tracks:
        """The same tracks in a clip mirrored left to right, of the given width in pixels."""
        return self._moved(lambda xy: np.stack([width - 1 - xy[..., 0], xy[..., 1]], axis=-1))

    def reverse(self) -> Tracks:
        """The same tracks in the clip played backwards."""
        queries = self.queries.copy()
        queries[:, 0] = self.num_frames - 1 - queries[:, 0]
        return self._picked(slice(None, None, -1), slice(None), queries)

    def _moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Tracks:
        queries = np.concatenate([self.queries[:, :1], move(self.queries[:, 1:])], axis=1)
        return replace(self, tracks=move(self.tracks), queries=queries)

    def _picked(self, frames: _Index, points: _Index, queries: np.ndarray) -> Tracks:
        """Some frames and points, with the queries that go with them."""
        confidence = None if self.confidence is None else self.confidence[frames][:, points]
        return Tracks(self.tracks[frames][:, points], self.visibility[frames][:, points], queries, confidence)


def check_min_confidence(value: float) -> None:
    """Raise `ValueError` unless `value` is a number from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"min_confidence: expected a number from 0 to 1, got {value!r}")


def check_queries(queries: np.ndarray, num_frames: int) -> None:
    """Raise `ValueError` unless `queries` is finite [N 3] with whole-numbered t in 0..num_frames-1."""
    if queries.ndim != 2 or queries.shape[1] != 3:
        raise ValueError(f"queries: expected shape [N 3] with (t, x, y), got {list(queries.shape)}")
    if not np.isfinite(queries).all():
        raise ValueError("queries: expected finite (t, x, y), got NaN or infinity")
    t = queries[:, 0]
    if ((t < 0) | (t > num_frames - 1) | (t != np.round(t))).any():
        raise ValueError(f"queries: expected t to be a frame from 0 to {num_frames - 1}, got {t.min()} to {t.max()}")


def check_clip(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check what a tracker is given: (frames uint8 [S H W 3], queries float32 [N 3]), or `ValueError`.

    Points may lie outside the frame; each tracker says what it makes of them. No points at all are allowed.
    """
    if isinstance(frames, (list, tuple)) and len({np.shape(frame) for frame in frames}) > 1:
        raise ValueError(f"frames: expected one size, got {sorted({np.shape(frame) for frame in frames})}")
    frames, queries = np.asarray(frames), np.asarray(queries)
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames: expected shape [S H W 3], got {list(frames.shape)}")
    if frames.dtype != np.uint8:
        raise ValueError(f"frames: expected uint8 from 0 to 255, got {frames.dtype}")
    if queries.dtype.kind not in "fiu":
        raise ValueError(f"queries: expected numbers, got {queries.dtype}")
    check_queries(queries, len(frames))
    return frames, queries.astype(np.float32, copy=False)


def _as_float(array: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected numbers, got {array.dtype}")
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def _as_confidence(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "f" or array.shape != shape:
        got = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"confidence: expected floats {list(shape)} to go with the tracks, got {got}")
    if not ((array >= 0) & (array <= 1)).all():  # NaN isn't either
        raise ValueError(f"confidence: expected numbers from 0 to 1, got {array.min()} to {array.max()}")
    return array.astype(np.float32, copy=False)
