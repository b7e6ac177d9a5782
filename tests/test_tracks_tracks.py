"""`Tracks`: its door, and that every view of it keeps positions, visibility and queries in step."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib.tracks import Tracks


def random_tracks(seed: int = 0, S: int = 6, N: int = 5) -> Tracks:
    rng = np.random.default_rng(seed)
    t = rng.integers(0, S, N)
    tracks = rng.uniform(0, 99, (S, N, 2)).astype(np.float32)
    queries = np.concatenate([t[:, None], tracks[t, np.arange(N)]], axis=1)
    return Tracks(tracks, rng.random((S, N)) > 0.3, queries, rng.random((S, N)))


def assert_same(a: Tracks, b: Tracks) -> None:
    np.testing.assert_allclose(a.tracks, b.tracks, atol=1e-4)
    np.testing.assert_array_equal(a.visibility, b.visibility)
    np.testing.assert_allclose(a.queries, b.queries, atol=1e-4)
    np.testing.assert_array_equal(a.confidence, b.confidence)


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_views_undo_themselves(seed):
    tracks = random_tracks(seed)
    assert_same(tracks.flip(100).flip(100), tracks)
    assert_same(tracks.reverse().reverse(), tracks)
    assert_same(tracks.resize((50, 100), (75, 25)).resize((75, 25), (50, 100)), tracks)


@given(seeds)
def test_every_view_keeps_the_query_on_its_track(seed):
    tracks = random_tracks(seed)
    for view in (tracks.flip(100), tracks.reverse(), tracks.frames(1, 5), tracks.points([3, 0])):
        t = view.queries[:, 0].astype(int)
        np.testing.assert_allclose(view.tracks[t, np.arange(view.num_points)], view.queries[:, 1:], atol=1e-4)
        np.testing.assert_allclose(view.displacement[t, np.arange(view.num_points)], 0, atol=1e-4)


@given(seeds)
def test_every_view_keeps_confidence_and_visibility_with_their_point(seed):
    given = random_tracks(seed)
    # A confidence that tells its frame and point, and whether the point is seen there.
    frame, point = np.indices(given.visibility.shape)
    mark = (frame * 64 + point * 2 + given.visibility) / 1024
    tracks = replace(given, confidence=mark)
    cut = np.flatnonzero((given.queries[:, 0] >= 1) & (given.queries[:, 0] < 5))
    views = {
        "points": (tracks.points([3, 0]), mark[:, [3, 0]]),
        "mask": (tracks.points(np.array([True, False, True, False, True])), mark[:, ::2]),
        "frames": (tracks.frames(1, 5), mark[1:5][:, cut]),
        "reverse": (tracks.reverse(), mark[::-1]),
        "flip": (tracks.flip(100), mark),
        "resize": (tracks.resize((50, 100), (75, 25)), mark),
    }
    for name, (view, expected) in views.items():
        assert view.confidence is not None and view.confidence.dtype == np.float32, name
        np.testing.assert_array_equal(view.confidence, expected, err_msg=name)
        np.testing.assert_array_equal(view.visibility, (view.confidence * 1024) % 2 == 1, err_msg=name)


def test_views_of_tracks_without_confidence_have_none():
    tracks = replace(random_tracks(), confidence=None)
    for view in (
        tracks.points([1]),
        tracks.frames(0, 3),
        tracks.reverse(),
        tracks.flip(9),
        tracks.resize((1, 1), (2, 2)),
    ):
        assert view.confidence is None
    assert set(tracks.arrays()) == {"tracks", "visibility", "queries"}


def test_slicing_leaves_out_points_that_are_queried_elsewhere():
    tracks = random_tracks()
    assert tracks.frames(2, 4).num_points == ((tracks.queries[:, 0] >= 2) & (tracks.queries[:, 0] < 4)).sum()


def test_no_points_are_allowed():
    empty = Tracks.still(np.zeros((0, 3)), 4)
    assert (empty.num_frames, empty.num_points) == (4, 0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tracks": np.zeros((4, 2))}, "tracks: expected shape"),
        ({"tracks": np.full((4, 1, 2), np.nan)}, "finite"),
        ({"visibility": np.ones((4, 1))}, "expected bool"),
        ({"visibility": np.ones((4, 2), bool)}, r"expected bool \[4 1\]"),
        ({"queries": np.array([[4, 0.0, 0.0]])}, "frame from 0 to 3"),
        ({"queries": np.array([[0.5, 0.0, 0.0]])}, "frame from 0 to 3"),
        ({"queries": np.zeros((2, 3))}, "expected 1 to go with"),
        ({"tracks": np.array([[["a", "b"]]])}, "expected numbers"),
        ({"confidence": np.ones((4, 2))}, r"confidence: expected floats \[4, 1\]"),
        ({"confidence": np.ones((4, 1), bool)}, "confidence: expected floats"),
        ({"confidence": np.full((4, 1), 1.5)}, "confidence: expected numbers from 0 to 1, got 1.5"),
        ({"confidence": np.full((4, 1), -0.1)}, "confidence: expected numbers from 0 to 1"),
        ({"confidence": np.full((4, 1), np.nan)}, "confidence: expected numbers from 0 to 1"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message, refuses):
    fields = {"tracks": np.zeros((4, 1, 2)), "visibility": np.ones((4, 1), bool), "queries": np.zeros((1, 3))}
    with refuses(message):
        Tracks(**(fields | change))
