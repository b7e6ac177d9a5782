"""Matrix products and convolutions of trackers' networks, by the kernel that wins on the device at hand.

The rule (deterministic, so that every machine of a kind computes the same; figures in bench/LOG.md):
- CPU: oneDNN products on weights packed once, the activation in the same kernel. On the 2 cores measured this is 2.4
  times as fast as `F.linear` in float32, which takes MKL's path, and 1.2 times in bfloat16.
- CPU without these operators (torch builds differ): channels-last 1×1 convolutions in float32, `F.linear` in bfloat16.
- CPU, 3 × 3 convolutions of one image in float32: NNPACK's Winograd transform, where this torch has it. It needs 1/5 of
  the multiplications: 2.6 times as fast as oneDNN's direct convolution, and faster than that in bfloat16, for 15 times
  its rounding.
- CUDA: `F.linear` and `F.conv2d` in the dtype asked for. Written, not yet measured.
Knows dtypes and devices; knows no network.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

DTYPES = ("float32", "bfloat16", "float16", "tf32", "float64")
# name -> what oneDNN calls it, and the function it is
ACTIVATIONS = {
    "none": (("none", ""), lambda x: x),
    "relu": (("relu", ""), F.relu),
    "gelu": (("gelu", "none"), F.gelu),
    "gelu_tanh": (("gelu", "tanh"), lambda x: F.gelu(x, approximate="tanh")),
}


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raise `ValueError` unless products can be computed in `dtype` on `device`, and are worth it there."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    if dtype in ("float16", "tf32") and device.type != "cuda":
        raise ValueError(f"dtype: {dtype} pays on CUDA alone, expected float32 or bfloat16 on {device.type}")


@contextmanager
def tensor_cores(dtype: str, device: torch.device) -> Iterator[None]:
    """float32 products on tensor cores if and only if they are asked for, by the dtype "tf32"."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class OneDNN:
    """oneDNN on weights laid out for it once; the operators are those that torch's own compiler emits."""

    @staticmethod
    def prepare(weight: Float[Tensor, "out in"]) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight)

    @staticmethod
    def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
        attribute, algorithm = ACTIVATIONS[activation][0]
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, attribute, [], algorithm)


class Convolution:
    """A channels-last 1×1 convolution, which torch gives to oneDNN where it gives `F.linear` to MKL."""

    @staticmethod
    def prepare(weight: Float[Tensor, "out in"]) -> Tensor:
        return weight[:, :, None, None].contiguous(memory_format=torch.channels_last)

    @staticmethod
    def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
        image = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
        y = F.conv2d(image, weight, bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
        return ACTIVATIONS[activation][1](y)


class Plain:
    """`F.linear`."""

    @staticmethod
    def prepare(weight: Float[Tensor, "out in"]) -> Tensor:
        return weight.contiguous()

    @staticmethod
    def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
        return ACTIVATIONS[activation][1](F.linear(x, weight, bias))


Kernel = type[OneDNN] | type[Convolution] | type[Plain]


def choose_path(dtype: torch.dtype, device: torch.device) -> Kernel:
    """The kernel for matrix products of `dtype` on `device`, by the rule at the head of this file."""
    if device.type != "cpu" or dtype == torch.float64 or not torch.backends.mkldnn.is_available():
        return Plain
    if onednn_works(dtype):
        return OneDNN
    return Convolution if dtype == torch.float32 else Plain


def onednn_works(dtype: torch.dtype) -> bool:
    """Whether this torch has the packed product, with the arguments used here and the right answer."""
    weight, x, bias = torch.eye(32, dtype=dtype), torch.ones(4, 32, dtype=dtype), torch.zeros(32, dtype=dtype)
    try:
        return torch.equal(OneDNN.product(x, OneDNN.prepare(weight), bias), x)
    except (AttributeError, RuntimeError):
        return False


class Conv(nn.Module):
    """A convolution of one image [1 C H W], then a ReLU if asked for.

    Args:
        weight: [D C kh kw].
        bias: [D].
        relu: whether a ReLU follows.
        dtype: of the product; Winograd's is float32.
        winograd: whether Winograd may be taken where it can.
        channels_last: how the result lies in memory, and what it is computed on; with Winograd channels are first.
        **options: of `F.conv2d`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        relu: bool,
        dtype: torch.dtype,
        *,
        winograd: bool = True,
        channels_last: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        as_usual = "padding" in options and all(option in (1, (1, 1)) for option in options.values())
        fits = as_usual and weight.shape[2:] == (3, 3) and weight.shape[1] >= 16
        self.winograd = (
            winograd and fits and dtype != torch.float64 and weight.device.type == "cpu" and winograd_works()
        )
        last = channels_last and not self.winograd
        self.layout = torch.channels_last if last else torch.contiguous_format
        weight = weight.detach().to(torch.float32 if self.winograd else dtype)
        self.weight = weight.contiguous(memory_format=self.layout)
        self.bias, self.relu, self.options = bias.detach().to(weight.dtype), relu, options

    def forward(self, image: Float[Tensor, "1 C H W"]) -> Float[Tensor, "1 D h w"]:
        image = image.to(self.weight.dtype).contiguous(memory_format=self.layout)
        if self.winograd:
            y = torch.ops.aten._nnpack_spatial_convolution(image, self.weight, self.bias, [1, 1], [1, 1])
        else:
            y = F.conv2d(image, self.weight, self.bias, **self.options)
        return F.relu_(y) if self.relu else y


@functools.cache
def winograd_works() -> bool:
    """Whether this torch and this CPU have NNPACK's convolution, with the right answer."""
    image, weight = (
        torch.arange(16 * 81.0).sin().reshape(1, 16, 9, 9),
        torch.arange(16 * 9.0).cos().reshape(1, 16, 3, 3),
    )
    try:
        if not torch.backends.nnpack.is_available():  # which also makes it ready
            return False
        got = torch.ops.aten._nnpack_spatial_convolution(image, weight, torch.zeros(1), [1, 1], [1, 1])
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(got, F.conv2d(image, weight, padding=1), atol=1e-3)
