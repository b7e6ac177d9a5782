"""Predictors: what one or two frames say about where every pixel goes. Networks and baselines share one call.

`predictor(images [B n 3 H W]) -> TrajectoryPrediction`, where the n images are the frames `predictor.input_frames`
of the clip, RGB from 0 to 255, uint8 or floating. Knows nothing of files, losses or drawing.
"""

from flowlib.models.protocols import Predictor, TrajectoryPrediction

__all__ = ["Predictor", "TrajectoryPrediction"]
