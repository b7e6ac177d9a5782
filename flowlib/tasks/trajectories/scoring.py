"""The evaluation half of the trajectory task: how a clip is identified and asked about, how an answer is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from flowlib.clips import ClipSample, content_hash
from flowlib.downloads import fetch_weights
from flowlib.geometry import Size
from flowlib.metrics import Lpips
from flowlib.models.protocols import Predictor, SeesTruth, TrajectoryPrediction, device_of, num_actions_of
from flowlib.tasks.protocol import Identity, MetricSpec, Results, SeriesSpec, Strip
from flowlib.tasks.trajectories import pictures
from flowlib.tasks.trajectories.batch import action_of, uniform
from flowlib.tasks.trajectories.case import ScoringConfig, TrajectoryCase
from flowlib.tasks.trajectories.metrics import METRICS, SERIES, TrajectoryAnswer
from flowlib.tasks.trajectories.summary import summarise
from flowlib.workspace import sha256_file

__all__ = ["ScoringConfig", "TrajectoryCase", "TrajectoryEvaluation"]

ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"  # torchvision's, named by its SHA-256
OPTIONAL = ("log_scale", "futures", "weights", "radius", "path_radius")  # parts of a prediction
Condition = Literal["true", "uniform"]
WHOLE = 0.5  # of its points that a clip must show to stand for others


class TrajectoryEvaluation:
    """The evaluation half of `Task`, for a class that has the settings `scoring` and `condition`."""

    name: ClassVar[str] = "trajectories"
    unit: ClassVar[str] = "clip"
    group: ClassVar[str] = "video"
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    series: ClassVar[tuple[SeriesSpec, ...]] = SERIES
    score: ClassVar[str] = "ade"
    headline: ClassVar[str] = "How well does “{main}” predict motion?"
    about: ClassVar[str] = (
        "A method gets one or two pictures of a video and says where every pixel will go in the frames that follow. "
        "Here its answers are compared with what happened, as the labels have it: the dataset's tracks, which are what "
        "a tracker saw when it was shown all frames (exact only for rendered clips). Points that it lost, or that are "
        "hidden, are not counted."
    )
    reading: ClassVar[str] = pictures.READING

    scoring: ScoringConfig
    condition: Condition

    def told(self, clip: ClipSample, num_actions: int) -> torch.Tensor:
        """[K] What a model that takes an action is told of a clip."""
        if self.condition == "uniform":
            return uniform(num_actions)
        return action_of(clip, num_actions)

    def score_settings(self) -> dict[str, Any]:
        # LPIPS's network is the same wherever its file lies, and another one where the file has other bytes.
        settings = asdict(self.scoring) | {"lpips_weights": _lpips_content(self.scoring.lpips_weights)}
        return settings if self.condition == "true" else settings | {"condition": self.condition}

    def identify(self, dataset: Any, index: int, sample: Any) -> Identity:
        """The clip's key and video; its content is pictures, tracks and what is known of them."""
        one = ClipSample.of(sample, index)
        known = f"{content_hash(one)} {one.clip.kept} {one.occlusion_known}"
        if one.apart is not None:
            known += hashlib.sha256(np.ascontiguousarray(one.apart, np.float32).tobytes()).hexdigest()
        numbers = one.clip.frame_numbers
        where = "" if one.clip.name else f"frames {numbers[0]} to {numbers[-1]}"
        return Identity(one.name, one.clip.video, hashlib.sha256(known.encode()).hexdigest(), where)

    def looks(self, sample: Any) -> Sequence[np.ndarray]:
        return list(ClipSample.of(sample).frames)

    def case(self, sample: Any) -> TrajectoryCase:
        """A clip with what is asked about it.

        Raises:
            ValueError: points that are not queried in frame 0.
            FileNotFoundError, DownloadError: LPIPS weights that can't be had.
        """
        one, weights = ClipSample.of(sample), self.scoring.lpips_weights
        asked = one.truth.queries[:, 0]
        if asked.any():
            raise ValueError(
                f"{one.name}: expected points queried in frame 0, for that is where predictions start, got queries up "
                f"to frame {asked.max():.0f}; ClipList(samples, num_frames=…) cuts such clips into ones that do"
            )
        return TrajectoryCase(one, self.scoring, None if weights == "none" else _lpips(*_lpips_file(weights)))

    @torch.inference_mode()
    def predict(self, method: Any, case: TrajectoryCase, name: str) -> TrajectoryPrediction:
        """A method's answer for one clip, on the CPU, checked.

        Raises:
            ValueError: no prediction, one of another size or length, or with NaN in it; names the method and the clip.
        """
        found: Any
        if isinstance(method, SeesTruth):
            found = method.from_sample(case.sample)
        elif isinstance(method, Predictor):
            images, actions = case.sample.images(tuple(method.input_frames)), num_actions_of(method)
            told = (self.told(case.sample, actions)[None],) if actions else ()
            found = method(*(part.to(device_of(method)) for part in (images, *told)))
        else:
            raise ValueError(f"method {name!r}: expected input_frames and a call, got {type(method).__name__}")
        where, S = f"method {name!r}, clip {case.sample.name!r}", case.sample.truth.num_frames
        if not isinstance(found, TrajectoryPrediction):
            raise ValueError(f"{where}: expected a TrajectoryPrediction, got {type(found).__name__}")
        optional = {part: getattr(found, part) for part in OPTIONAL}
        parts = {"displacement": found.displacement, "visibility_logits": found.visibility_logits}
        parts |= {part: values for part, values in optional.items() if values is not None}
        for part, values in parts.items():
            if not isinstance(values, torch.Tensor) or values.is_complex():
                got = values.dtype if isinstance(values, torch.Tensor) else type(values).__name__
                raise ValueError(f"{where}: expected {part} as a tensor of real numbers, got {got}")
        frames = tuple(found.frames) if isinstance(found.frames, Iterable) else ()
        whole = all(isinstance(frame, (int, np.integer)) for frame in frames)
        if not whole or list(frames) != sorted({*frames}) or not frames or not 0 <= frames[0] <= frames[-1] < S:
            raise ValueError(f"{where}: expected frames below {S}, the clip's length, ascending, got {found.frames}")
        if frames[-1] == 0:
            raise ValueError(f"{where}: expected a frame after frame 0, got {frames}")
        parts = _checked_parts(parts, len(frames), case.sample.size, where)
        return TrajectoryPrediction(**parts, frames=tuple(map(int, frames)))

    def answer(self, prediction: TrajectoryPrediction, case: TrajectoryCase) -> TrajectoryAnswer:
        return TrajectoryAnswer(prediction, case)

    def ask(self, method: Any, sample: Any, name: str) -> TrajectoryAnswer:
        """A method's answer for one clip: `case`, `predict` and `answer` in one."""
        case = self.case(sample)
        return self.answer(self.predict(method, case, name), case)

    def telling(self, row: Mapping[str, float]) -> bool:
        """A clip of whose points less than half can be seen (a scene cut, a tracker that got lost) says little."""
        return row.get("visible", 1.0) >= WHOLE

    def strip(self, title: str, identity: Identity, case: TrajectoryCase, predictions: Mapping[str, Any]) -> Strip:
        """Paths, rebuilt frames and where they are off; the clip's first frame has to be stored."""
        answers = {name: self.answer(prediction, case) for name, prediction in predictions.items()}
        return pictures.strip_of(title, identity, case, answers)

    def facts(self, data: Mapping[str, Any], results: Results) -> list[str]:
        """How long and how large the clips are, and how many of their points can be seen."""
        visible = results.estimate(results.main, "visible").mean
        told = [f"{data['num_frames']} frames each"] if "num_frames" in data else []
        told += [f"{data['size'][1]}×{data['size'][0]} pixels"] if data.get("size") else []
        return told + ([] if visible != visible else [f"{visible:.0%} of the points can be seen"])

    def summary(self, results: Results) -> list[str]:
        return summarise(results)


def _checked_parts(parts: dict[str, torch.Tensor], F: int, size: Size, where: str) -> dict[str, torch.Tensor]:
    """The tensors of a prediction of F frames, on the CPU; `ValueError` where one has another shape or no sense."""
    H, W = size
    K = parts["futures"].shape[1] if "futures" in parts and parts["futures"].ndim > 1 else 0
    if ("futures" in parts) != ("weights" in parts):
        raise ValueError(f"{where}: expected futures with their weights, got one without the other")
    shapes = {"displacement": [1, F, 2, H, W], "futures": [1, K, F, 2, H, W], "weights": [1, K]}
    for part, values in parts.items():
        if list(values.shape) != (expected := shapes.get(part, [1, F, H, W])):
            raise ValueError(f"{where}: expected {part} {expected}, got {list(values.shape)}")
    parts = {part: values.float().cpu() for part, values in parts.items()}
    for part, values in parts.items():
        bad = int((~values.isfinite()).sum())
        if bad:
            raise ValueError(f"{where}: expected finite {part}, got NaN or infinity in {bad} places")
    if "weights" in parts and ((weights := parts["weights"]) < 0).any() | ((weights.sum() - 1).abs() > 1e-3):
        raise ValueError(f"{where}: expected weights of 0 or more that sum to 1, got {weights[0].tolist()}")
    return parts


def _lpips_file(weights: str) -> tuple[Path, str]:
    """The file of LPIPS's network, and its SHA-256."""
    path = fetch_weights(weights, default_url=ALEXNET, sha256=ALEXNET.split("-")[-1][:8])
    about = path.stat()
    return path, _sha256(path, about.st_size, about.st_mtime_ns)


def _lpips_content(weights: str) -> str | bool:
    """What LPIPS's network is; True for one that isn't there, which is told of where it is needed."""
    try:
        return weights != "none" and _lpips_file(weights)[1]
    except FileNotFoundError:
        return True


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256_file(path)


@cache
def _lpips(path: Path, sha256: str) -> Lpips:
    return Lpips(path)
