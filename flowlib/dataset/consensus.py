"""`Consensus`: the same clips labelled by two trackers, as one dataset of what both agree on.

Trackers err, each in its own way, and a network learns the errors of the one that labelled its data. Where two of
different kinds say the same, the label can be believed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from flowlib.clips import Clip, ClipSample, HoldsClips
from flowlib.dataset.about import content_of, split_of
from flowlib.dataset.trajectories import TrajectoryDataset
from flowlib.tracks import Tracks


@dataclass(frozen=True)
class Agreement:
    """How far two trackers are apart where both see a point.

    Attributes:
        sightings: points and frames after the first that both call visible.
        kept: how many of them lie within the tolerance, this frame and all before it.
        mean, median: distance in pixels over `sightings`; half of it is a floor below which errors say nothing.
        left_out: share of the sightings that either tracker has and the consensus has not.
    """

    sightings: int
    kept: int
    mean: float
    median: float
    left_out: float

    def __str__(self) -> str:
        return (
            f"the two differ by {self.mean:.2f} px in the mean (median {self.median:.2f}); "
            f"{100 * self.left_out:.0f} % of what either sees is left out"
        )


class Consensus(HoldsClips, Dataset):
    """The clips that two datasets have in common, with the mean of their tracks; visible where both agree.

    A point counts in a frame if both trackers see it there and are no more than `tolerance` apart, there and in every
    frame before: where they part, one of them is lost. One that doesn't count may be hidden or not
    (`occlusion_known` is False): train with `visibility_weight=0`.

    Args:
        first, second: of the same clips, points and pictures, each as `TrajectoryDataset` has them.
        tolerance: pixels.

    Attributes:
        clips, videos, fingerprints, num_frames, size, split, fingerprint: as those of `dataset.TrajectoryDataset`.

    Raises:
        ValueError: no clip in common, or other points.
    """

    def __init__(self, first: Any, second: Any, *, tolerance: float = 2.0) -> None:
        if not tolerance > 0:
            raise ValueError(f"tolerance: expected a number of pixels above 0, got {tolerance!r}")
        there = {clip.key: index for index, clip in enumerate(second.clips)}
        self.pairs = [(index, there[clip.key]) for index, clip in enumerate(first.clips) if clip.key in there]
        if not self.pairs:
            raise ValueError("second: expected clips that the first dataset has, too, got none; label the same videos")
        self.first, self.second, self.tolerance = first, second, float(tolerance)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> ClipSample:
        one, other = self.pairs[index]
        sample = ClipSample.of(self.first[one])
        truth = agreed(sample.truth, self._other(other), self.tolerance, sample.name)
        return replace(sample, truth=truth, occlusion_known=False)

    def _other(self, index: int) -> Tracks:
        """The second dataset's tracks of a clip; without its pictures, where it can."""
        if isinstance(self.second, TrajectoryDataset) and self.second.transform is None:
            return self.second.tracks(index)
        return ClipSample.of(self.second[index]).truth

    @property
    def clips(self) -> list[Clip]:
        return [self.first.clips[one] for one, _ in self.pairs]

    @property
    def num_frames(self) -> int:
        return self.first.num_frames

    @property
    def size(self) -> tuple[int, int]:
        return self.first.size

    @property
    def split(self) -> str:
        return split_of(self.first)

    @cached_property
    def fingerprint(self) -> str:
        """Of both datasets and the tolerance; "" if one of them has none."""
        parts = [content_of(self.first), content_of(self.second)]
        text = "\n".join([*parts, str(self.tolerance), *(clip.key for clip in self.clips)])
        return hashlib.sha256(text.encode()).hexdigest() if all(parts) else ""

    @cached_property
    def agreement(self) -> Agreement:
        """Over all clips; reads every track once."""
        distances, kept, either = [], 0, 0
        for one, other in self.pairs:
            a, b = ClipSample.of(self.first[one]).truth, self._other(other)
            both = a.visibility[1:] & b.visibility[1:]
            distances.append(np.linalg.norm(a.tracks[1:] - b.tracks[1:], axis=-1)[both])
            kept += int(agreed(a, b, self.tolerance).visibility[1:].sum())
            either += int((a.visibility[1:] | b.visibility[1:]).sum())
        every = np.concatenate(distances)
        mean, median = (float(of(every)) if len(every) else float("nan") for of in (np.mean, np.median))
        return Agreement(len(every), kept, mean, median, 1 - kept / max(either, 1))


def agreed(first: Tracks, second: Tracks, tolerance: float, name: str = "clip") -> Tracks:
    """The mean of two trackers' tracks; visible where both see the point within `tolerance` pixels of each other, in
    this frame and in all between it and the query's. Its confidence is the lower of the two where both have one.

    Raises:
        ValueError: they followed other points.
    """
    if first.queries.shape != second.queries.shape or not np.array_equal(first.queries, second.queries):
        raise ValueError(f"{name}: expected two trackers' tracks of the same points, got other queries")
    near = np.linalg.norm(first.tracks - second.tracks, axis=-1) <= tolerance
    agree = near & first.visibility & second.visibility
    start = first.queries[:, 0].astype(int)
    ahead = np.arange(first.num_frames)[:, None] >= start
    lost_after = np.logical_or.accumulate(~agree & ahead, axis=0)
    lost_before = np.logical_or.accumulate((~agree & ~ahead)[::-1], axis=0)[::-1]
    one, other = first.confidence, second.confidence
    confidence = None if one is None or other is None else np.minimum(one, other)
    seen = agree & ~lost_after & ~lost_before
    return Tracks((first.tracks + second.tracks) / 2, seen, first.queries, confidence)
