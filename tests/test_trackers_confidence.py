"""Confidence from the way back: what it measures, that surer points are nearer the truth, and that the claim holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib.dataset.benchmarks import read_badja, read_flow_pair
from flowlib.geometry import cell_grid
from flowlib.synthetic import synthetic_clip
from flowlib.trackers.benchmark import StillTracker
from flowlib.trackers.confidence import (
    CLAIM,
    CURVES,
    KNOTS,
    REACH,
    UNIT_SIZE,
    ConfidentTracker,
    return_errors,
    to_confidence,
    to_expected_error,
)
from flowlib.trackers.lucas_kanade import LucasKanadeTracker
from flowlib.tracks import Tracks

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "gt").is_dir(), reason="no ground truth beside the clone")


class Driftage:
    """Moves points by 2 px a frame to the right in either direction of time, and loses what starts left of x = 5."""

    def __call__(self, frames, queries):
        away = np.abs(np.arange(len(frames))[:, None] - queries[:, 0])
        tracks = queries[None, :, 1:] + away[..., None] * np.array([2.0, 0])
        return Tracks(tracks, (away == 0) | (queries[:, 1] >= 5), queries)

    def describe(self):
        return {"name": "driftage"}


def test_the_way_back_ends_so_many_pixels_off():
    frames, queries = np.zeros((4, 20, 30, 3), np.uint8), np.array([[0, 9.0, 9], [2, 6, 6], [1, 3, 3]], np.float32)
    tracker = Driftage()
    found = return_errors(tracker, frames, tracker(frames, queries))
    np.testing.assert_allclose(found[:, 0], [0, 4, 8, 12])  # twice what it drifts by
    np.testing.assert_allclose(found[:, 1], [8, 4, 0, 4])
    np.testing.assert_array_equal(found[:, 2], [np.nan, 0, np.nan, np.nan])  # it isn't seen elsewhere
    assert not return_errors(StillTracker(), frames, StillTracker()(frames, queries)).any()
    assert return_errors(tracker, frames, tracker(frames, queries[:0])).shape == (4, 0)


def test_in_a_short_clip_the_way_back_ends_at_the_query_and_in_a_long_one_errors_add_up():
    """A drift of 2 px a frame and direction: 4 px for each frame of the way back, and seven frames at most."""
    queries, curve = np.array([[0, 9.0, 9], [12, 6, 6], [19, 50, 3]], np.float32), CURVES["raft"]
    for length in (8, 20):
        frames, mine = np.zeros((length, *UNIT_SIZE, 3), np.uint8), queries[queries[:, 0] < length]
        tracks = ConfidentTracker(Driftage(), curve)(frames, mine)
        expected, away = to_expected_error(tracks.confidence), np.abs(np.arange(length)[:, None] - mine[:, 0])
        within = curve(4.0 * away, away, UNIT_SIZE)
        np.testing.assert_allclose(expected[away <= REACH], within[away <= REACH], rtol=1e-3)
        whole, rest = away // REACH, away % REACH
        seven = curve(np.array(4.0 * REACH), np.array(REACH), UNIT_SIZE)
        # The rest is the first way, from the query on.
        added = np.sqrt(whole * seven**2 + curve(4.0 * rest, rest, UNIT_SIZE) ** 2)
        np.testing.assert_allclose(expected, added, rtol=1e-3)


def test_what_was_hidden_for_longer_than_the_way_back_is_not_vouched_for():
    class Blinking(Driftage):
        def __call__(self, frames, queries):
            tracks = super().__call__(frames, queries)
            return replace(tracks, visibility=hidden[: len(frames)] if len(queries) == 1 else tracks.visibility)

    hidden = np.ones((24, 1), bool)
    hidden[[3, 4, *range(10, 10 + REACH)]] = False
    tracks = ConfidentTracker(Blinking(), CURVES["raft"])(np.zeros((24, 30, 90, 3), np.uint8), np.array([[0, 9.0, 9]]))
    assert (tracks.confidence[:10, 0] > 0).tolist() == hidden[:10, 0].tolist()
    assert not tracks.confidence[10:].any()


@given(st.floats(0, 1e6, width=32))
def test_confidence_and_expected_error_say_the_same(error):
    found = to_confidence(np.array([error, np.inf]))
    assert found.dtype == np.float32 and 0 <= found[0] <= 1 and found[1] == 0
    np.testing.assert_allclose(to_expected_error(found)[0], error, rtol=0.1, atol=1e-6)
    np.testing.assert_array_equal(to_expected_error(np.array([0.0, 1.0])), [np.inf, 0])


@given(st.sampled_from(sorted(CURVES)), st.floats(0, 100), st.floats(0, 100), st.integers(1, 90), st.integers(1, 90))
def test_the_expected_error_grows_with_what_was_missed_and_with_the_way(name, one, other, near, far):
    curve = CURVES[name]
    low, high = sorted((one, other))
    assert curve(np.array([low]), np.array([near]), UNIT_SIZE) <= curve(np.array([high]), np.array([near]), UNIT_SIZE)
    least, most = sorted((near, far))
    assert curve(np.array([one]), np.array([least]), UNIT_SIZE) <= curve(np.array([one]), np.array([most]), UNIT_SIZE)
    assert curve(np.array([one]), np.array([0]), UNIT_SIZE) == 0
    assert curve(np.array([np.nan]), np.array([near]), UNIT_SIZE) == np.inf
    # A frame twice as large, seen by a tracker that misses twice as much, is the same frame.
    double = curve(np.array([2 * one]), np.array([near]), (2 * UNIT_SIZE[0], 2 * UNIT_SIZE[1]))
    np.testing.assert_allclose(double, 2 * curve(np.array([one]), np.array([near]), UNIT_SIZE), rtol=1e-5)


def test_at_a_knot_the_curve_says_what_is_stored():
    for curve in CURVES.values():
        assert len(curve.errors) == len(KNOTS) and list(curve.errors) == sorted(curve.errors)
        found = curve(np.array(KNOTS), np.full(len(KNOTS), 4), UNIT_SIZE)
        np.testing.assert_allclose(found, 2 * curve.margin * np.array(curve.errors), rtol=1e-5)


def share_within(tracks: Tracks, truth: Tracks) -> tuple[float, np.ndarray, np.ndarray]:
    """The share of sightings after the query that lie within their expected error; errors and expected errors."""
    away = np.arange(truth.num_frames)[:, None] != truth.queries[:, 0]
    seen = tracks.visibility & truth.visibility & away
    errors = np.linalg.norm(tracks.tracks - truth.tracks, axis=-1)[seen]
    expected = to_expected_error(tracks.confidence)[seen]
    return float((errors <= expected).mean()), errors, expected


@pytest.fixture(scope="module")
def scene():
    frames, scene = synthetic_clip(6, (120, 160), seed=21, motion="affine", camera="wander", num_sprites=6)
    queries = np.insert(cell_grid((120, 160), 12, 16), 0, 0, axis=1)
    return frames, scene.tracks(queries), ConfidentTracker(LucasKanadeTracker())(frames, queries)


def test_tracks_stay_what_they_were_and_get_a_confidence(scene):
    frames, truth, tracks = scene
    plain = LucasKanadeTracker()(frames, truth.queries)
    np.testing.assert_array_equal(tracks.tracks, plain.tracks)
    np.testing.assert_array_equal(tracks.visibility, plain.visibility)
    assert plain.confidence is None and tracks.confidence.dtype == np.float32
    np.testing.assert_array_equal(tracks.confidence[~tracks.visibility], 0)
    np.testing.assert_array_equal(tracks.confidence[0], 1)
    assert (tracks.confidence[1:][tracks.visibility[1:]] > 0).all()


def test_surer_points_are_nearer_the_truth_and_the_claim_holds(scene):
    _, truth, tracks = scene
    share, errors, expected = share_within(tracks, truth)
    assert share >= CLAIM
    sure = expected <= np.median(expected)
    assert errors[sure].mean() < 0.5 * errors[~sure].mean()


@needs_data
def test_the_claim_holds_on_a_pair_of_sintel():
    folder = DATA / "gt" / "sintel_alley_1"
    pair = read_flow_pair(folder / "frame_0001.png", folder / "frame_0002.png", folder / "flow_0001.flo")
    chosen = pair.truth.points(np.random.default_rng(0).choice(pair.truth.num_points, 1000, replace=False))
    tracks = ConfidentTracker(LucasKanadeTracker())(pair.frames, chosen.queries)
    assert share_within(tracks, chosen)[0] >= CLAIM


@needs_data
def test_the_claim_holds_on_an_animal_of_badja():
    cows = read_badja(DATA / "gt/badja/cows.json", DATA / "davis480/cows/frames", size=(96, 160))
    cut = cows.cut(0, 26)
    tracks = ConfidentTracker(LucasKanadeTracker())(cut.frames, cut.truth.queries.astype(np.float32))
    share, errors, _ = share_within(tracks, cut.truth)
    assert len(errors) > 20 and share >= CLAIM


def test_what_has_no_curve_is_refused(refuses):
    with refuses(r"confidence: expected a tracker with a curve \(lucas_kanade, raft\), got driftage; bench/confidence"):
        ConfidentTracker(Driftage())
    tracker = ConfidentTracker(LucasKanadeTracker())
    about = tracker.describe()
    assert about["name"] == "lucas_kanade" and about["confidence"][-1] == CURVES["lucas_kanade"].margin
    assert ConfidentTracker(Driftage(), CURVES["raft"]).describe()["name"] == "driftage"
