"""A small clip with two sets of tracks, made alike by the tests and by the notebooks they open; needs no pytest."""

import numpy as np

from flowlib.geometry import cell_grid
from flowlib.tracks import Tracks

SIZE, ROWS, COLUMNS, S = (90, 160), 9, 16, 8


def example() -> tuple[np.ndarray, Tracks, Tracks]:
    """A clip, straight tracks (the last column hidden from frame 4 on), and a prediction that falls behind."""
    x = np.linspace(0, 255, SIZE[1])[None, :, None]
    frames = np.stack([np.broadcast_to((x + 20 * s) % 256, (*SIZE, 3)) for s in range(S)]).astype(np.uint8)
    xy = cell_grid(SIZE, ROWS, COLUMNS)
    queries, time = np.c_[np.zeros(len(xy)), xy], np.arange(S)[:, None, None]
    visibility = np.ones((S, len(xy)), bool)
    visibility[4:, COLUMNS - 1 :: COLUMNS] = False
    truth, prediction = (Tracks(xy + time * np.array([speed, 1.0]), visibility, queries) for speed in (2.0, 1.5))
    return frames, truth, prediction
