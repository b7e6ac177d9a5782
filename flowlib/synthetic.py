"""Rendered clips with exact trajectories: textured sprites that move, turn, scale and hide each other before a camera.

In goes a seed and a few words on the motion; out come frames and a `Scene`, a formula for every point at every time.
A scene is plain numbers: kept as JSON beside a video it was written to, it stays that video's exact truth.
Pictures are computed in NumPy from PCG64 and arithmetic alone, so a seed gives the same bytes on every machine.
Knows nothing of files, codecs or networks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int, UInt8

from flowlib.geometry import Size, check_size, inside, pixel_grid
from flowlib.tracks import Tracks, check_queries

MOTIONS = ("still", "linear", "affine", "wander")
OPEN_KINDS = ("reverse", "fork")
# What all sprites of a scene do together; neighbours are opposites, alike in frame 0. The last four come back: of these
# only the way tells which it was, no single frame does.
ACTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise")
ACTIONS += ("left_and_back", "right_and_back", "up_and_back", "down_and_back")
FORMAT = "flowlib scene 1"

OUTLINE_ANGLES = 180  # radii that describe a sprite's outline, one every 2 degrees
BACKGROUND_TILE = 1024  # pixels after which the background repeats itself; a power of two
SPRITE_TILE = 256
CENTRAL = 0.7  # of the frame, where the sprites of an action begin
GOLDEN = (math.sqrt(5) - 1) / 2  # ratio of the two swinging frequencies: such a path never closes


@dataclass(frozen=True)
class Motion:
    """An affine map that changes smoothly with time: where a layer's own pixels are in the world at frame t.

    Attributes:
        position, velocity: (x, y) of the layer's centre at t = 0 in pixels, and what it moves per frame.
        sway: (x, y) amplitude in pixels of a swinging motion on top.
        angle, spin: radians at t = 0, clockwise on the screen, and per frame.
        rock: amplitude in radians of a swinging rotation.
        swell: amplitude of the swinging logarithm of the scale; the two axes swing apart, so shapes shear, too.
        period: frames of one swing.
        phase: radians of the swing at t = 0.
    """

    position: tuple[float, float] = (0.0, 0.0)
    velocity: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    spin: float = 0.0
    rock: float = 0.0
    swell: float = 0.0
    period: float = 48.0
    phase: float = 0.0

    def matrix(self, t: float) -> Float[np.ndarray, "3 3"]:
        """From the layer's (x, y, 1) to the world's at frame t."""
        swing = math.tau * t / self.period + self.phase
        angle = self.angle + self.spin * t + self.rock * math.sin(GOLDEN * swing + 1)
        scale_x = math.exp(self.swell * math.sin(swing))
        scale_y = math.exp(self.swell * math.sin(swing + 0.7))
        x = self.position[0] + self.velocity[0] * t + self.sway[0] * math.sin(swing)
        y = self.position[1] + self.velocity[1] * t + self.sway[1] * math.sin(GOLDEN * swing + self.phase)
        c, s = math.cos(angle), math.sin(angle)
        return np.array([[c * scale_x, -s * scale_y, x], [s * scale_x, c * scale_y, y], [0, 0, 1]])


@dataclass(frozen=True)
class Layer:
    """A texture, the outline it is cut to, and how it moves.

    Attributes:
        texture: seed of its texture.
        motion: from its own pixels, whose origin is its centre, to the world.
        outline: the distances from the centre to the edge in pixels, at equal angles from the x axis on, clockwise on
            the screen; empty: no edge, it covers everything.
    """

    texture: int
    motion: Motion
    outline: tuple[float, ...] = ()

    def depth(self, xy: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, " N"]:
        """How far inside the outline the layer's own points lie, in its pixels: positive inside, negative outside."""
        if not self.outline:
            return np.full(len(xy), np.inf)
        radii = np.array(self.outline)
        turn = np.arctan2(xy[:, 1], xy[:, 0]) * (len(radii) / math.tau)
        low = np.floor(turn)
        here, there = radii[low.astype(int) % len(radii)], radii[(low.astype(int) + 1) % len(radii)]
        radius, slope = here + (turn - low) * (there - here), (there - here) * (len(radii) / math.tau)
        # the radial distance, shortened where the outline is steep, is the distance to the edge to first order
        return (radius - np.hypot(xy[:, 0], xy[:, 1])) * radius / np.hypot(radius, slope)


@dataclass(frozen=True)
class Scene:
    """Layers before a camera: renders any of its frames, and knows where each point of it is in any other.

    Attributes:
        size: (height, width) of its frames in pixels.
        num_frames: its length; frames are numbered from 0.
        layers: from the back to the front; the first has no outline. The world's origin is the frame's centre.
        camera: from the world to the frame, about the frame's centre.

    Raises:
        ValueError: a size or length that is not positive, or no background.
    """

    size: Size
    num_frames: int
    layers: tuple[Layer, ...]
    camera: Motion = Motion()

    def __post_init__(self) -> None:
        check_size(self.size, "scene size")
        if self.num_frames < 1:
            raise ValueError(f"scene num_frames: expected at least 1, got {self.num_frames}")
        if not self.layers or self.layers[0].outline:
            raise ValueError("scene layers: expected a background without outline first")

    def render(self, t: float) -> UInt8[np.ndarray, "H W 3"]:
        """The picture at frame t (between two frames, too): [H W 3] RGB, edges smoothed over one pixel."""
        canvas = np.zeros((*self.size, 3), np.float32)
        for layer, matrix in zip(self.layers, self._matrices(t)):
            _paint(canvas, layer, matrix)
        return np.rint(canvas).clip(0, 255).astype(np.uint8)

    def clip(self, num_frames: int | None = None, first_frame: int = 0, frame_step: int = 1) -> np.ndarray:
        """[S H W 3] uint8: every `frame_step`-th picture from `first_frame` on; None: to the scene's end."""
        return np.stack([self.render(t) for t in self._times(num_frames, first_frame, frame_step)])

    def layer_at(self, t: float, xy: Float[np.ndarray, "N 2"]) -> Int[np.ndarray, " N"]:
        """Index of the foremost layer at positions xy [N 2] of frame t, which may lie outside the frame."""
        top = np.zeros(len(xy), int)
        for index, (layer, matrix) in enumerate(zip(self.layers, self._matrices(t))):
            top[layer.depth(_apply(np.linalg.inv(matrix), xy)) >= 0] = index
        return top

    def tracks(
        self, queries: np.ndarray, num_frames: int | None = None, first_frame: int = 0, frame_step: int = 1
    ) -> Tracks:
        """Where points go in a clip of the scene, exactly.

        A point belongs to the foremost layer at its query and moves with it. It is visible where it lies inside the
        frame and its layer is the foremost one there. Points queried outside the frame follow what is there.

        Args:
            queries: [N 3] (t, x, y); t counts the frames of the clip, (x, y) in pixels of the scene. The tracks are
                float64 if they are, else float32.
            num_frames, first_frame, frame_step: the clip, as in `clip`.

        Raises:
            ValueError: queries of another shape or outside the clip, or a clip outside the scene.
        """
        times = self._times(num_frames, first_frame, frame_step)
        queries = np.asarray(queries)
        check_queries(queries, len(times))
        queries = queries.astype(np.float64 if queries.dtype == np.float64 else np.float32)
        asked, start = queries[:, 1:].astype(np.float64), queries[:, 0].astype(int)
        matrices = np.stack([self._matrices(t) for t in times])  # S L 3 3
        own = np.zeros(len(queries), int)
        local = np.zeros((len(queries), 2))
        for s in np.unique(start):
            here = start == s
            own[here] = self.layer_at(times[s], asked[here])
            local[here] = _apply(np.linalg.inv(matrices[s])[own[here]], asked[here])
        tracks = np.stack([_apply(frame[own], local) for frame in matrices])  # S N 2
        tracks[start, np.arange(len(queries))] = asked  # exact there, free of rounding
        top = np.stack([self.layer_at(t, xy) for t, xy in zip(times, tracks)])
        return Tracks(tracks.astype(queries.dtype), (top == own) & inside(tracks, self.size), queries)

    def displacement(self, num_frames: int | None = None) -> Float[np.ndarray, "S 2 H W"]:
        """Where every pixel of frame 0 goes: float32 displacement in pixels, exactly zero in frame 0."""
        xy = pixel_grid(self.size).reshape(-1, 2).astype(np.float64)
        tracks = self.tracks(np.insert(xy, 0, 0, axis=1), num_frames)
        dense = tracks.displacement.reshape(tracks.num_frames, *self.size, 2)
        return np.ascontiguousarray(dense.transpose(0, 3, 1, 2), dtype=np.float32)

    def to_dict(self) -> dict:
        """The scene as plain numbers, lists and dicts, for JSON; `Scene.from_dict` reads it back."""
        return {"format": FORMAT} | asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Scene:
        """The scene that `to_dict` gave, also after a round through JSON.

        Raises:
            ValueError: not such a dict, or of another version; names the field at fault.
        """
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        if found != FORMAT:
            raise ValueError(f"scene: expected a dict of format {FORMAT!r}, got {found!r}")
        return _revive(cls, {name: value for name, value in values.items() if name != "format"}, "scene")

    def _matrices(self, t: float) -> Float[np.ndarray, "L 3 3"]:
        """From each layer's own (x, y, 1) to that of frame t."""
        camera = self.camera.matrix(t)
        camera[:2, 2] += (self.size[1] - 1) / 2, (self.size[0] - 1) / 2
        return camera @ np.stack([layer.motion.matrix(t) for layer in self.layers])

    def _times(self, num_frames: int | None, first_frame: int, frame_step: int) -> range:
        for name, number, least in (("first_frame", first_frame, 0), ("frame_step", frame_step, 1)):
            if number < least:
                raise ValueError(f"{name}: expected at least {least}, got {number}")
        stop = self.num_frames if num_frames is None else first_frame + (num_frames - 1) * frame_step + 1
        if not first_frame < stop <= self.num_frames:
            raise ValueError(f"clip: expected frames of a scene of {self.num_frames}, got {first_frame} to {stop - 1}")
        return range(first_frame, stop, frame_step)


def synthetic_clip(num_frames: int = 8, size: Size = (120, 160), seed: int = 0, **options) -> tuple[np.ndarray, Scene]:
    """Frames [S H W 3] uint8 and the scene that knows where every point of them goes; arguments as in `random_scene`.

    >>> frames, scene = synthetic_clip(num_frames=8, size=(120, 160), seed=0)
    >>> frames.shape, scene.tracks(np.array([[0, 40.0, 30.0]])).tracks.shape
    ((8, 120, 160, 3), (8, 1, 2))
    """
    scene = random_scene(num_frames, size, seed, **options)
    return scene.clip(), scene


def random_scene(
    num_frames: int = 8,
    size: Size = (120, 160),
    seed: int = 0,
    *,
    num_sprites: int = 4,
    motion: str = "affine",
    camera: str = "still",
) -> Scene:
    """A scene of ellipses, polygons and blobs before a background, decided by the arguments alone.

    Args:
        num_frames: length. "linear" and "affine" sprites come and go in a long scene, "wander" ones keep coming back.
        size: (height, width) in pixels; speeds and sprites scale with its shorter side.
        seed: same seed, same scene, on every machine.
        num_sprites: how many; 0 leaves the background.
        motion: of the sprites: "still", "linear" (constant velocity, nothing else), "affine" (that, and they turn,
            scale and shear) or "wander" (all of it in slow swings about a place).
        camera: the same words for the camera.

    Raises:
        ValueError: an argument out of its range, by name.

    >>> random_scene(100, (360, 640), seed=3, motion="wander", camera="wander").render(99).shape
    (360, 640, 3)
    """
    check_size(size)
    for name, word in (("motion", motion), ("camera", camera)):
        if word not in MOTIONS:
            raise ValueError(f"{name}: expected one of {', '.join(MOTIONS)}, got {word!r}")
    for name, number, least in (("num_frames", num_frames, 1), ("num_sprites", num_sprites, 0), ("seed", seed, 0)):
        if not isinstance(number, (int, np.integer)) or number < least:
            raise ValueError(f"{name}: expected a whole number of at least {least}, got {number!r}")
    rng = np.random.default_rng(int(seed))
    unit = min(size)
    view = _random_motion(rng, camera, unit, strength=0.4)
    textures = (rng.random(num_sprites + 1) * 2**32).astype(int).tolist()
    layers = [Layer(textures[0], Motion())]
    for index in range(num_sprites):
        x, y = ((rng.random(2) - 0.5) * (size[1], size[0])).tolist()
        moving, when = _random_motion(rng, motion, unit, strength=1.0), rng.random() * (num_frames - 1)
        start = (x - moving.velocity[0] * when, y - moving.velocity[1] * when)  # at (x, y) at that time
        layers.append(Layer(textures[index + 1], replace(moving, position=start), _outline(rng, index, unit)))
    return Scene((int(size[0]), int(size[1])), int(num_frames), tuple(layers), view)


def open_future_scene(
    num_frames: int = 8, size: Size = (120, 160), seed: int = 0, *, kind: str = "reverse", future: int = 0
) -> Scene:
    """A scene with two equally likely futures: both have the same frame 0, to the byte, and part from there on.

    Args:
        num_frames, size, seed: as in `random_scene`; all seeds have the same speeds, so frame 0 tells everything but
            which of the two it will be.
        kind: "reverse": the camera pans to the right (future 0) or to the left (1). "fork": two arrowheads that point
            up go up and to the left (0) or up and to the right (1), together, before a background that rests.
        future: 0 or 1.

    Raises:
        ValueError: an argument out of its range, by name.

    >>> one, other = (open_future_scene(4, (48, 64), seed=5, kind="fork", future=k) for k in (0, 1))
    >>> bool((one.render(0) == other.render(0)).all()), bool((one.render(3) == other.render(3)).all())
    (True, False)
    """
    if kind not in OPEN_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(OPEN_KINDS)}, got {kind!r}")
    if future not in (0, 1):
        raise ValueError(f"future: expected 0 or 1, got {future!r}")
    scene = random_scene(num_frames, size, seed, num_sprites=2, motion="still")
    side, speed = 2 * future - 1, 0.02 * min(size)
    if kind == "reverse":  # what is before a camera that pans to the right goes to the left
        return replace(scene, camera=Motion(velocity=(side * speed, 0.0)))
    turned = speed * math.sin(math.radians(50)), -speed * math.cos(math.radians(50))
    layers = [scene.layers[0]]
    for layer, across in zip(scene.layers[1:], (-0.25, 0.25)):
        x, y = layer.motion.position
        start = (across * size[1] + 0.2 * x, 0.15 * size[0] + 0.3 * y)
        layers.append(Layer(layer.texture, Motion(start, (side * turned[0], turned[1])), _arrowhead(0.26 * min(size))))
    return replace(scene, layers=tuple(layers))


def action_scene(
    action: str,
    num_frames: int = 16,
    size: Size = (72, 96),
    seed: int = 0,
    *,
    num_sprites: int = 3,
    camera: str = "still",
    whole: bool = False,
) -> Scene:
    """A scene whose sprites all do one thing. What it shows in frame 0 depends on the other arguments alone, so the
    picture doesn't tell what will happen.

    Args:
        action: one of `ACTIONS`, up and down on the screen, clockwise as seen there. Speeds differ from sprite to
            sprite, directions by up to 15 degrees.
        num_frames, size, seed, num_sprites, camera: as for `random_scene`.
        whole: the whole picture does it, sprites and background alike, in place of the `camera`'s own motion.

    Raises:
        ValueError: an argument out of its range, by name.

    >>> left, right = (action_scene(action, seed=3) for action in ("left", "right"))
    >>> bool((left.render(0) == right.render(0)).all()), bool((left.render(5) == right.render(5)).all())
    (True, False)
    """
    if action not in ACTIONS:
        raise ValueError(f"action: expected one of {', '.join(ACTIONS)}, got {action!r}")
    scene = random_scene(num_frames, size, seed, num_sprites=num_sprites, motion="still", camera=camera)
    rng = np.random.default_rng([int(seed), 1])
    if whole:
        return replace(scene, camera=_random_act(rng, action, min(size), num_frames))
    layers = [scene.layers[0]]
    for layer in scene.layers[1:]:
        x, y = layer.motion.position
        start = (CENTRAL * x, CENTRAL * y)  # so that what leaves the middle is still to be seen for a while
        moving = _random_act(rng, action, min(size), num_frames)
        layers.append(replace(layer, motion=replace(moving, position=start)))
    return replace(scene, layers=tuple(layers))


def _random_act(rng: np.random.Generator, action: str, unit: float, num_frames: int) -> Motion:
    """The motion of one layer: a fifth to two fifths of `unit` in all, or a radian and more."""
    pace, tilted = rng.random(2).tolist()
    reach, tilt, steps = unit * (0.2 + 0.2 * pace), math.radians(15) * (2 * tilted - 1), max(1, num_frames - 1)
    if action in ("clockwise", "anticlockwise"):
        turn = (1 if action == "clockwise" else -1) * (1 + abs(tilt))
        return Motion(spin=1.5 * turn / steps)
    word, returns = action.removesuffix("_and_back"), action.endswith("_and_back")
    heading = {"right": 0, "down": 1, "left": 2, "up": 3}[word] * math.tau / 4 + (0 if returns else tilt)
    x, y = reach * math.cos(heading), reach * math.sin(heading)
    if returns:  # half a swing, of which y has a frequency of its own
        return Motion(sway=(x, y), period=2 * steps * (GOLDEN if word in ("up", "down") else 1))
    return Motion(velocity=(x / steps, y / steps))


def _paint(canvas: np.ndarray, layer: Layer, matrix: np.ndarray) -> None:
    """Lay a layer over the canvas [H W 3], in place, within the box it can reach."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = 0, 0, width, height
    if layer.outline:
        reach = max(layer.outline) * np.linalg.norm(matrix[:2, :2], ord=2) + 1
        left, top = np.floor(matrix[:2, 2] - reach).astype(int).clip(0, (width, height))
        right, bottom = np.ceil(matrix[:2, 2] + reach).astype(int).clip(-1, (width - 1, height - 1)) + 1
    inverse = np.linalg.inv(matrix)
    columns, rows = np.arange(left, right), np.arange(top, bottom)[:, None]
    x, y = (row[0] * columns + row[1] * rows + row[2] for row in inverse[:2])
    box = canvas[top:bottom, left:right]
    if not layer.outline:
        box[:] = _sample(_texture(layer.texture, BACKGROUND_TILE), x, y)
        return
    # depth is in the layer's pixels; the mean scale brings it to those of the frame, where an edge is one wide
    scale = math.sqrt(abs(np.linalg.det(matrix)))
    cover = layer.depth(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(x.shape) * scale + 0.5
    seen = cover > 0
    cover = cover[seen].clip(0, 1)[:, None].astype(np.float32)
    box[seen] += cover * (_sample(_texture(layer.texture, SPRITE_TILE), x[seen], y[seen]) - box[seen])


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read a texture [T T 3], which repeats itself, between its pixels at x, y [...]: float32 [... 3]."""
    tile = len(texture)
    texels = texture.reshape(-1, 3)
    left, top = np.floor(x), np.floor(y)
    right_part, lower_part = (x - left).astype(np.float32)[..., None], (y - top).astype(np.float32)[..., None]
    i, j = left.astype(int) % tile, top.astype(int) % tile
    i_next, upper, lower = (i + 1) % tile, j * tile, (j + 1) % tile * tile
    above, below = texels[upper + i], texels[lower + i]
    above += right_part * (texels[upper + i_next] - above)
    below += right_part * (texels[lower + i_next] - below)
    return above + lower_part * (below - above)


@lru_cache(maxsize=24)
def _texture(seed: int, tile: int) -> Float[np.ndarray, "T T 3"]:
    """A picture that tiles the plane: veins of three colours, shaded by finer and finer smooth noise down to 4 px."""
    rng = np.random.default_rng(seed)
    palette = 55 + 145 * rng.random((3, 1)) + 110 * (rng.random((3, 3)) - 0.5)
    coarse = [cell for cell in (128, 64, 32, 16) if cell <= tile // 4]
    veins = np.sin(1.5 * _noise(rng, tile, coarse) + math.tau * rng.random())[..., None]
    blend = 0.5 + 0.5 * np.sin(1.2 * _noise(rng, tile, coarse))[..., None]
    colour = palette[0] + (0.5 + 0.5 * veins) * (palette[1] - palette[0])
    colour = colour + 0.6 * blend * (palette[2] - colour)
    shade = 1 + 0.28 * _noise(rng, tile, [32, 16, 8, 4])[..., None]
    # eighths of a grey level: what another machine's last bit would change, rounding takes away
    return (np.rint(8 * (colour * shade).clip(4, 251)) / 8).astype(np.float32)


def _noise(rng: np.random.Generator, tile: int, cells: list[int]) -> Float[np.ndarray, "T T"]:
    """Smooth noise of mean 0 and deviation 1 that tiles the plane: octaves of cubic B-splines of the given cells."""
    total = np.zeros((tile, tile))
    for cell in cells:
        spline = _spline_matrix(tile, cell)
        octave = spline @ (rng.random((tile // cell, tile // cell)) - 0.5) @ spline.T
        total += octave / octave.std() * cell**0.4  # natural pictures, too, have most contrast at large scale
    return total / total.std()


@lru_cache(maxsize=16)
def _spline_matrix(tile: int, cell: int) -> Float[np.ndarray, "T n"]:
    """Periodic cubic B-spline interpolation from tile/cell knots to `tile` pixels."""
    position = np.arange(tile) / cell
    knot, part = position.astype(int), position % 1
    weights = [(1 - part) ** 3, 3 * part**3 - 6 * part**2 + 4, -3 * part**3 + 3 * part**2 + 3 * part + 1, part**3]
    matrix = np.zeros((tile, tile // cell))
    for offset, weight in zip((-1, 0, 1, 2), weights):
        matrix[np.arange(tile), (knot + offset) % (tile // cell)] += weight / 6
    return matrix


def _random_motion(rng: np.random.Generator, kind: str, unit: float, strength: float) -> Motion:
    """A motion of the given kind; `unit` is the frame's shorter side, `strength` scales how lively it is."""
    heading, pace, turn, swell, period, phase, sway_x, sway_y = rng.random(8).tolist()
    if kind == "still":
        return Motion()
    speed = strength * unit * (0.005 + 0.02 * pace)
    velocity = (speed * math.cos(math.tau * heading), speed * math.sin(math.tau * heading))
    if kind == "linear":
        return Motion(velocity=velocity)
    swings = dict(swell=strength * (0.1 + 0.15 * swell), period=32 + 32 * period, phase=math.tau * phase)
    if kind == "affine":
        spin = strength * math.copysign(0.01 + 0.1 * abs(turn - 0.5), turn - 0.5)
        return Motion(velocity=velocity, spin=spin, **swings)
    sway = (strength * unit * (0.1 + 0.25 * sway_x), strength * unit * (0.1 + 0.25 * sway_y))
    return Motion(sway=sway, rock=strength * (0.1 + 0.5 * turn), **swings)


def _outline(rng: np.random.Generator, index: int, unit: float) -> tuple[float, ...]:
    """By turns a blob, a polygon of 3 to 6 corners and an ellipse, of a radius from an eighth to a quarter of unit."""
    angles = np.arange(OUTLINE_ANGLES) * (math.tau / OUTLINE_ANGLES)
    largest = max(2.0, unit * (0.125 + 0.125 * rng.random()))
    if index % 3 == 0:
        waves = [rng.random() * np.cos(k * angles + math.tau * rng.random()) / k for k in (2, 3, 4, 5)]
        radii = 1 + 0.5 * sum(waves)
    elif index % 3 == 1:
        radii = _polygon(angles, rng, corners=3 + int(rng.random() * 4))
    else:
        squeeze = 0.4 + 0.5 * rng.random()
        radii = squeeze / np.hypot(squeeze * np.cos(angles), np.sin(angles))
    return tuple(np.round(largest * radii / np.max(radii), 2).tolist())


def _arrowhead(length: float) -> tuple[float, ...]:
    """An outline that points up."""
    angles = np.arange(OUTLINE_ANGLES) * (math.tau / OUTLINE_ANGLES)
    corners = np.array([0.75 * np.exp(0.2j * math.pi), 0.75 * np.exp(0.8j * math.pi), np.exp(1.5j * math.pi)])
    edge = (np.searchsorted(np.angle(corners) % math.tau, angles, side="right") - 1) % 3
    start, along = corners[edge], np.roll(corners, -1)[edge] - corners[edge]
    radii = np.imag(start.conj() * along) / np.imag(np.exp(-1j * angles) * along)
    return tuple(np.round(length * radii, 2).tolist())


def _polygon(angles: np.ndarray, rng: np.random.Generator, corners: int) -> np.ndarray:
    """Distances from the centre to the edge of a polygon with corners at uneven angles and distances."""
    at = (np.arange(corners) + 0.3 * rng.random(corners)) * (math.tau / corners)
    points = (0.7 + 0.3 * rng.random(corners)) * np.exp(1j * at)
    edge = (np.searchsorted(at, angles, side="right") - 1) % corners
    start, along = points[edge], np.roll(points, -1)[edge] - points[edge]
    return np.imag(start.conj() * along) / np.imag(np.exp(-1j * angles) * along)  # where the ray meets the edge


def _apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Points [N 2] carried by a matrix [3 3], or each by its own [N 3 3]."""
    return np.einsum("...ij,...j->...i", matrix[..., :2, :2], xy) + matrix[..., :2, 2]


def _revive(kind: type, values: dict, name: str):
    """The dataclass `kind` from what `asdict` and JSON made of it, each field checked for its type."""
    known = {field.name: str(field.type) for field in fields(kind)}
    if not isinstance(values, dict) or set(values) != set(known):
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{name}: expected the fields {sorted(known)}, got {got}")
    return kind(**{field: _value(value, f"{name} {field}", known[field]) for field, value in values.items()})


def _value(value, name: str, kind: str):
    """What JSON made of a field, brought back to the type its annotation `kind` names."""
    if kind == "Motion":
        return _revive(Motion, value, name)
    many = kind == "Size" or kind.startswith("tuple")
    if isinstance(value, (list, tuple)) != many:
        raise ValueError(f"{name}: expected {kind}, got {value!r}")
    if kind == "tuple[Layer, ...]":
        return tuple(_revive(Layer, layer, f"{name} {index}") for index, layer in enumerate(value))
    numbers = value if many else [value]
    allowed = (int,) if kind in ("int", "Size") else (int, float)
    right = all(type(number) in allowed and math.isfinite(number) for number in numbers)
    if not right or (many and "..." not in kind and len(numbers) != 2):
        raise ValueError(f"{name}: expected {kind} of finite numbers, got {value!r}")
    return tuple(numbers) if many else value
