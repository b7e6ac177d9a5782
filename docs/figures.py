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

from flowlib.colours import PREDICTION, TRUTH
from flowlib.geometry import cell_grid
from flowlib.models.baselines import ConstantVelocity
from flowlib.models.guided import load_default
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.plots import show_image
from flowlib.trackers.lucas_kanade import LucasKanadeTracker
from flowlib.tracks import Tracks
from flowlib.video import read_frames
from flowlib.warp import rebuild

FOLDER = Path(__file__).parent / "figures"
INPUTS, LAST = (0, 3), 7  # frames of a clip that are seen, and the one that is asked for
THEMES = {"light": ("#ffffff", "#1d2330"), "dark": ("#0d1117", "#e6e9ef")}  # ground and ink
ORANGE, BLUE = (np.array(colour) / 255 for colour in (PREDICTION, TRUTH))
MOVES = 6.0  # pixels until the last frame from which on a point is drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *FIGURES], help="default: all")
    for name in parser.parse_args().names or FIGURES:
        for theme in THEMES:
            with colours(theme):
                figure = FIGURES[name]()
                path = FOLDER / f"{name}_{theme}.webp"
                figure.savefig(path, dpi=110, pil_kwargs={"quality": 88})
                plt.close(figure)
            print(path.relative_to(FOLDER.parents[1]), f"{path.stat().st_size / 1000:.0f} kB")


@contextmanager
def colours(theme: str) -> Any:
    """Figures on the ground of a light or a dark page."""
    ground, ink = THEMES[theme]
    inked = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    with matplotlib.rc_context({"figure.facecolor": ground, "axes.facecolor": ground, "font.size": 11} | inked):
        yield


# ------------------------------------------------------------------------------------- what is given and what is said


@cache
def clip(name: str, first: int, step: int, size: tuple[int, int] | None = None) -> tuple[np.ndarray, Tracks]:
    """Eight frames, and where Lucas-Kanade sees a grid of points go."""
    frames = read_frames(Path(name), range(first, first + LAST * step + 1, step), size)
    queries = np.insert(cell_grid(frames.shape[1:3], 48), 0, 0, axis=1)
    return frames, LucasKanadeTracker()(frames, queries)


@cache
def predictors() -> dict[str, Any]:
    return {"flowlib": load_default(), "constant velocity": ConstantVelocity(num_frames=LAST + 1, input_frames=INPUTS)}


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
    figure, axes = plt.subplots(1, 5, figsize=(15, 4.0), layout="constrained")
    figure.get_layout_engine().set(wspace=0.01, w_pad=0.03)
    seconds = 2 / 25
    for ax, frame in zip(axes[:2], INPUTS):
        picture(ax, frames[frame], f"given: {'first' if frame == 0 else 'second'} picture", f"{frame * seconds:.2f} s")
    for ax, (name, predictor) in zip(axes[2:4], predictors().items()):
        answer = ask(predictor, frames)
        predicted = ends(answer, truth)
        error = np.linalg.norm(predicted[LAST] - truth.tracks[LAST], axis=-1)[chosen].mean()
        rebuilt = rebuild(frames[0], answer.displacement[0, LAST].numpy(), fill="frame").frame
        picture(ax, rebuilt, f"predicted: {name}", f"{LAST * seconds:.2f} s: {error:.0f} px off")
        paths(ax, predicted[:, drawn], ORANGE)
        print(f"prediction: {name} is {error:.1f} px off at the {len(chosen)} points that moved")
    picture(axes[4], frames[LAST], "what happened", f"{LAST * seconds:.2f} s")
    paths(axes[4], truth.tracks[:, drawn], BLUE)
    for ax in axes:
        ax.set_xlim(90, 410)  # where the person is
    for ax in axes[2:]:
        ax.axhline(reached, color="white", linewidth=1.2, linestyle=(0, (4, 3)))
    axes[4].text(405, reached - 5, "as high as they got", color="white", fontsize=9.5, ha="right", va="bottom")
    return figure


def picture(ax: Axes, image: np.ndarray, title: str, below: str = "") -> None:
    show_image(image, ax=ax)
    ax.set_title(title, fontsize=12, weight="bold", parse_math=False)
    ax.text(0.5, -0.03, below, transform=ax.transAxes, ha="center", va="top", fontsize=10.5)


def paths(ax: Axes, tracks: np.ndarray, colour: np.ndarray) -> None:
    """Points [S N 2] in the last of the frames, and the way they came."""
    ax.add_collection(LineCollection(list(tracks.transpose(1, 0, 2)), colors=[(*colour, 0.6)], linewidths=1.0))
    ax.scatter(*tracks[-1].T, s=14, color=colour, linewidths=0)


FIGURES: dict[str, Callable[[], Figure]] = {"prediction": prediction}

if __name__ == "__main__":
    main()
