"""The parts of training, each against what it is by definition: losses, schedules, the stream of clips, EMA, spikes."""

import json
import math
from dataclasses import replace

import pytest
import torch
from fixtures.training_clips import SIZE, TINY, make_clips
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.models import TrajectoryPrediction
from flowlib.models.fcn import TrajectoryFCN
from flowlib.training import TrainConfig, largest_batch, spike_report
from flowlib.training.losses import fit_target_scale, loss_sums, make_targets, pointwise, total_loss
from flowlib.training.optimisers import Averaged, choose_trained, make_optimizer, rate_factor, set_rates
from flowlib.training.stream import ClipStream, mix, training_batches, validation_batches

CLIPS = make_clips(5)
LOSSES = ["mse", "l1", "huber", "charbonnier", "laplace"]


def batch_of(*indices):
    return torch.utils.data.default_collate([CLIPS[i] for i in indices])


def constant_prediction(dx=0.0, dy=0.0, B=2, S=4, log_scale=0.0):
    displacement = torch.tensor([dx, dy]).reshape(1, 1, 2, 1, 1).repeat(B, S, 1, *SIZE)
    displacement[:, 0] = 0
    return TrajectoryPrediction(
        displacement, torch.zeros(B, S, *SIZE), tuple(range(S)), torch.full((B, S, *SIZE), log_scale)
    )


def means(prediction, targets, config, scale=1.0):
    return loss_sums(prediction, targets, config, torch.tensor(scale))[:3] / targets.counts(config.masked)


def test_pointwise_losses_are_what_their_names_say():
    error = torch.tensor([[3.0, -0.5], [0.0, 0.0]])
    assert pointwise(error, TrainConfig(loss="mse")).tolist() == [(9 + 0.25) / 2, 0]
    assert pointwise(error, TrainConfig(loss="l1")).tolist() == [1.75, 0]
    assert pointwise(error, TrainConfig(loss="huber")).tolist() == [(2.5 + 0.125) / 2, 0]
    assert pointwise(error, TrainConfig(loss="huber", huber_delta=0.5)).tolist() == [(0.5 * 2.75 + 0.125) / 2, 0]
    charbonnier = pointwise(error, TrainConfig(loss="charbonnier"))
    assert charbonnier[0] == pytest.approx(1.75, abs=0.02) and charbonnier[1] == 0
    log_scale = torch.tensor([[0.7], [-1.0]])
    expected = -torch.distributions.Laplace(0, log_scale.exp()).log_prob(error).mean(dim=-1)
    torch.testing.assert_close(pointwise(error, TrainConfig(loss="laplace"), log_scale), expected)


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(LOSSES), seed=st.integers(0, 10**6), far=st.floats(-1e4, 1e4))
def test_invisible_points_change_neither_loss_nor_gradient(kind, seed, far):
    config = TrainConfig(loss=kind)
    generator = torch.Generator().manual_seed(seed)
    batch = batch_of(0, 1)
    batch["visibility"] = torch.rand(batch["visibility"].shape, generator=generator) < 0.6
    moved = dict(batch, tracks=torch.where(batch["visibility"][..., None], batch["tracks"], batch["tracks"] + far))
    gradients = []
    for version in (batch, moved):
        field = torch.randn(2, 4, 2, *SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
        prediction = replace(constant_prediction(), displacement=field)
        sums = loss_sums(prediction, make_targets(version, (0, 1, 2, 3)), config, torch.tensor(2.0))
        sums[0].backward()
        gradients.append((sums.detach(), field.grad))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


def test_the_loss_is_over_the_number_of_visible_points_or_of_all():
    batch, prediction = batch_of(0, 1), constant_prediction()
    targets = make_targets(batch, (0, 1, 2, 3))
    error = targets.displacement[:, 1:]
    visible = targets.visible[:, 1:]
    assert 0 < visible.float().mean() < 1
    masked = means(prediction, targets, TrainConfig(loss="mse"))
    torch.testing.assert_close(masked[0], (error[visible] ** 2).mean())
    torch.testing.assert_close(masked[2], error[visible].norm(dim=-1).mean())
    everything = means(prediction, targets, TrainConfig(loss="mse", masked=False))
    torch.testing.assert_close(everything[0], (error**2).mean())
    torch.testing.assert_close(masked[1], torch.tensor(math.log(2)))
    scaled = means(prediction, targets, TrainConfig(loss="mse"), scale=4.0)
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
    sums = loss_sums(prediction, make_targets(batch, (0, 1, 2, 3)), TrainConfig(loss="l1"), torch.tensor(1.0))
    assert sums[0] < 1e-3 and sums[2] < 1e-2


def test_nothing_visible_gives_zero_and_no_nan():
    batch = batch_of(0, 1)
    batch["visibility"] = torch.zeros_like(batch["visibility"])
    for kind in LOSSES:
        config, field = TrainConfig(loss=kind), torch.zeros(2, 4, 2, *SIZE, requires_grad=True)
        targets = make_targets(batch, (0, 1, 2, 3))
        sums = loss_sums(replace(constant_prediction(), displacement=field), targets, config, torch.tensor(1.0))
        loss = total_loss(sums, targets.counts(True), 1.0)
        loss.backward()
        assert sums[0] == 0 and torch.isfinite(loss) and (field.grad == 0).all()


def test_laplace_scale_is_read_in_pixels_and_weighed_in_the_losss_units():
    targets = make_targets(batch_of(0, 1), (0, 1, 2, 3))
    prediction = constant_prediction(log_scale=math.log(3.0))
    expected = -torch.distributions.Laplace(0.0, 3.0).log_prob(targets.displacement[targets.measured]).mean()
    found = means(prediction, targets, TrainConfig(loss="laplace"), scale=2.0)[0]
    torch.testing.assert_close(found, expected - math.log(2.0))  # a density of half-pixels


def test_a_single_last_frame_is_held_against_its_own_truth():
    targets = make_targets(batch_of(0), (3,))
    assert targets.displacement.shape[1] == 1 and targets.ahead.tolist() == [True]
    torch.testing.assert_close(targets.displacement[0, 0], CLIPS[0]["tracks"][3] - CLIPS[0]["queries"][:, 1:])


def test_the_target_scale_is_the_root_mean_square_of_visible_motion():
    moved = [c["tracks"][1:] - c["queries"][:, 1:] for c in CLIPS]
    visible = torch.cat([m[c["visibility"][1:]] for m, c in zip(moved, CLIPS)])
    assert fit_target_scale(CLIPS, (0, 1, 2, 3)) == pytest.approx(float((visible**2).mean().sqrt()), rel=1e-5)
    still = [dict(c, tracks=c["queries"][None, :, 1:].repeat(4, 1, 1)) for c in CLIPS]
    assert fit_target_scale(still, (0, 1, 2, 3)) == 1.0


@pytest.mark.parametrize(
    ("trained", "parts"),
    [
        ("last", {"head"}),
        ("first+last", {"stem", "head"}),
        ("first+second+last", {"stem", "second", "head"}),
        ("all", {"stem", "second", "backbone", "head"}),
    ],
)
def test_only_what_is_trained_moves_each_part_at_its_rate(trained, parts):
    model = TrajectoryFCN(**TINY)
    rates = {"stem_learning_rate": 1e-5, "backbone_learning_rate": 1e-4, "learning_rate": 1e-3}
    config = TrainConfig(trained=trained, schedule="constant", **rates)
    choose_trained(model, trained)
    moving = {name for name, group in model.parts.items() if all(p.requires_grad for p in group)}
    assert moving == parts
    assert not any(p.requires_grad for name, group in model.parts.items() if name not in parts for p in group)
    optimizer = make_optimizer(model, config)
    set_rates(optimizer, 0, config)
    expected = {"stem": 1e-5, "second": 1e-4, "backbone": 1e-4, "head": 1e-3}
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {k: expected[k] for k in parts}


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(2, 400), warmup=st.integers(0, 50), schedule=st.sampled_from(["constant", "cosine", "one_cycle"])
)
def test_schedules_start_low_peak_at_one_and_end_where_they_should(steps, warmup, schedule):
    warmup = min(warmup, steps - 1)
    config = TrainConfig(steps=steps, schedule=schedule, warmup_steps=warmup)
    factors = [rate_factor(step, config) for step in range(steps)]
    assert all(0 < f <= 1 for f in factors)
    top = factors.index(max(factors))
    assert all(a <= b + 1e-12 for a, b in zip(factors[:top], factors[1 : top + 1]))
    assert all(a >= b - 1e-12 for a, b in zip(factors[top:], factors[top + 1 :]))
    if schedule == "constant":
        assert factors[warmup:] == [1.0] * (steps - warmup)
    if warmup and schedule != "one_cycle":
        assert factors[0] == pytest.approx(1 / (warmup + 1))
    if schedule != "constant" and steps - warmup > 20 and steps > 60:
        assert factors[-1] < 0.02


def test_the_average_follows_the_weights_and_copies_what_is_not_trained():
    torch.manual_seed(0)
    model = TrajectoryFCN(**TINY)
    choose_trained(model, "last")
    averaged = Averaged(model, 0.5)
    before = {key: value.clone() for key, value in averaged.model.state_dict().items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    averaged.update(model, step=1000)
    after = averaged.model.state_dict()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, value in after.items():
        expected = before[name] + (0.5 if name in trained else 1)
        torch.testing.assert_close(value.double(), expected.double(), atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in averaged.model.parameters())


def names(batches):
    return [[clip for batch in step for clip in batch["clip"]] for step in batches]


def read(steps, **options):
    settings = {"batch_size": 2, "accumulate": 1, "process": 0, "processes": 1, "workers": 0} | options
    return names(training_batches(ClipStream(CLIPS, (0,), seed=3), steps=steps, **settings))


def test_each_pass_over_the_clips_takes_every_clip_once_in_another_order():
    order = [clip for step in read(range(10)) for clip in step]
    passes = [order[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(one) == [f"c{i}" for i in range(5)] for one in passes)
    assert len({tuple(one) for one in passes}) > 1


@given(start=st.integers(0, 30), batch=st.integers(1, 7), parts=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_the_stream_goes_on_anywhere_without_a_state(start, batch, parts):
    whole = read(range(start + 2), batch_size=batch, accumulate=parts)
    assert read(range(start, start + 2), batch_size=batch, accumulate=parts) == whole[start:]


def test_processes_share_a_step_without_overlap():
    shares = [read(range(4), process=i, processes=2) for i in range(2)]
    together = [sorted(a + b) for a, b in zip(*shares)]
    assert together == [sorted(step) for step in read(range(4), batch_size=4)]
    stream, looked_at = ClipStream(CLIPS, (0,)), []
    for process in range(2):
        batches = validation_batches(stream, clips=4, batch_size=2, process=process, processes=2, workers=0)
        looked_at += [clip for batch in batches for clip in batch["clip"]]
    assert sorted(looked_at) == ["c0", "c1", "c2", "c3"]


def test_images_are_the_input_frames_in_their_order():
    sample = ClipStream(CLIPS, (3, 0))[1]
    assert sample["images"].shape == (2, 3, *SIZE) and sample["images"].dtype == torch.uint8
    assert torch.equal(sample["images"][0].movedim(0, -1), CLIPS[1]["frames"][3])
    assert len({mix(0, step, 0) for step in range(1000)} | {mix(1, step, 0) for step in range(1000)}) == 2000


def write_metrics(folder, losses, norms=None, **extra):
    norms = norms or [1.0] * len(losses)
    rows = [
        {"step": i + 1, "loss": loss, "grad_norm": norm, "lr": 1e-3, "bn_shift": 0.1, "bn_layer": "a.1"}
        | {"clips": [f"c{i % 4}"]}
        for i, (loss, norm) in enumerate(zip(losses, norms))
    ]
    for step, values in extra.get("changes", {}).items():
        rows[step - 1] |= values
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_spike_report_finds_jumps_and_says_what_stands_out(tmp_path):
    losses, norms = [1.0] * 60, [1.0] * 60
    losses[19:22], norms[18] = [3.0, 9.0, 4.0], 40.0  # a step too far
    losses[44] = 5.0
    write_metrics(tmp_path, losses, norms, changes={45: {"bn_shift": 2.5, "bn_layer": "head.2"}})
    report = spike_report(tmp_path)
    assert [spike.step for spike in report.spikes] == [21, 45]
    first, second = report.spikes
    assert first.ratio == pytest.approx(9) and "40.0 times the usual gradient" in first.reading
    assert [line["step"] for line in first.around] == [18, 19, 20, 21, 22, 23, 24]
    assert "2.5 deviations off in head.2" in second.reading
    assert "2 spikes" in repr(report) and "c3" in repr(report)


def test_a_calm_curve_has_no_spikes_and_bad_calls_are_named(tmp_path, refuses):
    write_metrics(tmp_path, [2.0 - i / 50 for i in range(50)])
    assert spike_report(tmp_path).spikes == []
    with refuses("factor: expected a number above 1, got 1"):
        spike_report(tmp_path, 1)
    with refuses("expected a run's folder with metrics.jsonl", FileNotFoundError):
        spike_report(tmp_path / "none")


def test_the_largest_batch_is_found_by_trying(monkeypatch):
    from flowlib.training import batch_size

    tried = []

    def step(accelerator, model, network, optimizer, sample, size, config):
        tried.append(size)
        return size <= 11

    monkeypatch.setattr(batch_size, "_try_step", step)
    model, config = TrajectoryFCN(**TINY), TrainConfig(device="cpu")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert largest_batch(model, CLIPS, config, most=64) == 11
    assert tried[:5] == [1, 2, 4, 8, 16] and len(tried) <= 8
    assert largest_batch(model, CLIPS, config, most=5) == 5
    monkeypatch.setattr(batch_size, "_try_step", lambda *arguments: False)
    with pytest.raises(MemoryError, match="not even one clip of"):
        largest_batch(model, CLIPS, config)
    monkeypatch.undo()
    assert largest_batch(model, CLIPS, config, most=3) == 3  # real steps, on this machine
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
