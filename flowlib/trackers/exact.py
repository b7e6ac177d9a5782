"""The exact tracks of rendered clips, as a tracker: the truth for tests, and labels without a tracker's errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowlib.clips import Clip
from flowlib.geometry import Fit, fit_frame, inside
from flowlib.sources import read_scene
from flowlib.synthetic import Scene
from flowlib.trackers import Tracker, check_no_weights, check_on_cpu
from flowlib.tracks import Tracks, check_clip


class ExactTracker:
    """The tracker that is always right: the exact tracks of a clip of a scene, whatever its frames look like.

    Args:
        scene: what the clip shows; None: each clip's own, which `for_clip` finds beside the rendered video.
        first_frame, frame_step: which frames of the scene the clip's frames are.
        fit: how the scene's frames were brought to the clip's size; None: they were left as they are.

    Points that the fit has cut off, or that were never on the frame, are invisible.
    """

    def __init__(
        self, scene: Scene | None = None, first_frame: int = 0, frame_step: int = 1, fit: Fit | None = None
    ) -> None:
        if scene and fit and tuple(fit.source) != tuple(scene.size):
            raise ValueError(f"fit: expected one from the scene's size {tuple(scene.size)}, got {tuple(fit.source)}")
        self.scene, self.first_frame, self.frame_step, self.fit = scene, first_frame, frame_step, fit

    def for_clip(self, clip: Clip, path: Path, fit: Fit) -> ExactTracker:
        """The tracker of one clip of a rendered video.

        Raises:
            FileNotFoundError: the video has no scene beside it.
        """
        return ExactTracker(self.scene or read_scene(path), clip.first_frame, clip.frame_step, fit)

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        """Follow `queries` [N 3] (t, x, y) in pixels of `frames` [S H W 3] uint8.

        Raises:
            ValueError: as `check_clip`; no scene; frames of another size; a clip that outlasts the scene.
        """
        if self.scene is None:
            raise ValueError("scene: expected the scene that the clip shows, got None; give one, or call for_clip")
        frames, queries = check_clip(frames, queries)
        fit = self.fit or fit_frame(self.scene.size, self.scene.size)
        size = fit.target
        if frames.shape[1:3] != tuple(size):
            raise ValueError(f"frames: expected the scene's size {tuple(size)}, got {frames.shape[1:3]}")
        asked = queries.astype(np.float64)
        asked[:, 1:] = fit.to_source(asked[:, 1:])
        exact = self.scene.tracks(asked, len(frames), self.first_frame, self.frame_step)
        tracks = fit.to_target(exact.tracks)
        tracks[queries[:, 0].astype(int), np.arange(len(queries))] = queries[:, 1:]
        return Tracks(tracks.astype(np.float32), exact.visibility & inside(tracks, size), queries)

    def describe(self) -> dict:
        """What made the tracks; without the scene, so that one dataset of many scenes has one description."""
        return {"name": "exact", "weights_sha256": ""}


def make(weights: str, device: str) -> Tracker:
    """For `make_tracker`."""
    check_no_weights("exact", weights)
    check_on_cpu("exact", device)
    return ExactTracker()
