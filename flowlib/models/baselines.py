"""Baselines: predictors that learn little or nothing, behind the same call as the networks; a model has to beat them.

Each takes `images` [B n 3 H W] for the frames it names in `input_frames` and returns a `TrajectoryPrediction` over the
whole clip, and says what it is: `role`, and `describe()` with a sentence for a report. Those that are fitted say on
which videos (`trained_on`), so that an evaluation can refuse them there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flowlib.clips import ClipSample, content_hash
from flowlib.dataset.about import fingerprint_of, videos_of
from flowlib.flow import DISFlow, OpticalFlow, RAFTFlow
from flowlib.geometry import Size, cell_grid, cell_index, inside, pixel_grid, resize_field
from flowlib.models.futures import GAINS, anchors
from flowlib.models.protocols import Predictor, Role, TrajectoryPrediction, description_of
from flowlib.models.protocols import trained_on as _trained_on
from flowlib.quantities import counted
from flowlib.warp import dense_field

SURE = 4.0  # logit of a visibility that is known: sigmoid(4) = 0.98
NO_MOTION = 1e-6  # pixels: what multiple of so little would be right says nothing
FITTED_POINTS = 1_000_000  # on which gains are fitted at most: 160 MB for clips of 8 frames


class ZeroMotion:
    """Nothing moves, everything stays visible; the frame rebuilt from it is a copy of frame 0.

    Args:
        num_frames: frames of a clip.

    >>> ZeroMotion(8)(torch.zeros(1, 1, 3, 4, 5)).displacement.shape
    torch.Size([1, 8, 2, 4, 5])
    """

    role: ClassVar[Role] = "null"
    input_frames = (0,)

    def __init__(self, num_frames: int = 8) -> None:
        self.num_frames = _check_length(num_frames)

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B 1 3 H W]."""
        B, H, W = _check_images(images, self.input_frames)
        still = torch.zeros(B, self.num_frames, 2, H, W, device=images.device)
        return _whole_clip(still, torch.full_like(still[:, :, 0], SURE))

    def describe(self) -> dict[str, Any]:
        summary = "Nothing moves. The frame rebuilt from it is a copy of the first picture."
        return {"name": "zero motion", "summary": summary, "num_frames": self.num_frames}


class MeanMotion:
    """The mean motion of the training set: every point moves as the points of its part of the frame did there.

    Use `MeanMotion.fit(dataset)`.

    Args:
        motion: [S 3 rows columns]: displacement in shares of the frame's width and height, and visibility (0 to 1).
        trained_on: names or fingerprints of the videos.
        source: fingerprint of the training set.
    """

    role: ClassVar[Role] = "baseline"
    input_frames = (0,)

    def __init__(self, motion: np.ndarray, trained_on: tuple[str, ...] = (), source: str = "") -> None:
        motion = np.asarray(motion, np.float32)
        if motion.ndim != 4 or motion.shape[1] != 3:
            raise ValueError(f"motion: expected shape [S 3 rows columns], got {list(motion.shape)}")
        self.motion, self.trained_on, self.source = motion, trained_on, source

    @classmethod
    def fit(cls, dataset: Any, cells: tuple[int, int] = (9, 16)) -> MeanMotion:
        """Average the visible points of `dataset` (of `ClipSample`s) in rows × columns cells.

        A cell that no point starts in takes the mean of all others; so does a frame in which none is visible.
        """
        sums = np.zeros(())
        for sample in _samples(dataset):
            H, W = sample.size
            moved = sample.truth.displacement / np.array([W, H])
            xy = sample.truth.queries[:, 1:]
            sums = sums + _cell_sums(xy, moved, sample.truth.visibility, sample.size, cells)
        seen, started = sums[:, 2:3], sums[:, 3:4]
        overall = sums.sum(axis=(2, 3), keepdims=True)
        general = overall[:, :2] / np.maximum(overall[:, 2:3], 1)
        displacement = np.where(seen > 0, sums[:, :2] / np.maximum(seen, 1), general)
        share = overall[:, 2:3] / np.maximum(overall[:, 3:], 1)
        visibility = np.where(started > 0, seen / np.maximum(started, 1), share)
        displacement[0] = 0
        return cls(np.concatenate([displacement, visibility], axis=1), **_origin(dataset))

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B 1 3 H W]."""
        B, H, W = _check_images(images, self.input_frames)
        S, _, rows, columns = self.motion.shape
        values = self.motion.reshape(S * 3, -1).T
        field = dense_field(cell_grid((H, W), rows, columns), values, (H, W)).reshape(S, 3, H, W)
        field = torch.from_numpy(field).to(images.device).expand(B, -1, -1, -1, -1)
        displacement = field[:, :, :2] * field.new_tensor([W, H])[:, None, None]
        return _whole_clip(displacement, torch.logit(field[:, :, 2], eps=1e-3))

    def describe(self) -> dict[str, Any]:
        content = hashlib.sha256(self.motion.tobytes()).hexdigest()
        summary = "Every part of the picture moves as that part moved, on average, in the training videos."
        about = {"name": "mean motion", "summary": summary, "cells": list(self.motion.shape[2:])}
        return about | {"sha256": content, "fitted_on": self.source}


class NearestNeighbour:
    """The training clip that looks most alike, and its motion.

    Alike is the least mean squared difference of the input frames, shrunk to 18×32 pixels. Use
    `NearestNeighbour.fit(dataset)`; the dataset stays at hand, for its tracks are read when they are needed.

    Args:
        pictures: [M n·3·18·32], the shrunk input frames of M clips.
        clips: the M samples, by index.
        input_frames: the frames that are compared.
    """

    role: ClassVar[Role] = "baseline"
    shrunk = (18, 32)

    def __init__(self, pictures: np.ndarray, clips: Any, input_frames: tuple[int, ...] = (0,)) -> None:
        if len(pictures) == 0:
            raise ValueError("pictures: expected at least one training clip, got none")
        self.pictures, self.clips, self.input_frames = pictures, clips, tuple(input_frames)
        self.trained_on, self.source = _origin(clips).values()

    @classmethod
    def fit(cls, dataset: Any, input_frames: Sequence[int] = (0,)) -> NearestNeighbour:
        """Shrink the input frames of every clip of `dataset`."""
        pictures = [cls._shrink(sample.images(input_frames))[0] for sample in _samples(dataset)]
        return cls(np.stack(pictures), dataset, tuple(input_frames))

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B n 3 H W]."""
        _, H, W = _check_images(images, self.input_frames)
        found = [ClipSample.of(self.clips[self.nearest(image[None])]) for image in images]
        return _concatenate([densify(sample, (H, W)) for sample in found], images.device)

    def nearest(self, images: Tensor) -> int:
        """Index of the clip most like `images` [1 n 3 H W]."""
        return int(np.square(self.pictures - self._shrink(images)).mean(axis=1).argmin())

    @classmethod
    def _shrink(cls, images: Tensor) -> Float[np.ndarray, "B D"]:
        B, n, C, H, W = images.shape
        small = torch.nn.functional.interpolate(images.float().reshape(B * n, C, H, W), cls.shrunk, mode="area")
        return small.reshape(B, -1).cpu().numpy()

    def describe(self) -> dict[str, Any]:
        content = hashlib.sha256(np.ascontiguousarray(self.pictures).tobytes()).hexdigest()
        summary = "Looks for the training clip whose pictures are most alike, and repeats how it moved."
        about = {"name": f"nearest neighbour of {counted(len(self.pictures), 'clip')}", "summary": summary}
        return about | {"input_frames": list(self.input_frames), "sha256": content, "fitted_on": self.source}


class ConstantVelocity:
    """Every point keeps the velocity it has between the two input frames, as optical flow measures it.

    Frames between the inputs are interpolated, those after extrapolated. A point that leaves the frame is invisible.

    Args:
        flow: between two pictures; `DISFlow()` if None.
        num_frames: frames of a clip.
        input_frames: the frame the trajectories start in, and a later one.

    >>> predictor = ConstantVelocity(num_frames=8, input_frames=(0, 3))
    >>> predictor(torch.zeros(1, 2, 3, 32, 48, dtype=torch.uint8)).displacement.shape
    torch.Size([1, 8, 2, 32, 48])
    """

    role: ClassVar[Role] = "baseline"

    def __init__(
        self, flow: OpticalFlow | None = None, *, num_frames: int = 8, input_frames: Sequence[int] = (0, 1)
    ) -> None:
        self.flow = DISFlow() if flow is None else flow
        if not isinstance(self.flow, OpticalFlow):
            got = type(flow).__name__
            raise ValueError(f"flow: expected an OpticalFlow, which is called and has a `name`, got {got}")
        self.num_frames, self.input_frames = _check_length(num_frames), tuple(input_frames)
        if len(self.input_frames) != 2 or not 0 == self.input_frames[0] < self.input_frames[1] < num_frames:
            raise ValueError(f"input_frames: expected 0 and a later frame below {num_frames}, got {self.input_frames}")

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B 2 3 H W]."""
        _, H, W = _check_images(images, self.input_frames)
        pairs = images.round().clamp(0, 255).to(torch.uint8).movedim(2, -1).cpu().numpy()
        flows = np.stack([np.asarray(self.flow(first, second), np.float32) for first, second in pairs])
        times = torch.arange(self.num_frames, device=images.device) / self.input_frames[1]
        displacement = torch.from_numpy(flows).to(images.device)[:, None] * times[:, None, None, None]
        grid = torch.from_numpy(pixel_grid((H, W))).to(displacement).permute(2, 0, 1)
        stays = inside((displacement + grid).movedim(2, -1), (H, W))
        return _whole_clip(displacement, torch.where(stays, SURE, -SURE))

    def describe(self) -> dict[str, Any]:
        between, kind = " and ".join(map(str, self.input_frames)), self.flow.name.split(" ")[0].upper()
        measured = f"Measures the motion between frames {between} by optical flow ({kind})"
        summary = f"{measured}, and lets all go on at that speed."
        about = {"name": "constant velocity", "summary": summary, "flow": self.flow.name}
        return about | {"num_frames": self.num_frames, "input_frames": list(self.input_frames)}


class Scaled:
    """Another predictor, its displacements multiplied by one gain for each frame.

    Errors of a flow grow with the time it is extrapolated over; the best gain falls below 1. Use `Scaled.fit`.

    Args:
        predictor: the one that is scaled.
        gains: [S], one for each frame of the clip; that of frame 0 has no effect.
        trained_on: names or fingerprints of the videos that the gains were fitted on.
        source: fingerprint of the training set.
    """

    role: ClassVar[Role] = "baseline"

    def __init__(
        self, predictor: Predictor, gains: Sequence[float], trained_on: tuple[str, ...] = (), source: str = ""
    ) -> None:
        self.predictor, self.gains, self.source = predictor, [float(gain) for gain in gains], source
        self.trained_on = _trained_on(predictor) + tuple(trained_on)
        self.input_frames = predictor.input_frames

    @classmethod
    def fit(cls, predictor: Predictor, dataset: Any) -> Scaled:
        """The least mean distance over the visible points of `dataset` in each frame, every clip counting alike, as
        the mean error of an evaluation does; 1 for a frame where the predictor moves nothing. Of large datasets
        `FITTED_POINTS` are read, evenly from all clips."""
        most = max(1, FITTED_POINTS // max(1, len(dataset)))
        rows: list[list[np.ndarray]] = []  # of each frame and clip: [n 5] predicted, true, weight
        for sample in _samples(dataset):
            parts = _read_at_queries(predictor, sample)
            every = -(-parts[2].shape[1] // most)
            found = [_visible_rows(*frame) for frame in zip(*(part[:, ::every] for part in parts))]
            rows = [[*own, new] for own, new in zip(rows or [[] for _ in found], found)]
        together = (np.concatenate(own) for own in rows)
        return cls(predictor, [l1_gain(one[:, :2], one[:, 2:4], one[:, 4]) for one in together], **_origin(dataset))

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B n 3 H W]."""
        prediction = self.predictor(images)
        length = max(prediction.frames) + 1
        if length > len(self.gains):
            raise ValueError(f"gains: expected one for each of {length} frames, got {len(self.gains)}")
        gains = prediction.displacement.new_tensor([self.gains[frame] for frame in prediction.frames])
        return replace(prediction, displacement=prediction.displacement * gains[:, None, None, None])

    def describe(self) -> dict[str, Any]:
        inner = description_of(self.predictor) or {"name": type(self.predictor).__name__}
        first = inner.get("summary") or f"The same as {inner['name']}."
        best = f"by what fits the training videos best ({self.gains[-1]:.2f} in the last)"
        summary = f"{first} Each frame's motion is then scaled {best}."
        about = {"name": "scaled", "summary": summary, "predictor": inner}
        return about | {"gains": self.gains, "fitted_on": self.source}


class ManyGains:
    """Another predictor's motion times each of a few gains: several futures that anyone can guess.

    Most of what K guesses are worth comes from having K, so whoever gives several has to beat these. Use
    `ManyGains.fit`, which counts how often each gain is best and how far off the best one is.

    Args:
        predictor: the one that is scaled.
        gains: [K] of its displacement in all frames.
        weights: [K] how likely each is; all alike if None.
        scales: [S] Laplace scale in pixels of each frame of the clip; None for no scale.
        trained_on, source: as in `Scaled`.
    """

    role: ClassVar[Role] = "baseline"

    def __init__(
        self,
        predictor: Predictor,
        gains: Sequence[float] = GAINS,
        weights: Sequence[float] | None = None,
        scales: Sequence[float] | None = None,
        trained_on: tuple[str, ...] = (),
        source: str = "",
    ) -> None:
        self.predictor, self.gains, self.source = predictor, [float(gain) for gain in gains], source
        if not self.gains:
            raise ValueError("gains: expected at least one, got none")
        self.weights, self.scales = _check_weights(weights, len(self.gains)), scales
        self.trained_on = _trained_on(predictor) + tuple(trained_on)
        self.input_frames = predictor.input_frames

    @classmethod
    def fit(cls, predictor: Predictor, dataset: Any, gains: Sequence[float] = GAINS) -> ManyGains:
        """Weights and scales from the visible points of `dataset`."""
        made = cls(predictor, gains)
        weights, scales = _fit_futures(made, _samples(dataset))
        return cls(predictor, gains, weights, scales, **_origin(dataset))

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B n 3 H W]."""
        one = self.predictor(images)
        gains = one.displacement.new_tensor(self.gains)[:, None, None, None, None]
        return _with_futures(one, one.displacement[:, None] * gains, self.weights, self.scales)

    def describe(self) -> dict[str, Any]:
        inner = description_of(self.predictor) or {"name": type(self.predictor).__name__}
        first = inner.get("summary") or f"The same as {inner['name']}."
        summary = f"{first} Its motion times {', '.join(f'{gain:g}' for gain in self.gains)} are its futures."
        about = {"name": "gains", "summary": summary, "predictor": inner, "gains": self.gains}
        return about | {"weights": self.weights, "scales": self.scales, "fitted_on": self.source}


class MotionDraws:
    """Motions of K clips drawn from the training set, whatever the pictures show. Use `MotionDraws.fit`.

    Args:
        clips: the K samples.
        scales: as in `ManyGains`.
        trained_on, source: as in `Scaled`.
    """

    role: ClassVar[Role] = "baseline"
    input_frames = (0,)

    def __init__(
        self,
        clips: Sequence[ClipSample],
        scales: Sequence[float] | None = None,
        trained_on: tuple[str, ...] = (),
        source: str = "",
    ) -> None:
        if not clips:
            raise ValueError("clips: expected at least one, got none")
        self.clips, self.scales, self.trained_on, self.source = list(clips), scales, trained_on, source
        self._ways: tuple[Size, TrajectoryPrediction] | None = None  # of the size last asked for

    @classmethod
    def fit(cls, dataset: Any, futures: int = 5, seed: int = 0, most: int = 64) -> MotionDraws:
        """Draw the clips; scales from up to `most` of the others.

        Raises:
            ValueError: fewer clips than futures.
        """
        if not 1 <= futures <= len(dataset):
            raise ValueError(f"futures: expected 1 to {len(dataset)}, as many as there are clips, got {futures}")
        order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
        made = cls([ClipSample.of(dataset[index], index) for index in order[:futures]])
        others = (ClipSample.of(dataset[index], index) for index in order[futures : futures + most])
        return cls(made.clips, _fit_futures(made, others)[1], **_origin(dataset))

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B 1 3 H W]."""
        B, H, W = _check_images(images, self.input_frames)
        if self._ways is None or self._ways[0] != (H, W):
            self._ways = (H, W), _concatenate([densify(clip, (H, W)) for clip in self.clips], torch.device("cpu"))
        ways = self._ways[1].on(images.device)
        one = _whole_clip(ways.displacement[:1], ways.visibility_logits.mean(dim=0, keepdim=True))
        one = _whole_clip(one.displacement.expand(B, -1, -1, -1, -1), one.visibility_logits.expand(B, -1, -1, -1))
        futures = ways.displacement.expand(B, -1, -1, -1, -1, -1)
        return _with_futures(one, futures, _check_weights(None, len(self.clips)), self.scales)

    def describe(self) -> dict[str, Any]:
        drawn = hashlib.sha256("".join(content_hash(clip) for clip in self.clips).encode()).hexdigest()
        summary = f"Everything moves as in one of {len(self.clips)} clips drawn from the training videos."
        about = {"name": "draws of the training motions", "summary": summary, "sha256": drawn}
        return about | {"scales": self.scales, "fitted_on": self.source}


class OracleTracks:
    """The oracle: the very tracks a prediction is compared with. It sees the sample, not only the input frames.

    Its point errors are next to nothing (a field over pixels is read between them), its rebuilt frames say how good a
    rebuilt frame can be.
    """

    role: ClassVar[Role] = "oracle"
    input_frames = (0,)

    def from_sample(self, sample: ClipSample) -> TrajectoryPrediction:
        """The sample's own tracks as a dense prediction."""
        return densify(sample, sample.size)

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        """Always refused: pictures alone do not hold the answer."""
        raise ValueError("OracleTracks: expected the sample with its tracks, got images; call from_sample")

    def describe(self) -> dict[str, Any]:
        summary = (
            "The tracks that all others are measured against. It knows the answer, so it is no baseline: it shows how "
            "good a rebuilt frame can get where the tracker could follow. That its points are not 0 px off is "
            "quantisation: the tracks are spread over whole pixels, and read back between them."
        )
        return {"name": "the tracker's own tracks", "summary": summary}


def all_baselines(
    train: Any,
    *,
    num_frames: int = 8,
    input_frames: Sequence[int] = (0, 1),
    raft_weights: str | Path = "none",
    futures: int = 1,
) -> dict[str, Predictor]:
    """Every baseline under the name it has in reports, those that are fitted fitted on `train`; the oracle last.

    Args:
        train: the training split, the same that the model was trained on.
        num_frames: frames of a clip.
        input_frames: what the model sees. With one frame only there is no velocity, so constant velocity is left out.
        futures: how many the model gives; where it is several, guesses of as many stand beside it.
        raft_weights: a file, URL or gdown id, "" for the published ones; "none" leaves RAFT out.
    """
    known: dict[str, Predictor] = {"zero motion": ZeroMotion(num_frames), "mean motion": MeanMotion.fit(train)}
    known["nearest clip"] = NearestNeighbour.fit(train, input_frames)
    flows: dict[str, OpticalFlow] = {"DIS": DISFlow("wide")} if len(input_frames) == 2 else {}
    if flows and raft_weights != "none":
        flows["RAFT"] = RAFTFlow(raft_weights)
    for name, flow in flows.items():
        constant = ConstantVelocity(flow, num_frames=num_frames, input_frames=input_frames)
        title = f"constant velocity ({name})"
        known |= {title: constant, f"{title}, gains": Scaled.fit(constant, train)}
        if futures > 1:
            known[f"{title}, {futures} gains"] = ManyGains.fit(constant, train, anchors(futures))
    if 1 < futures <= len(train):
        known[f"{futures} training motions"] = MotionDraws.fit(train, futures)
    return known | {"the tracks themselves": OracleTracks()}


def densify(sample: ClipSample, size: Size) -> TrajectoryPrediction:
    """A sample's tracks as a prediction for every pixel of a frame of `size`, interpolated between its points.

    Args:
        sample: its points are queried in frame 0.
        size: (height, width) wanted; tracks are carried over from the size of the sample's frames.
    """
    truth, own = sample.truth, sample.size
    if truth.queries[:, 0].any():
        raise ValueError(f"queries: expected all in frame 0, got up to frame {truth.queries[:, 0].max():.0f}")
    S, N = truth.num_frames, truth.num_points
    displacement = truth.displacement.astype(np.float32, copy=False)
    visible = np.where(truth.visibility, SURE, -SURE)[..., None]
    values = np.concatenate([displacement, visible], axis=-1).transpose(1, 0, 2).reshape(N, -1)
    values = dense_field(truth.queries[:, 1:].astype(np.float32), values, own, sample.box)
    field = torch.from_numpy(values.reshape(S, 3, *own))
    if own != tuple(size):
        logits = torch.nn.functional.interpolate(field[:, 2:], size, mode="bilinear", align_corners=False)
        field = torch.cat([resize_field(field[:, :2], size), logits], dim=1)
    return _whole_clip(field[None, :, :2].contiguous(), field[None, :, 2].contiguous())


def l1_gain(moved: Float[np.ndarray, "N 2"], true: Float[np.ndarray, "N 2"], weight: Float[np.ndarray, " N"]) -> float:
    """The number times which `moved` has the least weighted sum of distances from `true`; 1 if no other is better.

    For points that truly move along what is predicted it is the weighted median of the ratios: of the errors of many
    points, a few large ones don't decide it, as they do by least squares.

    >>> along = np.array([[1.0, 0.0]])
    >>> round(l1_gain(along.repeat(3, 0), along * [[0.5], [0.9], [40]], np.ones(3)), 3)
    0.9
    """
    from scipy.optimize import minimize_scalar

    moved, true, weight = (np.asarray(part, np.float64) for part in (moved, true, weight))
    square, product, far = (moved**2).sum(axis=-1), (moved * true).sum(axis=-1), (true**2).sum(axis=-1)

    def total(gain: float) -> float:
        return float(weight @ np.sqrt(np.maximum(gain * gain * square - 2 * gain * product + far, 0)))

    counts = (weight > 0) & (square > NO_MOTION**2)
    if not counts.any():
        return 1.0
    ratios = product[counts] / square[counts]  # where each point's own distance is least: the best gain lies between
    found = minimize_scalar(
        total, bounds=(ratios.min(), ratios.max()), method="bounded", options={"xatol": 1e-7, "maxiter": 1000}
    )
    return float(found.x) if total(float(found.x)) < total(1.0) else 1.0


def _visible_rows(predicted: np.ndarray, true: np.ndarray, seen: np.ndarray) -> Float[np.ndarray, "n 5"]:
    """The visible points of a frame: predicted and true displacement, and a weight that adds up to 1."""
    share = np.full((seen.sum(), 1), 1 / max(1, seen.sum()))
    return np.concatenate([predicted[seen], true[seen], share], axis=1, dtype=np.float32)


def _read_at_queries(predictor: Predictor, sample: ClipSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(predicted [S N 2], true [S N 2], visible [S N]) displacements in pixels; frames not predicted stay zero."""
    prediction = predictor(sample.images(predictor.input_frames))
    xy = torch.from_numpy(sample.truth.queries[None, :, 1:].astype(np.float32))
    predicted = np.zeros_like(sample.truth.displacement)
    predicted[list(prediction.frames)] = prediction.at(xy)[0][0].cpu().numpy()
    return predicted, sample.truth.displacement, sample.truth.visibility


def _fit_futures(predictor: Predictor, samples: Iterable[ClipSample]) -> tuple[list[float], list[float]]:
    """How often each future of a predictor is the best one [K] (every one counted once more, so that none is
    impossible), and the Laplace scale in pixels of the best one's error in each frame [S]."""
    wins, totals = np.zeros(0), np.zeros((2, 0))
    for sample in samples:
        prediction = predictor(sample.images(predictor.input_frames))
        xy = torch.from_numpy(sample.truth.queries[None, :, 1:].astype(np.float32))
        moved = prediction.futures_at(xy)[0].cpu().numpy()  # K F N 2
        frames = list(prediction.frames)
        errors = np.linalg.norm(moved - sample.truth.displacement[frames], axis=-1) * sample.truth.visibility[frames]
        if not wins.size:
            wins, totals = np.ones(len(moved)), np.zeros((2, sample.truth.num_frames))
        best = int(errors.sum(axis=(1, 2)).argmin())
        wins[best] += 1
        totals[0, frames] += errors[best].sum(axis=1)
        totals[1, frames] += sample.truth.visibility[frames].sum(axis=1)
    mean = totals[0] / np.maximum(totals[1], 1)
    return (wins / wins.sum()).tolist(), np.maximum(mean / 2, 0.05).tolist()  # of exp(-e/b) / (2πb²) the mean is 2b


def _with_futures(
    one: TrajectoryPrediction, futures: Tensor, weights: Sequence[float], scales: Sequence[float] | None
) -> TrajectoryPrediction:
    """Futures with the same weights and scales for all clips and pixels."""
    told = futures.new_tensor(weights).expand(len(futures), -1)
    spread = None
    if scales is not None:
        logs = futures.new_tensor([scales[frame] for frame in one.frames]).log()
        spread = logs[:, None, None].expand(one.visibility_logits.shape)
    return TrajectoryPrediction.of_futures(futures, told, one.visibility_logits, one.frames, spread)


def _check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    if len(weights) != count or min(weights) < 0 or abs(sum(weights) - 1) > 1e-3:
        raise ValueError(f"weights: expected {count} of 0 or more that sum to 1, got {list(weights)}")
    return [float(weight) for weight in weights]


def _samples(dataset: Any) -> Iterator[ClipSample]:
    """One sample after the other; by length, for not every dataset raises IndexError at its end."""
    if len(dataset) == 0:
        raise ValueError("dataset: expected at least one clip to fit on, got none")
    return (ClipSample.of(dataset[index], index) for index in range(len(dataset)))


def _origin(dataset: Any) -> dict[str, Any]:
    """The videos fitted on, by fingerprint where the dataset knows them (names may be the same in two datasets)."""
    return {"trained_on": tuple(videos_of(dataset).values()), "source": fingerprint_of(dataset)}


def _cell_sums(
    xy: np.ndarray, moved: np.ndarray, visible: np.ndarray, size: Size, cells: tuple[int, int]
) -> Float[np.ndarray, "S 4 rows columns"]:
    """Per frame and cell: summed x and y of the visible points, how many are visible, how many started there."""
    row, column = cell_index(xy, size, cells).T
    S = len(moved)
    values = np.stack([moved[..., 0] * visible, moved[..., 1] * visible, visible, np.ones_like(visible)], axis=1)
    sums = np.zeros((S, 4, *cells))
    places: Any = (slice(None), slice(None), row, column)
    np.add.at(sums, places, values)
    return sums


def _whole_clip(displacement: Tensor, logits: Tensor) -> TrajectoryPrediction:
    return TrajectoryPrediction(displacement, logits, frames=tuple(range(displacement.shape[1])))


def _concatenate(predictions: list[TrajectoryPrediction], device: torch.device) -> TrajectoryPrediction:
    displacement = torch.cat([prediction.displacement for prediction in predictions])
    return _whole_clip(displacement.to(device), torch.cat([p.visibility_logits for p in predictions]).to(device))


def _check_images(images: Tensor, input_frames: tuple[int, ...]) -> tuple[int, int, int]:
    if images.ndim != 5 or images.shape[1] != len(input_frames) or images.shape[2] != 3:
        raise ValueError(f"images: expected shape [B {len(input_frames)} 3 H W], got {list(images.shape)}")
    return images.shape[0], images.shape[3], images.shape[4]


def _check_length(num_frames: int) -> int:
    if num_frames < 2:
        raise ValueError(f"num_frames: expected 2 or more, got {num_frames}")
    return num_frames
