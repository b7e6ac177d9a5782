"""Backbones: torchvision's by their entry, timm's by their name, and what both must give."""

import sys

import pytest
import torch

from flowlib.models.backbones import TORCHVISION
from flowlib.models.fcn import TrajectoryFCN, stem_convolution, stem_twins

timm = pytest.importorskip("timm", reason='timm is not installed: pip install "flowlib[timm]"')
SMALL = "timm/resnet18"
NAMES = [SMALL, "timm/convnext_atto", "timm/vit_tiny_patch16_224", "timm/mobilenetv3_small_050"]
NAMES += ["timm/swin_tiny_patch4_window7_224", "timm/vit_small_patch14_dinov2"]


def make(backbone=SMALL, **options):
    torch.manual_seed(0)
    return TrajectoryFCN(num_frames=3, backbone=backbone, **{"weights": "none"} | options).eval()


def pictures(n=1, size=(33, 47)):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, n, 3, *size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", ["torchvision", "fine"])
@torch.no_grad()
def test_any_model_of_timm_speaks_of_every_pixel(name, head):
    model = make(name, head=head, input_frames=(0, 2))
    prediction = model(pictures(2))
    assert prediction.displacement.shape == (1, 3, 2, 33, 47) and prediction.displacement.isfinite().all()
    parameters = [p for part in model.parts.values() for p in part]
    assert len(parameters) == len({id(p) for p in parameters}) == len(list(model.parameters()))
    assert any(p is stem_convolution(model).weight for p in model.parts["stem"])
    again = TrajectoryFCN(**model.config, weights="none")
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(pictures(2)).displacement, prediction.displacement)


@pytest.mark.parametrize("name", NAMES[:3])
@torch.no_grad()
def test_a_zeroed_second_frame_changes_nothing(name):
    one, two = (model.eval() for model in stem_twins(make(name), (0, 2)))
    both = torch.cat([pictures(), 255 - pictures()], dim=1)
    assert torch.equal(one(pictures()).displacement, two(both).displacement)


def test_group_norms_keep_the_activation_that_timm_puts_into_its_batch_norms():
    model = make("timm/mobilenetv3_small_050", batch_norm="group")
    stem = model.get_submodule("backbone.network.blocks.0.0.bn1")
    assert [type(layer) for layer in stem.children()][0] is torch.nn.GroupNorm
    assert (stem(torch.randn(1, 16, 8, 8)) == 0).any(), "a rectifier gives zeros, a norm alone doesn't"


@torch.no_grad()
def test_a_file_of_the_whole_models_weights_fills_the_backbone(tmp_path, refuses):
    torch.manual_seed(7)
    for name in ("resnet18", "convnext_atto", "vit_tiny_patch16_224"):
        whole = timm.create_model(name, num_classes=5)
        torch.save(whole.state_dict(), tmp_path / f"{name}.pth")
        model = make(f"timm/{name}", weights=str(tmp_path / f"{name}.pth"))
        expected = dict(whole.named_parameters())
        stem = next(key for key in expected if expected[key].ndim == 4)
        assert torch.equal(stem_convolution(model).weight, expected[stem])
        known = {value.double().sum().item() for value in whole.state_dict().values()}
        assert all(value.double().sum().item() in known for value in model.backbone.state_dict().values())
    with refuses("resnet18.pth: expected weights of timm/convnext_atto, with .* of shape"):
        make("timm/convnext_atto", weights=str(tmp_path / "resnet18.pth"))


def test_bad_names_and_options_are_named(refuses, monkeypatch):
    with refuses("backbone: expected one of fcn_resnet50, .* or timm/ and a name that timm knows, got 'resnet'"):
        make("resnet")
    with refuses("backbone: expected a name that timm knows, got 'resnet1'; it knows .*resnet1"):
        make("timm/resnet1")
    with refuses("weights: expected none, auto, imagenet or a file with timm/resnet18, got 'coco'"):
        make(weights="coco")
    with refuses("input_frames: expected one frame with a backbone that starts with Conv2dSame, got 2"):
        make("timm/tf_mobilenetv3_small_minimal_100", input_frames=(0, 2))
    with refuses("stride_in: expected '3x3' with timm/resnet18, got '1x1'"):
        make(stride_in="1x1")
    monkeypatch.setitem(sys.modules, "timm", None)
    with refuses(r'timm/resnet18 expects timm: pip install "flowlib\[timm\]"', ImportError):
        make()


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_named_stem_of_a_torchvision_network_is_its_first_convolution(name):
    model = make(name)
    first = next(module for module in model.backbone.modules() if isinstance(module, torch.nn.Conv2d))
    assert stem_convolution(model) is first
