"""`ActedClips`: a dataset whose clips are told apart by what is done in them, for models that are conditioned on it.

The class of a clip is the first folder of its video's name, as videos lie in a folder for each class; or probabilities
are given for each video, such as an action network's. Knows no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from flowlib.clips import Clip, ClipSample, HoldsClips
from flowlib.dataset.about import clip_of, content_of, shape_of, split_of


class ActedClips(HoldsClips, Dataset):
    """The clips of a dataset, each with its action.

    Args:
        dataset: of `ClipSample`s, which says which clips they are, such as a `TrajectoryDataset` or a `ClipList`.
        actions: names of the K classes; opposites side by side, if there are any.
        told: probabilities [K] of each video, by its name, in place of the class.

    Attributes:
        clips, videos, fingerprints, num_frames, size, split: as those of the dataset.
        fingerprint: of it and of the actions; "" where it has none.

    Raises:
        ValueError: fewer than two actions or one twice; a video that lies in no class's folder, or that `told` lacks.

    >>> from flowlib.clips import ClipList
    >>> frames, tracks = np.zeros((2, 9, 9, 3), np.uint8), np.zeros((2, 1, 2), np.float32)
    >>> points = {"tracks": tracks, "visibility": np.ones((2, 1), bool), "queries": np.zeros((1, 3))}
    >>> clips = ClipList([points | {"frames": frames, "video": "right/0001", "clip": "a"}])
    >>> ActedClips(clips, ("left", "right"))[0].action.tolist()
    [0.0, 1.0]
    """

    def __init__(
        self, dataset: Any, actions: Sequence[str], told: Mapping[str, Sequence[float] | np.ndarray] | None = None
    ) -> None:
        self.dataset, self.actions = dataset, tuple(actions)
        if len(self.actions) < 2 or len(set(self.actions)) < len(self.actions):
            raise ValueError(f"actions: expected two or more names, each once, got {list(self.actions)}")
        found = [clip_of(dataset, index) for index in range(len(dataset))]
        if None in found:
            raise ValueError(f"dataset: expected one that lists its clips, got {type(dataset).__name__}")
        self._clips = [clip for clip in found if clip is not None]
        names = sorted({clip.video for clip in self._clips})
        self._told = {name: self._action(name) if told is None else self._given(name, told) for name in names}

    def _action(self, video: str) -> np.ndarray:
        folder = video.partition("/")[0]
        if folder not in self.actions:
            raise ValueError(f"{video}: expected a video in a folder of {', '.join(self.actions)}")
        return np.eye(len(self.actions), dtype=np.float32)[self.actions.index(folder)]

    def _given(self, video: str, told: Mapping[str, Any]) -> np.ndarray:
        if video not in told or np.shape(told[video]) != (len(self.actions),):
            got = f"{list(np.shape(told[video]))}" if video in told else "none"
            raise ValueError(f"told: expected probabilities [{len(self.actions)}] of {video}, got {got}")
        return np.asarray(told[video], np.float32)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> ClipSample:
        return replace(ClipSample.of(self.dataset[index]), action=self._told[self._clips[index].video])

    @property
    def clips(self) -> list[Clip]:
        return self._clips

    @property
    def num_frames(self) -> int:
        return shape_of(self.dataset)["num_frames"]

    @property
    def size(self) -> tuple[int, int]:
        height, width = shape_of(self.dataset)["size"]
        return height, width

    @property
    def split(self) -> str:
        return split_of(self.dataset)

    @cached_property
    def fingerprint(self) -> str:
        content = content_of(self.dataset)
        parts = [content, *self.actions, *(f"{name} {told.tolist()}" for name, told in self._told.items())]
        return content and hashlib.sha256("\n".join(parts).encode()).hexdigest()
