"""Rebuilt frames: exact where they can be, honest about holes, differentiable."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter, minimum_filter

from flowlib.geometry import cell_grid, pixel_grid
from flowlib.synthetic import random_scene, synthetic_clip
from flowlib.warp import dense_field, interpolate_colours, lattice, rebuild, rebuild_from_two, splat

SIZE = (24, 32)
FRAME = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def uniform(dx: float, dy: float, size=SIZE) -> np.ndarray:
    return np.stack([np.full(size, dx), np.full(size, dy)]).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(-40, 40), st.integers(-30, 30), st.sampled_from(["splat", "nearest", "clough_tocher"]))
def test_whole_pixel_motion_is_exact(dx, dy, method):
    x, y = np.moveaxis(pixel_grid(SIZE).astype(int), -1, 0)
    arrives = (x - dx >= 0) & (x - dx < SIZE[1]) & (y - dy >= 0) & (y - dy < SIZE[0])
    if arrives.sum() == 0 and method != "splat":
        with pytest.raises(ValueError, match="got none"):
            rebuild(FRAME, uniform(dx, dy), method=method)
        return
    if method == "clough_tocher" and min(np.ptp(x[arrives]), np.ptp(y[arrives])) == 0:
        return  # one row or column has no surface
    result = rebuild(FRAME, uniform(dx, dy), method=method)
    expected = FRAME[(y - dy)[arrives], (x - dx)[arrives]]
    np.testing.assert_array_equal(result.frame[arrives], expected)
    assert result.covered[arrives].all() and (method == "nearest" or not result.covered[~arrives].any())


@pytest.mark.parametrize("seed", [0, 4, 10])
def test_the_true_motion_gives_the_frame_back(seed):
    """Over 40 dB outside occlusions, that is off the pixels beside a layer's edge, which show two layers at once."""
    frames, scene = synthetic_clip(8, (120, 160), seed)
    xy = pixel_grid((120, 160)).reshape(-1, 2).astype(float)
    visible = scene.tracks(np.insert(xy, 0, 0, axis=1)).visibility[-1].reshape(120, 160)
    result = splat(frames[0], scene.displacement()[-1], visible=visible)
    layer = scene.layer_at(7, xy).reshape(120, 160)
    edge = maximum_filter(layer, 3) != minimum_filter(layer, 3)
    error = np.square(frames[-1].astype(float) - result.frame)
    assert 10 * np.log10(255**2 / error[result.covered & ~edge].mean()) > 40
    assert 10 * np.log10(255**2 / error[result.covered].mean()) > 38 and result.covered.mean() > 0.85


def test_half_a_pixel_is_the_mean_of_neighbours():
    result = splat(FRAME, uniform(0.5, 0))
    means = (FRAME[:, :-1].astype(float) + FRAME[:, 1:]) / 2
    np.testing.assert_allclose(result.frame[:, 1:], means, atol=0.51)
    assert result.covered.all()  # the outermost columns get half a weight each


def test_the_visible_one_is_in_front():
    frame = np.zeros((1, 4, 3), np.uint8)
    frame[0, 0], frame[0, 2] = 100, 200
    onto = np.zeros((2, 1, 4), np.float32)
    onto[0, 0, 0] = 2  # the pixel at 0 lands where the one at 2 stays
    assert splat(frame, onto).frame[0, 2, 0] == 150
    order = np.array([[5.0, 0, -5, 0]], np.float32)
    assert splat(frame, onto, importance=order * 4).frame[0, 2, 0] == 100
    assert splat(frame, onto, importance=-order * 100).frame[0, 2, 0] == 200
    assert splat(frame, onto, visible=np.array([[False, True, True, True]])).frame[0, 2, 0] == 200
    for method in ("splat", "nearest"):
        assert rebuild(frame, onto, order, method=method).frame[0, 2, 0] == 100
        assert rebuild(frame, onto, order > 0, method=method, invisible="drop").frame[0, 2, 0] == 100


def test_a_pixel_is_covered_by_what_lands_there_however_unimportant():
    """Pixel 1 gets 0.2 of an important pixel and 0.8 of another one: covered, in the important one's colour."""
    frame = np.array([[[200] * 3, [10] * 3, [10] * 3, [10] * 3]], np.uint8)
    motion = np.zeros((2, 1, 4), np.float32)
    motion[0, 0, :2] = 0.2
    result = splat(frame, motion, importance=np.array([[50.0, 0, 0, 0]], np.float32))
    assert result.covered.all() and result.frame[0, 1].tolist() == [200] * 3
    least = {share: splat(frame, motion, min_coverage=share).covered[0].tolist() for share in (0.75, 0.9)}
    assert least == {0.75: [True] * 4, 0.9: [False, True, True, True]}  # 0.8 of pixel 0 stays there


def test_colours_are_rounded_not_cut_off():
    row = np.zeros((1, 4, 3), np.uint8)
    row[0, 2:] = 3
    assert splat(row, uniform(0.25, 0, (1, 4))).frame[0, :, 0].tolist() == [0, 0, 2, 3]  # 0.75 · 3 + 0.25 · 0
    smooth = interpolate_colours(
        np.array([[0.0] * 3, [3] * 3, [0] * 3, [3] * 3]), np.array([[0, 0], [4, 0], [0, 4], [4, 4.0]]), (5, 5),
        method="clough_tocher", reach=9,
    )  # fmt: skip
    assert smooth.frame[2, [0, 1, 3, 4], 0].tolist() == [0, 1, 2, 3]  # 0, 0.75, 2.25, 3


@pytest.mark.parametrize("method", ["splat", "nearest"])
def test_a_logit_of_zero_is_invisible(method):
    """As everywhere: visible where positive."""
    logits = np.full(SIZE, -1.0, np.float32)
    logits[:, 8:16], logits[:, 16:] = 0.0, 0.1
    covered = rebuild(FRAME, uniform(0, 0), logits, method=method).covered
    assert not covered[:, :15].any() and covered[:, 16:].all()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)), st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_of_points_in_one_pixel_the_one_in_front_is_seen(ranks, columns):
    """Twelve points in four pixels of a row; each pixel that is hit shows the colour of the highest rank in it."""
    colours, xy = np.repeat(np.arange(12.0)[:, None] * 20, 3, axis=1), np.stack([columns, np.zeros(12)], axis=1)
    result = interpolate_colours(colours, xy, (1, 4), in_front=np.array(ranks), reach=0.5)
    for column in range(4):
        here = [n for n in range(12) if columns[n] == column]
        assert result.covered[0, column] == bool(here)
        if here:
            assert result.frame[0, column, 0] == 20 * max(here, key=lambda n: ranks[n])


@pytest.mark.parametrize("reach, reached", [(1.0, 1), (2.0, 2), (2.9, 2), (5.0, 5)])
def test_what_lies_farther_than_the_reach_is_a_hole(reach, reached):
    colours, xy = np.array([[90.0, 90, 90]]), np.array([[3.0, 2.0]])
    result = interpolate_colours(colours, xy, (5, 12), reach=reach)
    assert result.covered[2].tolist() == [abs(x - 3) <= reached for x in range(12)]
    assert (result.frame == 90).all()


@pytest.mark.parametrize("grid", [None, (12, 16), (6, 8)])
def test_a_coarser_grid_reaches_as_far_as_its_points_lie_apart(grid):
    """The right half leaves the frame; the hole begins a cell's side from the last point that stays."""
    motion = uniform(0, 0)
    motion[0, :, 16:] = 100
    apart = SIZE[1] // (grid or SIZE)[1]
    last = 16 - (apart + 1) / 2  # the last column of cells left of the middle, at its centre
    covered = rebuild(FRAME, motion, method="nearest", grid=grid).covered
    assert covered[:, : int(last) + 1].all() and covered[SIZE[0] // 2, int(last + apart) - 1]
    assert not covered[:, int(np.floor(last + apart)) + 1 :].any()


def test_points_off_the_frame_colour_nothing():
    """The leftmost column lands beyond the frame's edge, its neighbour stays: the border shows the neighbour."""
    motion = uniform(0, 0)
    motion[0, :, 0] = -0.8
    result = rebuild(FRAME, motion, method="nearest")
    np.testing.assert_array_equal(result.frame[:, 0], FRAME[:, 1])


def test_holes_are_open_or_filled():
    right = uniform(5, 0)
    for method in ("splat", "nearest"):
        open_holes = rebuild(FRAME, right, method=method)
        hole = ~open_holes.covered
        assert hole.any() and (open_holes.frame[hole] == 0).all()
        np.testing.assert_array_equal(rebuild(FRAME, right, method=method, fill="frame").frame[hole], FRAME[hole])
        filled = rebuild(FRAME, right, method=method, fill="nearest")
        np.testing.assert_array_equal(filled.frame[:, 0], FRAME[:, 0])  # the leftmost column that is covered
        np.testing.assert_array_equal(filled.covered, open_holes.covered)


def test_invisible_points_are_dropped_or_kept():
    half = np.ones(SIZE, bool)
    half[:, :16] = False
    for method in ("splat", "nearest"):
        assert not rebuild(FRAME, uniform(0, 0), half, method=method).covered[:, :14].any()
        assert rebuild(FRAME, uniform(0, 0), half, method=method, invisible="keep").covered.all()


def test_tensors_in_batches_equal_arrays_one_by_one():
    rng = np.random.default_rng(1)
    motion = rng.normal(size=(2, 2, *SIZE)).astype(np.float32) * 3
    importance = rng.normal(size=(2, *SIZE)).astype(np.float32) * 30
    frames = torch.from_numpy(np.stack([FRAME, FRAME[::-1].copy()])).movedim(-1, 1).float()
    batch = splat(frames, torch.from_numpy(motion), importance=torch.from_numpy(importance))
    for index, frame in enumerate((FRAME, FRAME[::-1].copy())):
        single = splat(frame, motion[index], importance=importance[index])
        np.testing.assert_allclose(batch.frame[index].movedim(0, -1), single.frame, atol=0.51)
        np.testing.assert_array_equal(batch.covered[index], single.covered)


def test_gradients_are_right():
    torch.manual_seed(0)
    frame = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    motion = torch.empty(1, 2, 4, 5, dtype=torch.float64).uniform_(0.1, 0.4).requires_grad_()
    importance = torch.randn(1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, d, z: splat(f, d, importance=z).frame, (frame, motion, importance))


@given(st.integers(2, 9), st.integers(2, 9))
def test_dense_field_from_a_lattice_keeps_planes(rows, columns):
    size = (36, 40)
    points = cell_grid(size, rows, columns)
    assert lattice(points, size) == (rows, columns)
    field = dense_field(points, np.stack([2 * points[:, 0] - points[:, 1], points[:, 1]], axis=-1), size)
    x, y = np.moveaxis(pixel_grid(size), -1, 0)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    within = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    np.testing.assert_allclose(field[0][within], (2 * x - y)[within], atol=1e-3)
    np.testing.assert_allclose(field[1][within], y[within], atol=1e-3)


def test_a_lattice_in_a_box_keeps_planes_there_and_its_edge_outside():
    box, size = (2, 5, 12, 20), (16, 30)
    points = cell_grid(box[2:], 4, 5) + np.array([5, 2], np.float32)
    assert lattice(points, size, box) == (4, 5) and lattice(points, size) is None
    field = dense_field(points, points, size, box)
    whole = dense_field(cell_grid(box[2:], 4, 5), points, box[2:])
    np.testing.assert_allclose(field[:, 2:14, 5:25], whole, atol=1e-4)
    np.testing.assert_allclose(field[0, 8, :5], field[0, 8, 5], atol=1e-4)


def test_dense_field_from_scattered_points():
    points = np.random.default_rng(2).uniform(0, 20, (60, 2)).astype(np.float32)
    assert lattice(points, SIZE) is None
    field = dense_field(points, points, SIZE)
    np.testing.assert_allclose(field[:, 10, 10], [10, 10], atol=1e-3)
    assert np.isfinite(field).all()
    np.testing.assert_array_equal(dense_field(points[:1], points[:1], SIZE)[:, 3, 4], points[0])
    everywhere = np.random.default_rng(3).normal(size=(SIZE[0] * SIZE[1], 2)).astype(np.float32)
    np.testing.assert_array_equal(
        dense_field(pixel_grid(SIZE).reshape(-1, 2), everywhere, SIZE), everywhere.T.reshape(2, *SIZE)
    )


def test_from_a_grid_of_points():
    x, y = np.moveaxis(pixel_grid((48, 64)), -1, 0)
    frame = np.stack([x * 2 + 20, y * 3 + 20, x + y], axis=-1).astype(np.uint8)
    for method in ("splat", "clough_tocher"):
        result = rebuild(frame, uniform(3, 2, (48, 64)), method=method, grid=(12, 16))
        assert np.abs(result.frame.astype(int)[8:44, 8:60] - frame.astype(int)[6:42, 5:57]).max() <= 1
        assert result.covered[8:44, 8:60].all()


def test_bad_input(refuses):
    with refuses("frame: expected uint8"):
        splat(FRAME / 255, uniform(0, 0))
    with refuses(r"displacement: expected \[2 24 32\], got \[2, 24, 31\]"):
        splat(FRAME, uniform(0, 0)[:, :, :-1])
    with refuses("displacement: expected finite"):
        splat(FRAME, uniform(np.nan, 0))
    with refuses("fill: expected one of none"):
        splat(FRAME, uniform(0, 0), fill="blur")
    with refuses("method: expected one of"):
        rebuild(FRAME, uniform(0, 0), method="cubic")
    with refuses("importance: expected"):
        splat(FRAME, uniform(0, 0), importance=np.zeros((3, 3), np.float32))
    with refuses("floating tensor"):
        splat(torch.zeros(1, 3, 4, 5, dtype=torch.uint8), torch.zeros(1, 2, 4, 5))
    with refuses("three points or more"):
        interpolate_colours(np.zeros((2, 3)), np.array([[0, 0], [5, 5.0]]), SIZE, method="clough_tocher")
    with refuses("points: expected one or more"):
        dense_field(np.zeros((0, 2)), np.zeros((0, 2)), SIZE)


def test_from_two_pictures_the_later_one_shows_what_came_out():
    scene = random_scene(8, (96, 128), 5, num_sprites=2, motion="linear", camera="still")
    frames, moved = scene.clip(), scene.displacement()
    seen = scene.tracks(np.insert(pixel_grid((96, 128)).reshape(-1, 2).astype(float), 0, 0, axis=1)).visibility
    visible = seen[7].reshape(96, 128)
    one = rebuild(frames[0], moved[7], visible)
    two = rebuild_from_two(frames[0], frames[3], moved[3], moved[7], visible)
    assert 1 - two.covered.mean() < 0.7 * (1 - one.covered.mean())
    errors = [np.abs(made.frame.astype(float) - frames[7]).mean() for made in (one, two)]
    assert errors[1] < 0.8 * errors[0]
    assert np.abs(two.frame.astype(float) - frames[7])[two.covered].mean() < 2


def test_from_two_pictures_of_a_still_scene_is_the_later_one():
    rng = np.random.default_rng(0)
    first, later = rng.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    still = np.zeros((2, 24, 32), np.float32)
    made = rebuild_from_two(first, later, still, still)
    np.testing.assert_array_equal(made.frame, later)
    assert made.covered.all()
