"""Pictures of one clip for the report: true and predicted paths on frame 0, rebuilt frames, and where they are off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from flowlib import metrics
from flowlib.evaluation.scoring import Truth, at_queries, rebuild_frame
from flowlib.geometry import rescale_points
from flowlib.models import TrajectoryPrediction
from flowlib.video import encode_image

WIDTH = 400  # pixels; small enough that a page with three clips and eight predictors stays below some MB
PATHS = 220  # drawn at most, or a frame disappears under them
TRUE, PREDICTED, HOLE = (86, 180, 233), (255, 148, 44), (196, 190, 204)  # blue, orange (told apart by all), lilac grey


@dataclass(frozen=True)
class PredictorPictures:
    """What one predictor made of a clip; pictures are JPEG bytes.

    Attributes:
        name: of the predictor.
        paths: predicted paths over the true ones, on frame 0.
        rebuilt: the last frame, rebuilt; holes are grey. None where it wasn't predicted or stored.
        difference: how far each pixel of it is off.
        ade: its mean error on this clip, in pixels.
        psnr: of the rebuilt frame in dB; NaN where there is none.
    """

    name: str
    paths: bytes
    rebuilt: bytes | None
    difference: bytes | None
    ade: float
    psnr: float


@dataclass(frozen=True)
class ClipPictures:
    """A clip, as it is and as everyone saw it coming.

    Attributes:
        title: why it is shown: "Best", "Median", "Worst".
        clip, video: its name, and its video's.
        where: its frames' numbers in the video, as text; "" if they are not known.
        visible: share of its points that can be seen after frame 0.
        first, paths, last: frame 0, the true paths on it, and the true last frame (None if not stored), JPEG bytes.
        frame: number of the last frame.
        predictors: in the report's order.
    """

    title: str
    clip: str
    video: str
    where: str
    visible: float
    first: bytes
    paths: bytes
    last: bytes | None
    frame: int
    predictors: list[PredictorPictures]


def picture_clip(
    title: str, truth: Truth, predictions: Mapping[str, TrajectoryPrediction], where: str = ""
) -> ClipPictures:
    """All pictures of one clip. Its first frame has to be stored; the last one that is rebuilt is the one shown."""
    first = truth.picture(0)
    frame = truth.rebuilt_frames[-1] if truth.rebuilt_frames else truth.tracks.num_frames - 1
    chosen = _spread(truth)
    true_paths = truth.tracks.tracks[:, chosen], truth.tracks.visibility[:, chosen]
    last = truth.picture(frame) if truth.rebuilt_frames else None
    shown = [_picture(name, prediction, truth, frame, chosen) for name, prediction in predictions.items()]
    paths = draw_paths(first, [(*true_paths, TRUE)])
    names = title, truth.name, truth.sample["video"], where, metrics.visible_share(truth.tracks.visibility)
    return ClipPictures(*names, _jpeg(first), _jpeg(paths), _jpeg(last), frame, shown)


def _picture(name: str, prediction, truth: Truth, frame: int, chosen: np.ndarray) -> PredictorPictures:
    displacement, _ = at_queries(prediction, truth)
    frames = [0, *(index for index in prediction.frames if index > 0)]
    tracks, seen = truth.tracks.tracks[frames], truth.tracks.visibility[frames]
    ours = displacement + truth.tracks.queries[None, :, 1:]
    layers = [(tracks[:, chosen], seen[:, chosen], TRUE), (ours[:, chosen], seen[:, chosen], PREDICTED)]
    paths = draw_paths(truth.picture(0), layers)
    ade = metrics.displacement_metrics(tracks, ours, seen)["ade"]
    if not truth.rebuilt_frames or frame not in prediction.frames:
        return PredictorPictures(name, _jpeg(paths), None, None, ade, float("nan"))
    rebuilt = rebuild_frame(prediction, truth, frame, truth.config.fill)
    target = truth.picture(frame)
    psnr = metrics.psnr(target, rebuilt.frame)
    open_holes = np.where(rebuilt.covered[..., None], rebuilt.frame, np.uint8(HOLE))
    off = difference_picture(target, rebuilt.frame)
    return PredictorPictures(name, _jpeg(paths), _jpeg(open_holes), _jpeg(off), ade, psnr)


def draw_paths(frame: UInt8[np.ndarray, "H W 3"], layers: list[tuple]) -> UInt8[np.ndarray, "h w 3"]:
    """Paths on a frame scaled to `WIDTH`, a dot at each end: layers of (tracks [S N 2], visible [S N], colour)."""
    import cv2

    height, width = frame.shape[:2]
    size = (round(height * WIDTH / width), WIDTH)
    canvas = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA if width > WIDTH else cv2.INTER_LINEAR)
    canvas = (canvas * 0.62 + 40).astype(np.uint8)  # paler and darker, so that both colours stand out
    sub = 8  # OpenCV takes fixed-point coordinates: three binary places
    for tracks, visible, colour in layers:
        xy = np.round(rescale_points(np.asarray(tracks, np.float64), (height, width), size) * sub).astype(np.int32)
        for path, seen in zip(xy.swapaxes(0, 1), visible.T):
            end = int(np.flatnonzero(seen)[-1]) if seen.any() else 0
            cv2.polylines(canvas, [path[: end + 1]], False, colour, 1, cv2.LINE_AA, 3)
            cv2.circle(canvas, path[end].tolist(), int(1.6 * sub), colour, -1, cv2.LINE_AA, 3)
    return canvas


def difference_picture(true: UInt8[np.ndarray, "H W 3"], rebuilt: UInt8[np.ndarray, "H W 3"]) -> np.ndarray:
    """Where a rebuilt frame is off: white where equal, through orange to dark red at 100 of 255 and more."""
    off = np.abs(true.astype(np.float32) - rebuilt).mean(axis=-1) / 100
    stops = np.array([[255, 255, 255], [253, 190, 110], [217, 72, 1], [90, 10, 0]], np.float32)
    scale = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(off, scale, stops[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def _spread(truth: Truth) -> np.ndarray:
    """Indices of at most `PATHS` points, spread evenly over the frame, whatever order they come in."""
    xy = truth.tracks.queries[:, 1:]
    height, width = truth.size
    step = np.sqrt(height * width / PATHS)
    cells = np.floor((xy + 0.5) / step).astype(int)
    centre = np.abs((xy + 0.5) / step - cells - 0.5).sum(axis=1)
    order = np.argsort(centre, kind="stable")
    return np.sort(order[np.unique(cells[order], axis=0, return_index=True)[1]])


def _jpeg(frame: np.ndarray | None) -> bytes | None:
    import cv2

    if frame is None:
        return None
    height, width = frame.shape[:2]
    size = (WIDTH, round(height * WIDTH / width))
    way = cv2.INTER_AREA if width > WIDTH else cv2.INTER_LINEAR
    return encode_image(np.ascontiguousarray(cv2.resize(frame, size, interpolation=way)), "jpeg", 85)
