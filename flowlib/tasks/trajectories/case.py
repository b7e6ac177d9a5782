"""A clip with what is asked about it: `ScoringConfig`, what is measured, and `TrajectoryCase`, the same for all.

Knows the truth and how a frame is rebuilt from a prediction; knows nothing of metrics or of how methods are called.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from flowlib.clips import ClipSample
from flowlib.geometry import cell_grid
from flowlib.metrics import MISS_DISTANCE, Lpips
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.warp import FILLS, METHODS, Fill, Method, Rebuilt, rebuild, rebuild_from_two

COARSE = 4  # pixels; true motion is known at points only, so its mask needs no finer raster


@dataclass(frozen=True)
class ScoringConfig:
    """What is measured of trajectories, and how.

    Raises:
        ValueError: an unknown choice, or a number out of range.
    """

    rebuild: tuple[int, ...] = (-1,)  # frames of the clip that are rebuilt and compared; () for none
    rebuild_from: int = 0  # a later frame of the clip whose picture is moved on, too, where it covers; 0: none
    method: Method = "splat"  # or "nearest", "clough_tocher"
    grid: tuple[int, int] | None = None  # rows and columns of the points moved to rebuild; None: every pixel
    invisible: Literal["drop", "keep"] = "drop"  # are points predicted invisible moved, too?
    fill: Fill = "frame"  # what holes hold when all pixels are compared: frame 0 ("frame"), "nearest" or black ("none")
    miss_distance: float = MISS_DISTANCE  # pixels
    frames: tuple[int, int] | None = None  # first and last frame whose errors count; None: all after frame 0
    moving: float = 1.0  # pixels from which on something counts as moving
    period: int = 8  # pixels; the stride whose grid artefacts are looked for
    lpips_weights: str = "none"  # AlexNet for LPIPS: "" for torchvision's, a path, URL or Drive id; "none": no LPIPS

    def __post_init__(self) -> None:
        choices = {"method": (self.method, METHODS), "fill": (self.fill, FILLS)}
        choices |= {"invisible": (self.invisible, ("drop", "keep"))}
        for name, (value, known) in choices.items():
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        if self.frames is not None and not 1 <= self.frames[0] <= self.frames[1]:
            raise ValueError(f"frames: expected a first and a last frame from 1 on, such as 4 7, got {self.frames}")
        if self.rebuild_from and self.method != "splat":
            raise ValueError(f"rebuild_from: expected 0 with method {self.method!r}, got {self.rebuild_from}")
        least = {"rebuild_from": (self.rebuild_from, 0)}
        least |= {"miss_distance": (self.miss_distance, 0), "moving": (self.moving, 0), "period": (self.period, 3)}
        for name, (value, bound) in least.items():
            if not value >= bound:
                raise ValueError(f"{name}: expected {bound} or more, got {value!r}")


@dataclass(frozen=True, eq=False)
class TrajectoryCase:
    """A clip with what is asked about it, the same for all methods.

    Attributes:
        sample: the clip, its points queried in frame 0.
        config: what to measure.
        lpips: the network for LPIPS, if it is to be measured.
    """

    sample: ClipSample
    config: ScoringConfig
    lpips: Lpips | None = None

    @cached_property
    def rebuilt_frames(self) -> tuple[int, ...]:
        """The frames to rebuild, counted from 0, of those that have a picture; frame 0 must have one, too."""
        S = self.sample.truth.num_frames
        wrong = [frame for frame in self.config.rebuild if not -S <= frame < S]
        if wrong:
            raise ValueError(f"rebuild: expected frames of the clip, {-S} to {S - 1}, got {wrong[0]}")
        wanted = {frame % S for frame in self.config.rebuild}
        return tuple(sorted(filter(self.sample.has, wanted))) if self.sample.has(0) else ()

    def moving(self, frame: int) -> Bool[np.ndarray, "H W"]:
        """Which pixels of a frame show something that has moved, told by the true point nearest to each."""
        from scipy.spatial import KDTree

        size, truth = self.sample.size, self.sample.truth
        seen = truth.visibility[frame]
        if not seen.any():
            return np.zeros(size, bool)
        rows, columns = (-(-side // COARSE) for side in size)
        nearest = KDTree(truth.tracks[frame][seen]).query(cell_grid(size, rows, columns))[1]
        moved = np.linalg.norm(truth.displacement[frame][seen], axis=-1) > self.config.moving
        large = moved[nearest].reshape(rows, columns).repeat(COARSE, axis=0).repeat(COARSE, axis=1)
        return large[: size[0], : size[1]]

    def rebuild(self, prediction: TrajectoryPrediction, frame: int, fill: Fill | None = None) -> Rebuilt:
        """Frame `frame` of the clip, moved there from frame 0 (and `rebuild_from`) as the configuration says."""
        index, config = prediction.frames.index(frame), self.config
        both = config.rebuild_from
        if both and both < frame and both in prediction.frames and self.sample.has(both):
            reached = prediction.displacement[0, prediction.frames.index(both)].numpy()
            logits = prediction.visibility_logits[0, index].numpy() if config.invisible == "drop" else None
            first, later = self.sample.pictures((0, both))
            moved = prediction.displacement[0, index].numpy()
            return rebuild_from_two(first, later, reached, moved, logits, fill=fill or config.fill)
        moved, logits = (part[0, index].numpy() for part in (prediction.displacement, prediction.visibility_logits))
        options: dict[str, Any] = {"method": config.method, "grid": config.grid, "invisible": config.invisible}
        return rebuild(self.sample.picture(0), moved, logits, fill=fill or config.fill, **options)

    def at_points(
        self, prediction: TrajectoryPrediction
    ) -> tuple[Float[np.ndarray, "F N 2"], Float[np.ndarray, "F N"]]:
        """Displacement and visibility logits at the true points, with frame 0 put first (zero, visible)."""
        xy = torch.from_numpy(np.ascontiguousarray(self.sample.truth.queries[None, :, 1:], np.float32))
        displacement, logits = (values[0].numpy() for values in prediction.at(xy))
        later = [index for index, frame in enumerate(prediction.frames) if frame > 0]
        nothing = np.zeros((1, *displacement.shape[1:]), displacement.dtype)
        return np.concatenate([nothing, displacement[later]]), np.concatenate([nothing[..., 0] + 1, logits[later]])
