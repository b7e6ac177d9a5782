"""Several futures as a task: the loss and the metrics against what they are by definition, and a training."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.training_clips import SIZE, TINY, make_clip, make_clips

from flowlib.clips import ClipSample
from flowlib.evaluation import EvalConfig, evaluate
from flowlib.models.baselines import ConstantVelocity, ManyGains, MotionDraws, ZeroMotion
from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.futures import MOTION_CELLS
from flowlib.models.guided import GuidedTrajectories
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.futures import FuturesTask, latent_experiments
from flowlib.tasks.futures.loss import futures_counts, futures_sums
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.tasks.trajectories.batch import Frames, make_batch, make_example
from flowlib.tasks.trajectories.loss import Targets, loss_sums
from flowlib.training import TrainConfig, fit, load_checkpoint, run_experiments
from flowlib.training.checkpoints import load_task

CLIPS = make_clips(5)
SMALL = {"num_frames": 4, "input_frames": (0, 1), "widths": (8, 8, 8, 8), "cells": 96}
QUICK = {"batch_size": 2, "num_workers": 0, "device": "cpu", "validate_every": 100}


def batch_of(*indices):
    return make_batch([make_example(CLIPS[i], Frames((0,), None)) for i in indices])


def prediction_of(steps, weights, B=2, S=4, log_scale=0.0):
    """Futures in which everything moves by `steps` (x, y) pixels a frame."""
    time = torch.arange(S)[:, None, None, None]
    futures = torch.stack([time * torch.tensor(step)[:, None, None] for step in steps]).expand(-1, -1, -1, *SIZE)
    futures = futures.expand(B, -1, -1, -1, -1, -1).clone()
    told = torch.tensor(weights).expand(B, -1)
    spread = None if log_scale is None else torch.full((B, S, *SIZE), log_scale)
    return TrajectoryPrediction.of_futures(futures, told, torch.zeros(B, S, *SIZE), tuple(range(S)), spread)


def test_several_futures_are_not_learned_relative_to_a_clips_error(refuses):
    with refuses("loss: expected another than 'relative' with several futures"):
        FuturesTask(loss="relative")


def test_with_one_future_the_loss_is_that_of_trajectories():
    targets = Targets.of(batch_of(0, 1))
    one = replace(prediction_of([(0.5, 0.2)], [1.0]), futures=None, weights=None)
    for options in ({"loss": "l1"}, {"loss": "laplace_2d", "scale": 3.0}, {"masked": False}):
        sums, plain = futures_sums(one, targets, **options), loss_sums(one, targets, **options)
        torch.testing.assert_close(sums[:4], plain)
        assert sums[4] == sums[2] and sums[5] == sums[6] == 0
    torch.testing.assert_close(futures_counts(targets, True)[:4], targets.counts(True))


def test_the_best_future_of_each_clip_has_the_loss_but_for_what_losers_share():
    batch = batch_of(0, 1)
    targets = Targets.of(batch)
    own = [CLIPS[i]["tracks"].numpy()[-1] - CLIPS[i]["queries"].numpy()[:, 1:] for i in (0, 1)]
    steps = [tuple(np.median(moved, axis=0).tolist()) for moved in own]  # each clip's own camera, over three frames
    steps = [(x / 3, y / 3) for x, y in steps]
    found = prediction_of(steps, [0.3, 0.7])
    sums = futures_sums(found, targets, loss="l1", relaxed=0.1)
    errors = found.futures_at(targets.positions) - targets.displacement[:, None]
    seen = targets.measured[:, None]
    each = torch.where(seen, errors.abs().mean(dim=-1), 0.0).sum(dim=(2, 3))
    pixels = torch.where(seen, errors.norm(dim=-1), 0.0).sum(dim=(2, 3))
    assert pixels.argmin(dim=1).tolist() == [0, 1]
    torch.testing.assert_close(sums[0], 0.9 * (each[0, 0] + each[1, 1]) + 0.1 * (each[0, 1] + each[1, 0]))
    torch.testing.assert_close(sums[2], pixels[:, 1].sum())  # the likelier one
    torch.testing.assert_close(sums[4], pixels[0, 0] + pixels[1, 1])
    assert float(sums[5]) == pytest.approx(-math.log(0.3) - math.log(0.7))


def test_sums_add_up_over_batches_and_clips_without_anything_seen_count_for_nothing():
    found = prediction_of([(1.0, 0.0), (-1.0, 0.0)], [0.5, 0.5], B=3)
    batch = batch_of(0, 1, 2)
    batch["visibility"] = batch["visibility"].clone()
    batch["visibility"][1, 1:] = False
    targets = Targets.of(batch)
    whole = futures_sums(found, targets)
    assert futures_counts(targets, True)[4] == 2 and float(whole[5]) == pytest.approx(2 * math.log(2))
    parts = []
    for i in range(3):
        one = {key: value[i : i + 1] for key, value in batch.items() if isinstance(value, torch.Tensor)}
        alone = prediction_of([(1.0, 0.0), (-1.0, 0.0)], [0.5, 0.5], B=1)
        parts.append(futures_sums(alone, Targets.of(one)))
    torch.testing.assert_close(sum(parts), whole)


def answer_of(found, clip, task=None):
    task = task or FuturesTask()
    case = task.case(ClipSample.of(clip))
    one = TrajectoryPrediction(**{k: v if k == "frames" or v is None else v[:1] for k, v in vars(found).items()})
    return task, task.answer(one, case)


def value(task, answer, name):
    metric = task.metric(name)
    return metric.function(answer) if answer.available.issuperset(metric.needs) else float("nan")


def test_the_metrics_are_what_they_are_by_definition():
    found = prediction_of([(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)], [0.5, 0.25, 0.25], B=1, log_scale=0.3)
    task, answer = answer_of(found, CLIPS[0])
    truth = ClipSample.of(CLIPS[0]).truth
    moved = found.futures_at(torch.from_numpy(truth.queries[None, :, 1:]))[0].numpy()
    errors, seen = np.linalg.norm(moved - truth.displacement, axis=-1)[:, 1:], truth.visibility[1:]
    ade = np.array([one[seen].mean() for one in errors])
    assert value(task, answer, "min_ade") == pytest.approx(ade.min())
    assert value(task, answer, "ade") == pytest.approx(ade[0], rel=1e-5)
    assert value(task, answer, "expected_ade") == pytest.approx(ade @ [0.5, 0.25, 0.25])
    assert value(task, answer, "best_weight") == [0.5, 0.25, 0.25][ade.argmin()]
    best = sum((errors[:, :, n] * seen[:, n]).sum(axis=1).min() for n in range(truth.num_points)) / seen.sum()
    assert value(task, answer, "min_ade_points") == pytest.approx(best)
    assert value(task, answer, "min_ade_points") <= value(task, answer, "min_ade")
    time = np.broadcast_to(np.arange(1, 4)[:, None], seen.shape)[seen].mean()
    assert value(task, answer, "diversity") == pytest.approx((math.sqrt(2) + 1 + 1) / 3 * time, rel=1e-5)
    b = math.exp(0.3)
    logs = [(-one[seen] / b - math.log(2 * math.pi * b * b)).sum() for one in errors]
    joint = np.logaddexp.reduce(np.array(logs) + np.log([0.5, 0.25, 0.25]))
    assert value(task, answer, "nll") == pytest.approx(-joint / seen.sum())


def test_one_answer_is_one_future_for_sure():
    found = replace(prediction_of([(1.0, 0.0)], [1.0], B=1, log_scale=None), futures=None, weights=None)
    task, answer = answer_of(found, CLIPS[1])
    ade = value(task, answer, "ade")
    for name in ("min_ade", "min_ade_points", "expected_ade"):
        assert value(task, answer, name) == pytest.approx(ade, rel=1e-5)
    assert value(task, answer, "diversity") == 0 and value(task, answer, "best_weight") == 1
    assert math.isnan(value(task, answer, "nll"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, "expected futures with their weights, got one without the other"),
        ({"weights": torch.tensor([[0.7, 0.7]])}, "expected weights of 0 or more that sum to 1"),
        ({"weights": torch.tensor([[1.5, -0.5]])}, "expected weights of 0 or more that sum to 1"),
        ({"futures": torch.full((1, 2, 4, 2, *SIZE), math.nan)}, "expected finite futures"),
    ],
)
def test_futures_that_are_none_are_refused_by_name(changes, message):
    class Wrong:
        input_frames = (0,)

        def __call__(self, images):
            return replace(prediction_of([(1.0, 0.0), (0.0, 1.0)], [0.5, 0.5], B=1), **changes)

    task = FuturesTask()
    with pytest.raises(ValueError, match=f"method 'wrong', clip 'c0': {message}"):
        task.predict(Wrong(), task.case(ClipSample.of(CLIPS[0])), "wrong")


@pytest.mark.parametrize("field", ["relaxed", "choice_weight", "kl_weight", "kl_warmup"])
def test_settings_out_of_range_are_named(field):
    with pytest.raises(ValueError, match=f"{field}: expected"):
        FuturesTask(**{field: -1})
    with pytest.raises(ValueError, match="relaxed: expected a share"):
        FuturesTask(relaxed=1.0)


def test_a_network_with_futures_trains_is_kept_and_compared(tmp_path):
    torch.manual_seed(0)
    model = TrajectoryFCN(**TINY, log_scale=True, futures=3)
    config = TrainConfig(steps=3, **QUICK)
    run = fit(model, FuturesTask(loss="laplace_2d"), CLIPS, make_clips(2, 50), config, folder=tmp_path / "run")
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"min_ade", "ade", "choice_loss", "kl"} <= lines[0].keys() and lines[0]["min_ade"] <= lines[0]["ade"]
    loaded, _ = load_checkpoint(run.best)
    assert isinstance(loaded, TrajectoryFCN) and loaded.futures == 3
    assert load_task(run.best) == FuturesTask(loss="laplace_2d")
    constant = ConstantVelocity(num_frames=4, input_frames=(0, 1))
    methods = {"model": loaded, "gains": ManyGains.fit(constant, CLIPS), "draws": MotionDraws.fit(CLIPS, 3)}
    methods |= {"still": ZeroMotion(4)}
    test = make_clips(4, 100)
    report = evaluate(methods, FuturesTask(), test, folder=tmp_path, config=EvalConfig(resamples=50), progress=False)
    assert report.best_baseline("min_ade") == "gains" and report.has("nll")
    assert report.estimate("gains", "min_ade").mean <= report.estimate("gains", "ade").mean
    assert "“gains”" in report.summary()[0] and "futures" in report.summary()[0]
    one = {"still": methods["still"], "model": loaded}
    report = evaluate(one, FuturesTask(), test, folder=tmp_path, config=EvalConfig(resamples=50), progress=False)
    assert report.summary()[0].startswith("The one future that “still” gives is"), "a method with one answer in front"
    assert np.isnan(report.estimate("still", "nll").mean)
    with pytest.raises(ValueError, match="expected a checkpoint of a model with futures=1, got one with futures=3"):
        fit(
            TrajectoryFCN(**TINY, log_scale=True), FuturesTask(loss="laplace_2d"), CLIPS, None,
            replace(config, steps=4), folder=run.folder,
        )  # fmt: skip
    with pytest.raises(ValueError, match="futures"):  # another K than that of the run's checkpoint
        other = TrajectoryFCN(**TINY, log_scale=True, futures=5)
        fit(
            other, FuturesTask(loss="laplace_2d"), CLIPS, make_clips(2, 50), replace(config, steps=4), folder=run.folder
        )


def test_auto_encoders_are_entries_of_one_list(tmp_path):
    changes = latent_experiments(3)
    assert list(changes) == ["modes", "ae", "vae", "cvae"]
    with pytest.raises(ValueError, match="futures: expected a whole number from 1 to 8, got 0"):
        latent_experiments(0)
    task = FuturesTask(loss="laplace_2d", kl_warmup=2)
    config = TrainConfig(name="futures", steps=2, **QUICK)
    table = run_experiments(
        GuidedTrajectories, task, CLIPS, make_clips(2, 50), changes, config, model=SMALL, runs=tmp_path
    )
    assert len(table) == 4 and all(row["status"] == "done" for row in table.rows), table
    for row in table.rows:
        lines = [json.loads(line) for line in (Path(row["folder"]) / "metrics.jsonl").read_text().splitlines()]
        assert (lines[1]["kl"] > 0) == (row["run"].endswith("vae"))


def test_a_killed_training_of_a_latent_variable_goes_on_as_if_it_had_not_been(tmp_path):
    def train(folder, *steps):
        for count in steps:
            torch.manual_seed(0)
            model = GuidedTrajectories(**SMALL, futures=2, latent="cvae")
            config = TrainConfig(steps=count, save_every=1, schedule="constant", **QUICK)
            run = fit(model, FuturesTask(loss="laplace_2d", kl_warmup=3), CLIPS, None, config, folder=folder)
        return load_checkpoint(run.last)[0].state_dict()

    whole, parts = train(tmp_path / "whole", 3), train(tmp_path / "parts", 2, 3)
    assert int(whole["many.batches"]) == 3
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_example_of_a_latent_model_tells_the_motion_and_others_do_not():
    task = FuturesTask(loss="laplace_2d")
    latent, modes = GuidedTrajectories(**SMALL, futures=2, latent="vae"), GuidedTrajectories(**SMALL, futures=2)
    example = task.example(CLIPS[0], task.inputs(latent), None)
    assert example["motion"].shape == (4, 3, *MOTION_CELLS)
    assert "motion" not in task.example(CLIPS[0], task.inputs(modes), None)
    assert "motion" not in task.example(make_clip(0), TrajectoryTask().inputs(modes), None)


def test_two_modes_part_where_two_futures_are_equally_likely():
    """The loss alone, on free fields: both futures are found, and their weights are even."""
    torch.manual_seed(0)
    clips = [
        {**CLIPS[0], "tracks": CLIPS[0]["queries"][:, 1:] + side * torch.arange(4.0)[:, None, None]} for side in (-1, 1)
    ]
    clips = [clip | {"visibility": torch.ones_like(CLIPS[0]["visibility"])} for clip in clips]
    targets = Targets.of(make_batch([make_example(clip, Frames((0,), None)) for clip in clips]))
    field, logits = (0.01 * torch.randn(1, 2, 4, 2, 1, 1)).requires_grad_(), torch.zeros(1, 2, requires_grad=True)
    optimiser = torch.optim.Adam([field, logits], 0.1)
    for _ in range(80):
        futures, weights = field.expand(2, -1, -1, -1, *SIZE), logits.softmax(dim=1).expand(2, -1)
        found = TrajectoryPrediction.of_futures(futures, weights, torch.zeros(2, 4, *SIZE), (0, 1, 2, 3))
        sums, counts = futures_sums(found, targets, loss="l1", relaxed=0.05), futures_counts(targets, True)
        optimiser.zero_grad()
        FuturesTask().total_loss(sums, counts).backward()
        optimiser.step()
    ends = field.detach()[0, :, -1, 0, 0, 0]
    assert sorted(ends.round().tolist()) == [-3, 3], ends
    assert float(weights.detach()[0, 0]) == pytest.approx(0.5, abs=0.1)
