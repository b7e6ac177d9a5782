"""The callables of `loops` for tracks: a tracker, a network of trajectories, and a network that names actions.

What the loops call a frame is here a clip, F pictures of a video, [F 3 H W] uint8. A tracker looks at all of them, a
network of trajectories at those that it takes. Both say of a grid of P points where each goes and whether it is seen:

    values [N F P 3]      displacement from frame 0 (x, y) in pixels, and 1 where the point is visible, else 0

So `two_pass(follow(…), predict(…), name_actions(…), clips, lengths)` tracks, names the action, and predicts from one
picture what that action does. Knows no files and no losses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from flowlib.geometry import Size, cell_grid
from flowlib.models.actions import ActionLSTM, ActionPrediction
from flowlib.models.features import from_tracks
from flowlib.models.loops import Classify, Estimate
from flowlib.models.protocols import num_actions_of
from flowlib.trackers import Tracker
from flowlib.tracks import Tracks


def follow(tracker: Tracker, grid: tuple[int, int]) -> Estimate:
    """A tracker as an estimator; what it is told of an action makes no difference to it.

    Args:
        tracker: of `trackers`.
        grid: rows and columns of the points, spread evenly over frame 0.
    """

    def estimate(clips: UInt8[Tensor, "N F 3 H W"], action: Tensor | None) -> Float[Tensor, "N F P 3"]:
        queries = _queries(_size(clips), grid)
        found = [tracker(clip.movedim(1, -1).cpu().numpy(), queries) for clip in clips]
        return torch.stack([_values(tracks) for tracks in found]).to(clips.device)

    return estimate


def predict(model: Any, grid: tuple[int, int]) -> Estimate:
    """A network of trajectories that gives all frames of a clip as an estimator; one that takes no action is told none.

    Args:
        model: a `Predictor`, such as a `TrajectoryFCN`.
        grid: as in `follow`.
    """

    def estimate(clips: UInt8[Tensor, "N F 3 H W"], action: Tensor | None) -> Float[Tensor, "N F P 3"]:
        images, xy = clips[:, list(model.input_frames)], torch.from_numpy(cell_grid(_size(clips), *grid))
        prediction = model(images, action) if num_actions_of(model) else model(images)
        if list(prediction.frames) != list(range(clips.shape[1])):
            raise ValueError(
                f"clips: expected the frames {prediction.frames}, as predicted, got {clips.shape[1]} frames"
            )
        displacement, logits = prediction.at(xy.expand(len(clips), -1, -1).to(clips.device))
        return torch.cat([displacement, (logits > 0).to(displacement)[..., None]], dim=-1)

    return estimate


def name_actions(
    network: ActionLSTM, size: Size, grid: tuple[int, int], cells: tuple[int, int] | None = (4, 4)
) -> Classify:
    """A network that names actions as the classifier of tracks: of a sequence's clips one after the other, by
    `features.from_tracks`. Gradients end here.

    Args:
        network: trained on such vectors.
        size: (height, width) of the pictures.
        grid: as in `follow`.
        cells: as in `from_tracks`.
    """

    def classify(values: Float[Tensor, "B S F P 3"], lengths: Int[Tensor, " B"]) -> ActionPrediction:
        B, S, F, P, _ = values.shape
        clips = values.detach().cpu().numpy().reshape(B * S, F, P, 3)
        vectors = [from_tracks(_tracks(clip, size, grid), size, cells=cells) for clip in clips]
        told = torch.from_numpy(np.stack(vectors)).reshape(B, S * F, -1).to(values.device)
        found = network(told, lengths * F)
        return ActionPrediction(found.logits, found.frames[:, F - 1 :: F])

    return classify


def _size(clips: Tensor) -> Size:
    return clips.shape[-2], clips.shape[-1]


def _queries(size: Size, grid: tuple[int, int]) -> Float[np.ndarray, "P 3"]:
    return np.insert(cell_grid(size, *grid), 0, 0, axis=1)


def _values(tracks: Tracks) -> Float[Tensor, "F P 3"]:
    parts = [tracks.displacement, tracks.visibility[..., None]]
    return torch.from_numpy(np.concatenate(parts, axis=-1).astype(np.float32))


def _tracks(values: Float[np.ndarray, "F P 3"], size: Size, grid: tuple[int, int]) -> Tracks:
    queries = _queries(size, grid)
    return Tracks(queries[None, :, 1:] + values[..., :2], values[..., 2] > 0.5, queries)
