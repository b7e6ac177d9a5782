"""What notebooks show: clips, labels, predictions and rebuilt frames, put together from a dataset and a method.

Each function takes a dataset (and a method that predicts), picks a clip worth seeing, and returns a viewer or a
figure. Nothing is measured or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from flowlib.clips import Clip, ClipSample
from flowlib.dataset import TrajectoryDataset
from flowlib.evaluation import Report
from flowlib.geometry import Size, cell_grid
from flowlib.metrics import frame_metrics
from flowlib.models.protocols import Predictor, device_of
from flowlib.plots import (
    Axes,
    Figure,
    dense_field,
    error_by_frame,
    learning_curves,
    panels,
    show_image,
    tracks_over_frame,
)
from flowlib.shards import find_shards
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.tasks.trajectories.metrics import TrajectoryAnswer
from flowlib.tracks import Tracks
from flowlib.training.runs import read_metrics
from flowlib.video import decode_image, read_frames, resize_frame
from flowlib.video.images import is_picture
from flowlib.viewer import HandViewer, TrajectoryViewer, ViewedClip
from flowlib.warp import Fill, rebuild
from flowlib.workspace import check_name

MOST_POINTS = 900  # of a static picture; more than that hide the frame


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
    """Up to `most` labelled clips, spread evenly over a dataset's folder: the last frame, and how points came there."""
    dataset = _labelled(folder)
    if dataset is None:
        return None
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int))
    height, width = dataset.size
    columns = min(3, len(chosen))
    figure, axes = panels(-(-len(chosen) // columns), columns, ratio=height / width)
    for ax, index in zip(axes.flat, chosen):
        one = _sample(dataset, int(index))
        tracks_over_frame(one.frames[-1], thinned(one.truth), ax=ax)
        ax.set_title(f"{one.clip.video}, frame {one.clip.frame_numbers[-1]}", fontsize=8, parse_math=False)
    return figure


def prediction_viewer(
    predictor: Predictor, dataset: TrajectoryDataset, index: int | None = None, *, name: str = "prediction"
) -> TrajectoryViewer:
    """A viewer of the truth beside a prediction and the frames it rebuilds, by default on the clip with the highest
    motion."""
    sample = _sample(dataset, index)
    answer = _answer(predictor, sample, name)
    seen: dict[str, Any] = {"title": _title(sample), "names": ("labels", name), "frame": len(answer.frames) - 1}
    rebuilt, frames = _rebuilt(answer, "none"), sample.pictures(answer.frames)
    return TrajectoryViewer(frames, answer.true, answer.predicted, rebuilt=rebuilt, **seen)


def predictors_viewer(
    methods: Mapping[str, Predictor], dataset: TrajectoryDataset, indices: Sequence[int] | None = None, *, most: int = 3
) -> TrajectoryViewer:
    """One viewer of several clips and of all that methods predict for them, beside the labels.

    Args:
        methods: name -> what predicts; the first is shown at first, the others where they are ticked.
        dataset: of labelled clips.
        indices: of the clips; by default the `most` with the highest motion.
        most: number of clips where no indices are given.

    Raises:
        ValueError: methods that predict other frames than the first one.
    """
    clips = []
    for index in _by_motion(dataset)[:most] if indices is None else indices:
        sample = _sample(dataset, int(index))
        answers = {name: _answer(method, sample, name) for name, method in methods.items()}
        first = next(iter(answers.values()))
        for name, answer in answers.items():
            if tuple(answer.frames) != tuple(first.frames):
                raise ValueError(f"{name}: expected predictions of frames {first.frames}, got {answer.frames}")
        predictions = {name: answer.predicted for name, answer in answers.items()}
        rebuilt = {name: _rebuilt(answer, "none") for name, answer in answers.items()}
        frames = sample.pictures(first.frames)
        clips.append(ViewedClip(frames, first.true, predictions, rebuilt, title=_title(sample)))
    return TrajectoryViewer.of(clips, truth="labels")


def own_viewer(predictor: Predictor, sample: ClipSample) -> tuple[TrajectoryViewer, np.ndarray]:
    """A viewer of a prediction without labels, and the frames that it rebuilds [F H W 3], holes filled with frame 0.

    Shown over the sample's pictures where it has them all, else over the rebuilt ones.
    """
    answer = _answer(predictor, sample, "prediction")
    rebuilt = _rebuilt(answer, "frame")
    whole = all(map(sample.has, answer.frames))
    frames, behind = (sample.pictures(answer.frames), rebuilt) if whole else (rebuilt, None)
    last = len(frames) - 1
    return TrajectoryViewer(frames, answer.predicted, rebuilt=behind, title="prediction", frame=last), rebuilt


def prediction_figure(methods: Mapping[str, Predictor], dataset: TrajectoryDataset, index: int | None = None) -> Figure:
    """For one clip and each method a row: its tracks over the labels, the frame it rebuilds, and the true one.

    The rebuilt frame is the clip's last; holes (nothing came there) are black. By default it is the clip with the
    highest motion.
    """
    sample = _sample(dataset, index)
    height, width = sample.size
    figure, axes = panels(len(methods), 3, ratio=height / width)
    last = sample.clip.num_frames - 1
    true_frame = sample.picture(last)
    for row, (name, predictor) in zip(axes, methods.items()):
        answer = _answer(predictor, sample, name)
        labels, predicted = thinned(sample.truth), thinned(answer.predicted)
        tracks_over_frame(sample.picture(0), labels, predicted, ax=row[0])
        row[0].set_title(f"{name}: tracks over frame 0", fontsize=9, parse_math=False)
        rebuilt = answer.case.rebuild(answer.prediction, last, "none")
        score = frame_metrics(true_frame, rebuilt.frame, {"covered": rebuilt.covered})["psnr_covered"]
        holes = 100 * (1 - rebuilt.covered.mean())
        title = f"rebuilt frame {last}: PSNR {score:.1f} dB where covered, holes {holes:.0f} %"
        show_image(rebuilt.frame, title, ax=row[1])
        show_image(true_frame, f"true frame {last} of {sample.clip.video}", ax=row[2])
    return figure


def error_figure(report: Report) -> Axes:
    """The mean error of every method against the frames ahead, with its interval where there is one."""
    (series,) = TrajectoryTask.series
    names = [metric.name for metric in report.at_places(series)]
    errors, intervals = {}, {}
    for method in report.methods:
        estimates = [report.estimate(method, name) for name in names]
        errors[method] = [0.0] + [one.mean for one in estimates]
        if all(one.has_interval for one in estimates):
            intervals[method] = ([0.0] + [one.low for one in estimates], [0.0] + [one.high for one in estimates])
    return error_by_frame(errors, intervals=intervals, label="mean error on visible points, px")


def predict_pictures(
    predictor: Predictor, pictures: str, size: Size, *, dataset: TrajectoryDataset | None = None
) -> Figure:
    """What a method says of your own picture, or pictures: where everything goes, and the last frame it rebuilds.

    Args:
        predictor: sees as many pictures as it has input frames; a single one is repeated for all of them.
        pictures: files, divided by commas; "" for the input frames of the dataset's clip with the highest motion.
        size: (height, width) the pictures are brought to, evenly cut.
        dataset: where "" takes its frames from.

    Raises:
        FileNotFoundError, ValueError: a file that is not there or no picture, or their number doesn't fit; neither
            pictures nor a dataset.
    """
    if not pictures and dataset is None:
        raise ValueError("pictures: expected files, or a dataset to take the frames of a clip from, got neither")
    asked, names = tuple(predictor.input_frames), pictures.split(",")
    sample = own_clip([Path(name.strip()) for name in names], asked, size) if pictures else _sample(dataset, None)
    with torch.inference_mode():
        prediction = predictor(sample.images(asked).to(device_of(predictor)))
    displacement, logits = (
        part[0, -1].cpu().numpy() for part in (prediction.displacement, prediction.visibility_logits)
    )
    first = sample.picture(asked[0])
    figure, axes = panels(1, 3, ratio=first.shape[0] / first.shape[1])
    show_image(first, "frame 0", ax=axes[0, 0])
    dense_field(displacement, ax=axes[0, 1]).set_title(f"where it goes by frame {prediction.frames[-1]}", fontsize=9)
    rebuilt = rebuild(first, displacement, logits, fill="frame").frame
    show_image(rebuilt, f"frame {prediction.frames[-1]}, rebuilt", ax=axes[0, 2])
    return figure


def own_clip(
    paths: Sequence[Path],
    input_frames: Sequence[int],
    size: Size,
    num_frames: int = 0,
    first_frame: int = 0,
    grid: int = 32,
) -> ClipSample:
    """Your own pictures or video as a clip, with a grid of points of which only the start is known: they seem to rest.

    Args:
        paths: a picture for each of `input_frames`, one for all of them, or a video (from `first_frame` on).
        size: (height, width) they are brought to, evenly cut.
        num_frames: of the clip; 0 for as many as `input_frames` need.

    Raises:
        FileNotFoundError, ValueError: a file that is not there or no picture or video, or their number doesn't fit.
    """
    asked, paths = tuple(input_frames), [path.expanduser() for path in paths]
    num_frames = num_frames or max(asked) + 1
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"pictures: expected a picture, found nothing at {path}")
    if len(paths) == 1 and not is_picture(paths[0].name):
        kept, frames = (
            tuple(range(num_frames)),
            read_frames(paths[0], range(first_frame, first_frame + num_frames), size),
        )
    elif len(paths) in (1, len(asked)):
        pictures = [_own_picture(path, size) for path in paths]
        kept, frames = asked, np.stack(pictures * (len(asked) // len(paths)))
    else:
        raise ValueError(f"pictures: expected 1 or {len(asked)}, for frames {asked}, got {len(paths)}")
    queries = np.insert(cell_grid(size, grid), 0, 0, axis=1)
    clip = Clip("prediction", "", 0, 1, num_frames, size, 0.0, num_frames, len(queries), kept)
    return ClipSample(clip, frames, Tracks.still(queries, num_frames))


def own_size(path: Path, first_frame: int = 0, most: int = 640) -> Size:
    """(height, width) of a picture or of a video's frame, as multiples of 8, so that no side is longer than `most`.

    Raises:
        FileNotFoundError, ValueError: as `own_clip`.
    """
    path = path.expanduser()
    if not path.exists():
        raise FileNotFoundError(f"pictures: expected a picture or a video, found nothing at {path}")
    if is_picture(path.name):
        height, width = _own_picture(path, None).shape[:2]
    else:
        height, width = read_frames(path, [first_frame])[0].shape[:2]
    scale = min(1.0, most / max(height, width))
    return max(16, round(height * scale / 8) * 8), max(16, round(width * scale / 8) * 8)


def _own_picture(path: Path, size: Size | None) -> np.ndarray:
    try:
        return resize_frame(decode_image(path.read_bytes()), size)
    except ValueError as error:
        raise ValueError(f"pictures: expected a picture (JPEG, PNG, WebP, BMP), {path} is none") from error


def curves(folder: str | Path, key: str = "ade", label: str = "ADE on visible points, px", *, log: bool = True) -> Axes:
    """A number of a run's steps and of its validations, by step, from the run's folder; the mean error if not said."""
    lines = read_metrics(folder)
    drawn = {}
    for name, logged in (("training", key), ("validation", f"validation_{key}")):
        points = [(line["step"], line[logged]) for line in lines if logged in line]
        if points:
            drawn[name] = tuple(zip(*points))
    return learning_curves(drawn, label=label, log=log)


def save_viewer(viewer: TrajectoryViewer | HandViewer, folder: str | Path, name: str) -> Path:
    """Write a viewer as `<folder>/<name>.html`, one page that plays anywhere, and print where it is."""
    path = viewer.to_html(Path(folder).expanduser() / f"{check_name('page', name)}.html")
    print(f"a viewer that plays: {path}")
    return path


def highest_motion(dataset: TrajectoryDataset) -> int:
    """The number of the clip whose visible points move most, of up to 60 clips spread over the dataset.

    Points that are lost on the way count as still, so that a clip the tracker could follow is preferred.
    """
    return _by_motion(dataset)[0]


def highest_motion_clips(dataset: TrajectoryDataset, count: int) -> Subset:
    """The `count` clips whose points move most, the highest first; see `highest_motion`."""
    return Subset(dataset, _by_motion(dataset)[:count])


def _by_motion(dataset: TrajectoryDataset, most: int = 60) -> list[int]:
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int))
    tracks = [dataset.tracks(int(i)) for i in indices]
    moved = [np.mean(np.linalg.norm(one.displacement[-1], axis=-1) * one.visibility[-1]) for one in tracks]
    return [int(indices[i]) for i in np.argsort(moved, kind="stable")[::-1]]


def thinned(tracks: Tracks) -> Tracks:
    """At most some 900 points, for a static picture: every k-th row and column of a grid, else every k-th."""
    step = int(np.ceil(np.sqrt(tracks.num_points / MOST_POINTS)))
    if step <= 1:
        return tracks
    across = int((tracks.queries[:, 2] == tracks.queries[0, 2]).sum())  # of a grid's first row
    across = across if across > 1 else int(np.sqrt(tracks.num_points))  # a grid whose points are jittered is square
    if tracks.num_points % across:
        return tracks.points(slice(None, None, step * step))
    rows = np.arange(tracks.num_points).reshape(-1, across)
    return tracks.points(rows[step // 2 :: step, step // 2 :: step].ravel())


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


def _rebuilt(answer: TrajectoryAnswer, fill: Fill) -> np.ndarray:
    """Frame 0 and the later ones that are predicted [F H W 3], rebuilt."""
    later = [answer.case.rebuild(answer.prediction, frame, fill).frame for frame in answer.frames[1:]]
    return np.stack([answer.case.sample.picture(0), *later])


def _answer(predictor: Predictor, sample: ClipSample, name: str) -> TrajectoryAnswer:
    task = TrajectoryTask()
    case = task.case(sample)
    return task.answer(task.predict(predictor, case, name), case)
