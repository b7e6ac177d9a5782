"""Compute AllTracker's operations: one frame at a time for what looks at space, a few cells at a time for attention.

Maps are rows of channels, one a cell ([cells C], row by row over the grid), so that products, norms and attention
over time need no transposes. Every product has a size that follows from the frame's size alone: a result is the same
bits whatever else is computed, asked for or kept. Whatever the dtype of the products, states, norms and sums are
float32 (float64 in "float64"). Knows nothing of videos and windows' order.
"""

from __future__ import annotations

import copy
import functools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from flowlib.trackers.alltracker.network import (
    BLOCKS,
    CELL,
    CHANNELS,
    ENCODED,
    FRAMES,
    LEVELS,
    RADIUS,
    AllTracker,
    grid_of,
    padded,
)
from flowlib.trackers.pips.network import instance_norm
from flowlib.trackers.products import Conv, check_dtype, choose_path, tensor_cores

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the encoder was trained
HEADS = 8
# Cells computed together; the number of cells is a multiple of 64. Figures in bench/LOG.md.
ATTENTION_CELLS = 256
UPSAMPLED_CELLS = 256
LOOKUP_CELLS = 512
VOLUMES = 640e6  # bytes of correlations that are kept over a window's iterations; the others are computed anew


@dataclass(eq=False)
class Encoded:
    """A frame's features.

    Attributes:
        levels: all five levels of the pyramid, one under the other, a row for each cell.
        grids: (height, width) of each level, in cells.
        volume: every cell of the anchor compared with every row of `levels`, while it is kept.
    """

    levels: Float[Tensor, "rows C"]
    grids: list[tuple[int, int]]
    volume: Tensor | None = None

    @property
    def rows(self) -> Float[Tensor, "cells C"]:
        """The finest level."""
        return self.levels[: self.grids[0][0] * self.grids[0][1]]


@dataclass(frozen=True, eq=False)
class Estimate:
    """The estimate of some frames, on the grid of cells.

    Attributes:
        start: the first of them, counted from the anchor.
        size: (height, width) of the frames, in pixels.
        hidden: [F cells 128], from which the upsampling is made.
        flow: [F cells 2] in cells.
        logits: [F cells 2] visibility and confidence, before the factor of the upsampling.
    """

    start: int
    size: tuple[int, int]
    hidden: Float[Tensor, "F cells 128"]
    flow: Float[Tensor, "F cells 2"]
    logits: Float[Tensor, "F cells 2"]


class Dense:
    """A linear layer over rows, and its activation."""

    def __init__(self, arithmetic: Arithmetic, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        self.path, self.activation = arithmetic.path, activation
        self.weight = self.path.prepare(weight.flatten(1).to(arithmetic.product))
        self.bias = None if bias is None else bias.to(arithmetic.product)

    def __call__(self, rows: Tensor) -> Tensor:
        return self.path.product(rows.to(self.weight.dtype), self.weight, self.bias, self.activation)


def weight_and_bias(state: dict[str, Tensor], place: str, name: str) -> tuple[Tensor, Tensor]:
    """Of one layer."""
    return state[f"{place}.{name}.weight"], state[f"{place}.{name}.bias"]


def as_image(rows: Float[Tensor, "cells C"], grid: tuple[int, int]) -> Float[Tensor, "1 C h w"]:
    """The same numbers as a map."""
    return rows.unflatten(0, grid).permute(2, 0, 1)[None]


def as_rows(image: Float[Tensor, "1 C h w"]) -> Float[Tensor, "cells C"]:
    """The inverse of `as_image`."""
    return image[0].permute(1, 2, 0).flatten(0, 1)


class Arithmetic:
    """One network's operations on one device, in one dtype of the products.

    Args:
        net: the network; its weights are taken as they are now.
        dtype: "float32", "bfloat16", "float64"; on CUDA also "float16" and "tf32".
        device: where to compute.

    Raises:
        ValueError: a dtype that is none of these, or that the device has no use for.
    """

    def __init__(self, net: AllTracker, dtype: str, device: torch.device) -> None:
        check_dtype(dtype, device)
        self.dtype, self.device = dtype, device
        self.product = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
        self.stream: torch.dtype = torch.float64 if dtype == "float64" else torch.float32
        self.path = choose_path(self.product, device)
        self.channels = ENCODED[net.variant]
        state = {name: tensor.detach().to(device, self.stream) for name, tensor in net.state_dict().items()}
        self.time = state["time_emb"][0]
        self.encoder = (TinyEncoder if net.variant == "tiny" else FullEncoder)(self, net, state)
        self.motion = Motion(self, state)
        self.refine = Refine(self, state)
        self.heads = Heads(self, state)
        self.upsampling = Upsampling(self, state)

    def conv(self, weight: Tensor, bias: Tensor, relu: bool = False, **options) -> Conv:
        """A convolution [1 C H W] -> [1 D h w]."""
        return Conv(weight, bias, relu, self.product, **options)

    def encode(self, frame: Tensor) -> Encoded:
        """A frame's features: [H W 3], 0 to 255."""
        with tensor_cores(self.dtype, self.device):
            image = frame.to(self.device, self.stream).permute(2, 0, 1)[None]
            mean, std = (image.new_tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
            (top, bottom), (left, right) = (margins(side) for side in frame.shape[:2])
            image = F.pad((image / 255 - mean) / std, (left, right, top, bottom), mode="replicate")
            return self._pyramid(self.encoder(image).to(self.stream))

    def encoded(self, rows: Float[Tensor, "cells C"], size: tuple[int, int]) -> Encoded:
        """The `Encoded` of a frame of `size` whose finest level was kept."""
        return self._pyramid(as_image(rows.to(self.device, self.stream), grid_of(size)))

    def _pyramid(self, level: Float[Tensor, "1 C h w"]) -> Encoded:
        levels, grids = [], []
        # From rows, however the map lies in memory, so that kept rows give the same bits.
        level = as_image(as_rows(level).contiguous(), (level.shape[2], level.shape[3]))
        for i in range(LEVELS):
            # Bins that overlap where a side is odd, as in the published network.
            level = F.adaptive_avg_pool2d(level, (level.shape[2] // 2, level.shape[3] // 2)) if i else level
            levels.append(as_rows(level))
            grids.append((level.shape[2], level.shape[3]))
        return Encoded(torch.cat(levels).contiguous(), grids)

    def zeros(self, frames: int, size: tuple[int, int]) -> Tensor:
        """A first window's flow or logits."""
        h, w = grid_of(size)
        return torch.zeros(frames, h * w, 2, dtype=self.stream, device=self.device)

    def carried(self, half: Float[Tensor, "8 cells 2"]) -> Float[Tensor, "16 cells 2"]:
        """A later window's flow or logits: those of the frames it shares, the newest one's for all new frames."""
        half = half.to(self.device, self.stream)
        return torch.cat([half, half[-1:].expand(FRAMES - len(half), -1, -1)])

    def window(
        self,
        anchor: Encoded,
        frames: Sequence[Encoded],
        flow: Float[Tensor, "F cells 2"],
        logits: Float[Tensor, "F cells 2"],
        iters: int,
        needed: slice,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine the estimate of a window `iters` times.

        Args:
            anchor: the frame whose cells are tracked.
            frames: of the window; the same object where a frame is repeated.
            flow: in cells, to start from.
            logits: visibility and confidence, to start from.
            iters: 1 or more.
            needed: the frames whose result counts; that of the others is not computed to the end.

        Returns:
            hidden [F cells 128], flow and logits, right in the frames `needed`.
        """
        return deque(self.steps(anchor, frames, flow, logits, iters, needed), maxlen=1)[0]

    def steps(
        self,
        anchor: Encoded,
        frames: Sequence[Encoded],
        flow: Float[Tensor, "F cells 2"],
        logits: Float[Tensor, "F cells 2"],
        iters: int,
        needed: slice,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """What `window` returns, after each iteration."""
        with tensor_cores(self.dtype, self.device):
            self._keep_volumes(anchor, frames)
            times = self.time if len(frames) == FRAMES else self.time[1:2]
            context = self.refine.context(anchor.rows, times)
            hidden = anchor.rows[:, :CHANNELS].expand(len(frames), -1, -1)
            for i in range(iters):
                count = range(len(frames))[needed] if i == iters - 1 else range(len(frames))
                z = hidden.new_empty(len(frames), len(anchor.rows), CHANNELS)
                moved = z.new_empty(0)
                for f, frame in enumerate(frames):
                    # Copies of a frame differ in nothing but their time, until that has moved them apart.
                    if i or f == 0 or frame is not frames[f - 1] or not torch.equal(flow[f], flow[f - 1]):
                        moved = self.motion(anchor, frame, flow[f], self.volume(anchor, frame))
                    z[f] = self.refine.compress(hidden[f], moved, logits[f], context, f)
                hidden = self.refine(z, anchor.grids[0], count)
                flow, logits = flow.clone(), logits.clone()
                for f in count:
                    change = self.heads(hidden[f], anchor.grids[0])
                    flow[f] += change[:, :2]
                    logits[f] += change[:, 2:]
                yield hidden, flow, logits

    def _keep_volumes(self, anchor: Encoded, frames: Sequence[Encoded]) -> None:
        """Compare the anchor with as many of the window's frames as there is memory for."""
        each = len(anchor.rows) * len(anchor.levels) * self.product.itemsize
        distinct = list({id(frame): frame for frame in frames}.values())
        for frame in distinct[: int(VOLUMES / each)]:
            if frame.volume is None:
                frame.volume = anchor.rows.new_empty(len(anchor.rows), len(anchor.levels), dtype=self.product)
                for kept, compared in zip(frame.volume.split(LOOKUP_CELLS), self._compare(anchor, frame), strict=True):
                    kept.copy_(compared)

    def volume(self, anchor: Encoded, frame: Encoded) -> Iterator[Tensor]:
        """The correlations of the anchor's cells, some after others, with all of a frame: [n rows] each."""
        return iter(frame.volume.split(LOOKUP_CELLS)) if frame.volume is not None else self._compare(anchor, frame)

    def _compare(self, anchor: Encoded, frame: Encoded) -> Iterator[Tensor]:
        product = Dense(self, frame.levels / self.channels**0.5, None)
        return (product(cells) for cells in anchor.rows.split(LOOKUP_CELLS))

    def upsample(self, estimate: Estimate, cells: Int[Tensor, " n"]) -> Iterator[Float[Tensor, "n 64 4"]]:
        """Frame after frame, the pixels of some cells: flow (x, y) in pixels, visibility and confidence logits."""
        grid = grid_of(estimate.size)
        with tensor_cores(self.dtype, self.device):
            for hidden, flow, logits in zip(estimate.hidden, estimate.flow, estimate.logits, strict=True):
                yield self.upsampling(hidden, torch.cat([flow, logits], dim=1), grid, cells)

    def fields(self, estimate: Estimate) -> Iterator[Float[Tensor, "4 H W"]]:
        """Frame after frame, every pixel: flow (x, y) in pixels, visibility and confidence logits."""
        (H, W), (h, w) = estimate.size, grid_of(estimate.size)
        (top, _), (left, _) = margins(H), margins(W)
        for values in self.upsample(estimate, torch.arange(h * w, device=self.device)):
            field = values.reshape(h, w, CELL, CELL, 4).permute(4, 0, 2, 1, 3).reshape(4, h * CELL, w * CELL)
            yield field[:, top : top + H, left : left + W]


def margins(side: int) -> tuple[int, int]:
    """The pixels added before and after a side."""
    added = padded(side) - side
    return added // 2, added - added // 2


class TinyEncoder:
    """PIPs's feature network, in cells of 8 pixels."""

    def __init__(self, arithmetic: Arithmetic, net: AllTracker, state: dict[str, Tensor]) -> None:
        # Winograd's rounding, small in the update, triples the error of tracks here. On a CPU, norms of maps whose
        # channels are first are three times as fast, and convolutions as fast.
        rough, last = arithmetic.product in (torch.bfloat16, torch.float16), arithmetic.device.type != "cpu"
        self.fnet = copy.deepcopy(net.fnet).to(arithmetic.device, arithmetic.stream)
        for layer in [layer for layer in self.fnet.modules() if not isinstance(layer, nn.Conv2d)]:
            for name, conv in list(layer.named_children()):
                if isinstance(conv, nn.Conv2d):
                    options: dict = {"stride": conv.stride, "padding": conv.padding}
                    options |= {"winograd": rough, "channels_last": last}
                    setattr(layer, name, arithmetic.conv(conv.weight, cast(Tensor, conv.bias), **options))

    def __call__(self, image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 128 h w"]:
        return self.fnet(image, (image.shape[2] // CELL, image.shape[3] // CELL), self)

    def instance_norm(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return F.instance_norm(x) if x.is_contiguous() else instance_norm(x)


class FullEncoder:
    """ConvNeXt-Tiny, with a dilated convolution where its third stage would halve the resolution."""

    def __init__(self, arithmetic: Arithmetic, net: AllTracker, state: dict[str, Tensor]) -> None:
        part = functools.partial(weight_and_bias, state, "cnn.features")
        self.stem, self.stem_norm = arithmetic.conv(*part("0.0"), stride=4), part("0.1")
        halving = arithmetic.conv(*part("2.1"), stride=2)
        widening = arithmetic.conv(*part("4.1"), padding=2, dilation=2)
        blocks = [
            [Space(arithmetic, state, f"cnn.features.{s}.{i}") for i in range(n)] for s, n in ((1, 3), (3, 3), (5, 9))
        ]
        ends = [(part("2.0"), halving), (part("4.0"), widening), None]
        self.stages = list(zip(blocks, ends, strict=True))
        self.out = Dense(arithmetic, state["dot_conv.weight"], state["dot_conv.bias"])
        self.stream = arithmetic.stream

    def __call__(self, image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 256 h w"]:
        image = self.stem(image).to(self.stream)
        rows, grid = layer_norm(as_rows(image), *self.stem_norm), (image.shape[2], image.shape[3])
        for blocks, end in self.stages:
            for block in blocks:
                rows = block(rows, grid)
            if end:
                norm, conv = end
                image = conv(as_image(layer_norm(rows, *norm), grid)).to(self.stream)
                rows, grid = as_rows(image), (image.shape[2], image.shape[3])
        return as_image(self.out(rows), grid)


def layer_norm(rows: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Over each row's channels."""
    return F.layer_norm(rows, rows.shape[-1:], weight, bias, 1e-6)


class Space:
    """A ConvNeXt block: x + scale ⊙ MLP(norm(7×7 depthwise x))."""

    def __init__(self, arithmetic: Arithmetic, state: dict[str, Tensor], name: str) -> None:
        part = functools.partial(weight_and_bias, state, f"{name}.block")
        self.scale = state[f"{name}.layer_scale"].flatten()
        self.depthwise = arithmetic.conv(*part("0"), padding=3, groups=len(self.scale))
        self.norm = part("2")
        self.widen = Dense(arithmetic, *part("3"), "gelu")
        self.narrow = Dense(arithmetic, *part("5"))
        self.stream = arithmetic.stream

    def __call__(self, rows: Float[Tensor, "cells C"], grid: tuple[int, int]) -> Float[Tensor, "cells C"]:
        y = layer_norm(as_rows(self.depthwise(as_image(rows, grid))).to(self.stream), *self.norm)
        return torch.addcmul(rows, self.scale, self.narrow(self.widen(y)).to(self.stream))


class Time:
    """Attention over a window's frames, for each cell by itself, and an MLP: x + scale ⊙ (x + …)."""

    def __init__(self, arithmetic: Arithmetic, state: dict[str, Tensor], name: str) -> None:
        part = functools.partial(weight_and_bias, state, f"{name}.block")
        query, pair = part("attn.to_q"), part("attn.to_kv")
        self.query = Dense(arithmetic, query[0] / 4, query[1] / 4)  # 1/√16, which is exact
        self.key = Dense(arithmetic, pair[0][:CHANNELS], pair[1][:CHANNELS])
        self.value = Dense(arithmetic, pair[0][CHANNELS:], pair[1][CHANNELS:])
        self.out = Dense(arithmetic, *part("attn.to_out"))
        self.widen = Dense(arithmetic, *part("mlp.fc1"), "gelu_tanh")
        self.narrow = Dense(arithmetic, *part("mlp.fc2"))
        self.scale = state[f"{name}.layer_scale"].flatten()
        self.stream = arithmetic.stream

    def __call__(self, z: Float[Tensor, "F cells 128"], needed: range) -> None:
        """In place; frames that are not `needed` are looked at, and left as they are."""
        kept = slice(needed.start, needed.stop)
        for chunk in z.split(ATTENTION_CELLS, dim=1):
            x = chunk.contiguous()
            y = layer_norm(x)
            seen = self._attend(self.query(y[kept]), self.key(y), self.value(y))
            x = x[kept]
            inner = x + self.out(seen).to(self.stream)
            inner += self.narrow(self.widen(layer_norm(inner))).to(self.stream)
            torch.addcmul(x, self.scale, inner, out=inner)
            chunk[kept] = inner

    @staticmethod
    def _attend(query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "G cells 128"]:
        # A head is 16 numbers of a row: (cells · heads) problems of frames × 16, by strides alone.
        q, k, v = (x.reshape(len(x), -1, CHANNELS // HEADS).transpose(0, 1) for x in (query, key, value))
        shares = torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=2)
        return torch.bmm(shares, v).transpose(0, 1).reshape(query.shape)


class Motion:
    """The motion encoder: what a frame shows where the flow leads, and the flow itself."""

    def __init__(self, arithmetic: Arithmetic, state: dict[str, Tensor]) -> None:
        part = functools.partial(weight_and_bias, state, "update_block.motion_encoder")
        self.compared = Dense(arithmetic, *part("convc1"), "relu")
        self.compared2 = arithmetic.conv(*part("convc2"), relu=True, padding=1)
        self.flow1 = arithmetic.conv(*part("convf1"), relu=True, padding=2)
        self.flow2 = arithmetic.conv(*part("convf2"), relu=True, padding=1)
        self.joined = arithmetic.conv(*part("conv"), relu=True, padding=1)
        self.stream = arithmetic.stream

    def __call__(
        self, anchor: Encoded, frame: Encoded, flow: Float[Tensor, "cells 2"], volume: Iterator[Tensor]
    ) -> Float[Tensor, "cells 128"]:
        grid = anchor.grids[0]
        y, x = torch.meshgrid(*(torch.arange(side, device=flow.device) for side in grid), indexing="ij")
        places = flow + torch.stack([x.flatten(), y.flatten()], dim=1)
        chunks = zip(volume, places.split(LOOKUP_CELLS), strict=True)
        compared = torch.cat([self.compared(lookup(rows, at, anchor.grids)) for rows, at in chunks])
        compared = self.compared2(as_image(compared, grid))
        moved = self.flow2(self.flow1(as_image(flow, grid)))
        joined = as_rows(self.joined(torch.cat([compared, moved], dim=1)))
        return torch.cat([joined.to(self.stream), flow], dim=1)


def lookup(
    volume: Float[Tensor, "n rows"], places: Float[Tensor, "n 2"], grids: Sequence[tuple[int, int]]
) -> Float[Tensor, "n 405"]:
    """Correlations at 9 × 9 places around one place a cell, on each of five levels; beyond a map its border goes on.

    All places of a window have the same fractional part, so the 10 × 10 correlations under it are read and blended.
    The published order: level slowest, then x, y fastest.
    """
    device, dtype = places.device, places.dtype
    scale = torch.tensor([0.5**i for i in range(len(grids))], dtype=dtype, device=device)
    limits = torch.tensor([[w - 1, h - 1] for h, w in grids], device=device)
    starts = torch.tensor([sum(h * w for h, w in grids[:i]) for i in range(len(grids))], device=device)
    centre = places[:, None] * scale[:, None]  # n 5 2
    corner = centre.floor()
    share = (centre - corner)[..., None, None]
    # Weights that blow up end in the error that `Tracks` raises, not in an index out of range here.
    first = corner.nan_to_num().clamp(-1e6, 1e6).long() - RADIUS
    index = first[..., None] + torch.arange(2 * RADIUS + 2, device=device)  # n 5 2 10
    index = index.clamp(min=0).minimum(limits[..., None])
    rows = index[:, :, 1] * (limits[:, :1] + 1) + starts[:, None]
    taps = volume.gather(1, (index[:, :, 0, :, None] + rows[:, :, None]).flatten(1))
    taps = taps.to(dtype).unflatten(1, (len(grids), index.shape[-1], index.shape[-1]))  # n 5 x y
    taps = torch.lerp(taps[:, :, :-1], taps[:, :, 1:], share[:, :, 0])
    return torch.lerp(taps[..., :-1], taps[..., 1:], share[:, :, 1]).flatten(1)


class Refine:
    """The compressor, the blocks over time and space, and the layer that makes the new hidden state."""

    def __init__(self, arithmetic: Arithmetic, state: dict[str, Tensor]) -> None:
        weight, bias = state["update_block.compressor.weight"].flatten(1), state["update_block.compressor.bias"]
        hidden, context, others = weight.split([CHANNELS, CHANNELS, CHANNELS + 2], dim=1)
        # The context is the same in all iterations but for what the time adds, so its share is computed once.
        self.compressor = Dense(arithmetic, torch.cat([hidden, others], dim=1), torch.zeros_like(bias))
        self.contextual = Dense(arithmetic, context, bias)
        name = "update_block.refine"
        self.pairs = [
            (Time(arithmetic, state, f"{name}.{i}"), Space(arithmetic, state, f"{name}.{i + 1}"))
            for i in range(0, 2 * BLOCKS, 2)
        ]
        self.final = Dense(arithmetic, *weight_and_bias(state, "update_block", "final_conv"))
        self.timed = context.T
        self.stream = arithmetic.stream

    def context(self, anchor: Tensor, times: Float[Tensor, "F 128"]) -> tuple[Tensor, Tensor]:
        """The compressor's share of the context: of the cells [cells 128], and of the times [F 128]."""
        return self.contextual(anchor[:, -CHANNELS:]).to(self.stream), times @ self.timed

    def compress(
        self, hidden: Tensor, moved: Tensor, logits: Tensor, context: tuple[Tensor, Tensor], frame: int
    ) -> Float[Tensor, "cells 128"]:
        y = self.compressor(torch.cat([hidden, moved, logits], dim=1)).to(self.stream)
        return y + context[0] + context[1][frame]

    def __call__(self, z: Float[Tensor, "F cells 128"], grid: tuple[int, int], needed: range) -> Tensor:
        """The new hidden state of the frames that are needed; z is overwritten."""
        for i, (time, space) in enumerate(self.pairs):
            counted = needed if i == BLOCKS - 1 else range(len(z))  # attention in the last block is the last to look
            time(z, counted)
            for f in counted:
                z[f] = space(z[f], grid)
        for f in needed:
            z[f] = self.final(z[f])
        return z


class Heads:
    """The change of flow, and of visibility and confidence."""

    def __init__(self, arithmetic: Arithmetic, state: dict[str, Tensor]) -> None:
        heads = ("flow_head", "visconf_head")
        weight, bias = (torch.cat(pair) for pair in zip(*(weight_and_bias(state, head, "0") for head in heads)))
        self.first = arithmetic.conv(weight, bias, relu=True, padding=1)
        # The second convolutions have so few outputs that products, one for each of the 9 neighbours, are faster.
        second = [state[f"{head}.2.weight"].permute(2, 3, 0, 1).flatten(0, 2) for head in heads]
        self.second = [weight.to(arithmetic.product) for weight in second]
        self.bias = torch.cat([state[f"{head}.2.bias"] for head in heads])
        self.stream = arithmetic.stream

    def __call__(self, hidden: Float[Tensor, "cells 128"], grid: tuple[int, int]) -> Float[Tensor, "cells 4"]:
        wide = self.first(as_image(hidden, grid))[0].flatten(1)
        halves = zip(self.second, wide.to(self.second[0].dtype).chunk(2), strict=True)
        taps = torch.cat([torch.mm(weight, half).unflatten(0, (3, 3, 2)) for weight, half in halves], dim=2)
        taps = taps.to(self.stream).unflatten(3, grid)  # 3 3 4 h w
        (h, w), total = grid, self.bias[:, None, None].repeat(1, *grid)
        for i in range(3):
            for j in range(3):
                # Tap (i, j) reads the neighbour at (i - 1, j - 1); beyond the map there is nothing.
                to_y, to_x = slice(max(0, 1 - i), min(h, h + 1 - i)), slice(max(0, 1 - j), min(w, w + 1 - j))
                from_y, from_x = slice(max(0, i - 1), min(h, h + i - 1)), slice(max(0, j - 1), min(w, w + j - 1))
                total[:, to_y, to_x] += taps[i, j, :, from_y, from_x]
        return total.flatten(1).T


class Upsampling:
    """From cells to pixels: each pixel a convex combination of 3 × 3 cells, with weights from the hidden state."""

    def __init__(self, arithmetic: Arithmetic, state: dict[str, Tensor]) -> None:
        weight = state["upsample_weight.0.weight"].permute(0, 2, 3, 1)  # out 3 3 in
        self.first = Dense(arithmetic, weight.flatten(1), state["upsample_weight.0.bias"], "relu")
        second = weight_and_bias(state, "upsample_weight", "2")
        self.second = Dense(arithmetic, second[0] / 4, second[1] / 4)
        self.stream = arithmetic.stream

    def __call__(
        self, hidden: Float[Tensor, "cells 128"], values: Float[Tensor, "cells 4"], grid: tuple[int, int], cells: Tensor
    ) -> Float[Tensor, "n 64 4"]:
        """Blocks of one size, the last one filled up, so that a cell's result does not depend on the others."""
        (_, w), n = grid, len(cells)
        bordered = [F.pad(x.unflatten(0, grid), (0, 0, 1, 1, 1, 1)).flatten(0, 1) for x in (hidden, CELL * values)]
        row, column = cells // w, cells % w
        step = torch.arange(3, device=cells.device)
        index = ((row[:, None, None] + step[:, None]) * (w + 2) + column[:, None, None] + step).flatten(1)  # n 9
        filled = index[torch.arange(n + -n % UPSAMPLED_CELLS, device=cells.device).clamp(max=n - 1)]
        results = []
        for block in filled.split(UPSAMPLED_CELLS):
            around, known = (x[block] for x in bordered)  # b 9 128 and b 9 4
            weights = self.second(self.first(around.flatten(1))).to(self.stream).unflatten(1, (9, CELL**2))
            results.append(torch.bmm(weights.softmax(dim=1).transpose(1, 2), known))
        return torch.cat(results)[:n] if results else values.new_empty(0, CELL**2, 4)
