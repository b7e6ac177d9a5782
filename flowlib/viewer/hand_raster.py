"""Pictures of hands without a browser: for `HandViewer.snapshot`, for films, and for notebooks that are only read.

In: a `HandScene` and a `HandView`. Out: uint8 [height width 3]. Drawn with matplotlib, loaded only then.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from flowlib.colours import FINGERS, magnitude_colours, magnitude_table, set_colour
from flowlib.viewer.hand_scene import HandScene, HandView, depth_grid
from flowlib.viewer.paper import GAP, QUIET, Paper, name_panel, plain

SHAPE = (3, 4)  # of a panel: height to width
GROUND = (239, 240, 244)  # behind the hand
CLAY = np.array((148, 152, 166))  # the depth points, in full light
BAR = 50.0  # mm, the length that is drawn beside the hand
DPI_SHARE = 72 / 100  # points of matplotlib per pixel


def draw(scene: HandScene, view: HandView, width: int = 960) -> UInt8[np.ndarray, "height width 3"]:
    """The viewer's picture of one frame, `width` pixels wide (to within a few), with title, names and legend."""
    panels = scene.panels(view)
    title = " · ".join(filter(None, (scene.title, scene.sequences[view.sequence].key)))
    paper = Paper.fitting(SHAPE, len(panels), width, title)
    cloud = _cloud(scene, view, paper) if view.cloud != "off" else None
    for index, sets in enumerate(panels):
        axes = paper.panel_axes(index)
        axes.set_xlim(-paper.panel[1] / 2, paper.panel[1] / 2)
        axes.set_ylim(paper.panel[0] / 2, -paper.panel[0] / 2)
        axes.axhspan(-paper.panel[0], paper.panel[0], color=np.array(GROUND) / 255, zorder=-2)
        if cloud is not None:
            xy, colours, size = cloud
            axes.scatter(*xy.T, c=colours, s=size, marker="s", linewidths=0, zorder=0)
        for order, which in enumerate(sets):
            _draw_skeleton(axes, scene, view, which, min(paper.panel), order > 0)
        if view.compare == "errors":
            _draw_errors(axes, scene, view, sets, min(paper.panel))
        _draw_scale(axes, scene, view, paper)
        if len(scene.names) > 1:
            name_panel(axes, " and ".join(scene.names[which] for which in sets))
    _draw_legend(paper, scene, view)
    return paper.pixels()


def _cloud(scene: HandScene, view: HandView, paper: Paper) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each depth point is (far ones first), its colour, and its area in matplotlib's points."""
    sequence, side = scene.sequences[view.sequence], min(paper.panel)
    grid = depth_grid(sequence, view.frame, scene.cube, scene.most)
    points, light = grid.points(sequence)
    if not len(points):
        return np.zeros((0, 2)), np.zeros((0, 4)), np.zeros(0)
    projected = scene.project(points, view, side)
    pixels = scene.project(np.stack([points, points + [1, 0, 0]]), replace(view, yaw=0.0, pitch=0.0), side)
    spread = np.abs(pixels[1, :, 0] - pixels[0, :, 0]) * grid.stride * points[:, 2] / sequence.camera.fx
    colour = CLAY * (0.45 + 0.55 * light[:, None]) / 255
    alpha = np.full((len(colour), 1), 1.0 if view.cloud == "shaded" else 0.25)
    order = np.argsort(-projected[:, 2], kind="stable")
    area = (np.maximum(1.5, 1.25 * spread) * DPI_SHARE) ** 2
    return projected[order, :2], np.concatenate([colour, alpha], axis=1)[order], area[order]


def _draw_skeleton(axes, scene: HandScene, view: HandView, which: int, side: float, dashed: bool) -> None:
    skeleton = scene.sequences[view.sequence].skeleton
    seen = scene.visible(view.sequence)[view.frame]
    place = scene.project(scene.joints(view.sequence, which)[view.frame], view, side)
    colours = scene.colours(view, which) / 255
    thick = side / 130
    style = (0, (2.2, 1.6)) if dashed else "solid"
    bones = [bone for bone in skeleton.bones if view.hidden == "hollow" or (seen[bone[0]] and seen[bone[1]])]
    for parent, child in sorted(bones, key=lambda bone: -place[list(bone), 2].mean()):
        ends = place[[parent, child], :2].T
        alpha = 1.0 if seen[parent] and seen[child] else 0.5
        axes.plot(*ends, color="black", alpha=0.3 * alpha, lw=thick + 1.2, solid_capstyle="round", zorder=2)
        axes.plot(*ends, color=colours[child], alpha=alpha, lw=thick, ls=style, dash_capstyle="round", zorder=3)
    marker, area = ("D" if dashed else "o"), (thick * 2.1) ** 2
    edges = {"linewidths": 0.5, "edgecolors": (0, 0, 0, 0.5)}
    axes.scatter(*place[seen, :2].T, c=colours[seen], s=area, marker=marker, zorder=4, **edges)
    if view.hidden == "hollow":
        ground = np.array(GROUND) / 255
        axes.scatter(
            *place[~seen, :2].T, c=[ground], edgecolors=colours[~seen], s=area, marker=marker, lw=1.2, zorder=4
        )


def _draw_errors(axes, scene: HandScene, view: HandView, sets: tuple[int, ...], side: float) -> None:
    """A line from every joint of the truth to the same joint of each prediction."""
    truth = scene.project(scene.joints(view.sequence, 0)[view.frame], view, side)
    for which in sets:
        if which == 0:
            continue
        other = scene.project(scene.joints(view.sequence, which)[view.frame], view, side)
        colours = magnitude_colours(scene.errors(view.sequence, which)[view.frame], scene.limit) / 255
        for start, end, colour in zip(truth, other, colours):
            axes.plot([start[0], end[0]], [start[1], end[1]], color=colour, lw=side / 200, zorder=5)


def _draw_scale(axes, scene: HandScene, view: HandView, paper: Paper) -> None:
    """A line of 50 mm, as long as in the middle of the hand."""
    (height, width), middle = paper.panel, scene.middle(view.sequence, view.frame, view.follow)
    ends = scene.project(np.stack([middle, middle + [BAR, 0, 0]]), replace(view, yaw=0.0, pitch=0.0), min(paper.panel))
    length = ends[1, 0] - ends[0, 0]
    left, y = -width / 2 + 10, height / 2 - 12
    axes.plot([left, left + length], [y, y], color=QUIET, lw=1.5)
    axes.text(left, y - 5, f"{BAR:g} mm", color=QUIET, size=7, va="bottom")


def _draw_legend(paper: Paper, scene: HandScene, view: HandView) -> None:
    middle, x = paper.legend, float(GAP)
    if view.colour == "error" or view.compare == "errors":
        x = paper.bar(x, 130, magnitude_table()[None], ("0", f"{scene.limit:g}"))
        paper.text(x, middle, "error, mm", size=8.5, color=QUIET)
    else:
        shown = view.shown or range(len(scene.names))
        keys = FINGERS if view.colour == "finger" else {scene.names[which]: set_colour(which) for which in shown}
        for name, colour in keys.items():
            paper.text(x, middle, "●", size=9, color=np.array(colour) / 255, family="DejaVu Sans")
            paper.text(x + 14, middle, plain(name), size=8.5)
            x += 30 + 7 * len(plain(name))
    frames = len(scene.sequences[view.sequence])
    paper.text(paper.size[1] - GAP, middle, f"frame {view.frame} of {frames - 1}", size=8.5, color=QUIET, ha="right")
