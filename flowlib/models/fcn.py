"""`TrajectoryFCN`: a fully convolutional network that says where every pixel of a frame goes.

Images of one, two or more frames go in as they are (RGB, 0 to 255); displacement in pixels and visibility logits come
out for every pixel and frame, as a `TrajectoryPrediction`. Normalisation, the stem for n frames and the scale of the
output are inside. It may be conditioned on an action: one frame doesn't say which way a thing goes, what is being done
does. Knows nothing of losses, data or files other than pretrained weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowlib.geometry import check_size, resize_field
from flowlib.models.backbones import make_backbone
from flowlib.models.film import Film, check_action
from flowlib.models.futures import directions, futures_config
from flowlib.models.heads import CoarseHead, FineHead
from flowlib.models.norms import POLICIES, set_statistics, use_group_norm
from flowlib.models.protocols import TrajectoryPrediction

CHOICES = {
    "head": ("torchvision", "fine"),
    "conv1": ("duplicate", "mean", "zero", "difference"),
    "output": ("all", "last"),
    "batch_norm": POLICIES,
    "stride_in": ("3x3", "1x1"),
}
FILM = ("stages", "head")
RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
MOST_FRAMES = 10_000  # beyond it, a damaged config would fill the memory before a shape is looked at
LOG_SCALE_RANGE = 6.0  # e**±6 times the target scale; keeps the Laplace likelihood finite from the first step on


class TrajectoryFCN(nn.Module):
    """Dense trajectories from one or more frames, by a fully convolutional network.

    Args:
        num_frames: S, the frames of a clip.
        input_frames: which of them the network sees, for example (0,), (0, 3).
        backbone: "fcn_resnet50", "deeplabv3_resnet50" or "lraspp_mobilenet_v3_large", torchvision's; or any model of
            timm by its name, such as "timm/convnext_tiny" or "timm/vit_small_patch14_dinov2".
        head: "torchvision" (stride 8, enlarged bilinearly) or "fine" (skip of stride 4, convex upsampling).
        conv1: how the first convolution's weights serve n frames: "duplicate" (repeated; sums of n frames, so n times
            as large), "mean" (repeated and divided by n), "zero" (frames after the first start with no effect), or
            "difference" (every other filter as "duplicate", the rest take the first frame minus the mean of the
            others). A sum of frames is the same forwards and backwards, a difference tells the ways from the start on.
        weights: "auto", "none", "imagenet", "coco", a path, a URL or a Google Drive id; see `fill_backbone`.
        output: "all" frames 0..S-1, or only the "last" one (3 channels).
        log_scale: also predict the logarithm of a Laplace scale for each pixel and frame.
        batch_norm: "train" (statistics of the batch, running ones in evaluation), "frozen" (the running ones in both),
            or "group" (group norm of 32 groups, which needs no statistics; pretrained scale and shift are kept).
        stride_in: which convolution of a ResNet's stage strides: "3x3" as torchvision trains, or "1x1" as He et al.
            2015 did. The shapes are alike, so a weights file cannot tell; say "1x1" for weights of the latter kind.
        working_size: (H, W) the images are resized to inside, None for their own; the output has the images' size.
        futures: K, from 1 to 8: how many whole futures it gives, each with its weight; 1 for one answer.
        num_actions: K, of the actions that it is told the probabilities of; 0 for none.
        film: where it is modulated by them, see `film.Film`: after each of a ResNet's four "stages", and in the
            "head", before its last convolution; () without actions. At first this changes nothing.

    Raises:
        ValueError: an argument outside these; the message names it.

    >>> model = TrajectoryFCN(num_frames=8, input_frames=(0, 3), backbone="lraspp_mobilenet_v3_large", weights="none")
    >>> model(torch.zeros(1, 2, 3, 64, 96, dtype=torch.uint8)).displacement.shape
    torch.Size([1, 8, 2, 64, 96])
    """

    mean: Tensor
    std: Tensor
    moves: Tensor
    target_scale: Tensor

    def __init__(
        self,
        *,
        num_frames: int = 8,
        input_frames: Sequence[int] = (0,),
        backbone: str = "fcn_resnet50",
        head: str = "torchvision",
        conv1: str = "duplicate",
        weights: str = "auto",
        output: str = "all",
        log_scale: bool = False,
        batch_norm: str = "train",
        stride_in: str = "3x3",
        working_size: tuple[int, int] | None = None,
        futures: int = 1,
        num_actions: int = 0,
        film: Sequence[str] = (),
    ) -> None:
        super().__init__()
        chosen = {"head": head, "conv1": conv1, "output": output, "batch_norm": batch_norm, "stride_in": stride_in}
        for name, value in chosen.items():
            if value not in CHOICES[name]:
                raise ValueError(f"{name}: expected one of {', '.join(CHOICES[name])}, got {value!r}")
        chosen["backbone"] = backbone
        self.input_frames = _checked_frames(input_frames, num_frames)
        self.num_frames, self.conv1, self.log_scale, self.batch_norm = num_frames, conv1, log_scale, batch_norm
        self.working_size = None if working_size is None else (working_size[0], working_size[1])
        if self.working_size is not None:
            check_size(self.working_size, "working_size")
        self.frames = tuple(range(num_frames)) if output == "all" else (num_frames - 1,)
        self.config: dict[str, Any] = chosen | {"num_frames": num_frames, "input_frames": list(self.input_frames)}
        self.config |= {"log_scale": log_scale, "working_size": working_size and list(working_size)}
        self.config |= futures_config(futures)
        self.futures = futures
        self.config |= {"num_actions": num_actions, "film": list(film)}
        self.num_actions = num_actions

        made = make_backbone(backbone, head=head, channels=self.channels, weights=str(weights), stride_in=stride_in)
        self.backbone, self.head, self.weights = made.features, made.head, made.weights
        self.stem, self.stages = made.stem, made.parts
        _widen_stem(self.backbone, self.stem, len(self.input_frames), conv1)
        if batch_norm == "group":
            use_group_norm(self)
        _start_near_zero(self.head)
        if futures > 1:
            self._start_apart()
        # What knows of the action comes last and draws nothing, so that a twin without it starts with the same weights.
        self.film_stages, self.film_head = _films(made.features, made.head, num_actions, tuple(film), backbone)
        self.register_buffer("mean", torch.tensor(made.mean).reshape(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(made.std).reshape(3, 1, 1) * 255, persistent=False)
        moves = torch.tensor([float(frame > 0) for frame in self.frames])
        self.register_buffer("moves", moves.reshape(-1, 1, 1, 1), persistent=False)  # frame 0 stays where it is
        self.register_buffer("target_scale", torch.ones(()))  # pixels; training fits it to its data

    @torch.no_grad()
    def _start_apart(self) -> None:
        """Let the futures start in different directions, or the first would win everywhere and the others learn
        nothing."""
        first = self.head.last_layers()[0]
        if first.bias is not None:
            ways = torch.from_numpy(directions(self.futures)).flatten()
            each = first.bias[: len(first.bias) - self.futures].view(len(self.frames), -1)
            each[:, : len(ways)] = 0.5 * ways * torch.tensor(self.frames)[:, None] / max(self.frames)

    @property
    def channels(self) -> int:
        """Output channels: displacement x, y, visibility and perhaps log scale, for each frame; with several futures
        x, y of each, and a channel for each future, whose mean says how likely it is."""
        each = 2 * self.futures + (2 if self.log_scale else 1)
        return each * len(self.frames) + (self.futures if self.futures > 1 else 0)

    @property
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by part: "stem" (first convolution and its norm), "second" (the first stage after it), the
        rest of the "backbone", and "head"."""
        groups: dict[str, list[nn.Parameter]] = {}
        known: set[int] = set()
        for name, modules in zip(("stem", "second", "backbone"), self.stages):
            found = [p for module in modules for p in self.backbone.get_submodule(module).parameters()]
            groups[name] = [p for p in found if id(p) not in known]
            known |= {id(p) for p in found}
        told = [p for part in (self.film_stages, self.film_head) if part is not None for p in part.parameters()]
        return groups | {"head": [*self.head.parameters(), *told]}

    def forward(self, images: Tensor, action: Tensor | None = None) -> TrajectoryPrediction:
        """Predict from images [B n 3 H W] of the frames `input_frames`, uint8 or floating from 0 to 255, and, where it
        has actions, their probabilities [B K]."""
        n = len(self.input_frames)
        if images.ndim != 5 or images.shape[1:3] != (n, 3):
            got = list(images.shape)
            raise ValueError(f"images: expected shape [B {n} 3 H W] for frames {self.input_frames}, got {got}")
        B, _, _, H, W = images.shape
        check_action(action, B, self.num_actions)
        inputs = (images.to(self.mean.dtype) - self.mean) / self.std
        inputs = inputs.reshape(B, n * 3, H, W)
        size = self.working_size or (H, W)
        if size != (H, W):
            inputs = F.interpolate(inputs, size, mode="bilinear", align_corners=False, antialias=True)
        given: Any = None if action is None else action.to(inputs)
        head = self.film_head
        change = None if head is None else lambda features: head(features, given)
        values = self.head(self._features(inputs, given), size, change)
        K = self.futures
        told = values[:, -K:].float().mean(dim=(2, 3)).softmax(dim=1) if K > 1 else None
        values = values if told is None else values[:, :-K]
        return self._to_pixels(values.reshape(B, len(self.frames), -1, *size), (H, W), told)

    def _features(self, inputs: Tensor, action: Tensor | None) -> dict[str, Tensor]:
        """What the backbone gives the head, modulated after each of its stages if it is to be."""
        if self.film_stages is None:
            return self.backbone(inputs)
        backbone: Any = self.backbone  # torchvision's `IntermediateLayerGetter`
        x, found = inputs, {}
        for name, layer in backbone.items():
            x = layer(x)
            x = self.film_stages[name](x, action) if name in self.film_stages else x
            if name in backbone.return_layers:
                found[backbone.return_layers[name]] = x
        return found

    def _to_pixels(self, values: Tensor, size: tuple[int, int], weights: Tensor | None) -> TrajectoryPrediction:
        """The prediction that raw values [B F 3|4 h w] stand for, at the images' size; with the weights [B K] of
        several futures, their K pairs of channels come first."""
        n = 2 * self.futures
        field = values[:, :, :n] * self.moves
        visibility, log_scale = values[:, :, n], values[:, :, n + 1] if self.log_scale else None
        if weights is not None:
            field = field.unflatten(2, (-1, 2)).movedim(2, 1)  # B K F 2 h w
        if values.shape[-2:] != size:
            # The network speaks in units of `target_scale` pixels of the images, so nothing but the lattice changes.
            h, w = field.shape[-2:]
            per_cell = field.new_tensor([w / size[1], h / size[0]]).reshape(2, 1, 1)
            field = resize_field(field * per_cell, size)
            visibility = _enlarge(visibility, size)
            log_scale = None if log_scale is None else _enlarge(log_scale, size)
        if log_scale is not None:
            log_scale = log_scale.clamp(-LOG_SCALE_RANGE, LOG_SCALE_RANGE) + self.target_scale.log()
        moved = field * self.target_scale
        if weights is None:
            return TrajectoryPrediction(moved, visibility, self.frames, log_scale)
        return TrajectoryPrediction.of_futures(moved, weights, visibility, self.frames, log_scale)

    def train(self, mode: bool = True) -> TrajectoryFCN:
        """Training or evaluation mode. Batch norm uses and updates statistics of the batch only where it is trained:
        with `batch_norm="frozen"`, and in layers whose parameters are held, it keeps the running ones."""
        super().train(mode)
        set_statistics(self, mode, self.batch_norm)
        return self

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.config.items()) + f", weights={self.weights!r}"


def _checked_frames(input_frames: Sequence[int], num_frames: int) -> tuple[int, ...]:
    if int(num_frames) != num_frames or not 2 <= num_frames <= MOST_FRAMES:
        expected = "2 or more" if num_frames < 2 else f"a whole number up to {MOST_FRAMES}"
        raise ValueError(f"num_frames: expected {expected}, got {num_frames}")
    frames = tuple(input_frames)
    if not frames or any(frame not in range(num_frames) for frame in frames):
        raise ValueError(f"input_frames: expected indices from 0 to {num_frames - 1}, got {frames}")
    return tuple(int(frame) for frame in frames)


def _films(
    features: Any, head: CoarseHead | FineHead, num_actions: int, film: tuple[str, ...], backbone: str
) -> tuple[nn.ModuleDict | None, Film | None]:
    """What modulates the backbone's stages, and what the head; None where nothing does."""
    if any(place not in FILM for place in film):
        raise ValueError(f"film: expected places among {', '.join(FILM)}, got {film}")
    if num_actions < 0 or (num_actions > 0) != bool(film):
        raise ValueError(f"num_actions: expected 0 without film, 1 or more with it, got {num_actions!r}")
    if "stages" in film and not all(name in dict(features.named_children()) for name in RESNET_STAGES):
        raise ValueError(f"film: expected 'head' alone with {backbone}, which is no ResNet of torchvision, got {film}")
    if "head" in film and isinstance(head, CoarseHead) and head.takes_all_features:
        raise ValueError(f"film: expected head='fine' with {backbone} where the head is modulated, got 'torchvision'")
    widths = {name: features[name][-1].conv3.out_channels for name in RESNET_STAGES if "stages" in film}
    stages = nn.ModuleDict({name: Film(num_actions, width) for name, width in widths.items()}) if widths else None
    return stages, Film(num_actions, head.last_layers()[0].in_channels) if "head" in film else None


class FramesConvolution(nn.Conv2d):
    """A convolution of several frames [B 3n H W] as the sum of one for each.

    One call over all channels would add in another order, so that a frame whose weights are zero would still change
    the others' last bits; and what is a last bit at first is a visible difference after twenty steps of training.
    """

    def forward(self, images: Tensor) -> Tensor:
        frames, weights = images.split(3, dim=1), self.weight.split(3, dim=1)
        summed: Any = sum(self._conv_forward(frame, weight, None) for frame, weight in zip(frames, weights))
        return summed if self.bias is None else summed + self.bias[:, None, None]


def _widen_stem(network: nn.Module, stem: str, n: int, rule: str) -> None:
    """Make the first convolution take n frames, 3n channels."""
    if n == 1:
        return
    old = network.get_submodule(stem)
    if type(old) is not nn.Conv2d:  # one that pads or scales in a way of its own, which the sum below would drop
        kind = type(old).__name__
        raise ValueError(f"input_frames: expected one frame with a backbone that starts with {kind}, got {n}")
    options: dict[str, Any] = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": old.padding}
    options |= {"dilation": old.dilation, "bias": old.bias is not None}
    new = FramesConvolution(3 * n, old.out_channels, **options)
    new.weight = nn.Parameter(widen(old.weight.detach(), n, rule))
    new.bias = old.bias
    parent, _, name = stem.rpartition(".")
    network.get_submodule(parent).register_module(name, new)


def stem_convolution(model: TrajectoryFCN) -> nn.Conv2d:
    """The first convolution of a model's backbone."""
    stem = model.backbone.get_submodule(model.stem)
    assert isinstance(stem, nn.Conv2d)
    return stem


def widen(weight: Tensor, n: int, rule: str) -> Tensor:
    """A convolution's weight [O 3 k k] made to take n frames [O 3n k k] by `rule`, see `TrajectoryFCN`."""
    if rule == "zero":
        return torch.cat([weight, *[torch.zeros_like(weight)] * (n - 1)], dim=1)
    repeated = weight.repeat(1, n, 1, 1)
    if rule == "difference" and n > 1:
        repeated[1::2, 3:] /= 1 - n
    return repeated / n if rule == "mean" else repeated


def _start_near_zero(head: CoarseHead | FineHead) -> None:
    """Start close to "nothing moves", from where the first steps lead somewhere and not back."""
    for layer in head.last_layers():
        nn.init.normal_(layer.weight, std=0.01)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _enlarge(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)


def see_more_frames(model: TrajectoryFCN, input_frames: Sequence[int], conv1: str = "zero") -> TrajectoryFCN:
    """A model that sees `input_frames`, with all weights of `model`, which sees one frame.

    Args:
        model: with one input frame.
        input_frames: of the new model, as in `TrajectoryFCN`.
        conv1: how the stem's weights serve the frames; with "zero" both models give the same output at first.

    Raises:
        ValueError: `model` sees several frames already, or the arguments are not as in `TrajectoryFCN`.
    """
    if len(model.input_frames) != 1:
        raise ValueError(f"model: expected one input frame, got {model.input_frames}")
    changes = {"input_frames": list(input_frames), "conv1": conv1}
    wider = TrajectoryFCN(**model.config | changes, weights="none")
    state = model.state_dict()
    stem = stem_convolution(model).weight
    state[f"backbone.{model.stem}.weight"] = widen(stem.detach(), len(wider.input_frames), conv1)
    wider.load_state_dict(state)
    wider.weights = model.weights
    return wider


def take_actions(model: TrajectoryFCN, num_actions: int, film: Sequence[str] = FILM) -> TrajectoryFCN:
    """A model that is told of `num_actions` actions, with all weights of `model`, which is told of none. Until it is
    trained both give the same output, whatever the action.

    Raises:
        ValueError: `model` has actions already, or the arguments are not as in `TrajectoryFCN`.
    """
    if model.num_actions:
        raise ValueError(f"model: expected one without actions, got {model.num_actions}")
    told = TrajectoryFCN(**model.config | {"num_actions": num_actions, "film": list(film)}, weights="none")
    told.load_state_dict(told.state_dict() | model.state_dict())
    told.weights = model.weights
    return told


def hold_later_frames(model: TrajectoryFCN) -> None:
    """Keep the first convolution's weights for all frames after the first as they are: their gradients become zero."""
    mask = torch.zeros_like(stem_convolution(model).weight)
    mask[:, :3] = 1
    stem_convolution(model).weight.register_hook(lambda gradient: gradient * mask.to(gradient.device))


def stem_twins(model: TrajectoryFCN, input_frames: Sequence[int] = (0, 3)) -> tuple[TrajectoryFCN, TrajectoryFCN]:
    """A copy of a one-frame model, and its twin that sees `input_frames`, zero for the later ones and held there.

    If the later frames are wired up right the two are one model, before and while they are trained.
    """
    one, two = see_more_frames(model, model.input_frames), see_more_frames(model, input_frames, "zero")
    hold_later_frames(two)
    return one, two
