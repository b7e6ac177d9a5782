"""PIPs: eight frames at a time, each particle on its own; ours, from the paper and the published checkpoint's names."""

from flowlib.trackers.pips.loading import load_pips
from flowlib.trackers.pips.network import PIPs, PIPsOutput
from flowlib.trackers.pips.tracker import PIPsTracker

__all__ = ["PIPs", "PIPsOutput", "PIPsTracker", "load_pips"]
