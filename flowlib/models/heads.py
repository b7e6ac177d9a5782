"""From a backbone's features to values for every pixel: torchvision's own heads, and one with a finer output.

A head takes the backbone's features (a dict of [B C h w]) and the size (H, W) wanted, and gives [B channels H W]. It
may be told to change its own features, just before its last convolution: that is where a condition comes in.
Knows nothing of frames, pixels' units or losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINE_STRIDE = 4  # of the features called "skip"

Change = Callable[[Tensor], Tensor]  # [B C h w] -> [B C h w]


class CoarseHead(nn.Module):
    """A torchvision segmentation head on features of stride 8, made larger bilinearly, as torchvision does.

    Between the centres of its 8×8 cells the output is a straight line: motion edges blur, and the cells show.
    """

    def __init__(self, classifier: nn.Module, *, takes_all_features: bool) -> None:
        super().__init__()
        self.classifier: Any = classifier
        self.takes_all_features = takes_all_features  # LRASPP's head reads two scales, the others one

    def forward(self, features: dict[str, Tensor], size: tuple[int, int], change: Change | None = None) -> Tensor:
        """[B channels H W] for features of a clip; values between cell centres are interpolated."""
        if change is None:
            coarse = self.classifier(features if self.takes_all_features else features["out"])
        else:
            assert not self.takes_all_features, "two branches have no last features in common"
            *layers, last = self.classifier
            coarse = features["out"]
            for layer in layers:
                coarse = layer(coarse)
            coarse = last(change(coarse))
        return F.interpolate(coarse.float(), size, mode="bilinear", align_corners=False)

    def last_layers(self) -> list[nn.Conv2d]:
        """The convolutions that give the output, which pretrained weights do not fill."""
        made: Any = self.classifier
        return [made.low_classifier, made.high_classifier] if self.takes_all_features else [made[-1]]


class FineHead(nn.Module):
    """Context of stride 8 joined with features of stride 4, then made larger by learned convex combinations.

    The join follows DeepLabv3+ (Chen et al. 2018, section 3.1: few channels of the skip, so that they do not drown
    the context), the last step RAFT (Teed and Deng 2020, section 3.3): each pixel is a weighted mean of the 3×3 cells
    around it, so an edge can lie anywhere and no value leaves the range of its neighbours.
    """

    def __init__(
        self, context: nn.Module, *, context_name: str, context_channels: int, skip_channels: int, channels: int
    ) -> None:
        super().__init__()
        width = 128
        self.context, self.context_name = context, context_name
        self.reduce = _conv_norm(context_channels, width, 1)
        self.skip = _conv_norm(skip_channels, 48, 1)
        self.merge = _conv_norm(width + 48, width, 3)
        self.predict = nn.Conv2d(width, channels, 3, padding=1)
        self.mixture = nn.Conv2d(width, 9 * FINE_STRIDE**2, 1)

    def forward(self, features: dict[str, Tensor], size: tuple[int, int], change: Change | None = None) -> Tensor:
        """[B channels H W]; edges as fine as a pixel."""
        context = self.reduce(self.context(features[self.context_name]))
        skip = self.skip(features["skip"])
        context = F.interpolate(context, skip.shape[-2:], mode="bilinear", align_corners=False)
        merged = self.merge(torch.cat([context, skip], dim=1))
        values = self.predict(merged if change is None else change(merged))
        fine = convex_upsample(values.float(), self.mixture(merged).float(), FINE_STRIDE)
        return fine[..., : size[0], : size[1]]  # sides that 4 does not divide were rounded up

    def last_layers(self) -> list[nn.Conv2d]:
        """The convolutions that give the output, which pretrained weights do not fill."""
        return [self.predict]


def convex_upsample(coarse: Tensor, mixture: Tensor, factor: int) -> Tensor:
    """Enlarge `coarse` [B C h w] by `factor`, each new pixel a convex mean of the 3×3 cells around its own.

    Args:
        coarse: values of the cells.
        mixture: [B 9·factor² h w] logits of the nine weights of each new pixel.
        factor: pixels along a cell's side.

    Returns:
        [B C h·factor w·factor].
    """
    B, C, h, w = coarse.shape
    weights = mixture.reshape(B, 9, factor, factor, h, w).softmax(dim=1)
    around = F.unfold(F.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3).reshape(B, C, 9, h, w)
    fine = torch.einsum("bkuvhw,bckhw->bchuwv", weights, around)
    return fine.reshape(B, C, h * factor, w * factor)


def _conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
