"""Metrics against the benchmark authors' outputs, against cases worked out by hand, and against bad input."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowlib import metrics
from flowlib.geometry import pixel_grid
from flowlib.tracks import Tracks

ALL_SEEN = np.ones((3, 2), bool)


def walk(*steps: float) -> np.ndarray:
    """Two points that walk to the right, at x = `steps` in each frame: [S 2 2]."""
    return np.stack([np.stack([np.array(steps), np.zeros(len(steps))], axis=-1)] * 2, axis=1)


def test_tapvid_equals_the_authors_outputs(shared):
    with np.load(shared / "conformance" / "tapvid_metrics.npz", allow_pickle=False) as stored:
        data = dict(stored)
    cases = sorted({name.split("/")[0] for name in data})
    compared = 0
    for case in cases:
        for video in range(len(data[f"{case}/gt_tracks"])):
            t, y, x = np.moveaxis(data[f"{case}/query_points"][video], -1, 0)
            true, predicted = (
                Tracks(
                    np.swapaxes(data[f"{case}/{who}_tracks"][video], 0, 1),
                    ~data[f"{case}/{who}_occluded"][video].T,
                    np.stack([t, x, y], axis=-1),
                )
                for who in ("gt", "pred")
            )
            mode = str(data[f"{case}/query_mode"])
            ours, slow = metrics.tapvid_metrics(true, predicted, mode), slow_tapvid(true, predicted, mode)
            for name, value in ours.items():
                expected = data[f"{case}/expected/{name}"][video]
                np.testing.assert_allclose([value, slow[name]], expected, atol=1e-12, rtol=0)
                compared += 1
    assert compared == len(cases) * 3 * 13


def slow_tapvid(true: Tracks, predicted: Tracks, query_mode: str) -> dict[str, float]:
    """TAP-Vid's definitions, point by point and frame by frame, with nothing in common with the module's code."""
    S, N = true.visibility.shape
    frames = [
        (s, n)
        for n in range(N)
        for s in range(S)
        if (s > true.queries[n, 0] if query_mode == "first" else s != true.queries[n, 0])
    ]

    def share(count, total):
        return count / total if total else float("nan")

    agreed = sum(bool(true.visibility[f]) == bool(predicted.visibility[f]) for f in frames)
    result = {"occlusion_accuracy": share(agreed, len(frames))}
    sums = {"pts_within": [], "jaccard": []}
    for threshold in (1, 2, 4, 8, 16):
        within = hit = alarm = visible = 0
        for f in frames:
            (dx, dy), claimed = predicted.tracks[f] - true.tracks[f], predicted.visibility[f]
            near = dx * dx + dy * dy < threshold * threshold
            visible += int(true.visibility[f])
            within += int(true.visibility[f] and near)
            hit += int(true.visibility[f] and near and claimed)
            alarm += int(claimed and not (true.visibility[f] and near))
        result[f"pts_within_{threshold}"] = share(within, visible)
        result[f"jaccard_{threshold}"] = share(hit, visible + alarm)
        for name, values in sums.items():
            values.append(result[f"{name}_{threshold}"])
    result["average_pts_within_thresh"] = sum(sums["pts_within"]) / 5
    result["average_jaccard"] = sum(sums["jaccard"]) / 5
    return result


@st.composite
def tapvid_cases(draw):
    """Any small video: points never seen, all hidden, asked for in any frame, distances on the very thresholds."""
    S, N = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    seen, claimed = (draw(arrays(bool, (S, N), elements=draw(st.sampled_from(WAYS)))) for _ in range(2))
    off = st.one_of(st.sampled_from([0.0, 1, 2, 4, 8, 16, 3, 5]), st.floats(-20, 20, width=32))
    true = draw(arrays(np.float64, (S, N, 2), elements=st.floats(0, 255, width=32)))
    moved = draw(arrays(np.float64, (S, N, 2), elements=off))
    queries = np.concatenate([draw(arrays(np.int64, (N, 1), elements=st.integers(0, S - 1))), true[0]], axis=1)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    one, other = (Tracks(xy.astype(dtype), v, queries) for xy, v in ((true, seen), (true + moved, claimed)))
    return one, other, draw(st.sampled_from(["first", "strided"]))


WAYS = (st.booleans(), st.just(False), st.just(True))


@settings(max_examples=150, deadline=None)
@given(tapvid_cases())
def test_tapvid_equals_its_definition(case):
    ours, slow = metrics.tapvid_metrics(*case), slow_tapvid(*case)
    assert set(ours) == set(slow)
    for name, value in slow.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-12, rtol=0, equal_nan=True, err_msg=name)


@pytest.mark.parametrize("S, N, asked, mode", [(2, 1, 0, "first"), (2, 1, 1, "first"), (2, 1, 1, "strided")])
def test_tapvid_at_its_smallest(S, N, asked, mode):
    """Two frames of one point; asked for in the last one, "first" has no frame to measure, and all is NaN."""
    queries = np.array([[asked, 5.0, 5.0]])
    true, hidden = Tracks.still(queries, S), Tracks(np.full((S, N, 2), 5.0), np.zeros((S, N), bool), queries)
    for seen, claimed in ((true, true), (true, hidden), (hidden, true), (hidden, hidden)):
        ours, slow = metrics.tapvid_metrics(seen, claimed, mode), slow_tapvid(seen, claimed, mode)
        np.testing.assert_equal(ours, slow)
        assert np.isnan(list(ours.values())).all() == (asked == 1 and mode == "first")
    nothing = metrics.tapvid_metrics(hidden, hidden, "strided")
    assert nothing["occlusion_accuracy"] == 1 and np.isnan(nothing["average_jaccard"])  # 0 of 0, as the authors' code
    assert metrics.tapvid_metrics(hidden, true, "strided")["average_jaccard"] == 0  # false alarms only


def test_tapvid_on_random_videos_of_usual_size():
    rng = np.random.default_rng(0)
    for seed in range(4):
        S, N = 24, 30
        true = rng.uniform(0, 255, (S, N, 2))
        queries = np.concatenate([rng.integers(0, S, (N, 1)), true[0]], axis=1)
        seen = rng.random((S, N)) > 0.2 * seed
        seen[:, :3] = False
        moved = rng.normal(size=(S, N, 2)) * rng.uniform(0, 12, (1, N, 1))
        truth, near = Tracks(true, seen, queries), Tracks(true + moved, rng.random((S, N)) > 0.4, queries)
        for mode in ("first", "strided"):
            ours, slow = metrics.tapvid_metrics(truth, near, mode), slow_tapvid(truth, near, mode)
            np.testing.assert_allclose([ours[k] for k in slow], list(slow.values()), atol=1e-12, rtol=0)


def test_tapvid_by_hand():
    queries = np.array([[0, 0.0, 0], [1, 0, 0]])
    visible = np.array([[True, True], [True, True], [True, False], [False, True]])
    true = Tracks(np.zeros((4, 2, 2)), visible, queries)
    moved = np.zeros((4, 2, 2))
    moved[1, 0, 0] = 3  # frame 1 of point 0: 3 px off, the only error
    result = metrics.tapvid_metrics(true, Tracks(moved, np.ones((4, 2), bool), queries))
    assert result["occlusion_accuracy"] == 3 / 5  # frames after the query: 3 of point 0, 2 of point 1
    assert result["pts_within_2"] == 2 / 3 and result["pts_within_4"] == 1
    assert result["jaccard_2"] == 2 / (3 + 3) and result["jaccard_4"] == 3 / (3 + 2)
    strided = metrics.tapvid_metrics(true, Tracks(moved, np.ones((4, 2), bool), queries), "strided")
    assert strided["occlusion_accuracy"] == 4 / 6  # frame 0 of point 1 counts as well


def test_a_clip_without_a_visible_point_is_nan_not_zero():
    nobody = Tracks(np.zeros((3, 2, 2)), np.zeros((3, 2), bool), np.zeros((2, 3)))
    result = metrics.tapvid_metrics(nobody, nobody)
    assert np.isnan(result["average_pts_within_thresh"]) and result["occlusion_accuracy"] == 1
    errors = metrics.displacement_metrics(walk(0, 1, 2), walk(0, 1, 2), ~ALL_SEEN)
    assert np.isnan(list(errors.values())).all()


def test_displacement_metrics_by_hand():
    result = metrics.displacement_metrics(walk(0, 1, 2), walk(0, 2, 12), ALL_SEEN)
    assert result == {"ade": 5.5, "fde": 10, "miss_rate": 1, "mse": (1 + 100) / 4, "mse_last": 50}
    np.testing.assert_allclose(metrics.epe_per_frame(walk(0, 1, 2), walk(0, 2, 12), ALL_SEEN), [1, 10])
    half = ALL_SEEN.copy()
    half[2, 1] = False
    assert metrics.displacement_metrics(walk(0, 1, 2), walk(0, 2, 12), half)["ade"] == 4  # (1 + 1 + 10) / 3


@given(arrays(np.float64, (4, 5, 2), elements=st.floats(-50, 50)), arrays(bool, (4, 5)))
def test_zero_motion_has_the_mean_displacement_as_its_error(displacement, visible):
    displacement[0] = 0
    ade = metrics.displacement_metrics(displacement, np.zeros_like(displacement), visible)["ade"]
    seen = visible[1:]
    expected = np.linalg.norm(displacement[1:], axis=-1)[seen].mean() if seen.any() else np.nan
    np.testing.assert_allclose(ade, expected)


@settings(max_examples=30)
@given(arrays(np.float64, (3, 4, 5, 2), elements=st.floats(-50, 50)), arrays(bool, (4, 5)))
def test_more_samples_never_hurt_and_the_joint_form_is_never_better(samples, visible):
    true = np.zeros((4, 5, 2))
    three, one = metrics.min_ade(true, samples, visible), metrics.min_ade(true, samples[:1], visible)
    if not visible[1:].any():
        assert np.isnan(three["min_ade"]) and np.isnan(three["min_ade_joint"])
        return
    assert three["min_ade"] <= three["min_ade_joint"] + 1e-9 and three["min_ade_joint"] <= one["min_ade_joint"] + 1e-9
    np.testing.assert_allclose(one["min_ade"], one["min_ade_joint"])


def test_min_ade_picks_for_each_point_or_for_all():
    true, left = walk(0, 0, 0), walk(0, 0, 0)
    left[1:, 0, 0], right = 4, walk(0, 0, 0)
    right[1:, 1, 0] = 2
    assert metrics.min_ade(true, np.stack([left, right]), ALL_SEEN) == {"min_ade": 0, "min_ade_joint": 1}


def test_visibility():
    visible = np.array([[True, True], [True, False], [True, False]])
    logits = np.array([[0, 0], [2, -1], [-3, -2.0]])
    assert metrics.visibility_metrics(visible, logits) == {"visibility_accuracy": 0.75, "visibility_auroc": 0.5}
    assert np.isnan(metrics.visibility_metrics(ALL_SEEN, logits)["visibility_auroc"])


@given(arrays(bool, 12), arrays(np.int64, 12, elements=st.integers(-3, 3)))
def test_auroc_counts_pairs(truth, scores):
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    np.testing.assert_allclose(metrics.auroc(truth, scores), np.mean(pairs) if pairs else np.nan)


def test_field_metrics_of_a_rotation_and_a_zoom():
    x, y = np.moveaxis(pixel_grid((12, 16)).astype(float), -1, 0)
    rotation, zoom = np.stack([-y, x]) * 0.1, np.stack([x, y]) * 0.1
    half = metrics.field_metrics(rotation, rotation / 2)
    assert half["tv_ratio"] == pytest.approx(0.5) and half["curl_ratio"] == pytest.approx(0.5)
    assert np.isnan(metrics.field_metrics(rotation, zoom)["divergence_ratio"])
    mixed = metrics.field_metrics(rotation + zoom, zoom)
    assert mixed["divergence_error"] == pytest.approx(0) and mixed["curl_error"] == pytest.approx(0.2)
    lattice = np.s_[:, ::2, ::4]  # every other row, every fourth column of the same rotation
    assert metrics.field_metrics(rotation[lattice], zoom[lattice], spacing=(2, 4))["curl_error"] == pytest.approx(0.2)


def test_only_visible_places_of_a_field_are_measured():
    x, y = np.moveaxis(pixel_grid((12, 16)).astype(float), -1, 0)
    true, visible = np.stack([-y, x]) * 0.1, np.ones((12, 16), bool)
    lost = true.copy()
    lost[:, 3:6, 4:9] = 50  # where the truth is unknown
    visible[3:6, 4:9] = False
    whole, masked = metrics.field_metrics(lost, true), metrics.field_metrics(lost, true, visible)
    assert masked["roughness"] == pytest.approx(0) and masked["curl_error"] == pytest.approx(0)
    assert whole["curl_error"] > 1
    nothing = metrics.field_metrics(true, true, np.zeros((12, 16), bool))
    assert np.isnan(list(nothing.values())).all()


def test_roughness_has_ends():
    x, y = np.moveaxis(pixel_grid((12, 16)).astype(float), -1, 0)
    true = np.stack([-y, x])
    found = [metrics.field_metrics(true, true * factor)["roughness"] for factor in (0, 0.5, 1, 2, 1e9)]
    np.testing.assert_allclose(found, [-1, -1 / 3, 0, 1 / 3, 1], atol=1e-6)
    assert np.isnan(metrics.field_metrics(true * 0, true * 0)["roughness"])


def enlarged(factor: int, seed: int = 0, **way) -> np.ndarray:
    """A random coarse field, made `factor` times as large: [2 96 128]."""
    import torch

    coarse = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 2, 96 // factor, 128 // factor)) * 5)
    return torch.nn.functional.interpolate(coarse, (96, 128), **way)[0].numpy()


def test_grid_artefacts_are_a_share():
    rng = np.random.default_rng(0)
    bilinear = {"mode": "bilinear", "align_corners": False}
    assert metrics.grid_artefacts(enlarged(8, mode="nearest")) == pytest.approx(1)  # blocks of one value
    assert metrics.grid_artefacts(enlarged(8, **bilinear)) == pytest.approx(1, abs=1e-3)
    assert metrics.grid_artefacts(enlarged(4, **bilinear)) == pytest.approx(1 / 3, abs=0.05)
    assert metrics.grid_artefacts(rng.normal(size=(2, 96, 128))) < 0.05
    noisy = rng.normal(size=(2, 96, 128)) + enlarged(8, mode="nearest")
    assert 0.1 < metrics.grid_artefacts(noisy) < 0.9
    assert metrics.grid_artefacts(enlarged(8, **bilinear), period=7) < 0.2


def test_one_sharp_edge_is_no_grid():
    """Cells of another size, and objects with straight sides: piecewise constant, yet bounded and small."""
    box = np.zeros((2, 96, 128))
    box[:, 30:60, 40:81] = 7
    assert metrics.grid_artefacts(box) == 0
    cells = np.repeat(np.repeat(np.random.default_rng(1).normal(size=(2, 8, 10)), 12, axis=1), 13, axis=2)
    assert 0 <= metrics.grid_artefacts(cells) < 0.3


def test_a_field_that_never_bends_has_no_share():
    x = np.tile(np.arange(64, dtype=np.float32) * 0.3 + 100, (2, 48, 1))
    assert np.isnan(metrics.grid_artefacts(np.zeros((2, 48, 64)))) and np.isnan(metrics.grid_artefacts(x))


@settings(max_examples=40)
@given(arrays(np.float64, (20, 24), elements=st.floats(-100, 100)), st.integers(3, 8))
def test_grid_artefacts_stay_between_0_and_1(field, period):
    value = metrics.grid_artefacts(field, period)
    assert np.isnan(value) or 0 <= value <= 1 + 1e-12


def test_frame_metrics():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    left = np.zeros((32, 40), bool)
    left[:, :20] = True
    spoiled = frame.copy()
    spoiled[:, 20:] = 255 - spoiled[:, 20:]
    result = metrics.frame_metrics(frame, spoiled, {"left": left, "nothing": np.zeros_like(left)})
    assert result["psnr_left"] == np.inf and result["ssim_left"] > 0.9 > result["ssim_all"]
    squared = np.square(frame.astype(float) - spoiled).mean()
    assert result["psnr_all"] == pytest.approx(10 * np.log10(255**2 / squared), abs=1e-3)
    assert np.isnan(result["psnr_nothing"]) and np.isnan(result["ssim_nothing"]) and "lpips_all" not in result


def test_lpips_is_a_distance_that_grows(shared):
    lpips = metrics.Lpips(shared / "data" / "weights" / "lpips_alex_v0.1.pth")
    x, y = np.moveaxis(pixel_grid((64, 80)), -1, 0)
    frame = np.stack([x * 3, y * 3, (x * 7 + y * 5) % 256], axis=-1).astype(np.uint8)
    noise = np.random.default_rng(0).normal(size=frame.shape)
    a_bit, a_lot = (np.clip(frame + noise * sigma, 0, 255).astype(np.uint8) for sigma in (5, 60))
    values = [metrics.frame_metrics(frame, other, lpips=lpips)["lpips_all"] for other in (frame, a_bit, a_lot)]
    assert values[0] == pytest.approx(0, abs=1e-6) and values[0] < values[1] < values[2]
    other = np.clip(frame + noise * 30, 0, 255).astype(np.uint8)
    assert lpips.map(frame, other).mean() == pytest.approx(lpips.distance(frame, other), rel=0.1)


def test_lpips_without_the_right_weights(refuses, tmp_path):
    import torch

    with refuses("no file", FileNotFoundError):
        metrics.Lpips(tmp_path / "none.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with refuses("expected AlexNet's weights"):
        metrics.Lpips(tmp_path / "other.pth")


BAD_POINTS = SimpleNamespace(
    shapes=(walk(0, 1, 2), walk(0, 1), ALL_SEEN, r"predicted: expected shape \[3, 2, 2\]"),
    nan=(walk(0, 1, 2), walk(0, np.nan, 2), ALL_SEEN, "predicted: expected finite"),
    visible=(walk(0, 1, 2), walk(0, 1, 2), ALL_SEEN.astype(int), "visible: expected bool"),
    one_frame=(walk(0), walk(0), ALL_SEEN[:1], "2 frames or more"),
)


@pytest.mark.parametrize("case", vars(BAD_POINTS))
def test_bad_points_are_refused(case, refuses):
    true, predicted, visible, message = getattr(BAD_POINTS, case)
    with refuses(message):
        metrics.displacement_metrics(true, predicted, visible)


def test_other_bad_input_is_refused(refuses):
    still, frame = Tracks.still(np.zeros((1, 3)), 3), np.zeros((16, 16, 3), np.uint8)
    with refuses("query_mode: expected 'first' or 'strided', got 'all'"):
        metrics.tapvid_metrics(still, still, "all")
    with refuses("predicted: expected shape"):
        metrics.tapvid_metrics(still, Tracks.still(np.zeros((1, 3)), 4))
    with refuses(r"samples: expected shape \[K S N 2\]"):
        metrics.min_ade(walk(0, 1), walk(0, 1), ALL_SEEN[:2])
    with refuses("uint8"):
        metrics.frame_metrics(frame / 255, frame)
    with refuses("mask 'left': expected bool"):
        metrics.frame_metrics(frame, frame, {"left": np.zeros((16, 15), bool)})
    with refuses("period"):
        metrics.grid_artefacts(np.zeros((9, 9)))
    with refuses(r"visible: expected bool \[\.\.\. H W\]"):
        metrics.field_metrics(np.zeros((2, 5, 6)), np.zeros((2, 5, 6)), np.ones((6, 5), bool))


# What the metrics are by their definitions, by loops that share nothing with the module's code.


def slow_mean(values) -> float:
    values = [float(value) for value in values]
    return sum(values) / len(values) if values else float("nan")


@st.composite
def displacement_cases(draw, samples: int = 1):
    """Whole pixels, so that errors lie on the very miss distance; points that are never seen."""
    S, N = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    whole = st.integers(-8, 8).map(float)
    true = draw(arrays(np.float64, (S, N, 2), elements=whole))
    predicted = true + draw(arrays(np.float64, (samples, S, N, 2), elements=whole))
    return true, predicted, draw(arrays(bool, (S, N)))


@settings(max_examples=100, deadline=None)
@given(displacement_cases(), st.sampled_from([5.0, 8.0]))
def test_displacement_metrics_equal_their_definitions(case, miss_distance):
    true, (predicted,), visible = case
    S, N = visible.shape
    off = {(s, n): predicted[s, n] - true[s, n] for s in range(1, S) for n in range(N) if visible[s, n]}
    last = [n for n in range(N) if visible[S - 1, n]]
    expected = {
        "ade": slow_mean(np.hypot(*d) for d in off.values()),
        "fde": slow_mean(np.hypot(*off[S - 1, n]) for n in last),
        "miss_rate": slow_mean((off[S - 1, n] ** 2).sum() > miss_distance**2 for n in last),
        "mse": slow_mean(c * c for d in off.values() for c in d),
        "mse_last": slow_mean(c * c for n in last for c in off[S - 1, n]),
    }
    found = metrics.displacement_metrics(true, predicted, visible, miss_distance=miss_distance)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, err_msg=name)
    frames = [slow_mean(np.hypot(*d) for (s, _), d in off.items() if s == frame) for frame in range(1, S)]
    np.testing.assert_allclose(metrics.epe_per_frame(true, predicted, visible), frames)
    share = slow_mean(visible[s, n] for s in range(1, S) for n in range(N))
    assert metrics.visible_share(visible) == pytest.approx(share)


@settings(max_examples=100, deadline=None)
@given(displacement_cases(samples=3))
def test_min_ade_equals_its_definition(case):
    true, samples, visible = case
    S, N = visible.shape
    points = [n for n in range(N) if visible[1:, n].any()]
    ade = [
        [slow_mean(np.hypot(*(one[s, n] - true[s, n])) for s in range(1, S) if visible[s, n]) for n in points]
        for one in samples
    ]
    found = metrics.min_ade(true, samples, visible)
    np.testing.assert_allclose(found["min_ade"], slow_mean(min(of_point) for of_point in zip(*ade)))
    np.testing.assert_allclose(found["min_ade_joint"], min(slow_mean(of_sample) for of_sample in ade))


@settings(deadline=None)
@given(arrays(bool, (3, 4)), arrays(np.int64, (3, 4), elements=st.integers(-1, 1)))
def test_visibility_counts_the_frames_after_the_first_and_zero_as_hidden(visible, logits):
    told = [(logits[s, n] > 0) == visible[s, n] for s in (1, 2) for n in range(4)]
    found = metrics.visibility_metrics(visible, logits)
    assert found["visibility_accuracy"] == pytest.approx(slow_mean(told))
    seen, hidden = logits[1:][visible[1:]], logits[1:][~visible[1:]]
    pairs = [(a > b) + 0.5 * (a == b) for a in seen for b in hidden]
    np.testing.assert_allclose(found["visibility_auroc"], slow_mean(pairs))


@pytest.mark.parametrize("difference, decibels", [(255, 0.0), (51, 20 * np.log10(5)), (1, 48.1308)])
def test_psnr_of_a_constant_difference(difference, decibels):
    black = np.zeros((3, 5, 3), np.uint8)
    assert metrics.psnr(black, black + np.uint8(difference)) == pytest.approx(decibels, abs=1e-4)
    assert metrics.psnr(black, black) == np.inf


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.int64, (2, 2, 4, 5), elements=st.integers(-9, 9)),
    arrays(bool, (4, 5), elements=st.sampled_from([True, True, True, False])),
    st.sampled_from([(1.0, 1.0), (2.0, 5.0), (3.0, 0.5)]),
)
def test_field_metrics_equal_their_definitions(fields, visible, spacing):
    parts = []
    for u, v in fields.astype(float):
        found = {"tv": [], "divergence": [], "curl": []}
        for r in range(3):
            for c in range(4):
                if visible[r, c] and visible[r + 1, c] and visible[r, c + 1]:
                    ux, vx = (u[r, c + 1] - u[r, c]) / spacing[1], (v[r, c + 1] - v[r, c]) / spacing[1]
                    uy, vy = (u[r + 1, c] - u[r, c]) / spacing[0], (v[r + 1, c] - v[r, c]) / spacing[0]
                    found["tv"].append((ux**2 + vx**2 + uy**2 + vy**2) ** 0.5)
                    found["divergence"].append(ux + vy)
                    found["curl"].append(vx - uy)
        parts.append(found)
    truth, ours = parts
    result = metrics.field_metrics(*fields.astype(float), visible, spacing=spacing)
    sizes = {name: (slow_mean(map(abs, ours[name])), slow_mean(map(abs, truth[name]))) for name in truth}
    for name, (p, t) in sizes.items():
        np.testing.assert_allclose(result[f"{name}_ratio"], p / t if t else np.nan, err_msg=name)
    p, t = sizes["tv"]
    np.testing.assert_allclose(result["roughness"], (p - t) / (p + t) if p + t else np.nan, atol=1e-12)
    for name in ("divergence", "curl"):
        expected = slow_mean(abs(a - b) for a, b in zip(ours[name], truth[name]))
        np.testing.assert_allclose(result[f"{name}_error"], expected, atol=1e-12, err_msg=name)


def points_on_a_grid(rows=10, columns=16):
    y, x = np.mgrid[:rows, :columns]
    return np.column_stack([x.ravel(), y.ravel()]).astype(np.float64) * 20


SLIGHT = st.floats(-0.1, 0.1)


@given(SLIGHT, SLIGHT, st.floats(3, 30), st.floats(0, 6.28), st.integers(0, 39), st.integers(0, 9))
def test_a_camera_moves_all_but_what_moves_on_its_own(zoom, turn, speed, direction, others, seed):
    """An affine motion of 160 points, of which up to 39 go their own way, opposite to the camera's."""
    xy, rng = points_on_a_grid(), np.random.default_rng(seed)
    centred = (xy - xy.mean(axis=0)) / 10
    motion = speed * np.array([np.cos(direction), np.sin(direction)]) + zoom * centred
    motion += turn * centred[:, ::-1] * [1, -1]
    own = rng.permutation(len(xy))[:others]
    moved = motion.copy()
    moved[own] *= -1
    found = metrics.motion_classes(moved, xy, np.ones(len(xy), bool))
    far, away = np.linalg.norm(moved, axis=-1) > 1.0, np.isin(np.arange(len(xy)), own)
    assert (found[~far] == 0).all() and (found[far & ~away] == 1).all()
    apart = np.linalg.norm(2 * motion, axis=-1) > np.maximum(0.2 * np.linalg.norm(moved, axis=-1), 1.0)
    assert (found[far & away & apart] == 2).all()


def test_a_few_that_move_are_no_camera():
    xy = points_on_a_grid()
    moved = np.zeros_like(xy)
    moved[:40] = [5, 0]
    seen = np.arange(len(xy)) % 10 > 0
    found = metrics.motion_classes(moved, xy, seen)
    assert (found[~seen] == -1).all() and (found[:40][seen[:40]] == 2).all() and (found[40:][seen[40:]] == 0).all()
