"""Baselines for actions, behind the same call as the network: majority, last frame, and nearest sequence.

Each says after every frame what it would say if the sequence ended there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlib.dataset.about import fingerprint_of, videos_of
from flowlib.models.actions import ActionPrediction
from flowlib.models.protocols import Role

PRIOR = 1.0  # neighbours of each class that are added, so that no class is impossible


class Majority:
    """The most frequent action of the training sequences, whatever the sequence shows.

    Args:
        counts: [K] training sequences of each action.
        trained_on: names or fingerprints of the sequences.
        source: fingerprint of the training set.
    """

    role: ClassVar[Role] = "null"

    def __init__(self, counts: np.ndarray, trained_on: tuple[str, ...] = (), source: str = "") -> None:
        self.counts, self.trained_on, self.source = np.asarray(counts, np.int64), trained_on, source

    @classmethod
    def fit(cls, vectors: Sequence[np.ndarray], actions: np.ndarray, num_actions: int, dataset: Any = None) -> Majority:
        """Count the actions; `vectors` are not looked at, `dataset` is what they are of."""
        return cls(np.bincount(actions, minlength=num_actions), **_origin(dataset))

    def __call__(self, joints: Tensor, lengths: Tensor) -> ActionPrediction:
        """Predict from vectors [B S D] of sequences of `lengths` [B]."""
        logits = torch.from_numpy(np.log(self.counts + PRIOR)).to(joints)
        B, S, _ = joints.shape
        return ActionPrediction(logits.expand(B, -1), logits.expand(B, S, -1))

    def describe(self) -> dict[str, Any]:
        summary = "The most frequent action of the training sequences, whatever the sequence shows."
        return {"name": "majority", "summary": summary, "sha256": _sha256(self.counts), "fitted_on": self.source}


class LastFrame:
    """The actions of the training frames that are most like the last frame; what came before is not looked at.

    Args:
        frames: [M D], of the training sequences.
        actions: [M], theirs.
        num_actions: K.
        neighbours: how many nearest frames are asked.
        trained_on, source: as in `Majority`.
    """

    role: ClassVar[Role] = "baseline"

    def __init__(
        self, frames: Float[np.ndarray, "M D"], actions: Int[np.ndarray, " M"], num_actions: int, neighbours: int = 15,
        trained_on: tuple[str, ...] = (), source: str = "",
    ) -> None:  # fmt: skip
        if not 1 <= neighbours <= len(frames):
            raise ValueError(f"neighbours: expected 1 to {len(frames)}, as many as frames, got {neighbours}")
        self.frames, self.actions, self.num_actions = np.asarray(frames, np.float32), actions, num_actions
        self.neighbours, self.trained_on, self.source = neighbours, trained_on, source

    @classmethod
    def fit(
        cls, vectors: Sequence[np.ndarray], actions: np.ndarray, num_actions: int, dataset: Any = None
    ) -> LastFrame:
        """Keep every frame with its sequence's action."""
        of_frames = np.repeat(actions, [len(part) for part in vectors])
        return cls(np.concatenate(vectors), of_frames, num_actions, min(15, len(of_frames)), **_origin(dataset))

    def __call__(self, joints: Tensor, lengths: Tensor) -> ActionPrediction:
        """Predict from vectors [B S D] of sequences of `lengths` [B]."""
        B, S, D = joints.shape
        asked = joints.detach().cpu().numpy().reshape(-1, D)
        distances = (self.frames**2).sum(axis=1) - 2 * asked @ self.frames.T
        nearest = self.actions[np.argpartition(distances, self.neighbours - 1, axis=1)[:, : self.neighbours]]
        counts = (nearest[:, :, None] == np.arange(self.num_actions)).sum(axis=1)
        frames = torch.from_numpy(np.log(counts + PRIOR)).to(joints).unflatten(0, (B, S))
        return ActionPrediction(frames[torch.arange(B), lengths.to(frames.device) - 1], frames)

    def describe(self) -> dict[str, Any]:
        summary = f"The actions of the {self.neighbours} training frames that are most like the last frame."
        about = {"name": "last frame", "summary": summary, "sha256": _sha256(self.frames, self.actions)}
        return about | {"fitted_on": self.source}


class NearestSequence:
    """The action of the training sequence that is nearest by dynamic time warping (Sakoe & Chiba 1978).

    Distances are Euclidean between frames and summed along the cheapest alignment, diagonal steps twice, over the sum
    of both lengths. A class's logit is the negative distance to the nearest sequence of it.

    Args:
        vectors: [S D] of each training sequence.
        actions: theirs.
        num_actions: K.
        trained_on, source: as in `Majority`.
    """

    role: ClassVar[Role] = "baseline"

    def __init__(
        self, vectors: Sequence[np.ndarray], actions: Int[np.ndarray, " N"], num_actions: int,
        trained_on: tuple[str, ...] = (), source: str = "",
    ) -> None:  # fmt: skip
        if len(vectors) == 0 or len(vectors) != len(actions):
            got = f"{len(vectors)} and {len(actions)}"
            raise ValueError(f"vectors: expected at least one sequence, each with an action, got {got}")
        self.lengths = np.array([len(part) for part in vectors])
        self.known = np.zeros((len(vectors), self.lengths.max(), vectors[0].shape[1]), np.float32)
        for place, part in zip(self.known, vectors):
            place[: len(part)] = part
        self.actions, self.num_actions, self.trained_on, self.source = actions, num_actions, trained_on, source

    @classmethod
    def fit(
        cls, vectors: Sequence[np.ndarray], actions: np.ndarray, num_actions: int, dataset: Any = None
    ) -> NearestSequence:
        """Keep every sequence with its action."""
        return cls(vectors, actions, num_actions, **_origin(dataset))

    def __call__(self, joints: Tensor, lengths: Tensor) -> ActionPrediction:
        """Predict from vectors [B S D] of sequences of `lengths` [B]."""
        B, S, _ = joints.shape
        far = np.full((B, S, self.num_actions), -np.inf)
        for row, (asked, length) in enumerate(zip(joints.detach().cpu().numpy(), lengths.tolist(), strict=True)):
            distances = self.distances(asked[:length])
            for action in np.unique(self.actions):
                far[row, :length, action] = -distances[:, self.actions == action].min(axis=1)
        # A class without a training sequence is farther than any that has one.
        frames = torch.from_numpy(np.where(np.isfinite(far), far, 2 * far.min(initial=-1, where=np.isfinite(far))))
        frames = frames.to(joints)
        return ActionPrediction(frames[torch.arange(B), lengths.to(frames.device) - 1], frames)

    def distances(self, asked: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S N"]:
        """How far the first 1, 2, …, S frames are from each training sequence."""
        N, T, D = self.known.shape
        flat = self.known.reshape(-1, D)
        squares = (asked**2).sum(axis=1)[:, None] - 2 * asked @ flat.T + (flat**2).sum(axis=1)
        costs = np.sqrt(np.maximum(squares, 0)).reshape(-1, N, T).astype(np.float64)
        ends, found = self.lengths - 1, np.empty((len(asked), N))
        above = np.full((N, T + 1), np.inf)  # the cheapest way to the frame before and each known one; [:, 0] is none
        for row, cost in enumerate(costs):
            here = np.full((N, T + 1), np.inf)
            before = above[:, :-1] + 2 * cost
            if row == 0:
                before[:, 0] = cost[:, 0]
            straight = np.minimum(before, above[:, 1:] + cost)
            for column in range(T):  # a known frame more: depends on the one before
                here[:, column + 1] = np.minimum(straight[:, column], here[:, column] + cost[:, column])
            found[row] = here[np.arange(N), ends + 1] / (row + 1 + self.lengths)
            above = here
        return found

    def describe(self) -> dict[str, Any]:
        summary = "The action of the training sequence that is nearest by dynamic time warping."
        about = {"name": f"nearest of {len(self.known)} sequences", "summary": summary, "fitted_on": self.source}
        return about | {"sha256": _sha256(self.known, self.lengths, self.actions)}


def _origin(dataset: Any) -> dict[str, Any]:
    if dataset is None:
        return {}
    return {"trained_on": tuple(videos_of(dataset).values()), "source": fingerprint_of(dataset)}


def _sha256(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
