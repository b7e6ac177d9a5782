"""Can the model learn at all? One batch, over and over, and a verdict; and the check of the two-frame stem.

Both are short trainings by the same `fit` that trains everything else, so what they find out holds there.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from torch.utils.data import Subset

from flowlib.models import TrajectoryPrediction
from flowlib.models.fcn import TrajectoryFCN, hold_later_frames, see_more_frames
from flowlib.training.config import TrainConfig
from flowlib.training.loop import fit
from flowlib.training.pictures import predict_clips
from flowlib.training.runs import read_metrics
from flowlib.training.session import Run


@dataclass(frozen=True, eq=False)
class Overfit:
    """What came of fitting one batch.

    Attributes:
        run: its folder, with all curves.
        target: the asked error in pixels.
        ade: what was reached, in evaluation mode, on visible points.
        steps, minutes: what it took, over all sessions.
        curve: (step, ADE in evaluation mode) of each look.
        batch: the clips, [B …] tensors.
        prediction: for them, of the trained model in evaluation mode.
        verdict: one or more sentences: overfitted or not, and what to look at.
    """

    run: Run
    target: float
    ade: float
    steps: int
    minutes: float
    curve: list[tuple[int, float]]
    batch: dict
    prediction: TrajectoryPrediction
    verdict: str

    @property
    def reached(self) -> bool:
        """Whether the error is below the target."""
        return self.ade < self.target

    def __repr__(self) -> str:
        return self.verdict


def overfit(
    model: nn.Module,
    dataset,
    config: TrainConfig | None = None,
    *,
    clips: int = 2,
    target: float = 1.0,
    folder: str | Path | None = None,
) -> Overfit:
    """Train on one batch until its error is below `target` pixels, and say whether that worked.

    Args:
        model: ends with the trained weights.
        dataset: its first `clips` samples are the batch.
        config: how to train; its batch size, validation and `stop_below` are set here.
        clips: how many clips the batch has.
        target: ADE on visible points in pixels of the clips' frames, in evaluation mode.
        folder: as in `fit`; a call that is repeated goes on, or finds the work done.

    Raises:
        ValueError: as `fit`; fewer clips in the dataset than asked for.
    """
    if not 1 <= clips <= len(dataset):
        raise ValueError(f"clips: expected 1 to {len(dataset)}, as many as the dataset has, got {clips}")
    config = TrainConfig(name="overfit") if config is None else config
    config = replace(config, batch_size=clips, validation_clips=0, stop_below=target, patience=0, augment=None)
    chosen = Subset(dataset, range(clips))
    run = fit(model, chosen, chosen, config, folder=folder)
    lines = run.metrics()
    curve = [(line["step"], line["validation_ade"]) for line in lines if "validation_ade" in line]
    ade = curve[-1][1] if curve else float("nan")
    minutes = sum(line["step_seconds"] for line in read_metrics(run.folder, "timings.jsonl")) / 60
    verdict = _verdict(run, lines, config, target, minutes, model)
    batch, prediction = predict_clips(model, chosen)
    return Overfit(run, target, ade, run.step, minutes, curve, batch, prediction, verdict)


def _verdict(run: Run, lines: list[dict], config: TrainConfig, target: float, minutes: float, model: nn.Module) -> str:
    judged = [line["validation_ade"] for line in lines if "validation_ade" in line]
    if not judged:
        return f"Not judged: no look at visible points in {run.step} of {config.steps} steps; call again to go on."
    spent = f"after {run.step} steps ({minutes:.1f} minutes)"
    if judged[-1] < target:
        return f"Overfitted: ADE {judged[-1]:.2f} px on visible points, below the asked {target:g} px, {spent}."
    hints = _hints([line for line in lines if "grad_norm" in line and "ade" in line], judged, config, model)
    start = f"Not overfitted: ADE {judged[-1]:.2f} px on visible points, above the asked {target:g} px, {spent}."
    return " ".join([start, *hints])


def _hints(steps: list[dict], judged: list[float], config: TrainConfig, model: nn.Module) -> list[str]:
    """What the curves say about a batch that was not fitted, most telling first."""
    recent = steps[-max(5, len(steps) // 10) :]
    error = statistics.median(line["ade"] for line in recent)
    hints = []
    if error < 0.6 * judged[-1] and model.batch_norm == "train":
        hints.append(
            f"In training mode the error is {error:.2f} px: the batch norms' running statistics lag behind or differ; "
            "try batch_norm='frozen' or 'group', or more steps."
        )
    if statistics.median(line["grad_norm"] for line in recent) > 10 * config.clip_at and config.clip == "norm":
        hints.append("Nearly every gradient is clipped hard: a lower learning rate is worth a try.")
    before = [line["ade"] for line in steps[-3 * len(recent) : -len(recent)]]
    if before and error < 0.9 * statistics.median(before):
        hints.append("The curve still falls: give it more steps.")
    elif before and error > 1.5 * min(line["ade"] for line in steps):
        hints.append("The curve rose again: a lower learning rate, clipping, or look at spike_report(run.folder).")
    if not hints:
        ideas = ["another learning rate", "clips with steadier labels, for a tracker's slips can't be fitted"]
        if model.working_size is not None:
            ideas.insert(0, "a larger working_size")
        if model.config["head"] != "fine":
            ideas.insert(0, "head='fine'")
        if config.trained != "all":
            ideas.insert(0, f"more than trained={config.trained!r}, which leaves most layers as they were")
        hints.append(f"The curve has levelled off: try {'; or '.join(ideas)}.")
    return hints


@dataclass(frozen=True)
class StemCheck:
    """A two-frame model whose weights for the second frame are zero, beside the one-frame model it was made from.

    Attributes:
        output_difference: largest absolute difference of their outputs before training (pixels, logits).
        losses: (one frame, two frames) of each step of a short training, the second half held at zero.
        loss_difference: largest relative difference of these.
        final_difference: largest absolute difference of their outputs after it.
    """

    output_difference: float
    losses: list[tuple[float, float]]
    loss_difference: float
    final_difference: float

    @property
    def equal(self) -> bool:
        """Whether they are one model: outputs within 1e-6 of each other, losses within 1e-5 relative."""
        return self.output_difference <= 1e-6 and self.loss_difference <= 1e-5

    def __repr__(self) -> str:
        return (
            f"{'Equal' if self.equal else 'NOT equal'}: outputs differ by {self.output_difference:.1e} at most, the "
            f"losses of {len(self.losses)} training steps by {self.loss_difference:.1e} relative (the last: "
            f"{self.losses[-1][0]:.6f} and {self.losses[-1][1]:.6f}), outputs afterwards by {self.final_difference:.1e}"
        )


def check_zero_stem(
    model: TrajectoryFCN, dataset, config: TrainConfig, folder: str | Path, *, input_frames: tuple[int, ...] = (0, 3)
) -> StemCheck:
    """Train a one-frame model and its two-frame twin, zero for the later frames, side by side; they must be one.

    `model` itself is left alone; the two runs go to `folder`/one_frame and `folder`/two_frames. Gradients are not
    clipped: the norm of all of them is rounded otherwise when zeros lie in between.
    """
    config = replace(config, clip="none")
    one, two = see_more_frames(model, model.input_frames), see_more_frames(model, input_frames, "zero")
    hold_later_frames(two)
    before = _largest_difference(one, two, dataset)
    runs = [
        fit(one, dataset, None, config, folder=Path(folder) / "one_frame"),
        fit(two, dataset, None, config, folder=Path(folder) / "two_frames"),
    ]
    losses = list(zip(*([line["loss"] for line in run.metrics()] for run in runs)))
    relative = max(abs(first - second) / max(abs(first), 1e-12) for first, second in losses)
    return StemCheck(before, losses, relative, _largest_difference(one, two, dataset))


def _largest_difference(one: nn.Module, two: nn.Module, dataset) -> float:
    first, second = (predict_clips(model, dataset, min(2, len(dataset)))[1] for model in (one, two))
    pairs = [(first.displacement, second.displacement), (first.visibility_logits, second.visibility_logits)]
    return max(float((a - b).abs().max()) for a, b in pairs)
