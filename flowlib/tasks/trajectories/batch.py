"""Training examples of trajectories: pictures of the input frames, and the truth in the frames that are predicted.

Clips with different numbers of points are padded; a mask `asked` then says which points count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from flowlib.clips import ClipSample
from flowlib.models.protocols import PointPrediction, TrajectoryPrediction

POINTWISE = {"tracks": 1, "visibility": 1, "queries": 0, "confidence": 1}  # name -> axis of the points


class Frames(NamedTuple):
    """Which frames of a clip a model sees, and which it predicts, None for all of the clip; and of how many actions it
    is told, 0 for none."""

    seen: tuple[int, ...]
    predicted: tuple[int, ...] | None
    num_actions: int = 0


def make_example(sample: Any, frames: Frames, *, confidence: bool = False) -> dict[str, Any]:
    """A clip as an example.

    Args:
        sample: a `ClipSample`, or what `ClipSample.of` takes.
        frames: of the model.
        confidence: give that of the tracks, too.

    Returns:
        `images` uint8 [n 3 H W]; `tracks` [F N 2], `visibility` [F N] and `frames` [F] of the predicted frames;
        `queries` [N 3]; the clip's `name`, if it has one; `confidence` [F N] if it is asked for; and `action` [K] for
        a model that takes one.

    Raises:
        ValueError: points that are asked for later than in frame 0, or no confidence or action where it is asked for.
    """
    clip = ClipSample.of(sample)
    if clip.truth.queries[:, 0].any():
        raise ValueError(f"{clip.name}: expected points that are asked for in frame 0, got other frames, too")
    predicted = tuple(range(clip.truth.num_frames)) if frames.predicted is None else frames.predicted
    example = {
        "images": clip.images(frames.seen)[0],
        "tracks": clip["tracks"][list(predicted)],
        "visibility": clip["visibility"][list(predicted)],
        "queries": clip["queries"],
        "frames": torch.tensor(predicted),
    }
    if confidence:
        if clip.truth.confidence is None:
            raise ValueError(f"{clip.name}: expected tracks with a confidence, got some without; label with one")
        example["confidence"] = clip["confidence"][list(predicted)]
    if frames.num_actions:
        example["action"] = action_of(clip, frames.num_actions)
    return example | ({"name": clip.name} if isinstance(sample, ClipSample) or "clip" in sample else {})


def action_of(clip: ClipSample, num_actions: int) -> Tensor:
    """[K] What a model of so many actions is told of a clip.

    Raises:
        ValueError: the clip has no action, or one of another number of them.
    """
    if clip.action is None or len(clip.action) != num_actions:
        got = "none" if clip.action is None else f"{len(clip.action)}"
        raise ValueError(f"{clip.name}: expected probabilities of {num_actions} actions, as the model takes, got {got}")
    return torch.from_numpy(clip.action)


def uniform(num_actions: int) -> Tensor:
    """[K] What a model is told where nobody knows the action."""
    return torch.full((num_actions,), 1 / num_actions)


def make_batch(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Examples as one batch; `asked` bool [B N] is in it only where points were padded.

    Raises:
        ValueError: pictures of different sizes.
    """
    examples = list(examples)
    sizes = sorted({tuple(example["images"].shape[-2:]) for example in examples})
    if len(sizes) > 1:
        got = " and ".join(f"{height}×{width}" for height, width in sizes)
        raise ValueError(
            f"batch_size: expected clips of one size in a batch, got {got}; use batch_size=1 with accumulate, which "
            "gives the same steps"
        )
    lengths = sorted({len(example["frames"]) for example in examples})
    if len(lengths) > 1:
        raise ValueError(f"expected clips of one length in a batch, got {' and '.join(map(str, lengths))} frames")
    counts = [len(example["queries"]) for example in examples]
    if len(set(counts)) > 1:
        asked = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        examples = [_padded(example, max(counts)) | {"asked": mask} for example, mask in zip(examples, asked)]
    return default_collate(examples)


def _padded(example: dict[str, Any], count: int) -> dict[str, Any]:
    padded = dict(example)
    for name, axis in POINTWISE.items():
        if name not in example:
            continue
        values = example[name]
        missing = [*values.shape[:axis], count - values.shape[axis], *values.shape[axis + 1 :]]
        padded[name] = torch.cat([values, values.new_zeros(missing)], dim=axis)
    return padded


def check_prediction(prediction: TrajectoryPrediction, batch: dict[str, Any]) -> None:
    """Raise `ValueError` unless a network predicted the batch's frames, for every pixel of its pictures."""
    (B, *_, H, W), frames = batch["images"].shape, batch["frames"][0].tolist()
    if isinstance(prediction, PointPrediction):
        H, W = 1, batch["queries"].shape[1]
    if list(prediction.frames) != frames:
        raise ValueError(
            f"model: expected a prediction of all {len(frames)} frames of a clip (or `frames` and `num_frames` that "
            f"say which), {tuple(frames)}, got frames {prediction.frames}"
        )
    shapes = {"displacement": [B, len(frames), 2, H, W], "visibility_logits": [B, len(frames), H, W]}
    if prediction.log_scale is not None:
        shapes["log_scale"] = shapes["visibility_logits"]
    if prediction.futures is not None:
        K = prediction.futures.shape[1] if prediction.futures.ndim > 1 else 0
        shapes |= {"futures": [B, K, len(frames), 2, H, W], "weights": [B, K]}
    for part, expected in shapes.items():
        values = getattr(prediction, part)
        if not isinstance(values, torch.Tensor) or not values.is_floating_point() or list(values.shape) != expected:
            got = f"{values.dtype} {list(values.shape)}" if isinstance(values, torch.Tensor) else type(values).__name__
            raise ValueError(f"model: expected {part} as a floating tensor of shape {expected}, got {got}")
