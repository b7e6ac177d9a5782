"""AllTracker: every pixel of a frame at once; ours, from the paper and the published checkpoints' names."""

from flowlib.trackers.alltracker.loading import load_alltracker
from flowlib.trackers.alltracker.network import AllTracker, AllTrackerOutput
from flowlib.trackers.alltracker.sliding import State
from flowlib.trackers.alltracker.tracker import AllTrackerTracker, DenseTracks, Stretch

__all__ = [
    "AllTracker",
    "AllTrackerOutput",
    "AllTrackerTracker",
    "DenseTracks",
    "State",
    "Stretch",
    "load_alltracker",
]
