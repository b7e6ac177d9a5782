"""`Tracks`: where points go in a clip and when they can be seen; other programs' conventions, and files of tracks.

The type that trackers, shards and metrics share. NumPy only. Knows nothing of images or networks.
"""

from flowlib.tracks.conventions import CONVENTIONS, from_arrays, to_arrays
from flowlib.tracks.files import read_tracks, write_tracks
from flowlib.tracks.tracks import Tracks, check_clip, check_min_confidence, check_queries

__all__ = [
    "CONVENTIONS",
    "Tracks",
    "check_clip",
    "check_min_confidence",
    "check_queries",
    "from_arrays",
    "read_tracks",
    "to_arrays",
    "write_tracks",
]
