"""Compute the network's operations fast: products by `products`, instance norms and lookups for channels-last maps.

Whatever the dtype of the products, coordinates stay float64, and features, norms and sums float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowlib.trackers.pips.network import BORDER, LEVELS, RADIUS, SCALE, Mix, PIPs, Pyramid, instance_norm
from flowlib.trackers.products import check_dtype, choose_path


class Fast:
    """An `Arithmetic` for one network, one device and one dtype of the products.

    Args:
        net: the network; copied where another layout, dtype or device is needed, never changed.
        dtype: "float32", "bfloat16", "float64"; on CUDA also "float16" and "tf32".
        device: where to compute.

    Raises:
        ValueError: a dtype that is none of these, or that the device has no use for.
    """

    def __init__(self, net: PIPs, dtype: str, device: torch.device) -> None:
        check_dtype(dtype, device)
        self.device = device
        self.product = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
        self.stream: torch.dtype = torch.float64 if dtype == "float64" else torch.float32
        here = net.norm.weight.device == device and net.norm.weight.dtype == self.stream
        self.net = net if here else copy.deepcopy(net).to(device, self.stream)
        fnet = copy.deepcopy(net.fnet)
        self.fnet = fnet.to(dtype=self.product, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.path = choose_path(self.product, device)
        self._weights: dict[int, Tensor] = {}

    def features(self, net: PIPs, frame: Tensor) -> Float[Tensor, "128 h w"]:
        image = frame.to(self.device, self.stream)[None].contiguous(memory_format=torch.channels_last)
        return self.fnet((2 * (image / 255) - 1).to(self.product), net.cells(frame), self)[0].to(self.stream)

    def instance_norm(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return instance_norm(x)

    def dense(self, layer: nn.Linear | nn.Conv1d, x: Tensor, gelu: bool = False) -> Tensor:
        return self._product(layer, x, gelu).to(self.stream)

    def mix_frames(self, mix: Mix, x: Float[Tensor, "N S 512"]) -> Float[Tensor, "N S 512"]:
        # With the frames last, mixing them is a product like the others, and the kernel computes the GELU.
        hidden = self._product(mix.fn["0"], x.transpose(1, 2).contiguous(), gelu=True)  # pyright: ignore
        return self.dense(mix.fn["3"], hidden).transpose(1, 2)  # pyright: ignore[reportArgumentType]

    def _product(self, layer: nn.Linear | nn.Conv1d, x: Tensor, gelu: bool) -> Tensor:
        """In the dtype of the products; the hidden layer goes from one to the next without leaving it."""
        key = id(layer)
        if key not in self._weights:
            self._weights[key] = self.path.prepare(layer.weight.detach().flatten(1).to(self.device, self.product))
            self._weights[-key] = layer.bias.detach().to(self.device, self.product)  # pyright: ignore
        return self.path.product(
            x.to(self.product), self._weights[key], self._weights[-key], "gelu" if gelu else "none"
        )

    def correlation(
        self, pyramids: Sequence[Pyramid], features: Float[Tensor, "N S 128"], coords: Float[Tensor, "N S 2"]
    ) -> Float[Tensor, "N S 196"]:
        """By local lookup: all places of a window have the same fractional part, so the 8 × 8 cells under it are
        compared first and the products interpolated, instead of interpolating features at 49 places.
        """
        N, S, C = features.shape
        side = 2 * RADIUS + 2
        scaled = features / SCALE
        products = features.new_empty(N, S, LEVELS, side, side)
        shares = features.new_empty(N, S, LEVELS, 2)
        for i in range(LEVELS):
            centre = coords / 2**i
            corner = centre.floor()
            shares[:, :, i] = centre - corner
            for s, levels in enumerate(pyramids):
                rows = levels.maps[i].index_select(0, window_rows(corner[:, s], levels.sizes[i])).reshape(N, -1, C)
                products[:, s, i] = (scaled[:, s, None] @ rows.transpose(1, 2)).reshape(N, side, side)
        share_x, share_y = shares[..., 0, None, None], shares[..., 1, None, None]
        products = torch.lerp(products[..., :-1, :], products[..., 1:, :], share_x)
        return torch.lerp(products[..., :-1], products[..., 1:], share_y).reshape(N, S, -1)


def window_rows(corner: Float[Tensor, "N 2"], size: tuple[int, int]) -> Tensor:
    """The rows of a bordered map that hold the 8 × 8 cells of each window, x slow and y fast: int64 [N·64]."""
    H, W = size
    # A window off the map by more than its size is moved to just beside it: zeros here as there.
    limit = corner.new_tensor([W + RADIUS, H + RADIUS])
    # Weights that blow up end in the error that `Tracks` raises, not in an index out of range here.
    first = corner.nan_to_num().clamp(min=-RADIUS - 2).minimum(limit).long() - RADIUS + BORDER
    span = torch.arange(2 * RADIUS + 2, device=corner.device)
    x, y = first[:, 0, None, None] + span[:, None], first[:, 1, None, None] + span
    return (y * (W + 2 * BORDER) + x).reshape(-1)
