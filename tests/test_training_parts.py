"""The parts of training, each against what it is by definition: schedules, the stream of samples, EMA, loss spikes."""

import json
from pathlib import Path

import pytest
import torch
from fixtures.training_clips import SIZE, TINY, make_clips
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.models.fcn import TrajectoryFCN
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, batch_size, largest_batch, spike_report
from flowlib.training.optim import averaged_model, choose_trained, make_optimizer, rate_factor, set_rates
from flowlib.training.stream import SampleStream, mix, training_batches, validation_batches

CLIPS = make_clips(5)
TASK, MODEL = TrajectoryTask(), TrajectoryFCN(**TINY)


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
    averaged = averaged_model(model, 0.5, step=1000)
    before = {key: value.clone() for key, value in averaged.module.state_dict().items()}
    held = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.add_(0 if name in held else 1)
    averaged.update_parameters(model)
    after = averaged.module.state_dict()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, value in after.items():
        expected = before[name] + (0 if name in held else 0.5 if name in trained else 1)
        torch.testing.assert_close(value.double(), expected.double(), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(after[name], model.state_dict()[name]) for name in held)  # not moved by a bit
    assert not any(parameter.requires_grad for parameter in averaged.module.parameters())


def names(batches):
    return [[clip for batch in step for clip in batch["name"]] for step in batches]


def read(steps, **options):
    settings = {"batch_size": 2, "accumulate": 1, "process": 0, "processes": 1, "workers": 0} | options
    return names(training_batches(SampleStream(TASK, MODEL, CLIPS, seed=3), steps=steps, **settings))


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
    stream, looked_at = SampleStream(TASK, MODEL, CLIPS), []
    for process in range(2):
        batches = validation_batches(stream, samples=4, batch_size=2, process=process, processes=2, workers=0)
        looked_at += [clip for batch in batches for clip in batch["name"]]
    assert sorted(looked_at) == ["c0", "c1", "c2", "c3"]


def test_images_are_the_input_frames_in_their_order():
    sample = SampleStream(TASK, TrajectoryFCN(**TINY | {"input_frames": (3, 0)}), CLIPS)[1]
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


def test_the_average_is_short_at_first_so_that_the_start_fades():
    weight = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(weight.weight)
    averaged = averaged_model(weight, 0.999)
    torch.nn.init.ones_(weight.weight)
    expected = 0.0
    for step in range(20):
        averaged.update_parameters(weight)
        expected += (1 - (1 + step) / (10 + step)) * (1 - expected)
        assert float(averaged.module.weight) == pytest.approx(expected, rel=1e-5)
    assert expected > 0.99  # at 0.999 all the way it would be 0.02


def test_a_jump_a_little_above_the_threshold_is_a_spike_and_one_below_is_none(tmp_path):
    losses = [1.0] * 60
    losses[30], losses[50] = 2.1, 1.9
    write_metrics(tmp_path, losses)
    assert [spike.step for spike in spike_report(tmp_path).spikes] == [31]
    assert [spike.step for spike in spike_report(tmp_path, 1.8).spikes] == [31, 51]


def test_a_model_without_parts_is_trained_whole_or_not_at_all(refuses):
    model = torch.nn.Linear(2, 2)
    (group,) = make_optimizer(model, TrainConfig()).param_groups
    assert len(group["params"]) == 2 and group["base_lr"] == TrainConfig().learning_rate
    choose_trained(model, "all")
    with refuses("trained: 'last' expects a model with `parts`, got Linear, which has 'all' only"):
        choose_trained(model, "last")


def test_the_largest_batch_is_found_by_growing_while_memory_is_left(monkeypatch):
    tried = []
    monkeypatch.setattr(batch_size, "_peak_bytes", lambda: 100 * max(tried, default=0))
    monkeypatch.setattr(batch_size, "_memory_bytes", lambda: (1200, 0))
    assert batch_size._grow(lambda size: tried.append(size) or size, 64) == 11
    assert tried[:5] == [1, 2, 4, 8, 10] and len(tried) <= 8
    assert batch_size._grow(lambda size: size, 5) == 5


def test_the_largest_batch_is_found_by_shrinking_until_a_gpu_takes_it():
    def step(batch_size):
        if batch_size > 11:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return batch_size

    def broken(batch_size):
        raise RuntimeError("something else")

    assert batch_size._shrink(step, 16) in (10, 11)
    assert batch_size._shrink(lambda batch_size: step(batch_size + 99), 2) == 0
    with pytest.raises(RuntimeError, match="something else"):
        batch_size._shrink(broken, 4)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux tells there what memory can be had")
def test_memory_that_caches_files_can_be_had():
    """What the cache of files holds is not free, but the system gives it back."""
    free, total = batch_size._memory_bytes()
    known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert abs(free - 1024 * int(known["MemAvailable"].split()[0])) < 0.1 * total and free <= total


def test_the_largest_batch_leaves_the_model_as_it_is(monkeypatch):
    model, config = TrajectoryFCN(**TINY), TrainConfig(device="cpu")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert largest_batch(model, TASK, CLIPS, config, most=3) == 3  # real steps, on this machine
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    monkeypatch.setattr(batch_size, "_grow", lambda step, most: 0)
    with pytest.raises(MemoryError, match="not even one clip fits"):
        largest_batch(model, TASK, CLIPS, config)
