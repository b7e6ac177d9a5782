"""What notebooks show: clips, labels, predictions and rebuilt frames, put together from a dataset and a method.

Each function takes a dataset (and a method that predicts), picks a clip worth seeing, and returns a viewer or a
figure. Nothing is measured or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from torch.utils.data import Subset

from flowlib.clips import ClipSample
from flowlib.colours import mark_holes, nice_limit
from flowlib.dataset import TrajectoryDataset
from flowlib.dataset.about import shape_of
from flowlib.evaluation import Report
from flowlib.flow import CachedFlow, DISFlow
from flowlib.metrics import frame_metrics
from flowlib.models.baselines import ConstantVelocity
from flowlib.models.protocols import Predictor, TrajectoryPrediction, role_of
from flowlib.plots import (
    Axes,
    Figure,
    error_by_frame,
    error_map,
    learning_curves,
    magnitude_bar,
    panels,
    show_image,
    thinned,
    tracks_over_frame,
)
from flowlib.second_frame import LEAST_FRAMES, second_frame_sweep
from flowlib.shards import find_shards
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.tasks.trajectories.metrics import TrajectoryAnswer
from flowlib.tasks.trajectories.pictures import difference_picture, rebuilt_frames
from flowlib.tasks.trajectories.regions import WithRegions
from flowlib.tracks import Tracks
from flowlib.training import TrainConfig
from flowlib.training.runs import read_metrics
from flowlib.viewer import HandViewer, TrajectoryViewer, ViewedClip
from flowlib.workspace import check_name

COMPARED = 260  # where two sets are drawn over each other
SEARCHED = 60  # clips that are looked at to find the one to show
IN_SIGHT = 0.75  # share of a clip's points that are seen to its end, if it can be judged
IN_FOCUS = 0.6  # of the fine detail that is usual in a dataset, likewise
PARTS, FLAT = (
    (9, 16),
    4.0,
)  # rows and columns that detail is measured in; variance below which a part has none
TITLE: dict[str, Any] = {"fontsize": 9, "parse_math": False}


def label_viewer(folder: str | Path, index: int | None = None) -> TrajectoryViewer | None:
    """A viewer of a labelled clip: number `index` of a dataset's folder, by default the one with the highest motion.

    Returns None, and says so, where nothing is labelled yet (a chunk may have no clips).
    """
    dataset = _labelled(folder)
    if dataset is None:
        return None
    return clip_viewer(dataset, index)


def clip_viewer(dataset: TrajectoryDataset, index: int | None = None) -> TrajectoryViewer:
    """A viewer of a labelled clip, by default the one with the highest motion."""
    one = _sample(dataset, index)
    return TrajectoryViewer(one.frames, one.truth, title=_title(one), frame=len(one.frames) - 1)


def label_sheet(folder: str | Path, *, most: int = 9) -> Figure | None:
    """Up to `most` labelled clips, spread evenly over a dataset's folder: the last frame, and how points came there,
    each in the colour of how far it went."""
    dataset = _labelled(folder)
    if dataset is None:
        return None
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int))
    height, width = dataset.size
    columns = min(3, len(chosen))
    figure, axes = panels(-(-len(chosen) // columns), columns, ratio=height / width)
    tracks = [thinned(dataset.tracks(int(index))) for index in chosen]
    gone = [np.linalg.norm(one.displacement[-1], axis=-1) for one in tracks]
    limit = nice_limit(np.concatenate([far[one.visibility[-1]] for far, one in zip(gone, tracks)]))
    for ax, index, points, far in zip(axes.flat, chosen, tracks, gone):
        one = _sample(dataset, int(index))
        tracks_over_frame(one.frames[-1], points, values=far, limit=limit, size=3.0, ax=ax)
        first, *_, last = one.clip.frame_numbers
        ax.set_title(f"{one.clip.video}, frames {first} to {last}", fontsize=9, parse_math=False)
    magnitude_bar(limit, "how far a point went, px", axes=axes)
    return figure


def prediction_viewer(
    predictor: Predictor, dataset: TrajectoryDataset, index: int | None = None, *, name: str = "prediction"
) -> TrajectoryViewer:
    """A viewer of the truth beside a prediction and the frames it rebuilds, by default on the clip with the highest
    motion."""
    sample = _sample(dataset, index)
    answer = TrajectoryTask().ask(predictor, sample, name)
    seen: dict[str, Any] = {"title": _title(sample), "names": ("labels", name), "frame": len(answer.frames) - 1}
    rebuilt, frames = rebuilt_frames(answer), sample.pictures(answer.frames)
    more: dict[str, Any] = {"regions": _radii(answer), "futures": answer.predicted_futures}
    return TrajectoryViewer(frames, answer.true, answer.predicted, rebuilt=rebuilt, **more, **seen)


def _radii(answer: TrajectoryAnswer) -> np.ndarray | None:
    """[F N] pixels around a method's points within which the truth is promised to lie, in frame 0 and later ones."""
    if answer.prediction.radius is None:
        return None
    radii = answer.at_true(answer.prediction.radius)
    return np.concatenate([np.zeros_like(radii[:1]), radii])


def predictors_viewer(
    methods: Mapping[str, Predictor],
    dataset: TrajectoryDataset,
    indices: Sequence[int] | Mapping[str, int] | None = None,
    *,
    most: int = 3,
) -> TrajectoryViewer:
    """One viewer of several clips and of all that methods predict for them, beside the labels.

    Args:
        methods: name -> what predicts; the first is shown at first, the others where they are ticked.
        dataset: of labelled clips.
        indices: of the clips, or what to call each -> its index (each is shown once); by default the `most` with the
            highest motion.
        most: number of clips where no indices are given.

    Raises:
        ValueError: methods that predict other frames than the first one.
    """
    chosen = _by_motion(dataset)[:most] if indices is None else indices
    titles = chosen if isinstance(chosen, Mapping) else dict(enumerate(chosen))
    clips, first_called = [], {int(index): str(name) for name, index in reversed(list(titles.items()))}
    for index in dict.fromkeys(map(int, titles.values())):
        sample = _sample(dataset, index)
        answers = {name: TrajectoryTask().ask(method, sample, name) for name, method in methods.items()}
        first = next(iter(answers.values()))
        for name, answer in answers.items():
            if tuple(answer.frames) != tuple(first.frames):
                raise ValueError(f"{name}: expected predictions of frames {first.frames}, got {answer.frames}")
        predictions = {name: answer.predicted for name, answer in answers.items()}
        rebuilt = {name: rebuilt_frames(answer) for name, answer in answers.items()}
        frames = sample.pictures(first.frames)
        title = f"{first_called[index]}: {_title(sample)}" if isinstance(chosen, Mapping) else _title(sample)
        regions = {name: radius for name, answer in answers.items() if (radius := _radii(answer)) is not None}
        futures = {name: ways for name, answer in answers.items() if (ways := answer.predicted_futures) is not None}
        more: dict[str, Any] = {"regions": regions, "futures": futures, "title": title}
        clips.append(ViewedClip(frames, first.true, predictions, rebuilt, **more))
    return TrajectoryViewer.of(clips, truth="labels", frame=len(clips[0].frames) - 1)


def of_the_clip(methods: Mapping[str, Predictor]) -> dict[str, Predictor]:
    """The methods whose motion is that of the clip itself: networks, constant velocity as it is, the labels."""
    return {
        name: method
        for name, method in methods.items()
        if role_of(method) in ("model", "oracle")
        or isinstance(method.predictor if isinstance(method, WithRegions) else method, ConstantVelocity)
    }


def spread_figure(
    methods: Mapping[str, Predictor], dataset: TrajectoryDataset, index: int | None = None
) -> Figure | None:
    """What can't be known of a clip, by default the one with the highest motion: for each method that says how sure it
    is, how far off it may be in the last frame, and, where it sees more frames than the first one, how much of that
    one's doubt it takes away.

    With regions the radius that holds the promised share of points; else the root mean square that the method expects
    itself. Those that see fewest frames come first: what goes with the second frame could not be known from one. Where
    a method gives several futures, their part of the doubt is told, too. Returns None, and says so, where no method
    says how sure it is.
    """
    sample = _sample(dataset, index)
    ordered = sorted(methods, key=lambda name: len(methods[name].input_frames))
    answers = {name: TrajectoryTask().ask(methods[name], sample, name) for name in ordered}
    sure = {name: one for name, one in answers.items() if one.prediction.log_scale is not None}
    doubts = {name: one.doubt for name, one in sure.items() if one.doubt is not None}
    if not doubts:
        print(f"None of these says how sure it is: {', '.join(methods)}")
        return None
    height, width = sample.size
    figure, axes = panels(len(sure), 3, ratio=height / width)
    limit = nice_limit(np.stack(list(doubts.values())))
    (first, doubt), *_ = doubts.items()
    labels, last = thinned(sample.truth, COMPARED), sample.clip.num_frames - 1
    for row, (name, answer) in zip(axes, sure.items()):
        seen = "frames " * (len(methods[name].input_frames) > 1) or "frame "
        seen += " and ".join(map(str, methods[name].input_frames))
        tracks_over_frame(sample.picture(0), labels, thinned(answer.predicted, COMPARED), size=4.0, ax=row[0])
        row[0].set_title(f"{name}\nsees {seen}, {answer.displacement['ade']:.1f} px off on average", **TITLE)
        error_map(doubts[name], limit=limit, label="px", ax=row[1])
        title = f"may be off by, in frame {last}: {doubts[name].mean():.1f} px in the mean"
        row[1].set_title(title + _between(answer.prediction), **TITLE)
        if len(methods[name].input_frames) == len(methods[first].input_frames):
            row[2].set_axis_off()  # what goes there goes with no further frame
            continue
        gone = 1 - doubts[name] / np.maximum(doubt, 1e-6)
        error_map(np.clip(gone, 0, 1), limit=1.0, label="share of the doubt that goes", ax=row[2])
        share = 1 - doubts[name].mean() / doubt.mean()
        row[2].set_title(f"{100 * share:.0f} % of the doubt of “{first}” goes", **TITLE)
    return figure


def _between(prediction: TrajectoryPrediction) -> str:
    if prediction.futures is None:
        return ""
    within, between = (part[0, -1].square().mean() for part in prediction.spread())
    return f"\n{100 * float(between / (within + between)):.0f} % of the variance it expects lies between its futures"


def try_second_frame(
    splits: Mapping[str, Any],
    base: TrainConfig,
    steps: int,
    *,
    runs: Path,
    folder: Path,
    **more: Any,
) -> Figure | None:
    """`second_frame_sweep` on the splits of a dataset, with its numbers printed: the picture of it.

    Args:
        splits: "train" and "val" as `open_splits` gives them.
        base: how each is trained.
        steps: optimiser steps of each training instead; with 0, without videos to validate on, or of clips too short
            to have frames left to predict, none is made, and None returned.
        runs, folder, more: as `second_frame_sweep` takes them; flows are kept in `folder`, each pair measured once.
    """
    length = int(shape_of(splits["train"])["num_frames"])
    if not steps or "val" not in splits or length < LEAST_FRAMES:
        short = f"clips of {LEAST_FRAMES} frames or more are needed, and these have {length}"
        why = "there are no videos to validate on" if "val" not in splits else short
        print(f"No short trainings: {why if steps else 'second_frame_steps is 0'}.")
        return None
    flow = CachedFlow(DISFlow("refined"), folder / "flows")
    short = replace(base, name=f"{base.name}_second_frame", steps=steps)
    found = second_frame_sweep(splits["train"], splits["val"], short, runs=runs, folder=folder, flow=flow, **more)
    print(found.runs, found, sep="\n\n")
    return found.figure()


def prediction_figure(methods: Mapping[str, Predictor], dataset: TrajectoryDataset, index: int | None = None) -> Figure:
    """For one clip, by default the one with the highest motion: what happened, and a row for what each method says.

    On top the labels, the frame they start in and the last one, as it was. Below, for each method, its tracks over the
    labels, the last frame rebuilt from them (holes, where nothing came, hold frame 0, veiled in grey), and how far that
    is off.
    """
    sample = _sample(dataset, index)
    height, width = sample.size
    figure, axes = panels(1 + len(methods), 3, ratio=height / width)
    first, last = sample.picture(0), sample.clip.num_frames - 1
    true_frame, labels = sample.picture(last), thinned(sample.truth, COMPARED)
    seen = 100 * sample.truth.visibility[last].mean()
    tracks_over_frame(first, labels, size=4.0, ax=axes[0, 0])
    axes[0, 0].set_title(f"{_title(sample)}: the labels; {seen:.0f} % of points stay in sight", **TITLE)
    show_image(first, "frame 0 of the clip", ax=axes[0, 1])
    show_image(true_frame, f"frame {last}, as it was", ax=axes[0, 2])
    for row, (name, predictor) in zip(axes[1:], methods.items()):
        answer = TrajectoryTask().ask(predictor, sample, name)
        predicted, named = thinned(answer.predicted, COMPARED), name == next(iter(methods))
        tracks_over_frame(first, labels, predicted, size=4.0, legend=named, ax=row[0])
        row[0].set_title(f"{name}: {answer.displacement['ade']:.1f} px off on average", **TITLE)
        rebuilt = answer.case.rebuild(answer.prediction, last, "frame")
        true, made, covered = map(sample.on_picture, (true_frame, rebuilt.frame, rebuilt.covered))
        score = frame_metrics(true, made, {"covered": covered})["psnr_covered"]
        holes = 100 * (1 - rebuilt.covered.mean())
        title = f"frame {last} rebuilt: {score:.1f} dB where covered; grey, {holes:.0f} %: nothing seen to come"
        show_image(mark_holes(rebuilt.frame, rebuilt.covered), title, ax=row[1])
        show_image(difference_picture(true_frame, rebuilt.frame), "off by (white: right, dark red: wrong)", ax=row[2])
    return figure


def error_figure(report: Report) -> Axes:
    """The mean error of every method against the frames ahead, with its interval where there is one."""
    series = next(one for one in TrajectoryTask.series if one.name == "epe")
    names = [metric.name for metric in report.at_places(series)]
    errors, intervals = {}, {}
    for method in report.methods:
        estimates = [report.estimate(method, name) for name in names]
        errors[method] = [0.0] + [one.mean for one in estimates]
        if all(one.has_interval for one in estimates):
            intervals[method] = ([0.0] + [one.low for one in estimates], [0.0] + [one.high for one in estimates])
    oracles = [method for method in report.methods if report.role(method) == "oracle"]
    label = "mean error on visible points, px"
    return error_by_frame(errors, intervals=intervals, label=label, dashed=oracles)


def curves(
    folder: str | Path,
    key: str = "ade",
    label: str = "ADE on visible points, px",
    *,
    compared: Any = None,
    log: bool = True,
) -> Axes:
    """A number of a run's steps and of its validations, by step, from the run's folder; the mean error if not said.

    A long training's steps are drawn as a running mean.

    Args:
        folder, key, label: of the run; of the number.
        compared: clips whose error where nothing moves is drawn as a line: those of the validation.
        log: whether the vertical axis is logarithmic.
    """
    lines = read_metrics(folder)
    drawn = {}
    for name, logged in (("training", key), ("validation", f"validation_{key}")):
        points = [(line["step"], line[logged]) for line in lines if logged in line]
        if points:
            drawn[name] = tuple(zip(*points))
    levels = {} if compared is None else {"zero motion": motionless_error(compared)}
    return learning_curves(drawn, label=label, log=log, smooth={"training"}, levels=levels)


def motionless_error(dataset: Any) -> float:
    """The ADE in pixels of saying that nothing moves, on the visible points of up to 60 clips spread over a dataset."""
    moved, seen = 0.0, 0
    for index in _spread_over(dataset):
        truth = _tracks(dataset, index)
        moved += float((np.linalg.norm(truth.displacement[1:], axis=-1) * truth.visibility[1:]).sum())
        seen += int(truth.visibility[1:].sum())
    return moved / seen if seen else float("nan")


def save_viewer(viewer: TrajectoryViewer | HandViewer, folder: str | Path, name: str) -> Path:
    """Write a viewer as `<folder>/<name>.html`, one page that plays anywhere, and print where it is."""
    path = viewer.to_html(Path(folder).expanduser() / f"{check_name('page', name)}.html")
    print(f"a viewer that plays: {path}")
    return path


def highest_motion(dataset: TrajectoryDataset) -> int:
    """The number of the clip that moves most of those that can be judged, of up to 60 clips spread over the dataset.

    One can be judged if three quarters of its points stay in sight and its first frame is in focus, that is, half
    of its parts or more have about as much fine detail as is usual here. If none can, it is the one that moves most.
    Points that are lost on the way count as still.
    """
    return _by_motion(dataset)[0]


def highest_motion_clips(dataset: TrajectoryDataset, count: int) -> Subset:
    """The `count` clips that move most of those that can be judged, the highest first; see `highest_motion`. All of
    them, in their own order, if there are no more."""
    if count >= len(dataset):
        return Subset(dataset, range(len(dataset)))
    return Subset(dataset, _by_motion(dataset, max(SEARCHED, 2 * count))[:count])


def _by_motion(dataset: Any, most: int = SEARCHED) -> list[int]:
    indices = _spread_over(dataset, most)
    tracks = [_tracks(dataset, index) for index in indices]
    moved = [np.mean(np.linalg.norm(one.displacement[-1], axis=-1) * one.visibility[-1]) for one in tracks]
    seen = np.array([one.visibility[-1].mean() for one in tracks])
    detail = np.array([_fine_detail(_sample(dataset, index).frames[0]) for index in indices])
    clear = (seen >= IN_SIGHT) & (detail >= IN_FOCUS * np.median(detail))
    return [indices[i] for i in np.lexsort((moved, clear))[::-1]]


def _spread_over(dataset: Any, most: int = SEARCHED) -> list[int]:
    return np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int)).tolist()


def _tracks(dataset: Any, index: int) -> Tracks:
    """Of a clip, without its pictures where that can be had."""
    return dataset.tracks(index) if hasattr(dataset, "tracks") else _sample(dataset, index).truth


def _fine_detail(frame: np.ndarray) -> float:
    """The share of contrast that a blur of one pixel takes away, in the median over a picture's parts that have any:
    very little where half of it or more is out of focus."""
    grey = frame.mean(axis=-1)
    rows, columns = (min(side, count) for side, count in zip(grey.shape, PARTS))
    high, wide = grey.shape[0] // rows, grey.shape[1] // columns

    def parts(values: np.ndarray) -> np.ndarray:
        return values[: rows * high, : columns * wide].reshape(rows, high, columns, wide)

    contrast = parts(grey).var(axis=(1, 3))
    fine = parts((grey - gaussian_filter(grey, 1)) ** 2).mean(axis=(1, 3))
    told = contrast >= FLAT
    return float(np.median(fine[told] / contrast[told])) if told.any() else 0.0


def _labelled(folder: str | Path) -> TrajectoryDataset | None:
    folder = Path(folder).expanduser()
    if not any(find_shards(folder)[0].values()):
        print(f"{folder}: nothing is labelled yet")
        return None
    return TrajectoryDataset(folder, split="all")


def _sample(dataset: Any, index: int | None) -> ClipSample:
    """A clip, by default the one with the highest motion."""
    number = highest_motion(dataset) if index is None else index
    return ClipSample.of(dataset[number], number)


def _title(sample: ClipSample) -> str:
    return f"{sample.clip.video}, frame {sample.clip.first_frame}"
