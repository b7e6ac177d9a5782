"""The pixel convention: properties that hold for every size, rule and point."""

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
