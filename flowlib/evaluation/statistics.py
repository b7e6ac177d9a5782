"""From clips to videos to one number with an interval. NumPy only; knows nothing of what the numbers mean."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Row = dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over videos.

    Attributes:
        mean: of the videos that have a value; NaN if none has.
        low, high: bootstrap interval; NaN where it can't be given, that is with fewer than two videos.
        videos: how many went into the mean.
        left_out: how many had no value (nothing visible, nothing to compare).
    """

    mean: float
    low: float
    high: float
    videos: int
    left_out: int

    @property
    def has_interval(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


def per_video(rows: list[Row], videos: list[str]) -> dict[str, Row]:
    """Mean of each number over the clips of each video; clips without it do not count.

    Args:
        rows: one for each clip.
        videos: the video of each clip.
    """
    result = {}
    for video in sorted(set(videos)):
        own = [row for row, name in zip(rows, videos) if name == video]
        names = sorted({name for row in own for name in row})
        result[video] = {name: nan_mean(np.array([row.get(name, np.nan) for row in own])) for name in names}
    return result


def resamples(num_videos: int, count: int, seed: int) -> Int[np.ndarray, "R V"]:
    """Indices of `count` draws of as many videos, with replacement; shared by all, so that differences are paired."""
    return np.random.default_rng(seed).integers(0, max(num_videos, 1), (count, num_videos))


def estimate(values: Float[np.ndarray, " V"], draws: Int[np.ndarray, "R V"], confidence: float = 0.95) -> Estimate:
    """Mean and percentile bootstrap interval (Efron 1979) of one value for each video; NaN ones are left out."""
    known = int(np.isfinite(values).sum())
    left_out = len(values) - known
    if known < 2:
        return Estimate(nan_mean(values), np.nan, np.nan, known, left_out)
    means = nan_mean(values[draws], axis=1)
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(means[np.isfinite(means)], [tail, 100 - tail])
    return Estimate(nan_mean(values), float(low), float(high), known, left_out)


def nan_mean(values: np.ndarray, axis: int | None = None):
    """Mean of what is not NaN; NaN, without a warning, where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(values, axis=axis) if np.size(values) else np.nan
    return float(mean) if axis is None else mean
