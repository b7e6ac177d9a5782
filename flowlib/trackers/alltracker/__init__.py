"""AllTracker: every pixel of a frame at once; ours, from the paper and the published checkpoints' names."""

from flowlib.trackers.alltracker.network import AllTracker, AllTrackerOutput

__all__ = ["AllTracker", "AllTrackerOutput"]
