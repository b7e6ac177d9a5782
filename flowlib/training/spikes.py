"""Why a loss curve jumps: what was seen around each jump, from a run's own metrics."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from flowlib.training.runs import read_metrics

WINDOW = 20  # steps before a spike that it is held against


class StatisticsWatch:
    """How far each batch's statistics lie from the running ones, for every batch norm that is in training.

    A running mean moves by momentum × (batch mean - running mean), so its own movement tells; in units of the running
    standard deviation, root mean square over a layer's channels.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        self.means = [module.running_mean.clone() for _, module in self.layers]

    @torch.no_grad()
    def read(self) -> dict:
        """`bn_shift` and `bn_layer`, the largest shift since the last call and where; empty where nothing moved."""
        moving = [i for i, (_, module) in enumerate(self.layers) if module.training]
        if not moving:
            return {}
        shifts = torch.stack([self._shift(i) for i in moving])
        for i in moving:
            self.means[i].copy_(self.layers[i][1].running_mean)
        largest = int(shifts.argmax())
        return {"bn_shift": float(shifts[largest]), "bn_layer": self.layers[moving[largest]][0]}

    def _shift(self, index: int) -> torch.Tensor:
        module = self.layers[index][1]
        moved = (module.running_mean - self.means[index]) / (module.momentum or 0.1)
        return (moved / (module.running_var + module.eps).sqrt()).square().mean().sqrt()


@dataclass(frozen=True)
class Spike:
    """One jump of the loss.

    Attributes:
        step: where it is highest.
        ratio: its loss over the median of the steps before.
        around: the metrics' lines from two steps before the jump to two after its top.
        usual: medians of the steps before, by the same names.
        reading: what stands out, in one sentence.
    """

    step: int
    ratio: float
    around: list[dict]
    usual: dict[str, float]
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


def spike_report(run, factor: float = 2.0) -> SpikeReport:
    """Find the jumps of a run's loss, with the gradient norm, learning rate, batch and batch-norm statistics around.

    Args:
        run: a `Run`, or a run's folder.
        factor: how many times the median of the steps before counts as a jump.

    Raises:
        FileNotFoundError: no metrics there.
        ValueError: `factor` is not above 1.
    """
    if not factor > 1:
        raise ValueError(f"factor: expected a number above 1, got {factor!r}")
    folder = Path(getattr(run, "folder", run))
    if not (folder / "metrics.jsonl").exists():
        raise FileNotFoundError(f"{folder}: expected a run's folder with metrics.jsonl, got none")
    lines = [line for line in read_metrics(folder) if "grad_norm" in line]
    spikes, index = [], 5
    while index < len(lines):
        before = lines[max(0, index - WINDOW) : index]
        usual = _medians(before)
        if lines[index]["loss"] <= factor * usual["loss"]:
            index += 1
            continue
        end = index
        while end + 1 < len(lines) and lines[end + 1]["loss"] > factor * usual["loss"]:
            end += 1
        spikes.append(_spike(lines, index, end, usual))
        index = end + 1
    return SpikeReport(folder, len(lines), factor, spikes)


def _medians(lines: list[dict]) -> dict[str, float]:
    names = [name for name, value in lines[0].items() if isinstance(value, float)]
    return {name: statistics.median(line[name] for line in lines if name in line) for name in names}


def _spike(lines: list[dict], start: int, end: int, usual: dict[str, float]) -> Spike:
    top = max(lines[start : end + 1], key=lambda line: line["loss"])
    return Spike(
        step=top["step"],
        ratio=top["loss"] / usual["loss"],
        around=lines[max(0, start - 2) : end + 3],
        usual=usual,
        reading=_reading(lines, start, usual),
    )


def _reading(lines: list[dict], start: int, usual: dict[str, float]) -> str:
    """What the first step of a jump and the one before it say. A step's loss is measured before its own update."""
    here, before = lines[start], lines[start - 1]
    same = [line for line in lines[:start] if set(line["clips"]) == set(here["clips"])]
    found = []
    if before["grad_norm"] > 3 * usual["grad_norm"]:
        times = before["grad_norm"] / max(usual["grad_norm"], 1e-12)
        found.append(f"the step before had {times:.1f} times the usual gradient: its update went too far")
    if here.get("bn_shift", 0.0) > 3 * usual.get("bn_shift", float("inf")):
        found.append(f"the batch's statistics lie {here['bn_shift']:.1f} deviations off in {here['bn_layer']}")
    if same and here["loss"] < 1.5 * same[-1]["loss"]:
        found.append(f"these clips had a loss of {same[-1]['loss']:.3g} at step {same[-1]['step']}, too: a hard batch")
    elif not same:
        found.append("these clips were not together in a batch before")
    return "; ".join(found) or "neither gradient, statistics nor batch stand out"


def _describe(spike: Spike) -> str:
    rows = [f"step {spike.step}: {spike.ratio:.1f} times the usual loss; {spike.reading}"]
    rows.append(f"  {'step':>6} {'loss':>9} {'gradient':>9} {'rate':>9} {'bn shift':>9}  clips")
    for line in spike.around:
        shift = f"{line['bn_shift']:9.3g}" if "bn_shift" in line else f"{'-':>9}"
        values = f"{line['loss']:9.3g} {line['grad_norm']:9.3g} {line['lr']:9.2g} {shift}"
        rows.append(f"  {line['step']:>6} {values}  {', '.join(line['clips'])}")
    return "\n".join(rows)
