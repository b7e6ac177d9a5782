"""Augmentation of clips that moves images, positions and visibility together.

Every function takes a `ClipSample` whose points are queried in frame 0, or a dict that `ClipSample.of` takes, and gives
a new one. Displacements need no care of their own, since they are always read off tracks and queries. Computes with
torch. Knows nothing of shards or models.

The trap this module is built around: an image shifted by (x, y) whose labels move by (y, x). Here one number pair
(left, top) moves both, and the tests ask that the pixel at the track still looks like the pixel at the query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flowlib.clips import ClipSample
from flowlib.geometry import (
    Size,
    bilinear_sample,
    check_size,
    from_corner,
    inside,
    pixel_grid,
    rescale_points,
    to_corner,
)

GREY = (0.299, 0.587, 0.114)  # of Rec. 601
# How a moving crop leaves constant velocity.
BEND = 0.1  # of its way, halfway through the clip
SHAKE = 0.5  # pixels
ZOOM = 0.3  # logarithm of the enlargement, from the first frame to the last

Sample = ClipSample | Mapping[str, Any]


@dataclass(frozen=True)
class AugmentConfig:
    """How much to change clips. Ranges are drawn from evenly; one draw for all frames of a clip."""

    flip_x: float = 0.5  # probability of mirroring left and right
    flip_y: float = 0.0  # probability of mirroring top and bottom
    reverse: float = 0.0  # probability of playing the clip backwards; for models that see more than one frame
    scale: tuple[float, float] = (1.0, 1.0)  # enlargement before the crop; below 1 black borders come in
    shift: float = 0.0  # how far the crop may leave the frame, as a part of its side
    crop: tuple[int, int] | None = None  # (H, W) of what is cut out; None: the clip's own size
    colour: float = 0.0  # how far brightness, contrast and saturation may leave 1
    pan: float = 0.0  # probability that the crop moves over the clip as a steady camera does, see `draw_pan`

    def __post_init__(self) -> None:
        for name in ("flip_x", "flip_y", "reverse", "shift", "colour", "pan"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)!r}")
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale: expected two numbers above 0, the smaller one first, got {self.scale}")
        if self.crop is not None:
            check_size(self.crop, "crop")

    def or_none(self) -> AugmentConfig | None:
        """None if these ranges leave every clip as it is, else itself.

        >>> AugmentConfig(flip_x=0.0).or_none() is None
        True
        """
        return None if self == AugmentConfig(flip_x=0.0) else self


def augment(
    sample: Sample, config: AugmentConfig, generator: torch.Generator, frames: Sequence[int] | None = None
) -> ClipSample:
    """Draw a changed version of a clip.

    Points whose query leaves the frame (or is hidden in the new first frame) make room for copies of others, so the
    number of points stays; points outside the frame in a later frame become invisible. If a draw leaves no point at
    all, the clip stays as it is but for its size and colour.

    Args:
        sample: see the module's header.
        config: the ranges.
        generator: what to draw from; the same state gives the same result.
        frames: the pictures that are wanted, as frames of the changed clip; the others are left out. None: all there
            are. `colour` takes the mean grey of those that are left.

    Returns:
        A new sample; the one given is left alone.
    """
    draw = _Draw(generator)
    changed = sample = ClipSample.of(sample)
    if draw.chance(config.reverse):
        changed = reverse(changed)
    if frames is not None:
        sample, changed = (_pictured(one, frames) for one in (sample, changed))
    if draw.chance(config.flip_x):
        changed = flip(changed, "x")
    if draw.chance(config.flip_y):
        changed = flip(changed, "y")
    height, width = changed.size
    target = config.crop or (height, width)
    if config.pan and draw.chance(config.pan):  # without it no draw is taken: what was drawn before stays the same
        changed = follow(changed, draw_pan(changed, target, config.scale, draw.generator), target)
    else:
        factor = draw.between(*config.scale)
        scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
        changed = resize(changed, scaled)
        left, top = (draw.offset(scaled[axis], target[axis], config.shift) for axis in (1, 0))
        changed = crop(changed, left, top, target)
    if not usable(changed).any():
        changed = crop(sample, (width - target[1]) // 2, (height - target[0]) // 2, target)
    factors = [1 + config.colour * draw.between(-1, 1) for _ in range(3)]
    changed = colour(changed, *factors) if config.colour else changed
    return refill(changed, draw.generator)


class _Draw:
    """Random numbers from one generator; each call takes a draw whatever its arguments, so streams stay in step."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return self.between(0, 1) < probability

    def offset(self, side: int, target: int, shift: float) -> int:
        """Where a crop of `target` pixels begins on a side: anywhere inside, and `shift` of it beyond."""
        low, high = sorted((0, side - target))
        beyond = shift * target
        return round(self.between(low - beyond, high + beyond))


def flip(sample: Sample, axis: str) -> ClipSample:
    """Mirror a clip: axis "x" swaps left and right, "y" top and bottom.

    >>> import numpy as np
    >>> from flowlib.clips import Clip
    >>> from flowlib.tracks import Tracks
    >>> frames = np.zeros((2, 8, 16, 3), np.uint8)
    >>> truth = Tracks.still(np.array([[0, 3.0, 2.0]]), num_frames=2)
    >>> mirrored = flip(ClipSample(Clip.named("a clip", frames), frames, truth), "x")
    >>> mirrored["tracks"][:, 0].tolist()  # 3 pixels from the left become 3 from the right
    [[12.0, 2.0], [12.0, 2.0]]
    """
    if axis not in ("x", "y"):
        raise ValueError(f"axis: expected 'x' or 'y', got {axis!r}")
    sample = ClipSample.of(sample)
    column, dimension, side = (0, 2, sample.size[1]) if axis == "x" else (1, 1, sample.size[0])

    def mirrored(xy: Tensor) -> Tensor:
        xy = xy.clone()
        xy[..., column] = side - 1 - xy[..., column]
        return xy

    return _moved(sample, sample["frames"].flip(dimension), mirrored)


def reverse(sample: Sample) -> ClipSample:
    """Play a clip backwards: each point's query becomes its position in what was the last frame.

    Points hidden there have no query any more; `usable` tells them, `refill` replaces them.
    """
    sample = ClipSample.of(sample)
    tracks, visibility = sample["tracks"].flip(0), sample["visibility"].flip(0)
    queries = torch.cat([sample["queries"][:, :1], tracks[0]], dim=1)
    last = sample.clip.num_frames - 1
    mirrored = replace(sample.clip, kept=tuple(last - frame for frame in reversed(sample.clip.kept)))
    area = None if sample.area is None else sample.area[::-1]
    sample = replace(sample, clip=mirrored, frames=sample.frames[::-1].copy(), area=area)
    turned = {"confidence": sample["confidence"].flip(0)} if "confidence" in sample else {}
    return _changed(sample, tracks=tracks, visibility=visibility, queries=queries, **turned)


def resize(sample: Sample, size: Size) -> ClipSample:
    """Bring a clip to `size` (H, W); positions follow `geometry.rescale_points`."""
    check_size(size)
    sample = ClipSample.of(sample)
    source = sample.size
    if source == tuple(size):
        return sample
    images = sample["frames"].movedim(-1, 1).float()
    # Without aligned corners: the rule that rescale_points follows. Antialiased, as downscaling by half needs.
    images = F.interpolate(images, tuple(size), mode="bilinear", align_corners=False, antialias=True)
    frames = images.round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
    return _moved(sample, frames, lambda xy: rescale_points(xy, source, size))


def crop(sample: Sample, left: int, top: int, size: Size) -> ClipSample:
    """Cut out the box of `size` (H, W) whose first pixel is (left, top); what lies beyond the frame is black.

    Points outside the box in a frame are invisible there.
    """
    check_size(size)
    sample = ClipSample.of(sample)
    (H, W), (height, width) = sample.size, size
    frames = sample["frames"].new_zeros(len(sample.frames), height, width, 3)
    rows, columns = (max(0, top), min(H, top + height)), (max(0, left), min(W, left + width))
    if rows[0] < rows[1] and columns[0] < columns[1]:
        window = sample["frames"][:, slice(*rows), slice(*columns)]
        frames[:, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = window
    offset = sample["tracks"].new_tensor([left, top])
    moved = _moved(sample, frames, lambda xy: xy - offset)
    on_picture = inside(moved["tracks"], size) & inside(sample["tracks"], (H, W))
    return _changed(moved, visibility=sample["visibility"] & on_picture)


def draw_pan(
    sample: Sample, target: Size, scale: tuple[float, float], generator: torch.Generator
) -> Float[Tensor, "S 4"]:
    """A window for each frame of a clip, as `follow` takes them, that goes where a steady camera would look.

    Its middle goes straight from one place to another, both drawn from where the window fits into the picture, or part
    of that way; slowing down or speeding up bends its course by up to `BEND` of the way, and it shakes by up to `SHAKE`
    pixels of the result (root mean square). Over the clip the enlargement grows or falls by up to `ZOOM` around one
    drawn from `scale`, but the window stays inside the picture: with an enlargement of 1 nothing can move.
    """
    sample, draw = ClipSample.of(sample), _Draw(generator)
    S, size = sample.clip.num_frames, torch.tensor([sample.size[1], sample.size[0]], dtype=torch.float32)
    wanted = torch.tensor([target[1], target[0]], dtype=torch.float32)
    time = torch.linspace(-1, 1, S)
    zoom = draw.between(*scale) * torch.exp(ZOOM / 2 * draw.between(-1, 1) * time)
    zoom = zoom.clamp(min=float((wanted / size).max()))
    side = wanted / zoom[:, None]
    room = size - side  # S 2
    start, end = (torch.rand(2, generator=draw.generator) for _ in range(2))
    end = start + draw.between(0, 1) * (end - start)
    way = (1 + time) / 2 + BEND * draw.between(-1, 1) * (1 - time**2)
    shake = SHAKE * draw.between(0, 1) * torch.randn(S, 2, generator=draw.generator) / zoom[:, None]
    corner = (room * (start + way[:, None] * (end - start)) + shake).clamp(min=0)
    return torch.cat([torch.minimum(corner, room), side], dim=1)


def follow(sample: Sample, windows: Float[Tensor, "S 4"], size: Size) -> ClipSample:
    """Cut out of each frame a window of its own, and bring it to `size` (H, W): as if the camera had moved.

    Args:
        sample: see the module's header.
        windows: left, top, width and height in pixels for each frame of the clip, inside the picture; the first pixel's
            outer corner is (0, 0), so a window of whole pixels is the box that `crop` cuts out.
        size: of the result.

    Points outside a frame's window are invisible there.

    >>> import numpy as np
    >>> from flowlib.clips import Clip
    >>> from flowlib.tracks import Tracks
    >>> frames = np.zeros((2, 8, 16, 3), np.uint8)
    >>> truth = Tracks.still(np.array([[0, 3.0, 2.0]]), num_frames=2)
    >>> windows = torch.tensor([[0.0, 0, 8, 4], [2.5, 1, 8, 4]])
    >>> moved = follow(ClipSample(Clip.named("a clip", frames), frames, truth), windows, (4, 8))
    >>> moved["tracks"][:, 0].tolist()  # the window goes to the right and down, so what rests goes left and up
    [[3.0, 2.0], [0.5, 1.0]]
    """
    check_size(size)
    sample = ClipSample.of(sample)
    corner, side = windows.float().split(2, dim=-1)
    zoom = torch.tensor([size[1], size[0]], dtype=torch.float32) / side  # S 2

    kept = list(sample.clip.kept)
    grid = to_corner(torch.from_numpy(pixel_grid(size))).reshape(1, -1, 2)
    at = from_corner(grid / zoom[kept, None] + corner[kept, None])
    images = bilinear_sample(sample["frames"].movedim(-1, 1).float(), at).movedim(1, -1)
    frames = images.round().clamp(0, 255).to(torch.uint8).reshape(len(kept), *size, 3)
    tracks = from_corner((to_corner(sample["tracks"]) - corner[:, None]) * zoom[:, None])
    asked = sample["queries"][:, 0].long()
    start = from_corner((to_corner(sample["queries"][:, 1:]) - corner[asked]) * zoom[asked])
    queries = torch.cat([sample["queries"][:, :1], start], dim=1)
    on_picture = inside(tracks, size) & inside(sample["tracks"], sample.size)
    return _changed(sample, frames=frames, tracks=tracks, queries=queries, visibility=sample["visibility"] & on_picture)


def shift(sample: Sample, dx: int, dy: int) -> ClipSample:
    """Move a clip's content by (dx, dy) whole pixels within its frame; black comes in."""
    sample = ClipSample.of(sample)
    return crop(sample, -dx, -dy, sample.size)


def colour(sample: Sample, brightness: float, contrast: float, saturation: float) -> ClipSample:
    """Multiply a clip's brightness, contrast (around its mean grey) and saturation; 1 leaves them alone."""
    sample = ClipSample.of(sample)
    images = sample["frames"].float() * brightness
    grey = (images * images.new_tensor(GREY)).sum(dim=-1, keepdim=True)
    images = grey + saturation * (images - grey)
    images = grey.mean() + contrast * (images - grey.mean())
    return _changed(sample, frames=images.round().clamp(0, 255).to(torch.uint8))


def usable(sample: Sample) -> Tensor:
    """Which points can be asked for: their query lies in frame 0 and they are seen there. bool [N]"""
    sample = ClipSample.of(sample)
    return inside(sample["queries"][:, 1:], sample.size) & sample["visibility"][0]


def refill(sample: Sample, generator: torch.Generator) -> ClipSample:
    """Replace points that are not `usable` by copies of ones that are, drawn evenly; all stay where none is."""
    sample = ClipSample.of(sample)
    good = usable(sample)
    kept = good.nonzero()[:, 0]
    if len(kept) in (0, len(good)):
        return sample
    index = torch.arange(len(good))
    index[~good] = kept[torch.randint(len(kept), (int((~good).sum()),), generator=generator)]
    return replace(sample, truth=sample.truth.points(index.numpy()))


def _pictured(sample: ClipSample, frames: Sequence[int]) -> ClipSample:
    """The sample with the pictures of some frames alone."""
    return replace(sample, clip=replace(sample.clip, kept=tuple(frames)), frames=sample.pictures(frames))


def _moved(sample: ClipSample, frames: Tensor, move: Callable[[Tensor], Tensor]) -> ClipSample:
    queries = torch.cat([sample["queries"][:, :1], move(sample["queries"][:, 1:])], dim=1)
    return _changed(sample, frames=frames, tracks=move(sample["tracks"]), queries=queries)


def _changed(sample: ClipSample, **parts: Tensor) -> ClipSample:
    """The sample with some of `frames`, `tracks`, `visibility`, `queries` and `confidence` replaced."""
    arrays = {name: part.numpy() for name, part in parts.items()}
    frames = arrays.pop("frames", sample.frames)
    box = sample.box if frames is sample.frames else None
    return replace(sample, frames=frames, truth=replace(sample.truth, **arrays), box=box)
