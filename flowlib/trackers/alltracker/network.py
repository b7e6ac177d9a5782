"""The AllTracker network's parameters under their published names: "AllTracker" (Harley et al., ICCV 2025).

One anchor frame's pixels are all tracked at once, on a grid of cells of 8 × 8 pixels, through windows of 16 frames.
The parameters are here; how they are computed with is `arithmetic.Arithmetic`'s, windows are `sliding`'s.
Knows nothing of files, and does not train.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowlib.trackers.pips.network import FeatureNet

FRAMES = 16  # of a window
CHANNELS = 128  # of the hidden state, and of the context
LEVELS = 5
RADIUS = 4  # of the lookup's window: 9 × 9
WINDOW = (2 * RADIUS + 1) ** 2
CELL = 8  # pixels
MULTIPLE = 64  # frames are padded to multiples of it
LEAST = 128  # pixels a side of a padded frame: the coarsest level then has a cell
BLOCKS = 3  # pairs of a block over time and one over space
ITERS = 4
VARIANTS = ("tiny", "full")
ENCODED = {"tiny": 128, "full": 256}  # channels that correlate


@dataclass(frozen=True, eq=False)
class AllTrackerOutput:
    """Where every pixel of frame 0 goes, and how sure the network is.

    Attributes:
        flow: [1 T 2 H W] displacement (x, y) in pixels from frame 0 to each frame, as the network estimates it: in
            frame 0 near zero, not exactly. Of two frames the published network gives the second alone, so T is 1.
        visibility_logits: [1 T H W], before the sigmoid.
        confidence_logits: [1 T H W], likewise.
    """

    flow: Float[Tensor, "1 T 2 H W"]
    visibility_logits: Float[Tensor, "1 T H W"]
    confidence_logits: Float[Tensor, "1 T H W"]


class AllTracker(nn.Module):
    """The network with the parameters of the published checkpoints (names, shapes).

    Computes in the dtype of its parameters on their device: float32, or float64 after `.double()`.

    Args:
        variant: "tiny" (6,294,050 parameters, an encoder built as PIPs's) or "full" (16,476,962, a ConvNeXt).

    Raises:
        ValueError: another variant.

    >>> AllTracker("tiny")(torch.zeros(1, 3, 3, 128, 128), iters=1).flow.shape
    torch.Size([1, 3, 2, 128, 128])
    """

    time_emb: Tensor

    def __init__(self, variant: str = "tiny") -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
        self.variant = variant
        self.register_buffer("time_emb", time_embedding())
        if variant == "tiny":
            self.fnet = FeatureNet()
        else:
            self.cnn = ConvNeXt()
            self.dot_conv = nn.Conv2d(384, ENCODED["full"], 1)
        self.upsample_weight = _two_layers(nn.Conv2d(2 * CHANNELS, 9 * CELL**2, 1))
        self.flow_head = _two_layers(nn.Conv2d(2 * CHANNELS, 2, 3, padding=1))
        self.visconf_head = _two_layers(nn.Conv2d(2 * CHANNELS, 2, 3, padding=1))
        self.update_block = UpdateBlock()

    @torch.no_grad()
    def forward(self, frames: Tensor, iters: int = ITERS) -> AllTrackerOutput:
        """Follow every pixel of frame 0 through the clip, as the published `forward_sliding` does.

        Holds the output of all frames; `AllTrackerTracker` takes points, both directions, and other dtypes.

        Args:
            frames: [1 T 3 H W] RGB from 0 to 255, any dtype; T at least 2, H and W such that, rounded up to multiples
                of 64, they are at least 128.
            iters: how often each window is refined.

        Returns:
            An `AllTrackerOutput` in the dtype of the parameters.

        Raises:
            ValueError: frames that are not these, NaN among them, or iters below 1.
        """
        from flowlib.trackers.alltracker.arithmetic import Arithmetic
        from flowlib.trackers.alltracker.sliding import slide

        if frames.ndim != 5 or frames.shape[0] != 1 or frames.shape[2] != 3:
            raise ValueError(f"frames: expected [1 T 3 H W], got {list(frames.shape)}")
        check_length(frames.shape[1])
        check_frame_size(*frames.shape[3:])
        check_iters(iters)
        if frames.is_floating_point() and not frames.isfinite().all():
            raise ValueError("frames: expected values from 0 to 255, got NaN or infinity")
        dtype = "float64" if self.time_emb.dtype == torch.float64 else "float32"
        arithmetic = Arithmetic(self, dtype, self.time_emb.device)
        windows = slide(arithmetic, frames[0].permute(0, 2, 3, 1), iters)
        field = torch.stack([field for estimate, _ in windows for field in arithmetic.fields(estimate)])[None]
        return AllTrackerOutput(field[:, :, :2], field[:, :, 2], field[:, :, 3])


def check_length(frames: int) -> None:
    """Raise `ValueError` unless there are frames to track through."""
    if frames < 2:
        raise ValueError(f"frames: expected 2 or more, the anchor and where to follow it, got {frames}")


def check_frame_size(height: int, width: int) -> None:
    """Raise `ValueError` for frames that are too small for five levels."""
    if min(padded(height), padded(width)) < LEAST:
        least = LEAST - MULTIPLE + 1
        expected = f"H and W at least {least} ({LEAST} once padded to multiples of {MULTIPLE})"
        raise ValueError(f"frames: expected {expected}, got {height} and {width}")


def check_iters(iters: int) -> None:
    """Raise `ValueError` unless `iters` is a whole number from 1 on."""
    if int(iters) != iters or iters < 1:
        raise ValueError(f"iters: expected a whole number from 1 on, got {iters}")


def padded(side: int) -> int:
    """The side of a frame, in pixels, once it is padded."""
    return side + -side % MULTIPLE


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in cells of a frame of (height, width) pixels, once it is padded."""
    return padded(size[0]) // CELL, padded(size[1]) // CELL


def time_embedding() -> Float[Tensor, "1 16 128"]:
    """Sines, then cosines, of a frame's place in its window; what the published buffer holds."""
    half = CHANNELS // 2
    angles = torch.arange(FRAMES)[:, None] / 10000.0 ** (torch.arange(half, dtype=torch.float64) / half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[None].float()


def _two_layers(second: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1), nn.ReLU(), second)


class UpdateBlock(nn.Module):
    """What moves the estimate on: motion features, then attention over time and convolutions over space."""

    def __init__(self) -> None:
        super().__init__()
        self.motion_encoder = MotionEncoder()
        self.compressor = nn.Conv2d(3 * CHANNELS + 2, CHANNELS, 1)
        pairs = [(TimeBlock(), SpaceBlock(CHANNELS)) for _ in range(BLOCKS)]
        self.refine = nn.ModuleList(block for pair in pairs for block in pair)
        self.final_conv = nn.Conv2d(CHANNELS, CHANNELS, 1)


class MotionEncoder(nn.Module):
    """Correlations and flow in, 126 channels out, to which the flow itself is added."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * WINDOW, 512, 1)
        self.convc2 = nn.Conv2d(512, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 256, 5, padding=2)
        self.convf2 = nn.Conv2d(256, 64, 3, padding=1)
        self.conv = nn.Conv2d(192 + 64, CHANNELS - 2, 3, padding=1)


class TimeBlock(nn.Module):
    """Attention over the frames of a window, for each cell by itself, and a layer after it."""

    def __init__(self) -> None:
        super().__init__()
        attention = {"to_q": CHANNELS, "to_kv": 2 * CHANNELS, "to_out": CHANNELS}
        layers = {"fc1": nn.Linear(CHANNELS, 4 * CHANNELS), "fc2": nn.Linear(4 * CHANNELS, CHANNELS)}
        attn = nn.ModuleDict({name: nn.Linear(CHANNELS, width) for name, width in attention.items()})
        self.block = nn.ModuleDict({"attn": attn, "mlp": nn.ModuleDict(layers)})
        self.layer_scale = nn.Parameter(torch.full((CHANNELS, 1), 1e-6))


class SpaceBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022); the keys are places in torchvision's nn.Sequential."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = {
            "0": nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            "2": nn.LayerNorm(channels, eps=1e-6),
            "3": nn.Linear(channels, 4 * channels),
            "5": nn.Linear(4 * channels, channels),
        }
        self.block = nn.ModuleDict(layers)
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))


class ConvNeXt(nn.Module):
    """ConvNeXt-Tiny up to its third stage, whose last convolution is dilated instead of strided: cells of 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 96, 4, stride=4), nn.LayerNorm(96, eps=1e-6))
        halving = nn.Sequential(nn.LayerNorm(96, eps=1e-6), nn.Conv2d(96, 192, 2, stride=2))
        dilated = nn.Conv2d(192, 384, 3, padding=2, dilation=2)
        widening = nn.Sequential(nn.LayerNorm(192, eps=1e-6), dilated)
        stages = [nn.Sequential(*(SpaceBlock(width) for _ in range(n))) for width, n in ((96, 3), (192, 3), (384, 9))]
        self.features = nn.Sequential(stem, stages[0], halving, stages[1], widening, stages[2])
