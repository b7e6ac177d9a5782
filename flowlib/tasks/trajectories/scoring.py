"""The evaluation half of the trajectory task: how a clip is identified and asked about, how an answer is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch

from flowlib.clips import ClipSample, content_hash
from flowlib.downloads import fetch_weights
from flowlib.metrics import Lpips
from flowlib.models.protocols import Predictor, SeesTruth, TrajectoryPrediction, device_of
from flowlib.tasks.protocol import Identity, MetricSpec, Results, SeriesSpec, Strip
from flowlib.tasks.trajectories import pictures
from flowlib.tasks.trajectories.case import ScoringConfig, TrajectoryCase
from flowlib.tasks.trajectories.metrics import METRICS, SERIES, TrajectoryAnswer
from flowlib.tasks.trajectories.summary import summarise

__all__ = ["ScoringConfig", "TrajectoryCase", "TrajectoryEvaluation"]

ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"  # torchvision's, named by its SHA-256
WHOLE = 0.5  # of its points that a clip must show to stand for others


class TrajectoryEvaluation:
    """The evaluation half of `Task`, for a class that has the settings `scoring`."""

    name: ClassVar[str] = "trajectories"
    unit: ClassVar[str] = "clip"
    group: ClassVar[str] = "video"
    metrics: ClassVar[tuple[MetricSpec, ...]] = METRICS
    series: ClassVar[tuple[SeriesSpec, ...]] = SERIES
    score: ClassVar[str] = "ade"
    headline: ClassVar[str] = "How well does “{main}” predict motion?"
    about: ClassVar[str] = (
        "A method gets one or two pictures of a video and says where every pixel will go in the frames that follow. "
        "Here its answers are compared with what happened. The “truth” are the dataset's tracks: what a tracker saw "
        "when it was shown all frames (exact only for rendered clips). Points that it lost, or that are hidden, are "
        "not counted."
    )
    reading: ClassVar[str] = pictures.READING

    scoring: ScoringConfig

    def score_settings(self) -> dict[str, Any]:
        # LPIPS's network is the same wherever its file lies.
        return asdict(self.scoring) | {"lpips_weights": self.scoring.lpips_weights != "none"}

    def identify(self, dataset: Any, index: int, sample: Any) -> Identity:
        """The clip's key and video; its content is pictures, tracks and what is known of them."""
        one = ClipSample.of(sample, index)
        known = f"{content_hash(one)} {one.clip.kept} {one.occlusion_known}"
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
        return TrajectoryCase(one, self.scoring, None if weights == "none" else _lpips(weights))

    @torch.inference_mode()
    def predict(self, method: Any, case: TrajectoryCase, name: str) -> TrajectoryPrediction:
        """A method's answer for one clip, on the CPU, checked.

        Raises:
            ValueError: a prediction of another size or length, or with NaN in it; names the method and the clip.
        """
        if isinstance(method, SeesTruth):
            found = method.from_sample(case.sample)
        elif isinstance(method, Predictor):
            found = method(case.sample.images(tuple(method.input_frames)).to(device_of(method)))
        else:
            raise ValueError(f"method {name!r}: expected input_frames and a call, got {type(method).__name__}")
        parts = {"displacement": found.displacement, "visibility_logits": found.visibility_logits}
        parts = {part: values.float().cpu() for part, values in parts.items()}
        where, S = f"method {name!r}, clip {case.sample.name!r}", case.sample.truth.num_frames
        shape = parts["displacement"].shape
        if tuple(shape[-2:]) != case.sample.size or shape[0] != 1:
            raise ValueError(f"{where}: expected one of size {case.sample.size}, got displacements {list(shape)}")
        if not found.frames or max(found.frames) >= S:
            raise ValueError(f"{where}: expected frames below {S}, the clip's length, got {found.frames}")
        for part, values in parts.items():
            bad = int((~values.isfinite()).sum())
            if bad:
                raise ValueError(f"{where}: expected finite {part}, got NaN or infinity in {bad} places")
        return TrajectoryPrediction(**parts, frames=tuple(found.frames))

    def answer(self, prediction: TrajectoryPrediction, case: TrajectoryCase) -> TrajectoryAnswer:
        return TrajectoryAnswer(prediction, case)

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


@cache
def _lpips(weights: str) -> Lpips:
    return Lpips(fetch_weights(weights, default_url=ALEXNET, sha256=ALEXNET.split("-")[-1][:8]))
