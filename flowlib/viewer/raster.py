"""Pictures of a scene without a browser: for `snapshot`, for films, and for notebooks that are only read.

In: a `ViewerScene` and a `View`. Out: uint8 [height width 3]. Drawn with matplotlib, loaded only then.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from flowlib.colours import NEVER, OUTSIDE, direction_table, magnitude_table, position_table, set_colour
from flowlib.geometry import frame_extent
from flowlib.viewer.paper import DPI, GAP, QUIET, Paper, name_panel, plain
from flowlib.viewer.scene import MOST_FUTURES, MOST_REGIONS, View, ViewerScene, future_opacities, shown_points

CAPTIONS = {
    "position": "start position (left to right, darker downwards)",
    "displacement": "displacement, px",
    "direction": "displacement, px (right = yellow, left = blue, down = darker)",
    "speed": "speed, px / frame",
    "error": "error, px",
    "occlusion": "frame of first occlusion (grey: never)",
    "confidence": "confidence",
    "region": "inside its region, or outside",
}
MARKERS, SIGNS = "oDs", "●◆■"  # of overlaid sets, in a circle
UNSEEN = 0.3  # opacity of the error vectors of hidden points


def draw(scene: ViewerScene, view: View, width: int = 960) -> UInt8[np.ndarray, "height width 3"]:
    """The viewer's picture of one frame, `width` pixels wide (to within a few), with title, names and legend."""
    limits = scene.limits
    here = scene.sampled(view.sample) if view.future == "one" else scene
    panels = scene.panels(view.compare, view.shown)
    paper = Paper.fitting(scene.size, len(panels), width, scene.title)
    for index, sets in enumerate(panels):
        _draw_panel(paper.panel_axes(index), here, view, sets, limits)
    _draw_legend(paper, here, view, limits)
    return paper.pixels()


def _draw_panel(axes, scene: ViewerScene, view: View, sets: tuple[int, ...], limits: dict[str, float]) -> None:
    shrinks = axes.bbox.width < scene.size[1]
    view = replace(view, point_size=view.point_size or _fitting_size(axes, scene, view))
    picture = scene.background(view.background, view.frame, sets)
    axes.imshow(picture, interpolation="antialiased" if shrinks else "bilinear")
    coloured = [(which, _set_colours(scene, view, sets, which, limits)) for which in sets]
    if view.compare == "errors" and len(sets) == 2:
        _draw_errors(axes, scene, view, sets[1], coloured[1][1])
    else:
        for which, colours in coloured:
            _draw_futures(axes, scene, view, which, colours)
            _draw_trails(axes, scene, view, which, colours)
        for which, colours in coloured:
            _draw_points(axes, scene, view, which, colours, MARKERS[sets.index(which) % len(MARKERS)])
        for which, _ in coloured:
            _draw_regions(axes, scene, view, which)
    if view.path:
        for which, colours in coloured:
            _draw_paths(axes, scene, view, which, colours)
    axes.axis(frame_extent(scene.size))
    if len(scene.sets) > 1:
        name_panel(axes, " and ".join(scene.names[which] for which in sets))


def _fitting_size(axes, scene: ViewerScene, view: View) -> float:
    """A diameter of half the room between neighbours, as the script chooses it."""
    room = (axes.bbox.width * axes.bbox.height / max(1, len(_kept(scene, view)))) ** 0.5
    return min(7.0, max(1.6, room / 2))


def _set_colours(
    scene: ViewerScene, view: View, sets: tuple[int, ...], which: int, limits: dict[str, float]
) -> np.ndarray:
    """[N 3] from 0 to 1; overlaid sets keep one colour each, so that they can be told apart."""
    if len(sets) > 1 and view.compare == "overlay":
        return np.tile(np.array(set_colour(which)) / 255, (scene.truth.num_points, 1))
    colour = "error" if len(sets) > 1 else view.colour
    against = next((one for one in view.shown if one > 0), 1)
    return scene.colours(colour, which, view.frame, limits, min(against, len(scene.sets) - 1)) / 255


def _kept(scene: ViewerScene, view: View) -> np.ndarray:
    return np.flatnonzero(shown_points(scene.truth.num_points, view.density))


def _opacity(scene: ViewerScene, view: View, which: int) -> np.ndarray:
    """[N]: what is not selected steps back, once something is; so does what a set is not sure of, where it is asked."""
    opacity = np.ones(scene.truth.num_points)
    if view.selected:
        opacity[:] = 0.3
        opacity[list(view.selected)] = 1
    if view.opacity == "confidence":
        opacity *= 0.1 + 0.9 * scene.quantity("confidence", which, view.frame)
    return opacity


def _draw_trails(axes, scene: ViewerScene, view: View, which: int, colours: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    tracks, kept = scene.sets[which].tracks, _kept(scene, view)
    first = max(0, view.frame - view.trail)
    if first == view.frame or not len(kept):
        return
    xy = tracks.tracks[first : view.frame + 1, kept]
    seen = tracks.visibility[first : view.frame + 1, kept]
    age = np.linspace(0.15, 0.85, len(xy) - 1)[:, None]  # the past fades
    alpha = (
        age * _opacity(scene, view, which)[kept] * np.where(seen[1:] & seen[:-1], 1, 0 if view.hidden == "off" else 0.4)
    )
    segments = np.stack([xy[:-1], xy[1:]], axis=2).reshape(-1, 2, 2)
    rgba = np.concatenate([np.tile(colours[kept], (len(age), 1)), alpha.reshape(-1, 1)], axis=1)
    drawn = (alpha.reshape(-1) > 0) & (np.abs(segments[:, 0] - segments[:, 1]).max(axis=1) > 0.2)
    axes.add_collection(LineCollection(list(segments[drawn]), colors=rgba[drawn], linewidths=0.24 * view.point_size))


def _draw_points(axes, scene: ViewerScene, view: View, which: int, colours: np.ndarray, marker: str) -> None:
    tracks, kept, opacity = scene.sets[which].tracks, _kept(scene, view), _opacity(scene, view, which)
    kept = np.union1d(kept, np.array(view.selected, int)).astype(int)  # a selected point is always shown
    xy, seen = tracks.tracks[view.frame], tracks.visibility[view.frame]
    rgba = np.concatenate([colours, opacity[:, None]], axis=1)
    area = (view.point_size * 72 / DPI) ** 2
    filled, hollow = kept[seen[kept]], kept[~seen[kept]]
    style = {"marker": marker, "s": area}
    axes.scatter(*xy[filled].T, c=rgba[filled], edgecolors=(0, 0, 0, 0.35), linewidths=0.4, **style)
    if view.hidden == "hollow":
        axes.scatter(*xy[hollow].T, facecolors="none", edgecolors=rgba[hollow], linewidths=0.7, **style)
    chosen = np.array(view.selected, int)
    axes.scatter(*xy[chosen].T, marker=marker, s=area * 3, facecolors="none", edgecolors="white", linewidths=1)


def _draw_errors(axes, scene: ViewerScene, view: View, which: int, colours: np.ndarray) -> None:
    """Lines from the truth, where a dot is, to a prediction; faint and hollow where the truth is hidden."""
    from matplotlib.collections import LineCollection

    kept, seen = _kept(scene, view), scene.truth.visibility[view.frame]
    kept = kept[seen[kept]] if view.hidden == "off" else kept
    ends = np.stack([scene.sets[one].tracks.tracks[view.frame, kept] for one in (0, which)], axis=1)  # N 2 2
    opacity = _opacity(scene, view, which)[:, None] * np.where(seen, 1, UNSEEN)[:, None]
    rgba = np.concatenate([colours, opacity], axis=1)[kept]
    axes.add_collection(LineCollection(list(ends), colors=rgba, linewidths=0.35 * view.point_size))
    clear, size = seen[kept], (view.point_size * 0.6 * 72 / DPI) ** 2
    axes.scatter(*ends[clear, 0].T, c=rgba[clear], s=size, linewidths=0)
    axes.scatter(*ends[~clear, 0].T, facecolors="none", edgecolors=rgba[~clear], s=size, linewidths=0.6)


def _draw_paths(axes, scene: ViewerScene, view: View, which: int, colours: np.ndarray) -> None:
    """Where selected points go in all frames: a line so far, a dashed one from now on."""
    tracks = scene.sets[which].tracks.tracks
    for point in view.selected:
        now, colour = view.frame, colours[point]
        axes.plot(*tracks[: now + 1, point].T, color=colour, lw=1.2)
        axes.plot(*tracks[now:, point].T, color=colour, lw=1, ls=(0, (3, 2)))


def _draw_regions(axes, scene: ViewerScene, view: View, which: int) -> None:
    """A circle around each selected point of a prediction, in which the truth is to lie."""
    from matplotlib.patches import Circle

    one = scene.sets[which]
    if one.radii is None:
        return
    outside = scene.outside(which, view.frame)
    for point in view.selected[:MOST_REGIONS]:
        colour = tuple(np.array(OUTSIDE if outside[point] else (255, 255, 255)) / 255)
        place, radius = one.tracks.tracks[view.frame, point], float(one.radii[view.frame, point])
        axes.add_patch(Circle(tuple(place), radius, facecolor=(*colour, 0.12), edgecolor=(*colour, 0.95), lw=1.1))


def _draw_futures(axes, scene: ViewerScene, view: View, which: int, colours: np.ndarray) -> None:
    """The sampled paths so far of the selected points, or of all that are shown, fainter where less likely."""
    from matplotlib.collections import LineCollection

    one = scene.sets[which]
    if view.future not in ("all", "weighted") or not one.futures or view.frame == 0:
        return
    kept = np.array(view.selected, int) if view.selected else _kept(scene, view)
    kept = kept[:: max(1, -(-len(kept) * len(one.futures) // MOST_FUTURES))]
    for future, alpha in zip(one.futures, future_opacities(one.weights, view.future == "weighted")):
        paths = list(future.tracks[: view.frame + 1, kept].transpose(1, 0, 2))
        axes.add_collection(LineCollection(paths, colors=colours[kept], alpha=float(alpha), linewidths=0.8))


def _draw_legend(paper: Paper, scene: ViewerScene, view: View, limits: dict[str, float]) -> None:
    middle = paper.legend
    first = scene.panels(view.compare, view.shown)[0]
    paired = len(first) > 1
    x = GAP
    if view.colour == "region" and not paired:
        against = next((which for which in view.shown if which > 0), 1)
        known = len(scene.sets) > 1 and scene.sets[min(against, len(scene.sets) - 1)].radii is not None
        keys = (("inside its region, or hidden", NEVER), ("outside", OUTSIDE))
        for name, colour in keys if known else (("no regions are known of what is shown", NEVER),):
            paper.text(x, middle, SIGNS[0], size=9, color=np.array(colour) / 255, family="DejaVu Sans")
            paper.text(x + 16, middle, name, size=8.5)
            x += 40 + 7 * len(name)
    elif paired and view.compare == "overlay":
        for order, which in enumerate(first):
            sign, name = SIGNS[order % len(SIGNS)], plain(scene.names[which])
            paper.text(x, middle, sign, size=9, color=np.array(set_colour(which)) / 255, family="DejaVu Sans")
            paper.text(x + 16, middle, name, size=8.5)
            x += 40 + 7 * len(name)
    else:
        colour = "error" if paired else view.colour
        bar = {"position": position_table(), "direction": direction_table()}.get(colour, magnitude_table()[None])
        wide = 28 if len(bar) > 1 else 130
        start, end = {"occlusion": ("1", f"{scene.truth.num_frames - 1}"), "position": ("", "")}.get(
            colour, ("0", f"{limits.get(colour, limits['displacement']):g}")
        )
        x = paper.bar(x, wide, bar, (start, end))
        paper.text(x, middle, CAPTIONS[colour], size=8.5, color=QUIET)
    counter = f"frame {view.frame} of {scene.truth.num_frames - 1}"
    paper.text(paper.size[1] - GAP, middle, counter, size=8.5, color=QUIET, ha="right")
