"""Compute what the hand viewer shows: the depth around a hand as a grid of points, joints and their errors, the view.

The script (hand.js) turns, projects and colours by the same definitions; pictures and films are drawn from these.
Knows nothing of widgets, pages or drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from flowlib.colours import FINGERS, magnitude_colours, nice_limit, set_colour
from flowlib.hands.sequences import HandSequence

COLOURS = ("finger", "error", "set")
COMPARISONS = ("side by side", "overlay", "errors")
HIDDEN = ("hollow", "off")
CLOUDS = ("shaded", "faint", "off")
FILL = 0.40  # share of a panel's shorter side that the farthest joint is drawn from its middle, at zoom 1
EYE = 5.0  # distance of the eye from the middle, in farthest joints' distances: how strong the perspective is
LIGHT = np.array([-0.3, -0.55, -0.78])  # where it comes from: above the camera's left shoulder
STEEP = 20.0  # mm in depth beyond which neighbours aren't one surface


@dataclass(frozen=True)
class HandView:
    """The choices of a hand viewer: what a person would set with its controls."""

    sequence: int = 0
    frame: int = 0
    shown: tuple[int, ...] = ()  # numbers of the sets that are shown; 0 is the truth
    colour: str = "finger"  # one of COLOURS
    compare: str = "side by side"  # one of COMPARISONS
    hidden: str = "hollow"  # one of HIDDEN
    cloud: str = "shaded"  # one of CLOUDS
    follow: bool = True  # keep the hand in the middle
    yaw: float = 0.0  # degrees about the vertical; 0 as the camera sees it
    pitch: float = 0.0  # degrees; positive from above
    zoom: float = 1.0


@dataclass(frozen=True, eq=False)
class DepthGrid:
    """The depth around a hand in one frame, thinned.

    Attributes:
        depth: float32 [rows columns] in mm, 0 where there is none of the hand.
        left: x of the first column, in pixels of the camera's picture.
        top: y of the first row.
        stride: pixels from one column, or row, to the next.
    """

    depth: Float[np.ndarray, "rows columns"]
    left: int = 0
    top: int = 0
    stride: int = 1

    def points(self, sequence: HandSequence) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, " N"]]:
        """Points in mm, row by row, and how bright the light makes each: 0 to 1."""
        rows, columns = self.depth.shape
        if not (self.depth > 0).any():
            return np.zeros((0, 3), np.float32), np.zeros(0)
        x, y = np.meshgrid(self.left + self.stride * np.arange(columns), self.top + self.stride * np.arange(rows))
        known = self.depth > 0
        pixels = np.stack([x, y, np.where(known, self.depth, 1)], axis=-1).astype(np.float32)
        xyz = sequence.camera.unproject(pixels)
        across = _beside(xyz, known, 1, 1) - _beside(xyz, known, 1, -1)
        down = _beside(xyz, known, 0, 1) - _beside(xyz, known, 0, -1)
        normal = np.cross(down, across)  # towards the camera
        length = np.linalg.norm(normal, axis=-1)
        light = np.where(length > 0, np.clip(normal @ LIGHT / np.maximum(length, 1e-9), 0, 1), 0.5)
        return xyz[known], light[known]


def _beside(xyz: np.ndarray, known: np.ndarray, axis: int, sign: int) -> np.ndarray:
    """For every cell [rows columns 3] the point two cells on (then one, then its own) that is on the same surface.

    Two, because between next neighbours the sensor's noise is as large as the slope.
    """
    found, open_ = xyz.copy(), np.ones(known.shape, bool)
    for step in (2, 1):
        there, is_known = np.roll(xyz, -sign * step, axis), np.roll(known, -sign * step, axis)
        edge = [slice(None), slice(None)]
        edge[axis] = slice(-step, None) if sign > 0 else slice(step)
        is_known[tuple(edge)] = False
        usable = open_ & is_known & (np.abs(there[..., 2] - xyz[..., 2]) < STEEP)
        found[usable], open_ = there[usable], open_ & ~usable
    return found


def depth_grid(sequence: HandSequence, frame: int, cube: float, most: int) -> DepthGrid:
    """The depth within a cube around the truth's centre joint, of at most about `most` points.

    Args:
        sequence: read at `frame`.
        cube: its side in mm, along the camera's axes.
        most: number of points; every second, third, … pixel is kept until there are no more.
    """
    centre, camera = sequence.joints[frame, sequence.skeleton.centre], sequence.camera
    nearest = max(centre[2] - cube / 2, centre[2] / 2)
    if nearest <= 0:
        return DepthGrid(np.zeros((0, 0), np.float32))
    depth = sequence.depth(frame)
    x, y, _ = camera.project(centre[None])[0]
    H, W = camera.size
    across, down = cube / 2 * camera.fx / nearest, cube / 2 * camera.fy / nearest
    left, top = max(0, int(x - across)), max(0, int(y - down))
    right, bottom = min(W, int(x + across) + 2), min(H, int(y + down) + 2)
    window = depth[top:bottom, left:right]
    if not window.size or not (window > 0).any():
        return DepthGrid(np.zeros((0, 0), np.float32))
    columns, rows = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
    pixels = np.stack([columns, rows, np.where(window > 0, window, 1)], axis=-1).astype(np.float32)
    within = (window > 0) & (np.abs(camera.unproject(pixels) - centre) <= cube / 2).all(axis=-1)
    if not within.any():
        return DepthGrid(np.zeros((0, 0), np.float32))
    stride = max(1, int(np.ceil(np.sqrt(within.sum() / most))))
    kept = np.where(within, window, 0)[::stride, ::stride]
    used = [np.flatnonzero((kept > 0).any(axis=axis)) for axis in (1, 0)]
    if not used[0].size:
        return DepthGrid(np.zeros((0, 0), np.float32))
    (first_row, last_row), (first_column, last_column) = ((index[0], index[-1] + 1) for index in used)
    grid = kept[first_row:last_row, first_column:last_column].astype(np.float32)
    return DepthGrid(grid, left + stride * int(first_column), top + stride * int(first_row), stride)


@dataclass(frozen=True, eq=False)
class HandScene:
    """Takes of hands, with any number of predictions of their joints.

    Attributes:
        sequences: at least one.
        predictions: name -> for every sequence its joints [S J 3] in mm.
        actions: for every sequence how likely each action is, frame by frame [S K], or None.
        action_names: of the K actions.
        cube: side in mm of what is shown of the depth around the hand.
        most: number of points shown of a frame, about.
    """

    sequences: tuple[HandSequence, ...]
    predictions: dict[str, tuple[np.ndarray, ...]]
    actions: tuple[np.ndarray, ...] | None = None
    action_names: tuple[str, ...] = ()
    cube: float = 300.0
    most: int = 4000
    title: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sets of joints: the truth first."""
        return ("truth", *self.predictions)

    def joints(self, sequence: int, which: int) -> Float[np.ndarray, "S J 3"]:
        if which == 0:
            return self.sequences[sequence].joints
        return self.predictions[self.names[which]][sequence]

    def visible(self, sequence: int) -> np.ndarray:
        """bool [S J]; all True where the sequence doesn't say."""
        one = self.sequences[sequence]
        return np.ones(one.joints.shape[:2], bool) if one.visible is None else one.visible

    def errors(self, sequence: int, which: int) -> Float[np.ndarray, "S J"]:
        """Distance in mm of every joint of a set from the truth's."""
        return np.linalg.norm(self.joints(sequence, which) - self.joints(sequence, 0), axis=-1)

    @cached_property
    def limit(self) -> float:
        """Where the colours of errors end: a round number of mm that 98 % of all stay under."""
        sets = range(1, len(self.names))
        errors = [self.errors(i, which).ravel() for i in range(len(self.sequences)) for which in sets]
        return nice_limit(np.concatenate(errors)) if errors else 1.0

    def middle(self, sequence: int, frame: int, follow: bool) -> Float[np.ndarray, 3]:
        """What the view turns around: the mean of the truth's joints, in this frame or in all."""
        joints = self.sequences[sequence].joints
        return (joints[frame] if follow else joints).reshape(-1, 3).mean(axis=0)

    def reach(self, sequence: int, follow: bool) -> float:
        """The truth's farthest joint from the middle, in any frame, in mm."""
        joints = self.sequences[sequence].joints
        middle = joints.mean(axis=1, keepdims=True) if follow else joints.reshape(-1, 3).mean(axis=0)
        return max(1.0, float(np.linalg.norm(joints - middle, axis=-1).max()))

    def project(self, points: Float[np.ndarray, "*n 3"], view: HandView, side: float) -> Float[np.ndarray, "*n 3"]:
        """Points in mm -> (right, down) in pixels from a panel's middle, and the distance behind it in mm.

        Args:
            points: in the camera's frame.
            view: from where they are seen.
            side: the panel's shorter side in pixels.
        """
        reach = self.reach(view.sequence, view.follow)
        yaw, pitch = np.deg2rad(view.yaw), np.deg2rad(view.pitch)
        x, y, z = np.moveaxis(points - self.middle(view.sequence, view.frame, view.follow), -1, 0)
        x, z = x * np.cos(yaw) - z * np.sin(yaw), z * np.cos(yaw) + x * np.sin(yaw)
        y, z = y * np.cos(pitch) - z * np.sin(pitch), z * np.cos(pitch) + y * np.sin(pitch)
        eye = EYE * reach
        scale = FILL * side / reach * view.zoom * eye / np.maximum(eye + z, eye / 10)
        return np.stack([x * scale, y * scale, z], axis=-1)

    def panels(self, view: HandView) -> list[tuple[int, ...]]:
        """Which sets each panel shows."""
        shown = view.shown or tuple(range(len(self.names)))
        return [(which,) for which in shown] if view.compare == "side by side" else [tuple(shown)]

    def colours(self, view: HandView, which: int) -> UInt8[np.ndarray, "J 3"]:
        """The colour of every joint of a set."""
        fingers = self.sequences[view.sequence].skeleton.fingers
        if view.colour == "set":
            return np.tile(np.array(set_colour(which), np.uint8), (len(fingers), 1))
        if view.colour == "error":  # the truth, which has none, is grey
            errors = magnitude_colours(self.errors(view.sequence, which)[view.frame], self.limit)
            return errors if which else np.tile(np.array(FINGERS["palm"], np.uint8), (len(fingers), 1))
        return np.array([FINGERS[finger] for finger in fingers], np.uint8)


def gather_predictions(predictions: Any, sequences: Sequence[HandSequence]) -> dict[str, tuple[np.ndarray, ...]]:
    """Name -> joints of every sequence, of whatever a caller gave.

    Args:
        predictions: None; joints [S J 3] of the one sequence; a list of joints, one of each sequence; or a mapping of
            names to either.
        sequences: that the predictions are of.

    Raises:
        ValueError: another number of sequences, frames or joints than the truth has, joints that aren't finite, or a
            name twice.
    """
    if predictions is None:
        return {}
    if not isinstance(predictions, Mapping):
        predictions = {"prediction": predictions}
    gathered = {}
    for name, joints in predictions.items():
        if name == "truth":
            raise ValueError("predictions: expected another name than 'truth', which the sequences' own joints have")
        gathered[str(name)] = tuple(
            _check(one, (len(sequence), sequence.skeleton.num_joints, 3), f"{name}, {sequence.key}")
            for one, sequence in zip(_each(joints, sequences, str(name)), sequences)
        )
    return gathered


def gather_actions(actions, sequences: Sequence[HandSequence], names: Sequence[str]) -> tuple[np.ndarray, ...] | None:
    """How likely each action is, for every sequence float32 [S K]; errors as of `gather_predictions`."""
    if actions is None:
        return None
    pairs = zip(_each(actions, sequences, "actions", ndim=2), sequences)
    return tuple(_check(one, (len(sequence), len(names)), f"actions, {sequence.key}") for one, sequence in pairs)


def _each(values, sequences: Sequence[HandSequence], name: str, ndim: int = 3) -> list[np.ndarray]:
    """One array for every sequence; a single one may come as it is."""
    if getattr(values, "ndim", None) == ndim:
        values = [values]
    values = [np.asarray(one.detach().cpu() if hasattr(one, "detach") else one) for one in values]
    if len(values) != len(sequences):
        raise ValueError(f"{name}: expected an array for each of {len(sequences)} sequences, got {len(values)}")
    return values


def _check(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected numbers {list(shape)}, got {array.dtype} {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity in frame {_first_bad(array)}")
    return array.astype(np.float32)


def _first_bad(array: np.ndarray) -> int:
    return int(np.argmax(~np.isfinite(array).reshape(len(array), -1).all(axis=1)))
