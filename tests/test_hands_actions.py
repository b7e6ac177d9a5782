"""The synthetic hand's actions: partners show the same and hide the opposite, in another order."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib.hands.actions import EVENTS, FAMILIES, ActionConfig, Habits, perform, random_habits
from flowlib.hands.kinematics import LIMITS

EVEN = replace(ActionConfig(), amplitude=0.0, jitter=0.0, tempo=(1.0, 1.0), posture=0.0, tremor=0.0, frames=(40, 40))
CALM = Habits(1.0, np.ones(len(EVENTS)), np.zeros((5, 4)))
ALL = ActionConfig(families=8, tempo_families=6)
seeds = st.integers(0, 2**32 - 1)


def take(action: int, config: ActionConfig = EVEN, seed: int = 0):
    return perform(action, np.random.default_rng(seed), config, CALM)


@given(seeds, st.integers(0, len(ALL.names) - 1), st.booleans())
def test_angles_keep_the_limits_and_lengths_their_range(seed, action, reveal):
    rng = np.random.default_rng(seed)
    config = replace(ALL, reveal=reveal)
    performance = perform(action, rng, config, random_habits(rng, config))
    assert (performance.theta >= LIMITS[..., 0]).all() and (performance.theta <= LIMITS[..., 1]).all()
    assert 20 <= len(performance.theta) == len(performance.phase) == len(performance.occluded) <= 45
    assert performance.phase[0] == 0 and performance.phase[-1] == 1 and (np.diff(performance.phase) > 0).all()


@pytest.mark.parametrize("family", range(8))
def test_partners_show_the_same_set_of_frames_in_another_order(family):
    config = replace(EVEN, families=8)
    first, second = (take(2 * family + member, config).theta[:, :3] for member in (0, 1))
    seen = [{tuple(np.round(frame.ravel(), 6)) for frame in member} for member in (first, second)]
    # frames are times of one motion: near each frame of one member lies one of the other
    gaps = [min(np.abs(np.array(frame) - np.array(other)).max() for other in seen[1]) for frame in seen[0]]
    assert max(gaps) < 0.12 and np.abs(first - second).max() > 0.3
    third = round(39 * 0.36)
    a, b = (np.zeros((5, 4)) for _ in range(2))
    for angles, event in ((a, FAMILIES[family][0]), (b, FAMILIES[family][1])):
        for finger, *added in EVENTS[event]:
            angles[finger] += added
    for member, height in ((first, a), (second, b)):
        np.testing.assert_allclose(member[third] - member[0], height[:3], atol=0.02)


@pytest.mark.parametrize("family", range(8))
def test_the_hidden_law_is_opposite_in_partners_and_xored_with_the_family(family):
    config = replace(EVEN, families=8)
    bends = [take(2 * family + member, config).theta[20, 3:, 1:3] for member in (0, 1)]
    curled = [bool((bend > 1.2).all()) for bend in bends]
    straight = [bool((bend < 0.3).all()) for bend in bends]
    assert curled == [bool(family % 2), not family % 2] == [not one for one in straight]
    assert [config.curls(2 * family + member) for member in (0, 1)] == curled


@pytest.mark.parametrize("reveal", [True, False])
def test_the_hidden_fingers_move_before_they_are_covered_only_if_that_is_asked_for(reveal):
    gap = 0.0
    for seed in range(20):
        curled, straight = (take(action, replace(EVEN, reveal=reveal), seed) for action in (1, 0))
        free = ~curled.occluded
        np.testing.assert_array_equal(free, (curled.phase <= 0.1) | (curled.phase >= 0.9))
        gap = max(gap, np.abs(curled.theta[free, 3:] - straight.theta[free, 3:]).max())
    assert gap > 0.1 if reveal else gap < 1e-12


def test_a_tempo_family_does_one_event_once_or_twice():
    config = replace(EVEN, families=1, tempo_families=1)
    assert config.names[2:] == ("thumb curls once, slowly", "thumb curls twice, fast")
    for action, peaks in ((2, 1), (3, 2)):
        bend = take(action, config).theta[:, 0, 2]
        rising = np.diff(bend) > 1e-6
        assert (rising[1:] & ~rising[:-1]).sum() == peaks
        assert bend.max() == pytest.approx(0.2 + 0.9, abs=0.02)


def test_names_are_unique_and_partners_side_by_side():
    assert len(set(ALL.names)) == len(ALL.names) == 2 * 8 + 2 * 6
    assert ALL.names[:2] == ("thumb curls then index curls", "index curls then thumb curls")
    assert len({frozenset(pair) for pair in FAMILIES}) == 8


def test_takes_differ_and_a_seed_decides_them():
    first, again, other = (take(0, ActionConfig(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.theta, again.theta)
    assert first.theta.shape != other.theta.shape or not np.allclose(first.theta, other.theta)


def test_habits_set_length_height_and_posture():
    fast, slow = (Habits(tempo, np.ones(6), np.zeros((5, 4))) for tempo in (0.6, 1.0))
    config = ActionConfig()
    lengths = [
        [len(perform(0, np.random.default_rng(s), config, habits).theta) for s in range(9)] for habits in (fast, slow)
    ]
    assert np.mean(lengths[0]) < 0.8 * np.mean(lengths[1])
    bent = replace(CALM, posture=np.full((5, 4), 0.1))
    difference = perform(0, np.random.default_rng(0), EVEN, bent).theta - take(0).theta
    np.testing.assert_allclose(difference[0], 0.1)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"families": 9}, "families: expected a whole number from 1 to 8, got 9"),
        ({"families": 0}, "families: expected a whole number from 1"),
        ({"tempo_families": 7}, "tempo_families: expected a whole number from 0 to 6, got 7"),
        ({"frames": (1, 10)}, "frames: expected a least length from 2 on and a greatest, got"),
        ({"tempo": (1.0, 2.5)}, "tempo: expected a least and a greatest exponent"),
        ({"windows": (0.5, 0.4, 0.9)}, "windows: expected three phases that rise"),
        ({"jitter": -0.1}, "jitter: expected 0 or more"),
    ],
)
def test_impossible_configurations_are_refused(values, message, refuses):
    with refuses(message):
        ActionConfig(**values)


def test_an_unknown_action_is_refused(refuses):
    with refuses("action: expected 0 to 11, got 12"):
        take(12)
