"""What evaluation asks of a dataset beyond its samples: which videos it holds, and which frames a clip is.

A `torch.utils.data.Subset` is looked through; other datasets may say as much as they know.
"""

from __future__ import annotations

from typing import Any


def clip_of(dataset: Any, index: int) -> Any:
    """The dataset's own description of a clip (`clips[index]`); None if it has none."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return clip_of(dataset.dataset, dataset.indices[index])
    clips = getattr(dataset, "clips", None)
    return clips[index] if clips else None


def videos_of(dataset: Any) -> dict[str, str]:
    """Video's name -> its fingerprint (or its name once more); empty if the dataset doesn't say."""
    names = list(getattr(dataset, "videos", ()))
    if names:
        return dict(zip(names, list(getattr(dataset, "fingerprints", ())) or names))
    clips = [clip_of(dataset, index) for index in range(len(dataset))]
    named = [clip for clip in clips if getattr(clip, "video", None)]
    return {clip.video: getattr(clip, "fingerprint", clip.video) for clip in named}


def kept_frames(dataset: Any, index: int, sample: dict[str, Any]) -> tuple[int, ...]:
    """Which frames of its clip a sample's pictures are: what the dataset says, or all of them."""
    kept = getattr(clip_of(dataset, index), "kept", None)
    return tuple(range(len(sample["frames"]))) if kept is None else tuple(kept)


def frame_numbers(dataset: Any, index: int) -> str:
    """Which frames of its video a clip is, as text; "" if the dataset doesn't know."""
    numbers = getattr(clip_of(dataset, index), "frame_numbers", None)
    return f"frames {numbers[0]} to {numbers[-1]}" if numbers is not None else ""
