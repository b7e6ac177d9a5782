"""`TrajectoryTask`: predict the way of every pixel through a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowlib.tasks.protocol import Task
from flowlib.tasks.trajectories.scoring import ScoringConfig, TrajectoryEvaluation


@dataclass(frozen=True)
class TrajectoryTask(TrajectoryEvaluation, Task):
    """Predict the way of every pixel through a clip."""

    scoring: ScoringConfig = ScoringConfig()
    augment: Any = None
