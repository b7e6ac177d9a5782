"""Rendered hands: every pixel on the surface, every pixel of the surface there, windows and mirrors that agree."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.camera import FPHA_DEPTH, MSRA15, Camera
from flowlib.hands.kinematics import CAPSULES, LIMITS, forward, mean_shape, place, random_shape, rotation
from flowlib.hands.rendering import cast_capsules, hand_capsules, render, visible_joints

seeds = st.integers(0, 2**32 - 1)
SMALL = Camera(45.3, 46.7, 20.2, 14.6, (30, 40))


def random_hand(seed: int, right: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Joints [21 3] before the camera in any view, and radii."""
    rng = np.random.default_rng(seed)
    shape = random_shape(rng, right=right)
    theta = LIMITS[..., 0] + rng.random((1, 5, 4)) * (LIMITS[..., 1] - LIMITS[..., 0])
    position = np.array([[*rng.uniform(-60, 60, 2), rng.uniform(330, 500)]])
    return place(forward(theta, shape), rotation(rng.uniform(-3, 3, (1, 3))), position)[0], shape.radii


def distance(points: np.ndarray, axes: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Signed distance [N] of points to the surface of the union of capsules."""
    start, along = axes[:, 0], axes[:, 1] - axes[:, 0]
    share = ((points[:, None] - start) * along).sum(-1) / (along * along).sum(-1)
    nearest = start + share.clip(0, 1)[..., None] * along
    return (np.linalg.norm(points[:, None] - nearest, axis=-1) - radii).min(axis=1)


def march(axes: np.ndarray, radii: np.ndarray, camera: Camera) -> np.ndarray:
    """Depth by walking along each ray as far as the distance to the surface allows: another way to the same picture."""
    y, x = np.mgrid[: camera.size[0], : camera.size[1]].reshape(2, -1)
    rays = camera.unproject(np.stack([x, y, np.ones(len(x))], axis=-1).astype(float))
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    way = np.zeros(len(rays))
    for _ in range(100):
        way = np.minimum(way + distance(rays * way[:, None], axes, radii), 3000)
    return np.where(way < 2000, way * rays[:, 2], 0).reshape(camera.size)


@settings(max_examples=25)
@given(seeds)
def test_every_pixel_lies_on_the_surface(seed):
    joints, radii = random_hand(seed)
    depth = render(joints, radii, MSRA15)
    y, x = np.nonzero(depth)
    points = MSRA15.unproject(np.stack([x, y, depth[y, x]], axis=-1).astype(np.float64))
    assert len(points) > 500
    assert abs(distance(points, hand_capsules(joints), radii)).max() < 1e-3


@settings(max_examples=3)
@given(seeds)
def test_the_picture_is_that_of_another_method(seed):
    joints, radii = random_hand(seed)
    exact, walked = render(joints, radii, SMALL), march(hand_capsules(joints), radii, SMALL)
    differ = abs(exact - walked) > 0.05
    assert differ.mean() < 0.003, "only grazed pixels may differ, which walking meets too late"


@settings(max_examples=50)
@given(seeds)
def test_rendered_then_cropped_is_cropped_then_rendered(seed):
    joints, radii = random_hand(seed)
    rng = np.random.default_rng(seed)
    (left, right), (top, bottom) = (np.sort(rng.choice(np.arange(-40, side + 40), 2, False)) for side in (320, 240))
    window = int(left), int(top), int(right), int(bottom)
    padded = np.pad(render(joints, radii, MSRA15), 40)
    beyond = render(joints, radii, MSRA15, window)
    assert beyond.shape == (bottom - top, right - left)
    inside = np.pad(np.ones(MSRA15.size, bool), 40)[top + 40 : bottom + 40, left + 40 : right + 40]
    np.testing.assert_array_equal(beyond[inside], padded[top + 40 : bottom + 40, left + 40 : right + 40][inside])


@settings(max_examples=25)
@given(seeds)
def test_a_mirrored_hand_gives_the_mirrored_picture(seed):
    camera = Camera(240.0, 241.0, 159.5, 120.0, (240, 320))
    joints, radii = random_hand(seed)
    np.testing.assert_array_equal(render(joints * (-1, 1, 1), radii, camera), render(joints, radii, camera)[:, ::-1])


def depth_on_ray(joint: np.ndarray, axes: np.ndarray, radii: np.ndarray) -> float:
    """Depth in a picture of one pixel, whose ray passes through the joint."""
    camera = Camera(1000.0, 1000.0, -1000 * joint[0] / joint[2], -1000 * joint[1] / joint[2], (1, 1))
    return float(cast_capsules(axes, radii, camera)[0, 0])


@settings(max_examples=25)
@given(seeds)
def test_a_joint_is_visible_where_nothing_but_its_own_flesh_lies_before_it(seed):
    joints, radii = random_hand(seed)
    axes = hand_capsules(joints)
    visible = visible_joints(joints[None], radii)[0]
    for joint, seen in enumerate(visible):
        own = max(r for capsule, r in zip(CAPSULES, radii) if joint in capsule)
        before = joints[joint, 2] - depth_on_ray(joints[joint], axes, radii)
        assert before > 0, "joints lie inside"
        assert seen == (before < 1.6 * own)


@settings(max_examples=25)
@given(seeds)
def test_the_silhouette_contains_every_joint(seed):
    joints, radii = random_hand(seed)
    depth = render(joints, radii, MSRA15, (-400, -400, 720, 640))
    x, y = (np.rint(MSRA15.project(joints)[:, :2]).astype(int) + 400).T
    assert (depth[y, x] > 0).all()


def test_what_is_held_before_a_joint_hides_it_and_is_seen():
    joints = place(forward(np.zeros((1, 5, 4)), mean_shape()), rotation(np.zeros((1, 3))), np.array([[0.0, 60, 400]]))
    radii = mean_shape().radii
    bar = (joints[:, [4, 17]] * 0.9)[:, None]  # before the straight ring finger, a tenth nearer
    free, held = visible_joints(joints, radii)[0], visible_joints(joints, radii, held=bar, held_radius=9.0)[0]
    assert free.all()
    assert np.flatnonzero(free & ~held).tolist() == [4, 15, 16, 17]
    depth = render(joints[0], radii, FPHA_DEPTH, held=bar[0], held_radius=9.0)
    x, y = np.rint(FPHA_DEPTH.project(joints[0])[16, :2]).astype(int)
    assert abs(depth[y, x] - (0.9 * joints[0, 16, 2] - 9)) < 1
    assert abs(render(joints[0], radii, FPHA_DEPTH)[y, x] - (joints[0, 16, 2] - radii[10])) < 1.5


def test_a_bone_that_points_at_the_camera_is_a_disc():
    """Where the cylinder's equation has no solution: its ray runs along the axis."""
    axes, camera = np.array([[[0.0, 0, 400], [0, 0, 460]]]), Camera(100.0, 100.0, 20.0, 20.0, (41, 41))
    depth = cast_capsules(axes, np.array([10.0]), camera)
    assert depth[20, 20] == 390 and (depth > 0).sum() == pytest.approx(np.pi * 2.5**2, abs=4)
    np.testing.assert_array_equal(depth, depth[::-1, ::-1])


def test_a_hand_behind_the_camera_or_an_empty_window_is_refused(refuses):
    joints, radii = random_hand(0)
    with refuses("expected a hand before the camera, got a part of it at -"):
        render(joints - (0, 0, 500), radii, MSRA15)
    with refuses(r"window: expected left < right and top < bottom, got \(5, 5, 5, 9\)"):
        render(joints, radii, MSRA15, (5, 5, 5, 9))
    assert not render(joints, radii, MSRA15, (5000, 0, 5010, 10)).any(), "a window beside the hand is empty"


def test_the_same_joints_give_these_bytes_on_every_machine():
    pictures = b"".join(render(*random_hand(seed), MSRA15).tobytes() for seed in range(5))
    assert hashlib.sha256(pictures).hexdigest()[:16] == "8e59ad50c6abbec3"
