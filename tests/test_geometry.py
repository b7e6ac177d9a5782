"""The pixel convention: properties that hold for every size, rule and point."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
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
    ("training/optimisers.py", "*"): "half a cosine",
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
