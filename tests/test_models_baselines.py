"""Baselines: exact where their assumption holds, fitted where they say so, and always the models' own call."""

import numpy as np
import pytest
import torch
from fixtures.synthetic_clips import SIZE, GivenFlow, SyntheticClips
from hypothesis import example, given
from hypothesis import strategies as st

from flowlib.clips import ClipSample
from flowlib.flow import DISFlow
from flowlib.metrics import displacement_metrics
from flowlib.models import TrajectoryPrediction, baselines
from flowlib.models.baselines import (
    ConstantVelocity,
    MeanMotion,
    NearestNeighbour,
    OracleTracks,
    Scaled,
    ZeroMotion,
    all_baselines,
    densify,
    l1_gain,
)
from flowlib.synthetic import synthetic_clip


def errors(predictor, sample):
    """The errors of one predictor on one sample."""
    if isinstance(predictor, OracleTracks):
        prediction = predictor.from_sample(sample)
    else:
        prediction = predictor(sample["frames"][list(predictor.input_frames)].movedim(-1, 1)[None])
    assert isinstance(prediction, TrajectoryPrediction) and prediction.frames == tuple(range(8))
    assert (prediction.displacement[:, 0] == 0).all() and prediction.displacement.shape[-2:] == SIZE
    predicted = prediction.at(sample["queries"][None, :, 1:])[0][0]
    true = sample["tracks"] - sample["queries"][None, :, 1:]
    return displacement_metrics(true.numpy(), predicted.numpy(), sample["visibility"].numpy())


def test_zero_motion_has_the_mean_displacement_as_its_error():
    sample = SyntheticClips()[0]
    moved = torch.linalg.norm(sample["tracks"] - sample["queries"][:, 1:], dim=-1)[1:][sample["visibility"][1:]]
    assert errors(ZeroMotion(), sample)["ade"] == pytest.approx(float(moved.mean()), rel=1e-5)


@pytest.mark.parametrize("second", [1, 3])
def test_constant_velocity_is_exact_on_constant_motion(second):
    """With the exact flow, and before as well as after the second input frame."""
    clips = SyntheticClips(num_frames=8, motion="linear", camera="linear", grid=SIZE)
    for index in range(len(clips)):
        sample = clips[index]
        flow = (sample["tracks"][second] - sample["tracks"][0]).T.reshape(2, *SIZE).numpy()
        predictor = ConstantVelocity(GivenFlow(flow, "exact"), input_frames=(0, second))
        assert errors(predictor, sample)["ade"] < 1e-4 < errors(ZeroMotion(), sample)["ade"]


def test_dis_finds_a_shift():
    frames = synthetic_clip(2, (96, 128), seed=1, num_sprites=0)[0]
    flow = DISFlow()(frames[0], np.roll(frames[0], (2, 3), axis=(0, 1)))
    np.testing.assert_allclose(np.median(flow, axis=(1, 2)), [3, 2], atol=0.1)


def test_constant_velocity_with_dis_beats_zero_motion():
    sample = SyntheticClips(motion="linear", camera="linear")[1]
    assert errors(ConstantVelocity(), sample)["ade"] < 0.8 * errors(ZeroMotion(), sample)["ade"]


def test_what_leaves_the_frame_is_invisible():
    out = np.stack([np.full(SIZE, 20.0), np.zeros(SIZE)])
    logits = ConstantVelocity(GivenFlow(out), num_frames=3)(torch.zeros(1, 2, 3, *SIZE)).visibility_logits
    assert (logits[0, 1, :, :44] > 0).all() and (logits[0, 1, :, 44:] < 0).all() and (logits[0, 0] > 0).all()


def test_mean_motion_is_the_mean():
    clips = SyntheticClips(seeds=range(4), num_sprites=0, camera="linear")
    mean = MeanMotion.fit(clips, cells=(1, 1))
    samples = [clips[index] for index in range(4)]
    moved = sum((s["tracks"] - s["queries"][:, 1:])[s["visibility"]].sum(0) for s in [_last(s) for s in samples])
    count = sum(int(s["visibility"][-1].sum()) for s in samples)
    predicted = mean(samples[0]["frames"][:1].movedim(-1, 1)[None])
    np.testing.assert_allclose(predicted.displacement[0, -1, :, 5, 7], moved / count, rtol=1e-4)
    assert mean.trained_on == clips.videos and errors(mean, samples[0])["ade"] > 0


def _last(sample):
    return {**sample, "tracks": sample["tracks"][-1:], "visibility": sample["visibility"][-1:]}


def test_mean_motion_fills_cells_that_nothing_starts_in():
    clips = SyntheticClips(seeds=[1], grid=(2, 2), num_sprites=0, camera="linear")
    field = MeanMotion.fit(clips, cells=(9, 16)).motion
    assert np.isfinite(field).all() and np.abs(field[-1, :2]).min() > 0


def test_nearest_neighbour_finds_the_clip_itself():
    clips = SyntheticClips(seeds=range(4))
    neighbour = NearestNeighbour.fit(clips, input_frames=(0, 1))
    for index in range(4):
        assert errors(neighbour, clips[index])["ade"] == errors(OracleTracks(), clips[index])["ade"]
    darker = (clips[2]["frames"].float() * 0.9).to(torch.uint8)
    assert neighbour.nearest(darker[:2].movedim(-1, 1)[None]) == 2


def test_gains_put_back_what_was_halved():
    clips = SyntheticClips(seeds=[3], motion="linear", camera="linear", grid=SIZE)
    sample = clips[0]
    halved = (sample["tracks"][1] - sample["tracks"][0]).T.reshape(2, *SIZE).numpy() / 2
    scaled = Scaled.fit(ConstantVelocity(GivenFlow(halved, "halved")), clips)
    np.testing.assert_allclose(scaled.gains[1:], 2, atol=1e-3)
    assert errors(scaled, sample)["ade"] < 1e-3 and scaled.trained_on == clips.videos
    assert Scaled.fit(ZeroMotion(), clips).gains == [1] * 8


def distances(gain, moved, true, weight):
    return float(weight @ np.linalg.norm(gain * moved - true, axis=-1))


PAIRS = st.tuples(*[st.floats(-20, 20)] * 4, st.floats(0.01, 3))


@given(rows=st.lists(PAIRS, min_size=1, max_size=12))
@example(rows=[(0.0, 1.0, 0.0, 0.0, 1.0), (0.0, 3.5e-106, 0.0, 1.0, 1.0)])
def test_no_gain_is_nearer_than_the_fitted_one(rows):
    rows = np.array(rows)
    moved, true, weight = rows[:, :2], rows[:, 2:4], rows[:, 4]
    gain = l1_gain(moved, true, weight)
    least = distances(gain, moved, true, weight)
    others = [*np.linspace(-3, 3, 61), *(gain + np.array([-0.1, -0.01, 0.01, 0.1]))]
    assert all(least <= distances(other, moved, true, weight) + 1e-3 for other in others)
    assert least <= distances(1.0, moved, true, weight) + 1e-9


@given(ratios=st.lists(st.floats(-2, 3), min_size=1, max_size=15), seed=st.integers(0, 99))
def test_along_the_predicted_motion_the_best_gain_is_the_weighted_median(ratios, seed):
    rng, ratios = np.random.default_rng(seed), np.array(ratios)
    moved, weight = rng.normal(size=(len(ratios), 2)) + 0.1, rng.uniform(0.1, 2, len(ratios))
    gain = l1_gain(moved, ratios[:, None] * moved, weight)
    pull = weight * np.linalg.norm(moved, axis=-1)
    near = 1e-4
    assert pull[ratios < gain - near].sum() <= pull.sum() / 2 + 1e-9
    assert pull[ratios > gain + near].sum() <= pull.sum() / 2 + 1e-9


def test_fitted_gains_are_never_worse_than_none_on_the_clips_they_were_fitted_on(monkeypatch):
    clips = SyntheticClips(seeds=[3, 4])
    plain = ConstantVelocity()
    scaled = Scaled.fit(plain, clips)
    assert len({*scaled.gains}) > 4 and scaled.gains[0] == 1

    def mean_errors(predictor):
        found = []
        for index in range(len(clips)):
            sample = ClipSample.of(clips[index])
            moved = predictor(sample.images(predictor.input_frames)).at(sample["queries"][None, :, 1:])[0][0].numpy()
            apart = np.linalg.norm(moved - sample.truth.displacement, axis=-1)
            found.append([own[seen].mean() for own, seen in zip(apart, sample.truth.visibility)])
        return np.mean(found, axis=0)

    assert (mean_errors(scaled) <= mean_errors(plain) + 1e-5).all()
    assert mean_errors(scaled)[-1] < 0.99 * mean_errors(plain)[-1]
    monkeypatch.setattr(baselines, "FITTED_POINTS", 100)  # of a thousand and more
    np.testing.assert_allclose(Scaled.fit(plain, clips).gains, scaled.gains, atol=0.3)


def test_the_tracks_themselves_are_next_to_exact():
    assert errors(OracleTracks(), SyntheticClips(grid=SIZE)[0])["ade"] < 1e-6
    for grid in ((12, 16), (5, 7)):  # points between pixels, where a field over pixels is rounded off
        assert errors(OracleTracks(), SyntheticClips(grid=grid)[0])["ade"] < 0.1


def test_densify_to_another_size():
    sample = SyntheticClips(num_sprites=0, camera="linear")[0]
    small, large = densify(sample, SIZE), densify(sample, (96, 128))
    doubled = 2 * small.displacement[0, -1, :, 20, 20]
    np.testing.assert_allclose(large.displacement[0, -1, :, 40, 40], doubled, rtol=1e-3)


def test_a_batch_equals_its_parts():
    clips = SyntheticClips()
    images = torch.stack([clips[i]["frames"][:2].movedim(-1, 1) for i in range(2)])
    for predictor in (ConstantVelocity(), NearestNeighbour.fit(clips, (0, 1))):
        both = predictor(images).displacement
        for index in range(2):
            torch.testing.assert_close(both[index], predictor(images[index : index + 1]).displacement[0])


def test_all_baselines_at_once(shared):
    train, sample = SyntheticClips(seeds=[2]), SyntheticClips(seeds=[1], motion="linear", camera="linear")[0]
    weights = shared / "data" / "weights" / "raft_large_things_torchvision.pth"
    two = all_baselines(train, input_frames=(0, 3), raft_weights=weights)
    assert list(two)[-1] == "the tracks themselves" and len(two) == 8
    found = {name: errors(predictor, sample)["ade"] for name, predictor in two.items()}
    assert found["constant velocity (RAFT)"] < 0.8 * found["zero motion"] and found["the tracks themselves"] < 0.1
    assert two["constant velocity (RAFT)"].describe()["flow"].startswith("raft ")
    assert list(all_baselines(train, input_frames=(0,))) == [
        "zero motion",
        "mean motion",
        "nearest clip",
        "the tracks themselves",
    ]


def test_every_baseline_describes_itself_in_json():
    import json

    clips = SyntheticClips()
    fitted = [MeanMotion.fit(clips), NearestNeighbour.fit(clips), Scaled.fit(ConstantVelocity(), clips)]
    for predictor in (ZeroMotion(), ConstantVelocity(), OracleTracks(), *fitted):
        assert json.loads(json.dumps(predictor.describe()))["name"]


def test_bad_input(refuses):
    with refuses(r"images: expected shape \[B 1 3 H W\]"):
        ZeroMotion()(torch.zeros(1, 2, 3, 4, 5))
    with refuses("input_frames: expected 0 and a later frame"):
        ConstantVelocity(input_frames=(0, 8))
    with refuses("num_frames: expected 2 or more"):
        ZeroMotion(1)
    with refuses("at least one clip"):
        MeanMotion.fit(SyntheticClips(seeds=[]))
    with refuses("gains: expected one for each of 8"):
        Scaled(ZeroMotion(8), [1.0] * 7)(torch.zeros(1, 1, 3, 4, 5))
    with refuses("expected the sample"):
        OracleTracks()(torch.zeros(1, 1, 3, 4, 5))
    whole = dict(SyntheticClips()[0])
    with refuses("expected a picture of frame 3, got those of frames 0, 1 only"):
        NearestNeighbour.fit([whole | {"frames": whole["frames"][:2]}], input_frames=(0, 3))
    late = ClipSample.of(whole | {"queries": whole["queries"] + torch.tensor([1.0, 0, 0])})
    with refuses("queries: expected all in frame 0"):
        densify(late, SIZE)
    with refuses("flow: expected an OpticalFlow, which is called and has a `name`, got function"):
        ConstantVelocity(lambda first, second: first)
