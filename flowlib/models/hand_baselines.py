"""Baselines for hand poses, behind the same call as the networks: the mean pose, and the pose of the nearest crop."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flowlib.dataset.about import fingerprint_of, videos_of
from flowlib.models.pose import PosePrediction
from flowlib.models.protocols import Role


class MeanPose:
    """The mean pose of the training crops, whatever the picture shows. Use `MeanPose.fit(dataset)`.

    Args:
        pose: [J 3], relative to the crop's centre in halves of its cube.
        trained_on: names or fingerprints of the sequences.
        source: fingerprint of the training set.
    """

    role: ClassVar[Role] = "null"

    def __init__(self, pose: np.ndarray, trained_on: tuple[str, ...] = (), source: str = "") -> None:
        self.pose, self.trained_on, self.source = np.asarray(pose, np.float32), trained_on, source

    @classmethod
    def fit(cls, dataset: Any) -> MeanPose:
        """Average the poses of all frames of `dataset`."""
        return cls(_poses(dataset).mean(axis=0), **_origin(dataset))

    def __call__(self, crops: Tensor) -> PosePrediction:
        """Predict from `crops` [B 1 H W]."""
        pose = torch.from_numpy(self.pose).to(crops.device)
        return PosePrediction(None, pose.expand(len(crops), -1, -1))

    def describe(self) -> dict[str, Any]:
        summary = "The mean pose of the training crops, whatever the picture shows."
        return {"name": "mean pose", "summary": summary, "sha256": _sha256(self.pose), "fitted_on": self.source}


class NearestCrop:
    """The pose of the training crop that looks most alike. Use `NearestCrop.fit(dataset)`.

    Alike is the least mean squared difference of the crops, averaged to 16×16 cells.

    Args:
        crops: [M 256], the shrunk training crops.
        poses: [M J 3], theirs, relative to each crop's centre in halves of its cube.
        trained_on, source: as in `MeanPose`.
    """

    role: ClassVar[Role] = "baseline"
    side = 16

    def __init__(
        self, crops: np.ndarray, poses: np.ndarray, trained_on: tuple[str, ...] = (), source: str = ""
    ) -> None:
        if len(crops) == 0 or len(crops) != len(poses):
            raise ValueError(f"crops: expected at least one, each with a pose, got {len(crops)} and {len(poses)}")
        self.crops, self.poses = np.asarray(crops, np.float32), np.asarray(poses, np.float32)
        self.trained_on, self.source = trained_on, source
        self._squares = torch.from_numpy(np.square(self.crops).sum(axis=1))

    @classmethod
    def fit(cls, dataset: Any) -> NearestCrop:
        """Shrink every crop of `dataset`."""
        crops = [cls._shrink(dataset[index]["crop"][None])[0] for index in range(len(dataset))]
        return cls(torch.stack(crops).numpy(), _poses(dataset), **_origin(dataset))

    def __call__(self, crops: Tensor) -> PosePrediction:
        """Predict from `crops` [B 1 H W]."""
        known = torch.from_numpy(self.crops)
        nearest = (self._squares - 2 * self._shrink(crops).cpu() @ known.T).argmin(dim=1)
        return PosePrediction(None, torch.from_numpy(self.poses)[nearest].to(crops.device))

    @classmethod
    def _shrink(cls, crops: Tensor) -> Float[Tensor, "B D"]:
        return F.adaptive_avg_pool2d(crops.float(), cls.side).flatten(1)

    def describe(self) -> dict[str, Any]:
        summary = "Looks for the training crop that is most alike, and gives its pose."
        about = {"name": f"nearest of {len(self.crops)} crops", "summary": summary}
        return about | {"sha256": _sha256(self.crops, self.poses), "fitted_on": self.source}


def _poses(dataset: Any) -> np.ndarray:
    return np.stack([np.asarray(dataset[index]["pose"], np.float32) for index in range(len(dataset))])


def _origin(dataset: Any) -> dict[str, Any]:
    return {"trained_on": tuple(videos_of(dataset).values()), "source": fingerprint_of(dataset)}


def _sha256(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
