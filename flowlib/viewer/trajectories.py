"""The trajectory viewer: clips, their points, and any number of predictions of where these go.

In: frames and trajectories. Out: something to look at, and what a person picked. Frames and tracks travel once;
playing, colouring and picking happen in the browser (`viewer.js`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import traitlets as t

from flowlib import colours
from flowlib.tracks import Tracks
from flowlib.viewer import page, raster
from flowlib.viewer.packing import (
    PackedFrames,
    as_tracks,
    every_few_pixels,
    fixed_step,
    pack_frames,
    pack_tracks,
)
from flowlib.viewer.player import Choice, Numbers, Player, within
from flowlib.viewer.scene import (
    BACKGROUNDS,
    COLOURS,
    COMPARISONS,
    FUTURES,
    HIDDEN,
    OPACITIES,
    View,
    ViewerScene,
    ViewerSet,
)

NEEDS = {  # of choices: (what must be there, the argument that brings it)
    "error": ("sets", "prediction"),
    "rebuilt": ("rebuilt", "rebuilt"),
    "difference": ("rebuilt", "rebuilt"),
    "confidence": ("confidence", "confidence"),
    "region": ("regions", "regions"),
    "one": ("futures", "futures"),
    "all": ("futures", "futures"),
    "weighted": ("futures", "futures"),
}


@dataclass(frozen=True, eq=False)
class ViewedClip:
    """What a viewer shows of one clip.

    Attributes:
        frames: uint8 [S H W 3], or an iterable of uint8 [H W 3] (kept as JPEG, one at a time is decoded).
        tracks: `Tracks` over these frames, or a dense trajectory [S 2 H W] (displacement in pixels from frame 0; read
            at a grid of up to 100 points across). Of tracks of all pixels every few are shown, up to 100 across.
        predictions: name -> the same points: `Tracks`, or a dense trajectory, read at the tracks' queries.
        rebuilt: name -> the frames that prediction rebuilds, as `frames`.
        confidence: name -> [S N], how sure that prediction is of each point, 0 to 1; that of `Tracks` needs no mention.
        futures: name -> sampled trajectories [K S N 2] in pixels, or (these, weights [K]).
        regions: name -> [S N], the radius in pixels around each point of that prediction in which the truth is to lie.
        title: shown where the clip is chosen, as plain text.
    """

    frames: np.ndarray | Iterable[np.ndarray]
    tracks: Any
    predictions: Mapping[str, Any] = field(default_factory=dict)
    rebuilt: Mapping[str, Any] = field(default_factory=dict)
    confidence: Mapping[str, Any] = field(default_factory=dict)
    futures: Mapping[str, Any] = field(default_factory=dict)
    regions: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""


class TrajectoryViewer(Player):
    """Look at trajectories: play, scrub, zoom, colour, compare, pick.

    Args:
        frames: uint8 [S H W 3], or an iterable of uint8 [H W 3] (frames are kept as JPEG, one at a time is decoded).
        tracks: `Tracks` over these frames, or a dense trajectory [S 2 H W] (displacement in pixels from frame 0; read
            at a grid of up to 100 points across). Of tracks of all pixels every few are shown, up to 100 across.
        prediction: a second set of the same points: `Tracks`, or a dense trajectory, read at the tracks' queries; or
            any number of them by name.
        rebuilt: the frames a prediction rebuilds, as `frames`; gives the backgrounds "rebuilt" and "difference".
        confidence: how sure a prediction is of each point, [S N] from 0 to 1, where its `Tracks` don't say.
        futures: sampled futures [K S N 2] in pixels, or (these, weights [K]).
        regions: the radius in pixels around each predicted point in which the truth is to lie, [S N]; drawn around
            selected points, and the colour "region" shows where the truth left them.
            `rebuilt`, `confidence`, `futures` and `regions` belong to the first prediction, or come by the name of
            theirs; without a prediction, `rebuilt` and `futures` are those of the tracks.
        title: shown above, as plain text.
        names: what the sets are called: the truth and the prediction; predictions that come by name have theirs.
        fps: frames a second at speed 1.
        quality: of the JPEGs, 1 to 100.
        **settings: first values of the traits below.

    Several clips in one viewer: `TrajectoryViewer.of`.

    Traits, readable and settable at any time, in step with the browser:
        clip: number of the one shown. frame: the frame shown. playing: whether it runs. speed: times fps.
        shown: numbers of the sets shown: 0 the truth, 1 the first prediction, …
        selected: numbers of the picked points; set it to numbers or to a mask of all points.
        colour: "position" (where a point starts), "displacement", "direction", "speed", "error", "occlusion",
            "confidence", "region".
        compare: "side by side", "overlay", "errors", "truth", "prediction".
        background: "video", "first frame", "rebuilt", "difference", "none".
        trail: its length in frames. density: share of points shown. path: whether selected points show all of theirs.
        point_size: diameter in pixels of the screen; 0 = half the room between neighbours.
        hidden: "hollow" or "off". opacity: "equal" or "confidence". theme: "auto", "light", "dark".
        future: "off", "one" (number `sample` in place of the prediction), "all", "weighted" (fainter if less likely).

    Raises:
        ValueError: shapes that do not belong together, values that are not finite, an unknown setting.

    >>> from flowlib.tracks import Tracks
    >>> tracks = Tracks.still(np.array([[0, 3.0, 4.0]]), num_frames=2)
    >>> TrajectoryViewer(np.zeros((2, 20, 30, 3), np.uint8), tracks)
    TrajectoryViewer(2 frames of 20x30, 1 point)
    """

    _esm = page.joined("player.js", "raster.js", "export.js", "viewer.js")
    _css = page.joined("viewer.css")
    SETTINGS = (
        "clip", "frame", "shown", "colour", "compare", "background", "trail", "path", "point_size", "density", "hidden",
        "opacity", "future", "sample", "selected",
    )  # fmt: skip
    PAYLOAD = ("_frames", "_rebuilt", "_tracks", "_palette")

    _frames = t.Bytes().tag(sync=True)
    _rebuilt = t.Bytes().tag(sync=True)
    _tracks = t.Bytes().tag(sync=True)
    _palette = t.Bytes().tag(sync=True)

    clip = t.Int(0).tag(sync=True)
    shown = Numbers("set", "num_sets")
    selected = Numbers("point", "num_points")
    colour = Choice("position", COLOURS)
    compare = Choice("side by side", COMPARISONS)
    background = Choice("video", BACKGROUNDS)
    trail = t.Int(7).tag(sync=True, range=(0, 100_000))
    path = t.Bool(True).tag(sync=True)
    point_size = t.Float(0.0).tag(sync=True, range=(0, 40))
    density = t.Float(1.0).tag(sync=True, range=(0, 1))
    hidden = Choice("hollow", HIDDEN)
    opacity = Choice("equal", OPACITIES)
    future = Choice("off", FUTURES)
    sample = t.Int(0).tag(sync=True, range=(0, 100_000))

    def __init__(
        self,
        frames: np.ndarray | Iterable[np.ndarray],
        tracks: Any,
        prediction: Any = None,
        *,
        rebuilt: Any = None,
        confidence: Any = None,
        futures: Any = None,
        regions: Any = None,
        title: str = "",
        names: tuple[str, str] = ("truth", "prediction"),
        fps: float = 8.0,
        quality: int = 80,
        **settings: Any,
    ) -> None:
        if len(names) != 2:
            raise ValueError(f"names: expected two, got {names}")
        predictions = prediction if isinstance(prediction, Mapping) else {str(names[1]): prediction}
        predictions = {name: one for name, one in predictions.items() if one is not None}
        first = next(iter(predictions), str(names[1]))
        extras = [
            value if isinstance(value, Mapping) else {} if value is None else {first: value}
            for value in (rebuilt, confidence, futures, regions)
        ]
        clip = ViewedClip(frames, tracks, predictions, *extras, title="")
        self._begin([clip], str(names[0]), title, fps, quality, settings)

    @classmethod
    def of(
        cls,
        clips: Iterable[ViewedClip],
        *,
        truth: str = "truth",
        title: str = "",
        fps: float = 8.0,
        quality: int = 80,
        **settings: Any,
    ) -> TrajectoryViewer:
        """One viewer of several clips, which may differ in size, length and points but not in who predicts.

        Args:
            clips: one is shown at a time.
            truth: what `ViewedClip.tracks` are called.
            title: shown above, as plain text.
            fps: frames a second at speed 1.
            quality: of the JPEGs, 1 to 100.
            **settings: first values of the traits.

        Raises:
            ValueError: as from the class itself; no clip; or clips with other predictors than the first.
        """
        viewer = cls.__new__(cls)
        viewer._begin(list(clips), truth, title, fps, quality, settings)
        return viewer

    def _begin(self, clips: Sequence[ViewedClip], truth: str, title: str, fps: float, quality: int, settings) -> None:
        self._check_settings(settings, fps)
        self._scenes = _gather(clips, truth, str(title), quality)
        self._fps, self._title, self._clip_titles = float(fps), str(title), [str(clip.title) for clip in clips]
        self._check_clip(settings.get("clip", 0))  # before anything asks for the points of that clip
        first = {"clip": 0, "shown": range(min(2, len(self._scenes[0].sets)))}
        super().__init__(**self._payload(), **(first | settings))

    @property
    def _scene(self) -> ViewerScene:
        return self._scenes[self.clip]

    @property
    def num_points(self) -> int:
        return self._scene.truth.num_points

    @property
    def num_frames(self) -> int:
        return len(self._scene.frames)

    @property
    def num_sets(self) -> int:
        return len(self._scene.sets)

    def __repr__(self) -> str:
        points = f"{self.num_points} point{'' if self.num_points == 1 else 's'}"
        height, width = self._scene.size
        more = {1: "", 2: ", two sets"}.get(self.num_sets, f", {self.num_sets} sets")
        frames = f"{self.num_frames} frame{'' if self.num_frames == 1 else 's'}"
        clips = f"clip {self.clip} of {len(self._scenes)}, " if len(self._scenes) > 1 else ""
        return f"TrajectoryViewer({clips}{frames} of {height}x{width}, {points}{more})"

    def _payload(self) -> dict[str, Any]:
        """What travels once: the header and the packed frames, tracks and colours."""
        clips, tracks, frames, rebuilt = [], [], [], []
        for scene, title in zip(self._scenes, self._clip_titles):
            step = fixed_step([track for one in scene.sets for track in (one.tracks, *one.futures)], scene.size)
            sets = []
            for name, one in zip(scene.names, scene.sets):
                packed = [pack_tracks(track, scene.size, step, name) for track in (one.tracks, *one.futures)]
                confidence = one.tracks.confidence
                sure = b"" if confidence is None else _pack_confidence(confidence)
                radii = b"" if one.radii is None else _pack_radii(one.radii)
                images = one.rebuilt.images if one.rebuilt else ()
                sets.append(
                    {
                        "bytes": [len(data) for data in packed],
                        "confidence_bytes": len(sure),
                        "radii_bytes": len(radii),
                        "weights": one.weights.tolist(),
                        "rebuilt_bytes": [len(image) for image in images],
                    }
                )
                tracks += [*packed, sure, radii]
                rebuilt += images
            frames += scene.frames.images
            clips.append(self._clip_header(scene, step) | {"title": title, "sets": sets})
        header = {
            "clips": clips,
            "names": list(self._scenes[0].names),
            "set_colours": [list(colours.set_colour(which)) for which in range(len(self._scenes[0].sets))],
            "never": list(colours.NEVER),
            "outside": list(colours.OUTSIDE),
        }
        tables = colours.magnitude_table(), colours.position_table(), colours.direction_table()
        return {
            "_header": self._shared_header() | header,
            "_frames": b"".join(frames),
            "_rebuilt": b"".join(rebuilt),
            "_tracks": b"".join(tracks),
            "_palette": b"".join(table.tobytes() for table in tables),
        }

    def _clip_header(self, scene: ViewerScene, step: float) -> dict[str, Any]:
        return {
            "size": list(scene.size),
            "num_frames": len(scene.frames),
            "num_points": scene.truth.num_points,
            "step": step,
            "frame_bytes": [len(image) for image in scene.frames.images],
            "limits": scene.limits,
        }

    def _view(self, frame: int) -> View:
        settings = {name: getattr(self, name) for name in self.SETTINGS if name != "clip"}
        return View(**(settings | {"frame": frame, "selected": tuple(self.selected), "shown": tuple(self.shown)}))

    def _draw(self, frame: int, width: int) -> np.ndarray:
        return raster.draw(self._scene, self._view(frame), width)

    def _check_clip(self, clip: int) -> int:
        if not 0 <= clip < len(self._scenes):
            raise ValueError(f"clip: expected 0 to {len(self._scenes) - 1}, got {clip}")
        return clip

    @t.validate("clip")
    def _validate_clip(self, proposal: Any) -> int:
        return self._check_clip(proposal["value"])

    @t.observe("clip")
    def _stay_within(self, change: Any) -> None:
        """Points are another clip's no more, and of a shorter clip the last frame is shown."""
        if change["old"] is not t.Undefined and self.selected and max(self.selected) >= self.num_points:
            self.selected = []
        if self.frame >= self.num_frames:
            self.frame = self.num_frames - 1

    @t.validate("shown")
    def _validate_shown(self, proposal: Any) -> list[int]:
        if not proposal["value"]:
            raise ValueError(f"shown: expected at least one of the sets 0 to {self.num_sets - 1}, got none")
        return proposal["value"]

    @t.validate("colour", "background", "opacity", "future")
    def _validate_what_it_takes(self, proposal: Any) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        what, needed = NEEDS.get(value, ("", ""))
        there = {
            "": True,
            "sets": self.num_sets > 1,
            "rebuilt": any(scene.rebuilt for scene in self._scenes),
            "confidence": any(one.tracks.confidence is not None for scene in self._scenes for one in scene.sets),
            "regions": any(one.radii is not None for scene in self._scenes for one in scene.sets),
            "futures": any(one.futures for scene in self._scenes for one in scene.sets),
        }
        if not there[what]:
            raise ValueError(f"{name}: {value!r} needs the argument {needed}, which this viewer was not given")
        return value

    @t.validate("trail", "point_size", "density", "sample")
    def _validate_range(self, proposal: Any) -> float:
        return within(proposal)


def _gather(clips: Sequence[ViewedClip], truth: str, title: str, quality: int) -> tuple[ViewerScene, ...]:
    """Check everything and bring it into one form."""
    if not clips:
        raise ValueError("clips: expected at least one, got none")
    names = (truth, *map(str, clips[0].predictions))
    scenes = []
    for number, clip in enumerate(clips):
        where = f"clip {number}, " if len(clips) > 1 else ""
        if (truth, *map(str, clip.predictions)) != names:
            expected, got = ", ".join(names[1:]) or "none", ", ".join(clip.predictions) or "none"
            raise ValueError(f"{where}predictions: expected {expected} as of the first clip, got {got}")
        if len(set(names)) < len(names):
            raise ValueError(f"{where}predictions: expected another name than {truth!r}, which the tracks have")
        scenes.append(_scene(clip, names, " · ".join(filter(None, (title, str(clip.title)))), quality, where))
    return tuple(scenes)


def _scene(clip: ViewedClip, names: tuple[str, ...], title: str, quality: int, where: str) -> ViewerScene:
    frames = pack_frames(clip.frames, quality, f"{where}frames")
    truth = as_tracks(clip.tracks, frames.size, len(frames), f"{where}tracks")
    # a prediction without labels stands in the truth's place, and what it rebuilds and its futures go with it
    theirs = {"rebuilt": clip.rebuilt, "futures": clip.futures}
    alone = {what: next(iter(extra.values())) for what, extra in theirs.items() if extra and not clip.predictions}
    extras = {"confidence": clip.confidence, "regions": clip.regions}
    for what, extra in (extras | {what: extra for what, extra in theirs.items() if what not in alone}).items():
        if strays := [name for name in extra if name not in clip.predictions]:
            known = ", ".join(clip.predictions) or "none"
            raise ValueError(f"{where}{what}: expected names of predictions ({known}), got {strays[0]!r}")
    ways = _futures(alone.get("futures"), truth, f"{where}futures")
    sets = [ViewerSet(truth, _pack_rebuilt(alone.get("rebuilt"), frames, quality, where), *ways)]
    for name, prediction in clip.predictions.items():
        called = f"{where}{'prediction' if len(clip.predictions) == 1 else name}"
        tracks = as_tracks(prediction, frames.size, len(frames), called, truth.queries)
        if name in clip.confidence:
            sure = _numbers(clip.confidence[name], f"{where}confidence")
            tracks = Tracks(tracks.tracks, tracks.visibility, tracks.queries, sure)
        futures, weights = _futures(clip.futures.get(name), tracks, f"{where}futures")
        rebuilt = _pack_rebuilt(clip.rebuilt.get(name), frames, quality, where)
        radii = _regions(clip.regions.get(name), tracks, f"{where}regions")
        sets.append(ViewerSet(tracks, rebuilt, futures, weights, radii))
    if truth.is_dense(frames.size):
        sets = [_thinned(one, every_few_pixels(frames.size)) for one in sets]
    return ViewerScene(frames, tuple(sets), names, title)


def _thinned(one: ViewerSet, points: np.ndarray) -> ViewerSet:
    """Some of its points."""
    futures = tuple(future.points(points) for future in one.futures)
    radii = None if one.radii is None else one.radii[:, points]
    return replace(one, tracks=one.tracks.points(points), futures=futures, radii=radii)


def _pack_rebuilt(rebuilt, frames: PackedFrames, quality: int, where: str) -> PackedFrames | None:
    if rebuilt is None:
        return None
    packed = pack_frames(rebuilt, quality, f"{where}rebuilt")
    if (len(packed), packed.size) != (len(frames), frames.size):
        got = f"{len(packed)} of {packed.size}"
        raise ValueError(f"{where}rebuilt: expected {len(frames)} frames of {frames.size} as the clip has, got {got}")
    return packed


def _futures(futures, tracks: Tracks, name: str) -> tuple[tuple[Tracks, ...], np.ndarray]:
    """Sampled futures as `Tracks`, and their weights, which then sum to 1."""
    if futures is None:
        return (), np.zeros(0)
    samples, weights = futures if isinstance(futures, tuple) else (futures, None)
    values = _numbers(samples, name)
    if values.ndim != 4 or values.shape[1:] != tracks.tracks.shape or not len(values):
        expected = ["K", *tracks.tracks.shape]
        raise ValueError(f"{name}: expected samples {expected} of at least one, got {list(values.shape)}")
    shares = np.ones(len(values)) if weights is None else _numbers(weights, f"{name}, weights").astype(np.float64)
    if shares.shape != (len(values),) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"{name}: expected {len(values)} weights of 0 or more, not all 0, got {shares.tolist()}")
    samples = (Tracks(one, tracks.visibility, tracks.queries, tracks.confidence) for one in values)
    return tuple(samples), shares / shares.sum()


def _regions(radii, tracks: Tracks, name: str) -> np.ndarray | None:
    """[S N] pixels, checked."""
    if radii is None:
        return None
    values = _numbers(radii, name)
    if values.shape != tracks.visibility.shape or (values < 0).any():
        expected, got = list(tracks.visibility.shape), list(values.shape)
        raise ValueError(f"{name}: expected radii of 0 pixels or more, of shape {expected}, got {got}")
    return values


def _numbers(values, name: str) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {array.dtype} with NaN, infinity or something else")
    return array.astype(np.float32)


def _pack_confidence(confidence: np.ndarray) -> bytes:
    """[S N] as deflated bytes, 0 to 255."""
    return zlib.compress(np.round(confidence * 255).astype(np.uint8).tobytes(), 6)


def _pack_radii(radii: np.ndarray) -> bytes:
    """[S N] as deflated uint16 of 1/16 pixel, low bytes first; 4,096 pixels and more are as good as no end."""
    fixed = np.round(np.clip(radii * 16, 0, 65535)).astype("<u2")
    return zlib.compress(fixed.tobytes(), 6)
