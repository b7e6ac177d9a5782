"""Diagnostics of training: can one batch be fitted, where does a loss jump, are two trainings one.

What trains does so by the same `fit` as everything else, so what it finds out holds there.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from flowlib.models.protocols import device_of
from flowlib.quantities import counted
from flowlib.tasks.protocol import Task
from flowlib.training.config import TrainConfig
from flowlib.training.loop import fit
from flowlib.training.runs import minutes_of, read_metrics
from flowlib.training.session import TrainingRun, batch_statistics, is_better
from flowlib.training.stream import SampleStream, to_device

if TYPE_CHECKING:
    from flowlib.plots import Figure

WINDOW = 20  # steps before a loss spike that it is compared with


@dataclass(frozen=True, eq=False)
class Overfit:
    """What came of fitting one batch.

    Attributes:
        run: its folder, with all curves.
        target: the asked score.
        score: what was reached, in evaluation mode.
        reached: whether it is better than the target.
        steps, minutes: what it took, over all sessions.
        curve: (step, score in evaluation mode) of each look.
        summary: one or more sentences: overfitted or not, and what to look at.
        task, model, samples: what was trained on what.
    """

    run: TrainingRun
    target: float
    score: float
    reached: bool
    steps: int
    minutes: float
    curve: list[tuple[int, float]]
    summary: str
    task: Task
    model: nn.Module
    samples: Any

    def figure(self) -> Figure | None:
        """What the trained model says of the batch, as the task shows it."""
        return self.task.figure(self.model, self.samples, len(self.samples))

    def __repr__(self) -> str:
        return self.summary


def overfit(
    model: nn.Module,
    task: Task,
    dataset: Any,
    config: TrainConfig | None = None,
    *,
    samples: int = 2,
    target: float = 1.0,
    folder: str | Path | None = None,
) -> Overfit:
    """Train on one batch until its score is better than `target`, and say whether that worked.

    Args:
        model: ends with the trained weights.
        task: what is learned; nothing is augmented.
        dataset: its first `samples` samples are the batch.
        config: how to train; its batch size, validation and `stop_at` are set here.
        samples: how many samples the batch has.
        target: of the task's score, in evaluation mode; pixels of ADE, for trajectories.
        folder: as in `fit`; a call that is repeated goes on, or finds the work done.

    Raises:
        ValueError: as `fit`; fewer samples in the dataset than asked for.
    """
    if not 1 <= samples <= len(dataset):
        got = f"as many as the dataset has, got {samples}"
        raise ValueError(f"samples: expected 1 to {len(dataset)}, {got}")
    config = TrainConfig(name="overfit") if config is None else config
    config = replace(config, batch_size=samples, validation_samples=0, stop_at=target, patience=0)
    task = task.unchanged()
    chosen = Subset(dataset, range(samples))
    run = fit(model, task, chosen, chosen, config, folder=folder)
    lines, key = run.metrics(), f"validation_{task.score}"
    curve = [(line["step"], line[key]) for line in lines if key in line]
    score, minutes = curve[-1][1] if curve else float("nan"), minutes_of(run.folder)
    reached, metric = is_better(task, score, target), task.metric(task.score)
    over, unit = (f" {text}" if text else "" for text in (task.measured_on, metric.unit))
    if curve:
        told, asked = f"{metric.label} {metric.show(score)}{unit}{over}", f"the asked {target * metric.scale:g}{unit}"
        side = "below" if reached == (metric.better != "high") else "above"
        summary = f"{'Overfitted' if reached else 'Not overfitted'}: {told}, {side} {asked}, after "
        hints = [] if reached else _hints(lines, score, config, task, model)
        summary = " ".join([f"{summary}{counted(run.step, 'step')} ({minutes:.1f} minutes).", *hints])
    else:
        looked = over.replace(" on ", " at ", 1)
        summary = f"Not judged: no look{looked} in {run.step} of {config.steps} steps; call again to go on."
    return Overfit(run, target, score, reached, run.step, minutes, curve, summary, task, model, chosen)


def _hints(lines: list[dict[str, Any]], score: float, config: TrainConfig, task: Task, model: nn.Module) -> list[str]:
    """What the curves say about a batch that was not fitted, most telling first."""
    metric = task.metric(task.score)
    steps = [line for line in lines if "grad_norm" in line and metric.name in line]
    if not steps:
        return []
    recent = steps[-max(5, len(steps) // 10) :]
    lower, values = metric.better != "high", [line[metric.name] for line in steps]
    error = statistics.median(values[-len(recent) :])
    before = values[-3 * len(recent) : -len(recent)]
    improves = rose = False
    if before:
        usual = statistics.median(before)
        improves = error < 0.9 * usual if lower else error > 1.1 * usual
        rose = error > 1.5 * min(values) if lower else 1.5 * error < max(values)
    hints = []
    if (error < 0.6 * score if lower else error > 1.5 * score) and batch_statistics(model):
        shown = f"{metric.show(error)} {metric.unit}".strip()
        what = "the error" if metric.unit == "px" else metric.label
        hints.append(
            f"In training mode {what} is {shown}: the batch norms' running statistics lag behind or differ; "
            "try batch_norm='frozen' or 'group', or more steps."
        )
    if statistics.median(line["grad_norm"] for line in recent) > 10 * config.clip_at and config.clip == "norm":
        hints.append("Nearly every gradient is clipped hard: a lower learning rate is worth a try.")
    if improves:
        hints.append(f"The curve still {'falls' if lower else 'rises'}: give it more steps.")
    elif rose:
        again = "rose" if lower else "fell"
        hints.append(f"The curve {again} again: a lower learning rate, clipping, or look at spike_report(run.folder).")
    if not hints:
        ideas = list(task.ideas(model)) or ["another learning rate"]
        if config.trained != "all":
            ideas.insert(0, f"more than trained={config.trained!r}, which leaves most layers as they were")
        hints.append(f"The curve has levelled off: try {'; or '.join(ideas)}.")
    return hints


@dataclass(frozen=True)
class TrainingComparison:
    """Two models that should be one, before, while and after both are trained alike.

    Attributes:
        output_difference: largest absolute difference of their outputs before training.
        losses: (first, second) of each step.
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


def compare_trainings(
    models: Mapping[str, nn.Module], task: Task, dataset: Any, config: TrainConfig, folder: str | Path
) -> TrainingComparison:
    """Train two models side by side that are said to be one, such as a one-frame model and its two-frame twin.

    Gradients are not clipped: the norm of all of them is rounded otherwise when zeros lie in between.

    Args:
        models: two of them by name; each run goes to the folder of that name.
        task, dataset, config: as in `fit`.
        folder: of both runs' folders.
    """
    (one, two), config = models.values(), replace(config, clip="none")
    before = _largest_difference(one, two, task, dataset)
    runs = [fit(model, task, dataset, None, config, folder=Path(folder) / name) for name, model in models.items()]
    losses = list(zip(*([line["loss"] for line in run.metrics()] for run in runs)))
    relative = max(abs(first - second) / max(abs(first), 1e-12) for first, second in losses)
    return TrainingComparison(before, losses, relative, _largest_difference(one, two, task, dataset))


def _largest_difference(one: nn.Module, two: nn.Module, task: Task, dataset: Any) -> float:
    first, second = (_outputs(model, task, dataset) for model in (one, two))
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


@torch.no_grad()
def _outputs(model: nn.Module, task: Task, dataset: Any) -> list[Tensor]:
    """All tensors that a network gives in evaluation mode for the first samples."""
    stream = SampleStream(task, model, dataset)
    batch = task.collate([stream[i] for i in range(min(2, len(dataset)))])
    found: list[Tensor] = []
    hook = model.register_forward_hook(lambda module, inputs, output: found.extend(_tensors(output)))
    model.eval()
    constants = task.prepare(model, dataset)
    task.sums(model, to_device(batch, device_of(model)), constants)
    hook.remove()
    return found


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.cpu()]
    if is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return [] if isinstance(value, str) else [tensor for part in inner for tensor in _tensors(part)]


@dataclass(frozen=True)
class Spike:
    """One jump of the loss.

    Attributes:
        step: where it is highest.
        ratio: its loss over the median of the steps before.
        around: the metrics' lines from two steps before the jump to two after its top.
        reading: what stands out, in one sentence.
    """

    step: int
    ratio: float
    around: list[dict[str, Any]]
    reading: str


@dataclass(frozen=True)
class SpikeReport:
    """All jumps of a run's loss; its text is the report."""

    folder: Path
    steps: int
    factor: float
    spikes: list[Spike]

    def __repr__(self) -> str:
        head = f"{len(self.spikes)} spikes above {self.factor:g} times the usual loss in {self.steps} steps"
        return "\n".join([f"{head} of {self.folder.name}", *(_describe(spike) for spike in self.spikes)])


def spike_report(run: TrainingRun | str | Path, factor: float = 2.0) -> SpikeReport:
    """Find the jumps of a run's loss, with the gradient norm, learning rate, batch and batch-norm statistics around.

    Args:
        run: a run, or its folder.
        factor: how many times the median of the steps before counts as a jump.

    Raises:
        FileNotFoundError: no metrics there.
        ValueError: `factor` is not above 1.
    """
    if not factor > 1:
        raise ValueError(f"factor: expected a number above 1, got {factor!r}")
    folder = run.folder if isinstance(run, TrainingRun) else Path(run).expanduser()
    if not (folder / "metrics.jsonl").exists():
        raise FileNotFoundError(f"{folder}: expected a run's folder with metrics.jsonl, got none")
    lines = [line for line in read_metrics(folder) if "grad_norm" in line]
    spikes, index = [], 5
    while index < len(lines):
        before = lines[max(0, index - WINDOW) : index]
        names = [name for name, value in before[0].items() if isinstance(value, float)]
        usual = {name: statistics.median(line[name] for line in before if name in line) for name in names}
        if lines[index]["loss"] <= factor * usual["loss"]:
            index += 1
            continue
        end = index + 1
        while end < len(lines) and lines[end]["loss"] > factor * usual["loss"]:
            end += 1
        top, around = max(lines[index:end], key=lambda line: line["loss"]), lines[max(0, index - 2) : end + 2]
        spikes.append(Spike(top["step"], top["loss"] / usual["loss"], around, _reading(lines, index, usual)))
        index = end
    return SpikeReport(folder, len(lines), factor, spikes)


def _reading(lines: list[dict[str, Any]], start: int, usual: dict[str, float]) -> str:
    """What the first step of a jump and the one before it say. A step's loss is measured before its own update."""
    here, before = lines[start], lines[start - 1]
    same = [line for line in lines[:start] if set(_names(line)) == set(_names(here))]
    found = []
    if before["grad_norm"] > 3 * usual["grad_norm"]:
        times = before["grad_norm"] / max(usual["grad_norm"], 1e-12)
        found.append(f"the step before had {times:.1f} times the usual gradient: its update went too far")
    if here.get("bn_shift", 0.0) > 3 * usual.get("bn_shift", float("inf")):
        found.append(f"the batch's statistics lie {here['bn_shift']:.1f} deviations off in {here['bn_layer']}")
    if same and here["loss"] < 1.5 * same[-1]["loss"]:
        found.append(
            f"these samples had a loss of {same[-1]['loss']:.3g} at step {same[-1]['step']}, too: a hard batch"
        )
    elif not same:
        found.append("these samples were not together in a batch before")
    return "; ".join(found) or "neither gradient, statistics nor batch stand out"


def _names(line: dict[str, Any]) -> list[str]:
    """Of the samples of a step; the task decides under which key they are logged."""
    return next((value for value in line.values() if isinstance(value, list)), [])


def _describe(spike: Spike) -> str:
    rows = [f"step {spike.step}: {spike.ratio:.1f} times the usual loss; {spike.reading}"]
    rows.append(f"  {'step':>6} {'loss':>9} {'gradient':>9} {'rate':>9} {'bn shift':>9}  samples")
    for line in spike.around:
        shift = f"{line['bn_shift']:9.3g}" if "bn_shift" in line else f"{'-':>9}"
        values = f"{line['loss']:9.3g} {line['grad_norm']:9.3g} {line['lr']:9.2g} {shift}"
        rows.append(f"  {line['step']:>6} {values}  {', '.join(_names(line))}")
    return "\n".join(rows)
