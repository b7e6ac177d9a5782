"""Trajectories: where every pixel of frame 0 goes in the frames to come, and whether it can be seen there."""

from flowlib.tasks.trajectories.figures import predict_clips, show_predictions
from flowlib.tasks.trajectories.scoring import ScoringConfig
from flowlib.tasks.trajectories.task import TrajectoryTask

__all__ = ["ScoringConfig", "TrajectoryTask", "predict_clips", "show_predictions"]
