"""Trackers on benchmarks: what their figures mean."""

import numpy as np
import pytest

from flowlib.clips import Clip, ClipSample
from flowlib.geometry import pixel_grid
from flowlib.synthetic import synthetic_clip
from flowlib.trackers.benchmark import StillTracker, compare, evaluate_tracker
from flowlib.trackers.exact import ExactTracker


def exact_clip(name="scene"):
    frames, scene = synthetic_clip(6, (64, 96), seed=4, motion="linear", camera="linear")
    truth = scene.tracks(np.insert(pixel_grid((64, 96))[::16, ::16].reshape(-1, 2).astype(float), 0, 0, axis=1))
    return ClipSample(Clip.named(name, frames), frames, truth, area=np.full(6, 400.0)), scene


def test_a_perfect_tracker_and_a_still_one():
    clip, scene = exact_clip()
    perfect, still = evaluate_tracker(ExactTracker(scene), [clip]), evaluate_tracker(StillTracker(), [clip])
    assert perfect.rows[0]["average_jaccard"] == 1 and perfect.rows[0]["mean_error"] < 1e-4
    seen = clip.truth.visibility[1:]
    lengths = np.linalg.norm(clip.truth.displacement[1:], axis=-1)[seen]
    assert still.rows[0]["mean_error"] == pytest.approx(lengths.mean(), rel=1e-5)
    assert still.rows[0]["pck_t"] == pytest.approx((lengths < 0.2 * 20).mean())
    table = compare({"perfect": perfect, "still": still})
    assert "| mean | perfect | 100.0 | 0.00 |" in table and table.count("\n") == 5


def test_flow_pairs():
    frames, scene = synthetic_clip(2, (48, 64), seed=5)
    truth = scene.tracks(np.insert(pixel_grid((48, 64))[5:].reshape(-1, 2), 0, 0, axis=1))
    pair = ClipSample(Clip.named("pair", frames), frames, truth, dense=True)
    assert evaluate_tracker(ExactTracker(scene), [pair]).rows[0]["epe"] < 1e-4
    expected = np.linalg.norm(truth.displacement[1], axis=-1).mean()
    assert evaluate_tracker(StillTracker(), [pair]).rows[0]["epe"] == pytest.approx(expected, rel=1e-5)
    nothing = ClipSample(Clip.named("none", frames), frames, truth.points(slice(0)), dense=True)
    assert np.isnan(evaluate_tracker(StillTracker(), [nothing]).rows[0]["epe"])


def test_bad_benchmarks(refuses):
    class Short(StillTracker):
        def __call__(self, frames, queries):
            return super().__call__(frames[1:], queries)

    with refuses("expected clips or pairs of frames, got none"):
        evaluate_tracker(StillTracker(), [])
    with refuses(r"scene: expected tracks \[6"):
        evaluate_tracker(Short(), [exact_clip()[0]])
