"""Chaining single steps, with a scene's own true motion as the step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.synthetic import Scene, random_scene
from flowlib.trackers.chaining import chain

SIZE = (60, 80)


def true_step(scene: Scene):
    def step(here: int, there: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, late = min(here, there), float(there < here)
        tracks = scene.tracks(np.insert(xy.astype(float), 0, late, axis=1), 2, first_frame=first)
        at = int(there > here)
        return tracks.tracks[at].astype(np.float32), tracks.visibility[at]

    return step


def random_queries(seed: int, number: int, num_frames: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t, x, y = rng.integers(0, num_frames, number), rng.uniform(0, 79, number), rng.uniform(0, 59, number)
    return np.column_stack([t, x, y]).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["linear", "affine", "wander"]))
def test_with_true_steps_visible_points_are_where_they_should_be(seed, motion):
    scene = random_scene(8, SIZE, seed, motion=motion, camera=motion)
    queries = random_queries(seed, 60, 8)
    found, truth = chain(queries, 8, SIZE, true_step(scene)), scene.tracks(queries)
    assert (found.visibility <= truth.visibility).mean() > 0.99  # a hair's breadth from an edge rounding decides
    error = np.linalg.norm(found.tracks - truth.tracks, axis=-1)[found.visibility & truth.visibility]
    assert np.quantile(error, 0.98) < 1e-2


def test_a_point_is_seen_until_it_is_lost_and_never_again():
    scene = random_scene(16, SIZE, 3, motion="linear", camera="linear")
    queries = random_queries(0, 500, 16)
    found, truth = chain(queries, 16, SIZE, true_step(scene)), scene.tracks(queries)
    t = queries[:, 0].astype(int)
    for i in range(500):
        before, after = found.visibility[: t[i] + 1, i], found.visibility[t[i] :, i]
        assert (np.diff(before.astype(int)) >= 0).all() and (np.diff(after.astype(int)) <= 0).all()
        differ = np.flatnonzero(truth.visibility[t[i] :, i] != after)
        assert not len(differ) or not truth.visibility[t[i] : t[i] + differ[0], i].all()  # it was hidden before that
    assert (found.visibility != truth.visibility).any()  # some come out again, which a chain cannot see


@pytest.mark.parametrize("t", [0, 3, 7])
def test_a_lost_point_stays_where_it_was_seen_last(t):
    velocity = np.array([2.0, -1.0], np.float32)

    def step(here, there, xy):
        return xy + velocity * (there - here), np.full(len(xy), abs(here - t) < 2)

    found = chain(np.array([[t, 40, 30]], np.float32), 8, SIZE, step)
    steps = np.clip(np.arange(8) - t, -2, 2)[:, None]
    np.testing.assert_allclose(found.tracks[:, 0], np.array([40, 30]) + velocity * steps)
    assert found.visibility[:, 0].tolist() == [abs(s - t) <= 2 for s in range(8)]


def test_leaving_the_frame_is_being_lost():
    found = chain(np.array([[0, 75, 30]], np.float32), 6, SIZE, lambda here, there, xy: (xy + [2, 0], xy[:, 0] > 0))
    assert found.visibility[:, 0].tolist() == [True, True, True, False, False, False]
    assert found.tracks[-1, 0].tolist() == [81, 30]


def test_where_the_first_step_fails_its_place_is_kept():
    found = chain(np.array([[0, 40, 30]], np.float32), 4, SIZE, lambda here, there, xy: (xy + [5, 0], xy[:, 0] < 0))
    assert found.tracks[:, 0, 0].tolist() == [40, 45, 45, 45]
    assert found.visibility[:, 0].tolist() == [True, False, False, False]


def test_points_outside_the_frame_are_not_asked_for_and_stay():
    def step(here, there, xy):
        raise AssertionError("nothing to follow")

    found = chain(np.array([[0, -5, 30], [2, 90, 1e6]], np.float32), 4, SIZE, step)
    assert not found.visibility.any()
    np.testing.assert_array_equal(found.tracks, np.tile(found.queries[:, 1:], (4, 1, 1)))
    assert chain(np.zeros((0, 3), np.float32), 4, SIZE, step).tracks.shape == (4, 0, 2)
