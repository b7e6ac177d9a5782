"""Conventions of other programs: each where its documentation places points, and back without loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.tracks import assert_equal, random_tracks
from hypothesis import given
from hypothesis import strategies as st

from flowlib.geometry import pixel_grid, to_shares
from flowlib.tracks import CONVENTIONS, Tracks, from_arrays, to_arrays

SIZE = (36, 64)
seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from(sorted(CONVENTIONS)), st.booleans())
def test_there_and_back_nothing_changes(seed, name, confident):
    tracks = random_tracks(seed, later=name != "pips", confident=confident)
    assert_equal(from_arrays(to_arrays(tracks, name, size=SIZE), size=SIZE), tracks)


@given(seeds, st.sampled_from(["flowlib", "cotracker", "pips"]))
def test_float64_stays_float64(seed, name):
    tracks = random_tracks(seed, later=name != "pips", dtype=np.float64)
    assert_equal(from_arrays(to_arrays(tracks, name), name), tracks)


def test_tapnet_counts_from_the_corner_of_the_first_pixel():
    """tapnet's README: (0, 0) is the upper-left corner of the upper-left pixel, (h, w) the lower-right corner of the
    lower-right one; (t, y, x) where there are three."""
    H, W = SIZE
    corners = {"tracks": [[[0, 0]], [[W, H]]], "visibles": [[True], [True]], "query_points": [[0, 0, 0], [0, H, W]]}
    found = from_arrays(corners)
    np.testing.assert_array_equal(found.tracks[0], [[-0.5, -0.5], [W - 0.5, H - 0.5]])
    np.testing.assert_array_equal(found.queries, [[0, -0.5, -0.5], [0, W - 0.5, H - 0.5]])


@given(st.integers(0, 35), st.integers(0, 63), st.integers(0, 3))
def test_the_centre_of_a_pixel_is_half_a_pixel_from_tapnets_corner(row, column, t):
    pixel = Tracks.still(np.array([[t, *pixel_grid(SIZE)[row, column]]]), 4)
    arrays = to_arrays(pixel, "tapnet")
    assert arrays["query_points"].tolist() == [[t, row + 0.5, column + 0.5]]
    assert arrays["tracks"].shape == (1, 4, 2) and arrays["tracks"][0, 3].tolist() == [column + 0.5, row + 0.5]
    assert arrays["visibles"].tolist() == [[True] * 4]


def test_tapvid_has_shares_of_the_frame_and_what_is_occluded():
    """tapnet's README: normalised, (0, 0) is the corner of the first pixel and (1, 1) that of the last; point, time,
    x/y; the flag is true where the point is hidden."""
    H, W = SIZE
    arrays = {"points": [[[0, 0], [1, 1], [0.5, 0.5]]], "occluded": [[True, False, False]]}
    found = from_arrays(arrays, size=SIZE)
    np.testing.assert_allclose(found.tracks[:, 0], [[-0.5, -0.5], [W - 0.5, H - 0.5], [(W - 1) / 2, (H - 1) / 2]])
    assert found.visibility[:, 0].tolist() == [False, True, True]
    np.testing.assert_allclose(found.queries, [[1, W - 0.5, H - 0.5]])  # where it is first seen
    with_video = from_arrays(arrays | {"video": np.zeros((3, *SIZE, 3), np.uint8)})
    np.testing.assert_array_equal(with_video.tracks, found.tracks)


@given(seeds)
def test_tapvids_reader_and_the_import_agree(seed):
    from flowlib.dataset.benchmarks import _tapvid_clip

    rng = np.random.default_rng(seed)
    seen = rng.random((3, 5)) > 0.5
    seen[:, 0] |= ~seen.any(axis=1)  # what is never seen the benchmark leaves out
    entry = {"points": rng.random((3, 5, 2)), "occluded": ~seen, "video": np.zeros((5, *SIZE, 3), np.uint8)}
    expected, found = _tapvid_clip("clip", entry, None, "first").truth, from_arrays(entry)
    np.testing.assert_allclose(found.tracks, expected.tracks, atol=1e-5)
    np.testing.assert_allclose(found.queries, expected.queries, atol=1e-5)
    np.testing.assert_array_equal(found.visibility, expected.visibility)


def test_cotracker_asks_for_time_x_y_and_counts_from_pixel_centres():
    """CoTracker's quick start: queries are (t, x, y) in pixels; its predictor scales by (W - 1), so the whole number is
    the centre of a pixel. Tracks are [B T N 2], visibility [B T N]."""
    arrays = {
        "pred_tracks": torch.tensor([[[[400.0, 350.0], [600.0, 500.0]]] * 12]),
        "pred_visibility": torch.ones(1, 12, 2, dtype=torch.bool),
        "queries": torch.tensor([[[0.0, 400.0, 350.0], [10.0, 600.0, 500.0]]]),
    }
    found = from_arrays(arrays)
    assert found.queries.tolist() == [[0, 400, 350], [10, 600, 500]]
    assert found.tracks[11].tolist() == [[400, 350], [600, 500]]
    back = to_arrays(found, "cotracker")
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    older = arrays | {"pred_visibility": torch.ones(1, 12, 2, 1)}
    np.testing.assert_array_equal(from_arrays(older).visibility, found.visibility)


def test_pips_has_its_points_in_frame_0_and_counts_from_pixel_centres():
    arrays = {"trajs_e": np.full((1, 8, 1, 2), 3.0), "vis_e": np.full((1, 8, 1), 0.7), "xys": np.array([[[3.0, 3.0]]])}
    found = from_arrays(arrays)
    assert found.queries.tolist() == [[0, 3, 3]] and found.tracks[7].tolist() == [[3, 3]] and found.visibility.all()
    assert not from_arrays(arrays | {"vis_e": np.full((1, 8, 1), 0.5)}).visibility.any()
    assert to_arrays(found, "pips")["xys"].shape == (1, 1, 2)


@given(seeds)
def test_all_conventions_tell_of_the_same_places(seed):
    tracks = random_tracks(seed, later=False)
    shares = to_arrays(tracks, "tapvid", size=SIZE)["points"]
    corner, centre = to_arrays(tracks, "tapnet")["tracks"], to_arrays(tracks, "cotracker")["pred_tracks"][0]
    np.testing.assert_allclose(shares * [SIZE[1], SIZE[0]], corner, rtol=1e-12)
    np.testing.assert_array_equal(corner.swapaxes(0, 1), centre.astype(np.float64) + 0.5)
    np.testing.assert_array_equal(shares.swapaxes(0, 1), to_shares(tracks.tracks.astype(np.float64), SIZE))


def test_a_hidden_place_that_nobody_knows_becomes_the_querys():
    points = np.array([[[np.nan, np.nan], [0.5, 0.5]]])
    found = from_arrays({"points": points, "occluded": [[True, False]]}, size=(4, 4))
    np.testing.assert_array_equal(found.tracks[:, 0], [[1.5, 1.5], [1.5, 1.5]])


RIGHT = {"tracks": np.zeros((4, 1, 2)), "visibility": np.ones((4, 1), bool), "queries": np.zeros((1, 3))}


@pytest.mark.parametrize(
    "change, options, message",
    [
        ({}, {"convention": "tapir"}, "convention: expected one of flowlib, cotracker, .*, got 'tapir'"),
        ({}, {"convention": "tapnet"}, "tapnet: expected visibles, got queries, tracks, visibility"),
        ({"points": 0, "occluded": 0}, {}, "expected the arrays of a known convention .*, got occluded, points"),
        ({"tracks": np.zeros((4, 2))}, {}, r"tracks: expected numbers of shape \[any any 2\], got float64 \[4, 2\]"),
        ({"visibility": np.ones((4, 2))}, {}, r"visibility: expected numbers of shape \[4 1\], got float64 \[4, 2\]"),
        ({"visibility": np.full((4, 1), 3.0)}, {}, "visibility: expected booleans, or numbers from 0 to 1, got 3 to 3"),
        ({"visibility": np.full((4, 1), np.nan)}, {}, "visibility: expected booleans"),
        ({"queries": np.zeros((1, 2))}, {}, r"queries: expected numbers of shape \[any 3\]"),
        ({"queries": np.array([[4.0, 0, 0]])}, {}, "frame from 0 to 3"),
        ({"tracks": np.full((4, 1, 2), np.nan)}, {}, "tracks: expected finite"),
        ({"tracks": np.full((4, 1, 2), "a")}, {}, "tracks: expected numbers of shape"),
        ({"confidence": np.full((4, 1), 2.0)}, {}, "confidence: expected numbers from 0 to 1"),
        ({"tracks": np.zeros((0, 1, 2)), "visibility": np.ones((0, 1))}, {}, "at least one frame"),
    ],
)
def test_what_is_no_such_convention_is_refused(change, options, message, refuses):
    with refuses(message):
        from_arrays(RIGHT | change, **options)


def test_what_a_convention_cannot_hold_is_refused(refuses):
    tracks = replace(from_arrays(RIGHT), queries=np.array([[2.0, 0, 0]]))
    with refuses("pips: expected points that are asked for in frame 0, got 1 in later ones"):
        to_arrays(tracks, "pips")
    with refuses("size: expected the frames' .height, width., for tapvid has shares of them, got none"):
        to_arrays(tracks, "tapvid")
    with refuses("size: expected"):
        from_arrays({"points": [[[0, 0]]], "occluded": [[False]]})
