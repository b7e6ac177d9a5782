"""Rebuild a future frame: move the pixels of frame 0 to where a trajectory says they go, and say where nothing went.

Softmax splatting is differentiable and works on any device; nearest-neighbour and Clough-Tocher interpolation are the
classical ways, from every pixel or from a coarse grid of points. Takes arrays, returns a frame and a mask. Knows
nothing of models or files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from flowlib.geometry import Box, Size, bilinear_sample, cell_grid, check_size, inside, pixel_grid, rescale_points

if TYPE_CHECKING:
    import torch

Method = Literal["splat", "nearest", "clough_tocher"]
Fill = Literal["none", "frame", "nearest"]
METHODS: tuple[str, ...] = ("splat", "nearest", "clough_tocher")
FILLS: tuple[str, ...] = ("none", "frame", "nearest")


class Rebuilt(NamedTuple):
    """A rebuilt frame and where it is more than a guess.

    Attributes:
        frame: as the frame given: uint8 [H W 3], or a tensor [B C H W].
        covered: bool [H W] or [B H W]; False marks the holes, whatever they were filled with.
    """

    frame: Any
    covered: Any


def splat(
    frame: np.ndarray | torch.Tensor,
    displacement: np.ndarray | torch.Tensor,
    *,
    visible: np.ndarray | torch.Tensor | None = None,
    importance: np.ndarray | torch.Tensor | None = None,
    fill: Fill = "none",
    min_coverage: float = 0.5,
) -> Rebuilt:
    """Move every pixel by its displacement; where several land, the important ones prevail (softmax splatting).

    Each pixel spreads bilinearly over the four pixels around its destination (Niklaus and Liu 2020, equation 8).
    Whole-pixel motion is exact. With tensors the result is differentiable in all of `frame`, `displacement` and
    `importance`, and stays on their device.

    Args:
        frame: uint8 [H W 3], or a floating tensor [B C H W].
        displacement: pixels (x, y): array [2 H W] (or [H W 2]) with an array, tensor [B 2 H W] with a tensor.
        visible: bool [H W] or [B H W]; pixels that cannot be seen in the new frame are left out. All if None.
        importance: [H W] or [B H W], logarithm of a pixel's weight, such as visibility logits. All alike if None.
        fill: what holes get: zeros ("none"), the frame's own pixels there ("frame"), or the nearest covered ones.
        min_coverage: sum of bilinear weights from which on a pixel counts as covered; lower closes the gaps of a zoom
            (at 0.5 a zoom of 1.29 has none), and smears edges.

    Returns:
        The rebuilt frame, of the type and shape of `frame`, and where it is covered.

    Raises:
        ValueError: shapes that do not belong together, displacements that are not finite, an unknown `fill`.

    >>> row = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    >>> splat(row, np.stack([np.ones((1, 4)), np.zeros((1, 4))])).covered.tolist()
    [[False, True, True, True]]
    """
    import torch

    if isinstance(frame, torch.Tensor):
        return _splat_tensors(frame, displacement, visible, importance, fill, min_coverage)
    frame, displacement = _check_arrays(frame, np.asarray(displacement))
    tensors = [torch.from_numpy(np.ascontiguousarray(array))[None] for array in (frame, displacement)]
    maps = [None if array is None else torch.from_numpy(np.array(array))[None] for array in (visible, importance)]
    pictures, moves = tensors[0].movedim(-1, 1).float(), tensors[1].float()
    moved = _splat_tensors(pictures, moves, maps[0], maps[1], fill, min_coverage)
    return Rebuilt(_to_uint8(moved.frame[0].movedim(0, -1).numpy()), moved.covered[0].numpy())


def rebuild(
    frame: np.ndarray,
    displacement: np.ndarray,
    visibility: np.ndarray | None = None,
    *,
    method: Method = "splat",
    grid: tuple[int, int] | None = None,
    invisible: Literal["drop", "keep"] = "drop",
    fill: Fill = "none",
) -> Rebuilt:
    """A future frame from a dense prediction, in one of three ways.

    Where two points meet, the one with the higher visibility is in front.

    Args:
        frame: uint8 [H W 3], the query's frame.
        displacement: [2 H W] pixels.
        visibility: [H W] logits, visible where positive, or bool; everything is visible if None.
        method: "splat", or interpolate the moved colours by "nearest" neighbour or "clough_tocher" (cubic).
        grid: (rows, columns) of the points that are moved; every pixel if None. "splat" moves every pixel, with the
            motion interpolated between the grid's points.
        invisible: "drop" leaves out points predicted invisible, "keep" moves them, too, behind all others.
        fill: see `splat`; "nearest" with `method="nearest"` leaves no hole.

    Raises:
        ValueError: see `splat`; an unknown method; too few points left to interpolate.

    >>> frame = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    >>> right = np.stack([np.ones((1, 4)), np.zeros((1, 4))])  # everything moves a pixel to the right
    >>> rebuilt = rebuild(frame, right)
    >>> rebuilt.frame[0, 1:].tolist() == frame[0, :3].tolist(), rebuilt.covered.tolist()
    (True, [[False, True, True, True]])
    """
    frame, displacement = _check_arrays(frame, displacement)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if invisible not in ("drop", "keep"):
        raise ValueError(f"invisible: expected 'drop' or 'keep', got {invisible!r}")
    size = frame.shape[:2]
    logits = np.zeros(size, np.float32) if visibility is None else _as_logits(visibility)
    visible = logits > 0 if visibility is not None and invisible == "drop" else np.ones(size, bool)
    if method == "splat":
        if grid is not None:
            points = cell_grid(size, *grid)
            displacement = dense_field(points, read_field(displacement, points).T, size)
        return splat(frame, displacement, visible=visible, importance=logits, fill=fill)
    points = cell_grid(size, *(grid or size))
    moved = points + read_field(displacement, points).T
    colours = read_field(np.moveaxis(frame, -1, 0), points).T
    kept = (read_field(visible[None].astype(np.float32), points)[0] > 0.5) & inside(moved, size)
    in_front = read_field(logits[None], points)[0]
    reach = max(side / count for side, count in zip(size, grid or size))
    result = interpolate_colours(colours[kept], moved[kept], size, method=method, in_front=in_front[kept], reach=reach)
    return Rebuilt(_fill_array(result, frame, fill), result.covered)


def rebuild_from_two(
    first: np.ndarray,
    later: np.ndarray,
    reached: np.ndarray,
    displacement: np.ndarray,
    visibility: np.ndarray | None = None,
    *,
    fill: Fill = "none",
) -> Rebuilt:
    """A future frame from two pictures: the later one moved on where it can be, the first one where it cannot.

    The later picture is nearer in time and shows what has come out from behind things since. How its pixels go on is
    carried over from the first one's, and to what came out from its surroundings.

    Args:
        first, later: uint8 [H W 3], the query's frame and one after it.
        reached: [2 H W] pixels from the first frame to the later one.
        displacement: [2 H W] pixels from the first frame to the one wanted.
        visibility: as in `rebuild`; pixels of the first picture that can't be seen in the frame wanted are left out.
        fill: of what neither covers, see `splat`; "frame" takes the later picture's pixels.

    Returns:
        The frame, and where one of the two covers it.

    Raises:
        ValueError: see `splat`.
    """
    import torch

    first, reached = _check_arrays(first, np.asarray(reached, np.float32))
    later, displacement = _check_arrays(later, np.asarray(displacement, np.float32))
    onward = torch.from_numpy(displacement - reached)[None]
    carried = splat(onward, torch.from_numpy(np.ascontiguousarray(reached))[None], fill="nearest")
    # What came out from behind things is behind them still.
    behind = torch.where(carried.covered, 0.0, -8.0)
    pictures = torch.from_numpy(np.ascontiguousarray(later.transpose(2, 0, 1)))[None].float()
    moved = splat(pictures, carried.frame, importance=behind)
    logits = None if visibility is None else _as_logits(visibility)
    own = splat(first, displacement, visible=None if logits is None else logits > 0, importance=logits)
    recent, there = _to_uint8(moved.frame[0].permute(1, 2, 0).numpy()), moved.covered[0].numpy()
    joined = Rebuilt(np.where(there[..., None], recent, own.frame), there | own.covered)
    return Rebuilt(_fill_array(joined, later, fill), joined.covered)


def interpolate_colours(
    colours: np.ndarray,
    xy: np.ndarray,
    size: Size,
    *,
    method: Literal["nearest", "clough_tocher"] = "nearest",
    in_front: np.ndarray | None = None,
    reach: float = 1.0,
) -> Rebuilt:
    """A frame from scattered coloured points.

    Args:
        colours: [N 3], 0 to 255.
        xy: [N 2] (x, y) in pixels of the new frame.
        size: (height, width) of it.
        method: each pixel takes the "nearest" point's colour, or the "clough_tocher" surface over the points.
        in_front: [N]; of the points that fall into one pixel the one with the highest value stays. The last if None.
        reach: pixels; farther than that from every point is a hole. Outside the points' hull is one for the surface.

    Raises:
        ValueError: no points, or for the surface fewer than three or all on one line.
    """
    from scipy.interpolate import CloughTocher2DInterpolator
    from scipy.spatial import KDTree, QhullError

    check_size(size)
    if len(xy) == 0:
        raise ValueError("xy: expected points to interpolate between, got none (all invisible, or off the frame?)")
    order = np.arange(len(xy)) if in_front is None else np.argsort(in_front, kind="stable")
    cells = np.round(xy[order]).astype(np.int64)
    last = np.unique(cells[::-1], axis=0, return_index=True)[1]  # the first in reverse is the one in front
    kept = np.sort(order[::-1][last])
    colours, xy = np.asarray(colours, np.float64)[kept], np.asarray(xy, np.float64)[kept]
    pixels = pixel_grid(size).reshape(-1, 2)
    distance, nearest = KDTree(xy).query(pixels)
    covered = distance <= reach
    values = colours[nearest]
    if method == "clough_tocher":
        try:
            surface = CloughTocher2DInterpolator(xy, colours)(pixels)
        except QhullError as error:
            raise ValueError(f"xy: expected three points or more, not all on one line, got {len(xy)}") from error
        covered &= np.isfinite(surface).all(axis=1)
        values = np.where(np.isfinite(surface), surface, values)
    return Rebuilt(_to_uint8(values.reshape(*size, 3)), covered.reshape(size))


def dense_field(points: np.ndarray, values: np.ndarray, size: Size, box: Box | None = None) -> np.ndarray:
    """A field over every pixel from values at points: bilinear on a regular lattice, else linear over triangles.

    Args:
        points: [N 2] (x, y) in pixels.
        values: [N C].
        size: (height, width) of the field.
        box: where in it the lattice lies, None: over all of it.

    Returns:
        float32 [C H W]; pixels outside the points' hull take the nearest value. A lattice that has every pixel
        gives its values back unchanged.

    Raises:
        ValueError: no points, or values that do not belong to them.

    >>> dense_field(cell_grid((1, 4), 1, 2), np.array([[0.0], [4.0]]), (1, 4)).tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    """
    points, values = np.asarray(points, np.float32), np.asarray(values, np.float32)
    if len(points) == 0 or len(values) != len(points) or values.ndim != 2:
        raise ValueError(f"points: expected one or more with values [N C], got {len(points)} and {list(values.shape)}")
    shape = lattice(points, size, box)
    if shape is None:
        return _triangulated(points, values, size)
    coarse = values.reshape(*shape, -1).transpose(2, 0, 1)
    if shape == tuple(size):
        return coarse.copy()
    top, left, *inner = box or (0, 0, *size)
    xy = pixel_grid(size).reshape(-1, 2) - np.array([left, top], np.float32)
    return read_field(coarse, rescale_points(xy, (inner[0], inner[1]), shape)).reshape(-1, *size)


def lattice(points: np.ndarray, size: Size, box: Box | None = None) -> tuple[int, int] | None:
    """(rows, columns) if `points` [N 2] are, in order, the `cell_grid` of a frame of this size, or of a box in it; None
    otherwise."""
    rows = len(np.unique(points[:, 1]))
    if rows == 0 or len(points) % rows:
        return None
    top, left, height, width = box or (0, 0, *size)
    expected = cell_grid((height, width), rows, len(points) // rows) + np.array([left, top], np.float32)
    return (rows, len(points) // rows) if np.allclose(points, expected, atol=0.02) else None  # 1/64 px: shards round


def read_field(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Read a field [C H W] bilinearly at xy [N 2]: float32 [C N]."""
    import torch

    tensors = [torch.from_numpy(np.ascontiguousarray(array, np.float32))[None] for array in (field, xy)]
    return bilinear_sample(*tensors)[0].numpy()


def _triangulated(points: np.ndarray, values: np.ndarray, size: Size) -> np.ndarray:
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import KDTree, QhullError

    pixels = pixel_grid(size).reshape(-1, 2)
    nearest = values[KDTree(points).query(pixels)[1]]
    try:
        linear = LinearNDInterpolator(points, values)(pixels)
    except QhullError:  # fewer than three points, or all on one line: there is no triangle
        linear = np.full_like(nearest, np.nan)
    field = np.where(np.isfinite(linear), linear, nearest)
    return np.ascontiguousarray(field.T.reshape(-1, *size), dtype=np.float32)


def _splat_tensors(frame, displacement, visible, importance, fill: str, min_coverage: float) -> Rebuilt:
    import torch

    _check_tensors(frame, displacement, visible, importance, fill)
    B, C, H, W = frame.shape
    cells, weights = _corners(displacement)  # B 4 HW
    if visible is not None:
        weights = weights * visible.reshape(B, 1, -1)
    coverage = weights.new_zeros(B, H * W).scatter_add(1, cells.flatten(1), weights.flatten(1))
    if importance is not None:
        weights = weights * _relative_importance(importance.to(weights.dtype), cells, weights)
    total = weights.new_zeros(B, H * W).scatter_add(1, cells.flatten(1), weights.flatten(1))
    coloured = (frame.reshape(B, C, 1, H * W) * weights[:, None]).flatten(2)
    summed = frame.new_zeros(B, C, H * W).scatter_add(2, cells.reshape(B, 1, -1).expand(B, C, -1), coloured)
    covered = ((coverage >= min_coverage) & (total > 0)).reshape(B, H, W)
    rebuilt = (summed / torch.where(total > 0, total, torch.ones_like(total))[:, None]).reshape(B, C, H, W)
    return Rebuilt(_fill_tensor(rebuilt, covered, frame, fill), covered)


def _corners(displacement: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The four pixels around each destination and their bilinear weights, zero off the frame: [B 4 H·W] each."""
    import torch

    _, _, H, W = displacement.shape
    grid = torch.from_numpy(pixel_grid((H, W))).to(displacement).permute(2, 0, 1)
    x, y = (grid + displacement).flatten(2).unbind(1)  # B HW
    left, top = x.detach().floor(), y.detach().floor()
    cells, weights = [], []
    for column, along in ((left, left + 1 - x), (left + 1, x - left)):
        for row, down in ((top, top + 1 - y), (top + 1, y - top)):
            on_frame = (column >= 0) & (column < W) & (row >= 0) & (row < H)
            cells.append((row.clamp(0, H - 1) * W + column.clamp(0, W - 1)).long())
            weights.append(along * down * on_frame)
    return torch.stack(cells, dim=1), torch.stack(weights, dim=1)


def _relative_importance(importance: torch.Tensor, cells: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """exp(importance), divided by the largest that lands in the same pixel, so that nothing over- or underflows."""
    B, _, pixels = cells.shape
    logits = importance.reshape(B, 1, pixels).expand_as(cells)
    landed = logits.detach().masked_fill(weights <= 0, -float("inf")).flatten(1)
    peak = landed.new_full((B, pixels), -float("inf")).scatter_reduce(1, cells.flatten(1), landed, "amax")
    difference = logits - peak.gather(1, cells.flatten(1)).reshape(cells.shape)
    return difference.masked_fill(weights <= 0, 0.0).exp()  # what has no weight there may lie above the peak


def _fill_tensor(rebuilt: torch.Tensor, covered: torch.Tensor, frame: torch.Tensor, fill: str) -> torch.Tensor:
    import torch

    if fill == "nearest":
        index = np.stack([_nearest_covered(mask) for mask in covered.cpu().numpy()])
        gathered = torch.from_numpy(index).to(rebuilt.device).flatten(1)[:, None].expand(-1, rebuilt.shape[1], -1)
        return rebuilt.flatten(2).gather(2, gathered).reshape(rebuilt.shape)
    holes = frame if fill == "frame" else torch.zeros_like(rebuilt)
    return torch.where(covered[:, None], rebuilt, holes)


def _fill_array(result: Rebuilt, frame: np.ndarray, fill: str) -> np.ndarray:
    if fill not in FILLS:
        raise ValueError(f"fill: expected one of {', '.join(FILLS)}, got {fill!r}")
    if fill == "nearest":
        return result.frame.reshape(-1, 3)[_nearest_covered(result.covered)]
    return np.where(result.covered[..., None], result.frame, frame if fill == "frame" else np.uint8(0))


def _nearest_covered(covered: np.ndarray) -> np.ndarray:
    """For each pixel of bool [H W] the flat index of the nearest True one; its own where there is none at all."""
    from scipy.ndimage import distance_transform_edt

    if not covered.any():
        return np.arange(covered.size).reshape(covered.shape)
    rows, columns = np.asarray(distance_transform_edt(~covered, return_distances=False, return_indices=True))
    return rows.astype(np.int64) * covered.shape[1] + columns


def _as_logits(visibility: np.ndarray) -> np.ndarray:
    visibility = np.asarray(visibility)
    return np.where(visibility, 1.0, -1.0).astype(np.float32) if visibility.dtype == bool else visibility


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _check_arrays(frame: np.ndarray, displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frame, displacement = np.asarray(frame), np.asarray(displacement)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"frame: expected uint8 [H W 3], got {frame.dtype} {list(frame.shape)}")
    size = frame.shape[:2]
    if displacement.shape == (*size, 2) != (2, *size):
        displacement = np.moveaxis(displacement, -1, 0)
    if displacement.shape != (2, *size):
        raise ValueError(f"displacement: expected [2 {size[0]} {size[1]}], got {list(displacement.shape)}")
    return frame, displacement


def _check_tensors(frame, displacement, visible, importance, fill: str) -> None:
    if fill not in FILLS:
        raise ValueError(f"fill: expected one of {', '.join(FILLS)}, got {fill!r}")
    if frame.ndim != 4 or not frame.is_floating_point():
        raise ValueError(f"frame: expected a floating tensor [B C H W], got {frame.dtype} {list(frame.shape)}")
    B, _, H, W = frame.shape
    if tuple(displacement.shape) != (B, 2, H, W):
        raise ValueError(f"displacement: expected [{B} 2 {H} {W}], got {list(displacement.shape)}")
    if not bool(displacement.isfinite().all()):
        raise ValueError("displacement: expected finite pixels, got NaN or infinity")
    for name, value in (("visible", visible), ("importance", importance)):
        if value is not None and tuple(value.shape) not in ((B, H, W), (B, 1, H, W)):
            raise ValueError(f"{name}: expected [{H} {W}] for each frame, got {list(value.shape)}")
