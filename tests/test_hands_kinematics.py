"""The synthetic hand's joints: bones that keep their length, a right hand that is one, arithmetic that is exact."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flowlib.hands import FPHA_21, bone_lengths
from flowlib.hands.kinematics import (
    LIMITS,
    MCP,
    PHALANGES,
    forward,
    gaussian,
    mean_shape,
    place,
    random_shape,
    rotation,
    sine_cosine,
    within_limits,
)

seeds = st.integers(0, 2**32 - 1)


def random_pose(rng: np.random.Generator, frames: int) -> np.ndarray:
    return LIMITS[..., 0] + rng.random((frames, 5, 4)) * (LIMITS[..., 1] - LIMITS[..., 0])


def curled() -> np.ndarray:
    theta = np.zeros((1, 5, 4))
    theta[:, 2, 1:] = 1.2, 1.0, 0.6
    return theta


def handedness(joints: np.ndarray) -> float:
    """Sign of det[index MCP − wrist, pinky MCP − wrist, curled middle tip − middle MCP]: + for a right hand."""
    return np.sign(np.linalg.det(np.stack([joints[2] - joints[0], joints[5] - joints[0], joints[14] - joints[3]])))


@given(seeds)
def test_bones_keep_their_length_whatever_the_pose_and_the_view(seed):
    rng = np.random.default_rng(seed)
    shape = random_shape(rng)
    joints = place(
        forward(random_pose(rng, 20), shape), rotation(rng.uniform(-3, 3, (20, 3))), rng.uniform(-500, 500, (20, 3))
    )
    lengths = bone_lengths(joints, FPHA_21)
    assert np.ptp(lengths, axis=0).max() < 1e-9
    parents = [FPHA_21.bones.index((chain, child)) for chain, child in ((2, 9), (9, 10), (10, 11))]
    np.testing.assert_allclose(lengths[0, parents], shape.phalanges[1], atol=1e-9)


def test_a_straight_finger_lies_along_the_hand_and_a_bent_one_in_its_palm():
    straight = forward(np.zeros((1, 5, 4)), mean_shape(right=False))[0]
    np.testing.assert_allclose(straight[14], np.array(MCP[2]) + (0, sum(PHALANGES[2]), 0), atol=1e-12)
    bent = np.zeros((1, 5, 4))
    bent[0, 2, 1] = np.pi / 2  # only the knuckle: the finger points out of the palm, towards -z
    tip = forward(bent, mean_shape(right=False))[0, 14]
    np.testing.assert_allclose(tip, np.array(MCP[2]) + (0, 0, -sum(PHALANGES[2])), atol=1e-12)
    bent[0, 2, 1:] = 0, np.pi / 2, np.pi / 2  # the others: first bone straight, second down, third back
    tip = forward(bent, mean_shape(right=False))[0, 14]
    np.testing.assert_allclose(tip, np.array(MCP[2]) + (0, 46 - 24, -29), atol=1e-12)


def test_abduction_turns_a_finger_from_x_to_y():
    theta = np.zeros((1, 5, 4))
    theta[0, 2, 0] = 0.3
    x, y, z = forward(theta, mean_shape(right=False))[0, 14] - MCP[2]
    np.testing.assert_allclose((x, y, z), sum(PHALANGES[2]) * np.array([-np.sin(0.3), np.cos(0.3), 0]), atol=1e-12)


def test_right_hands_are_right_in_the_camera_too_and_left_ones_their_mirror_image():
    right, left = (forward(curled(), mean_shape(right=side)) for side in (True, False))
    np.testing.assert_array_equal(right * (-1, 1, 1), left)
    assert handedness(right[0]) == 1 and handedness(left[0]) == -1
    rng = np.random.default_rng(0)
    seen = place(np.repeat(right, 50, axis=0), rotation(rng.uniform(-3, 3, (50, 3))), np.zeros((50, 3)))
    assert {handedness(joints) for joints in seen} == {1}


def test_at_rest_the_camera_sees_the_back_of_the_hand_with_the_fingers_up():
    joints = place(forward(curled(), mean_shape()), rotation(np.zeros((1, 3))), np.array([[0.0, 0, 400]]))[0]
    assert joints[9, 1] < joints[2, 1] < joints[0, 1]  # y is down
    assert joints[14, 2] > joints[3, 2]  # the curled tip is behind the back of the hand
    assert joints[1, 0] < joints[5, 0]  # a right hand's thumb is on the left


@given(seeds)
def test_rotations_are_proper_and_turn_about_x_then_y_then_z(seed):
    angles = np.random.default_rng(seed).uniform(-3, 3, (8, 3))
    turns = rotation(angles)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (8, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    x, y, z = angles[0]
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    np.testing.assert_allclose(turns[0], about_z @ about_y @ about_x @ np.diag([1, -1, -1]), atol=1e-12)


@given(seeds)
def test_placing_is_turning_and_moving(seed):
    rng = np.random.default_rng(seed)
    points, turns, positions = rng.normal(size=(3, 4, 2, 3)), rotation(rng.normal(size=(3, 3))), rng.normal(size=(3, 3))
    expected = np.einsum("sij,snkj->snki", turns, points) + positions[:, None, None]
    np.testing.assert_allclose(place(points, turns, positions), expected, atol=1e-12)


def test_sine_and_cosine_are_those_of_the_machine_but_for_its_last_bit():
    angles = np.concatenate([np.linspace(-7, 7, 10_001), np.random.default_rng(0).uniform(-3e3, 3e3, 10_000)])
    sin, cos = sine_cosine(angles)
    assert abs(sin - np.sin(angles)).max() < 3e-16 and abs(cos - np.cos(angles)).max() < 3e-16


def test_gaussian_numbers_have_mean_0_and_deviation_1():
    numbers = gaussian(np.random.default_rng(0), (200_000,))
    assert abs(numbers.mean()) < 0.01 and abs(numbers.std() - 1) < 0.01 and abs(numbers).max() <= 2 * np.sqrt(3)
    assert gaussian(np.random.default_rng(0), (5,), np.float32).dtype == np.float32


@given(seeds)
def test_limits_are_kept_and_what_keeps_them_is_left_alone(seed):
    rng = np.random.default_rng(seed)
    wild, tame = rng.normal(0, 3, (4, 5, 4)), random_pose(rng, 4)
    kept = within_limits(wild)
    assert (kept >= LIMITS[..., 0]).all() and (kept <= LIMITS[..., 1]).all()
    np.testing.assert_array_equal(within_limits(tame), tame)


def test_people_differ_by_as_much_as_they_should():
    shapes = [random_shape(np.random.default_rng(seed)) for seed in range(300)]
    sizes = np.array([shape.phalanges.sum() for shape in shapes]) / np.sum(PHALANGES)
    assert sizes.min() > 0.84 and sizes.max() < 1.16 and 0.06 < sizes.std() < 0.08
    assert len({shape.radii.tobytes() for shape in shapes}) == 300


def test_the_same_angles_give_these_bytes_on_every_machine():
    rng = np.random.default_rng(5)
    joints = place(forward(random_pose(rng, 30), random_shape(rng)), rotation(rng.random((30, 3))), rng.random((30, 3)))
    assert hashlib.sha256(joints.tobytes()).hexdigest()[:16] == "a0596dad8ed6d113"
