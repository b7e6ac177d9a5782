"""Backbones: what turns pictures into features, each by one name, and where in it the stem and its stages are.

A torchvision segmentation network is an entry of `TORCHVISION`; any model of timm is "timm/<its name>" and needs none.
Both give a `Backbone`: features by name, a head, and which modules are the stem. Knows nothing of trajectories.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Large_Weights, ResNet50_Weights, segmentation
from torchvision.models.segmentation.fcn import FCNHead

from flowlib.downloads import fetch_weights
from flowlib.models.heads import FINE_STRIDE, CoarseHead, FineHead
from flowlib.models.pretrained import fill_backbone, read_weights
from flowlib.models.unet import enlarge

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which torchvision's weights expect
REDUCED = (32, 64)  # channels that `EarlyStages` keeps of the features of stride 4 and 8


@dataclass(frozen=True)
class TorchvisionBackbone:
    """A torchvision segmentation network.

    Attributes:
        make: the network's function.
        skip, skip_channels: the layer whose features have a stride of 4.
        context, context_channels: the features that the fine head takes, and its width after the classifier's layers
            but the last, where that is a sequence.
        stem: the first convolution's name in the backbone.
        stem_modules: how many of the backbone's children are the stem; the next one is the stage after it.
        imagenet, coco: addresses of pretrained weights.
    """

    make: Callable[..., Any]
    skip: str
    skip_channels: int
    context: str
    context_channels: int
    stem: str
    stem_modules: int
    imagenet: str
    coco: str


_RESNET50: dict[str, Any] = {"skip": "layer1", "skip_channels": 256, "context": "out", "stem": "conv1"}
_RESNET50 |= {"stem_modules": 4, "imagenet": ResNet50_Weights.IMAGENET1K_V1.url}
TORCHVISION = {
    "fcn_resnet50": TorchvisionBackbone(
        segmentation.fcn_resnet50,
        context_channels=512,
        coco=segmentation.FCN_ResNet50_Weights.DEFAULT.url,
        **_RESNET50,
    ),
    "deeplabv3_resnet50": TorchvisionBackbone(
        segmentation.deeplabv3_resnet50,
        context_channels=256,
        coco=segmentation.DeepLabV3_ResNet50_Weights.DEFAULT.url,
        **_RESNET50,
    ),
    "lraspp_mobilenet_v3_large": TorchvisionBackbone(
        segmentation.lraspp_mobilenet_v3_large,
        skip="2",
        skip_channels=24,
        context="high",
        context_channels=960,
        stem="0.0",
        stem_modules=1,
        imagenet=MobileNet_V3_Large_Weights.IMAGENET1K_V1.url,
        coco=segmentation.LRASPP_MobileNet_V3_Large_Weights.DEFAULT.url,
    ),
}


@dataclass(frozen=True)
class Backbone:
    """A backbone with a head on it, ready to be widened and trained.

    Attributes:
        features: images [B C H W] -> features by name.
        head: features and a size -> [B channels H W].
        stem: the first convolution's name in `features`.
        parts: names of the modules of `features` that are the stem, the stage after it, and the rest; what is in the
            stem already isn't in the rest.
        weights: where its weights come from, for the config.
        mean, std: of the pictures that its weights expect, from 0 to 1.
    """

    features: nn.Module
    head: CoarseHead | FineHead
    stem: str
    parts: tuple[list[str], list[str], list[str]]
    weights: str
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


def make_backbone(name: str, *, head: str, channels: int, weights: str, stride_in: str = "3x3") -> Backbone:
    """The backbone called `name`.

    Args:
        name: a key of `TORCHVISION`, or "timm/" and a name that timm knows, such as "timm/convnext_tiny".
        head: "torchvision" or "fine", see `models.heads`.
        channels: that the head gives.
        weights: see `pretrained.fill_backbone`; for timm "none", "auto", "imagenet" (its default weights) or a file.
        stride_in: "3x3" or, with a ResNet of torchvision, "1x1".

    Raises:
        ValueError: an unknown name, or one that `stride_in` doesn't go with.
        ImportError: timm is not installed.
    """
    if name.startswith("timm/"):
        if stride_in != "3x3":
            raise ValueError(f"stride_in: expected '3x3' with {name}, got {stride_in!r}")
        return _from_timm(name.removeprefix("timm/"), head, channels, weights)
    if name not in TORCHVISION:
        expected = f"one of {', '.join(TORCHVISION)}, or timm/ and a name that timm knows"
        raise ValueError(f"backbone: expected {expected}, got {name!r}")
    entry = TORCHVISION[name]
    network = entry.make(weights=None, weights_backbone=None, num_classes=channels)
    filled = fill_backbone(network, weights, imagenet=entry.imagenet, coco=entry.coco)
    features, classifier = network.backbone, network.classifier
    # The layers to stride differently are a ResNet's; MobileNet has none of that name.
    if stride_in == "1x1":
        if "layer2" not in features:
            raise ValueError(f"stride_in: expected '3x3' with {name}, which is no ResNet, got '1x1'")
        block = features["layer2"][0]
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    whole = not isinstance(classifier, nn.Sequential)  # LRASPP's head reads two scales, the others one
    if head == "torchvision":
        made: CoarseHead | FineHead = CoarseHead(classifier, takes_all_features=whole)
    else:
        # torchvision's backbones return what they are asked for by layer name; features of stride 4 come on top.
        features.return_layers |= {entry.skip: "skip"}
        context = nn.Identity() if whole else nn.Sequential(*list(classifier)[:-1])
        made = _fine(context, entry.context, entry.context_channels, entry.skip_channels, channels)
    stages, first = [name for name, _ in features.named_children()], entry.stem_modules
    parts = (stages[:first], stages[first : first + 1], stages[first + 1 :])
    return Backbone(features, made, entry.stem, parts, filled)


def _fine(context: nn.Module, name: str, width: int, skip: int, channels: int) -> FineHead:
    return FineHead(context, context_name=name, context_channels=width, skip_channels=skip, channels=channels)


class EarlyStages(nn.Module):
    """The first two stages of a ResNet-50, never trained further, and 96 channels of what they see on a coarse grid.

    Args:
        weights: of the ResNet-50, see `pretrained.fill_backbone`.
        stride_in: "3x3" or "1x1", see `make_backbone`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str, stride_in: str) -> None:
        super().__init__()
        made = make_backbone("fcn_resnet50", head="fine", channels=1, weights=weights, stride_in=stride_in)
        self.weights = made.weights
        layers = dict(made.features.named_children())
        self.early = nn.Sequential(*[layers[name] for name in ("conv1", "bn1", "relu", "maxpool", "layer1")])
        self.late = layers["layer2"]
        for part in (self.early, self.late):
            part.requires_grad_(False)
        self.reduce = nn.ModuleList(nn.Conv2d(inner, outer, 1) for inner, outer in zip((256, 512), REDUCED))
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(3, 1, 1) * 255, persistent=False)

    def seen_on(self, pictures: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B 96 h w] of pictures [B 3 H W] from 0 to 255, on a grid (h, w)."""
        h, w = grid
        scaled = (pictures.to(self.mean.dtype) - self.mean) / self.std
        with torch.no_grad():
            fine = self.early(F.interpolate(scaled, (4 * h, 4 * w), mode="bilinear", align_corners=False))
            coarse = self.late(fine)
        return torch.cat([self.reduce[0](fine), enlarge(self.reduce[1](coarse), grid)], dim=1)

    def train(self, mode: bool = True) -> EarlyStages:
        """Training or evaluation mode; the pretrained stages stay as they are."""
        super().train(mode)
        self.early.eval()
        self.late.eval()
        return self


class TimmFeatures(nn.Module):
    """A model of timm as a torchvision backbone: `out`, its deepest features, and `skip`, its first, at stride 4.

    Pictures are resized to multiples of its largest stride, so that a feature's place is the same share of the picture,
    and a vision transformer gets whole patches.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.stride = max(network.feature_info.reduction())
        self.channels_last = vars(network).get("output_fmt") == "NHWC"  # as Swin gives them

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of `images` [B C H W]."""
        H, W = images.shape[-2:]
        size = tuple(-(-side // self.stride) * self.stride for side in (H, W))
        if size != (H, W):
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        features = self.network(images)
        if self.channels_last:
            features = [feature.movedim(-1, 1) for feature in features]
        fine = (-(-H // FINE_STRIDE), -(-W // FINE_STRIDE))
        skip = F.interpolate(features[0], fine, mode="bilinear", align_corners=False)
        return {"out": features[-1], "skip": skip}


def _from_timm(name: str, head: str, channels: int, weights: str) -> Backbone:
    network, filled = _timm_network(name, weights)
    features = TimmFeatures(network)
    depth, first = network.feature_info.channels()[-1], network.feature_info.channels()[0]
    classifier = FCNHead(depth, channels)
    made: CoarseHead | FineHead = CoarseHead(classifier, takes_all_features=False)
    if head == "fine":
        width = depth // 4  # as FCNHead has it
        made = _fine(nn.Sequential(*list(classifier)[:-1]), "out", width, first, channels)
    stem = next(name for name, module in features.named_modules() if isinstance(module, nn.Conv2d))
    stages = [
        f"network.{name}" for name, stage in network.named_children() if next(stage.parameters(), None) is not None
    ]
    at = next(i for i, stage in enumerate(stages) if f"{stem}.".startswith(f"{stage}."))
    # A vision transformer is one module with its stem inside: then only the stem's convolution is told from the rest.
    parts = ([stem], [], stages) if len(stages) == 1 else (stages[: at + 1], stages[at + 1 : at + 2], stages[at + 2 :])
    mean, std = (tuple(network.pretrained_cfg.get(key) or default) for key, default in (("mean", MEAN), ("std", STD)))
    return Backbone(features, made, stem, parts, filled, mean, std)


def _timm_network(name: str, weights: str) -> tuple[Any, str]:
    """timm's model as a giver of features, and where its weights come from."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(f'backbone: timm/{name} expects timm: pip install "flowlib[timm]"') from error
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name}*")[:5])
        raise ValueError(f"backbone: expected a name that timm knows, got {name!r}{close and f'; it knows {close}'}")
    if weights == "coco":
        raise ValueError(f"weights: expected none, auto, imagenet or a file with timm/{name}, got 'coco'")

    def make(pretrained: bool) -> Any:
        options: dict[str, Any] = {"features_only": True, "pretrained": pretrained}
        try:
            return timm.create_model(name, dynamic_img_size=True, **options)
        except TypeError:  # only vision transformers have to be told that sizes vary
            return timm.create_model(name, **options)

    if weights == "none":
        return make(False), "none"
    if weights in ("auto", "imagenet"):
        try:
            return make(True), "imagenet"
        except (OSError, RuntimeError) as error:  # no network, or no weights of that name
            if weights == "imagenet":
                raise OSError(f"weights: those of timm/{name} cannot be had ({type(error).__name__})") from error
            # printed, as log entries of a library do not show in a notebook
            print(f"No weights of timm/{name} ({type(error).__name__}); it starts from random numbers.")
            return make(False), f"none (no weights of timm/{name}: {type(error).__name__})"
    network = make(False)
    state, found = read_weights(fetch_weights(weights)), {}
    for key, value in network.state_dict().items():
        # Names as the whole model has them: its stages are a list there, and there is no model around it.
        names = (key, key.removeprefix("model."), re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key))
        match = [state[known] for known in names if known in state and state[known].shape == value.shape]
        if not match and not key.endswith("num_batches_tracked"):
            raise ValueError(f"{weights}: expected weights of timm/{name}, with {key} of shape {list(value.shape)}")
        found |= {key: match[0]} if match else {}
    network.load_state_dict(found, strict=False)
    return network, weights
