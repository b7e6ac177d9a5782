"""The figures of README and the documentation, drawn by flowlib itself, once for light pages and once for dark ones.

    python docs/figures.py              # all of them, into docs/figures/; about two minutes on one core
    python docs/figures.py prediction   # only README's

Needs nothing but the clone: the videos are the package's sample and `docs/figures/thumb.mp4`, none of which the shipped
predictor was trained on. What is measured on the way is printed; the pages quote these numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from flowlib.colours import PREDICTION, TRUTH, position_colours
from flowlib.flow import DISFlow
from flowlib.geometry import cell_grid, frame_extent, rescale_points
from flowlib.metrics import frame_metrics
from flowlib.models.baselines import ConstantVelocity, ZeroMotion
from flowlib.models.guided import load_default
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.plots import dense_field, error_by_frame, error_map, show_image, tracks_over_frame
from flowlib.sources import SAMPLE
from flowlib.trackers.lucas_kanade import LucasKanadeTracker
from flowlib.tracks import Tracks
from flowlib.video import read_frames
from flowlib.warp import dense_field as interpolated
from flowlib.warp import rebuild

FOLDER = Path(__file__).parent / "figures"
INPUTS, LAST = (0, 3), 7  # frames of a clip that are seen, and the one that is asked for
THEMES = {"light": ("#ffffff", "#1d2330"), "dark": ("#0d1117", "#e6e9ef")}  # ground and ink
ORANGE, BLUE = (np.array(colour) / 255 for colour in (PREDICTION, TRUTH))
MOVES = 6.0  # pixels until the last frame from which on a point is drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *FIGURES], help="default: all")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they go")
    options = parser.parse_args()
    for name in options.names or FIGURES:
        for theme in THEMES:
            with colours(theme):
                figure = FIGURES[name]()
                path = options.folder / f"{name}_{theme}.webp"
                figure.savefig(path, dpi=110, pil_kwargs={"quality": 88})
                plt.close(figure)
            print(path, f"{path.stat().st_size / 1000:.0f} kB")


@contextmanager
def colours(theme: str) -> Any:
    """Figures on the ground of a light or a dark page."""
    ground, ink = THEMES[theme]
    inked = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    settings: Any = {"figure.facecolor": ground, "axes.facecolor": ground, "font.size": 11} | inked
    with matplotlib.rc_context(settings):
        yield


# ------------------------------------------------------------------------------------- what is given and what is said


@cache
def clip(
    name: str, first: int, step: int, *, size: tuple[int, int] | None = None, grid: int = 48
) -> tuple[np.ndarray, Tracks]:
    """Eight frames, and where Lucas-Kanade sees a grid of points go."""
    frames = read_frames(Path(name), range(first, first + LAST * step + 1, step), size)
    queries = np.insert(cell_grid(frames.shape[1:3], grid), 0, 0, axis=1)
    return frames, LucasKanadeTracker()(frames, queries)


@cache
def predictors() -> dict[str, Any]:
    constant = ConstantVelocity(DISFlow("wide"), num_frames=LAST + 1, input_frames=INPUTS)
    return {"flowlib": load_default(), "constant velocity": constant}


def ask(predictor: Any, frames: np.ndarray) -> TrajectoryPrediction:
    images = torch.from_numpy(frames[list(predictor.input_frames)]).permute(0, 3, 1, 2)[None]
    with torch.inference_mode():
        return predictor(images)


def ends(prediction: TrajectoryPrediction, truth: Tracks) -> np.ndarray:
    """Where the points are in every frame [S N 2] by a prediction."""
    start = torch.from_numpy(truth.queries[None, :, 1:]).float()
    return truth.queries[:, 1:] + prediction.at(start)[0][0].numpy()


# ------------------------------------------------------------------------------------------------------------ figures


def prediction() -> Figure:
    """README's: two pictures given, the last one by flowlib and by constant velocity, and what happened."""
    frames, truth = clip(str(FOLDER / "thumb.mp4"), 0, 2)
    seen = truth.visibility.all(axis=0)
    moves = np.linalg.norm(truth.displacement[INPUTS[-1]], axis=-1) > MOVES
    chosen = np.flatnonzero(seen & moves)
    drawn = chosen[(np.indices((48, 48)).sum(axis=0).ravel()[chosen] % 2) == 0]  # every other, as on a chessboard
    reached = np.percentile(truth.tracks[LAST, chosen, 1], 2)
    figure, axes = plt.subplots(1, 5, figsize=(11.5, 3.35), layout=ConstrainedLayoutEngine(wspace=0.01, w_pad=0.03))
    seconds = 2 / 25
    for ax, frame in zip(axes[:2], INPUTS):
        picture(ax, frames[frame], "given", f"at {frame * seconds:.2f} s")
    for ax, (name, predictor) in zip(axes[2:4], predictors().items()):
        answer = ask(predictor, frames)
        predicted = ends(answer, truth)
        error = np.linalg.norm(predicted[LAST] - truth.tracks[LAST], axis=-1)[chosen].mean()
        rebuilt = rebuild(frames[0], answer.displacement[0, LAST].numpy(), fill="frame").frame
        picture(
            ax,
            rebuilt,
            "flowlib predicts" if name == "flowlib" else name,
            f"at {LAST * seconds:.2f} s: {error:.0f} px off",
        )
        paths(ax, predicted[:, drawn], ORANGE)
        print(f"prediction: {name} is {error:.1f} px off at the {len(chosen)} points that moved")
    picture(axes[4], frames[LAST], "what happened", f"at {LAST * seconds:.2f} s")
    paths(axes[4], truth.tracks[:, drawn], BLUE)
    for ax in axes:
        ax.set_xlim(90, 410)  # where the person is
    for ax in axes[2:]:
        ax.axhline(reached, color="white", linewidth=1.2, linestyle=(0, (4, 3)))
    axes[4].text(404, reached - 6, "as high as they got", color="white", fontsize=8.5, ha="right", va="bottom")
    return figure


def picture(ax: Axes, image: np.ndarray, title: str, text: str = "") -> None:
    show_image(image, ax=ax)
    ax.set_title(title, fontsize=12, weight="bold", parse_math=False)
    below(ax, text)


def paths(ax: Axes, tracks: np.ndarray, colour: np.ndarray) -> None:
    """Points [S N 2] in the last of the frames, and the way they came."""
    ax.add_collection(LineCollection(list(tracks.transpose(1, 0, 2)), colors=[(*colour, 0.6)], linewidths=1.0))
    ax.scatter(*tracks[-1].T, s=14, color=colour, linewidths=0)


def labels() -> Figure:
    """A grid of points, followed through a clip, and the same as a field of every pixel."""
    frames, truth = clip(str(SAMPLE / "basketball.mp4"), 8, 1, grid=28)
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
    picture(axes[0], frames[0], "frame 0", "28 × 28 points, each the middle of a cell")
    start = position_colours(truth.queries[:, 1:], frames.shape[1:3]) / 255
    axes[0].scatter(*truth.queries[:, 1:].T, s=5, c=start, linewidths=0)
    tracks_over_frame(frames[LAST], truth, size=2.6, ax=axes[1])
    hidden = 100 * (1 - truth.visibility[LAST].mean())
    picture(axes[1], frames[LAST], f"tracks until frame {LAST}", f"hollow: lost or hidden by then, {hidden:.0f} %")
    field = densify(truth, LAST, frames.shape[1:3])
    dense_field(field, ax=axes[2])
    axes[2].set_title("as a field", fontsize=12, weight="bold")
    below(axes[2], "where every pixel goes; the wheel is the key")
    return figure


def pixels() -> Figure:
    """Where a pixel is: whole numbers are centres, and rescaling keeps them right."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained", width_ratios=(2, 1))
    large, small = (4, 8), (2, 4)
    points = np.array([[1.0, 1.0], [5.0, 2.0]])
    box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.85}
    for ax, size in zip(axes, (large, small)):
        H, W = size
        drawn = rescale_points(points, large, size)
        ax.imshow(np.indices(size).sum(axis=0) % 2, cmap="Greys", vmin=-2, vmax=12)
        ax.scatter(*cell_grid(size, H, W).T, s=10, color="#5b5f6b", zorder=2)
        ax.scatter(*drawn.T, s=90, color=[ORANGE, BLUE], zorder=3)
        for (x, y), colour in zip(drawn, ("#b45309", "#1f6fb4")):
            words: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "weight": "bold"}
            ax.annotate(f"({x:g}, {y:g})", (x, y), (0, 11), color=colour, fontsize=9, bbox=box, **words)
        left, right, bottom, top = frame_extent(size)
        ax.set(xlim=(left, right), ylim=(bottom, top), xticks=range(W), yticks=range(H), xlabel="x", ylabel="y")
        ax.set_title(f"{H}×{W} pixels: x from 0 to {W - 1}", fontsize=12, weight="bold")
        ax.spines[:].set_visible(False)
    return figure


def two_frames() -> Figure:
    """What the shipped predictor sees, and all it says."""
    frames, _ = clip(str(FOLDER / "thumb.mp4"), 0, 2)
    model = predictors()["flowlib"]
    flow, answer = model.flow(frames[0], frames[INPUTS[-1]]), ask(model, frames)
    assert answer.log_scale is not None
    said = answer.displacement[0, LAST].numpy()
    figure, grid = plt.subplots(2, 2, figsize=(9, 6.0), layout="constrained")
    axes = grid.ravel()
    picture(axes[0], frames[INPUTS[-1]], "given: frames 0 and 3", "frame 3 is shown")
    for ax, field, title, text in (
        (axes[1], flow, "optical flow between them", "what has moved so far"),
        (axes[2], said, f"predicted: frame {LAST}", "where every pixel of frame 0 goes"),
    ):
        dense_field(field, limit=50, ax=ax)
        ax.set_title(title, fontsize=12, weight="bold")
        below(ax, text)
    error_map(np.exp(answer.log_scale[0, LAST].numpy()), label="expected error, px", ax=axes[3])
    axes[3].set_title("and how sure it is", fontsize=12, weight="bold")
    below(axes[3], "Laplace scale of each pixel")
    return figure


def rebuilding() -> Figure:
    """A frame rebuilt from the first one: what is moved, what stays empty, what it is compared with."""
    frames, truth = clip(str(SAMPLE / "basketball.mp4"), 8, 1)
    field = densify(truth, LAST, frames.shape[1:3])
    bare, filled = (rebuild(frames[0], field, fill=fill) for fill in ("none", "frame"))
    shown = np.where(bare.covered[..., None], bare.frame, np.uint8(185))
    score = frame_metrics(frames[LAST], bare.frame, {"covered": bare.covered})["psnr_covered"]
    figure, grid = plt.subplots(2, 2, figsize=(9, 5.9), layout="constrained")
    axes = grid.ravel()
    picture(axes[0], frames[0], "frame 0")
    empty = 100 * (1 - bare.covered.mean())
    picture(axes[1], shown, "its pixels moved by the labels", f"grey: nothing came there, {empty:.0f} %")
    picture(axes[2], filled.frame, "holes filled from frame 0", f"PSNR where covered: {score:.1f} dB")
    picture(axes[3], frames[LAST], f"the true frame {LAST}")
    return figure


def horizon() -> Figure:
    """The error against how far ahead, over clips of the sample's videos."""
    methods = predictors() | {"zero motion": ZeroMotion(LAST + 1)}
    errors: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    firsts = [(name, first) for name, last in (("basketball", 310), ("bikes", 230)) for first in range(0, last, 16)]
    for name, first in firsts:
        frames, truth = clip(str(SAMPLE / f"{name}.mp4"), first, 2, size=(180, 320))
        if truth.visibility[LAST].mean() < 0.3:
            continue  # too little left to measure on
        for method, predictor in methods.items():
            error = np.linalg.norm(ends(ask(predictor, frames), truth) - truth.tracks, axis=-1)
            errors[method].append(np.array([error[s, truth.visibility[s]].mean() for s in range(LAST + 1)]))
    curves = {name: np.mean(values, axis=0) for name, values in errors.items()}
    ends_at = {name: round(float(curve[-1]), 2) for name, curve in curves.items()}
    print(f"horizon: {len(errors['flowlib'])} clips; mean error in frame {LAST}, px: {ends_at}")
    figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    error_by_frame(curves, label="mean error, px of 180×320", axis="frame of the clip; 0 and 3 are given", ax=ax)
    ax.axvspan(0, 3, color="#8a8f9c", alpha=0.15, linewidth=0)
    return figure


def densify(tracks: Tracks, frame: int, size: tuple[int, int]) -> np.ndarray:
    """The displacement [2 H W] of every pixel, between points that are seen in a frame."""
    seen = tracks.visibility[frame]
    return interpolated(tracks.queries[seen, 1:], tracks.displacement[frame, seen], size)


def below(ax: Axes, text: str) -> None:
    ax.text(0.5, -0.03, text, transform=ax.transAxes, ha="center", va="top", fontsize=10.5)


FIGURES: dict[str, Callable[[], Figure]] = {
    "prediction": prediction,
    "pixels": pixels,
    "labels": labels,
    "two_frames": two_frames,
    "rebuilding": rebuilding,
    "horizon": horizon,
}

if __name__ == "__main__":
    main()
