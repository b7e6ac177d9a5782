"""Training of any task: a visible loop, checkpoints that resume exactly, sweeps and diagnostics.

`fit(model, task, train, validation, config)` trains what fulfils `models.protocols.TrainableModel`. Knows a task only
as `tasks.protocol.Task`, datasets only as sequences of samples, and nothing of videos or trackers.
"""

from flowlib.training.batch_size import largest_batch
from flowlib.training.checkpoints import find_checkpoint, load_checkpoint, load_task
from flowlib.training.config import TrainConfig
from flowlib.training.diagnostics import (
    Overfit,
    SpikeReport,
    TrainingComparison,
    compare_trainings,
    overfit,
    spike_report,
)
from flowlib.training.loop import fit
from flowlib.training.session import TrainingRun
from flowlib.training.sweeps import RunTable, grid, plot_curves, run_experiments, run_table

__all__ = [
    "Overfit",
    "RunTable",
    "SpikeReport",
    "TrainConfig",
    "TrainingComparison",
    "TrainingRun",
    "compare_trainings",
    "find_checkpoint",
    "fit",
    "grid",
    "largest_batch",
    "load_checkpoint",
    "load_task",
    "overfit",
    "plot_curves",
    "run_experiments",
    "run_table",
    "spike_report",
]
