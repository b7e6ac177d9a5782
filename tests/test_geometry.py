"""The pixel convention: properties that hold for every size, rule and point."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib import geometry

sides = st.integers(1, 300)
sizes = st.tuples(sides, sides)


@given(sizes, sizes, st.integers(0, 2**32 - 1))
def test_rescaling_there_and_back_is_the_identity(source, target, seed):
    xy = np.random.default_rng(seed).uniform(-5, 305, (20, 2))
    there = geometry.rescale_points(xy, source, target)
    np.testing.assert_allclose(geometry.rescale_points(there, target, source), xy, atol=1e-9)


@given(sizes, sizes)
def test_rescaling_keeps_the_corners_of_the_frame(source, target):
    corners = np.array([[-0.5, -0.5], [source[1] - 0.5, source[0] - 0.5]])
    expected = [[-0.5, -0.5], [target[1] - 0.5, target[0] - 0.5]]
    np.testing.assert_allclose(geometry.rescale_points(corners, source, target), expected, atol=1e-9)


@given(sizes)
def test_as_many_cells_as_pixels_are_the_pixel_centres(size):
    grid = geometry.pixel_grid(size)
    np.testing.assert_allclose(grid[0, :, 0], np.arange(size[1]), atol=1e-3)
    np.testing.assert_allclose(grid[:, 0, 1], np.arange(size[0]), atol=1e-3)


@given(sizes, st.integers(1, 12), st.integers(1, 12))
def test_grid_is_symmetric_and_inside(size, rows, columns):
    grid = geometry.cell_grid(size, rows, columns)
    assert grid.shape == (rows * columns, 2) and geometry.inside(grid, size).all()
    np.testing.assert_allclose(grid + grid[::-1], [[size[1] - 1, size[0] - 1]] * len(grid), atol=1e-3)


@given(sizes, sizes, st.sampled_from(geometry.FIT_RULES), st.integers(0, 2**32 - 1))
def test_fit_carries_points_there_and_back(source, target, rule, seed):
    fit = geometry.fit_frame(source, target, rule)
    xy = np.random.default_rng(seed).uniform(-5, 305, (20, 2))
    np.testing.assert_allclose(fit.to_source(fit.to_target(xy)), xy, atol=1e-6)


@given(st.integers(2, 40), st.integers(2, 40), st.sampled_from(["crop", "pad"]))
def test_fit_keeps_the_aspect_ratio_to_within_a_pixel(height, width, rule):
    fit = geometry.fit_frame((height * 10, width * 10), (360, 640), rule)
    _, _, h, w = fit.source_box
    _, _, H, W = fit.target_box
    assert abs(h * W / H - w) <= max(1, w / min(H, W)) + 1


def test_sampling_at_pixel_centres_returns_the_pixels():
    image = torch.rand(2, 3, 5, 7)
    xy = torch.from_numpy(geometry.pixel_grid((5, 7)).reshape(1, -1, 2)).repeat(2, 1, 1)
    assert torch.allclose(geometry.bilinear_sample(image, xy), image.flatten(2), atol=1e-5)


def test_sampling_between_pixels_is_linear_and_beyond_them_is_padded():
    image = torch.tensor([[[[0.0, 10.0]]]])
    xy = torch.tensor([[[0.25, 0.0], [-3.0, 0.0]]])
    assert geometry.bilinear_sample(image, xy)[0, 0].tolist() == [2.5, 0.0]
    assert geometry.bilinear_sample(image + 5, xy, padding="zeros")[0, 0, 1] == 0


def test_resized_field_scales_its_vectors():
    field = torch.stack([torch.full((6, 8), 2.0), torch.full((6, 8), -1.0)])[None]
    resized = geometry.resize_field(field, (3, 16))
    assert resized.shape == (1, 2, 3, 16)
    assert torch.allclose(resized[0, 0], torch.tensor(4.0)) and torch.allclose(resized[0, 1], torch.tensor(-0.5))


# Values worked out by hand, and oracles that share nothing with the module's code.


def test_cells_go_row_by_row_and_each_is_its_share_of_the_frame():
    assert geometry.cell_grid((6, 8), 3, 2).tolist() == [
        [1.5, 0.5], [5.5, 0.5],
        [1.5, 2.5], [5.5, 2.5],
        [1.5, 4.5], [5.5, 4.5],
    ]  # fmt: skip
    assert geometry.cell_grid((2, 8), 2).tolist() == [[1.5, 0], [5.5, 0], [1.5, 1], [5.5, 1]]


@settings(deadline=None)
@given(sizes, st.integers(-2, 602), st.integers(-2, 602))
def test_a_point_is_inside_up_to_the_very_border(size, twice_x, twice_y):
    """In half pixels every comparison is exact: the frame goes from -1 to 2W - 1 of them."""
    expected = -1 <= twice_x <= 2 * size[1] - 1 and -1 <= twice_y <= 2 * size[0] - 1
    assert bool(geometry.inside(np.array([[twice_x / 2, twice_y / 2]]), size)) == expected


@pytest.mark.parametrize("xy", [(-0.5, -0.5), (6.5, -0.5), (-0.5, 3.5), (6.5, 3.5)])
def test_a_corner_is_inside_and_beside_it_is_outside(xy):
    assert geometry.inside(np.array([xy]), (4, 7)).all()
    for step in (np.array([1e-6, 0]), np.array([0, 1e-6])):
        outwards = np.sign(np.array(xy) - [3, 1.5])
        assert not geometry.inside(np.array([xy]) + step * outwards, (4, 7)).any()


@settings(deadline=None)
@given(sizes, sizes, st.floats(-5, 305), st.floats(-5, 305))
def test_rescaling_keeps_each_share_of_the_frame_and_leaves_its_input_alone(source, target, x, y):
    given_ = np.array([x, y])
    found = geometry.rescale_points(given_, source, target)
    shares = (x + 0.5) / source[1], (y + 0.5) / source[0]
    np.testing.assert_allclose((found + 0.5) / [target[1], target[0]], shares, atol=1e-9)
    vector = geometry.scale_vectors(given_, source, target)
    np.testing.assert_allclose(vector, [x / source[1] * target[1], y / source[0] * target[0]], atol=1e-9)
    assert given_.tolist() == [x, y]


@settings(deadline=None)
@given(sizes, sizes, st.sampled_from(geometry.FIT_RULES))
def test_a_fit_carries_the_corners_of_one_box_to_those_of_the_other(source, target, rule):
    fit = geometry.fit_frame(source, target, rule)
    corners = []
    for top, left, height, width in (fit.source_box, fit.target_box):
        corners.append(np.array([[left - 0.5, top - 0.5], [left + width - 0.5, top + height - 0.5]]))
    np.testing.assert_allclose(fit.to_target(corners[0]), corners[1], atol=1e-9)
    np.testing.assert_allclose(fit.to_source(corners[1]), corners[0], atol=1e-9)


@settings(deadline=None)
@given(sizes, sizes, st.sampled_from(["crop", "pad"]))
def test_the_box_of_a_fit_is_the_nearest_in_whole_pixels_and_centred(source, target, rule):
    fit = geometry.fit_frame(source, target, rule)
    outer, shape, (top, left, height, width) = (
        (source, target, fit.source_box) if rule == "crop" else (target, source, fit.target_box)
    )
    scale = min(outer[0] / shape[0], outer[1] / shape[1])
    for found, exact in ((height, shape[0] * scale), (width, shape[1] * scale)):
        assert abs(found - exact) <= 0.5 + 1e-9 or found == 1 > exact
    for before, side, whole in ((top, height, outer[0]), (left, width, outer[1])):
        assert 0 <= (whole - side - before) - before <= 1  # what is left over is even on both sides
    assert (fit.target_box if rule == "crop" else fit.source_box) == (0, 0, *(target if rule == "crop" else source))


@given(sizes, sizes)
def test_auto_keeps_the_picture_whole_and_enlarges_it_no_more_than_said(source, target):
    fit = geometry.fit_frame(source, target, "auto")
    cut, filled = fit.source_box[2:], fit.target_box[2:]
    kept = cut[0] * cut[1] / (source[0] * source[1])
    assert kept == 1 or (kept >= 1 - geometry.MOST_CUT and filled == target), "bars or a small cut, never both"
    assert max(filled) <= geometry.MOST_ENLARGED * max(cut) + 1
    if kept == 1 and filled != target:  # then it touches two sides, or is as large as it may be
        assert filled[0] == target[0] or filled[1] == target[1] or max(filled) >= geometry.MOST_ENLARGED * max(cut) - 1


screens = st.tuples(st.integers(24, 1200), st.integers(24, 1200))


@given(screens, st.sampled_from([(360, 640), (192, 320), (640, 360), (256, 256)]))
def test_one_videos_size_has_its_shape_and_no_more_pixels_than_there_is_room_for(source, room):
    chosen = geometry.choose_size([source] * 2, room)
    fit = geometry.fit_frame(source, chosen, "auto")
    kept = np.prod(fit.source_box[2:]) / np.prod(source)
    assert chosen == room or all(side % 8 == 0 for side in chosen)
    assert chosen[0] * chosen[1] <= room[0] * room[1]
    if max(source) / min(source) < 4:
        assert kept >= 0.95 and fit.target_box == (0, 0, *chosen), "no bars, hardly a cut"
        scale = (np.prod(chosen) / np.prod(fit.source_box[2:])) ** 0.5
        assert scale <= 1.05 and scale >= 0.8 * min(1, (np.prod(room) / np.prod(source)) ** 0.5)


@given(st.lists(screens, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_size_is_decided_by_the_videos_whatever_their_order(sources, random):
    chosen = geometry.choose_size(sources, (360, 640))
    assert geometry.choose_size(random.sample(sources, len(sources)), (360, 640)) == chosen
    assert geometry.choose_size(sources * 3, (360, 640)) == chosen


@pytest.mark.parametrize(
    "sources, chosen",
    [
        ([], (360, 640)),
        ([(720, 1280), (480, 854), (2160, 3840)], (360, 640)),
        ([(256, 256)], (256, 256)),
        ([(1920, 1080)], (640, 360)),
        ([(480, 640)], (408, 544)),
        ([(180, 320)], (176, 312)),
        ([(360, 640), (272, 640)], (360, 640)),  # the sample's
        ([(720, 1280)] * 5 + [(1280, 720)], (360, 640)),
        ([(256, 256)] * 9 + [(1024, 1024)], (256, 256)),
        ([(256, 256), (1024, 1024)], (480, 480)),
    ],
)
def test_known_sizes(sources, chosen):
    assert geometry.choose_size(sources, (360, 640)) == chosen


@settings(deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.floats(0, 1), st.floats(0, 1))
def test_sampling_a_slope_gives_its_height_anywhere(height, width, right, down):
    x, y = torch.from_numpy(geometry.pixel_grid((height, width))).movedim(-1, 0)
    image = torch.stack([3 * x - y + 1, 2 * y])[None]
    at = torch.tensor([[[right * (width - 1), down * (height - 1)]]])
    found = geometry.bilinear_sample(image, at)[0, :, 0]
    expected = torch.tensor([3 * at[0, 0, 0] - at[0, 0, 1] + 1, 2 * at[0, 0, 1]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_half_a_pixel_beyond_the_last_centre_half_of_it_is_left_if_zeros_lie_there():
    image, at = torch.full((1, 1, 3, 5), 8.0), torch.tensor([[[4.5, 1.0], [-0.5, 1.0], [2.0, 2.5]]])
    assert geometry.bilinear_sample(image, at, padding="zeros").tolist() == [[[4.0, 4.0, 4.0]]]
    assert geometry.bilinear_sample(image, at).tolist() == [[[8.0, 8.0, 8.0]]]


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 3), st.integers(1, 3))
def test_a_linear_field_resized_is_the_same_field_in_new_pixels(height, width, down, right):
    """A zoom by 10 % about the frame's corner, told in the new pixels; its border is held, so look within."""
    size = (height * down, width * right)
    x, y = torch.from_numpy(geometry.pixel_grid((height, width))).movedim(-1, 0)
    found = geometry.resize_field(torch.stack([0.1 * (x + 0.5), 0.2 * (y + 0.5)]), size)
    x, y = torch.from_numpy(geometry.pixel_grid(size)).movedim(-1, 0)
    inner = np.s_[down // 2 : size[0] - down // 2, right // 2 : size[1] - right // 2]
    torch.testing.assert_close(found[0][inner], (0.1 * (x + 0.5))[inner], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1][inner], (0.2 * (y + 0.5))[inner], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(0, 5), (5,), (2.5, 4), (3, -1)])
def test_bad_sizes_are_named(size, refuses):
    with refuses("expected .height, width."):
        geometry.check_size(size)


def test_unknown_rule_is_named(refuses):
    with refuses("crop, pad, stretch.*'zoom'"):
        geometry.fit_frame((4, 4), (8, 8), "zoom")


@given(sizes, st.integers(0, 2**32 - 1))
def test_tensors_and_arrays_are_inside_alike(size, seed):
    xy = np.random.default_rng(seed).integers(-2, 303, (50, 2)) / 2
    expected = [bool(-0.5 <= x <= size[1] - 0.5 and -0.5 <= y <= size[0] - 0.5) for x, y in xy]
    assert geometry.inside(xy, size).tolist() == expected
    assert geometry.inside(torch.from_numpy(xy), size).tolist() == expected


@given(sizes, st.integers(1, 40), st.integers(1, 40))
def test_the_centre_of_a_cell_lies_in_it(size, rows, columns):
    # cell_grid rounds to float32, so a cell must be wider than that error
    index = geometry.cell_index(geometry.cell_grid(size, rows, columns), size, (rows, columns))
    expected = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(index, expected)


@given(sizes)
def test_points_beyond_the_frame_are_in_its_outermost_cells(size):
    height, width = size
    far = np.array([[-9.0, -9.0], [width + 9.0, height + 9.0], [-0.6, height - 0.5]])
    assert geometry.cell_index(far, size, size).tolist() == [[0, 0], [height - 1, width - 1], [height - 1, 0]]


@given(sizes, st.integers(0, 2**32 - 1))
def test_shares_are_of_the_whole_frame(size, seed):
    left, right, bottom, top = geometry.frame_extent(size)
    corners = np.array([[left, top], [right, bottom]])
    np.testing.assert_allclose(geometry.to_shares(corners, size), [[0, 0], [1, 1]], atol=1e-12)
    xy = np.random.default_rng(seed).uniform(-5, 305, (20, 2))
    np.testing.assert_allclose(geometry.from_shares(geometry.to_shares(xy, size), size), xy, atol=1e-9)
    assert (
        geometry.inside(corners, size).all()
        and not geometry.inside(corners * 1.01 - [[0, 0], [0.1, 0.1]], (1, 1)).all()
    )


PACKAGE = Path(geometry.__file__).parent
# Halves that are none of a pixel: (file, function) -> what they are.
OTHER_HALVES = {
    ("training/optim.py", "*"): "half a cosine",
    ("synthetic.py", "random_scene"): "a random number about 0",
    ("synthetic.py", "_paint"): "how much of a pixel an edge covers",
    ("synthetic.py", "_texture"): "a random number about 0, half a sine",
    ("synthetic.py", "_noise"): "a random number about 0",
    ("synthetic.py", "_random_motion"): "a random number about 0",
    ("plots.py", "colour_wheel"): "how soft a rim is",
    ("labelling/config.py", "queries"): "a random part of a cell",
}


def halves(tree: ast.AST) -> Iterator[int]:
    """Lines that add or take away a half, or name its negative; that align corners or sample between pixels."""
    for node in ast.walk(tree):
        half = lambda side: isinstance(side, ast.Constant) and side.value == 0.5  # noqa: E731
        if isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, (ast.Add, ast.Sub)):
            sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
            if any(map(half, sides)):
                yield node.lineno
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and half(node.operand):
            yield node.lineno
        elif isinstance(node, ast.keyword) and node.arg == "align_corners" and ast.unparse(node.value) != "False":
            yield node.lineno
        elif "grid_sample" in (getattr(node, "attr", ""), getattr(node, "id", "")):
            yield node.lineno


def strangers_with_half_pixels(name: str, tree: ast.Module) -> list[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = []
    for line in halves(tree):
        around = [f.name for f in functions if f.lineno <= line <= (f.end_lineno or f.lineno)] or ["module"]
        if not any((name, place) in OTHER_HALVES for place in (*around, "*")):
            found.append(f"{name}:{line}")
    return found


def test_no_other_module_knows_half_pixels():
    # pips: the published weights were trained with corners aligned, on cells of features
    others = [path for path in PACKAGE.rglob("*.py") if path.name != "geometry.py" and path.parent.name != "pips"]
    named = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in others}
    assert [place for name, tree in named.items() for place in strangers_with_half_pixels(name, tree)] == []
    assert {name for name, _ in OTHER_HALVES} <= set(named), "an allowed place that is no more"


@pytest.mark.parametrize(
    "line",
    [
        "x = xy + 0.5",
        "x = 0.5 - xy",
        "xy -= 0.5",
        "on = x >= -0.5",
        "F.interpolate(x, size, align_corners=True)",
        "sample = F.grid_sample",
    ],
)
def test_a_new_half_pixel_is_found(line):
    assert strangers_with_half_pixels("somewhere.py", ast.parse(f"def new():\n    {line}")) == ["somewhere.py:2"]
