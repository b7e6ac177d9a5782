"""Learning to predict: the loss, a visible loop, checkpoints that resume exactly, and the experiments around them.

`fit(model, train, validation, config)` trains any model that maps images to a `TrajectoryPrediction` and can say its
`config`. Knows datasets only as indexable samples (see `flowlib.dataset`), and nothing of videos or trackers.
"""

from flowlib.training.checkpoints import load_checkpoint
from flowlib.training.config import FitConfig
from flowlib.training.loop import Run, fit

__all__ = ["FitConfig", "Run", "fit", "load_checkpoint"]
