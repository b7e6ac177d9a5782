"""Labelled clips and benchmarks as samples: the reading side of datasets.

`TrajectoryDataset` gives the clips of one split, from the shards where they lie, from copies on the local disk, or from
an unpacked cache; `benchmarks` reads TAP-Vid, BADJA and optical flow. Knows nothing of models, losses or augmentation.
"""

from flowlib.dataset.trajectories import TrajectoryDataset, describe_splits, find_dataset, open_splits

__all__ = ["TrajectoryDataset", "describe_splits", "find_dataset", "open_splits"]
