"""The guided models: where they start, any frames and sizes, checkpoints, bad input."""

import re

import numpy as np
import pytest
import torch
from fixtures.synthetic_clips import SyntheticClips

from flowlib.flow import CachedFlow, DISFlow
from flowlib.models.baselines import ConstantVelocity
from flowlib.models.guided import DESIGNS, WEIGHTS, GuidedTrajectories, default_methods, load_default, robust_affine
from flowlib.models.one_frame import OneFrameTrajectories
from flowlib.models.unet import grid_size
from flowlib.synthetic import synthetic_clip
from flowlib.tasks.trajectories import TrajectoryTask

NARROW = {"widths": (16, 16, 16, 16), "cells": 1000}


def pictures(frames, seed=0, size=(96, 128), **options):
    options = {"num_frames": 8, "camera": "linear"} | options
    clip = synthetic_clip(size=size, seed=seed, **options)[0]
    return torch.from_numpy(np.ascontiguousarray(clip[list(frames)].transpose(0, 3, 1, 2)))[None]


def guided(seed=0, **options):
    torch.manual_seed(seed)
    return GuidedTrajectories(**NARROW | options).eval()


def stirred(model, amount=0.3):
    """The model with weights that have something to say, as after training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += amount * torch.randn_like(parameter) * parameter.numel() ** -0.25
    return model


@pytest.mark.parametrize("design", DESIGNS)
@torch.no_grad()
def test_untrained_it_is_constant_velocity_to_a_few_hundredths(design):
    images = pictures((0, 3))
    found = guided(design=design)(images)
    linear = ConstantVelocity(DISFlow("refined"), input_frames=(0, 3))(images)
    assert (found.displacement[:, 0] == 0).all()
    moved = linear.displacement.norm(dim=2).mean()
    assert moved > 1 and (found.displacement - linear.displacement).norm(dim=2).mean() < 0.04 * moved


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize(("frames", "num_frames"), [((0, 1), 2), ((0, 3), 8), ((0, 2, 5), 6), ((0, 1, 2, 3), 12)])
@torch.no_grad()
def test_any_input_frames_and_any_length(design, frames, num_frames):
    model = stirred(guided(design=design, input_frames=frames, num_frames=num_frames))
    found = model(pictures(frames, size=(70, 90), num_frames=max(frames) + 1))
    assert found.displacement.shape == (1, num_frames, 2, 70, 90) and found.frames == tuple(range(num_frames))
    assert found.log_scale.shape == found.visibility_logits.shape == (1, num_frames, 70, 90)
    assert all(torch.isfinite(part).all() for part in (found.displacement, found.log_scale, found.visibility_logits))


@torch.no_grad()
def test_a_batch_is_its_clips_one_by_one():
    model = stirred(guided())
    images = torch.cat([pictures((0, 3), seed) for seed in range(3)])
    together = model(images).displacement
    torch.testing.assert_close(
        together, torch.cat([model(one[None]).displacement for one in images]), atol=1e-3, rtol=0
    )


def learned(model):
    return [one for one in model.parameters() if one.requires_grad]


@pytest.mark.parametrize("design", DESIGNS)
def test_points_alone_are_what_all_pixels_are_there_and_teach_the_same(design):
    model = stirred(guided(design=design, input_frames=(0, 1, 3), trust=0.7))
    images = torch.cat([pictures((0, 1, 3), seed) for seed in (0, 3)])
    rng = np.random.default_rng(0)
    xy = torch.from_numpy(rng.integers(0, (128, 96), (2, 40, 2)).astype(np.float32))
    gradients = []
    for points in (None, xy):
        found = model(images, points=points)
        moved, logits = found.at(xy)
        loss = moved.square().mean() + found.scale_at(xy).mean() + logits.square().mean()
        gradients.append(torch.cat([one.flatten() for one in torch.autograd.grad(loss, learned(model))]))
        gradients[-1] = torch.cat([gradients[-1], moved.flatten(), logits.flatten(), found.scale_at(xy).flatten()])
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)
    between = xy + 0.4 * torch.from_numpy(rng.uniform(-1, 1, xy.shape).astype(np.float32)) * (xy > 0) * (xy < 95)
    with torch.no_grad():
        near, moved = (model(images, points=points).at(between)[0] for points in (between, None))
    typical = moved[:, 1:].norm(dim=-1).mean()
    assert 0 < (near - moved)[:, 1:].norm(dim=-1).mean() < 0.02 * typical  # other than bilinear between the pixels


def test_points_that_were_not_predicted_are_refused(refuses):
    found = guided()(pictures((0, 3)), points=torch.zeros(1, 5, 2))
    with refuses("xy: expected the 5 points that were predicted, got 4"):
        found.at(torch.zeros(1, 4, 2))


def test_a_training_asks_for_points_alone_and_learns_what_all_pixels_teach(monkeypatch):
    sample = SyntheticClips(motion="linear", camera="linear", grid=(12, 16))[0]
    task, losses = TrajectoryTask(loss="laplace_2d", visibility_weight=0.1), []
    for alone in (True, False):
        model = stirred(guided())
        asked: list = []
        model.register_forward_pre_hook(lambda _, __, named: asked.append(named.get("points")), with_kwargs=True)
        monkeypatch.setattr(GuidedTrajectories, "takes_points", alone)
        batch = task.collate([task.example(sample, task.inputs(model), None)])
        losses.append(task.total_loss(task.sums(model, batch, {"target_scale": 2.0}), task.counts(batch)))
        assert [points is not None for points in asked] == [alone]
    torch.testing.assert_close(*losses, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("design", DESIGNS)
def test_every_parameter_learns(design):
    model = stirred(guided(design=design, input_frames=(0, 1, 3))).train()
    found = model(pictures((0, 1, 3)))
    (found.displacement.square().mean() + found.log_scale.mean() + found.visibility_logits.square().mean()).backward()
    named = [(name, one.grad) for name, one in model.named_parameters() if one.requires_grad]
    assert [name for name, gradient in named if gradient is None or not gradient.any()] == []


@torch.no_grad()
def test_points_that_leave_the_picture_start_as_invisible():
    found = guided()(pictures((0, 3), camera="linear", seed=3, num_sprites=0))
    xy = torch.stack(torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="xy"))
    there = found.displacement[0] + xy
    gone = (there[:, 0] < -1) | (there[:, 0] > 128) | (there[:, 1] < -1) | (there[:, 1] > 96)
    assert gone[4:].any() and (found.visibility_logits[0][gone] < 0).all()


@pytest.mark.parametrize(("size", "grid"), [((192, 320), (48, 80)), ((360, 640), (48, 80)), ((720, 1280), (48, 80))])
def test_the_grid_has_about_as_many_cells_whatever_the_size(size, grid):
    assert np.abs(np.subtract(grid_size(size, 3840), grid)).max() <= 8


def test_the_cameras_motion_is_found_under_what_moves_before_it():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 40), indexing="ij")
    camera = torch.stack([2 + 0.5 * x, -1 + 0.3 * y])[None]
    flow = camera.clone()
    flow[:, :, 5:15, 10:25] += 8
    found = robust_affine(flow, (24, 40))
    assert (found - camera).abs().max() < 0.1


@torch.no_grad()
def test_one_frame_starts_at_zero_motion_and_can_learn_otherwise():
    model = OneFrameTrajectories(weights="none", **NARROW).eval()
    images = pictures((0,), size=(70, 90))
    assert (model(images).displacement == 0).all()
    found = stirred(model)(images)
    assert found.displacement.shape == (1, 8, 2, 70, 90) and found.displacement[:, 1:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_frames": (0,)}, "input_frames: expected 0 and one or more later frames"),
        ({"input_frames": (1, 3)}, "input_frames: expected 0"),
        ({"input_frames": (0, 3, 2)}, "ascending"),
        ({"input_frames": (0, 8)}, "below 8"),
        ({"flow": "pips"}, "flow: expected one of dis, dis refined, dis wide, raft"),
        ({"design": "best"}, "design: expected one of unet, recurrent, pretrained, local"),
        ({"widths": (48, 64)}, "widths: expected 4 multiples of 8"),
        ({"widths": (48, 64, 96, 127)}, "widths: expected 4 multiples of 8"),
        ({"cells": 3}, "cells: expected at least"),
        ({"trust": 1.5}, "trust: expected a number from 0 to 1"),
    ],
)
def test_arguments_it_cant_take_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GuidedTrajectories(**options)


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"images: expected shape \[B 2 3 H W\]"):
        guided()(torch.zeros(1, 3, 3, 64, 64))
    with pytest.raises(ValueError, match=r"images: expected shape \[B 1 3 H W\]"):
        OneFrameTrajectories(weights="none", **NARROW)(torch.zeros(1, 2, 3, 64, 64))


class CountingFlow:
    name = "counting"

    def __init__(self):
        self.calls, self.flow = 0, DISFlow()

    def __call__(self, first, second):
        self.calls += 1
        return self.flow(first, second)


def test_a_cached_flow_measures_a_pair_once_mirrored_too_and_on_disk(tmp_path):
    first, second = pictures((0, 3))[0].movedim(1, -1).numpy()
    counting = CountingFlow()
    cached = CachedFlow(counting, tmp_path)
    flow = cached(first, second)
    np.testing.assert_allclose(flow, counting.flow(first, second), atol=0.02)
    np.testing.assert_array_equal(cached(first, second), flow)
    mirrored = cached(first[:, ::-1], second[:, ::-1])
    np.testing.assert_array_equal(mirrored[0], -flow[0, :, ::-1])
    np.testing.assert_array_equal(mirrored[1], flow[1, :, ::-1])
    assert counting.calls == 1
    np.testing.assert_array_equal(CachedFlow(counting, tmp_path)(first, second), flow)
    assert counting.calls == 1
    cached(second, first)
    assert counting.calls == 2


def test_another_flow_guides_about_half_of_the_clips_in_training_and_none_in_evaluation():
    model, other = guided(), CountingFlow()
    model.other_flow = other
    images = torch.cat([pictures((0, 3), seed, size=(48, 64)) for seed in range(8)])
    model(images)
    assert other.calls == 0
    model.train()
    torch.manual_seed(0)
    model(images)
    assert 2 <= other.calls / 2 <= 6


@torch.no_grad()
def test_the_shipped_predictor_loads_and_moves_what_moves():
    model = load_default()
    assert model.trained_on and not model.training
    for seed in range(3):
        found = model(pictures((0, 3), seed, size=(192, 320)))
        assert found.displacement.shape == (1, 8, 2, 192, 320)
        assert found.displacement[0, 7].norm(dim=0).mean() > 1 and torch.isfinite(found.log_scale).all()


@torch.no_grad()
def test_the_shipped_futures_are_the_one_answer_and_slower_and_faster_ways():
    images = pictures((0, 3), size=(96, 128))
    one, five, short = load_default(), load_default(futures=5), load_default(futures=5, num_frames=6)
    answer, found = one(images), five(images)
    assert five.trained_on == one.trained_on and not five.training
    assert torch.equal(found.displacement, answer.displacement) and int(found.weights.argmax()) == 0
    far = found.futures[0, 1:, -1].norm(dim=1).mean(dim=(1, 2))
    assert (far.diff() > 0).all() and far[0] < 0.5 * far[-1], "from one that stops to one that speeds up"
    torch.testing.assert_close(short(images).futures, found.futures[:, :, :6])


@torch.no_grad()
def test_the_shipped_predictors_serve_shorter_clips_and_say_nothing_else():
    images = pictures((0, 3), size=(96, 128))
    whole, short = load_default()(images), load_default(num_frames=5)(images)
    torch.testing.assert_close(short.displacement, whole.displacement[:, :5])
    one = load_default(1, num_frames=3)(images[:, :1])
    torch.testing.assert_close(one.displacement, load_default(1)(images[:, :1]).displacement[:, :3])
    assert list(default_methods(8, (0, 3))) == ["flowlib's, two frames", "flowlib's, one frame"]
    assert list(default_methods(8, (0, 1))) == ["flowlib's, one frame"]
    assert default_methods(9, (0, 3)) == {}
    wrongs = [{"frames": 3}, {"num_frames": 9}, {"num_frames": 3}, {"frames": 1, "flow": "raft"}]
    wrongs += [{"futures": 3}, {"futures": 0}, {"frames": 1, "futures": 5}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="expected"):
            load_default(**wrong)


def test_the_shipped_files_are_small_and_say_what_they_are():
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert [file.stem for file in files] == ["guided_1f", "guided_2f", "guided_2f_futures"]
    assert sum(file.stat().st_size for file in files) < 8e6


@torch.no_grad()
def test_trust_is_the_share_of_what_was_learned():
    images = pictures((0, 3))
    found = {}
    for trust in (0.0, 0.5, 1.0):
        found[trust] = stirred(guided(trust=trust))(images).displacement
    linear = ConstantVelocity(DISFlow("refined"), input_frames=(0, 3))(images).displacement
    torch.testing.assert_close(found[0.0], linear, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[0.5], (found[1.0] + linear) / 2, atol=1e-3, rtol=0)
    assert (found[1.0] - linear).abs().max() > 0.5


def test_a_network_keeps_the_flow_that_it_learned_on():
    assert GuidedTrajectories().flow.name == "dis refined"
    assert GuidedTrajectories(flow="dis").flow.name == "dis medium"  # as checkpoints of before say
    for arguments, message in (
        ({"flow": "dis refined"}, "flow: expected dis or raft, got 'dis refined'"),
        ({"flow_weights": "raft.pth"}, "flow_weights: expected none with flow dis, got 'raft.pth'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            load_default(**arguments)
