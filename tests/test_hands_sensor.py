"""What a sensor makes of depth: each effect alone, as large as it is set, and none when switched off."""

from dataclasses import replace

import numpy as np
import pytest

from flowlib.hands.sensor import SensorConfig, sense

CLEAN = SensorConfig.clean()


def two_planes() -> np.ndarray:
    """A nearer plane beside a farther one, with an empty margin of 10 pixels."""
    depth = np.zeros((220, 220), np.float32)
    depth[10:210, 10:110], depth[10:210, 110:210] = 400.25, 500.75
    return depth


def test_a_clean_sensor_changes_nothing():
    depth = two_planes()
    np.testing.assert_array_equal(sense(depth, np.random.default_rng(0), CLEAN), depth)


def test_the_input_is_left_as_it_is_and_an_empty_picture_stays_empty():
    depth = two_planes()
    before = depth.copy()
    assert not np.array_equal(sense(depth, np.random.default_rng(0)), before)
    np.testing.assert_array_equal(depth, before)
    assert not sense(np.zeros((4, 5), np.float32), np.random.default_rng(0)).any()


@pytest.mark.parametrize("distance", [400.0, 1200.0])
def test_noise_grows_with_distance(distance):
    config = replace(CLEAN, noise=0.8, noise_growth=1.5e-6)
    noisy = sense(np.full((300, 300), distance, np.float32), np.random.default_rng(0), config) - distance
    assert noisy.std() == pytest.approx(0.8 + 1.5e-6 * distance**2, rel=0.02)
    assert abs(noisy.mean()) < 0.03


def test_edge_pixels_drop_out_as_often_as_set_and_no_others():
    depth = two_planes()
    dropped = sense(depth, np.random.default_rng(0), replace(CLEAN, edge_drop=0.3)) == 0
    edge = np.zeros_like(dropped)
    edge[[10, 209], 10:210] = edge[10:210, [[10], [109], [110], [209]]] = True
    assert not dropped[~edge & (depth > 0)].any()
    assert dropped[edge].mean() == pytest.approx(0.3, abs=0.05)


def test_mixed_pixels_lie_between_both_sides_and_only_there():
    depth = two_planes()
    mixed = sense(depth, np.random.default_rng(0), replace(CLEAN, edge_mix=0.5))
    changed = mixed != depth
    assert set(np.nonzero(changed)[1]) == {109, 110}
    values = mixed[changed]
    assert values.min() >= 400.25 and values.max() <= 500.75 and values.std() > 20
    assert changed[10:210, 109:111].mean() == pytest.approx(0.5, abs=0.07)


def test_a_slope_is_no_edge():
    slope = np.full((50, 50), 400, np.float32) + 15 * np.arange(50, dtype=np.float32)
    sensed = sense(slope, np.random.default_rng(0), replace(CLEAN, edge_drop=1.0))
    np.testing.assert_array_equal(sensed[1:-1, 1:-1], slope[1:-1, 1:-1])


def test_holes_are_discs_no_larger_than_set():
    depth = np.full((200, 200), 400, np.float32)
    counts = [(sense(depth, np.random.default_rng(seed), replace(CLEAN, holes=1)) == 0).sum() for seed in range(200)]
    assert max(counts) <= 50 < 4 * max(counts), "π·4² pixels at most"
    assert 0.3 < np.mean(np.array(counts) > 0) < 0.7, "none or one"


def test_whole_millimetres():
    sensed = sense(two_planes(), np.random.default_rng(0), replace(CLEAN, quantise=True))
    assert set(np.unique(sensed)) == {0, 400, 501}
    full = sense(two_planes(), np.random.default_rng(0))
    np.testing.assert_array_equal(full, np.rint(full))


def test_the_generator_decides():
    first, again, other = (sense(two_planes(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"noise": -1.0}, "noise: expected 0 or more, got -1"),
        ({"edge_drop": 0.7, "edge_mix": 0.4}, "edge_drop and edge_mix: expected at most 1 in sum"),
        ({"holes": -2}, "holes: expected 0 or more"),
    ],
)
def test_impossible_sensors_are_refused(values, message, refuses):
    with refuses(message):
        SensorConfig(**values)
