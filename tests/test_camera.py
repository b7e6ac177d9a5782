"""Pinhole cameras: there and back, and which way the axes point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib.camera import FPHA_DEPTH, ICVL, MSRA15, NYU, Camera

focals = st.floats(50, 2000)
cameras = st.builds(Camera, focals, focals, st.floats(-100, 900), st.floats(-100, 900), st.just((480, 640)))


@given(cameras, st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
def test_projection_and_back_is_the_identity(camera, seed, dtype):
    points = np.random.default_rng(seed).uniform([-300, -300, 100], [300, 300, 900], (4, 5, 3)).astype(dtype)
    pixels = camera.project(points)
    back = camera.unproject(pixels)
    assert pixels.dtype == back.dtype == dtype
    np.testing.assert_allclose(back, points, atol=1e-9 if dtype is np.float64 else 2e-2)  # mm; at 100 px to a radian
    np.testing.assert_array_equal(pixels[..., 2], points[..., 2])


@given(cameras, st.integers(0, 2**32 - 1))
def test_pixels_there_and_back_with_both_focal_lengths(camera, seed):
    pixels = np.random.default_rng(seed).uniform([0, 0, 100], [640, 480, 900], (7, 3))
    np.testing.assert_allclose(camera.project(camera.unproject(pixels)), pixels, atol=1e-9)


def test_x_goes_right_y_down_and_the_axis_meets_the_principal_point():
    camera = Camera(500, 400, 320, 240, (480, 640))
    points = np.array([[0, 0, 500], [10, 0, 500], [0, 10, 500], [10, 0, 1000.0]])
    expected = [[320, 240, 500], [330, 240, 500], [320, 248, 500], [325, 240, 1000]]
    assert camera.project(points).tolist() == expected


def test_what_a_camera_sees_is_before_it_and_inside_its_picture():
    points = np.array([[0, 0, 400], [0, 0, -400], [0, 0, 0], [9000, 0, 400], [0, -9000, 400.0]])
    for camera in (FPHA_DEPTH, MSRA15, ICVL, NYU, Camera(50, 50, 320, 240, (480, 640))):
        assert camera.sees(points).tolist() == [True, False, False, False, False]


def test_bad_cameras_and_points_behind_them_are_refused():
    with pytest.raises(ValueError, match="fy: expected a positive focal length in pixels, got 0"):
        Camera(500, 0, 320, 240, (480, 640))
    with pytest.raises(ValueError, match="principal point"):
        Camera(500, 500, float("nan"), 240, (480, 640))
    with pytest.raises(ValueError, match="size of the camera's pictures: expected"):
        Camera(500, 500, 320, 240, (0, 640))
    for move in (FPHA_DEPTH.project, FPHA_DEPTH.unproject):
        with pytest.raises(ValueError, match=r"expected them before the camera \(z > 0 mm\), got z = -5"):
            move(np.array([[0, 0, 400.0], [0, 0, -5.0]]))


def test_one_point_alone_is_projected_as_among_others():
    point = np.array([12.0, -30.0, 420.0])
    pixel = FPHA_DEPTH.project(point)
    assert pixel.tolist() == FPHA_DEPTH.project(point[None])[0].tolist() and FPHA_DEPTH.sees(point)
    np.testing.assert_allclose(FPHA_DEPTH.unproject(pixel), point, rtol=1e-12)
    with pytest.raises(ValueError, match="z = -1"):
        FPHA_DEPTH.project(np.array([0.0, 0.0, -1.0]))
