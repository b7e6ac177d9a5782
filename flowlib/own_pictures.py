"""Predicting on one's own pictures: one picture, two, or a video in; a page that plays, a figure, a film, frames out.

Needs no dataset and, with the predictor that comes with flowlib, no training. The command, the notebook and a script
all use `predict`. Nothing is measured: there are no labels to compare with.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import UInt8

from flowlib.clips import Clip, ClipSample
from flowlib.geometry import Size, cell_grid
from flowlib.models.guided import load_default
from flowlib.models.protocols import Predictor
from flowlib.shots import cuts_among
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.tasks.trajectories.metrics import TrajectoryAnswer
from flowlib.tasks.trajectories.pictures import rebuilt_frames
from flowlib.tracks import Tracks
from flowlib.video import decode_image, encode_image, read_frames, resize_frame
from flowlib.video.images import is_picture
from flowlib.viewer import TrajectoryViewer
from flowlib.workspace import atomic_write

if TYPE_CHECKING:
    from flowlib.plots import Figure

logger = logging.getLogger(__name__)

SCALE = 20.0  # pixels at which the colours of a displacement are full: the same for all pictures, so that they compare
FILM_FPS = 4.0
MOST = 640  # pixels of the longer side
ALIKE = 1.02  # ratio of two pictures' shapes up to which they count as one


@dataclass(frozen=True, eq=False)
class OwnPrediction:
    """What a method says of some pictures.

    Attributes:
        sample: the pictures as a clip, with a grid of points of which only the start is known.
        answer: the prediction, and the same at these points.
    """

    sample: ClipSample
    answer: TrajectoryAnswer

    def __repr__(self) -> str:
        height, width = self.sample.size
        said = f"{self.sample.clip.video}: frame {self.answer.frames[-1]} of {width}×{height} predicted"
        return f"{said}, of which nothing comes to {100 * self.holes:.0f} % (grey in the pictures)"

    @cached_property
    def rebuilt(self) -> UInt8[np.ndarray, "F H W 3"]:
        """The predicted frames, made by moving frame 0; holes are filled with it and veiled in grey."""
        return rebuilt_frames(self.answer)

    @cached_property
    def viewer(self) -> TrajectoryViewer:
        """Where the points go, over the pictures where all frames have one, else over the rebuilt ones."""
        whole = all(map(self.sample.has, self.answer.frames))
        frames, behind = (self.sample.pictures(self.answer.frames), self.rebuilt) if whole else (self.rebuilt, None)
        last = len(frames) - 1
        more: dict[str, Any] = {"title": self.sample.clip.video}
        if (futures := self.answer.predicted_futures) is not None:
            more |= {"futures": futures, "future": "weighted"}
        return TrajectoryViewer(frames, self.answer.predicted, rebuilt=behind, frame=last, **more)

    @property
    def holes(self) -> float:
        """The share of the last frame that nothing is moved to."""
        last = self.answer.frames[-1]
        return float(1 - self.answer.case.rebuild(self.answer.prediction, last, "frame").covered.mean())

    def figure(self, scale: float = SCALE) -> Figure:
        """The picture with the points' ways, the displacement in colours, and the last frame, rebuilt.

        Args:
            scale: pixels at which the colours are full; the same for all pictures unless you say otherwise.
        """
        from flowlib import plots

        prediction, last = self.answer.prediction, self.answer.frames[-1]
        first, moved = self.sample.picture(0), prediction.displacement[0, -1].numpy()
        figure, axes = plots.panels(1, 3, ratio=first.shape[0] / first.shape[1])
        plots.tracks_over_frame(first, plots.thinned(self.answer.predicted), ax=axes[0, 0])
        largest = float(np.percentile(np.linalg.norm(moved, axis=0), 98))
        said = f"displacement, colours full at {scale:g} px (98 % of it is below {largest:.1f} px)"
        plots.dense_field(moved, limit=scale, ax=axes[0, 1])
        plots.show_image(
            self.rebuilt[-1],
            f"frame {last} rebuilt; grey, {100 * self.holes:.0f} %: nothing seen to come",
            ax=axes[0, 2],
        )
        for ax, title in zip(axes[0], (f"frame 0, and where its points go by frame {last}", said)):
            ax.set_title(title, fontsize=9)
        return figure

    def save(self, folder: str | Path, scale: float = SCALE) -> list[Path]:
        """Write prediction.html (a page that plays), prediction.png (the figure), prediction.mp4, rebuilt/000.png, ….

        Returns:
            The files, in this order.
        """
        from flowlib import plots

        folder = Path(folder).expanduser()
        page, film = self.viewer.to_html(folder / "prediction.html"), folder / "prediction.mp4"
        drawn = self.figure(scale)
        with atomic_write(folder / "prediction.png") as temporary:
            drawn.savefig(temporary, format="png", dpi=100)
        plots.plt.close(drawn)  # else a notebook would show it once more
        self.viewer.to_video(film, fps=FILM_FPS, progress=False)
        pictures = [folder / "rebuilt" / f"{number:03d}.png" for number in range(len(self.rebuilt))]
        for path, frame in zip(pictures, self.rebuilt):
            with atomic_write(path) as temporary:
                temporary.write_bytes(encode_image(frame, "png"))
        return [page, folder / "prediction.png", film, *pictures]


def predict(
    pictures: str | Path | Sequence[str | Path],
    model: Predictor | None = None,
    *,
    size: Size | None = None,
    first_frame: int = 0,
    grid: int = 32,
) -> OwnPrediction:
    """Where everything goes in one's own pictures.

    Args:
        pictures: one picture, two, or a video. One alone stands for all that the model sees.
        model: by default the predictor that comes with flowlib, for one picture or for two.
        size: (height, width) they are brought to; by default as they are, but no side longer than 640.
        first_frame: of the video.
        grid: grid × grid points are drawn.

    Raises:
        FileNotFoundError, ValueError: a file that is not there or is neither picture nor video; pictures of different
            shapes, or another number of them than the model sees.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> _ = path.write_bytes(encode_image(np.zeros((48, 64, 3), np.uint8), "png"))
    >>> predict([path, path]).rebuilt.shape
    (8, 48, 64, 3)
    """
    paths = [Path(pictures)] if isinstance(pictures, (str, Path)) else [Path(one) for one in pictures]
    if not paths:
        raise ValueError("pictures: expected a picture, two of them, or a video, got none")
    size = size or own_size(paths[0], first_frame)
    if model is None:
        shipped: Any = load_default(1 if len(paths) == 1 and is_picture(paths[0].name) else 2)
        model = cast(Predictor, shipped)
    return predict_clip(model, own_clip(paths, model.input_frames, size, _length(model), first_frame, grid))


def predict_clip(model: Predictor, sample: ClipSample) -> OwnPrediction:
    """The same of a clip that is at hand, such as one of a dataset; its labels are not looked at."""
    return OwnPrediction(sample, TrajectoryTask().ask(model, sample, "prediction"))


def own_sample(paths: Sequence[Path], model: Predictor, instead: Any) -> ClipSample:
    """One's own pictures as a clip that a model takes; a sample of a dataset `instead`, where there are none.

    Raises:
        FileNotFoundError, ValueError: as `own_clip`.
    """
    if not paths:
        return ClipSample.of(instead)
    return own_clip(paths, model.input_frames, own_size(paths[0]), _length(model))


def _length(model: Predictor) -> int:
    """Frames that a model predicts; at least those it sees, and one more."""
    return int(getattr(model, "num_frames", max(model.input_frames) + 2))


def check_pictures(text: str) -> list[Path]:
    """The files that a parameter names, divided by commas, each of them opened: a mistake is told before the work.

    Raises:
        FileNotFoundError, ValueError: a file that is not there, or is neither picture nor video.
    """
    paths = [Path(name.strip()) for name in text.split(",") if name.strip()]
    for path in paths:
        own_size(path)
    return paths


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
        FileNotFoundError, ValueError: a file that is not there or no picture or video, their number doesn't fit, or two
            pictures have different shapes.
    """
    asked, paths = tuple(input_frames), [path.expanduser() for path in paths]
    num_frames = num_frames or max(asked) + 1
    if len(paths) == 1 and not is_picture(paths[0].name):
        kept, before = tuple(range(num_frames)), min(max(first_frame, 0), 2)
        frames = _own_frames(paths[0], first_frame - before, num_frames + before, size)
        for cut in cuts_among(frames):
            if 0 < cut - before <= max(asked):
                seen = f"frames {', '.join(str(first_frame + frame) for frame in asked)}"
                at, better = first_frame + cut - before, "choose another first_frame"
                logger.warning("%s: another scene begins at frame %d, among %s: %s", paths[0], at, seen, better)
        frames = frames[before:]
    elif len(paths) in (1, len(asked)):
        pictures = [_own_picture(path) for path in paths]
        shapes = [picture.shape[1] / picture.shape[0] for picture in pictures]
        for path, picture, shape in zip(paths, pictures, shapes):
            if max(shape, shapes[0]) > ALIKE * min(shape, shapes[0]):
                expected, got = (f"{one.shape[1]}×{one.shape[0]}" for one in (pictures[0], picture))
                raise ValueError(
                    f"pictures: expected all of one shape, {expected} as {paths[0].name}, {path} has {got}"
                )
        kept, frames = asked, np.stack([resize_frame(one, size) for one in pictures] * (len(asked) // len(paths)))
    else:
        raise ValueError(f"pictures: expected 1 or {len(asked)}, for frames {asked}, got {len(paths)}")
    queries = np.insert(cell_grid(size, grid), 0, 0, axis=1)
    name = ", ".join(path.name for path in paths)
    clip = Clip(name, "", first_frame, 1, num_frames, size, 0.0, first_frame + num_frames, len(queries), kept)
    return ClipSample(clip, frames, Tracks.still(queries, num_frames))


def own_size(path: Path, first_frame: int = 0, most: int = MOST) -> Size:
    """(height, width) of a picture or of a video's frame, as multiples of 8, so that no side is longer than `most`.

    Raises:
        FileNotFoundError, ValueError: as `own_clip`.
    """
    path = path.expanduser()
    picture = _own_picture(path) if is_picture(path.name) else _own_frames(path, first_frame, 1, None)[0]
    height, width = picture.shape[:2]
    scale = min(1.0, most / max(height, width))
    return max(16, round(height * scale / 8) * 8), max(16, round(width * scale / 8) * 8)


def _own_picture(path: Path) -> np.ndarray:
    _check_there(path)
    try:
        return decode_image(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"pictures: expected a picture (JPEG, PNG, WebP, BMP), {path} is none") from error


def _own_frames(path: Path, first_frame: int, count: int, size: Size | None) -> np.ndarray:
    _check_there(path)
    return read_frames(path, range(first_frame, first_frame + count), size)


def _check_there(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"pictures: expected a picture or a video, found nothing at {path}")
