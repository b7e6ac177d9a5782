# pyright: strict
"""The pixel convention: grids, cells, rescaling, sampling. No other module knows about half pixels.

Coordinates are (x, y) in pixels; the integer (0, 0) is the *centre* of the top left pixel, so a frame of width W
covers x from -0.5 to W-0.5 and its pixel centres run from 0 to W-1. Sizes are always (height, width).
`Points` are (x, y) in the last axis, as a NumPy array or a torch tensor; torch is loaded only where it samples.
Knows nothing of videos, trackers or models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

    Points = TypeVar("Points", np.ndarray, torch.Tensor)
else:
    Points = TypeVar("Points")

Size = tuple[int, int]
Box = tuple[int, int, int, int]  # (top, left, height, width) in whole pixels
FitRule = Literal["crop", "pad", "stretch", "auto"]
FIT_RULES: tuple[str, ...] = ("crop", "pad", "stretch", "auto")
MOST_CUT = 0.05  # share of a picture that "auto" cuts off rather than leave a bar beside it
MOST_ENLARGED = 1.5  # times that "auto" enlarges a picture at most
SIDE_STEP = 8  # pixels: sides of a size that is chosen are multiples of it, as networks and codecs want them
SMALLEST_CHOICE = 16  # pixels of a side


def check_size(size: Size, name: str = "size") -> None:
    """Raise `ValueError` unless `size` is a (height, width) of two positive integers."""
    if len(size) != 2 or any(int(side) != side or side < 1 for side in size):
        raise ValueError(f"{name}: expected (height, width) of two positive integers, got {tuple(size)}")


def cell_grid(size: Size, rows: int, columns: int | None = None) -> np.ndarray:
    """The centres of `rows` × `columns` equal cells that tile a frame, row by row.

    With as many cells as pixels these are the pixel centres themselves, so a dense field and a coarse grid
    follow one rule.

    Args:
        size: (height, width) of the frame in pixels.
        rows: cells from top to bottom.
        columns: cells from left to right; as many as `rows` if None.

    Returns:
        float32 [rows·columns 2], (x, y) in pixels.

    >>> cell_grid((4, 8), 1, 2).tolist()
    [[1.5, 1.5], [5.5, 1.5]]
    """
    check_size(size)
    columns = rows if columns is None else columns
    check_size((rows, columns), "rows and columns of the grid")
    height, width = size
    x = (np.arange(columns) + 0.5) * width / columns - 0.5
    y = (np.arange(rows) + 0.5) * height / rows - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


def pixel_grid(size: Size) -> np.ndarray:
    """The (x, y) of every pixel centre of a frame: float32 [H W 2].

    >>> pixel_grid((2, 3))[1].tolist()
    [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    """
    height, width = size
    return cell_grid(size, height, width).reshape(height, width, 2)


def frame_extent(size: Size) -> tuple[float, float, float, float]:
    """(left, right, bottom, top): the outer edges of a frame, y downwards.

    >>> frame_extent((2, 4))
    (-0.5, 3.5, 1.5, -0.5)
    """
    return -0.5, size[1] - 0.5, size[0] - 0.5, -0.5


def inside(xy: Points, size: Size) -> Points:
    """Which points lie on the frame, its border pixels' outer halves included: xy [... 2] -> bool [...].

    >>> inside(np.array([[-0.4, 1.0], [4.0, 1.0]]), (3, 4)).tolist()
    [True, False]
    """
    left, right, bottom, top = frame_extent(size)
    x, y = xy[..., 0], xy[..., 1]
    return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


def cell_index(xy: np.ndarray, size: Size, cells: tuple[int, int]) -> np.ndarray:
    """In which of `cells` (rows, columns) equal cells of a frame points lie: xy [... 2] -> int64 (row, column) [... 2].

    A point beyond the frame is counted to the cell that is nearest.

    >>> cell_index(np.array([[-0.5, 0.0], [1.4, 9.0]]), (4, 4), (4, 2)).tolist()
    [[0, 0], [3, 0]]
    """
    index = np.floor((xy[..., ::-1] + 0.5) / np.array(size) * np.array(cells)).astype(np.int64)
    return np.clip(index, 0, np.array(cells) - 1)


def to_shares(xy: Points, size: Size) -> Points:
    """Points [... 2] as shares of the frame's width and height: 0 is its left or top edge, 1 the one opposite."""
    check_size(size)
    shares = xy + 0.5
    shares[..., 0] /= size[1]  # pyright: ignore[reportArgumentType]
    shares[..., 1] /= size[0]  # pyright: ignore[reportArgumentType]
    return shares


def from_shares(shares: Points, size: Size) -> Points:
    """Points in pixels, of shares of the frame as `to_shares` gives them.

    >>> from_shares(np.array([0.5, 0.5]), (2, 4)).tolist()
    [1.5, 0.5]
    """
    return rescale_points(shares - 0.5, (1, 1), size)  # in a frame of one pixel the centre of that pixel is the origin


def to_corner(xy: Points) -> Points:
    """Points [... 2] counted from the outer corner of the first pixel, whose centre is then at (0.5, 0.5).

    So TAP-Vid counts, Kubric and whoever calls them raster coordinates.
    """
    return xy + 0.5


def from_corner(xy: Points) -> Points:
    """Points [... 2] that are counted as `to_corner` does, in the package's own convention.

    >>> from_corner(np.array([7.5, 5.5])).tolist()
    [7.0, 5.0]
    """
    return xy - 0.5


def rescale_points(xy: Points, source: Size, target: Size) -> Points:
    """Carry points from a frame of size `source` to the same frame resized to `target`.

    Args:
        xy: [... 2] (x, y) in pixels, NumPy array or torch tensor of a floating dtype.
        source: (height, width) of the frame the points are in.
        target: (height, width) of the resized frame.

    Returns:
        The same type and shape as `xy`.

    >>> rescale_points(np.array([0.0, 0.0]), (10, 10), (20, 20)).tolist()   # one pixel became four
    [0.5, 0.5]
    """
    scale = scale_vectors(xy + 0.5, source, target)
    return scale - 0.5


def scale_vectors(vectors: Points, source: Size, target: Size) -> Points:
    """Carry displacements [... 2] in pixels of `source` to pixels of `target`; unlike points they have no origin."""
    check_size(source, "source")
    check_size(target, "target")
    scaled = vectors * 1.0
    scaled[..., 0] *= target[1] / source[1]  # pyright: ignore[reportArgumentType]
    scaled[..., 1] *= target[0] / source[0]  # pyright: ignore[reportArgumentType]
    return scaled


@dataclass(frozen=True)
class Fit:
    """How a source frame becomes a frame of the working size: crop a box, resize it, set it into the target.

    `source_box` (in the source) is resized to `target_box` (in the target); both are (top, left, height, width)
    in whole pixels. Under "crop" the target box is the whole target, under "pad" the source box the whole source, under
    "auto" one of both.
    """

    source: Size
    target: Size
    source_box: Box
    target_box: Box

    def to_target(self, xy: np.ndarray) -> np.ndarray:
        """Points [... 2] of the source frame, in pixels of the target frame."""
        return self._carry(xy, self.source_box, self.target_box)

    def to_source(self, xy: np.ndarray) -> np.ndarray:
        """Points [... 2] of the target frame, in pixels of the source frame."""
        return self._carry(xy, self.target_box, self.source_box)

    @staticmethod
    def _carry(xy: np.ndarray, origin: Box, destination: Box) -> np.ndarray:
        moved = rescale_points(xy - np.array([origin[1], origin[0]]), origin[2:], destination[2:])
        return moved + np.array([destination[1], destination[0]])


def fit_frame(source: Size, target: Size, rule: FitRule = "crop") -> Fit:
    """Decide how frames of size `source` are brought to size `target`.

    - "crop" (default): keep the aspect ratio, cover the whole target, cut what sticks out evenly on both sides.
    - "pad": keep the aspect ratio, show the whole source, centred, black bars around it.
    - "stretch": resize each axis on its own, as the PIPs demo does; the aspect ratio is lost.
    - "auto": as "crop" where that cuts no more than 5 % (`MOST_CUT`) of the picture, else as "pad"; and never enlarged
      more than 1.5 times (`MOST_ENLARGED`), with black all around where that is too little. See `choose_size`.

    Args:
        source, target: (height, width) in pixels.
        rule: one of the above.

    Raises:
        ValueError: a size is not positive, or the rule is unknown.

    >>> fit_frame((480, 640), (360, 640)).source_box        # 4:3 into 16:9: 60 rows go at the top and the bottom
    (60, 0, 360, 640)
    """
    check_size(source, "source")
    check_size(target, "target")
    whole_source, whole_target = (0, 0, *source), (0, 0, *target)
    if rule == "stretch":
        return Fit(source, target, whole_source, whole_target)
    if rule == "crop":
        return Fit(source, target, _centred_box(source, target), whole_target)
    if rule == "pad":
        return Fit(source, target, whole_source, _centred_box(target, source))
    if rule == "auto":
        box = _centred_box(source, target)
        if _area(box[2:]) >= (1 - MOST_CUT) * _area(source) and max(target) <= MOST_ENLARGED * max(box[2:]):
            return Fit(source, target, box, whole_target)
        return Fit(source, target, whole_source, _centred_box(target, source, MOST_ENLARGED))
    raise ValueError(f"fit: expected one of {', '.join(FIT_RULES)}, got {rule!r}")


def choose_size(sources: Iterable[Size], room: Size) -> Size:
    """The working size at which "auto" keeps most of videos of the sizes `sources`, one size for all of them.

    `room` itself if every picture fills it, is cut by no more than 5 % and is not enlarged. Else sides are multiples
    of 8 and it has no more pixels than `room`; of the sizes that suit one of the videos, it is the one at which all of
    them together lose least: pixels that are cut or scaled away, as a share of what the video would have on its own,
    and the share of the frame that stays black.

    Args:
        sources: (height, width) of each video; the order doesn't matter.
        room: (height, width) whose number of pixels is the most.

    >>> choose_size([(256, 256)], (360, 640)), choose_size([(1080, 1920), (480, 854)], (360, 640))
    ((256, 256), (360, 640))
    """
    check_size(room, "room")
    counts = Counter(sources)
    if all(_suits(source, room) for source in counts):
        return room
    ordered = sorted(counts.items())  # so that sums are the same in whatever order the videos come
    found = {_own_size(source, room) for source in counts}
    return min(found, key=lambda size: (sum(n * _lost(source, size, room) for source, n in ordered), _area(size), size))


def _suits(source: Size, size: Size) -> bool:
    """Whether a picture comes to this size whole but for `MOST_CUT`, without bars and not enlarged."""
    fit = fit_frame(source, size, "auto")
    return fit.target_box[2:] == size and max(size) <= max(fit.source_box[2:])


def _own_size(source: Size, room: Size) -> Size:
    """The size that suits one video: in its shape as nearly as can be, and as large as there is room for."""
    scale = _ideal_scale(source, room)
    found: list[tuple[float, int, Size]] = []
    for height in _sides(source[0] * scale):
        for width in _sides(source[1] * scale):
            cut = 1 - _area(_centred_box(source, (height, width))[2:]) / _area(source)
            ratio = _area((height, width)) / (_area(source) * scale**2)
            if _area((height, width)) <= max(_area(room), SMALLEST_CHOICE**2):
                # A hundredth of the picture weighs as much as a tenth of the pixels, and as a twentieth invented.
                found.append((10 * cut + max(ratio**2, 1 / ratio), height * width, (height, width)))
    return min(found)[2] if found else room


def _sides(exact: float) -> list[int]:
    nearest = round(exact / SIDE_STEP)
    return sorted({max(SMALLEST_CHOICE, SIDE_STEP * (nearest + k)) for k in range(-3, 2)})


def _ideal_scale(source: Size, room: Size) -> float:
    """By how much a video alone would be scaled: to as many pixels as `room` has, or not at all."""
    return min(1.0, math.sqrt(_area(room) / _area(source)))


def _lost(source: Size, size: Size, room: Size) -> float:
    """What a video loses at this size, see `choose_size`: 0 to 2."""
    fit, scale = fit_frame(source, size, "auto"), _ideal_scale(source, room)
    came = min(_area(fit.target_box[2:]), _area(fit.source_box[2:]) * scale**2)
    return 2 - came / (_area(source) * scale**2) - _area(fit.target_box[2:]) / _area(size)


def _area(size: Size) -> int:
    return size[0] * size[1]


def _centred_box(outer: Size, shape: Size, most: float = math.inf) -> Box:
    """The largest centred box inside `outer` that has the aspect ratio of `shape` (and is at most `most` times as
    large), in whole pixels."""
    scale = min(outer[0] / shape[0], outer[1] / shape[1], most)
    height = min(outer[0], max(1, round(shape[0] * scale)))
    width = min(outer[1], max(1, round(shape[1] * scale)))
    return (outer[0] - height) // 2, (outer[1] - width) // 2, height, width


def bilinear_sample(
    image: torch.Tensor, xy: torch.Tensor, *, padding: Literal["border", "zeros"] = "border"
) -> torch.Tensor:
    """Read an image between its pixels.

    Args:
        image: [B C H W], floating.
        xy: [B N 2] (x, y) in pixels of `image`, same dtype and device.
        padding: what lies beyond the outermost pixel centres: the nearest one ("border"), or zero ("zeros").

    Returns:
        [B C N]; differentiable in both arguments.

    >>> import torch
    >>> image = torch.tensor([[0.0, 10.0], [20.0, 30.0]])[None, None]
    >>> bilinear_sample(image, torch.tensor([[[0.5, 0.0], [1.0, 1.0]]])).flatten().tolist()
    [5.0, 30.0]
    """
    import torch.nn.functional as F

    size = xy.new_tensor([image.shape[-1], image.shape[-2]])
    normalised = (2 * xy + 1) / size - 1  # align_corners=False: -1 and 1 are the outer edges of the frame
    sampled = F.grid_sample(image, normalised[:, :, None], "bilinear", padding, align_corners=False)
    return sampled[..., 0]


def resize_field(displacement: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize a dense displacement [... 2 H W] bilinearly to `size` and scale its vectors to the new pixels."""
    import torch.nn.functional as F

    *lead, two, height, width = displacement.shape
    assert two == 2, f"expected 2 channels (x, y), got {two}"
    resized = F.interpolate(displacement.reshape(-1, 2, height, width), size, mode="bilinear", align_corners=False)
    scaled = scale_vectors(resized.movedim(1, -1), (height, width), size).movedim(-1, 1)
    return scaled.reshape(*lead, 2, *size)
