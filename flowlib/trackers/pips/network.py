"""The PIPs network: "Particle Video Revisited" (Harley, Fang, Fragkiadaki, ECCV 2022), eight frames at a time.

Frames become feature pyramids, one frame at a time; particles are then moved over the pyramids, a few times.
The two are apart because pyramids depend on their frame alone: windows that overlap, and all points, share them.
Parameters have the published names. How the operations are computed is an `Arithmetic`: `Published` here, as the
authors' code does it, or `fast.Fast`. Knows nothing of files, chunks or long videos, and does not train.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FRAMES = 8
CHANNELS = 128
LEVELS = 4
RADIUS = 3  # of the window in which a particle is compared with the map: 7 × 7
BORDER = 8  # zeros around each map, as wide as the 8 × 8 cells a window reads, so that none is read outside
EMBEDDED = 64  # numbers that embed one coordinate
TOKEN = CHANNELS + LEVELS * (2 * RADIUS + 1) ** 2 + 3 * EMBEDDED + 3
WIDTH = 512
# The published code rounds √128 to float32 whatever it computes in: in float64 that moves tracks by 1e-3 px.
SCALE = torch.tensor(float(CHANNELS)).sqrt().item()


@dataclass(frozen=True, eq=False)
class PIPsOutput:
    """What the network says of N points in 8 frames.

    Attributes:
        tracks: [iters B S N 2] (x, y) in pixels of the frames given, after each iteration.
        visibility_logits: [B S N] after the last iteration.
    """

    tracks: Float[Tensor, "iters B S N 2"]
    visibility_logits: Float[Tensor, "B S N"]


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The feature maps of one frame.

    Attributes:
        maps: per level the map with its border of zeros, a row of 128 numbers for each cell: [(H+16)·(W+16) 128].
        sizes: per level (H, W) without the border.
    """

    maps: tuple[Float[Tensor, "_ 128"], ...]
    sizes: tuple[tuple[int, int], ...]

    def plane(self, level: int) -> Float[Tensor, "128 H W"]:
        """One level without its border, as an image."""
        (H, W), rows = self.sizes[level], self.maps[level]
        bordered = rows.reshape(H + 2 * BORDER, W + 2 * BORDER, CHANNELS)
        return bordered[BORDER:-BORDER, BORDER:-BORDER].permute(2, 0, 1).contiguous()


@runtime_checkable
class Normalizer(Protocol):
    """How the feature network's norms are computed."""

    def instance_norm(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Each channel of each image to mean 0 and variance 1."""
        ...


@runtime_checkable
class Arithmetic(Normalizer, Protocol):
    """How the network's operations are computed; what they compute is the network's."""

    def features(self, net: PIPs, frame: Tensor) -> Float[Tensor, "128 h w"]:
        """The feature map of one frame [3 H W], 0 to 255."""
        ...

    def dense(self, layer: nn.Linear, x: Tensor, gelu: bool = False) -> Tensor:
        """A linear layer over the last axis of x, then GELU if asked for."""
        ...

    def mix_frames(self, mix: Mix, x: Float[Tensor, "N S 512"]) -> Float[Tensor, "N S 512"]:
        """The two layers of `mix` over the frames of x."""
        ...

    def correlation(
        self, pyramids: Sequence[Pyramid], features: Float[Tensor, "N S 128"], coords: Float[Tensor, "N S 2"]
    ) -> Float[Tensor, "N S 196"]:
        """Each particle's feature against the maps around it: 7 × 7 places on each of 4 levels, in every frame."""
        ...


class Published:
    """The authors' operations in their order: slow, but in float64 equal to their code to the last bits.

    Rounding grows about fiftyfold an iteration, so after six any other order of float64 sums is 1e-5 px away.
    """

    def features(self, net: PIPs, frame: Tensor) -> Float[Tensor, "128 h w"]:
        image = frame.to(net.norm.weight)[None]
        return net.fnet(2 * (image / 255) - 1, net.cells(frame), self)[0]

    def instance_norm(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return F.instance_norm(x)

    def dense(self, layer: nn.Linear, x: Tensor, gelu: bool = False) -> Tensor:
        y = layer(x)
        return F.gelu(y) if gelu else y

    def mix_frames(self, mix: Mix, x: Float[Tensor, "N S 512"]) -> Float[Tensor, "N S 512"]:
        return mix.fn["3"](F.gelu(mix.fn["0"](x)))

    def correlation(
        self, pyramids: Sequence[Pyramid], features: Float[Tensor, "N S 128"], coords: Float[Tensor, "N S 2"]
    ) -> Float[Tensor, "N S 196"]:
        """By the full volume, one level of one frame at a time."""
        span = torch.arange(-RADIUS, RADIUS + 1, dtype=coords.dtype, device=coords.device)
        # The published order of a window: the slow index moves x, the fast one y.
        offsets = torch.stack(torch.meshgrid(span, span, indexing="ij"), dim=-1)
        frames = []
        for s, levels in enumerate(pyramids):
            windows = []
            for i, (H, W) in enumerate(levels.sizes):
                volume = features[:, s] @ levels.plane(i).flatten(1) / SCALE  # N H·W
                places = coords[:, s, None, None] / 2**i + offsets  # N 7 7 2
                grid = 2 * places / places.new_tensor([W - 1, H - 1]) - 1
                read = F.grid_sample(volume.reshape(-1, 1, H, W), grid.to(volume.dtype), align_corners=True)
                windows.append(read.flatten(1))
            frames.append(torch.cat(windows, dim=1))
        return torch.stack(frames, dim=1)


class PIPs(nn.Module):
    """The network with the parameters of the published checkpoint (names, shapes), all 28,677,713 of them.

    Computes in the dtype of its parameters on their device: float32, or float64 after `.double()`.

    Args:
        stride: pixels to a cell of the feature map. It is not in the checkpoint: 4 in the authors' demos and
            most of their evaluations, 8 in their DAVIS script.

    >>> PIPs().double()(torch.zeros(1, 8, 3, 64, 64), torch.zeros(1, 5, 2), iters=1).tracks.shape
    torch.Size([1, 1, 8, 5, 2])
    """

    def __init__(self, stride: int = 4) -> None:
        super().__init__()
        if stride not in (4, 8):
            raise ValueError(f"stride: expected 4 or 8, got {stride}")
        self.stride = stride
        self.fnet = FeatureNet()
        self.delta_block = nn.ModuleDict({"to_delta": Mixer()})
        self.norm = nn.GroupNorm(1, CHANNELS)
        self.ffeat_updater = nn.Sequential(nn.Linear(CHANNELS, CHANNELS))
        self.vis_predictor = nn.Sequential(nn.Linear(CHANNELS, 1))

    @torch.no_grad()
    def forward(self, frames: Tensor, xy: Tensor, iters: int = 6) -> PIPsOutput:
        """Follow points from frame 0 through eight frames, by the published operations.

        This is the path to check by: slow, its memory grows with the points. `PIPsTracker` is the path to use.

        Args:
            frames: [B 8 3 H W] RGB from 0 to 255, any dtype.
            xy: [B N 2] (x, y) of the points in frame 0, in pixels; outside the frame they see its border.
            iters: how often the tracks are refined.

        Returns:
            A `PIPsOutput` in the dtype of the parameters.

        Raises:
            ValueError: shapes that are not these, frames under 16 strides wide or high, iters below 1.
        """
        self.check(frames, iters)
        if xy.ndim != 3 or xy.shape[0] != frames.shape[0] or xy.shape[2] != 2 or not xy.isfinite().all():
            raise ValueError(f"xy: expected finite [{frames.shape[0]} N 2], got {list(xy.shape)} or NaN among them")
        arithmetic, dtype = Published(), self.norm.weight.dtype
        tracks, logits = [], []
        for clip, points in zip(frames, xy, strict=True):
            pyramids = [pyramid(arithmetic.features(self, frame)) for frame in clip]
            start = points.to(torch.float64) / self.stride
            steps = list(self.refine(pyramids, start, sample_map(pyramids[0], start), iters, arithmetic))
            tracks.append(torch.stack([coords for coords, _ in steps]).mul(self.stride).transpose(1, 2))
            logits.append(self.vis_predictor(steps[-1][1])[..., 0].transpose(0, 1))
        return PIPsOutput(torch.stack(tracks, dim=1).to(dtype), torch.stack(logits))

    def check(self, frames: Tensor, iters: int) -> None:
        """Raise `ValueError` unless frames are [B 8 3 H W] and large enough, and iters at least 1."""
        least = self.stride * 2**LEVELS  # the coarsest level then has two cells or more
        if frames.ndim != 5 or frames.shape[1:3] != (FRAMES, 3) or min(frames.shape[3:]) < least:
            expected = f"[B {FRAMES} 3 H W] with H and W at least {least}"
            raise ValueError(f"frames: expected {expected}, got {list(frames.shape)}")
        if iters < 1:
            raise ValueError(f"iters: expected 1 or more, got {iters}")

    def cells(self, frame: Tensor) -> tuple[int, int]:
        """The (height, width) of the feature map of a frame [3 H W]."""
        return frame.shape[-2] // self.stride, frame.shape[-1] // self.stride

    def refine(
        self,
        pyramids: Sequence[Pyramid],
        start: Float[Tensor, "N 2"],
        feature: Float[Tensor, "N 128"],
        iters: int,
        arithmetic: Arithmetic,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Move particles, yielding (coords [N 8 2] in cells, features [N 8 128]) after each iteration.

        Coordinates are float64 in every mode. The embedding multiplies displacements by up to 968, so their
        rounding in float32 is what makes the published code's runs differ; in float64 it costs nothing that shows.

        Args:
            pyramids: one for each of the 8 frames.
            start: float64 position in frame 0, in cells of the map.
            feature: what the particles look like.
        """
        coords = start[:, None].repeat(1, FRAMES, 1)  # N S 2
        features = feature[:, None].repeat(1, FRAMES, 1)  # N S 128
        for _ in range(iters):
            compared = arithmetic.correlation(pyramids, features, coords)
            tokens = torch.cat([features, compared, embedding(coords, features.dtype)], dim=2)  # N S 519
            delta = self.delta_block["to_delta"](tokens, arithmetic)  # N S 130
            coords = coords + delta[..., :2]
            coords[:, 0] = start
            change = F.group_norm(delta[..., 2:].reshape(-1, CHANNELS), 1, self.norm.weight, self.norm.bias)
            update = arithmetic.dense(self.ffeat_updater[0], change, gelu=True)  # pyright: ignore[reportArgumentType]
            features = features + update.reshape(features.shape)
            yield coords, features


class FeatureNet(nn.Module):
    """A frame's 128 features per cell, from four scales of a residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1), ResidualBlock(64, 64, 1))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, 2), ResidualBlock(96, 96, 1))
        self.layer3 = nn.Sequential(ResidualBlock(96, 128, 2), ResidualBlock(128, 128, 1))
        self.layer4 = nn.Sequential(ResidualBlock(128, 128, 2), ResidualBlock(128, 128, 1))
        self.conv2 = nn.Conv2d(64 + 96 + 128 + 128, 2 * CHANNELS, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(
        self, image: Float[Tensor, "B 3 H W"], size: tuple[int, int], arithmetic: Normalizer
    ) -> Float[Tensor, "B 128 h w"]:
        """Features of `image` (values -1 to 1), resized to `size` cells (height, width)."""
        x = arithmetic.instance_norm(self.conv1(image)).relu_()
        scales = []
        for first, second in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = second(first(x, arithmetic), arithmetic)
            # The published network resizes by corners, not by pixel edges.
            scales.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
        x = arithmetic.instance_norm(self.conv2(torch.cat(scales, dim=1))).relu_()
        return self.conv3(x)


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if stride > 1 else None

    def forward(self, x: Float[Tensor, "B C H W"], arithmetic: Normalizer) -> Float[Tensor, "B D h w"]:
        y = arithmetic.instance_norm(self.conv1(x)).relu_()
        y = arithmetic.instance_norm(self.conv2(y)).relu_()
        skip = x if self.downsample is None else arithmetic.instance_norm(self.downsample(x))
        return y.add_(skip).relu_()


class Mixer(nn.ModuleDict):
    """The MLP-Mixer over the eight frames of one particle; the keys are places in the published nn.Sequential."""

    DEPTH = 12

    def __init__(self) -> None:
        steps = ((Mix(FRAMES, over_frames=True), Mix(WIDTH, over_frames=False)) for _ in range(self.DEPTH))
        blocks = {str(i): nn.ModuleList(pair) for i, pair in enumerate(steps, start=1)}
        head = nn.Linear(WIDTH, FRAMES * (CHANNELS + 2))
        super().__init__({"0": nn.Linear(TOKEN, WIDTH), **blocks, "13": nn.LayerNorm(WIDTH), "15": head})

    def forward(self, tokens: Float[Tensor, "N S 519"], arithmetic: Arithmetic) -> Float[Tensor, "N S 130"]:
        """The change of each particle in each frame: (x, y) in cells, then 128 features."""
        x = arithmetic.dense(self["0"], tokens)  # N S 512  # pyright: ignore[reportArgumentType]
        for i in range(1, self.DEPTH + 1):
            frames, channels = self[str(i)]  # pyright: ignore[reportGeneralTypeIssues]
            x += arithmetic.mix_frames(frames, frames.norm(x))
            hidden = arithmetic.dense(channels.fn["0"], channels.norm(x), gelu=True)
            x += arithmetic.dense(channels.fn["3"], hidden)
        mean = self["13"](x).mean(dim=1)
        return arithmetic.dense(self["15"], mean).reshape(-1, FRAMES, CHANNELS + 2)  # pyright: ignore


class Mix(nn.Module):
    """The parameters of one mixing step: a norm, and two layers with a GELU between them."""

    def __init__(self, size: int, over_frames: bool) -> None:
        super().__init__()
        make = functools.partial(nn.Conv1d, kernel_size=1) if over_frames else nn.Linear
        self.fn = nn.ModuleDict({"0": make(size, 4 * size), "3": make(4 * size, size)})
        self.norm = nn.LayerNorm(WIDTH)


def instance_norm(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Each channel of each image to mean 0 and variance 1, fast for maps whose channels are last in memory."""
    # instance_norm and var_mean are 20 and more times slower on channels-last maps. A group norm of one group a
    # channel is not, but takes the variance as E[x²] - E[x]², which in float32 triples the error of the tracks.
    if x.dtype in (torch.bfloat16, torch.float16):
        return F.group_norm(x, x.shape[1])
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # B H·W C
    centred = rows - rows.mean(dim=1, keepdim=True)
    centred *= torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + 1e-5)
    return centred.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def pyramid(features: Float[Tensor, "128 h w"]) -> Pyramid:
    """Four levels of a feature map, each the 2 × 2 means of the one before, as rows with zeros around."""
    maps, sizes = [], []
    level = features[None]
    for i in range(LEVELS):
        level = F.avg_pool2d(level, 2) if i else level
        sizes.append(tuple(level.shape[-2:]))
        padded = F.pad(level[0].permute(1, 2, 0), (0, 0, BORDER, BORDER, BORDER, BORDER))
        maps.append(padded.reshape(-1, CHANNELS).contiguous())
    return Pyramid(tuple(maps), tuple(sizes))


def sample_map(level: Pyramid, xy: Float[Tensor, "N 2"]) -> Float[Tensor, "N 128"]:
    """The finest map read bilinearly at xy (cells); beyond the outermost cells their values go on."""
    (H, W), rows = level.sizes[0], level.maps[0]
    limit = xy.new_tensor([W - 1, H - 1])
    corner = xy.floor()
    share = (xy - corner).to(rows.dtype)
    total = torch.zeros(len(xy), CHANNELS, dtype=rows.dtype, device=rows.device)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        cell = (corner + xy.new_tensor([dx, dy])).clamp(min=0).minimum(limit).long() + BORDER
        weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
        total += weight[:, None] * rows[cell[:, 1] * (W + 2 * BORDER) + cell[:, 0]]
    return total


def embedding(coords: Float[Tensor, "N S 2"], dtype: torch.dtype) -> Float[Tensor, "N S 195"]:
    """Where a particle is from its start, and when: sines and cosines interleaved for x, y, t, then the three."""
    N, S, _ = coords.shape
    # The published times are linspace(0, 8, 8): the last of the eight frames is at 8.
    times = torch.linspace(0, S, S, dtype=coords.dtype, device=coords.device)
    motion = torch.cat([coords - coords[:, :1], times.expand(N, S)[..., None]], dim=2)  # N S 3
    frequencies = torch.arange(0, EMBEDDED, 2, dtype=coords.dtype, device=coords.device) * (1000 / EMBEDDED)
    angles = motion[..., None] * frequencies  # N S 3 32
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1)  # N S 3 32 2
    return torch.cat([waves.reshape(N, S, -1), motion], dim=2).to(dtype)
