"""Poses as a network predicts them, in place of the true ones: what an action net is to be trained on.

An action net that has seen true poses alone, or those of people that the pose net has learned by heart, fails on what
the pose net says of others. `predict_poses` keeps each sequence's poses in a folder under a hash of all that decides
them; `PosedSequences` is a data set of hands with these instead of the true ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.utils.data import Dataset

from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import CropConfig
from flowlib.hands.dataset import HandSequences, TruePoses
from flowlib.hands.skeleton import Skeleton
from flowlib.models.protocols import device_of
from flowlib.tasks.hand_pose.task import BATCH, num_actions_of
from flowlib.tasks.protocol import hash_content
from flowlib.workspace import atomic_write

logger = logging.getLogger(__name__)


@torch.inference_mode()
def predict_poses(
    model: nn.Module, sequences: HandSequences, folder: str | Path, keys: Sequence[str] | None = None
) -> dict[str, Float[np.ndarray, "S J 3"]]:
    """What a pose net says of sequences, made once and kept as `<hash>.npy`.

    Args:
        model: a `PoseNet`, in evaluation mode; one that is conditioned is told 1/K everywhere.
        sequences: their crops.
        folder: where poses are kept.
        keys: of the sequences; all if None.

    Returns:
        Key -> float32 joints relative to the crops' centres, in halves of their cubes.

    Raises:
        ValueError: poses that aren't finite.
        OSError: the folder can't be written.
    """
    folder, found, model = Path(folder).expanduser(), {}, model.eval()
    net = hash_content({"config": json.dumps(model.config, sort_keys=True), **model.state_dict()})
    for index, (key, source) in enumerate(zip(sequences.videos, sequences.fingerprints, strict=True)):
        if keys is not None and key not in keys:
            continue
        numbers = sequences[index]["frame"]
        about = [net, source, asdict(sequences.config), sequences.seed, numbers.tolist()]
        path = folder / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]}.npy"
        found[key] = _kept(path, (len(numbers), sequences.skeleton.num_joints, 3))
        if found[key] is None:
            found[key] = _predicted(model, sequences[index]["crop"], key)
            with atomic_write(path) as temporary, open(temporary, "wb") as file:
                np.save(file, found[key], allow_pickle=False)
    return found


def _kept(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The poses in a file; None, with a word of it, where it is damaged."""
    if not path.exists():
        return None
    try:
        poses = np.load(path, allow_pickle=False)
        if poses.dtype == np.float32 and poses.shape == shape and np.isfinite(poses).all():
            return poses
        why = f"expected finite float32 {list(shape)}, got {poses.dtype} {list(poses.shape)}"
    except (OSError, ValueError, EOFError) as error:
        why = str(error)
    logger.warning("%s: can't be used (%s); predicted anew", path, why)
    return None


def _predicted(model: nn.Module, crops: torch.Tensor, key: str) -> np.ndarray:
    actions, parts = num_actions_of(model), []
    for part in crops.split(BATCH):
        told = (part.new_full((len(part), actions), 1 / actions).to(device_of(model)),) if actions else ()
        parts.append(model(part.to(device_of(model)), *told).joints.float().cpu())
    poses = torch.cat(parts).numpy()
    if not np.isfinite(poses).all():
        raise ValueError(f"{key}: expected finite poses, got NaN or infinity in {(~np.isfinite(poses)).sum()}")
    return poses


class PosedSample(Mapping[str, Any]):
    """A sequence with other poses than the true ones; all else is as the data set has it."""

    def __init__(self, sample: Mapping[str, Any], pose: torch.Tensor) -> None:
        self._sample, self._pose = sample, pose

    def __getitem__(self, name: str) -> Any:
        return self._pose if name == "pose" else self._sample[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sample)

    def __len__(self) -> int:
        return len(self._sample)

    def augmented(self, augment: HandAugment, generator: torch.Generator) -> PosedSample:
        """Refused: poses that were predicted from other crops don't follow."""
        raise ValueError("augment: expected none with predicted poses, which don't follow a crop that is moved")


class PosedSequences(Dataset):
    """Sequences of hands whose `pose` is what was predicted.

    Args:
        sequences: of a `HandSequences`.
        poses: key -> [S J 3], as `predict_poses` gives them, of every sequence.
        poses_from: where these come from, in a few words, for reports.

    Raises:
        ValueError: a sequence without poses, or with another number of frames or joints.
    """

    actions: tuple[str, ...]
    skeleton: Skeleton
    config: CropConfig
    split: str
    subjects: list[str]
    videos: list[str]
    fingerprints: list[str]

    def __init__(
        self,
        sequences: HandSequences | TruePoses,
        poses: Mapping[str, Float[np.ndarray, "_ J 3"]],
        poses_from: str = "joints that a network found",
    ) -> None:
        self._sequences, self._poses, self.poses_from = sequences, poses, poses_from
        for index, key in enumerate(sequences.videos):
            expected = [len(sequences[index]["frame"]), sequences.skeleton.num_joints, 3]
            got = list(poses[key].shape) if key in poses else "none"
            if got != expected:
                raise ValueError(f"{key}: expected poses {expected}, got {got}")
        for name in ("actions", "skeleton", "config", "split", "subjects", "videos", "fingerprints"):
            setattr(self, name, getattr(sequences, name))
        self.step = getattr(sequences, "step", 1)

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> PosedSample:
        sample = self._sequences[index]
        return PosedSample(sample, torch.from_numpy(np.asarray(self._poses[sample["key"]], np.float32)))

    @property
    def truth(self) -> HandSequences | TruePoses:
        """The same sequences with their true poses."""
        return self._sequences

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the samples."""
        own = hash_content({key: self._poses[key] for key in self._sequences.videos})
        return hashlib.sha256(f"{self._sequences.fingerprint} {own}".encode()).hexdigest()
