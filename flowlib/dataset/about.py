"""What a dataset may say of itself beyond its samples, all of it optional: videos, clips, fingerprint, split.

A `torch.utils.data.Subset` or `ConcatDataset` is looked through. Decodes no sample.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import ConcatDataset, Subset

from flowlib.clips import Clip, ClipSample


@runtime_checkable
class HasVideos(Protocol):
    """Names its videos (subjects, …)."""

    @property
    def videos(self) -> Sequence[str]: ...


@runtime_checkable
class HasFingerprints(HasVideos, Protocol):
    """Knows the fingerprint of each of its `videos`."""

    @property
    def fingerprints(self) -> Sequence[str]: ...


@runtime_checkable
class HasClips(Protocol):
    """Lists its clips, one for each sample."""

    @property
    def clips(self) -> Sequence[Clip]: ...


@runtime_checkable
class HasFingerprint(Protocol):
    """Has a fingerprint of all that is in it."""

    @property
    def fingerprint(self) -> str: ...


@runtime_checkable
class HasSplit(Protocol):
    """Says which split it is."""

    @property
    def split(self) -> str: ...


@runtime_checkable
class HasTransform(Protocol):
    """May change its samples, in a way that its fingerprint doesn't know."""

    @property
    def transform(self) -> Any: ...


@runtime_checkable
class HasShape(Protocol):
    """Knows how many frames its clips have, and the (height, width) of their pictures."""

    @property
    def num_frames(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]: ...


def shape_of(dataset: Any) -> dict[str, Any]:
    """`num_frames` and `size` of a dataset's clips, as JSON; its first clip is read only if it doesn't say."""
    if isinstance(dataset, HasShape):
        return {"num_frames": int(dataset.num_frames), "size": [int(side) for side in dataset.size]}
    first = ClipSample.of(dataset[0])
    return {"num_frames": first.truth.num_frames, "size": list(first.size)}


def videos_of(dataset: Any) -> dict[str, str]:
    """Video's name -> its fingerprint (or its name once more); empty if the dataset doesn't say."""
    if isinstance(dataset, ConcatDataset):
        return {name: mark for part in dataset.datasets for name, mark in videos_of(part).items()}
    named = _named_videos(dataset)
    if named:
        return named
    if isinstance(dataset, (list, tuple)):  # of samples that are at hand
        named = [sample["video"] for sample in dataset if isinstance(sample, Mapping) and "video" in sample]
        return {str(name): str(name) for name in named}
    clips = [clip_of(dataset, index) for index in range(len(dataset))]
    if isinstance(dataset, Subset) and not any(clips):
        whole = dataset.dataset
        if isinstance(whole, (list, tuple)):
            return videos_of([whole[index] for index in dataset.indices])
        return videos_of(whole)  # which video each sample is of isn't said, so it may be any
    return {clip.video: clip.fingerprint or clip.video for clip in clips if clip is not None}


def _named_videos(dataset: Any) -> dict[str, str]:
    names = list(dataset.videos) if isinstance(dataset, HasVideos) else []
    known = list(dataset.fingerprints) if isinstance(dataset, HasFingerprints) else []
    return dict(zip(names, known or names))


def clip_of(dataset: Any, index: int) -> Clip | None:
    """Which clip a sample is; None if the dataset doesn't say."""
    if isinstance(dataset, Subset):
        return clip_of(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, index)
        return clip_of(dataset.datasets[part], index - ([0, *dataset.cumulative_sizes][part]))
    return dataset.clips[index] if isinstance(dataset, HasClips) else None


def fingerprint_of(dataset: Any) -> str:
    """Of the whole dataset; "" if it has none."""
    if isinstance(dataset, ConcatDataset):
        parts = [content_of(part) for part in dataset.datasets]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest() if all(parts) else ""
    return str(dataset.fingerprint) if isinstance(dataset, HasFingerprint) else ""


def content_of(dataset: Any) -> str:
    """A SHA-256 that tells what every sample is; "" if there is none."""
    if isinstance(dataset, HasTransform) and dataset.transform is not None:
        return ""
    fingerprint = fingerprint_of(dataset)
    return fingerprint if re.fullmatch("[0-9a-f]{64}", fingerprint) else ""


def split_of(dataset: Any) -> str:
    """The split's name; "" if the dataset doesn't say."""
    if isinstance(dataset, ConcatDataset):
        names = {split_of(part) for part in dataset.datasets}
        return names.pop() if len(names) == 1 else ""
    return str(dataset.split) if isinstance(dataset, HasSplit) else ""
