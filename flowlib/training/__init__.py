"""Learning to predict: the loss, a visible loop, checkpoints that resume exactly, and the experiments around them.

`fit(model, train, validation, config)` trains any model that maps images to a `TrajectoryPrediction` and can say its
`config`. Knows datasets only as indexable samples (see `flowlib.dataset`), and nothing of videos or trackers.
"""

from flowlib.training.batch_size import largest_batch
from flowlib.training.checkpoints import load_checkpoint
from flowlib.training.config import TrainConfig
from flowlib.training.experiments import RunTable, grid, plot_curves, run_experiments, run_table
from flowlib.training.loop import fit
from flowlib.training.overfit import Overfit, StemCheck, check_zero_stem, overfit
from flowlib.training.pictures import predict_clips, show_predictions
from flowlib.training.session import Run
from flowlib.training.spikes import SpikeReport, spike_report

__all__ = [
    "TrainConfig",
    "Overfit",
    "Run",
    "RunTable",
    "SpikeReport",
    "StemCheck",
    "check_zero_stem",
    "fit",
    "grid",
    "largest_batch",
    "load_checkpoint",
    "overfit",
    "plot_curves",
    "predict_clips",
    "run_experiments",
    "run_table",
    "show_predictions",
    "spike_report",
]
