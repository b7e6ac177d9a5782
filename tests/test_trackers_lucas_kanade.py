"""Lucas-Kanade: it follows what moves, leaves still what doesn't, and says when a point can't be seen."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.geometry import cell_grid
from flowlib.synthetic import Layer, Motion, Scene, random_scene, synthetic_clip
from flowlib.trackers import Tracker, make_tracker
from flowlib.trackers.lucas_kanade import LucasKanadeTracker
from flowlib.video import read_frames

SIZE = (96, 128)
track = LucasKanadeTracker()


def random_queries(seed: int, number: int, num_frames: int, size=SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = rng.integers(0, num_frames, number)
    x, y = rng.uniform(0, size[1] - 1, number), rng.uniform(0, size[0] - 1, number)
    return np.column_stack([t, x, y]).astype(np.float32)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_panning_camera_is_followed_to_a_twentieth_of_a_pixel(seed):
    scene = random_scene(8, SIZE, seed, num_sprites=0, camera="linear")
    found, truth = track(scene.clip(), random_queries(seed, 100, 8)), scene.tracks(random_queries(seed, 100, 8))
    inner = ((truth.tracks > 10) & (truth.tracks < np.array(SIZE)[::-1] - 11)).all(axis=(0, 2))
    error = np.linalg.norm(found.tracks - truth.tracks, axis=-1)[:, inner]
    assert np.median(error) < 0.05
    assert found.visibility[:, inner].mean() > 0.98


def test_moving_things_before_a_moving_camera_are_followed():
    errors, same = [], []
    for seed in range(6):
        frames, scene = synthetic_clip(8, (180, 240), seed=seed, motion="affine", camera="linear")
        queries = random_queries(seed, 500, 8, (180, 240))
        found, truth = track(frames, queries), scene.tracks(queries)
        both = found.visibility & truth.visibility
        errors.append(np.linalg.norm(found.tracks - truth.tracks, axis=-1)[both])
        same.append((found.visibility == truth.visibility).ravel())
    errors = np.concatenate(errors)
    assert np.median(errors) < 0.3 and (errors < 2).mean() > 0.93
    assert np.mean(np.concatenate(same)) > 0.9


def test_a_point_that_is_covered_becomes_invisible_and_the_others_do_not():
    disc = Layer(5, Motion(position=(-60, 0), velocity=(5, 0)), outline=(14.0,) * 36)
    scene = Scene(SIZE, 16, (Layer(0, Motion()), disc))
    queries = np.array([[0, 63.5, 47.5], [0, 63.5, 10], [15, 30, 47.5]], np.float32)
    found, truth = track(scene.clip(), queries), scene.tracks(queries)
    gone = [np.flatnonzero(~tracks.visibility[:, 0])[0] for tracks in (found, truth)]
    assert abs(gone[0] - gone[1]) <= 1
    assert not found.visibility[gone[0] :, 0].any()
    assert found.visibility[:, 1].all()
    came_free = [np.flatnonzero(~tracks.visibility[:, 2])[-1] for tracks in (found, truth)]  # seen from its query back
    assert abs(came_free[0] - came_free[1]) <= 1
    np.testing.assert_allclose(found.tracks[: gone[1] - 1, 0], [[63.5, 47.5]] * (gone[1] - 1), atol=0.1)


def test_what_stands_still_stands_still_under_noise_flat_or_not():
    rng = np.random.default_rng(0)
    picture = synthetic_clip(1, SIZE, seed=4)[0][0].astype(float)
    picture[:40] = 120  # a flat sky, of which a tracker may well lose sight, but not take the noise for motion
    frames = (picture + rng.normal(0, 2, (8, *SIZE, 3))).clip(0, 255).round().astype(np.uint8)
    found = track(frames, np.insert(cell_grid(SIZE, 24, 32), 0, 0, axis=1))
    moved = np.linalg.norm(found.displacement, axis=-1).max(axis=0).reshape(24, 32)
    assert (moved[:9] < 1).mean() > 0.8 and np.median(moved[:9]) < 0.1
    assert np.quantile(moved[12:], 0.99) < 0.5
    assert found.visibility.reshape(8, 24, 32)[:, 12:].all()


def test_a_flat_wall_without_noise_stays_visible():
    picture = synthetic_clip(1, SIZE, seed=4)[0][0]
    picture[:40] = 120
    found = track(np.stack([picture] * 4), np.insert(cell_grid(SIZE, 24, 32), 0, 0, axis=1))
    assert found.visibility.all() and not found.displacement.any()


def test_the_flat_inside_of_a_moving_thing_moves_with_it():
    frames = np.repeat(synthetic_clip(1, SIZE, seed=4)[0], 6, axis=0)
    for t, frame in enumerate(frames):
        frame[40:56, 20 + 3 * t : 36 + 3 * t] = (230, 210, 60)
    found = track(frames, np.array([[0, 28, 48], [0, 24, 44], [0, 110, 46]], np.float32))
    np.testing.assert_allclose(found.displacement[-1, :2], [[15, 0]] * 2, atol=2)
    np.testing.assert_allclose(found.displacement[-1, 2], [0, 0], atol=0.1)


def test_points_do_not_depend_on_each_other():
    frames, _ = synthetic_clip(5, SIZE, seed=2, camera="affine")
    queries = random_queries(0, 300, 5)
    order = np.random.default_rng(1).permutation(300)[:120]
    whole, some = track(frames, queries).points(order), track(frames, queries[order])
    np.testing.assert_array_equal(some.tracks, whole.tracks)
    np.testing.assert_array_equal(some.visibility, whole.visibility)


def test_time_may_run_backwards():
    frames, _ = synthetic_clip(5, SIZE, seed=3)
    there = track(frames, random_queries(0, 100, 5))
    back = track(frames[::-1], there.reverse().queries).reverse()
    np.testing.assert_array_equal(back.tracks, there.tracks)
    np.testing.assert_array_equal(back.visibility, there.visibility)


def test_the_number_of_threads_changes_nothing():
    frames, _ = synthetic_clip(3, (180, 240), seed=1, camera="affine")
    queries, before = random_queries(0, 200, 3, (180, 240)), cv2.getNumThreads()
    try:
        results = [(cv2.setNumThreads(n), track(frames, queries))[1] for n in (1, 4)]
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(results[0].tracks, results[1].tracks)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 9), (13, 40), (200, 12)])
def test_frames_of_any_size(size):
    frames = np.random.default_rng(0).integers(0, 255, (3, *size, 3), np.uint8)
    queries = np.array([[0, 0, 0], [2, size[1] - 1, size[0] - 1], [1, 5 + size[1], 0]], np.float32)
    found = track(frames, queries)
    assert found.visibility[0, 0] and found.visibility[2, 1] and not found.visibility[:, 2].any()
    assert track(frames[:1], queries[:1]).tracks.tolist() == [[[0, 0]]]


def test_a_dense_query_is_one_call():
    frames, scene = synthetic_clip(2, (200, 300), seed=1, camera="linear", num_sprites=0)
    found = track(frames, np.insert(cell_grid((200, 300), 200, 300), 0, 0, axis=1))
    assert found.num_points == 60000
    assert np.abs(found.displacement[1] - scene.camera.velocity)[found.visibility[1]].mean() < 0.05


def test_it_says_what_it_is_and_is_what_every_tracker_is():
    assert isinstance(track, Tracker)
    about = make_tracker("lucas_kanade").describe()
    assert about == json.loads(json.dumps(track.describe()))
    assert about["name"] == "lucas_kanade" and about["weights_sha256"] == ""
    assert LucasKanadeTracker(window=15).describe()["window"] == 15
    assert track(np.zeros((3, *SIZE, 3), np.uint8), np.zeros((0, 3))).tracks.shape == (3, 0, 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"window": 2}, "window: expected a whole number of at least 3, got 2"),
        ({"levels": 0}, "levels"),
        ({"max_error": 0.0}, "max_error: expected a positive number"),
        ({"max_difference": float("nan")}, "max_difference"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, refuses):
    with refuses(message):
        LucasKanadeTracker(**arguments)


def test_bad_clips_are_refused(refuses):
    frames = np.zeros((2, *SIZE, 3), np.uint8)
    for bad, queries, message in [
        (frames.astype(np.float32), np.zeros((1, 3)), "expected uint8"),
        (frames[0], np.zeros((1, 3)), "expected shape"),
        (frames, np.array([[2.0, 0, 0]]), "frame from 0 to 1"),
        (frames, np.array([[0.0, np.nan, 0]]), "finite"),
    ]:
        with refuses(message):
            track(bad, queries)


def test_real_video_the_player_moves_the_hall_does_not(shared):
    """Two frames' worth of facts one can see: a man who shifts his hands before steps that stand still."""
    frames = read_frames(shared / "data/videos/taichi_1.mp4", range(250, 258), size=(256, 256))
    found = track(frames, np.insert(cell_grid((256, 256), 32), 0, 0, axis=1))
    moved = np.linalg.norm(found.displacement[-1], axis=-1).reshape(32, 32)
    assert found.visibility.mean() > 0.9
    assert np.median(moved[:, :8]) < 0.5 and np.median(moved[:, -6:]) < 0.5
