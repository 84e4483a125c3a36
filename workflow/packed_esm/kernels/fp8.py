"""Matrix products in fp8 (float8_e4m3fn): each row of both matrices is scaled by its largest absolute value."""

import torch
from torch import nn

from .dispatch import why_no_triton

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max


def activation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of activations for products in `dtype`: bf16 for fp8 and int8, else `dtype` itself."""
    return torch.bfloat16 if dtype.itemsize == 1 else dtype


def why_no_fp8(device: torch.device) -> str | None:
    """Return why products in fp8 cannot run on a device, or None if they can."""
    if device.type != "cuda":
        return f"it needs a CUDA device, not {device.type}"
    if torch.version.hip:
        return "it needs an NVIDIA GPU, and this torch is for ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < (9, 0):
        return f"it needs compute capability 9.0 (Hopper) or newer, not {capability[0]}.{capability[1]}"
    return why_no_triton(device)


class Fp8Linear(nn.Module):
    """y = x W^T + b in bf16; x is bf16 and is quantised before the product.

    Args:
        weight: fp32 [out, in], both multiples of 16, on a CUDA device.
        bias: fp32 [out].
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST
        self.register_buffer("weight", (weight / scale).to(FP8), persistent=False)
        self.register_buffer("scale", scale.T.contiguous(), persistent=False)
        self.register_buffer("bias", bias.to(torch.bfloat16), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return bf16 [rows, out]; x: bf16 [rows, in]."""
        from .triton_ops import quantise

        rows, scale = quantise(x, FP8, LARGEST)
        return torch._scaled_mm(
            rows, self.weight.t(), scale, self.scale, bias=self.bias, out_dtype=torch.bfloat16, use_fast_accum=True
        )
