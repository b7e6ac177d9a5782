"""Several futures: where they start, what stays as it was, the latent variable's prior and posterior, bad input."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.flow import DISFlow
from flowlib.models.baselines import ConstantVelocity, ManyGains, MotionDraws, ZeroMotion
from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.futures import (
    GAINS,
    LATENTS,
    MOST_FUTURES,
    MOTION_CELLS,
    Departures,
    _modulated,
    add_futures,
    anchors,
    motion_cells,
    velocity_gains,
)
from flowlib.models.guided import GuidedTrajectories, load_default
from flowlib.models.one_frame import OneFrameTrajectories
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.synthetic import open_future_scene, synthetic_clip

NARROW = {"widths": (16, 16, 16, 16), "cells": 1000}
SIZE = (64, 96)


def pictures(frames, seed=0):
    clip = synthetic_clip(8, SIZE, seed, camera="linear")[0]
    return torch.from_numpy(np.ascontiguousarray(clip[list(frames)].transpose(0, 3, 1, 2)))[None]


def made(kind, seed=0, **options):
    if kind == "guided, from velocity":
        return made("guided", seed, modes_from="velocity", **options)
    torch.manual_seed(seed)
    if kind == "guided":
        return GuidedTrajectories(**NARROW | options)
    return OneFrameTrajectories(**{"weights": "none"} | NARROW | options)


def stirred(model, amount=0.3):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += amount * torch.randn_like(parameter) * parameter.numel() ** -0.25
    return model


def images_of(model, seed=0):
    return pictures(model.input_frames, seed)


def motion(seed=0, B=1):
    return torch.randn(B, 8, 3, *MOTION_CELLS, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_untrained_modes_are_gains_of_the_one_answer_and_the_first_choice_is_that_answer():
    """Those of checkpoints from before modes could start from constant velocity."""
    one = load_default().eval()
    several = GuidedTrajectories(**one.config, futures=5).eval()
    several.load_state_dict(one.state_dict(), strict=False)
    images = pictures((0, 3))
    answer, found = one(images), several(images)
    for future, gain in zip(found.futures[0], GAINS):
        torch.testing.assert_close(future, gain * answer.displacement[0])
    assert torch.equal(found.displacement, answer.displacement) and torch.equal(found.log_scale, answer.log_scale)
    assert anchors(5) == list(GAINS) and anchors(1) == [1.0] and len(anchors(8)) == 8
    for K in range(1, MOST_FUTURES + 1):
        assert anchors(K) == sorted(set(anchors(K))) and anchors(K).count(1.0) == 1, (
            "one goes on as the one answer does"
        )


@torch.no_grad()
@pytest.mark.parametrize("count", [2, 5])
def test_modes_from_velocity_are_the_one_answer_and_gains_of_constant_velocity(count):
    one, several = load_default().eval(), add_futures(load_default(), count).eval()
    images = pictures((0, 3))
    answer, found = one(images), several(images)
    linear = ConstantVelocity(DISFlow("wide"), input_frames=(0, 3))(images).displacement[0]
    assert found.futures.shape[1] == count and several.config["modes_from"] == "velocity"
    for future, gain in zip(found.futures[0, 1:], velocity_gains(count - 1)):
        torch.testing.assert_close(future, gain * linear, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.displacement, answer.displacement) and torch.equal(found.log_scale, answer.log_scale)


def test_what_modes_learn_leaves_the_one_answer_among_them():
    one, several = load_default().eval(), stirred(add_futures(load_default(), 3).many)
    model = add_futures(load_default(), 3).eval()
    model.many.load_state_dict(several.state_dict())
    images = pictures((0, 3))
    with torch.no_grad():
        answer, found = one(images), model(images)
    torch.testing.assert_close(found.futures[:, 0], answer.displacement)
    assert (found.futures[:, 1:] - answer.displacement[:, None]).abs().amax(dim=(0, 2, 3, 4, 5)).min() > 0.1


@pytest.mark.parametrize(
    "kind, latent", [*product(["guided", "one frame"], LATENTS), ("guided, from velocity", "none")]
)
@torch.no_grad()
def test_every_kind_gives_futures_with_weights_and_its_likeliest_one(kind, latent):
    model = stirred(made(kind, futures=3, latent=latent)).eval()
    found = model(images_of(model))
    assert found.futures.shape == (1, 3, 8, 2, *SIZE) and found.weights.shape == (1, 3)
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(1))
    assert torch.equal(found.displacement[0], found.futures[0, found.weights[0].argmax()])
    assert (found.futures[:, :, 0] == 0).all()
    apart = [(found.futures[0, i] - found.futures[0, j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(apart) > 0.01
    assert torch.equal(model(images_of(model)).futures, found.futures)  # draws are the same each time


@torch.no_grad()
def test_a_batch_is_its_clips_one_by_one():
    model = stirred(made("guided", futures=4)).eval()
    images = torch.cat([pictures((0, 3), seed) for seed in range(2)])
    together = model(images)
    alone = torch.cat([model(one[None]).futures for one in images])
    torch.testing.assert_close(together.futures, alone, atol=1e-3, rtol=0)


@torch.no_grad()
def test_modes_of_one_frame_and_of_the_fcn_start_in_different_directions():
    found = made("one frame", futures=2).eval()(pictures((0,)))
    ends = found.futures[0, :, -1].flatten(2).mean(dim=2)
    assert found.futures[0, :, -1].flatten(2).std(dim=2).max() < 1e-4  # everywhere alike
    torch.testing.assert_close(ends[0], -ends[1])
    assert ends.norm(dim=1).min() > 1
    torch.manual_seed(0)
    options = {"backbone": "lraspp_mobilenet_v3_large", "weights": "none", "futures": 2}
    ends = TrajectoryFCN(**options).eval()(pictures((0,))).futures[0, :, -1].flatten(2).mean(dim=2)
    assert (ends[0] - ends[1]).norm() > 0.5 and torch.dot(ends[0], ends[1]) < 0


def test_the_config_makes_the_model_again_and_one_answer_has_the_config_it_had():
    assert "futures" not in made("guided").config and made("guided").many is None
    model = stirred(made("guided", futures=2, latent="cvae")).eval()
    again = GuidedTrajectories(**model.config).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images_of(model)).futures, model(images_of(model)).futures)
    network = TrajectoryFCN(weights="none", backbone="lraspp_mobilenet_v3_large")
    assert "futures" not in network.config and network.channels == 24


@pytest.mark.parametrize(
    "kind, latent", [*product(["guided", "one frame"], LATENTS), ("guided, from velocity", "none")]
)
def test_every_parameter_learns(kind, latent):
    model = stirred(made(kind, futures=3, latent=latent)).train()
    found = model(images_of(model), motion())
    assert isinstance(found, Departures) and found.futures is None
    futures, weights = found.each_future()
    loss = futures.square().mean() + found.log_scale.mean() + found.visibility_logits.square().mean()
    loss = loss + weights[:, 0].log().sum() + (0 if found.kl is None else found.kl.sum())
    loss.backward()
    frozen = {"early", "late"} if kind == "one frame" else set()
    still = [
        name
        for name, one in model.named_parameters()
        if name.split(".")[0] not in frozen and (one.grad is None or not one.grad.any())
    ]
    if latent == "ae":  # the posterior's spread is not used, there is nothing it would be kept to
        assert still == []
        half = len(model.many.posterior.bias) // 2
        assert not model.many.posterior.bias.grad[half:].any()
    else:
        assert still == []


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), x=st.integers(1, SIZE[1] - 2), y=st.integers(1, SIZE[0] - 2), driven=st.booleans())
def test_futures_read_on_the_grid_in_training_are_those_of_the_pixels(seed, x, y, driven):
    generator = torch.Generator().manual_seed(seed)
    B, K, S = 1, 2, 3
    displacement = torch.randn(B, S, 2, *SIZE, generator=generator)
    pace, departure = (
        torch.randn(B, K, S, generator=generator),
        torch.randn(B, K, S, 2, 16, 24, generator=generator),
    )
    logits, weights = torch.zeros(B, S, *SIZE), torch.full((B, K), 0.5)
    told = {"weights": weights, "pace": pace, "departure": departure}
    if driven:
        told |= {"drive": torch.randn(B, K, S, generator=generator), "velocity": displacement[:, -1]}
    coarse = Departures(displacement, logits, (0, 1, 2), **told)
    dense = TrajectoryPrediction.of_futures(*coarse.each_future(), logits, (0, 1, 2))
    xy = torch.tensor([[[float(x), float(y)]]])
    torch.testing.assert_close(coarse.futures_at(xy), dense.futures_at(xy), atol=1e-4, rtol=1e-4)


def test_the_divergence_is_that_of_the_two_normal_distributions():
    model = stirred(made("guided", futures=2, latent="cvae"), 0.1).train()
    normals = []
    for layer in (model.many.prior, model.many.posterior):
        layer.register_forward_hook(lambda module, inputs, output: normals.append(output.detach().double().chunk(2, 1)))
    found = model(images_of(model), motion())
    (prior, own) = (torch.distributions.Normal(mean, spread.exp()) for mean, spread in normals)
    expected = torch.distributions.kl_divergence(own, prior).sum(dim=1)
    torch.testing.assert_close(found.kl.detach().double(), expected, rtol=1e-4, atol=1e-4)
    plain = stirred(made("guided", futures=2, latent="vae"), 0.1).train()
    plain.many.posterior.register_forward_hook(lambda m, i, o: normals.append(o.detach().double().chunk(2, 1)))
    found = plain(images_of(plain), motion())
    own = torch.distributions.Normal(normals[-1][0], normals[-1][1].exp())
    expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(found.kl.detach().double(), expected, rtol=1e-4, atol=1e-4)
    assert (stirred(made("guided", futures=2, latent="ae")).train()(images_of(plain), motion()).kl == 0).all()


def test_in_training_one_code_of_the_posterior_is_decoded_and_batches_are_counted():
    model = made("guided", futures=4, latent="vae").train()
    for expected in (1, 2):
        found = model(images_of(model), motion())
        assert found.each_future()[0].shape[1] == 1 and int(found.batches) == expected
    assert int(GuidedTrajectories(**model.config).many.batches) == 0
    again = GuidedTrajectories(**model.config)
    again.load_state_dict(model.state_dict())
    assert int(again.many.batches) == 2  # a run that goes on warms up no second time
    assert model.eval()(images_of(model), motion()).futures.shape[1] == 4 and int(model.many.batches) == 2


@torch.no_grad()
def test_the_fcn_gives_futures_at_its_pictures_size():
    torch.manual_seed(0)
    options = {"backbone": "lraspp_mobilenet_v3_large", "weights": "none", "log_scale": True, "futures": 3}
    for working_size in (None, (32, 48)):
        model = stirred(TrajectoryFCN(**options, working_size=working_size)).eval()
        found = model(pictures((0,)))
        assert found.futures.shape == (1, 3, 8, 2, *SIZE) and found.log_scale.shape == (1, 8, *SIZE)
        torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(1))
        assert (found.futures[:, :, 0] == 0).all() and (found.futures[0, 0] - found.futures[0, 1]).abs().max() > 0.01
        assert torch.equal(found.displacement[0], found.futures[0, found.weights[0].argmax()])


def test_the_true_motion_in_cells_is_the_mean_of_what_is_seen_there():
    tracks = torch.tensor([[[1.0, 1.0], [2.0, 1.0], [90.0, 60.0]], [[3.0, 1.0], [4.0, 5.0], [90.0, 64.0]]])
    visibility = torch.tensor([[True, True, True], [True, False, True]])
    queries = torch.cat([torch.zeros(3, 1), tracks[0]], dim=1)
    found = motion_cells(tracks, visibility, queries, SIZE)
    assert found.shape == (2, 3, *MOTION_CELLS)
    assert found[1, :, 0, 0].tolist() == [2, 0, 0.5]  # the second point is hidden
    assert found[1, :, -1, -2].tolist() == [0, 4, 1] and found[1].abs().sum() == 2 + 0.5 + 4 + 1


@pytest.mark.parametrize("wrong", [0, 9, -1, True])
def test_a_number_of_futures_it_cant_have_is_named(wrong):
    message = r"futures: expected a whole number from 1 to 8, got"
    one = made("guided")
    for make in (
        lambda: GuidedTrajectories(futures=wrong),
        lambda: OneFrameTrajectories(weights="none", futures=wrong),
        lambda: TrajectoryFCN(weights="none", futures=wrong),
        lambda: add_futures(one, wrong),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_other_bad_arguments_are_named():
    with pytest.raises(ValueError, match="latent: expected one of none, ae, vae, cvae, got 'gan'"):
        GuidedTrajectories(latent="gan")
    with pytest.raises(ValueError, match="modes_from: expected one of answer, velocity, got 'rest'"):
        GuidedTrajectories(futures=3, modes_from="rest")
    five = made("guided", futures=5)
    assert add_futures(five, 5) is five
    with pytest.raises(ValueError, match=r"futures: expected 5 \(none\), as the model has, got 3 \(none\)"):
        add_futures(five, 3)
    with pytest.raises(ValueError, match="model: expected one that can have futures, got Linear"):
        add_futures(torch.nn.Linear(2, 2), 3)


# -------------------------------------------------------------------------------------------------- baselines


@torch.no_grad()
def test_gains_are_the_motion_times_each_and_their_shares_are_counted():
    made_by = ConstantVelocity(input_frames=(0, 3))
    images = pictures((0, 3))
    found, one = ManyGains(made_by)(images), made_by(images)
    assert torch.equal(found.futures[0, 1], 0.5 * one.displacement[0]) and (found.futures[0, 0] == 0).all()
    with pytest.raises(ValueError, match="weights: expected 5 of 0 or more that sum to 1"):
        ManyGains(made_by, weights=[0.5, 0.5])
    with pytest.raises(ValueError, match="gains: expected at least one"):
        ManyGains(made_by, gains=[])


def test_what_gains_are_worth_is_learned_from_clips():
    from fixtures.training_clips import make_clips

    clips = make_clips(6)
    fitted = ManyGains.fit(ConstantVelocity(num_frames=4, input_frames=(0, 1)), clips)
    assert sum(fitted.weights) == pytest.approx(1) and np.argmax(fitted.weights) in (2, 3, 4)  # all go on as they did
    assert len(fitted.scales) == 4 and min(fitted.scales) > 0
    found = fitted(torch.zeros(2, 2, 3, 32, 48))
    torch.testing.assert_close(found.log_scale[0, :, 0, 0].exp(), torch.tensor(fitted.scales))
    still = ManyGains.fit(ZeroMotion(4), clips)
    assert still.weights == pytest.approx([7 / 11] + [1 / 11] * 4)  # of equals the first counts


def test_draws_of_motions_are_those_of_the_training_clips():
    from fixtures.training_clips import make_clips

    clips = make_clips(6)
    drawn = MotionDraws.fit(clips, 3, seed=1)
    found = drawn(torch.zeros(2, 1, 3, 32, 48))
    assert found.futures.shape == (2, 3, 4, 2, 32, 48)
    for way, clip in zip(found.futures[0], drawn.clips):
        xy = torch.from_numpy(clip.truth.queries[None, :, 1:])
        moved = TrajectoryPrediction(way[None], found.visibility_logits[:1], found.frames).at(xy)[0][0]
        assert np.abs(moved.numpy() - clip.truth.displacement).mean() < 0.2
    assert MotionDraws.fit(clips, 3, seed=1).describe() == drawn.describe() != MotionDraws.fit(clips, 3).describe()
    with pytest.raises(ValueError, match="futures: expected 1 to 6, as many as there are clips, got 7"):
        MotionDraws.fit(clips, 7)


@pytest.mark.parametrize("kind", ["reverse", "fork"])
def test_two_futures_of_a_scene_have_one_first_frame(kind):
    one, other = (open_future_scene(8, SIZE, 3, kind=kind, future=future) for future in (0, 1))
    assert (one.render(0) == other.render(0)).all() and (one.render(1) != other.render(1)).any()
    queries = np.array([[0, x, y] for x in range(0, SIZE[1], 6) for y in range(0, SIZE[0], 6)], np.float32)
    first, second = (scene.tracks(queries).displacement[-1] for scene in (one, other))
    moved = np.linalg.norm(first, axis=-1) > 0.1
    assert moved.any()
    np.testing.assert_allclose(first[moved, 0], -second[moved, 0], atol=1e-3)
    np.testing.assert_allclose(first[:, 1], second[:, 1], atol=1e-3)
    assert math.isclose(np.linalg.norm(first, axis=-1).max(), 0.02 * SIZE[0] * 7, rel_tol=1e-3)
    for name, wrong in (("kind", {"kind": "split"}), ("future", {"future": 2})):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            open_future_scene(**wrong)


def test_a_prediction_goes_to_another_device_whole():
    found = ManyGains(ZeroMotion(4))(torch.zeros(1, 1, 3, 8, 8)).on("cpu")
    assert found.futures.shape[1] == 5 and replace(found, futures=None, weights=None).each_future()[0].shape[1] == 1


@torch.no_grad()
def test_codes_enter_as_film_has_it():
    model = stirred(made("guided", futures=3))
    x, codes = torch.randn(2, 1, 16, 4, 5), torch.randn(2, 3, 3)
    expected = torch.stack([model.many.first(x[:, 0], codes[:, k]) for k in range(3)], dim=1)
    torch.testing.assert_close(_modulated(model.many.first, x, codes), expected)
