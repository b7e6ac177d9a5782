"""Regions that keep their promise: how far off a prediction may be, calibrated on videos that nothing was trained on.

In: a predictor and videos with their truth. Out: `Conformal`, which gives every pixel and frame a radius such that a
fresh video has, on average, a chosen share of its visible points inside, whatever the predictor is; and wider radii
that hold whole paths. The promise is over videos like those calibrated on; what is like them it can't know.

Points of one video err together, so the videos are what is exchangeable, not the points. Drawing one point from each
of K videos makes an exchangeable sample again, and split conformal prediction is exact for it (Dunn, Wasserman and
Ramdas, "Distribution-free prediction sets for two-layer hierarchical models", 2018, single subsampling; Lee, Barber and
Willett, "Distribution-free inference with hierarchical data", 2023). One draw's radius depends on the draw, so it is
made many times, and the radius taken whose share of all points is the mean of theirs: that has no theorem, but lies
within half a per cent of the level wherever it was measured, from 9 videos on (`bench/regions.py`). `strict` takes
Lee, Barber and Willett's own quantile instead (section 3, HCP; the same as conformal risk control, Angelopoulos and
others 2022): never below the level in the mean, and up to 2 / (K + 1) above it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flowlib.clips import ClipSample
from flowlib.dataset.about import content_of, split_of, videos_of
from flowlib.dataset.trajectories import TrajectoryDataset
from flowlib.geometry import Size, bilinear_sample
from flowlib.models.protocols import (
    Role,
    TrajectoryPrediction,
    description_of,
    device_of,
    num_actions_of,
    role_of,
    trained_on,
)
from flowlib.progress import Progress
from flowlib.quantities import counted
from flowlib.splits import CALIBRATION
from flowlib.tasks.trajectories.case import ScoringConfig
from flowlib.tasks.trajectories.scoring import TrajectoryEvaluation
from flowlib.workspace import read_json, write_json

FORMAT = "flowlib regions 1"
POINTS = 1024  # of a clip that are looked at, drawn at random; all of them err together, so more say little more
DRAWS = 1000  # of one point from each video; 250 give the same radius to 1 %


def least_videos(level: float) -> int:
    """How many calibration videos a level needs: with fewer, no finite radius can promise it.

    Raises:
        ValueError: a level outside 0 to 1.

    >>> [least_videos(level) for level in (0.8, 0.9, 0.95)]
    [4, 9, 19]
    """
    if not 0 < level < 1:
        raise ValueError(f"level of regions: expected a share between 0 and 1, such as 0.9, got {level!r}")
    return math.ceil(level / (1 - level) - 1e-9)


def check_videos(count: int, level: float) -> None:
    """Raise `ValueError` where `count` calibration videos are too few for a level."""
    if count < (least := least_videos(level)):
        best = f"{count / (count + 1):.0%}" if count else "nothing"
        raise ValueError(
            f"calibration: expected {least} videos or more, which regions of {level:.0%} need (K videos can promise "
            f"K / (K + 1) at most), got {count}, which can promise {best}; keep more videos for calibration, or ask "
            "for a lower level"
        )


@dataclass(frozen=True, eq=False)
class VideoErrors:
    """How far off a predictor was on the points of one video.

    Attributes:
        errors: [M F] pixels, of M points of all its clips in F frames; NaN where a point can't be seen.
        scales: [M F] the predictor's own scale of its error, in pixels; None if it gives none.
        clips: [M] which clip each point is of.
    """

    errors: Float[np.ndarray, "M F"]
    scales: Float[np.ndarray, "M F"] | None
    clips: Int[np.ndarray, " M"]

    def unit(self, frames: Sequence[int], scaled: bool) -> Float[np.ndarray, "_ F"]:
        """What errors are measured in: the predictor's own scale, or a pixel for each frame ahead."""
        if not scaled:
            return np.array([frames], np.float32)
        if self.scales is None:
            raise ValueError("scaled: expected errors of a predictor that gives its scale, got some without")
        return self.scales

    def scores(self, unit: Float[np.ndarray, "_ F"]) -> tuple[Float[np.ndarray, "M G"], Float[np.ndarray, "M G"]]:
        """Errors in a unit, frame by frame and (last, G = F + 1) the largest of a whole path; and how much each counts:
        every clip alike, in it every point that can be seen. A column sums to 1, or to 0 where nothing can be seen."""
        with np.errstate(invalid="ignore"):
            ratio = self.errors / unit
        seen = np.isfinite(ratio)
        path = np.where(seen, ratio, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
        values = np.concatenate([np.where(seen, ratio, np.inf), path], axis=1)
        counts = np.concatenate([seen, seen.any(axis=1, keepdims=True)], axis=1).astype(np.float64)
        for clip in np.unique(self.clips):
            own = self.clips == clip
            counts[own] /= np.maximum(counts[own].sum(axis=0), 1)
        return values, counts / np.maximum(counts.sum(axis=0), 1e-12)


@torch.inference_mode()
def measure_errors(
    predictor: Any, dataset: Any, *, points: int = POINTS, progress: bool = False
) -> tuple[dict[str, VideoErrors], tuple[int, ...]]:
    """A predictor's errors on every video of a dataset.

    Args:
        predictor: what predicts trajectories.
        dataset: of `ClipSample`s whose points are queried in frame 0.
        points: of a clip that are looked at; drawn at random, the same each time.
        progress: show a bar.

    Returns:
        Video's name -> its errors, and the frames that they are of.

    Raises:
        ValueError: no clips, predictions of other frames than the first clip's, or as the trajectory task refuses.
    """
    if len(dataset) == 0:
        raise ValueError("calibration: expected clips, got none")
    asker, frames, found = _Asker(), (), {}
    for index in Progress(range(len(dataset)), "measuring errors", unit="clip", disable=not progress):
        case = asker.case(dataset[index])
        sample = case.sample
        prediction = asker.predict(predictor, case, "model")
        later = [place for place, frame in enumerate(prediction.frames) if frame > 0]
        own = tuple(prediction.frames[place] for place in later)
        frames = frames or own
        if own != frames:
            raise ValueError(
                f"{sample.name}: expected a prediction of frames {frames}, as of the first clip, got {own}"
            )
        truth = sample.truth
        if truth.num_points > points:
            chosen = np.random.default_rng(0).permutation(truth.num_points)[:points]
            truth = truth.points(np.sort(chosen))
        xy = torch.from_numpy(np.ascontiguousarray(truth.queries[None, :, 1:], np.float32))
        moved = prediction.at(xy)[0][0, later].numpy()
        error = np.linalg.norm(moved - truth.displacement[list(own)], axis=-1)
        error = np.where(truth.visibility[list(own)], error, np.nan).T.astype(np.float32)
        scale = None
        if prediction.log_scale is not None:
            scale = bilinear_sample(prediction.log_scale[:, later], xy)[0].exp().numpy().T
        found.setdefault(sample.clip.video, []).append((error, scale))
    return {video: _joined(parts) for video, parts in found.items()}, frames


class _Asker(TrajectoryEvaluation):
    """Asks a predictor about clips as an evaluation does; rebuilds nothing."""

    scoring, condition = ScoringConfig(rebuild=()), "true"


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> VideoErrors:
    scales = [scale for _, scale in parts if scale is not None]
    return VideoErrors(
        np.concatenate([error for error, _ in parts]),
        np.concatenate(scales) if len(scales) == len(parts) else None,
        np.repeat(np.arange(len(parts)), [len(error) for error, _ in parts]),
    )


@dataclass(frozen=True)
class Radii:
    """How wide regions are, in a unit: the scale that the model gives itself, or a pixel for each frame ahead.

    Attributes:
        frames: of each later frame.
        path: in all frames, so that a whole path is held.
    """

    frames: tuple[float, ...]
    path: float


@dataclass(frozen=True)
class Conformal:
    """Radii that hold a share of the points of a fresh video, on average over videos; see the module's header.

    Made by `Conformal.fit`, or from errors at hand by `Conformal.of`.

    Attributes:
        level: the share, such as 0.9.
        frames: the later frames of a clip that there are radii of.
        scaled: in units of the model's own scale; None for a predictor without one.
        constant: one radius for all pixels of a frame, in units of a pixel for each frame ahead.
        size: (height, width) of the pictures calibrated on; regions are given for these alone. None: not known.
        videos: name -> fingerprint of the videos calibrated on.
        model: SHA-256 of the predictor that it belongs to; "" for any.
        labels: SHA-256 of the clips and labels calibrated on; "" if not known.
        strict: whether the share is never below the level in the mean, rather than as near to it as can be.
    """

    level: float
    frames: tuple[int, ...]
    scaled: Radii | None
    constant: Radii
    size: Size | None = None
    videos: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    strict: bool = False
    labels: str = ""

    @classmethod
    def fit(
        cls,
        model: Any,
        dataset: Any,
        split: str = CALIBRATION,
        *,
        level: float = 0.9,
        strict: bool = False,
        points: int = POINTS,
        progress: bool = False,
    ) -> Conformal:
        """Calibrate a predictor on videos that neither it nor its settings were chosen on.

        Args:
            model: what predicts trajectories; a network in evaluation mode.
            dataset: labelled clips, best of which several trackers agree, for the regions hold what the labels say.
            split: of the dataset, whose clips are taken where it is of all videos; "all" takes what there is.
            level: the share of a video's points that is to lie inside.
            strict: never fewer in the mean, by the proof, but up to 2 / (K + 1) more with K videos.
            points, progress: as for `measure_errors`.

        Raises:
            ValueError: too few videos for the level, a video that the model was trained on, another split, or clips
                that the model can't be asked about.
        """
        part = _part(dataset, split)
        videos = videos_of(part)
        seen = set(trained_on(model))
        both = [name for name, mark in videos.items() if name in seen or mark in seen]
        if both:
            listed = ", ".join(both[:3]) + (", …" if len(both) > 3 else "")
            raise ValueError(
                f"calibration: expected videos that the model was not trained on, got {len(both)} that it was "
                f"({listed}): errors on these are smaller than on a fresh video, so nothing could be promised"
            )
        if seen and not videos:
            raise ValueError(
                "calibration: expected clips that say which video they are of, for the model was trained on some"
            )
        check_videos(len(videos) or len(part), level)
        errors, frames = measure_errors(model, part, points=points, progress=progress)
        size = ClipSample.of(part[0]).size
        made = cls.of(list(errors.values()), frames, level, strict=strict)
        known = {"model": content_of_model(model), "labels": content_of(part)}
        return replace(made, size=size, videos=dict(videos), **known)

    @classmethod
    def of(
        cls, errors: Sequence[VideoErrors], frames: Sequence[int], level: float = 0.9, *, strict: bool = False
    ) -> Conformal:
        """Calibrated on errors at hand, one for each video, whichever predictor made them.

        Raises:
            ValueError: too few videos for the level, in all or with something to be seen in some frame.
        """
        check_videos(len(errors), level)
        found: list[Radii | None] = []
        for scaled in (True, False):
            known = not scaled or all(one.scales is not None for one in errors)
            scores = [one.scores(one.unit(frames, scaled)) for one in errors] if known else []
            found.append(cls.of_scores(scores, frames, level, strict=strict) if known else None)
        own, constant = found
        assert constant is not None
        return cls(float(level), tuple(frames), own, constant, strict=strict)

    @staticmethod
    def of_scores(
        scores: Sequence[tuple[np.ndarray, np.ndarray]], frames: Sequence[int], level: float, *, strict: bool = False
    ) -> Radii:
        """Radii from `VideoErrors.scores` of each video."""
        return _radii(scores, frames, level, strict)

    def covered(self, errors: VideoErrors, *, scaled: bool | None = None) -> Float[np.ndarray, " G"]:
        """[F + 1] The share of a video's points that lie inside in each frame, and (last) of whole paths; NaN where
        nothing can be seen."""
        radii, by_scale = self.radii(scaled)
        values, counts = errors.scores(errors.unit(self.frames, by_scale))
        inside = (counts * (values <= np.array([*radii.frames, radii.path]))).sum(axis=0)
        return np.where(counts.sum(axis=0) > 0, inside, np.nan)

    def widths(self, errors: VideoErrors, *, scaled: bool | None = None) -> Float[np.ndarray, " G"]:
        """[F + 1] The mean radius in pixels at a video's visible points in each frame, and (last) the mean over frames
        of the radius that holds whole paths."""
        radii, by_scale = self.radii(scaled)
        unit = errors.unit(self.frames, by_scale)
        _, counts = errors.scores(unit)
        seen = counts[:, :-1]
        mean = np.where(seen.sum(axis=0) > 0, (np.broadcast_to(unit, seen.shape) * seen).sum(axis=0), np.nan)
        return np.append(mean * np.array(radii.frames), np.nanmean(mean) * radii.path)

    def radii(self, scaled: bool | None = None) -> tuple[Radii, bool]:
        """The radii in use, and whether they are in units of the model's own scale.

        Raises:
            ValueError: its own scale is asked for, and it has none.
        """
        if scaled and self.scaled is None:
            raise ValueError("scaled: expected False for a predictor that gives no scale of its error, got True")
        return (self.constant, False) if self.scaled is None or scaled is False else (self.scaled, True)

    def on(self, prediction: TrajectoryPrediction, *, scaled: bool | None = None) -> TrajectoryPrediction:
        """The prediction with its regions: `radius` and `path_radius` [B F H W] in pixels, 0 in frame 0.

        Args:
            prediction: of the predictor calibrated, in pictures of the size calibrated on.
            scaled: by the model's own scale, or one radius for all pixels of a frame; None: by its scale if it has one.

        Raises:
            ValueError: another size, frames that were not calibrated, or no scale where it is asked for.
        """
        B, F, _, H, W = prediction.displacement.shape
        if self.size is not None and tuple(self.size) != (H, W):
            raise ValueError(
                f"regions: expected pictures of {self.size}, as calibrated on, got {(H, W)}; calibrate anew"
            )
        later = [frame for frame in prediction.frames if frame > 0]
        if missing := sorted(set(later) - set(self.frames)):
            raise ValueError(f"regions: expected frames among {self.frames}, as calibrated on, got frame {missing[0]}")
        radii, by_scale = self.radii(scaled)
        if by_scale and prediction.log_scale is None:
            raise ValueError("regions: expected a prediction with log_scale, as calibrated on, got one without")
        own, number = dict(zip(self.frames, radii.frames)), prediction.displacement.new_tensor
        unit = number(prediction.frames)[:, None, None].expand(B, F, H, W)
        if by_scale and prediction.log_scale is not None:
            unit = prediction.log_scale.exp() * (unit > 0)
        each = number([own.get(frame, 0.0) for frame in prediction.frames])[:, None, None]
        return replace(prediction, radius=each * unit, path_radius=radii.path * unit)

    def describe(self) -> str:
        """A sentence for a reader who has met none of it."""
        by = "each as wide as the model says it may be off there" if self.scaled else "one radius for all of a frame"
        count, most = len(self.videos), f" or a little more (by {2 / (len(self.videos) + 1):.0%} at most)"
        return (
            f"Regions of {self.level:.0%}, {by}, calibrated on {count} videos: a fresh video like them has "
            f"{self.level:.0%}{most if self.strict else ''} of its points inside, on average over videos."
        )

    def save(self, path: str | Path) -> Path:
        """Write it as JSON; `beside` says where a checkpoint's belongs."""
        radii = {
            name: None if one is None else {"frames": list(one.frames), "path": one.path}
            for name, one in (("scaled", self.scaled), ("constant", self.constant))
        }
        about = {"format": FORMAT, "level": self.level, "frames": list(self.frames), **radii}
        about |= {"size": None if self.size is None else list(self.size), "videos": dict(self.videos)}
        return write_json(
            Path(path).expanduser(), about | {"model": self.model, "strict": self.strict, "labels": self.labels}
        )

    @classmethod
    def load(cls, path: str | Path) -> Conformal:
        """What `save` wrote.

        Raises:
            FileNotFoundError: nothing there.
            ValueError: something else there.
        """
        path = Path(path).expanduser()
        about = read_json(path)
        try:
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']!r}")
            scaled, constant = (
                None
                if about[name] is None
                else Radii(_positive(about[name]["frames"]), *_positive([about[name]["path"]]))
                for name in ("scaled", "constant")
            )
            frames, size = tuple(map(int, about["frames"])), about["size"]
            least_videos(about["level"])
            if constant is None or any(len(one.frames) != len(frames) for one in (scaled, constant) if one):
                raise ValueError("radii of other frames")
            videos = {str(name): str(mark) for name, mark in about["videos"].items()}
            size = None if size is None else (int(size[0]), int(size[1]))
            return cls(
                float(about["level"]),
                frames,
                scaled,
                constant,
                size,
                videos,
                str(about["model"]),
                bool(about["strict"]),
                str(about.get("labels", "")),  # not said by the first ones that were saved
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path}: expected regions as `Conformal.save` writes them, got others ({error}); delete "
                "them to calibrate anew"
            ) from error

    @staticmethod
    def beside(checkpoint: str | Path) -> Path:
        """Where the regions of a checkpoint lie: `best.regions.json` beside `best.pt`."""
        return Path(checkpoint).expanduser().with_suffix(".regions.json")


def _positive(values: Sequence[Any]) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if not all(0 <= value < math.inf for value in found):
        raise ValueError(f"radii {found}")
    return found


def _part(dataset: Any, split: str) -> Any:
    """The split of a dataset; the whole of one that doesn't say which it is, or of "all"."""
    named = split_of(dataset)
    if split == "all" or named in ("", split):
        return dataset
    if isinstance(dataset, TrajectoryDataset) and dataset.split == "all":
        return dataset.only(split)
    raise ValueError(f"split: expected clips of the split {split!r}, got those of {named!r}")


def _radii(scores: Sequence[tuple[np.ndarray, np.ndarray]], frames: Sequence[int], level: float, strict: bool) -> Radii:
    """The radii of each frame, and of whole paths."""
    found = []
    for place in range(len(frames) + 1):
        own = [(values[:, place], counts[:, place]) for values, counts in scores if counts[:, place].any()]
        if len(own) < least_videos(level):
            where = f"frame {frames[place]}" if place < len(frames) else "any frame"
            check = f"{len(own)} of {len(scores)} videos have points that can be seen in {where}"
            raise ValueError(f"calibration: expected {least_videos(level)} or more, got {check}")
        found.append(hierarchical_quantile(own, level, strict=strict))
    return Radii(tuple(found[:-1]), max(found))  # a path's region holds those of its frames


def hierarchical_quantile(
    groups: Sequence[tuple[np.ndarray, np.ndarray]], level: float, *, strict: bool = False, draws: int = DRAWS
) -> float:
    """The conformal quantile of scores that come in groups; see the module's header.

    Args:
        groups: the scores of each of K groups, and how much each counts there (these sum to 1).
        level: the share of a fresh group's scores that is to lie at or below it, on average over groups.
        strict: never below the level, and somewhat above it; else as near as can be.
        draws: of one score from each group; always the same ones.

    Returns:
        A score; infinite where K is too small.

    >>> one_each = [(np.array([float(score)]), np.ones(1)) for score in range(1, 10)]
    >>> hierarchical_quantile(one_each, 0.9), hierarchical_quantile(one_each, 0.95)
    (9.0, inf)
    """
    K = len(groups)
    values = np.concatenate([values for values, _ in groups])
    order = np.argsort(values, kind="stable")
    values = values[order]
    shares = np.cumsum(np.concatenate([counts for _, counts in groups])[order])  # up to K
    rank = (K + 1) * level - 1e-9
    if rank > K:
        return math.inf
    if strict:
        return float(values[np.searchsorted(shares, rank)])
    generator = np.random.default_rng(0)
    drawn = np.stack([own[_drawn(counts, generator.random(draws))] for own, counts in groups])  # K R
    drawn.sort(axis=0)
    # Between two ranks, each as often as makes the share exact.
    ranks = math.floor(rank) + (generator.random(draws) < rank - math.floor(rank))
    reached = shares[np.searchsorted(values, drawn[ranks - 1, np.arange(draws)], side="right") - 1]
    reached = np.where(ranks > 0, reached, 0.0)  # rank 0 lies below every score
    return float(values[np.searchsorted(shares, max(reached.mean() - 1e-9, 1e-12))])


def _drawn(counts: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Places of scores, drawn as often as they count."""
    reached = np.cumsum(counts)
    return np.minimum(np.searchsorted(reached, uniform * reached[-1], side="right"), np.flatnonzero(counts)[-1])


class WithRegions:
    """A predictor whose predictions have their regions; a predictor itself, to be evaluated beside others.

    Args:
        predictor: the one that was calibrated.
        regions: its own.
        scaled: as for `Conformal.on`.

    Attributes:
        trained_on, calibrated_on: the videos that the predictor was trained on, and those that its regions were
            calibrated on: an evaluation refuses both.

    Raises:
        ValueError: regions of another predictor.
    """

    def __init__(self, predictor: Any, regions: Conformal, *, scaled: bool | None = None) -> None:
        if regions.model and regions.model != content_of_model(predictor):
            raise ValueError(
                "regions: expected those of this model, got some that another one was calibrated for (it was trained "
                "on, or has other settings); calibrate anew with Conformal.fit"
            )
        if isinstance(predictor, nn.Module):
            predictor.eval()  # as it was calibrated
        self.predictor, self.regions, self.scaled = predictor, regions, scaled
        self.input_frames = predictor.input_frames
        self.trained_on, self.calibrated_on = trained_on(predictor), tuple(regions.videos.values())
        self.num_actions = num_actions_of(predictor)

    @property
    def role(self) -> Role:
        return role_of(self.predictor)

    def __call__(self, images: Tensor, *actions: Tensor) -> TrajectoryPrediction:
        """Predict from `images` [B n 3 H W] (and actions [B K], where it takes some), with `radius` and
        `path_radius`."""
        given = (one.to(device_of(self.predictor)) for one in (images, *actions))
        return self.regions.on(self.predictor(*given), scaled=self.scaled)

    def describe(self) -> dict[str, Any]:
        inner = description_of(self.predictor) or {"name": type(self.predictor).__name__}
        first = f"{inner['summary']} " if inner.get("summary") else ""
        if not first and isinstance(self.predictor, nn.Module):
            count = sum(parameter.numel() for parameter in self.predictor.parameters())
            first = f"A network ({inner['name']}, {count:,} parameters). "
        about = {
            "name": f"{inner['name']} with regions",
            "summary": first + self.regions.describe(),
            "predictor": inner,
        }
        radii = {"scaled": self.scaled, "level": self.regions.level, "constant": list(self.regions.constant.frames)}
        if self.regions.scaled:
            radii["of the scale"] = list(self.regions.scaled.frames)
        return about | radii | {"model": content_of_model(self.predictor)}


def calibrated(
    methods: Mapping[str, Any],
    dataset: Any,
    level: float = 0.9,
    *,
    folder: str | Path,
    checkpoints: Mapping[str, str | Path] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Every method with its regions, oracles aside; those that were kept and still fit are not made anew.

    Args:
        methods: name -> what predicts.
        dataset: the clips to calibrate on.
        level: the share of points that is to lie inside.
        folder: where regions are kept.
        checkpoints: method's name -> its checkpoint, beside which its regions are kept instead.
        progress: show a bar for each that is made.

    Raises:
        ValueError: as `Conformal.fit`, with the method's name.
    """
    found, videos, labels = {}, dict(videos_of(dataset)), content_of(dataset)
    for name, method in methods.items():
        if role_of(method) == "oracle":
            found[name] = method
            continue
        own = (checkpoints or {}).get(name)
        path = Conformal.beside(own) if own else Path(folder).expanduser() / f"{_file_name(name)}.regions.json"
        regions = Conformal.load(path) if path.exists() else None
        wanted = (content_of_model(method), videos, labels, level, False)
        fits = (
            regions and (regions.model, dict(regions.videos), regions.labels, regions.level, regions.strict) == wanted
        )
        if not (regions and labels and fits):
            try:
                regions = Conformal.fit(method, dataset, "all", level=level, progress=progress)
            except ValueError as error:
                raise ValueError(
                    f"{name}: {error}; without regions (regions = 0) it can be evaluated all the same"
                ) from error
            regions.save(path)
        found[name] = WithRegions(method, regions)
    return found


def with_regions(
    methods: Mapping[str, Any],
    dataset: Any,
    level: float,
    *,
    folder: str | Path,
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[dict[str, Any], str]:
    """Methods whose predictions have regions that hold a share of a fresh video's points, and a sentence on them.

    Args:
        methods: name -> what predicts.
        dataset: the clips to calibrate on, see `dataset.open_calibration`; with None the methods stay as they are.
        level: the share, such as 0.9; 0 for no regions.
        folder: where regions are kept; those of a checkpoint lie beside it.
        about: of methods, as `load_checkpoint` gives it.

    Raises:
        ValueError: too few videos for calibration, or some that a method was trained on.
    """
    if not level:
        return dict(methods), "No regions were asked for."
    least = least_videos(level)
    if dataset is None:
        return dict(methods), (
            f"No regions: no video of the dataset is kept for calibration, and {level:.0%} needs {least} or more. 02 "
            "keeps them (calibration), before anything is trained."
        )
    checkpoints = {name: told["path"] for name, told in (about or {}).items() if "path" in told}
    made = calibrated(methods, dataset, level, folder=folder, checkpoints=checkpoints, progress=True)
    count = counted(len(videos_of(dataset)), "video")
    return made, f"Regions that hold {level:.0%} of a fresh video's points on average, calibrated on {count}."


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_.")


def content_of_model(model: Any) -> str:
    """SHA-256 of what a predictor is: its class, what it says of itself, and a network's weights."""
    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__}".encode())
    digest.update(json.dumps(description_of(model), sort_keys=True, default=str).encode())
    if isinstance(model, nn.Module):
        for name, value in sorted(model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
