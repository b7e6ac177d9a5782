"""What is measured of a predicted clip: a `MetricSpec` for each number, with its function.

To add a metric, add its `MetricSpec` to `METRICS`. Its function takes a `TrajectoryAnswer` and gives a number, NaN
where there is nothing to measure; what several metrics share is computed once, as a cached property of the answer.
"""

from __future__ import annotations

from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowlib import metrics
from flowlib.geometry import bilinear_sample
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.protocol import Answer, Better, MetricSpec, SeriesSpec
from flowlib.tasks.trajectories.case import TrajectoryCase
from flowlib.tracks import Tracks
from flowlib.warp import lattice

SAME_FRAME = 100.0  # dB given to a frame rebuilt without any error, whose PSNR would be infinite and no mean finite
NAN = float("nan")


class TrajectoryAnswer(Answer):
    """A predicted clip beside the true one, over frame 0 and the later frames that were predicted."""

    prediction: TrajectoryPrediction
    case: TrajectoryCase

    @property
    def available(self) -> frozenset[str]:
        sample = self.case.sample
        there = {
            "knowledge of what is hidden": sample.occlusion_known,
            "true points on a regular grid": self.lattice is not None,
            "later pictures": bool(self.rebuilt),
            "regions": self.prediction.radius is not None,
            "a prediction that says how sure it is": self.prediction.log_scale is not None,
            "several futures": self.prediction.futures is not None,
            "labels by two trackers": sample.apart is not None,
            "the weights of its network (lpips_weights)": self.case.lpips is not None and bool(self.rebuilt),
        }
        return frozenset(name for name, known in there.items() if known)

    @cached_property
    def frames(self) -> list[int]:
        """Frame 0, where the points are asked for, and those predicted."""
        return [0, *(frame for frame in self.prediction.frames if frame > 0)]

    @cached_property
    def true(self) -> Tracks:
        truth = self.case.sample.truth
        return Tracks(truth.tracks[self.frames], truth.visibility[self.frames], truth.queries)

    @cached_property
    def at_points(self) -> tuple[Float[np.ndarray, "F N 2"], Float[np.ndarray, "F N"]]:
        """Predicted displacement and visibility logits of the true points."""
        return self.case.at_points(self.prediction)

    @cached_property
    def predicted(self) -> Tracks:
        """The predicted way of the true points."""
        displacement, logits = self.at_points
        queries = self.true.queries
        return Tracks(displacement + queries[None, :, 1:], logits > 0, queries)

    @cached_property
    def predicted_futures(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The true points' ways in each of several futures [K F N 2], and the futures' weights [K]; None of one."""
        if self.prediction.futures is None:
            return None
        xy = np.ascontiguousarray(self.true.queries[None, :, 1:], np.float32)
        moved = self.prediction.futures_at(torch.from_numpy(xy))[0].numpy()
        later = [place for place, frame in enumerate(self.prediction.frames) if frame > 0]
        moved = np.concatenate([np.zeros_like(moved[:, :1]), moved[:, later]], axis=1)
        return moved + xy[0], self.prediction.each_future()[1][0].numpy()

    @cached_property
    def counting(self) -> list[int]:
        """Of `frames`, the places of frame 0 and of those whose errors count."""
        first, last = self.case.config.frames or (1, self.frames[-1])
        kept = [index for index, frame in enumerate(self.frames) if frame == 0 or first <= frame <= last]
        if len(kept) < 2:
            name, S = self.case.sample.name, self.case.sample.truth.num_frames
            raise ValueError(f"frames: expected some of those predicted of {name} ({S} frames), got {first} to {last}")
        return kept

    @cached_property
    def counted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True and predicted displacement [F N 2] and visibility [F N] in frame 0 and the frames that count."""
        kept = self.counting
        return self.true.displacement[kept], self.at_points[0][kept], self.true.visibility[kept]

    @cached_property
    def displacement(self) -> dict[str, float]:
        return metrics.displacement_metrics(*self.counted, miss_distance=self.case.config.miss_distance)

    @cached_property
    def by_motion(self) -> dict[str, float]:
        """The mean error of points that hardly move, that move with the camera, and that move on their own."""
        moved, predicted, seen = self.counted
        errors = metrics.point_errors(moved, predicted, seen)[1:]
        classes = metrics.motion_classes(moved[-1], self.true.queries[:, 1:], seen[-1], moving=self.case.config.moving)
        chosen = {"still": 0, "camera": 1, "own": 2}
        parts = {name: errors[seen[1:] & (classes == number)] for name, number in chosen.items()}
        return {f"ade_{name}": float(part.mean()) if part.size else NAN for name, part in parts.items()}

    @cached_property
    def visibility(self) -> dict[str, float]:
        return metrics.visibility_metrics(self.true.visibility, self.at_points[1])

    @cached_property
    def tapvid(self) -> dict[str, float]:
        return metrics.tapvid_metrics(self.true, self.predicted)

    def at_true(self, field: Tensor) -> Float[np.ndarray, "F N"]:
        """A field [1 F H W] of the prediction, read at the true points in the frames that count (but frame 0)."""
        later = [self.prediction.frames.index(self.frames[place]) for place in self.counting[1:]]
        xy = torch.from_numpy(np.ascontiguousarray(self.true.queries[None, :, 1:], np.float32))
        return bilinear_sample(field[:, later], xy)[0].numpy()

    @cached_property
    def regions(self) -> dict[str, float]:
        """How many points lie inside the regions promised, and how wide these are."""
        assert self.prediction.radius is not None and self.prediction.path_radius is not None
        moved, predicted, seen = (part[1:] for part in self.counted)
        error = np.linalg.norm(moved - predicted, axis=-1)
        radius, whole = (self.at_true(part) for part in (self.prediction.radius, self.prediction.path_radius))
        shown = seen.any(axis=0)
        if not shown.any():
            return dict.fromkeys(("inside", "path_inside", "radius", "path_radius"), NAN)
        held = ((error <= whole) | ~seen).all(axis=0)
        return {
            "inside": float((error <= radius)[seen].mean()),
            "path_inside": float(held[shown].mean()),
            "radius": float(radius[seen].mean()),
            "path_radius": float(whole[seen].mean()),
        }

    @cached_property
    def doubt(self) -> Float[np.ndarray, "H W"] | None:
        """How far the last frame predicted may be off at every pixel, as the prediction says: the radius promised, or
        else the root mean square that it expects; None if it doesn't say how sure it is."""
        prediction = self.prediction
        if prediction.radius is not None:
            return prediction.radius[0, -1].numpy()
        if prediction.log_scale is None:
            return None
        within, between = prediction.spread()
        return (within.square() + between.square()).sqrt()[0, -1].numpy()

    @cached_property
    def expected(self) -> dict[str, float]:
        """How far off the prediction itself expects to be, and how much of that is a choice between futures."""
        within, between = (self.at_true(part) for part in self.prediction.spread())
        seen = self.counted[2][1:]
        if not seen.any():
            return {"spread": NAN, "spread_between": NAN}
        square, apart = (within**2 + between**2)[seen], (between**2)[seen]
        return {
            "spread": float(np.sqrt(square).mean()),
            "spread_between": float(apart.sum() / max(square.sum(), 1e-12)),
        }

    @cached_property
    def lattice(self) -> tuple[int, int] | None:
        """(rows, columns) if the true points form a regular grid."""
        shape = lattice(self.true.queries[:, 1:], self.case.sample.size, self.case.sample.box)
        return shape if shape and min(shape) > 1 else None

    @cached_property
    def field(self) -> dict[str, float]:
        """Smoothness on the lattice of the true points, where they can be seen."""
        assert self.lattice is not None
        _, _, *size = self.case.sample.box or (0, 0, *self.case.sample.size)
        shape = self.lattice
        parts = self.true.displacement[1:], self.at_points[0][1:]
        true, predicted = (part.reshape(len(part), *shape, 2).transpose(0, 3, 1, 2) for part in parts)
        seen = self.true.visibility[1:]
        spacing = (size[0] / shape[0], size[1] / shape[1])
        return metrics.field_metrics(true, predicted, seen.reshape(len(seen), *shape), spacing=spacing)

    @cached_property
    def rebuilt(self) -> dict[int, tuple[np.ndarray, np.ndarray, Bool[np.ndarray, "H W"]]]:
        """Frame -> its true picture, the rebuilt one, and where that is covered; of those predicted and stored."""
        made = {}
        for frame in self.case.rebuilt_frames:
            if frame in self.prediction.frames:
                rebuilt = self.case.rebuild(self.prediction, frame)
                made[frame] = self.case.sample.picture(frame), rebuilt.frame, rebuilt.covered
        return made

    @cached_property
    def pictures(self) -> dict[str, float]:
        """Means over the rebuilt frames."""
        rows, inside = [], self.case.sample.on_picture
        for frame, parts in self.rebuilt.items():
            true, rebuilt, covered = map(inside, parts)
            masks = {"covered": covered, "moving": inside(self.case.moving(frame))}
            row = metrics.frame_metrics(true, rebuilt, masks, lpips=self.case.lpips)
            rows.append({name: min(v, SAME_FRAME) if name.startswith("psnr") else v for name, v in row.items()})
        return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}


def labels_apart(answer: TrajectoryAnswer) -> float:
    """How far two trackers' labels differ in the mean, where the errors are measured."""
    assert answer.case.sample.apart is not None
    counted = [answer.frames[place] for place in answer.counting[1:]]
    apart = answer.case.sample.apart[counted][answer.true.visibility[answer.counting[1:]]]
    return float(np.nanmean(apart)) if np.isfinite(apart).any() else NAN


def visible_share(answer: TrajectoryAnswer) -> float:
    """Share of all points that can be seen after frame 0."""
    return metrics.visible_share(answer.case.sample.truth.visibility)


def grid_artefacts(answer: TrajectoryAnswer) -> float:
    """Of the last predicted field; NaN for pictures smaller than two periods."""
    period = answer.case.config.period
    if min(answer.case.sample.size) < 2 * period + 2:
        return NAN
    return metrics.grid_artefacts(answer.prediction.displacement[0, -1].numpy(), period)


def holes(answer: TrajectoryAnswer) -> float:
    """Share of the rebuilt frames that nothing was moved to."""
    inside = answer.case.sample.on_picture
    return float(np.mean([1 - float(inside(covered).mean()) for _, _, covered in answer.rebuilt.values()]))


def spread_ahead(answer: TrajectoryAnswer) -> dict[int, float]:
    """How far off the prediction expects to be in each frame, in the mean over the points that can be seen there."""
    within, between = answer.prediction.spread()
    xy = torch.from_numpy(np.ascontiguousarray(answer.true.queries[None, :, 1:], np.float32))
    later = [answer.prediction.frames.index(frame) for frame in answer.frames[1:]]
    wide = bilinear_sample((within.square() + between.square()).sqrt()[:, later], xy)[0].numpy()
    seen = answer.true.visibility[1:]
    found = zip(answer.frames[1:], wide, seen)
    return {frame: float(values[shown].mean()) if shown.any() else NAN for frame, values, shown in found}


def error_ahead(answer: TrajectoryAnswer) -> dict[int, float]:
    """Mean error of each frame predicted, whichever count elsewhere."""
    errors = metrics.epe_per_frame(answer.true.displacement, answer.at_points[0], answer.true.visibility)
    return {frame: float(error) for frame, error in zip(answer.frames[1:], errors)}


def _of(part: str, name: str, label: str, unit: str, better: Better, meaning: str = "", **more: Any) -> MetricSpec:
    """The metric that is called `name` in a part of the answer."""
    read = attrgetter(part)
    return MetricSpec(name, label, unit, better, lambda answer: read(answer)[name], meaning=meaning, **more)


def _of_pictures(name: str, label: str, unit: str, better: Better, meaning: str, **more: Any) -> list[MetricSpec]:
    """A likeness of the rebuilt frames: of all pixels, of those that were covered, and of those that move."""
    parts = {
        "covered": "where pixels arrived, holes left out",
        "moving": "on what truly moves, the still rest left out",
    }
    found = [_of("pictures", f"{name}_all", label, unit, better, meaning, **_FRAMES | more)]
    rest = _FRAMES | more | {"headline": False}
    for part, where in parts.items():
        found.append(_of("pictures", f"{name}_{part}", f"{label} {part}", "", better, f"The same {where}.", **rest))
    return found


_POINTS: dict[str, Any] = {"group": "Where points go"}
_MOTION: dict[str, Any] = {"group": "By kind of motion"}
_REGION: dict[str, Any] = {"group": "Regions", "needs": ("regions",)}
_SURE: dict[str, Any] = {"group": "What it can't know", "needs": ("a prediction that says how sure it is",)}
_SEEN: dict[str, Any] = {"group": "Which points can be seen", "needs": ("knowledge of what is hidden",)}
_FIELD: dict[str, Any] = {"group": "Shape of the motion"}
_LATTICE: dict[str, Any] = {"needs": ("true points on a regular grid",)}
_FRAMES: dict[str, Any] = {"group": "Rebuilt frames", "needs": ("later pictures",)}
_SHARE: dict[str, Any] = {"digits": 1, "scale": 100}

METRICS: tuple[MetricSpec, ...] = (
    _of("displacement", "ade", "ADE", "px", "low", "Average distance between predicted and true place, over all points "
        "that can be seen and all frames.", **_POINTS, headline=True),
    _of("displacement", "fde", "FDE", "px", "low", "The same in the last frame only, where it is hardest.", **_POINTS,
        headline=True),
    _of("displacement", "miss_rate", "Missed", "%", "low", "Share of points that are too far off in the last frame "
        "(8 px by default).", **_POINTS, **_SHARE),
    _of("displacement", "mse", "MSE", "px²", "low", "Mean squared error of a coordinate; few large misses dominate it.",
        **_POINTS, digits=1),
    _of("displacement", "mse_last", "MSE last", "px²", "low", "The same in the last frame only.", **_POINTS, digits=1),
    MetricSpec("labels_apart", "Labels apart", "px", "low", labels_apart, needs=("labels by two trackers",), **_POINTS,
        meaning="How far the two trackers that labelled the videos differ where errors are measured. Errors, and "
        "differences between methods, much below that can't be told."),
    _of("by_motion", "ade_still", "ADE still", "px", "low", "The error of points that move less than a pixel until the "
        "last frame.", **_MOTION),
    _of("by_motion", "ade_camera", "ADE camera", "px", "low", "That of points that follow the motion of most of the "
        "picture (affine), as a moving camera makes it.", **_MOTION),
    _of("by_motion", "ade_own", "ADE own motion", "px", "low", "That of points that move in another way than the "
        "camera.", **_MOTION),
    _of("regions", "inside", "Inside", "%", "high", "Share of points that lie in the region promised for them; what "
        "was promised (such as 90 %) is right, more is too wide.", **_REGION, **_SHARE),
    _of("regions", "path_inside", "Paths inside", "%", "high", "Share of points whose whole path lies in the wider "
        "regions for paths.", **_REGION, **_SHARE),
    _of("regions", "radius", "Radius", "px", "low", "Mean radius of the regions: of two that hold the same share, the "
        "narrower says more.", **_REGION),
    _of("regions", "path_radius", "Radius of paths", "px", "low", "That of the regions for whole paths.", **_REGION),
    _of("expected", "spread", "Spread", "px", "low", "How far off a method itself expects to be (root mean square), "
        "right or not. What a second picture takes away of it could not be known from one.", **_SURE),
    _of("expected", "spread_between", "Between futures", "%", "low", "How much of that, as a share of its square, lies "
        "between the futures it sees rather than around each.", **_SHARE, group=_SURE["group"],
        needs=("a prediction that says how sure it is", "several futures")),
    _of("tapvid", "average_pts_within_thresh", "δ_avg", "%", "high", "Share of points less than 1 px off, less than 2, "
        "4, 8 and 16 px, averaged over the five (TAP-Vid).", **_POINTS, **_SHARE, headline=True),
    _of("tapvid", "average_jaccard", "AJ", "%", "high", "Place and visibility in one number (TAP-Vid): a point counts "
        "if it is near and rightly called visible.", **_POINTS, **_SHARE, needs=_SEEN["needs"]),
    _of("visibility", "visibility_accuracy", "Visibility", "%", "high", "Share of points that are rightly called "
        "visible or hidden.", **_SEEN, **_SHARE, headline=True),
    _of("visibility", "visibility_auroc", "AUROC", "", "high", "Chance that a visible point gets a higher visibility "
        "than a hidden one; 0.5 is guessing.", **_SEEN, digits=3),
    MetricSpec("visible", "Visible", "%", "high", visible_share, group="", digits=0, scale=100),
    _of("field", "roughness", "Roughness", "%", "zero", "How much the motion changes from place to place, against the "
        "labels: -100 all places move alike, -33 half as rough as they are, 0 as rough, 33 twice as rough, 100 no end "
        "to it.", **_FIELD, **_LATTICE, digits=0, scale=100),
    _of("field", "tv_ratio", "Total variation ratio", "", "zero", **_LATTICE, group=""),
    _of("field", "divergence_ratio", "Divergence ratio", "", "zero", **_LATTICE, group=""),
    _of("field", "curl_ratio", "Curl ratio", "", "zero", **_LATTICE, group=""),
    _of("field", "divergence_error", "Divergence err.", "", "low", "Wrong growing and shrinking, px per px.", **_FIELD,
        **_LATTICE, digits=3),
    _of("field", "curl_error", "Curl err.", "", "low", "Wrong turning, px per px.", **_FIELD, **_LATTICE, digits=3),
    MetricSpec(
        "grid_artefacts", "Grid artefacts", "%", "low", grid_artefacts, **_FIELD, digits=0, scale=100,
        meaning="Share of the predicted motion's bending that sits on one grid of 8 px (the stride of many networks), "
        "beyond chance: 0 no such grid, 100 nothing but the grid. The true motion may have some, too.",
    ),
    *_of_pictures("psnr", "PSNR", "dB", "high", "Likeness of the rebuilt frame to the true one, pixel by pixel, in "
        "decibels: 6 dB more is half the error.", headline=True),
    *_of_pictures("ssim", "SSIM", "", "high", "Likeness of edges and texture rather than of single pixels; 1 for equal "
        "frames.", headline=True, digits=3),
    *_of_pictures("lpips", "LPIPS", "", "low", "Difference as a network trained on human judgement sees it.", digits=3,
        needs=("the weights of its network (lpips_weights)",)),
    MetricSpec("holes", "Holes", "%", "low", holes, **_FRAMES, **_SHARE,
        meaning="Share of the new frame that no pixel was moved to."),
)  # fmt: skip

SERIES: tuple[SeriesSpec, ...] = (
    SeriesSpec(
        "epe", "Error against frames ahead", "Error", "px", "low", "frames ahead", error_ahead, origin=0.0,
        meaning="Mean distance between predicted and true place of the visible points. The further ahead, the harder.",
    ),
    SeriesSpec(
        "expected", "Expected error against frames ahead", "Expected", "px", "low", "frames ahead", spread_ahead,
        origin=0.0, needs=_SURE["needs"],
        meaning="How far off each method that says so expects to be. One that sees two pictures can know more.",
    ),
)  # fmt: skip
