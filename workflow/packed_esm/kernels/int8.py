"""The feed-forward in int8: rows of activations and of weights have scales, and the sums are exact integers."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from .device import on_device
from .dispatch import why_no_gluon

INT8 = torch.int8
LARGEST = 127
LEAST_GELU = -11 / 64  # no value of GELU is less
BELOW = 128  # steps of int8 below 0
ROWS = 512  # at once
FAR = 4.0  # standard deviations: how large a hidden value is taken to be


def why_no_int8(device: torch.device) -> str | None:
    """Return why products in int8 cannot run on a device, or None if they can."""
    if device.type == "cuda":
        return why_no_gluon(device)
    if device.type != "cpu":
        return f"it needs a CPU or a CUDA device, not {device.type}"
    if not torch.backends.mkldnn.is_available():
        return "it needs a torch with oneDNN"
    if not (torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()):
        return "it needs a CPU with AVX-512 VNNI or AMX"  # others add int8 with saturation, or slowly
    if not _sums_are_exact():
        return "oneDNN adds int8 with saturation here; unset ONEDNN_MAX_CPU_ISA"
    return None


@functools.cache
def _sums_are_exact() -> bool:
    """Return whether sums of the largest products are exact: oneDNN can be told to do without VNNI."""
    rows, columns = torch.full((32, 64), LARGEST, dtype=INT8), torch.full((32, 64), -BELOW, dtype=INT8)
    rows[1::2], columns[1::2] = -BELOW, LARGEST
    return torch.equal(torch._int_mm(rows, columns.t()), rows.int() @ columns.int().t())


def activation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of activations for products in `dtype`: bf16 for int8, else `dtype` itself."""
    return torch.bfloat16 if dtype == INT8 else dtype


class Int8Linear(nn.Module):
    """y = x W^T + b in bf16; x is bf16, and each row of it is quantised before the product.

    A row of y depends on its row of x alone: the sums are exact in int32, and all else is one operation a value.

    Args:
        weight: fp32 [out, in].
        bias: fp32 [out].
        sizes: [in], how large the values of each column of x are, roughly. A column of large values would leave few
            steps for the others, so columns of x are divided, and those of the weights multiplied, by powers of two
            that share the range between both (SmoothQuant, Xiao et al. 2023, with 0.5).
        least: no x is less; None: x has both signs. With it, steps are half as large.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, sizes: torch.Tensor, least: float | None = None
    ) -> None:
        super().__init__()
        spread = _power_of_two((_positive(sizes) / _positive(weight.abs().amax(0))).sqrt())
        weight = weight * spread
        scale = _positive(weight.abs().amax(1)) / LARGEST
        rounded = weight.div_(scale[:, None]).round_()
        self.least = least
        below = torch.zeros_like(scale)
        if least is not None:
            bias = bias + (least * scale * (rounded / spread).sum(1, dtype=torch.float64)).float()
            below = BELOW * rounded.sum(1, dtype=torch.float64)
        self.register_buffer("from_below", below.int(), persistent=False)
        self.register_buffer("weight", rounded.to(INT8), persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.register_buffer("inverse_spread", 1 / spread, persistent=False)

    def forward(self, x: torch.Tensor, gelu: bool = False) -> torch.Tensor:
        """Return y or GELU(y), bf16 [rows, out]; x: bf16 [rows, in]."""
        if x.is_cuda:
            return self._on_gpu(x, gelu)
        rows, scale = quantise(x, self.inverse_spread, self.least)
        sums = torch._int_mm(rows, self.weight.t())
        if self.least is not None:
            sums.add_(self.from_below)
        y = sums.float().mul_(scale).mul_(self.scale).add_(self.bias).bfloat16()
        return F.gelu(y) if gelu else y

    def _on_gpu(self, x: torch.Tensor, gelu: bool) -> torch.Tensor:
        from .gluon_product import Scales, product
        from .triton_ops import quantise

        rows, scale = quantise(x, self.inverse_spread, self.least)
        scales = Scales(scale, self.scale, self.from_below)
        return product(rows, self.weight, self.bias, "gelu" if gelu else "nothing", scales=scales)


def quantise(x: torch.Tensor, factor: torch.Tensor, least: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (int8 [rows, in], scale fp32 [rows, 1]) of x * factor; x: bf16 [rows, in], factor: fp32 [in].

    With `least` it is (x - least) * factor, and int8 -128 is 0. A row that is not finite has such a scale.
    """
    if least is None:
        x = x.float().mul_(factor)
        scale = _positive(x.abs().amax(1, keepdim=True)) / LARGEST
        return x.div_(scale).round_().to(INT8), scale
    x = x.float().sub_(least).mul_(factor)
    scale = _positive(x.abs().amax(1, keepdim=True)) / (LARGEST + BELOW)  # all are positive, but for -inf
    return x.div_(scale).round_().sub_(BELOW).to(INT8), scale


class Int8FeedForward(nn.Module):
    """fc2(GELU(fc1(x))) in int8, on a CPU some rows at a time: what is between the products then stays in the cache.

    The sizes of the inputs of both products are estimated from the weights: a normalised value has mean 0 and
    variance 1, and a hidden value is a sum of many.

    Args:
        norm, fc1, fc2: the norm before, [E], and the two layers, E to 4 E and back.
        device: where to run.
    """

    def __init__(self, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear, device: torch.device) -> None:
        super().__init__()
        gain, shift = (on_device(one.detach(), device).float() for one in (norm.weight, norm.bias))
        weight, bias = (on_device(one.detach(), device).float() for one in (fc1.weight, fc1.bias))
        # Sums in fp64: in fp32 a size could depend on the number of threads.
        mean = (weight * shift).sum(1, dtype=torch.float64) + bias
        hidden = mean + FAR * (weight * gain).square().sum(1, dtype=torch.float64).sqrt()
        self.fc1 = Int8Linear(weight, bias, (gain.square() + shift.square()).sqrt())
        weight, bias = (on_device(one.detach(), device).float() for one in (fc2.weight, fc2.bias))
        self.fc2 = Int8Linear(weight, bias, (F.gelu(hidden) - LEAST_GELU).float(), LEAST_GELU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return bf16 [rows, E]; x: bf16 [rows, E]."""
        if x.is_cuda:
            return self.fc2(self.fc1(x, gelu=True))
        return torch.cat([self.fc2(self.fc1(rows, gelu=True)) for rows in x.split(ROWS)])


def _positive(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(min=1e-12)


def _power_of_two(values: torch.Tensor) -> torch.Tensor:
    return values.log2().round().exp2()
