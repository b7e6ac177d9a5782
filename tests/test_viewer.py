"""The viewer without a browser: its door, what it packs, its traits, and its pictures, pages and films."""

import base64
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from fixtures.viewer_example import predicted
from hypothesis import given
from hypothesis import strategies as st

from flowlib.colours import NEVER, OUTSIDE
from flowlib.geometry import cell_grid, pixel_grid
from flowlib.tracks import Tracks
from flowlib.video import decode_image, iterate_frames
from flowlib.viewer import TrajectoryViewer, ViewedClip
from flowlib.viewer.packing import as_tracks, fixed_step, pack_tracks, sample_bilinear
from flowlib.viewer.paper import Paper
from flowlib.viewer.scene import GOLDEN, ViewerScene, ViewerSet, future_opacities, shown_points
from flowlib.viewer.trajectories import _pack_confidence, _pack_radii

SIZE = (36, 64)


def clip(S: int = 4, size=SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (S, *size, 3), np.uint8)


def straight(velocity=(2.0, 1.0), S: int = 4, size=SIZE, rows: int = 4, columns: int = 6) -> Tracks:
    """A grid of points that all move alike and are hidden in the last frame."""
    xy = cell_grid(size, rows, columns)
    tracks = xy + np.arange(S)[:, None, None] * np.array(velocity, np.float32)
    visibility = np.ones(tracks.shape[:2], bool)
    visibility[-1] = S == 1
    return Tracks(tracks, visibility, np.c_[np.zeros(len(xy)), xy])


def unpack(data: bytes, S: int, N: int, size, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `TrackSet` in viewer.js does: (tracks, visibility, queries)."""
    raw, rows = np.frombuffer(zlib.decompress(data), np.uint8), 3 + 2 * S
    low, high, bits = raw[: rows * N], raw[rows * N : 2 * rows * N], raw[2 * rows * N :]
    told = (low.astype(np.uint16) | (high.astype(np.uint16) << 8)).reshape(rows, N)
    fixed = np.cumsum(told, axis=1, dtype=np.uint16)
    for row in range(3, rows):
        fixed[row] += fixed[row - 2]
    fixed = fixed.view(np.int16)
    xy = fixed[1:].reshape(S + 1, 2, N).transpose(0, 2, 1) * step + np.array([size[1] / 2, size[0] / 2])
    visibility = np.unpackbits(bits, count=S * N, bitorder="little").reshape(S, N).astype(bool)
    return xy[1:], visibility, np.c_[fixed[0], xy[0]]


# ---- Packing


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 7), st.sampled_from([1.0, 200.0, 1500.0]))
def test_packed_tracks_come_back_to_half_a_step(seed, S, N, spread):
    rng = np.random.default_rng(seed)
    t = rng.integers(0, S, N)
    xy = rng.normal(0, spread, (S, N, 2)).clip(-1500, 2100)  # within reach
    tracks = Tracks(xy, rng.random((S, N)) > 0.4, np.c_[t, xy[t, np.arange(N)]])
    size = (480, 640)
    step = fixed_step([tracks], size)
    back, visibility, queries = unpack(pack_tracks(tracks, size, step), S, N, size, step)
    np.testing.assert_allclose(back, tracks.tracks, atol=step / 2 + 1e-6)
    np.testing.assert_allclose(queries, tracks.queries, atol=step / 2 + 1e-6)
    np.testing.assert_array_equal(visibility, tracks.visibility)


def test_the_step_is_a_64th_of_a_pixel_until_a_point_strays():
    assert fixed_step([straight()], SIZE) == 1 / 64
    far = Tracks(np.full((1, 1, 2), 1100.0), np.ones((1, 1), bool), np.array([[0, 1.0, 1.0]]))
    assert fixed_step([far], (480, 640)) == 1 / 32


def test_positions_out_of_reach_are_drawn_at_its_edge_and_said():
    lost = Tracks(np.full((1, 1, 2), 1e9), np.ones((1, 1), bool), np.array([[0, 1.0, 1.0]]))
    step = fixed_step([lost], SIZE)
    with pytest.warns(UserWarning, match="1 positions lie over 192 px"):
        data = pack_tracks(lost, SIZE, step)
    np.testing.assert_allclose(unpack(data, 1, 1, SIZE, step)[0][0, 0], [32 + 192, 18 + 192])


def test_a_page_of_a_hundred_by_a_hundred_points_stays_light(tmp_path):
    size = (360, 640)
    y, x = np.mgrid[: size[0], : size[1]]
    frames = np.stack([127 + 90 * np.sin((x + 3 * s) / 17 + c) * np.cos(y / 23) for s in range(8) for c in range(3)])
    frames = frames.reshape(8, 3, *size).transpose(0, 2, 3, 1) + np.random.default_rng(0).normal(0, 6, (8, *size, 3))
    truth = straight(S=8, size=size, rows=100, columns=100)
    noisy = truth.tracks + np.random.default_rng(1).normal(0, 0.5, truth.tracks.shape).cumsum(axis=0)
    prediction = Tracks(noisy.astype(np.float32), truth.visibility, truth.queries)
    path = TrajectoryViewer(frames.clip(0, 255).astype(np.uint8), truth, prediction).to_html(tmp_path / "page.html")
    assert path.stat().st_size < 1.5e6


def test_of_a_dense_clip_every_few_pixels_are_shown():
    size = (150, 250)
    queries = np.insert(pixel_grid(size).reshape(-1, 2), 0, 0, axis=1)
    truth = Tracks(queries[None, :, 1:] + np.zeros((2, 1, 1)), np.ones((2, len(queries)), bool), queries)
    sure = np.stack([queries[:, 1], queries[:, 2]]) / 250
    futures = np.stack([truth.tracks, truth.tracks + 1])
    viewer = TrajectoryViewer(
        clip(2, size), truth, {"still": np.zeros((2, 2, *size))}, confidence={"still": sure}, futures={"still": futures}
    )
    (shown, predicted), x = viewer._scene.sets, np.arange(0, 250, 3)
    assert viewer.num_points == len(x) * 50 <= 100**2 and np.unique(shown.tracks.queries[:, 1]).tolist() == x.tolist()
    np.testing.assert_array_equal(predicted.tracks.queries, shown.tracks.queries)
    np.testing.assert_allclose(predicted.tracks.confidence * 250, shown.tracks.queries[:, 1:].T, rtol=1e-5)
    np.testing.assert_array_equal(predicted.futures[1].tracks, shown.tracks.tracks + 1)


# ---- The door


def test_a_dense_trajectory_is_read_at_the_queries():
    flow = np.zeros((4, 2, *SIZE), np.float32)
    flow[:, 0] = np.arange(SIZE[1]) * np.arange(4)[:, None, None] / 10  # grows with x and with time
    truth = straight()
    dense = as_tracks(flow, SIZE, 4, "prediction", truth.queries)
    expected = truth.queries[None, :, 1] * np.arange(4)[:, None] / 10
    np.testing.assert_allclose(dense.displacement[..., 0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(dense.displacement[..., 1], 0)


def test_a_prediction_object_brings_its_visibility():
    torch = pytest.importorskip("torch")
    from flowlib.models import TrajectoryPrediction

    logits = torch.full((1, 4, *SIZE), 3.0)
    logits[:, 2:] = -3.0
    field = torch.zeros(1, 4, 2, *SIZE, requires_grad=True)
    dense = as_tracks(TrajectoryPrediction(field, logits, (0, 1, 2, 3)), SIZE, 4, "prediction", straight().queries)
    assert dense.visibility[:2].all() and not dense.visibility[2:].any()


def test_a_dense_trajectory_alone_is_shown_at_a_grid():
    tracks = as_tracks(np.ones((2, 2, 90, 200), np.float32), (90, 200), 2, "tracks")
    assert tracks.num_points == 100 * 45
    np.testing.assert_allclose(tracks.displacement, 1, atol=1e-5)


def test_bilinear_reading_is_exact_on_a_plane_and_holds_the_border():
    plane = (np.arange(5)[None, :] + 10 * np.arange(4)[:, None])[None].astype(float)
    xy = np.array([[1.25, 2.5], [-3.0, 0.0], [9.0, 9.0]])
    np.testing.assert_allclose(sample_bilinear(plane, xy)[0], [26.25, 0.0, 34.0])


BAD = [
    ({"frames": np.zeros((4, 36, 64), np.uint8)}, r"frames: expected shape \[S H W 3\], got \[4, 36, 64\]"),
    ({"frames": np.zeros((4, 36, 64, 3))}, "frames: expected uint8 .* got float64"),
    ({"frames": np.zeros((4, 36, 64, 1), np.uint8)}, r"frames: expected uint8 \[H W 3\] each"),
    ({"frames": []}, "frames: expected at least one frame"),
    ({"frames": [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]}, r"one size \(4, 4\), got \(5, 4\)"),
    ({"frames": "clip.mp4"}, "frames: expected shape .* got str"),
    ({"frames": clip(3)}, "tracks: expected 3 frames to go with the clip, got 4"),
    ({"tracks": np.zeros((4, 24, 2))}, r"tracks: expected Tracks or a dense trajectory \[S 2 H W\], got float64"),
    ({"tracks": None}, "tracks: expected Tracks or a dense trajectory .* got NoneType"),
    ({"prediction": np.zeros((4, 2, 18, 32))}, r"prediction: .* shape \[4, 2, 36, 64\], got \[4, 2, 18, 32\]"),
    ({"prediction": np.full((4, 2, *SIZE), np.nan)}, "prediction: expected finite"),
    ({"prediction": straight(rows=2)}, "prediction: expected 24 points to go with the tracks, got 12"),
    ({"prediction": straight(S=5)}, "prediction: expected 4 frames"),
    ({"rebuilt": clip(3)}, "rebuilt: expected 4 frames"),
    ({"quality": 0}, "quality: expected 1 to 100"),
    ({"fps": 0}, "fps: expected more than 0"),
    ({"names": ("one",)}, "names: expected two"),
    ({"prediction": {"a": straight(), "b": straight(S=5)}}, "b: expected 4 frames"),
    ({"prediction": {"truth": straight()}}, "predictions: expected another name than 'truth'"),
    ({"confidence": np.ones((4, 24))}, r"confidence: expected names of predictions \(none\), got 'prediction'"),
    ({"prediction": straight(), "rebuilt": {"b": clip()}}, r"rebuilt: expected names of predictions \(prediction\)"),
    (
        {"prediction": straight(), "confidence": np.ones((4, 23))},
        r"confidence: expected floats \[4, 24\] .* \[4, 23\]",
    ),
    ({"prediction": straight(), "confidence": np.full((4, 24), 1.5)}, "confidence: expected numbers from 0 to 1"),
    ({"prediction": straight(), "confidence": np.full((4, 24), np.nan)}, "confidence: expected finite numbers"),
    ({"prediction": straight(), "futures": np.ones((4, 24, 2))}, r"futures: expected samples \['K', 4, 24, 2\]"),
    ({"prediction": straight(), "futures": (np.ones((2, 4, 24, 2)), [1.0])}, "futures: expected 2 weights"),
    ({"prediction": straight(), "futures": (np.ones((2, 4, 24, 2)), [1.0, -1.0])}, "futures: expected 2 weights"),
    ({"prediction": straight(), "regions": np.ones((4, 23))}, r"regions: expected radii .* \[4, 24\], got \[4, 23\]"),
    ({"prediction": straight(), "regions": -np.ones((4, 24))}, "regions: expected radii of 0 pixels or more"),
    ({"regions": np.ones((4, 24))}, r"regions: expected names of predictions \(none\), got 'prediction'"),
    ({"colour": "region"}, "colour: 'region' needs the argument regions"),
    ({"colour": "confidence"}, "colour: 'confidence' needs the argument confidence"),
    ({"opacity": "confidence"}, "opacity: 'confidence' needs the argument confidence"),
    ({"future": "all"}, "future: 'all' needs the argument futures"),
    ({"shown": [1]}, "shown: expected sets from 0 to 0"),
    ({"shown": []}, "shown: expected at least one"),
    ({"clip": 1}, "clip: expected 0 to 0, got 1"),
    ({"frame": 4}, "frame: expected 0 to 3, got 4"),
    ({"colour": "red"}, "colour: expected one of position, .* got 'red'"),
    ({"colour": "error"}, "colour: 'error' needs the argument prediction"),
    ({"background": "difference"}, "background: 'difference' needs the argument rebuilt"),
    ({"density": 1.5}, "density: expected 0 to 1"),
    ({"selected": [24]}, "selected: expected points from 0 to 23"),
    ({"selected": [0.5]}, "selected: expected point numbers"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_refused_with_its_name(change, message, refuses):
    with refuses(message):
        TrajectoryViewer(**({"frames": clip(), "tracks": straight()} | change))


def test_a_dense_prediction_of_points_that_start_later_is_refused(refuses):
    late = Tracks(np.zeros((4, 1, 2)), np.ones((4, 1), bool), np.array([[2, 0.0, 0.0]]))
    with refuses("prediction: a dense trajectory starts in frame 0, but 1 of the tracks' queries start later"):
        TrajectoryViewer(clip(), late, np.zeros((4, 2, *SIZE)))


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="unknown settings: color"):
        TrajectoryViewer(clip(), straight(), color="error")


@pytest.mark.parametrize("S, N", [(1, 24), (4, 0), (1, 0)])
def test_one_frame_and_no_points_can_be_looked_at(S, N, tmp_path):
    tracks = straight(S=S).points(slice(0, N))
    viewer = TrajectoryViewer(clip(S), tracks, tracks, compare="errors")
    assert decode_image(bytes(viewer.snapshot())).shape[2] == 3
    assert viewer.to_html(tmp_path / "page.html").exists()


def test_frames_may_come_one_by_one():
    whole, single = TrajectoryViewer(clip(), straight()), TrajectoryViewer(iter(clip()), straight())
    assert whole._frames == single._frames and repr(single) == "TrajectoryViewer(4 frames of 36x64, 24 points)"


# ---- Several clips and predictors


def test_clips_may_differ_in_all_but_their_predictors(refuses):
    other = ViewedClip(
        clip(3, (20, 30)), straight(S=3, size=(20, 30), rows=2), {"a": straight(S=3, size=(20, 30), rows=2)}
    )
    one = ViewedClip(clip(), straight(), {"a": straight((1.0, 1.0))}, title="first")
    viewer = TrajectoryViewer.of([one, other], truth="labels", title="two", clip=1, frame=2, selected=[11])
    assert repr(viewer) == "TrajectoryViewer(clip 1 of 2, 3 frames of 20x30, 12 points, two sets)"
    assert viewer._scene.names == ("labels", "a") and viewer._header["clips"][0]["title"] == "first"
    viewer.clip = 0
    viewer.selected, viewer.frame = [23], 3
    viewer.clip = 1
    assert (viewer.selected, viewer.frame) == ([], 2), "point 23 and frame 3 are not in the second clip"
    with refuses("clip 1, predictions: expected a as of the first clip, got b"):
        TrajectoryViewer.of([one, ViewedClip(clip(), straight(), {"b": straight()})])
    with refuses("clips: expected at least one"):
        TrajectoryViewer.of([])
    with refuses("clip 1, frames: expected uint8"):
        TrajectoryViewer.of([one, ViewedClip(clip().astype(float), straight(), {"a": straight()})])


def test_any_number_of_sets_has_a_panel_each():
    viewer = TrajectoryViewer.of([predicted()], shown=[0, 1, 2, 3])
    scene = viewer._scene
    assert scene.panels("side by side", (0, 1, 2, 3)) == [(0,), (1,), (2,), (3,)]
    assert scene.panels("errors", (0, 2, 3)) == [(0, 2), (0, 3)]
    assert scene.panels("overlay", (1, 3)) == [(1, 3)] and scene.panels("prediction", (0, 3)) == [(3,)]
    assert scene.panels("truth", (1, 2)) == scene.panels("side by side", (0,)) == [(0,)]
    heights = [picture_of(viewer, shown=shown).shape[0] for shown in ([0], [0, 1], [0, 1, 2, 3])]
    assert heights[0] > heights[1] > heights[2], "they share the page's width"


def test_a_rebuilt_frame_is_never_shown_below_the_labels():
    scene = TrajectoryViewer.of([predicted()])._scene
    for name, model in (("rebuilt", 250), ("difference", 255)):
        assert abs(int(scene.background(name, 3, (0,)).mean()) - 90) <= 2, "the labels keep the true frame"
        assert abs(int(scene.background(name, 3, (2,)).mean()) - 90) <= 2, "zero rebuilds nothing"
        assert abs(int(scene.background(name, 3, (1,)).mean()) - model) <= 2
        assert abs(int(scene.background(name, 3, (0, 1)).mean()) - model) <= 2
    alone = TrajectoryViewer(clip(), straight(), rebuilt=clip(seed=1), background="rebuilt")
    assert np.abs(alone._scene.background("rebuilt", 0, (0,)).astype(int) - clip(seed=1)[0]).mean() < 60


def test_futures_are_samples_with_shares_and_one_may_stand_for_the_prediction():
    scene = TrajectoryViewer.of([predicted()])._scene
    np.testing.assert_allclose(scene.sets[1].weights, [0.5, 0.4, 0.1])
    np.testing.assert_allclose(scene.sampled(0).quantity("error", 1, 7), 0, atol=1e-5)
    np.testing.assert_allclose(scene.sampled(1).quantity("error", 1, 7), 10, rtol=1e-5)
    np.testing.assert_allclose(scene.sampled(3).quantity("error", 1, 7), 0, atol=1e-5)  # in a circle
    assert scene.sampled(1).sets[2] is scene.sets[2], "zero has none"
    np.testing.assert_allclose(future_opacities(scene.sets[1].weights, True), [1, 0.81, 0.24])
    assert len(set(future_opacities(scene.sets[1].weights, False))) == 1


@given(st.integers(1, 4), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_packed_confidence_comes_back(S, N, seed):
    values = np.random.default_rng(seed).random((S, N)).astype(np.float32)
    back = np.frombuffer(zlib.decompress(_pack_confidence(values)), np.uint8).reshape(S, N) / 255
    np.testing.assert_allclose(back, values, atol=0.5 / 255 + 1e-6)


def test_error_vectors_of_hidden_points_are_faint():
    one = Tracks(np.full((1, 1, 2), 10.0), np.ones((1, 1), bool), np.array([[0, 10.0, 10.0]]))
    gone = Tracks(one.tracks, ~one.visibility, one.queries)
    away = Tracks(one.tracks + [40, 0], one.visibility, one.queries)
    settings = {"compare": "errors", "background": "none", "point_size": 20.0}
    middles = []
    for truth in (one, gone):
        picture = picture_of(TrajectoryViewer(np.zeros((1, *SIZE, 3), np.uint8), truth, away, **settings))
        x, y = 8 + 384 * 30.5 / 64, 8 + 216 * 10.5 / 36  # halfway between
        middles.append(picture[int(y), int(x)].max())
    assert middles[0] > 200 and 24 + 20 < middles[1] < 130, middles  # 24: the plain ground


def test_selected_points_show_their_whole_path():
    blank = np.zeros((4, *SIZE, 3), np.uint8)
    viewer = TrajectoryViewer(blank, straight((6.0, 0.0)), selected=[0], frame=0, background="none", trail=0)
    x, y = straight().queries[0, 1:]
    ahead = (
        slice(int(8 + (y + 0.5) * 6) - 3, int(8 + (y + 0.5) * 6) + 4),
        slice(int(8 + (x + 9) * 6), int(8 + (x + 16) * 6)),
    )
    with_path = picture_of(viewer)[ahead].max()
    assert with_path - picture_of(viewer, path=False)[ahead].max() > 60


# ---- Traits


def test_what_is_selected_can_be_set_as_numbers_or_as_a_mask():
    viewer = TrajectoryViewer(clip(), straight(), selected=[5, 2, 5])
    assert viewer.selected == [2, 5]
    viewer.selected = np.arange(24) > 21
    assert viewer.selected == [22, 23]
    viewer.selected = np.array([3])
    assert viewer.selected == [3]
    viewer.selected = []
    assert viewer.selected == []


def test_traits_are_watched_like_any_other():
    viewer, heard = TrajectoryViewer(clip(), straight()), []
    viewer.observe(lambda change: heard.append(change["new"]), "frame")
    viewer.frame = 3
    assert heard == [3]


# ---- The numbers behind the colours


def test_quantities_of_a_steady_motion():
    sets = tuple(ViewerSet(straight(velocity)) for velocity in ((3.0, 4.0), (3.0, 0.0)))
    scene = ViewerScene(TrajectoryViewer(clip(), straight())._scene.frames, sets)
    np.testing.assert_allclose(scene.quantity("displacement", 0, 2), 10, rtol=1e-5)
    for frame in range(4):
        np.testing.assert_allclose(scene.quantity("speed", 0, frame), 5, rtol=1e-5)
        np.testing.assert_allclose(scene.quantity("error", 1, frame), 4 * frame, rtol=1e-5)
    np.testing.assert_array_equal(scene.first_occlusion(0), 3)
    assert scene.limits == {"displacement": 15.0, "speed": 5.0, "error": 15.0, "confidence": 1.0}


def test_what_is_hidden_before_its_query_is_no_occlusion():
    visibility = np.array([[False, True], [True, True], [True, False]])
    tracks = Tracks(np.zeros((3, 2, 2)), visibility, np.array([[1, 0.0, 0.0], [0, 0.0, 0.0]]))
    scene = ViewerScene(TrajectoryViewer(clip(), straight())._scene.frames, (ViewerSet(tracks),))
    assert scene.first_occlusion(0).tolist() == [3, 2]  # 3 = never


@given(st.integers(1, 5000), st.floats(0, 1))
def test_density_keeps_its_share_and_grows_by_adding(count, density):
    kept = shown_points(count, density)
    assert abs(kept.sum() - count * density) <= 4 + 0.01 * count
    assert (kept <= shown_points(count, min(1.0, density + 0.1))).all()
    assert shown_points(count, 1.0).all() and 0 < GOLDEN < 1


# ---- Pictures, pages, films


def picture_of(viewer: TrajectoryViewer, **settings) -> np.ndarray:
    for name, value in settings.items():
        setattr(viewer, name, value)
    data = viewer.snapshot(width=400)
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and data._repr_png_() == bytes(data)
    return decode_image(bytes(data)).astype(int)


def test_every_setting_changes_the_picture():
    viewer = TrajectoryViewer(clip(), straight(), straight((1.0, 2.0)), rebuilt=clip(seed=1), frame=3)
    before = picture_of(viewer)
    steps = [
        {"colour": "displacement"}, {"colour": "direction"}, {"colour": "speed"}, {"colour": "error"},
        {"colour": "occlusion"}, {"compare": "overlay"}, {"compare": "errors"}, {"compare": "truth"},
        {"compare": "prediction"}, {"background": "first frame"}, {"background": "rebuilt"},
        {"background": "difference"}, {"background": "none"},
        {"hidden": "off"}, {"hidden": "hollow", "point_size": 9}, {"density": 0.4},
        {"trail": 1}, {"selected": [0, 7]}, {"path": False}, {"frame": 1},
    ]  # fmt: skip
    for step in steps:
        after = picture_of(viewer, **step)
        assert after.shape != before.shape or np.abs(after - before).max() > 40, f"{step} changed nothing"
        before = after


def test_futures_and_confidence_change_the_picture():
    viewer = TrajectoryViewer.of([predicted()], frame=7)
    before = picture_of(viewer)
    steps = [
        {"future": "all"}, {"future": "weighted"}, {"future": "one"}, {"sample": 1}, {"opacity": "confidence"},
        {"colour": "confidence"}, {"shown": [0, 1, 3]}, {"compare": "overlay"},
    ]  # fmt: skip
    for step in steps:
        after = picture_of(viewer, **step)
        assert after.shape != before.shape or np.abs(after - before).max() > 40, f"{step} changed nothing"
        before = after


def with_regions(size: float = 3.0) -> TrajectoryViewer:
    """The prediction is off by 2 px in x from frame 2 on; a region of `size` px in each later frame around it."""
    truth = straight()
    off = np.zeros_like(truth.tracks)
    off[2:, :, 0] = 2.0
    radii = np.full(truth.visibility.shape, size, np.float32)
    prediction = Tracks(truth.tracks + off, truth.visibility, truth.queries)
    return TrajectoryViewer(clip(), truth, prediction, regions=radii, frame=3)


def test_where_the_truth_left_its_region_is_coloured():
    inside, outside = with_regions(3.0)._scene, with_regions(1.0)._scene
    assert not inside.outside(1, 3).any() and not outside.outside(1, 1).any()
    assert outside.outside(1, 3).tolist() == outside.truth.visibility[3].tolist() == outside.outside(0, 3).tolist()
    for scene, colour in ((inside, NEVER), (outside, OUTSIDE)):
        seen = scene.colours("region", 1, 3, scene.limits)[scene.truth.visibility[3]]
        assert (seen == np.array(colour)).all()


def test_without_regions_no_point_is_called_inside_of_one(monkeypatch):
    """A sampled future has no regions, nor have the labels alone."""
    told = []
    text = Paper.text

    def listen(self, x, y, said, **more):
        told.append(said)
        return text(self, x, y, said, **more)

    monkeypatch.setattr(Paper, "text", listen)
    truth = straight()
    radii, ways = np.ones(truth.visibility.shape, np.float32), truth.tracks[None].repeat(2, axis=0)
    viewer = TrajectoryViewer(clip(), truth, truth, regions=radii, futures=ways, colour="region", compare="prediction")
    for future, expected in (("off", "outside"), ("one", "no regions are known of what is shown")):
        told.clear()
        picture_of(viewer, future=future)
        assert expected in told and ("outside" in told) == (future == "off")


def test_regions_are_drawn_around_selected_points():
    viewer = with_regions()
    before = picture_of(viewer)
    for step in ({"selected": [0, 5]}, {"colour": "region"}):
        after = picture_of(viewer, **step)
        assert np.abs(after - before).max() > 40, f"{step} changed nothing"
        before = after
    small, large = (picture_of(with_regions(size), selected=[5], path=False) for size in (1.0, 6.0))
    assert np.abs(small - large).max() > 40


@given(st.integers(1, 4), st.integers(0, 5), st.floats(0, 4000))
def test_packed_radii_come_back(S, N, most):
    values = np.linspace(0, most, S * N, dtype=np.float32).reshape(S, N)
    back = np.frombuffer(zlib.decompress(_pack_radii(values)), "<u2").reshape(S, N) / 16
    np.testing.assert_allclose(back, values, atol=1 / 32 + 1e-3)


def test_a_point_is_drawn_where_it_is():
    frames = np.zeros((1, *SIZE, 3), np.uint8)
    one = Tracks(np.array([[[48.0, 9.0]]]), np.ones((1, 1), bool), np.array([[0, 48.0, 9.0]]))
    picture = picture_of(TrajectoryViewer(frames, one, point_size=20))
    panel = picture[8 : 8 + 216, 8 : 8 + 384].sum(axis=2)  # 384 pixels for 64, below and right of a gap of 8
    y, x = np.nonzero(panel > 200)
    np.testing.assert_allclose([x.mean(), y.mean()], [(48 + 0.5) * 6, (9 + 0.5) * 6], atol=1.5)


def test_a_frame_that_is_not_there_has_no_snapshot(refuses):
    with refuses("frame: expected 0 to 3, got 9"):
        TrajectoryViewer(clip(), straight()).snapshot(9)


@pytest.mark.parametrize("name", ["film.mp4", "film.gif"])
def test_a_film_has_all_frames_and_shows_its_progress(name, tmp_path, capfd):
    path = TrajectoryViewer(clip(), straight(), straight()).to_video(tmp_path / name, width=320)
    frames = list(iterate_frames(path))
    assert len(frames) == 4 and frames[0].shape == frames[3].shape
    assert abs(frames[3].astype(int) - frames[0]).max() > 60
    assert name in "".join(capfd.readouterr())


def test_a_film_of_an_unknown_kind_is_refused_and_leaves_nothing(tmp_path, refuses):
    with refuses(r"film\.doc"):
        TrajectoryViewer(clip(), straight()).to_video(tmp_path / "film.doc", progress=False)
    assert list(tmp_path.iterdir()) == []


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & $x$"


def test_a_page_keeps_names_as_text_and_asks_for_nothing(tmp_path):
    viewer = TrajectoryViewer(clip(), straight(), straight(), title=HOSTILE, names=(HOSTILE, "b"))
    text = viewer.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and "<img" not in text and "alert(2)" in text
    assert "default-src 'none'".replace("'", "&#x27;") in text
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a name of the SVG standard is all that looks like an address"
    state = json.loads(re.search(r'id="state">(.*?)</script>', text, re.S)[1])
    assert state["_header"]["title"] == HOSTILE
    assert base64.b64decode(state["_tracks"]["base64"]) == viewer._tracks
    assert viewer.snapshot()  # matplotlib does not take the dollars for mathematics


def test_the_page_is_as_the_viewer_was_set(tmp_path):
    viewer = TrajectoryViewer(clip(), straight(), straight(), frame=2, selected=[3], compare="overlay", theme="dark")
    text = viewer.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    state = json.loads(re.search(r'id="state">(.*?)</script>', text, re.S)[1])
    assert (state["frame"], state["selected"], state["compare"], state["theme"]) == (2, [3], "overlay", "dark")


def test_a_notebook_gets_a_picture_and_the_widget(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle))
    viewer = TrajectoryViewer(clip(), straight(), title=HOSTILE)
    viewer._ipython_display_()
    picture, widget = shown
    png = base64.b64decode(re.search(r"base64,([^\"]+)", picture["text/html"])[1])
    assert png.startswith(b"\x89PNG") and picture["text/html"].count(viewer._header["snapshot"]) == 3
    assert "<script" not in picture["text/html"]
    assert widget["application/vnd.jupyter.widget-view+json"]["model_id"] == viewer.model_id


def test_the_viewer_needs_no_torch_and_loads_matplotlib_only_to_draw():
    code = """
import sys
sys.modules["torch"] = None  # any import of it raises
import numpy as np
from flowlib.tracks import Tracks
from flowlib.viewer import TrajectoryViewer, ViewedClip
viewer = TrajectoryViewer(np.zeros((2, 20, 30, 3), np.uint8), Tracks.still(np.array([[0, 3.0, 4.0]]), 2))
assert "matplotlib" not in sys.modules
assert viewer.snapshot().startswith(b"\\x89PNG")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert result.returncode == 0, result.stderr
