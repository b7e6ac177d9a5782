"""Labelled clips as tensors: the reading side of a dataset.

`TrajectoryDataset` gives the clips of one split, from the shards where they lie, from copies on the local disk, or from
an unpacked cache. Knows the shards; knows nothing of models, losses or augmentation.
"""

from flowlib.dataset.splits import describe_splits, open_splits
from flowlib.dataset.trajectories import Sample, TrajectoryDataset, find_dataset

__all__ = ["Sample", "TrajectoryDataset", "describe_splits", "find_dataset", "open_splits"]
