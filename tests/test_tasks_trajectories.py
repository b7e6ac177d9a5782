"""Trajectories as a task: what a batch holds, and the loss against what it is by definition."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.training_clips import SIZE, TINY, make_clip, make_clips
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.augmentation import AugmentConfig
from flowlib.clips import ClipList, ClipSample
from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask
from flowlib.tasks.trajectories.batch import Frames, make_batch, make_example
from flowlib.tasks.trajectories.loss import Targets, loss_sums, pointwise, total_loss
from flowlib.tasks.trajectories.task import fit_target_scale
from flowlib.training import TrainConfig, fit

CLIPS = make_clips(5)
WHOLE = Frames((0,), None)
LOSSES = ["mse", "l1", "huber", "charbonnier", "laplace"]


def batch_of(*indices):
    return make_batch([make_example(CLIPS[i], WHOLE) for i in indices])


def constant_prediction(dx=0.0, dy=0.0, B=2, S=4, log_scale=0.0):
    displacement = torch.tensor([dx, dy]).reshape(1, 1, 2, 1, 1).repeat(B, S, 1, *SIZE)
    displacement[:, 0] = 0
    return TrajectoryPrediction(
        displacement, torch.zeros(B, S, *SIZE), tuple(range(S)), torch.full((B, S, *SIZE), log_scale)
    )


def means(prediction, targets, masked=True, **options):
    return (loss_sums(prediction, targets, masked=masked, **options) / targets.counts(masked))[:3]


def test_pointwise_losses_are_what_their_names_say():
    error = torch.tensor([[3.0, -0.5], [0.0, 0.0]])
    assert pointwise(error, "mse").tolist() == [(9 + 0.25) / 2, 0]
    assert pointwise(error, "l1").tolist() == [1.75, 0]
    assert pointwise(error, "huber").tolist() == [(2.5 + 0.125) / 2, 0]
    assert pointwise(error, "huber", 0.5).tolist() == [(0.5 * 2.75 + 0.125) / 2, 0]
    charbonnier = pointwise(error, "charbonnier")
    assert charbonnier[0] == pytest.approx(1.75, abs=0.02) and charbonnier[1] == 0
    log_scale = torch.tensor([[0.7], [-1.0]])
    expected = -torch.distributions.Laplace(0, log_scale.exp()).log_prob(error).mean(dim=-1)
    torch.testing.assert_close(pointwise(error, "laplace", log_scale=log_scale), expected)


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(LOSSES), seed=st.integers(0, 10**6), far=st.floats(-1e4, 1e4))
def test_invisible_points_change_neither_loss_nor_gradient(kind, seed, far):
    generator = torch.Generator().manual_seed(seed)
    batch = batch_of(0, 1)
    batch["visibility"] = torch.rand(batch["visibility"].shape, generator=generator) < 0.6
    moved = dict(batch, tracks=torch.where(batch["visibility"][..., None], batch["tracks"], batch["tracks"] + far))
    gradients = []
    for version in (batch, moved):
        field = torch.randn(2, 4, 2, *SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
        prediction = replace(constant_prediction(), displacement=field)
        sums = loss_sums(prediction, Targets.of(version), loss=kind, scale=2.0)
        sums[0].backward()
        gradients.append((sums.detach(), field.grad))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


def test_the_loss_is_over_the_number_of_visible_points_or_of_all():
    batch, prediction = batch_of(0, 1), constant_prediction()
    targets = Targets.of(batch)
    error = targets.displacement[:, 1:]
    visible = targets.visible[:, 1:]
    assert 0 < visible.float().mean() < 1
    masked = means(prediction, targets, loss="mse")
    torch.testing.assert_close(masked[0], (error[visible] ** 2).mean())
    torch.testing.assert_close(masked[2], error[visible].norm(dim=-1).mean())
    everything = means(prediction, targets, masked=False, loss="mse")
    torch.testing.assert_close(everything[0], (error**2).mean())
    torch.testing.assert_close(masked[1], torch.tensor(math.log(2)))
    scaled = means(prediction, targets, loss="mse", scale=4.0)
    torch.testing.assert_close(scaled[0], masked[0] / 16)


def test_the_prediction_is_read_at_the_queries_between_the_pixels():
    y, x = torch.meshgrid(torch.arange(SIZE[0]) * 1.0, torch.arange(SIZE[1]) * 1.0, indexing="ij")
    ramp = torch.stack([0.1 * x - 0.2 * y, 0.3 * y + 0.05 * x])[None, None].repeat(2, 4, 1, 1, 1)
    batch = batch_of(0, 1)
    px, py = batch["queries"][..., 1], batch["queries"][..., 2]
    assert (px % 1 != 0).all()
    truth = torch.stack([0.1 * px - 0.2 * py, 0.3 * py + 0.05 * px], dim=-1)
    batch["tracks"] = batch["queries"][:, None, :, 1:] + truth[:, None]
    batch["tracks"] = batch["tracks"].repeat(1, 4, 1, 1)
    prediction = replace(constant_prediction(), displacement=ramp)
    sums = loss_sums(prediction, Targets.of(batch), loss="l1")
    assert sums[0] < 1e-3 and sums[2] < 1e-2


def test_nothing_visible_gives_zero_and_no_nan():
    batch = batch_of(0, 1)
    batch["visibility"] = torch.zeros_like(batch["visibility"])
    for kind in LOSSES:
        field = torch.zeros(2, 4, 2, *SIZE, requires_grad=True)
        targets = Targets.of(batch)
        sums = loss_sums(replace(constant_prediction(), displacement=field), targets, loss=kind)
        loss = total_loss(sums, targets.counts(True), 1.0)
        loss.backward()
        assert sums[0] == 0 and torch.isfinite(loss) and (field.grad == 0).all()


def test_laplace_scale_is_read_in_pixels_and_weighed_in_the_losss_units():
    targets = Targets.of(batch_of(0, 1))
    prediction = constant_prediction(log_scale=math.log(3.0))
    expected = -torch.distributions.Laplace(0.0, 3.0).log_prob(targets.displacement[targets.measured]).mean()
    found = means(prediction, targets, loss="laplace", scale=2.0)[0]
    torch.testing.assert_close(found, expected - math.log(2.0))  # a density of half-pixels


def test_a_single_last_frame_is_compared_with_its_own_truth():
    targets = Targets.of(make_batch([make_example(CLIPS[0], Frames((0,), (3,)))]))
    assert targets.displacement.shape[1] == 1 and targets.ahead.tolist() == [True]
    torch.testing.assert_close(targets.displacement[0, 0], CLIPS[0]["tracks"][3] - CLIPS[0]["queries"][:, 1:])


def test_the_target_scale_is_the_root_mean_square_of_visible_motion():
    moved = [c["tracks"][1:] - c["queries"][:, 1:] for c in CLIPS]
    visible = torch.cat([m[c["visibility"][1:]] for m, c in zip(moved, CLIPS)])
    assert fit_target_scale(CLIPS, WHOLE) == pytest.approx(float((visible**2).mean().sqrt()), rel=1e-5)
    still = [dict(c, tracks=c["queries"][None, :, 1:].repeat(4, 1, 1)) for c in CLIPS]
    assert fit_target_scale(still, WHOLE) == 1.0


def test_the_settings_go_through_json_and_back(refuses):
    task = TrajectoryTask(
        "huber", 0.5, augment=AugmentConfig(scale=(1.0, 1.5), crop=(8, 9)), scoring=ScoringConfig(rebuild=(1, -1))
    )
    assert TrajectoryTask.from_settings(json.loads(json.dumps(task.settings()))) == task
    assert TrajectoryTask.from_settings({"loss": "l1", "augment": None}) == TrajectoryTask()
    with refuses("loss: expected one of mse, l1, huber, charbonnier, laplace, laplace_2d, relative, got 'l3'"):
        TrajectoryTask(loss="l3")
    with refuses("huber_delta: expected a number above 0, got 0"):
        TrajectoryTask(huber_delta=0.0)


def fewer_points(clip, count):
    few = {name: clip[name][..., :count, :] if name == "tracks" else clip[name] for name in clip}
    return few | {"visibility": clip["visibility"][:, :count], "queries": clip["queries"][:count]}


@pytest.mark.parametrize("masked", [True, False])
def test_clips_with_different_numbers_of_points_count_as_one_by_one(tmp_path, masked):
    clips = ClipList([fewer_points(make_clip(i), 10 + 7 * i) for i in range(4)])
    task, losses = TrajectoryTask(masked=masked), []
    batch = make_batch([make_example(clip, WHOLE) for clip in clips])
    assert batch["asked"].sum(dim=1).tolist() == [10, 17, 24, 31]
    single = torch.stack([task.counts(make_batch([make_example(clip, WHOLE)])) for clip in clips]).sum(dim=0)
    assert torch.equal(task.counts(batch), single)
    assert "asked" not in make_batch([make_example(clips[0], WHOLE)] * 2)
    for name, sizes in (("whole", (4, 1)), ("parts", (1, 4))):
        torch.manual_seed(0)
        model = TrajectoryFCN(**TINY | {"batch_norm": "group"})
        config = TrainConfig(steps=3, batch_size=sizes[0], accumulate=sizes[1], num_workers=0, device="cpu")
        losses.append(fit(model, task, clips, clips, config, folder=tmp_path / name).metrics())
    for one, parts in zip(*losses, strict=True):
        for key in one.keys() - {"clips", "step"}:
            assert one[key] == pytest.approx(parts[key], rel=2e-4), key
    task.figure(model, clips, 2)


def test_clips_of_different_sizes_are_refused_in_a_batch(refuses, tmp_path):
    small = dict(CLIPS[0], frames=CLIPS[0]["frames"][:, :16])
    with refuses("expected clips of one size in a batch, got 16×48 and 32×48; use batch_size=1 with accumulate"):
        make_batch([make_example(clip, WHOLE) for clip in (small, CLIPS[1])])


def test_what_the_task_is_not_for_is_refused(refuses):
    with refuses("model: expected `input_frames`, the frames it sees, got Linear without"):
        TrajectoryTask().check(torch.nn.Linear(1, 1), CLIPS, "train")
    with refuses("expected it to give a TrajectoryPrediction, got Tensor"):
        TrajectoryTask().sums(torch.nn.Flatten(), make_batch([make_example(CLIPS[0], WHOLE)]), {"target_scale": 1.0})


def with_confidence(values):
    """The clips with a confidence that goes on with `values` from point to point."""
    samples = [ClipSample.of(CLIPS[i]) for i in range(len(CLIPS))]
    for sample in samples:
        shape = sample.truth.visibility.shape
        object.__setattr__(sample, "truth", replace(sample.truth, confidence=np.resize(values, shape)))
    return ClipList(samples)


def test_confidence_is_used_where_it_is_asked_for_and_nowhere_else(tmp_path, refuses):
    model, config = lambda: TrajectoryFCN(**TINY), TrainConfig(steps=2, batch_size=2, device="cpu")
    clips = with_confidence(np.array([1.0, 0.25, 0.5], np.float32))

    def losses(name, task, data):
        torch.manual_seed(0)
        run = fit(model(), task, data, None, config, folder=tmp_path / name)
        return [line["loss"] for line in run.metrics() if "loss" in line]

    plain = losses("plain", TrajectoryTask(), CLIPS)
    assert losses("unused", TrajectoryTask(), clips) == plain
    assert losses("weighted", TrajectoryTask(confidence_weighted=True), clips) != plain
    assert losses("filtered", TrajectoryTask(min_confidence=0.5), clips) != plain
    turned = TrajectoryTask(min_confidence=0.5, augment=AugmentConfig(flip_x=1.0))
    assert len(losses("augmented", turned, clips)) == 2
    for task, name in ((TrajectoryTask(confidence_weighted=True), "confidence_weighted"),
                       (TrajectoryTask(min_confidence=0.1), "min_confidence")):  # fmt: skip
        with refuses(f"{name}: expected labels with a confidence in train, got some without"):
            losses("none", task, CLIPS)
    with refuses("min_confidence: expected a number from 0 to 1, got 1.5"):
        TrajectoryTask(min_confidence=1.5)


def test_clips_of_different_numbers_of_points_are_padded_with_their_confidence():
    clips = with_confidence(np.array([0.5], np.float32))
    few = ClipSample.of(clips[0])
    few = replace(few, truth=few.truth.points([0, 1]), clip=replace(few.clip, num_points=2))
    batch = make_batch([make_example(sample, WHOLE, confidence=True) for sample in (clips[1], few)])
    assert batch["confidence"].shape == batch["visibility"].shape
    assert batch["confidence"][1, :, 2:].eq(0).all() and batch["confidence"][1, :, :2].eq(0.5).all()
    targets = Targets.of(batch, weighted=True)
    assert targets.counts(True)[0] == 0.5 * targets.measured.sum()
