"""Lucas-Kanade as a tracker: needs no weights and no GPU, and is quick.

Where there is texture, each point by OpenCV's pyramidal Lucas-Kanade (Bouguet, "Pyramidal implementation of the
Lucas Kanade feature tracker", 2001); where there is none, by its dense relative (Kroeger and others, "Fast optical flow
using dense inverse search", ECCV 2016), which carries motion over from the surroundings. Both are checked there and
back (Kalal, Mikolajczyk and Matas, "Forward-backward error", ICPR 2010).
Takes a clip and queries, gives `Tracks`. Knows nothing of videos or shards.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np

from flowlib.flow import DISFlow
from flowlib.trackers import Tracker, check_no_weights, check_on_cpu
from flowlib.trackers.chaining import chain
from flowlib.tracks import Tracks, check_clip

# Least eigenvalues of a window's structure tensor, in OpenCV's unit; skies have 1e-5 to 5e-4, grass 1e-2.
MIN_TEXTURE = 1e-3  # sparse tracking needs at least that
FLAT = 5e-4
NOISE_MOTION = 0.5  # pixels in a step that flow over flat ground may well have made up
NOISE_LEVELS = 1.0  # grey levels that say nothing
PATCH_RADIUS = 2  # pixels; the patch whose look decides is 5×5
ROW = 1024
SMALLEST_SIDE = 16  # pixels; dense inverse search refuses frames below 12
DIS = DISFlow()
NOTHING: Any = None  # OpenCV takes it where its stubs say that it doesn't


class LucasKanadeTracker:
    """Follows points by Lucas-Kanade from frame to frame, forwards and backwards in time from each query.

    A point is visible while it lies inside the frame, is found back where it came from, and looks as it did one frame
    before. Once lost it stays invisible, and stays where it was seen last. Points queried
    outside the frame are invisible and stay where they are. Nothing re-finds a point: errors add up frame by frame.
    Over flat ground, motion below half a pixel per step is taken for noise, and large flat things lag behind.
    10,000 points through 8 frames of 360×640 take about half a second of one core.

    Args:
        window: side in pixels of the square that is matched around a point. A smaller one follows rotation and
            scaling more closely, a larger one holds on to blurred and noisy things.
        levels: of the pyramid, each half the size of the one before.
        max_error: pixels by which a point may miss its origin on the way back.
        max_difference: grey levels, mean over 5×5 pixels, by which a point may change its look in one step.

    Raises:
        ValueError: an argument out of its range.

    >>> tracker = LucasKanadeTracker()
    >>> tracker(np.zeros((8, 36, 64, 3), np.uint8), np.array([[0, 40.0, 30.0]])).tracks.shape
    (8, 1, 2)
    """

    frame_to_frame: Literal[True] = True

    def __init__(self, window: int = 9, levels: int = 4, max_error: float = 1.0, max_difference: float = 12.0) -> None:
        for name, number, least in (("window", window, 3), ("levels", levels, 1)):
            if int(number) != number or number < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, got {number}")
        for name, number in (("max_error", max_error), ("max_difference", max_difference)):
            if not number > 0:
                raise ValueError(f"{name}: expected a positive number, got {number}")
        self.window, self.levels = window, levels
        self.max_error, self.max_difference = max_error, max_difference

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        """Follow `queries` [N 3] (t, x, y) through `frames` [S H W 3] uint8.

        Raises:
            ValueError: as `flowlib.tracks.check_clip`.
        """
        frames, queries = check_clip(frames, queries)
        grey = [_grey(frame) for frame in frames]
        return chain(
            queries, len(frames), frames.shape[1:3], lambda here, there, xy: self._step(grey[here], grey[there], xy)
        )

    def describe(self) -> dict[str, Any]:
        """Name and settings; there are no weights."""
        return {
            "name": "lucas_kanade",
            "window": self.window,
            "levels": self.levels,
            "max_error": self.max_error,
            "max_difference": self.max_difference,
            "weights_sha256": "",
        }

    def _step(self, here: np.ndarray, there: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the points [M 2] of one grey image are in the next, and which of them were found."""
        dense, miss = _dense(here, there, xy)
        sparse, sparse_returns, texture = self._sparse(here, there, xy)
        # flow over flat ground follows the noise of the camera: it is held to more, and what may stand still does
        flat = texture < FLAT
        dense_returns = miss <= np.where(flat, 0.5, 1) * self.max_error
        look = _patches(here, xy)
        dense_change, sparse_change, still_change = (
            np.abs(_patches(there, at) - look).mean(axis=1) for at in (dense, sparse, xy)
        )
        # sparse tracking is the finer one, dense flow is the one that knows the surroundings: where they contradict
        # each other the picture decides, and a point that dense flow does not find again is hidden
        better = sparse_returns & ((_distance(sparse, dense) < 1.5) | (sparse_change < dense_change))
        moved = np.where(better[:, None], sparse, dense)
        change = np.where(better, sparse_change, dense_change)
        still = flat & (_distance(dense, xy) < NOISE_MOTION) & (still_change <= change + NOISE_LEVELS)
        moved = np.where((still | (flat & ~dense_returns))[:, None], xy, moved)
        return moved, still | (dense_returns & (change < self.max_difference))

    def _sparse(self, here: np.ndarray, there: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where pyramidal Lucas-Kanade sees the points go, which of them come back, and how textured they are."""
        options: dict[str, Any] = {"winSize": (self.window, self.window), "maxLevel": self.levels - 1}
        options |= {"minEigThreshold": MIN_TEXTURE, "flags": cv2.OPTFLOW_LK_GET_MIN_EIGENVALS}
        moved, found, texture = cv2.calcOpticalFlowPyrLK(here, there, xy[:, None], NOTHING, **options)
        back, _, _ = cv2.calcOpticalFlowPyrLK(there, here, moved, NOTHING, **options)
        returns = (found[:, 0] == 1) & (_distance(back[:, 0], xy) <= self.max_error)
        return moved[:, 0], returns, texture[:, 0]


def _dense(here: np.ndarray, there: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where dense inverse search sees points [M 2] go, and by how many pixels each misses its origin coming back."""
    moved = xy + _read(DIS.between(here, there), xy)
    back = moved + _read(DIS.between(there, here), moved)
    return moved, _distance(back, xy)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=1)


def _grey(frame: np.ndarray) -> np.ndarray:
    """Brightness [H W] of a frame; a tiny one grows to the right and at the bottom by repeating its border."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    missing = [max(0, SMALLEST_SIDE - side) for side in grey.shape]
    return cv2.copyMakeBorder(grey, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE) if any(missing) else grey


def _patches(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The pixels around each point [M 2], read bilinearly: float32 [M 25]."""
    reach = np.arange(-PATCH_RADIUS, PATCH_RADIUS + 1)
    around = np.stack(np.meshgrid(reach, reach), axis=-1).reshape(1, -1, 2)
    return _read(image, (xy[:, None] + around).reshape(-1, 2)).reshape(len(xy), -1).astype(np.float32)


def _read(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """An image [H W] or [H W C] read bilinearly at points [M 2]; beyond the border, the border's value."""
    # remap takes no side beyond 32767, so the list of points goes in as rows
    rows = np.zeros((-(-len(xy) // ROW), ROW, 2), np.float32)
    rows.reshape(-1, 2)[: len(xy)] = xy
    values = cv2.remap(image, rows, NOTHING, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return values.reshape(-1, *image.shape[2:])[: len(xy)]


def make(weights: str, device: str) -> Tracker:
    """For `make_tracker`."""
    check_no_weights("lucas_kanade", weights)
    check_on_cpu("lucas_kanade", device)
    return LucasKanadeTracker()
