"""The hand viewer: depth points and skeletons in 3D, in the page of the trajectory viewer.

In: takes of hands, any number of predictions of their joints, and what an action net thought meanwhile. Depth is read
once, thinned and packed (`pack_depth`); turning, playing and colouring happen in the browser (`hand.js`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import traitlets as t

from flowlib import colours
from flowlib.hands.sequences import HandSequence
from flowlib.viewer import hand_raster, page
from flowlib.viewer.hand_scene import (
    CLOUDS,
    COLOURS,
    COMPARISONS,
    HIDDEN,
    DepthGrid,
    HandScene,
    HandView,
    depth_grid,
    gather_actions,
    gather_predictions,
)
from flowlib.viewer.player import Choice, Numbers, Player, within

DEPTH_STEP = 1 / 8  # mm; uint16 then reaches 8 m


class HandViewer(Player):
    """Look at hands: turn, zoom, play, scrub, compare.

    Args:
        sequences: a `HandSequence`, or several; their depth is read once, here.
        predictions: joints in mm in the camera's frame: [S J 3] for one sequence, a list of such for several, or a
            mapping of names to either, for any number of predictors.
        actions: how likely each action is in every frame: [S K] for one sequence, or a list of such.
        action_names: of the K actions; also names the sequences' own.
        title: shown above, as plain text.
        fps: frames a second at speed 1.
        cube: side in mm of the depth that is shown around the truth's centre joint.
        points: about how many depth points of a frame are shown at most.
        **settings: first values of the traits below.

    Traits, readable and settable at any time, in step with the browser:
        sequence: number of the one shown. frame: of it. playing: whether it runs. speed: times fps.
        shown: numbers of the sets shown: 0 the truth, 1 the first prediction, …
        compare: "side by side", "overlay", "errors" (lines from the truth to the predictions).
        colour: "finger", "error" (mm from the truth), "set".
        hidden: "hollow" or "off", for joints that the camera doesn't see.
        cloud: "shaded", "faint", "off". follow: whether the hand stays in the middle.
        yaw, pitch: degrees the view is turned to the side and up; zoom. theme: "auto", "light", "dark".

    Raises:
        ValueError: arrays that do not belong together, values that are not finite, an unknown setting.
        OSError: a depth file that can't be read.

    >>> from flowlib.camera import MSRA15
    >>> from flowlib.hands.skeleton import MSRA_21
    >>> joints = np.zeros((2, 21, 3), np.float32) + np.float32([0, 0, 400])
    >>> take = HandSequence("still", "me", None, MSRA15, MSRA_21, joints, lambda frame: np.full((240, 320), 400.0))
    >>> HandViewer(take, joints + 5)
    HandViewer(1 sequence of 2 frames, 21 joints, truth and prediction)
    """

    _esm = page.joined("player.js", "raster.js", "export.js", "hand.js")
    _css = page.joined("viewer.css", "hand.css")
    SETTINGS = ("sequence", "frame", "shown", "colour", "compare", "hidden", "cloud", "follow", "yaw", "pitch", "zoom")
    PAYLOAD = ("_joints", "_visible", "_depth", "_actions", "_palette")

    _joints = t.Bytes().tag(sync=True)
    _visible = t.Bytes().tag(sync=True)
    _depth = t.Bytes().tag(sync=True)
    _actions = t.Bytes().tag(sync=True)
    _palette = t.Bytes().tag(sync=True)

    sequence = t.Int(0).tag(sync=True)
    shown = Numbers("set", "num_sets")
    colour = Choice("finger", COLOURS)
    compare = Choice("side by side", COMPARISONS)
    hidden = Choice("hollow", HIDDEN)
    cloud = Choice("shaded", CLOUDS)
    follow = t.Bool(True).tag(sync=True)
    yaw = t.Float(0.0).tag(sync=True, range=(-180, 180))
    pitch = t.Float(0.0).tag(sync=True, range=(-90, 90))
    zoom = t.Float(1.0).tag(sync=True, range=(0.1, 40))

    def __init__(
        self,
        sequences: HandSequence | Iterable[HandSequence],
        predictions: Any = None,
        *,
        actions: Any = None,
        action_names: Sequence[str] = (),
        title: str = "",
        fps: float = 15.0,
        cube: float = 300.0,
        points: int = 4000,
        **settings: Any,
    ) -> None:
        self._check_settings(settings, fps)
        takes = (sequences,) if isinstance(sequences, HandSequence) else tuple(sequences)
        if not takes or not all(isinstance(take, HandSequence) for take in takes):
            raise ValueError(f"sequences: expected one HandSequence or more, got {sequences!r}")
        for name, value in (("cube", cube), ("points", points)):
            if not value > 0:
                raise ValueError(f"{name}: expected more than 0, got {value}")
        names = tuple(map(str, action_names))
        self._scene = HandScene(
            takes,
            gather_predictions(predictions, takes),
            gather_actions(actions, takes, names),
            names,
            float(cube),
            int(points),
            str(title),
        )
        self._fps, self._title = float(fps), str(title)
        super().__init__(**self._payload(), **({"shown": range(self.num_sets)} | settings))

    @property
    def num_frames(self) -> int:
        """Of the sequence that is shown."""
        return len(self._scene.sequences[self.sequence])

    @property
    def num_sets(self) -> int:
        return len(self._scene.names)

    def __repr__(self) -> str:
        scene, lengths = self._scene, [len(one) for one in self._scene.sequences]
        takes = f"{len(lengths)} sequence{'' if len(lengths) == 1 else 's'}"
        frames = f"{min(lengths)}" + (f" to {max(lengths)}" if min(lengths) < max(lengths) else "")
        return f"HandViewer({takes} of {frames} frames, {self._num_joints} joints, {' and '.join(scene.names)})"

    @property
    def _num_joints(self) -> int:
        return self._scene.sequences[0].skeleton.num_joints

    def _draw(self, frame: int, width: int) -> np.ndarray:
        return hand_raster.draw(self._scene, self._view(frame), width)

    def _view(self, frame: int) -> HandView:
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        return HandView(**(settings | {"frame": frame, "shown": tuple(self.shown)}))

    def _payload(self) -> dict[str, Any]:
        """What travels once: header, joints, depth and colours."""
        scene, headers, depth = self._scene, [], []
        for index, sequence in enumerate(scene.sequences):
            grids = [depth_grid(sequence, frame, scene.cube, scene.most) for frame in range(len(sequence))]
            depth.append(pack_depth(grids))
            headers.append(self._sequence_header(index, grids, len(depth[-1])))
        indices, sets = range(len(headers)), range(len(scene.names))
        joints = [scene.joints(index, which).astype("<f4").tobytes() for index in indices for which in sets]
        seen = [scene.visible(index).ravel() for index in indices]
        likely = [np.round(one.clip(0, 1) * 255).astype(np.uint8).tobytes() for one in scene.actions or ()]
        header = {
            "names": list(scene.names),
            "sequences": headers,
            "limit": scene.limit,
            "depth_step": DEPTH_STEP,
            "actions": list(scene.action_names) if scene.actions else [],
            "fingers": {finger: list(colour) for finger, colour in colours.FINGERS.items()},
            "set_colours": [list(colours.set_colour(which)) for which in sets],
        }
        tables = colours.magnitude_table(), colours.position_table(), colours.direction_table()
        return {
            "_header": self._shared_header() | header,
            "_joints": zlib.compress(b"".join(joints), 6),
            "_visible": np.concatenate(seen).astype(np.uint8).tobytes(),
            "_depth": b"".join(depth),
            "_actions": b"".join(likely),
            "_palette": b"".join(table.tobytes() for table in tables),
        }

    def _sequence_header(self, index: int, grids: list[DepthGrid], depth_bytes: int) -> dict[str, Any]:
        sequence, names = self._scene.sequences[index], self._scene.action_names
        action, camera = sequence.action, sequence.camera
        return {
            "key": sequence.key,
            "subject": sequence.subject,
            "action": _named(action, names),
            "num_frames": len(sequence),
            "joints": list(sequence.skeleton.joints),
            "parents": list(sequence.skeleton.parents),
            "fingers": list(sequence.skeleton.fingers),
            "camera": [camera.fx, camera.fy, camera.ux, camera.uy],
            "grids": [
                [grid.left, grid.top, grid.stride, *grid.depth.shape, int((grid.depth > 0).sum())] for grid in grids
            ],
            "depth_bytes": depth_bytes,
        }

    @t.validate("sequence")
    def _validate_sequence(self, proposal: Any) -> int:
        count = len(self._scene.sequences)
        if not 0 <= proposal["value"] < count:
            raise ValueError(f"sequence: expected 0 to {count - 1}, got {proposal['value']}")
        return proposal["value"]

    @t.observe("sequence")
    def _stay_within(self, change: Any) -> None:
        """Of a shorter sequence the last frame is shown."""
        if self.frame >= self.num_frames:
            self.frame = self.num_frames - 1

    @t.validate("shown")
    def _validate_shown(self, proposal: Any) -> list[int]:
        if not proposal["value"]:
            raise ValueError(f"shown: expected at least one of the sets 0 to {self.num_sets - 1}, got none")
        return proposal["value"]

    @t.validate("colour", "compare")
    def _validate_what_it_takes(self, proposal: Any) -> str:
        if proposal["value"] in ("error", "errors") and self.num_sets < 2:
            name = proposal["trait"].name
            raise ValueError(f"{name}: {proposal['value']!r} needs predictions, which this viewer was not given")
        return proposal["value"]

    @t.validate("yaw", "pitch", "zoom")
    def _validate_range(self, proposal: Any) -> float:
        return within(proposal)


def _named(action: int | None, names: Sequence[str]) -> str:
    """An action in words, as far as anybody told them."""
    if action is None:
        return ""
    return names[action] if action < len(names) else f"action {action}"


def pack_depth(grids: Iterable[DepthGrid]) -> bytes:
    """The grids of a sequence as deflated bytes: masks of all frames, then low and then high bytes of their depths.

    A mask has a bit per cell, row by row, lowest bit first, each frame beginning with a byte of its own. Depths are
    uint16 in steps of 1/8 mm, only of cells that have one, each told as its difference from the one before.
    """
    masks, depths = [], []
    for grid in grids:
        known = grid.depth > 0
        masks.append(np.packbits(known.ravel(), bitorder="little"))
        steps = np.round(grid.depth[known] / DEPTH_STEP).clip(1, 65535).astype(np.uint16)
        depths.append(np.diff(steps, prepend=np.uint16(0)))
    told = np.concatenate(depths) if depths else np.zeros(0, np.uint16)
    low, high = (told & 255).astype(np.uint8), (told >> 8).astype(np.uint8)
    return zlib.compress(b"".join(mask.tobytes() for mask in masks) + low.tobytes() + high.tobytes(), 6)
