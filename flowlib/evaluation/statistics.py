"""From samples to groups to one number with an interval. NumPy only; knows nothing of what the numbers mean."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Float, Int

from flowlib.tasks.protocol import Estimate

Row = dict[str, float]


@dataclass(frozen=True)
class EvalConfig:
    """How means get their intervals.

    Raises:
        ValueError: a number out of range.
    """

    confidence: float = 0.95  # of the intervals
    resamples: int = 2000  # bootstrap draws
    seed: int = 0  # of the bootstrap
    threads: int = 0  # of the CPU; 0: as many as PyTorch takes. Small networks are faster with 1

    def __post_init__(self) -> None:
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or not 0 <= self.threads <= 1024:
            raise ValueError(f"threads: expected a whole number from 0 to 1024, got {self.threads!r}")
        if not self.resamples >= 1:
            raise ValueError(f"resamples: expected 1 or more, got {self.resamples!r}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: expected a share between 0 and 1, such as 0.95, got {self.confidence!r}")


def per_group(rows: list[Row], groups: list[str]) -> dict[str, Row]:
    """Mean of each number over the samples of each group; samples without it do not count.

    Args:
        rows: one for each sample.
        groups: the group of each sample.
    """
    result = {}
    for group in sorted(set(groups)):
        own = [row for row, name in zip(rows, groups) if name == group]
        names = sorted({name for row in own for name in row})
        means = nan_mean(np.array([[row.get(name, np.nan) for row in own] for name in names]), axis=1) if names else []
        result[group] = dict(zip(names, map(float, means)))
    return result


def resamples(num_groups: int, count: int, seed: int) -> Int[np.ndarray, "R V"]:
    """Indices of `count` draws of as many groups, with replacement; shared by all, so that differences are paired."""
    return np.random.default_rng(seed).integers(0, max(num_groups, 1), (count, num_groups))


def estimate(values: Float[np.ndarray, " V"], draws: Int[np.ndarray, "R V"], confidence: float = 0.95) -> Estimate:
    """Mean and percentile bootstrap interval (Efron 1979) of one value for each group; NaN ones are left out."""
    return estimates(values[:, None], draws, confidence)[0]


def estimates(
    values: Float[np.ndarray, "V M"], draws: Int[np.ndarray, "R V"], confidence: float = 0.95
) -> list[Estimate]:
    """`estimate` of each of M numbers, several times as fast as one after the other."""
    known = np.isfinite(values).sum(axis=0)
    lows, highs = np.full((2, values.shape[1]), np.nan)
    if (many := known >= 2).any():
        tail = (1 - confidence) / 2 * 100
        lows[many], highs[many] = _percentiles(_drawn_means(values[:, many], draws), [tail, 100 - tail])
    counts = known.tolist(), (len(values) - known).tolist()
    return [Estimate(nan_mean(own), *rest) for own, *rest in zip(values.T, lows.tolist(), highs.tolist(), *counts)]


def _drawn_means(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The mean of what is known of each number [V M] in each draw, [M R]; not finite where nothing is."""
    R, V = draws.shape
    held = np.bincount((draws + V * np.arange(R)[:, None]).ravel(), minlength=R * V).reshape(R, V).astype(np.float64)
    there, infinite = ~np.isnan(values), np.isinf(values)
    finite = np.where(np.isfinite(values), values, 0)
    means = np.empty((values.shape[1], R))
    with np.errstate(invalid="ignore", divide="ignore"):
        for i in range(len(means)):  # each by itself, so that it doesn't depend on the others to the last bit
            means[i] = held @ finite[:, i] / (held @ there[:, i])
            if infinite[:, i].any():
                means[i, held @ infinite[:, i] > 0] = np.nan
    return means


def _percentiles(means: np.ndarray, percents: list[float]) -> np.ndarray:
    """Of the finite ones in each row of [M R], [2 M]; NaN where there are none."""
    found, finite = np.full((2, len(means)), np.nan), np.isfinite(means)
    if (whole := finite.all(axis=1)).any():
        found[:, whole] = np.percentile(means[whole], percents, axis=1)
    for i in np.flatnonzero(~whole & finite.any(axis=1)):
        found[:, i] = np.percentile(means[i, finite[i]], percents)
    return found


@dataclass(frozen=True)
class Ratio:
    """One method's number over another's, where both are positive.

    Attributes:
        pooled: ratio of the means over groups; what is hard rules it.
        geometric: geometric mean of the groups' ratios; every group counts alike.
        worst: the largest ratio of a group, and its index.
    """

    pooled: Estimate
    geometric: Estimate
    worst: tuple[float, int]


def ratio(
    above: Float[np.ndarray, " V"], below: Float[np.ndarray, " V"], draws: Int[np.ndarray, "R V"], confidence: float
) -> Ratio:
    """A number of two methods for each group, divided; groups without both, or with one that isn't positive, are left
    out. Intervals are percentile bootstraps over the same draws as `estimate`'s."""
    known = np.isfinite(above) & np.isfinite(below) & (above > 0) & (below > 0)
    over, under = np.where(known, above, np.nan), np.where(known, below, np.nan)
    logs = np.full(len(above), np.nan)
    logs[known] = np.log(over[known] / under[known])
    geometric = estimate(logs, draws, confidence)
    pooled, low, high = nan_mean(over) / nan_mean(under), np.nan, np.nan
    if geometric.has_interval:
        tail = (1 - confidence) / 2 * 100
        drawn = nan_mean(over[draws], axis=1) / nan_mean(under[draws], axis=1)
        low, high = np.percentile(drawn[np.isfinite(drawn)], [tail, 100 - tail])
    counts = geometric.videos, geometric.left_out
    mean, lowest, highest = (float(np.exp(value)) for value in (geometric.mean, geometric.low, geometric.high))
    worst = int(np.nanargmax(logs)) if known.any() else -1
    return Ratio(
        Estimate(pooled, float(low), float(high), *counts),
        Estimate(mean, lowest, highest, *counts),
        (float(np.exp(logs[worst])) if known.any() else np.nan, worst),
    )


@overload
def nan_mean(values: np.ndarray, axis: None = None) -> float: ...
@overload
def nan_mean(values: np.ndarray, axis: int) -> np.ndarray: ...
def nan_mean(values: np.ndarray, axis: int | None = None) -> float | np.ndarray:
    """Mean of what is not NaN; NaN, without a warning, where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(values, axis=axis) if np.size(values) else np.nan
    return float(mean) if axis is None else np.asarray(mean)
