"""The viewers: a live widget in notebooks, a picture in saved ones, one HTML file anywhere else.

`TrajectoryViewer` is here, `HandViewer` in `hands`; what they share is in `player`, `page` and `paper`.

In: a clip, its trajectories, optionally a second set of the same points. Out: something to look at, and what a person
picked. Frames and tracks travel once; playing, colouring and picking happen in the browser (`viewer.js`).
Knows nothing of models, datasets or networks; what it draws it is handed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import traitlets as t

from flowlib import colours
from flowlib.viewer import page, raster
from flowlib.viewer.hands import HandViewer
from flowlib.viewer.packing import PackedFrames, as_tracks, fixed_step, pack_frames, pack_tracks
from flowlib.viewer.player import Choice, Numbers, Player, within
from flowlib.viewer.scene import BACKGROUNDS, COLOURS, COMPARISONS, HIDDEN, View, ViewerScene

__all__ = ["HandViewer", "TrajectoryViewer"]


class TrajectoryViewer(Player):
    """Look at trajectories: play, scrub, zoom, colour, compare, pick.

    Args:
        frames: uint8 [S H W 3], or an iterable of uint8 [H W 3] (frames are kept as JPEG, one at a time is decoded).
        tracks: `Tracks` over these frames, or a dense trajectory [S 2 H W] (displacement in pixels from frame 0; read
            at a grid of up to 100 points across).
        prediction: a second set of the same points: `Tracks`, or a dense trajectory, read at the tracks' queries.
        rebuilt: the frames a prediction rebuilds, as `frames`; gives the backgrounds "rebuilt" and "difference".
        title: shown above, as plain text.
        names: what the two sets are called.
        fps: frames a second at speed 1.
        quality: of the JPEGs, 1 to 100.
        **settings: first values of the traits below.

    Traits, readable and settable at any time, in step with the browser:
        frame: the frame shown. playing: whether it runs. speed: times fps.
        selected: numbers of the picked points; set it to numbers or to a mask of all points.
        colour: "position" (where a point starts), "displacement", "direction", "speed", "error", "occlusion".
        compare: "side by side", "overlay", "errors", "truth", "prediction".
        background: "video", "first frame", "rebuilt", "difference", "none".
        trail: its length in frames. density: share of points shown.
        point_size: diameter in pixels of the screen; 0 = half the room between neighbours.
        hidden: "hollow" or "off". theme: "auto", "light", "dark".

    Raises:
        ValueError: shapes that do not belong together, values that are not finite, an unknown setting.

    >>> from flowlib.tracks import Tracks
    >>> tracks = Tracks.still(np.array([[0, 3.0, 4.0]]), num_frames=2)
    >>> TrajectoryViewer(np.zeros((2, 20, 30, 3), np.uint8), tracks)
    TrajectoryViewer(2 frames of 20x30, 1 point)
    """

    _esm = page.joined("player.js", "raster.js", "viewer.js")
    _css = page.joined("viewer.css")
    SETTINGS = ("frame", "colour", "compare", "background", "trail", "point_size", "density", "hidden", "selected")
    PAYLOAD = ("_frames", "_rebuilt", "_tracks", "_prediction", "_palette")

    _frames = t.Bytes().tag(sync=True)
    _rebuilt = t.Bytes().tag(sync=True)
    _tracks = t.Bytes().tag(sync=True)
    _prediction = t.Bytes().tag(sync=True)
    _palette = t.Bytes().tag(sync=True)

    selected = Numbers("point", "num_points")
    colour = Choice("position", COLOURS)
    compare = Choice("side by side", COMPARISONS)
    background = Choice("video", BACKGROUNDS)
    trail = t.Int(7).tag(sync=True, range=(0, 100_000))
    point_size = t.Float(0.0).tag(sync=True, range=(0, 40))
    density = t.Float(1.0).tag(sync=True, range=(0, 1))
    hidden = Choice("hollow", HIDDEN)

    def __init__(
        self,
        frames: np.ndarray | Iterable[np.ndarray],
        tracks: Any,
        prediction: Any = None,
        *,
        rebuilt: np.ndarray | Iterable[np.ndarray] | None = None,
        title: str = "",
        names: tuple[str, str] = ("truth", "prediction"),
        fps: float = 8.0,
        quality: int = 80,
        **settings: Any,
    ) -> None:
        self._check_settings(settings, fps)
        self._scene = _gather(frames, tracks, prediction, rebuilt, tuple(map(str, names)), str(title), quality)
        self._fps, self._title = float(fps), self._scene.title
        super().__init__(**self._payload(), **settings)

    @property
    def num_points(self) -> int:
        return self._scene.truth.num_points

    @property
    def num_frames(self) -> int:
        return len(self._scene.frames)

    def __repr__(self) -> str:
        points = f"{self.num_points} point{'' if self.num_points == 1 else 's'}"
        height, width = self._scene.size
        second = "" if self._scene.prediction is None else ", two sets"
        frames = f"{self.num_frames} frame{'' if self.num_frames == 1 else 's'}"
        return f"TrajectoryViewer({frames} of {height}x{width}, {points}{second})"

    def _payload(self) -> dict[str, Any]:
        """What travels once: the header and the packed frames, tracks and colours."""
        scene = self._scene
        step = fixed_step(scene.sets, scene.size)
        second = b"" if scene.prediction is None else pack_tracks(scene.prediction, scene.size, step, "prediction")
        tables = colours.magnitude_table(), colours.position_table(), colours.direction_table()
        return {
            "_header": self._make_header(step),
            "_frames": b"".join(scene.frames.images),
            "_rebuilt": b"".join(scene.rebuilt.images) if scene.rebuilt else b"",
            "_tracks": pack_tracks(scene.truth, scene.size, step),
            "_prediction": second,
            "_palette": b"".join(table.tobytes() for table in tables),
        }

    def _make_header(self, step: float) -> dict[str, Any]:
        scene = self._scene
        return self._shared_header() | {
            "size": list(scene.size),
            "num_frames": len(scene.frames),
            "num_points": scene.truth.num_points,
            "step": step,
            "frame_bytes": [len(image) for image in scene.frames.images],
            "rebuilt_bytes": [len(image) for image in scene.rebuilt.images] if scene.rebuilt else [],
            "limits": scene.limits,
            "names": list(scene.names),
            "set_colours": [list(colours.TRUTH), list(colours.PREDICTION), list(colours.NEVER)],
        }

    def _view(self, frame: int) -> View:
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        return View(**(settings | {"frame": frame, "selected": tuple(self.selected)}))

    def _draw(self, frame: int, width: int) -> np.ndarray:
        return raster.draw(self._scene, self._view(frame), width)

    @t.validate("colour", "background")
    def _validate_what_it_takes(self, proposal: Any) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        missing = self._scene.prediction is None if value == "error" else self._scene.rebuilt is None
        if value in ("error", "rebuilt", "difference") and missing:
            needed = "prediction" if value == "error" else "rebuilt"
            raise ValueError(f"{name}: {value!r} needs the argument {needed}, which this viewer was not given")
        return value

    @t.validate("trail", "point_size", "density")
    def _validate_range(self, proposal: Any) -> float:
        return within(proposal)


def _gather(frames, tracks, prediction, rebuilt, names: tuple, title: str, quality: int) -> ViewerScene:
    """Check everything and bring it into one form."""
    if len(names) != 2:
        raise ValueError(f"names: expected two, got {names}")
    packed = pack_frames(frames, quality)
    truth = as_tracks(tracks, packed.size, len(packed), "tracks")
    second = None
    if prediction is not None:
        second = as_tracks(prediction, packed.size, len(packed), "prediction", truth.queries)
    return ViewerScene(packed, truth, second, _pack_rebuilt(rebuilt, packed, quality), names, title)


def _pack_rebuilt(rebuilt, frames: PackedFrames, quality: int) -> PackedFrames | None:
    if rebuilt is None:
        return None
    packed = pack_frames(rebuilt, quality, "rebuilt")
    if (len(packed), packed.size) != (len(frames), frames.size):
        got = f"{len(packed)} of {packed.size}"
        raise ValueError(f"rebuilt: expected {len(frames)} frames of {frames.size} as the clip has, got {got}")
    return packed
