"""Metrics of hand poses against oracles: offsets, permutations, similarities, gaps in time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowlib.hands.skeleton import FPHA_21, ICVL_16
from flowlib.tasks.hand_pose import metrics
from flowlib.tasks.hand_pose.case import PoseCase
from flowlib.tasks.hand_pose.metrics import METRICS, PoseAnswer, series_of

SPECS = {spec.name: spec for spec in METRICS}
JOINTS = arrays(np.float64, (4, 21, 3), elements=st.floats(-100, 100, width=32))


def hand(frames: int = 5, seed: int = 0, joints: int = 21) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 40, (frames, joints, 3)) + [0, 0, 400]


def answer(predicted: np.ndarray, true: np.ndarray, visible=None, numbers=None, skeleton=FPHA_21) -> PoseAnswer:
    S = len(true)
    crops, numbers = torch.zeros(S, 1, 8, 8), np.arange(S) if numbers is None else np.asarray(numbers)
    turns = np.tile(np.eye(3), (S, 1, 1))
    visible = np.ones(true.shape[:2], bool) if visible is None else visible
    crop = {"centre": true[:, 3], "rotation": turns, "cube": np.full(S, 200.0), "intrinsics": np.ones((S, 4))}
    case = PoseCase("a", "s", skeleton, crops, true, visible, **crop, frames=numbers, action=-1)
    return PoseAnswer(predicted, case)


def value(name: str, given: PoseAnswer) -> float:
    return SPECS[name].function(given)


@given(distance=st.floats(0.1, 60))
def test_a_constant_offset_gives_that_error_everywhere(distance):
    true = hand()
    offset = np.array([2.0, -3.0, 6.0]) / 7 * distance
    seen = np.random.default_rng(1).random((5, 21)) < 0.5
    given = answer(true + offset, true, seen)
    for name in ("mpjpe", "mpjpe_seen", "mpjpe_hidden", "median", "percentile_90"):
        assert value(name, given) == pytest.approx(distance)
    for name in ("root_relative", "procrustes", "bones"):
        assert value(name, given) == pytest.approx(0, abs=1e-6)
    assert value("jitter", given) == pytest.approx(value("jitter_truth", given))


def test_a_perfect_prediction_has_areas_of_one_and_errors_of_zero():
    given = answer(hand(), hand(), np.ones((5, 21), bool))
    assert set(given.pck.values()) == {1.0}
    assert value("auc", given) == 1 and value("auc_20_50", given) == 1
    assert value("mpjpe", given) == 0 and np.isnan(value("mpjpe_hidden", given))


def test_permuted_joints_change_numbers_by_joint_only():
    true, order = hand(), np.random.default_rng(3).permutation(21)
    predicted = true + np.random.default_rng(4).normal(0, 10, true.shape)
    one, two = answer(predicted, true), answer(predicted[:, order], true[:, order])
    for name in ("mpjpe", "median", "auc", "procrustes", "jitter"):
        assert value(name, one) == pytest.approx(value(name, two))
    before, after = metrics.per_joint(one), metrics.per_joint(two)
    assert [after[i] for i in range(21)] == pytest.approx([before[int(j)] for j in order])
    assert before != after


@given(JOINTS, st.floats(-3, 3), st.floats(0.5, 2))
def test_alignment_undoes_every_similarity(joints, angle, scale):
    joints = joints + np.random.default_rng(0).normal(0, 5, joints.shape)  # never all on a line
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    moved = scale * joints @ turn.T + [10, -20, 300]
    assert np.allclose(metrics.aligned(moved, joints), joints, atol=1e-6)


def test_alignment_does_not_mirror():
    true = hand()
    mirrored = true * [-1, 1, 1]
    assert metrics.joint_errors(metrics.aligned(mirrored, true), true).mean() > 5


def test_alignment_is_the_best_similarity():
    true = hand()
    predicted = true + np.random.default_rng(5).normal(0, 8, true.shape)
    best = np.square(metrics.aligned(predicted, true) - true).sum()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        nudge = metrics.aligned(predicted, true) * (1 + 0.01 * rng.normal()) + rng.normal(0, 1, 3)
        assert np.square(nudge - true).sum() > best


def test_means_are_over_joints_then_frames_that_have_any():
    true, predicted = hand(3), hand(3)
    predicted[0, :, 0] += 10
    predicted[1, :3, 0] += 20
    seen = np.ones((3, 21), bool)
    seen[1, :4] = False
    given = answer(predicted, true, seen)
    assert value("mpjpe_hidden", given) == pytest.approx(15)  # of frame 1 alone, 3 of 4
    assert value("mpjpe_seen", given) == pytest.approx((10 + 0 + 0) / 3)


def test_jitter_is_the_second_difference_and_stops_at_gaps():
    steady = np.arange(6.0)[:, None, None] * np.ones((6, 21, 3))
    assert value("jitter", answer(steady, hand(6))) == 0
    bent = steady.copy()
    bent[3] += [0, 3, 4]
    # At frames 2 and 4 the bend is 5, at frame 3 it is 10, at frame 1 nothing.
    assert value("jitter", answer(bent, hand(6))) == pytest.approx((0 + 5 + 10 + 5) / 4)
    gap = answer(bent, hand(6), numbers=[0, 1, 2, 3, 9, 10])
    assert value("jitter", gap) == pytest.approx((0 + 5) / 2)
    assert "three frames in a row" not in answer(hand(2), hand(2)).available


@given(arrays(np.float64, (3, 7), elements=st.floats(0, 100)))
def test_success_curves_rise_and_count_what_is_within(errors):
    curve = metrics.success(errors)
    assert list(curve) == list(range(81))
    assert all(curve[mm] == np.mean(errors <= mm) for mm in curve)
    assert 0 <= metrics.area(curve, 0, 50) <= 1
    assert list(curve.values()) == sorted(curve.values())


def test_the_hard_curve_is_never_above_the_others():
    rng = np.random.default_rng(0)
    given = answer(hand() + rng.normal(0, 15, (5, 21, 3)), hand())
    curves = {series.name: series.function(given) for series in series_of(FPHA_21)[:3]}
    assert all(curves["success"][mm] <= min(curves["success_mean"][mm], curves["pck"][mm]) for mm in range(81))


@pytest.mark.parametrize("skeleton", [FPHA_21, ICVL_16])
def test_numbers_by_finger_are_means_of_those_by_joint(skeleton):
    J = skeleton.num_joints
    seen = np.random.default_rng(2).random((5, J)) < 0.5
    given = answer(hand(5, 1, J), hand(5, 2, J), seen, skeleton=skeleton)
    series = {one.name: one for one in series_of(skeleton)}
    joints, fingers = series["joint"].function(given), series["finger"].function(given)
    assert len(joints) == J and series["joint"].names == skeleton.joints
    for place, finger in enumerate(metrics.FINGERS):
        own = [joints[j] for j in range(J) if skeleton.fingers[j] == finger]
        assert fingers[place] == pytest.approx(np.mean(own))
    errors = given.errors
    thumb = np.array(skeleton.fingers) == "thumb"
    counted = seen & thumb
    rows = [errors[i][counted[i]].mean() for i in range(5) if counted[i].any()]
    assert series["seen"].function(given)[1] == pytest.approx(np.mean(rows))


def test_bones_that_are_a_tenth_longer_deviate_by_a_tenth():
    true = hand()
    given = answer((true - true[:, :1]) * 1.1 + true[:, :1], true)
    parents, children = np.array(FPHA_21.bones).T
    lengths = np.linalg.norm(true[:, children] - true[:, parents], axis=-1)
    assert value("bones", given) == pytest.approx(0.1 * lengths.mean())
