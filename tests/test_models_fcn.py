"""TrajectoryFCN: shapes, the stem for n frames, normalisation inside, weights by word and path, the finer head."""

import numpy as np
import pytest
import requests
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.segmentation import fcn_resnet50, lraspp_mobilenet_v3_large

from flowlib.models import pretrained
from flowlib.models.backbones import TORCHVISION
from flowlib.models.fcn import (
    TrajectoryFCN,
    hold_later_frames,
    see_more_frames,
    stem_convolution,
    take_actions,
    widen,
)
from flowlib.models.heads import convex_upsample
from flowlib.models.pretrained import read_weights

SMALL = {"num_frames": 4, "backbone": "lraspp_mobilenet_v3_large", "weights": "none"}
WEIGHTS = "data/weights/resnet50_imagenet_backbone.pth"


def images(n=1, size=(48, 64), batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, n, 3, *size), generator=generator, dtype=torch.uint8)


def small(**options):
    torch.manual_seed(0)
    return TrajectoryFCN(**SMALL | options).eval()


@pytest.mark.parametrize("backbone", TORCHVISION)
@pytest.mark.parametrize("head", ["torchvision", "fine"])
@torch.no_grad()
def test_every_backbone_and_head_speaks_of_every_pixel_and_frame(backbone, head):
    model = TrajectoryFCN(num_frames=3, input_frames=(0, 2), backbone=backbone, head=head, weights="none").eval()
    prediction = model(images(2, (33, 47)))
    assert prediction.displacement.shape == (2, 3, 2, 33, 47)
    assert prediction.visibility_logits.shape == (2, 3, 33, 47)
    assert prediction.frames == (0, 1, 2) and prediction.log_scale is None
    assert (prediction.displacement[:, 0] == 0).all() and (prediction.displacement[:, 1:] != 0).any()
    assert set(model.parts) == {"stem", "second", "backbone", "head"}
    assert sum(map(len, model.parts.values())) == len(list(model.parameters()))


@torch.no_grad()
def test_the_last_frame_only_takes_three_channels():
    model = small(output="last")
    assert model.channels == 3
    prediction = model(images())
    assert prediction.displacement.shape == (2, 1, 2, 48, 64) and prediction.frames == (3,)


@torch.no_grad()
def test_the_laplace_scale_is_in_pixels_of_the_target_scale():
    model = small(log_scale=True)
    before = model(images()).log_scale
    model.target_scale.fill_(8.0)
    torch.testing.assert_close(model(images()).log_scale, before + np.log(8), atol=1e-5, rtol=0)
    assert before.shape == (2, 4, 48, 64)


@torch.no_grad()
def test_displacement_is_in_units_of_the_target_scale():
    model = small()
    before = model(images())
    model.target_scale.fill_(5.0)
    torch.testing.assert_close(model(images()).displacement, before.displacement * 5)
    assert torch.equal(model(images()).visibility_logits, before.visibility_logits)


@torch.no_grad()
def test_images_are_taken_as_they_are_and_normalised_inside():
    model = small()
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(model(images()).displacement, model(images().float()).displacement)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((images()[:, 0].float() / 255).movedim(1, -1) - mean) / std
    torch.testing.assert_close(seen[0].movedim(1, -1), expected, atol=1e-5, rtol=1e-5)


@given(n=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_widened_stem_answers_a_still_clip_as_its_rule_says(n, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, frame = torch.randn(5, 3, 3, 3, generator=generator), torch.randn(1, 3, 9, 9, generator=generator)
    still = frame.repeat(1, n, 1, 1)
    one = torch.nn.functional.conv2d(frame, weight)
    half = torch.tensor([n, 0, n, 0, n] if n > 1 else [1] * 5).reshape(5, 1, 1)  # differences of nothing
    for rule, factor in (("duplicate", n), ("mean", 1), ("zero", 1), ("difference", half)):
        wide = torch.nn.functional.conv2d(still, widen(weight, n, rule))
        torch.testing.assert_close(wide, one * factor, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["fcn_resnet50", "lraspp_mobilenet_v3_large"])
@torch.no_grad()
def test_a_zeroed_second_frame_changes_nothing(backbone):
    torch.manual_seed(0)
    one = TrajectoryFCN(num_frames=4, backbone=backbone, weights="none").eval()
    two = see_more_frames(one, (0, 3)).eval()
    pair = images(2)
    here, there = one(pair[:, :1]), two(pair)
    assert (here.displacement - there.displacement).abs().max() <= 1e-6
    assert (here.visibility_logits - there.visibility_logits).abs().max() <= 1e-6
    doubled = see_more_frames(one, (0, 3), "duplicate").eval()
    assert (here.displacement - doubled(pair).displacement).abs().max() > 1e-4


@torch.no_grad()
def test_only_differences_tell_forwards_from_backwards_before_training():
    there, back = images(2), images(2).flip(1)
    for rule, tells in (("duplicate", False), ("mean", False), ("difference", True)):
        model = small(input_frames=(0, 3), conv1=rule)
        apart = (model(there).displacement - model(back).displacement).abs().max()
        assert (apart > 1e-4) == tells


def test_held_frames_take_no_gradient_and_others_do():
    model = small(input_frames=(0, 3), conv1="zero")
    hold_later_frames(model)
    model(images(2)).displacement.square().sum().backward()
    gradient = stem_convolution(model).weight.grad
    assert (gradient[:, 3:] == 0).all() and (gradient[:, :3] != 0).any()


@torch.no_grad()
def test_a_working_size_answers_at_the_size_of_the_images():
    model, plain = small(working_size=(24, 32)), small()
    frame = images()
    prediction = model(frame)
    assert prediction.displacement.shape == (2, 4, 2, 48, 64)
    # The same network at its own size says the same in units of the target scale, not of smaller pixels.
    small_frame = torch.nn.functional.interpolate(
        frame[:, 0].float(), (24, 32), mode="bilinear", align_corners=False, antialias=True
    )
    coarse = plain(small_frame[:, None])
    torch.testing.assert_close(prediction.displacement.mean(), coarse.displacement.mean(), rtol=0.05, atol=1e-6)


@given(factor=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_convex_upsampling_stays_within_the_neighbours_and_keeps_constants(factor, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(2, 3, 5, 4, generator=generator)
    mixture = torch.randn(2, 9 * factor**2, 5, 4, generator=generator) * 3
    fine = convex_upsample(coarse, mixture, factor)
    assert fine.shape == (2, 3, 5 * factor, 4 * factor)
    padded = torch.nn.functional.pad(coarse, (1, 1, 1, 1), mode="replicate")
    highest = torch.nn.functional.max_pool2d(padded, 3, 1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    assert (fine <= highest + 1e-5).all()
    constant = convex_upsample(torch.ones_like(coarse), mixture, factor)
    torch.testing.assert_close(constant, torch.ones_like(constant))


def test_convex_upsampling_puts_the_centre_cell_where_it_belongs():
    coarse = torch.arange(6.0).reshape(1, 1, 2, 3)
    mixture = torch.full((1, 9 * 4, 2, 3), -50.0)
    mixture[:, 4 * 4 : 5 * 4] = 50.0  # the middle one of the nine
    expected = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(convex_upsample(coarse, mixture, 2), expected)


@torch.no_grad()
def test_the_fine_head_can_place_an_edge_inside_a_cell_where_torchvisions_is_a_straight_line():
    curvature = {}
    for head in ("torchvision", "fine"):
        model = small(head=head)
        field = model(images(seed=1)).displacement[:, 1:]
        second = field[..., 16:-16, 16:-16].diff(n=2, dim=-1).abs()
        curvature[head] = float((second > 1e-3 * field.abs().mean()).float().mean())
    assert curvature["torchvision"] < 0.5 < curvature["fine"]


def test_frozen_batch_norm_is_the_same_in_training_and_validation():
    model = small(batch_norm="frozen")
    means = [m.running_mean.clone() for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        calm, trained = model(images()).displacement, model.train()(images()).displacement
    torch.testing.assert_close(calm, trained)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(torch.equal(m.running_mean, mean) for m, mean in zip(norms, means))


def test_batch_norm_of_held_layers_holds_its_statistics():
    model = small()
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    model.train()
    modes = {name.split(".")[0]: m.training for name, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert modes == {"backbone": False, "head": True}


def test_group_norm_leaves_no_statistics_and_keeps_pretrained_scales(tmp_path):
    state = TrajectoryFCN(**SMALL).backbone.state_dict()
    state["0.1.weight"] = torch.rand(16)
    torch.save(state, tmp_path / "weights.pth")
    model = small(batch_norm="group", weights=str(tmp_path / "weights.pth"))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    assert torch.equal(model.backbone["0"][1].weight, state["0.1.weight"])
    with torch.no_grad():
        single = model.train()(images(batch=1)).displacement
        pair = model(torch.cat([images(batch=1), images(batch=1, seed=1)])).displacement
    torch.testing.assert_close(single, pair[:1], atol=1e-4, rtol=1e-3)  # other clips of a batch do not matter


def test_imagenet_weights_load_by_path_and_stride_where_they_were_trained(shared):
    path = shared / WEIGHTS
    models = {s: TrajectoryFCN(weights=str(path), stride_in=s, num_frames=3).eval() for s in ("3x3", "1x1")}
    state = read_weights(path)
    for model in models.values():
        assert model.weights == str(path)
        assert torch.equal(model.backbone.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
        assert torch.equal(model.backbone.layer1[0].bn1.running_var, state["layer1.0.bn1.running_var"])
        assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
    block = models["1x1"].backbone.layer2[0]
    assert block.conv1.stride == (2, 2) and block.conv2.stride == (1, 1)
    assert models["3x3"].backbone.layer2[0].conv2.stride == (2, 2)


def test_a_segmentation_file_fills_the_head_but_its_last_layer(tmp_path):
    torch.manual_seed(1)
    coco = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21)
    torch.save(coco.state_dict(), tmp_path / "coco.pth")
    model = TrajectoryFCN(weights=str(tmp_path / "coco.pth"), input_frames=(0, 3), conv1="mean")
    assert torch.equal(model.head.classifier[0].weight, coco.classifier[0].weight)
    assert model.head.classifier[4].out_channels == 24
    torch.testing.assert_close(model.backbone.conv1.weight[:, 3:], coco.backbone.conv1.weight / 2)


def test_a_classifiers_file_of_mobilenet_names_its_layers_features(tmp_path):
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    state = {f"features.{key}": value for key, value in network.backbone.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.ones(3)}, tmp_path / "mobile.pth")
    model = TrajectoryFCN(**SMALL | {"weights": str(tmp_path / "mobile.pth")})
    assert torch.equal(model.backbone["4"].block[0][0].weight, network.backbone["4"].block[0][0].weight)


def test_auto_goes_on_without_weights_says_so_once_and_keeps_the_fact(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FLOWLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(requests, "head", unreachable)
    model = TrajectoryFCN(**SMALL | {"weights": "auto"})
    said = capsys.readouterr().out
    assert said.count("No ImageNet weights") == 1 and "random" in said
    assert model.weights.startswith("none (no ImageNet weights: download.pytorch.org gave no answer")


def unreachable(url, timeout, **options):
    assert url.startswith("https://download.pytorch.org") and timeout <= 5
    raise requests.ConnectionError("nobody there")


def test_auto_takes_what_the_cache_holds_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(requests, "head", unreachable)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch.save(network.backbone.state_dict(), tmp_path / "here.pth")
    cached = tmp_path / "weights" / "mobilenet_v3_large-8738ca79-00000000.pth"
    cached.parent.mkdir()
    cached.touch()
    monkeypatch.setattr(pretrained, "fetch_weights", lambda url, sha256: tmp_path / "here.pth")
    assert TrajectoryFCN(**SMALL | {"weights": "auto"}).weights == "imagenet"


def test_torchvisions_files_are_checked_by_the_digits_in_their_names():
    urls = [url for entry in TORCHVISION.values() for url in (entry.imagenet, entry.coco)]
    assert all(len(pretrained._hash_in_name(url)) >= 8 for url in urls)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg"}, "backbone: expected one of fcn_resnet50, .*, got 'vgg'"),
        ({"conv1": "sum"}, "conv1: expected one of duplicate, mean, zero, difference, got 'sum'"),
        ({"head": "huge"}, "head: expected one of torchvision, fine"),
        ({"output": "first"}, "output: expected one of all, last"),
        ({"batch_norm": "off"}, "batch_norm: expected one of train, frozen, group"),
        ({"input_frames": (0, 4)}, "input_frames: expected indices from 0 to 3, got \\(0, 4\\)"),
        ({"input_frames": ()}, "input_frames: expected indices"),
        ({"num_frames": 1}, "num_frames: expected 2 or more, got 1"),
        ({"working_size": (0, 3)}, "working_size: expected"),
        ({"stride_in": "1x1"}, "stride_in: expected '3x3' with lraspp"),
    ],
)
def test_bad_arguments_are_named(refuses, options, message):
    with refuses(message):
        TrajectoryFCN(**SMALL | options)


def test_bad_images_and_files_are_named(refuses, tmp_path):
    with refuses(r"images: expected shape \[B 1 3 H W\] for frames \(0,\), got \[2, 2, 3, 48, 64\]"):
        small()(images(2))
    (tmp_path / "text.pth").write_text("no weights")
    with refuses("text.pth: expected weights that torch.save wrote"):
        TrajectoryFCN(**SMALL | {"weights": str(tmp_path / "text.pth")})
    torch.save({"conv1.weight": torch.zeros(2, 3, 7, 7)}, tmp_path / "other.pth")
    with refuses(r"other.pth: expected weights of this backbone, with backbone.0.0.weight of shape \[16, 3, 3, 3\]"):
        TrajectoryFCN(**SMALL | {"weights": str(tmp_path / "other.pth")})
    with refuses("expected a weights file, a URL or a Google Drive id", FileNotFoundError):
        TrajectoryFCN(**SMALL | {"weights": str(tmp_path / "nothing.pth")})
    with refuses("model: expected one input frame"):
        see_more_frames(small(input_frames=(0, 3)), (0, 1, 3))


RESNET = {"num_frames": 3, "backbone": "fcn_resnet50", "weights": "none"}
FILMED = [
    (RESNET, ("stages", "head"), "torchvision"),
    (RESNET, ("stages",), "fine"),
    (RESNET | {"backbone": "deeplabv3_resnet50"}, ("stages", "head"), "torchvision"),
    (SMALL, ("head",), "fine"),
]


@pytest.mark.parametrize("options, film, head", FILMED)
@torch.no_grad()
def test_a_conditioned_network_starts_as_its_unconditioned_twin_exactly(options, film, head):
    torch.manual_seed(1)
    plain = TrajectoryFCN(**options | {"head": head}).eval()
    drawn = torch.rand(1)
    torch.manual_seed(1)
    told = TrajectoryFCN(**options | {"head": head}, num_actions=5, film=film).eval()
    assert torch.equal(torch.rand(1), drawn)  # a seed goes on as it does without actions
    pair = images(size=(32, 40))
    for action in (torch.eye(5)[:2], torch.full((2, 5), 0.2)):
        here, there = plain(pair), told(pair, action)
        assert torch.equal(here.displacement, there.displacement)
        assert torch.equal(here.visibility_logits, there.visibility_logits)
    assert sum(map(len, told.parts.values())) == len(list(told.parameters()))
    one = take_actions(plain, 5, film).eval()
    assert torch.equal(one(pair, action).displacement, here.displacement)
    assert one.config == told.config and one.weights == plain.weights


@pytest.mark.parametrize("options, film, head", FILMED)
def test_what_is_told_matters_once_the_modulation_has_learned(options, film, head):
    torch.manual_seed(1)
    told = TrajectoryFCN(**options | {"head": head}, num_actions=2, film=film).eval()
    pair, action = images(size=(32, 40)), torch.eye(2)
    told(pair, action).displacement[:, -1, 0].mean().backward()
    layers = {name: p for name, p in told.named_parameters() if name.startswith("film_")}
    assert len(layers) == 2 * (4 * ("stages" in film) + ("head" in film))
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layers.values())
    before = told(pair, action).displacement.detach()
    with torch.no_grad():
        for p in layers.values():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
        after, crossed = told(pair, action).displacement, told(pair[[0, 0]], action).displacement
    assert (after - before).abs().max() > 1e-3
    assert (crossed[0] - crossed[1]).abs().max() > 1e-3  # one picture, two actions
    torch.testing.assert_close(crossed[0], after[0])


@torch.no_grad()
def test_weights_from_before_there_were_actions_load_unchanged():
    model = small()
    assert not [key for key in model.state_dict() if "film" in key]
    old = {key: value for key, value in model.config.items() if key not in ("num_actions", "film")}
    loaded = TrajectoryFCN(**old, weights="none").eval()
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded(images()).displacement, model(images()).displacement)


@torch.no_grad()
def test_a_conditioned_network_can_be_made_to_see_more_frames():
    model = small(num_actions=3, film=("head",), head="fine")
    model.film_head.layer.weight.normal_()
    pair, action = images(2), torch.eye(3)[:2]
    wider = see_more_frames(model, (0, 3)).eval()
    apart = wider(pair, action).displacement - model(pair[:, :1], action).displacement
    assert apart.abs().max() <= 1e-6


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_actions": 3}, "num_actions: expected 0 without film, 1 or more with it, got 3"),
        ({"film": ("head",)}, "num_actions: expected 0 without film"),
        ({"num_actions": 3, "film": ("tail",)}, "film: expected places among stages, head"),
        ({"num_actions": 3, "film": ("stages",)}, "film: expected 'head' alone with lraspp"),
        ({"num_actions": 3, "film": ("head",), "head": "torchvision"}, "film: expected head='fine'"),
    ],
)
def test_places_of_modulation_that_are_none_are_refused(options, message, refuses):
    with refuses(message):
        small(**options)


def test_an_action_that_is_none_is_refused(refuses):
    model = small(num_actions=2, film=("head",), head="fine")
    for action, message in (
        (None, "action: expected probabilities .2 2., got none"),
        (torch.eye(3)[:2], "action: expected probabilities .2 2., got .2, 3."),
        (torch.ones(2, 2), "action: expected probabilities that sum to 1"),
    ):
        with refuses(message):
            model(images(), action)
    with refuses("action: expected none"):
        small()(images(), torch.eye(2))
    with refuses("model: expected one without actions"):
        take_actions(model, 2)
