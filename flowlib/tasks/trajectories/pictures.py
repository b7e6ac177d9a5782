"""Pictures of a clip for a report: true and predicted paths on frame 0, rebuilt frames, and where they are off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int, UInt8

from flowlib import metrics
from flowlib.colours import magnitude_colours, mark_holes, nice_limit
from flowlib.geometry import Size, cell_index, rescale_points
from flowlib.tasks.protocol import Identity, Picture, Strip, StripRow
from flowlib.tasks.trajectories.case import TrajectoryCase
from flowlib.tasks.trajectories.metrics import TrajectoryAnswer
from flowlib.video import encode_image

WIDTH = 400  # pixels; small enough that a page with three clips and eight methods stays below some MB
PATHS = 220  # drawn at most, or a frame disappears under them
TRUE, PREDICTED = (86, 180, 233), (255, 148, 44)  # blue, orange (told apart by all)
READING = (
    "The clip on which the method in question errs least, the one in the middle, and the one on which it errs most (of "
    "those whose points can mostly be seen). Paths: where points go, drawn on the first picture, blue as labelled, "
    "orange as predicted; dots mark the end. Rebuilt: the last frame, made by moving the first picture's pixels; "
    "a grey veil is where nothing went, and the first picture stands in there. Point at it to see the true frame. "
    "Off by: white is right, dark red is wrong. May be off by, of methods that say how sure they are: how far each "
    "point may be off in the last frame, violet for not at all; where a method that sees two pictures is darker than "
    "one that sees one, the second picture told what can't be known from the first. Below each name: its mean error, "
    "and the PSNR "
    "of the frame it rebuilds."
)
Layer = tuple[np.ndarray, np.ndarray, tuple[int, int, int]]  # tracks [S N 2], visible [S N], colour


def strip_of(title: str, identity: Identity, case: TrajectoryCase, answers: Mapping[str, TrajectoryAnswer]) -> Strip:
    """All pictures of one clip. Its first frame has to be stored; the last one that is rebuilt is the one shown."""
    sample = case.sample
    first, frame = sample.picture(0), case.rebuilt_frames[-1] if case.rebuilt_frames else sample.clip.num_frames - 1
    chosen = spread(sample.truth.queries[:, 1:], sample.size)
    true = sample.truth.points(chosen)
    last = Picture(_jpeg(sample.picture(frame)), f"frame {frame}, as it was") if case.rebuilt_frames else None
    paths = _jpeg(draw_paths(first, [(true.tracks, true.visibility, TRUE)]))
    truth = (
        Picture(paths, "the first picture, with the labels' paths"),
        last,
        Picture(_jpeg(first), "the first picture"),
    )
    seen = metrics.visible_share(sample.truth.visibility)
    note = f"{seen:.0%} of its points can be seen" if seen == seen else "it has no points"
    note += "" if last else "; no later frame is stored"
    rows = [_row(name, answer, frame, chosen, last) for name, answer in answers.items()]
    heads = ("Paths", f"Rebuilt frame {frame}", "Off by")
    doubts = {name: doubt for name, answer in answers.items() if (doubt := answer.doubt) is not None}
    if doubts:
        limit = nice_limit(np.stack(list(doubts.values())))
        heads, truth = (*heads, f"May be off by, 0 to {limit:g} px"), (*truth, None)
        shown = {name: Picture(_jpeg(magnitude_colours(doubt, limit))) for name, doubt in doubts.items()}
        rows = [replace(row, pictures=(*row.pictures, shown.get(row.name))) for row in rows]
    return Strip(title, identity.name, identity.group, identity.where, note, heads, truth, tuple(rows), "the labels")


def _row(name: str, answer: TrajectoryAnswer, frame: int, chosen: np.ndarray, last: Picture | None) -> StripRow:
    true, ours = answer.true.points(chosen), answer.predicted.points(chosen)
    layers = [(true.tracks, true.visibility, TRUE), (ours.tracks, true.visibility, PREDICTED)]
    paths = Picture(_jpeg(draw_paths(answer.case.sample.picture(0), layers)))
    note = f"{answer.displacement['ade']:.2f} px"
    if last is None or frame not in answer.rebuilt:
        return StripRow(name, f"{note}; frame {frame} is not predicted or not stored", (paths, None, None))
    target, rebuilt, covered = answer.rebuilt[frame]
    off = Picture(_jpeg(difference_picture(target, rebuilt)))
    note = f"{note}, {metrics.psnr(target, rebuilt):.1f} dB"
    return StripRow(name, note, (paths, Picture(_jpeg(mark_holes(rebuilt, covered)), hover=last.jpeg), off))


def draw_paths(frame: UInt8[np.ndarray, "H W 3"], layers: Sequence[Layer]) -> UInt8[np.ndarray, "h w 3"]:
    """Paths on a frame scaled to `WIDTH`, a dot at each end: layers of (tracks [S N 2], visible [S N], colour).

    The first of several is broader, so that it still shows on both sides where another covers it.
    """
    import cv2

    height, width = frame.shape[:2]
    canvas = _scaled(frame)
    size = canvas.shape[0], canvas.shape[1]
    canvas = (canvas * 0.62 + 40).astype(np.uint8)  # paler and darker, so that both colours stand out
    sub = 8  # OpenCV takes fixed-point coordinates: three binary places
    for number, (tracks, visible, colour) in enumerate(layers):
        line, dot = (2, 2.6) if number == 0 and len(layers) > 1 else (1, 1.6)
        xy = np.round(rescale_points(np.asarray(tracks, np.float64), (height, width), size) * sub).astype(np.int32)
        for path, seen in zip(xy.swapaxes(0, 1), visible.T):
            end = int(np.flatnonzero(seen)[-1]) if seen.any() else 0
            cv2.polylines(canvas, [path[: end + 1]], False, colour, line, cv2.LINE_AA, 3)
            cv2.circle(canvas, path[end].tolist(), int(dot * sub), colour, -1, cv2.LINE_AA, 3)
    return canvas


def rebuilt_frames(answer: TrajectoryAnswer) -> UInt8[np.ndarray, "F H W 3"]:
    """Frame 0 of a clip and the later ones that a method predicts, rebuilt; holes hold frame 0, veiled in grey."""
    later = [answer.case.rebuild(answer.prediction, frame, "frame") for frame in answer.frames[1:]]
    return np.stack([answer.case.sample.picture(0), *(mark_holes(one.frame, one.covered) for one in later)])


def difference_picture(
    true: UInt8[np.ndarray, "H W 3"], rebuilt: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Where a rebuilt frame is off: white where equal, through orange to dark red at 100 of 255 and more."""
    off = np.abs(true.astype(np.float32) - rebuilt).mean(axis=-1) / 100
    stops = np.array([[255, 255, 255], [253, 190, 110], [217, 72, 1], [90, 10, 0]], np.float32)
    scale = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(off, scale, stops[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def spread(xy: np.ndarray, size: Size) -> Int[np.ndarray, " M"]:
    """Indices of at most about `PATHS` of the points xy [N 2], spread evenly over the frame, whatever their order."""
    step = np.sqrt(size[0] * size[1] / PATHS)
    cells = (max(1, round(size[0] / step)), max(1, round(size[1] / step)))
    return np.sort(np.unique(cell_index(xy, size, cells), axis=0, return_index=True)[1])


def _scaled(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    import cv2

    height, width = frame.shape[:2]
    way = cv2.INTER_AREA if width > WIDTH else cv2.INTER_LINEAR
    return cv2.resize(frame, (WIDTH, round(height * WIDTH / width)), interpolation=way)


def _jpeg(frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
    return encode_image(np.ascontiguousarray(_scaled(frame)), "jpeg", 85)
