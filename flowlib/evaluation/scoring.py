"""One prediction on one clip, turned into numbers. Knows the metrics; knows nothing of folders, reports or splits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from flowlib import metrics
from flowlib.geometry import cell_grid
from flowlib.metrics import Lpips
from flowlib.models import Predictor, TrajectoryPrediction
from flowlib.tracks import Tracks
from flowlib.warp import FILLS, METHODS, Rebuilt, lattice, rebuild

SAME_FRAME = 100.0  # dB given to a frame rebuilt without any error, whose PSNR would be infinite and no mean finite
COARSE = 4  # pixels; true motion is known at points only, so its mask needs no finer raster


@dataclass(frozen=True)
class EvalConfig:
    """What is measured, and how."""

    rebuild: tuple[int, ...] = (-1,)  # frames of the clip that are rebuilt and compared; () for none
    method: str = "splat"  # or "nearest", "clough_tocher"
    grid: tuple[int, int] | None = None  # rows and columns of the points moved to rebuild; None: every pixel
    invisible: str = "drop"  # or "keep": are points predicted invisible moved, too?
    fill: str = "frame"  # what holes hold when all pixels are compared: frame 0 ("frame"), "nearest" or black ("none")
    miss_distance: float = metrics.MISS_DISTANCE  # pixels
    moving: float = 1.0  # pixels from which on something counts as moving
    period: int = 8  # pixels; the stride whose grid artefacts are looked for
    lpips_weights: str = "none"  # AlexNet for LPIPS: "" for torchvision's, a path, URL or Drive id; "none": no LPIPS
    confidence: float = 0.95  # of the intervals
    resamples: int = 2000  # bootstrap draws
    seed: int = 0  # of the bootstrap

    def __post_init__(self) -> None:
        known = {"method": METHODS, "fill": FILLS, "invisible": ("drop", "keep")}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}: expected one of {', '.join(values)}, got {getattr(self, name)!r}")
        least = {"miss_distance": 0, "moving": 0, "period": 3, "resamples": 1}
        for name, number in least.items():
            if not getattr(self, name) >= number:
                raise ValueError(f"{name}: expected {number} or more, got {getattr(self, name)!r}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: expected a share between 0 and 1, such as 0.95, got {self.confidence!r}")


class Truth:
    """A clip and what is asked about it, prepared once for all predictors.

    Args:
        sample: `frames` [K H W 3], `tracks`, `visibility`, `queries`, `video`, `clip`, as the datasets give them.
        kept: which frames of the clip the K pictures are.
        config: what to measure.

    Raises:
        ValueError: points that are not queried in frame 0, or pictures that do not go with `kept`.
    """

    def __init__(self, sample: dict[str, Any], kept: tuple[int, ...], config: EvalConfig) -> None:
        arrays = {name: np.asarray(sample[name]) for name in ("frames", "tracks", "visibility", "queries")}
        self.sample, self.config, self.kept = sample, config, kept
        self.frames, self.name = arrays.pop("frames"), sample["clip"]
        self.tracks = Tracks(**arrays)
        if self.tracks.num_points and self.tracks.queries[:, 0].any():
            raise ValueError(f"{self.name}: expected points queried in frame 0, for that is what is predicted")
        if len(kept) != len(self.frames):
            raise ValueError(f"{self.name}: expected {len(kept)} pictures, for frames {kept}, got {len(self.frames)}")
        self.size = self.frames.shape[1:3]

    def images(self, input_frames: tuple[int, ...]) -> torch.Tensor:
        """The pictures of `input_frames`: uint8 [1 n 3 H W]."""
        missing = [frame for frame in input_frames if frame not in self.kept]
        if missing:
            raise ValueError(f"{self.name}: frame {missing[0]} is an input, but only frames {self.kept} were stored")
        pictures = self.frames[[self.kept.index(frame) for frame in input_frames]]
        return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))[None]

    @cached_property
    def rebuilt_frames(self) -> tuple[int, ...]:
        """The frames to rebuild, counted from 0, of those that have a picture; frame 0 must have one, too."""
        S = self.tracks.num_frames
        wrong = [frame for frame in self.config.rebuild if not -S <= frame < S]
        if wrong:
            raise ValueError(f"rebuild: expected frames of the clip, {-S} to {S - 1}, got {wrong[0]}")
        wanted = {frame % S for frame in self.config.rebuild}
        return tuple(sorted(wanted & set(self.kept))) if 0 in self.kept else ()

    def picture(self, frame: int) -> np.ndarray:
        return self.frames[self.kept.index(frame)]

    def moving(self, frame: int) -> Bool[np.ndarray, "H W"]:
        """Which pixels of a frame show something that has moved, told by the true point nearest to each."""
        from scipy.spatial import cKDTree

        seen = self.tracks.visibility[frame]
        if not seen.any():
            return np.zeros(self.size, bool)
        rows, columns = (-(-side // COARSE) for side in self.size)
        nearest = cKDTree(self.tracks.tracks[frame][seen]).query(cell_grid(self.size, rows, columns))[1]
        moved = np.linalg.norm(self.tracks.displacement[frame][seen], axis=-1) > self.config.moving
        large = moved[nearest].reshape(rows, columns).repeat(COARSE, axis=0).repeat(COARSE, axis=1)
        return large[: self.size[0], : self.size[1]]


def predict(predictor: Predictor, truth: Truth, name: str) -> TrajectoryPrediction:
    """A predictor's answer for one clip, on the CPU, checked.

    Raises:
        ValueError: a prediction of another size or length, or with NaN in it; names the predictor and the clip.
    """
    with torch.inference_mode():
        if hasattr(predictor, "from_sample"):
            prediction = predictor.from_sample(truth.sample)
        else:
            prediction = predictor(truth.images(tuple(predictor.input_frames)).to(device_of(predictor)))
    prediction = _on_cpu(prediction)
    where, S = f"predictor {name!r}, clip {truth.name!r}", truth.tracks.num_frames
    if tuple(prediction.displacement.shape[-2:]) != truth.size or prediction.displacement.shape[0] != 1:
        expected = f"one of size {truth.size}"
        raise ValueError(f"{where}: expected {expected}, got displacements {list(prediction.displacement.shape)}")
    if not prediction.frames or max(prediction.frames) >= S:
        raise ValueError(f"{where}: expected frames below {S}, the clip's length, got {prediction.frames}")
    for part in ("displacement", "visibility_logits"):
        bad = int((~getattr(prediction, part).isfinite()).sum())
        if bad:
            raise ValueError(f"{where}: expected finite {part}, got NaN or infinity in {bad} places")
    return prediction


def score(prediction: TrajectoryPrediction, truth: Truth, lpips: Lpips | None = None) -> dict[str, float]:
    """Every number of `measures.MEASURES` that can be had, and `epe_1`, `epe_2`, … for the frames predicted."""
    chosen = [0, *(frame for frame in prediction.frames if frame > 0)]  # frame 0 is where the points are asked for
    true = truth.tracks
    displacement, logits = at_queries(prediction, truth)
    moved, seen = true.displacement[chosen], true.visibility[chosen]
    row = metrics.displacement_metrics(moved, displacement, seen, miss_distance=truth.config.miss_distance)
    errors = metrics.epe_per_frame(moved, displacement, seen)
    row |= {f"epe_{frame}": float(error) for frame, error in zip(chosen[1:], errors)}
    row |= metrics.visibility_metrics(seen, logits) | {"visible": metrics.visible_share(true.visibility)}
    clip = Tracks(true.tracks[chosen], seen, true.queries)
    predicted = Tracks(displacement + true.queries[None, :, 1:], logits > 0, true.queries)
    tapvid = metrics.tapvid_metrics(clip, predicted)
    row |= {name: tapvid[name] for name in ("average_pts_within_thresh", "average_jaccard")}
    row |= _field_numbers(prediction, displacement[1:], moved[1:], seen[1:], truth)
    return row | _frame_numbers(prediction, truth, lpips)


def at_queries(prediction: TrajectoryPrediction, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Displacement [F N 2] and visibility logits [F N] at the true points, with frame 0 put first (zero, visible)."""
    xy = torch.from_numpy(np.ascontiguousarray(truth.tracks.queries[None, :, 1:], np.float32))
    displacement, logits = (values[0].numpy() for values in prediction.at(xy))
    later = [index for index, frame in enumerate(prediction.frames) if frame > 0]
    nothing = np.zeros((1, *displacement.shape[1:]), displacement.dtype)
    return np.concatenate([nothing, displacement[later]]), np.concatenate([nothing[..., 0] + 1, logits[later]])


def rebuild_frame(prediction: TrajectoryPrediction, truth: Truth, frame: int, fill: str) -> Rebuilt:
    """Frame `frame` of the clip, moved there from frame 0 as the configuration says."""
    index, config = prediction.frames.index(frame), truth.config
    parts = prediction.displacement[0, index].numpy(), prediction.visibility_logits[0, index].numpy()
    options = {"method": config.method, "grid": config.grid, "invisible": config.invisible}
    return rebuild(truth.picture(0), *parts, fill=fill, **options)


def device_of(predictor: Any) -> torch.device:
    """Where a network lives; the CPU for everything else."""
    parameters = predictor.parameters() if isinstance(predictor, torch.nn.Module) else iter(())
    first = next(parameters, None)
    return torch.device("cpu") if first is None else first.device


def _field_numbers(prediction, displacement, moved, seen, truth: Truth) -> dict[str, float]:
    """Smoothness on the lattice of the true points, where they can be seen; grid artefacts on the last dense field."""
    numbers = {}
    shape = lattice(truth.tracks.queries[:, 1:], truth.size)
    if shape and min(shape) > 1:
        fields = [part.reshape(len(part), *shape, 2).transpose(0, 3, 1, 2) for part in (moved, displacement)]
        spacing = (truth.size[0] / shape[0], truth.size[1] / shape[1])
        seen = seen.reshape(len(seen), *shape)
        numbers = metrics.field_metrics(*fields, seen, spacing=spacing)
    if min(truth.size) >= 2 * truth.config.period + 2:
        field = prediction.displacement[0, -1].numpy()
        numbers["grid_artefacts"] = metrics.grid_artefacts(field, truth.config.period)
    return numbers


def _frame_numbers(prediction: TrajectoryPrediction, truth: Truth, lpips: Lpips | None) -> dict[str, float]:
    """Means over the rebuilt frames that the prediction reaches."""
    rows = []
    for frame in truth.rebuilt_frames:
        if frame not in prediction.frames:
            continue
        rebuilt = rebuild_frame(prediction, truth, frame, truth.config.fill)
        masks = {"covered": rebuilt.covered, "moving": truth.moving(frame)}
        row = metrics.frame_metrics(truth.picture(frame), rebuilt.frame, masks, lpips=lpips)
        row = {name: min(value, SAME_FRAME) if name.startswith("psnr") else value for name, value in row.items()}
        rows.append(row | {"holes": 1 - float(rebuilt.covered.mean())})
    return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}


def _on_cpu(prediction: TrajectoryPrediction) -> TrajectoryPrediction:
    parts = (prediction.displacement, prediction.visibility_logits)
    return TrajectoryPrediction(*(part.float().cpu() for part in parts), frames=tuple(prediction.frames))
