"""What is measured of trajectories, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flowlib import metrics
from flowlib.tasks.protocol import MetricSpec


@dataclass(frozen=True)
class ScoringConfig:
    """What is measured, and how."""

    rebuild: tuple[int, ...] = (-1,)
    method: str = "splat"
    grid: tuple[int, int] | None = None
    invisible: str = "drop"
    fill: str = "frame"
    miss_distance: float = metrics.MISS_DISTANCE
    moving: float = 1.0
    period: int = 8
    lpips_weights: str = "none"


class TrajectoryEvaluation:
    """The evaluation half of the task."""

    metrics: ClassVar[tuple[MetricSpec, ...]] = (MetricSpec("ade", "ADE", "px", "low", lambda answer: float("nan")),)
