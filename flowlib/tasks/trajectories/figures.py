"""Figures of what a model predicts, beside the labels, for a few clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from flowlib import warp
from flowlib.colours import nice_limit
from flowlib.models.protocols import TrajectoryPrediction, device_of, num_actions_of
from flowlib.tasks.trajectories.batch import Frames, make_batch, make_example
from flowlib.tracks import Tracks

if TYPE_CHECKING:
    from flowlib.plots import Figure

POINTS = 300  # drawn of a clip; more would hide the picture


@torch.no_grad()
def predict_clips(model: Any, dataset: Any, clips: int = 0) -> tuple[dict[str, Any], TrajectoryPrediction]:
    """The first `clips` samples (0: all) as one batch on the CPU, and the model's prediction for them.

    The batch has the truth in all frames of the clips, whatever the model predicts.
    """
    frames = Frames(tuple(model.input_frames), None, num_actions_of(model))
    examples = [make_example(dataset[i], frames) for i in range(clips or len(dataset))]
    batch = make_batch([{"name": str(i)} | example for i, example in enumerate(examples)])
    if isinstance(model, nn.Module):
        model.eval()
    given = (batch[name].to(device_of(model)) for name in ("images", "action") if name in batch)
    return batch, model(*given).on("cpu")


def show_predictions(batch: dict[str, Any], prediction: TrajectoryPrediction) -> Figure:
    """Each clip of a batch: labels and prediction as tracks, then both as colours of the last frame's displacement.

    Args:
        batch, prediction: as `predict_clips` gives them.

    Returns:
        A matplotlib Figure, one row for each clip; the two fields of a row have one scale of colours.
    """
    from flowlib import plots

    B, _, _, H, W = batch["images"].shape
    figure, axes = plots.panels(B, 3, ratio=H / W)
    displacement, logits = prediction.at(batch["queries"][..., 1:])
    for i in range(B):
        frame = batch["images"][i, 0].movedim(0, -1).numpy()
        truth = _tracks(batch, i, prediction.frames)
        N = truth.num_points  # what was padded lies behind
        guess = Tracks(
            displacement[i, :, :N].numpy() + truth.queries[None, :, 1:], logits[i, :, :N].numpy() > 0, truth.queries
        )
        shown = _spread(truth.num_points)
        plots.tracks_over_frame(frame, truth.points(shown), guess.points(shown), ax=axes[i, 0])
        field = warp.dense_field(truth.queries[:, 1:], truth.displacement[-1], (H, W))
        limit = nice_limit(np.linalg.norm(field, axis=0))
        plots.dense_field(field, limit=limit, ax=axes[i, 1])
        plots.dense_field(prediction.displacement[i, -1].numpy(), limit=limit, ax=axes[i, 2])
        titles = (batch["name"][i], "labels", f"prediction, {_error(truth, guess, prediction.frames)}")
        for ax, title in zip(axes[i], titles):
            ax.set_title(title, fontsize=9, parse_math=False)
    return figure


def _tracks(batch: dict[str, Any], index: int, frames: Sequence[int]) -> Tracks:
    """The truth of one clip for the predicted frames."""
    tracks, visibility = (batch[name][index].numpy()[list(frames)] for name in ("tracks", "visibility"))
    truth = Tracks(tracks, visibility, batch["queries"][index].numpy())
    return truth.points(batch["asked"][index].numpy().nonzero()[0]) if "asked" in batch else truth


def _error(truth: Tracks, guess: Tracks, frames: Sequence[int]) -> str:
    """The ADE as everywhere: over frames after frame 0, on visible points."""
    measured = truth.visibility & (np.array(frames) > 0)[:, None]
    wrong = np.linalg.norm(guess.tracks - truth.tracks, axis=-1)[measured]
    return f"mean error {wrong.mean():.2f} px" if len(wrong) else "nothing visible"


def _spread(count: int) -> np.ndarray:
    """Indices of some points, drawn once and for all, as every k-th of a grid would line up in columns."""
    return np.sort(np.random.default_rng(0).permutation(count)[:POINTS])
