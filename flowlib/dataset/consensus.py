"""`Consensus`: the same clips labelled by two trackers, as one dataset of what both agree on.

Trackers err, each in its own way, and a network learns the errors of the one that labelled its data. Where two of
different kinds say the same, the label can be believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch.utils.data import Dataset

from flowlib.clips import Clip, ClipSample, HoldsClips
from flowlib.dataset.about import content_of, split_of
from flowlib.dataset.trajectories import TrajectoryDataset
from flowlib.quantities import counted
from flowlib.splits import CALIBRATION, reserve_calibration
from flowlib.tracks import Tracks


@dataclass(frozen=True)
class Agreement:
    """How far two trackers are apart where both see a point.

    Attributes:
        sightings: points and frames after the first that both call visible.
        kept: how many of them lie within the tolerance, this frame and all before it.
        mean, median: distance in pixels over `sightings`; half of it is a floor below which errors say nothing.
        left_out: share of the sightings that either tracker has and the consensus has not.
        clips: clip's key -> the same of that clip alone; empty for that of one clip.
    """

    sightings: int
    kept: int
    mean: float
    median: float
    left_out: float
    clips: Mapping[str, Agreement] = field(default_factory=dict)

    def listed(self, most: int = 10) -> str:
        """A line for each of the clips of which most is left out, the worst first."""
        worst = sorted(self.clips.items(), key=lambda item: (-item[1].left_out, item[0]))[:most]
        return "\n".join(f"{key}: {one}" for key, one in worst)

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
        most_left_out: clips are passed over of which a larger share is left out; 1 keeps all.

    Attributes:
        dropped: keys of the clips passed over.
        clips, videos, fingerprints, num_frames, size, split, fingerprint: as those of `dataset.TrajectoryDataset`.

    Raises:
        ValueError: no clip in common, none that the two agree on as far as asked, or other points.
    """

    def __init__(self, first: Any, second: Any, *, tolerance: float = 2.0, most_left_out: float = 1.0) -> None:
        if not tolerance > 0:
            raise ValueError(f"tolerance: expected a number of pixels above 0, got {tolerance!r}")
        if not 0 <= most_left_out <= 1:
            raise ValueError(f"most_left_out: expected a share from 0 to 1, got {most_left_out!r}")
        there = {clip.key: index for index, clip in enumerate(second.clips)}
        self.pairs = [(index, there[clip.key]) for index, clip in enumerate(first.clips) if clip.key in there]
        if not self.pairs:
            raise ValueError("second: expected clips that the first dataset has, too, got none; label the same videos")
        self.first, self.second, self.tolerance = first, second, float(tolerance)
        self.dropped: tuple[str, ...] = ()
        if most_left_out < 1:
            shares = {key: one.left_out for key, one in self.agreement.clips.items()}
            self.dropped = tuple(key for key, share in shares.items() if share > most_left_out)
            if len(self.dropped) == len(self.pairs):
                least = min(shares.values())
                raise ValueError(
                    f"most_left_out: expected a share that some clip keeps to, got {most_left_out}: the two trackers "
                    f"leave out {least:.2f} of the sightings or more in every clip"
                )
            self.pairs = [(one, other) for one, other in self.pairs if first.clips[one].key not in self.dropped]
            self.__dict__.pop("agreement")  # of the clips that stay

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> ClipSample:
        one, other = self.pairs[index]
        sample = ClipSample.of(self.first[one])
        second = self._other(other)
        truth = agreed(sample.truth, second, self.tolerance, sample.name)
        return replace(sample, truth=truth, occlusion_known=False, apart=distances(sample.truth, second))

    def tracks(self, index: int) -> Tracks:
        """What both agree on in a clip, without its pictures where that can be had."""
        one, other = self.pairs[index]
        return agreed(self._of(self.first, one), self._other(other), self.tolerance, self.first.clips[one].key)

    def _other(self, index: int) -> Tracks:
        return self._of(self.second, index)

    @staticmethod
    def _of(dataset: Any, index: int) -> Tracks:
        """A dataset's tracks of a clip; without its pictures, where it can."""
        if isinstance(dataset, TrajectoryDataset) and dataset.transform is None:
            return dataset.tracks(index)
        return ClipSample.of(dataset[index]).truth

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
        """Over all clips, and of each; reads every track once."""
        apart: dict[str, np.ndarray] = {}
        counts: dict[str, tuple[int, int]] = {}
        for (one, other), clip in zip(self.pairs, self.clips):
            a, b = self._of(self.first, one), self._other(other)
            between = distances(a, b)[1:]
            apart[clip.key] = between[np.isfinite(between)]
            kept = agreed(a, b, self.tolerance, clip.key).visibility[1:].sum()
            counts[clip.key] = int(kept), int((a.visibility[1:] | b.visibility[1:]).sum())
        each = {key: _agreement(apart[key], *counts[key]) for key in apart}
        kept, either = (sum(pair[k] for pair in counts.values()) for k in (0, 1))
        return replace(_agreement(np.concatenate(list(apart.values())), kept, either), clips=each)


def open_labels(
    root: str | Path, split: str, second: str | Path = "", *, tolerance: float = 2.0, most_left_out: float = 1.0
) -> TrajectoryDataset | Consensus:
    """A split of a dataset; with `second`, one of the same videos by another tracker, what both agree on.

    Args:
        root, split: as for `TrajectoryDataset`.
        second: the other dataset's folder; "" for none.
        tolerance, most_left_out: as for `Consensus`.
    """
    first = TrajectoryDataset(root, split=split)
    if not str(second):
        return first
    other = TrajectoryDataset(second, split="all")  # which clips count is the first one's splits.json to say
    return Consensus(first, other, tolerance=tolerance, most_left_out=most_left_out)


def open_calibration(
    root: str | Path, second: str | Path = "", **options: float
) -> TrajectoryDataset | Consensus | None:
    """The clips of a dataset that are kept for calibration; None where none are.

    Args:
        root, second, options: as for `open_labels`.
    """
    return open_labels(root, CALIBRATION, second, **options) if reserve_calibration(root, 0) else None


def describe_labels(dataset: Any, most: int = 5) -> str:
    """Clips and videos, and for a `Consensus` how far its trackers differ and where most."""
    said = f"{counted(len(dataset), 'clip')} of {', '.join(dataset.videos)}"
    if not isinstance(dataset, Consensus):
        return said
    lines = [f"{said}: {dataset.agreement}. Clips with most left out:", dataset.agreement.listed(most)]
    return "\n".join([*lines, *(f"passed over: {key}" for key in dataset.dropped)])


def agreement(first: Any, second: Any, *, tolerance: float = 2.0) -> Agreement:
    """How far two trackers that labelled the same clips differ, over all of them and in each.

    Args:
        first, second, tolerance: as for `Consensus`.
    """
    return Consensus(first, second, tolerance=tolerance).agreement


def _agreement(apart: np.ndarray, kept: int, either: int) -> Agreement:
    mean, median = (float(of(apart)) if len(apart) else float("nan") for of in (np.mean, np.median))
    return Agreement(len(apart), kept, mean, median, 1 - kept / either if either else 0.0)


def distances(first: Tracks, second: Tracks) -> Float[np.ndarray, "S N"]:
    """Pixels between two trackers' places of the same points; NaN where not both see the point."""
    between = np.linalg.norm(first.tracks - second.tracks, axis=-1)
    return np.where(first.visibility & second.visibility, between, np.nan).astype(np.float32)


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
