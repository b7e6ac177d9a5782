"""The pose network and its conditioning: counts, shapes, twins that start alike, policies, errors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from flowlib.models.film import CHANNELS, Film
from flowlib.models.pose import FILM, SHAPES, PoseNet
from flowlib.training.checkpoints import check_architecture, describe_model

ACTIONS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.3, 0.3, 0.4], [0, 0, 1]])
TINY = {"size": 32, "stages": (8, 8, 16, 16, 16), "blocks": 2, "head": 12, "components": 5}


def made(seed: int = 0, **options) -> PoseNet:
    torch.manual_seed(seed)
    return PoseNet(**TINY | options)


def crops(count: int = 4, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    "name, size, count",
    [("deepprior++", 128, 18_713_598), ("deepprior++", 64, 6_130_686), ("small", 64, 1_419_774)],
)
def test_the_networks_have_as_many_parameters_as_the_plan(name, size, count):
    assert sum(parameter.numel() for parameter in PoseNet.named(name, size=size).parameters()) == count


def test_the_default_is_the_full_plan():
    assert {name: PoseNet().config[name] for name in SHAPES["deepprior++"]} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in SHAPES["deepprior++"].items()
    }


@given(size=st.sampled_from([16, 32, 48, 80]), count=st.integers(1, 3))
def test_the_head_takes_what_size_the_crop_has(size, count):
    prediction = made(size=size)(crops(count + 1, size))
    assert prediction.coefficients.shape == (count + 1, 5) and prediction.joints.shape == (count + 1, 21, 3)


def test_joints_are_the_mean_and_the_components_times_the_coefficients():
    model, generator = made(), torch.Generator().manual_seed(3)
    components, mean = torch.randn(5, 63, generator=generator), torch.randn(63, generator=generator)
    model.set_basis(components, mean)
    prediction = model.eval()(crops())
    expected = (mean + prediction.coefficients @ components).reshape(4, 21, 3)
    assert torch.allclose(prediction.joints, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected shapes \[\[5, 63\], \[63\]\], got \[\[5, 62\], \[63\]\]"):
        model.set_basis(components[:, :62], mean)


def test_the_basis_is_kept_but_not_trained_unless_asked_for():
    fixed, trained = made(), made(train_basis=True)
    assert not {"basis", "mean"} & dict(fixed.named_parameters()).keys()
    assert {"basis", "mean"} <= dict(trained.named_parameters()).keys()
    assert fixed.state_dict().keys() == trained.state_dict().keys()
    trained.load_state_dict(fixed.state_dict())


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("options", [*({"film": (place,)} for place in FILM), {"film": FILM, "concat": "linear"}])
def test_conditioned_equals_unconditioned_at_the_start(options, mode):
    plain, conditioned = made().train(mode), made(num_actions=3, **options).train(mode)
    torch.manual_seed(5)
    expected = plain(crops()).coefficients
    torch.manual_seed(5)
    assert torch.equal(conditioned(crops(), ACTIONS).coefficients, expected)


@pytest.mark.parametrize("options", [*({"film": (place,)} for place in FILM), *({"concat": c} for c in CHANNELS[1:])])
def test_every_way_of_conditioning_learns_to_listen(options):
    model = made(num_actions=3, dropout=0.0, **options)
    before = model.eval()(crops(), ACTIONS).coefficients
    changed = model(crops(), ACTIONS.roll(1, 0)).coefficients
    assert torch.equal(before, changed)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    (model.train()(crops(), ACTIONS).coefficients ** 2).sum().backward()
    optimizer.step()
    first, second = (model.eval()(crops(), action).coefficients for action in (ACTIONS, ACTIONS.roll(1, 0)))
    assert not torch.allclose(first, second, atol=1e-6)


def test_residual_film_has_two_layers_a_group_and_norms_without_a_scale():
    model = made(num_actions=3, film=("residual",), blocks=3)
    assert sum(isinstance(module, Film) for module in model.modules()) == 8
    branches = [m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and ".branch." in name]
    assert branches and all(not norm.affine for norm in branches)
    skips = [m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and ".skip." in name]
    assert skips and all(norm.affine for norm in skips)


def test_frozen_norms_and_dropout_stay_in_evaluation_mode():
    model = made(batch_norm="frozen")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    whole = model.train()(crops()).coefficients
    alone = torch.cat([model(one[None]).coefficients for one in crops()])
    assert model.training and torch.allclose(whole, alone, atol=1e-5)
    assert torch.equal(model.eval()(crops()).coefficients, whole)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_trained_norms_use_the_batch_and_group_norm_does_not():
    trained, grouped = made(dropout=0.0).train(), made(dropout=0.0, batch_norm="group").train()
    for model, equal in ((trained, False), (grouped, True)):
        halves = torch.cat([model(part).coefficients for part in crops().chunk(2)])
        assert torch.allclose(model(crops()).coefficients, halves, atol=1e-5) == equal
    assert not [module for module in grouped.modules() if isinstance(module, nn.BatchNorm2d)]


def test_a_network_is_made_again_from_its_config():
    model = made(num_actions=3, film=("linear", "output"), concat="embedding", batch_norm="group")
    again = PoseNet(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(crops(), ACTIONS).joints, again.eval()(crops(), ACTIONS).joints)
    check_architecture("a", {"model": describe_model(model)}, again)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 50}, "size: expected a multiple of 16, got 50"),
        ({"stages": (8, 8)}, "stages: expected 5 multiples of 4"),
        ({"components": 64}, "components: expected up to 63, three for each joint, got 64"),
        ({"film": ("head",), "num_actions": 3}, "film: expected places among input, residual, linear, output"),
        ({"film": ("linear",)}, "num_actions: expected 0 without film"),
        ({"num_actions": 3}, "num_actions: expected 0 without film"),
        ({"concat": "both"}, "concat: expected one of none, index, embedding, linear, got 'both'"),
        ({"batch_norm": "off"}, "batch_norm: expected one of train, frozen, group, got 'off'"),
        ({"dropout": 1.0}, "dropout: expected a share below 1"),
        ({"blocks": 0}, "blocks: expected 1 or more"),
    ],
)
def test_arguments_outside_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PoseNet(**TINY | options)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"net: expected one of deepprior\+\+, small, got 'large'"):
        PoseNet.named("large")


@pytest.mark.parametrize(
    "action, message",
    [
        (None, r"action: expected probabilities \[4 3\], got none"),
        (ACTIONS[:2], r"got \[2, 3\]"),
        (2 * ACTIONS, "action: expected probabilities that sum to 1, got a sum 1 off"),
        (torch.tensor([[1.5, -0.5, 0.0]]).repeat(4, 1), "or below 0"),
        (torch.full((4, 3), float("nan")), "sum nan off"),
    ],
)
def test_an_action_is_checked(action, message):
    with pytest.raises(ValueError, match=message):
        made(num_actions=3, film=("linear",))(crops(), action)


def test_an_unconditioned_network_takes_no_action():
    with pytest.raises(ValueError, match="action: expected none, for the model has no actions"):
        made()(crops(), ACTIONS)


@pytest.mark.parametrize("wrong", [crops(2, 48), crops()[:, 0], crops().expand(-1, 3, -1, -1), crops().byte()])
def test_crops_are_checked(wrong):
    with pytest.raises(ValueError, match=r"crops: expected floating \[B 1 32 32\], got"):
        made()(wrong)
