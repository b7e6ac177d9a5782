"""What a second frame is worth: the same small training for several choices of input frames, side by side.

In: labelled clips to train and to test on. Out: the error against frames ahead and by kind of motion, for a network
that sees one frame, two (near or far apart) or three; one list of experiments, one report, one picture. Every run and
every score is kept: called again, it goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from flowlib.dataset.about import shape_of
from flowlib.evaluation import Report, evaluate
from flowlib.flow import OpticalFlow
from flowlib.models.baselines import ConstantVelocity, ZeroMotion
from flowlib.models.guided import GuidedTrajectories
from flowlib.models.one_frame import OneFrameTrajectories
from flowlib.plots import Figure, bars, error_by_frame, panels
from flowlib.tasks.protocol import Estimate
from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask
from flowlib.training import RunTable, TrainConfig, load_checkpoint, run_experiments

LEAST_FRAMES = 6  # of a clip: the sweep's choices see up to frame 4
CLASSES = {"ade_still": "still", "ade_camera": "with camera", "ade_own": "on their own"}


def input_choices(num_frames: int = 8) -> dict[str, tuple[int, ...]]:
    """Which frames a network may see of clips of `num_frames` frames, by name: one, two near or far apart, three.

    >>> list(input_choices(8).values())
    [(0,), (0, 1), (0, 3), (0, 4), (0, 1, 3)]
    """
    if num_frames < LEAST_FRAMES:
        raise ValueError(
            f"num_frames: expected {LEAST_FRAMES} or more, to have frames left to predict, got {num_frames}"
        )
    found = [(0,), (0, 1), *sorted({(0, 3), (0, num_frames // 2)}), (0, 1, 3)]
    return {"+".join(map(str, frames)): frames for frames in found}


def make_model(
    *,
    input_frames: Sequence[int] = (0,),
    num_frames: int = 8,
    widths: Sequence[int] = (48, 64, 96, 128),
    cells: int = 3840,
    weights: str = "auto",
    stride_in: str = "3x3",
    flow: OpticalFlow | None = None,
) -> nn.Module:
    """A network for these input frames: `OneFrameTrajectories` for frame 0 alone, else `GuidedTrajectories`.

    Args:
        input_frames, num_frames, widths, cells: as both classes take them.
        weights, stride_in: of the one-frame network's pretrained stages.
        flow: that guides; DIS if None.
    """
    shape: dict[str, Any] = {"num_frames": num_frames, "widths": widths, "cells": cells}
    if tuple(input_frames) == (0,):
        return OneFrameTrajectories(weights=weights, stride_in=stride_in, **shape)
    model = GuidedTrajectories(input_frames=input_frames, **shape)
    if flow is not None:
        model.flow = flow
    return model


@dataclass(frozen=True, eq=False)
class SecondFrame:
    """What came out of `second_frame_sweep`.

    Attributes:
        runs: the trainings.
        report: their errors on the test clips, over the frames that none of them has seen, beside zero motion's and
            constant velocity's.
        frames: first and last of these.
    """

    runs: RunTable
    report: Report
    frames: tuple[int, int]

    def gain(self, first: str, second: str, metric: str = "ade") -> Estimate:
        """How much less `second` errs than `first`, in pixels, paired video by video."""
        return self.report.difference(first, second, metric)

    def __str__(self) -> str:
        score = self.report.task.metric("ade")
        videos, (low, high) = self.report.count(len(self.report.groups)), self.frames
        lines = [f"mean error over frames {low} to {high} of {videos}, px"]
        for name in self.report.methods:
            parts = [f"{name:22s} {_said(self.report.estimate(name, score.name))}"]
            parts += [f"{label} {_said(self.report.estimate(name, key))}" for key, label in CLASSES.items()]
            lines.append("; ".join(parts))
        return "\n".join(lines)

    def figure(self) -> Figure:
        """Left: the error of each choice against frames ahead, with a band for the first and for the best; grey are
        the frames that some choice has seen, where it predicts nothing. Right: the error by kind of motion in the
        others. Bands and whiskers are intervals over videos; those of all would hide each other."""
        report = self.report
        series = next(one for one in report.task.series if one.name == "epe")
        places = [metric.name for metric in report.at_places(series)]
        figure, axes = panels(1, 2, ratio=0.62)
        for ax in axes.flat:
            ax.set_axis_on()
        estimates = {name: [report.estimate(name, place) for place in places] for name in report.methods}
        banded = (report.main, min(report.methods, key=lambda name: estimates[name][-1].mean))
        error_by_frame(
            {name: [0.0, *(one.mean for one in own)] for name, own in estimates.items()},
            intervals={name: _interval(estimates[name], [0.0]) for name in banded if _known(estimates[name])},
            label="mean error on visible points, px",
            ax=axes[0, 0],
        )
        axes[0, 0].axvspan(0, self.frames[0] - 1, color="0.5", alpha=0.12, lw=0)
        title = "grey: some have seen these frames; bands: 95 % over videos, of the first and the best"
        axes[0, 0].set_title(title, fontsize=8)
        by_class = {name: [report.estimate(name, key) for key in CLASSES] for name in report.methods}
        bars(
            {name: [one.mean for one in own] for name, own in by_class.items()},
            list(CLASSES.values()),
            intervals={name: _interval(own, []) for name, own in by_class.items() if _known(own)},
            label=f"mean error over frames {self.frames[0]} to {self.frames[1]}, px",
            ax=axes[0, 1],
        )
        axes[0, 1].set_title("of points that rest, follow the camera, or move on their own", fontsize=9)
        return figure


def second_frame_sweep(
    train: Any,
    test: Any,
    base: TrainConfig,
    *,
    runs: Path,
    folder: Path,
    validation: Any = None,
    task: TrajectoryTask | None = None,
    choices: Mapping[str, Sequence[int]] | None = None,
    model: Mapping[str, Any] | None = None,
    flow: OpticalFlow | None = None,
    progress: bool = True,
) -> SecondFrame:
    """Train a network for each choice of input frames, and measure all of them on the same clips and frames.

    Args:
        train, validation: as for `fit`, the same for all.
        test: clips of videos that are not trained on.
        base: how each is trained; its name begins the runs' names.
        runs: the folder of the runs.
        folder: of the report; scores are kept there.
        task: loss and augmentation; by default a plane Laplace density, as the shipped models are trained with.
        choices: name -> input frames; by default `input_choices`.
        model: further arguments of `make_model`.
        flow: that guides all of them; DIS if None. A `CachedFlow` measures each pair once.
        progress: show bars.

    Raises:
        ValueError: as `run_experiments` and `evaluate`; a test video that was trained on.
    """
    length = int(shape_of(train)["num_frames"])
    chosen = {name: tuple(frames) for name, frames in (choices or input_choices(length)).items()}
    options = {"num_frames": length, "flow": flow} | dict(model or {})
    task = task or TrajectoryTask(loss="laplace_2d", visibility_weight=0.0)
    changes = {name: {"input_frames": frames} for name, frames in chosen.items()}
    table = run_experiments(make_model, task, train, validation, changes, base, model=options, runs=runs)
    methods: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for name, row in zip(chosen, table.rows):
        if row["status"] == "diverged":
            continue
        *first, last = map(str, chosen[name])
        title = f"sees {', '.join(first)} and {last}" if first else f"sees {last} alone"
        trained, about[title] = load_checkpoint(Path(row["folder"]) / "last.pt")
        if flow is not None and isinstance(trained, GuidedTrajectories):
            trained.flow = flow
        methods[title] = trained
    methods["zero motion"] = ZeroMotion(length)
    methods["constant velocity"] = ConstantVelocity(flow, num_frames=length, input_frames=(0, 3))
    frames = max(max(one) for one in chosen.values()) + 1, length - 1
    scoring = TrajectoryTask(scoring=ScoringConfig(rebuild=(), frames=frames))
    report = evaluate(methods, scoring, test, folder=folder, about=about, pictures=False, progress=progress)
    return SecondFrame(table, report, frames)


def _said(one: Estimate) -> str:
    interval = f" [{one.low:.2f}, {one.high:.2f}]" if one.has_interval else ""
    return f"{one.mean:.2f}{interval}"


def _known(estimates: Sequence[Estimate]) -> bool:
    return all(one.has_interval for one in estimates)


def _interval(estimates: Sequence[Estimate], start: list[float]) -> tuple[list[float], list[float]]:
    return start + [one.low for one in estimates], start + [one.high for one in estimates]
