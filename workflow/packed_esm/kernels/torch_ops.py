"""What stands between the matrix products of a block: in torch here, as GPU kernels in `triton_ops`.

`operations_for` chooses the module; both have the same functions.
"""

import functools
import importlib.util
import logging
import os
import shutil
import sys
from types import ModuleType

import torch
from torch import nn

log = logging.getLogger(__name__)

HALF = (torch.float16, torch.bfloat16)
UNCUT_NUMBERS = 2**14  # half of ATen's GRAIN_SIZE, below which one thread does it all


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x + delta, its layer norm in `dtype`); x: fp32 [rows, E]; delta: [rows, E], or None for nothing."""
    if delta is not None:
        x = x + delta
    return x, norm(x).to(dtype)


def rotate(qkv: torch.Tensor, rotation: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return q, k, v, [rows, H, D] each, q and k turned by their angles (esm/rotary_embedding.py).

    Args:
        qkv: [rows, 3, H, D]; may be overwritten. The two values that turn together stand together, so that they are
            one complex number: `packed_layer` orders the rows of the weights so.
        rotation: complex64 [rows, D / 2], exp(i angle). The products are fp32, whatever the dtype of qkv.
    """
    q, k, v = qkv.unbind(1)
    pairs = qkv[:, :2].float().unflatten(-1, (-1, 2))
    turned = torch.view_as_complex(pairs)
    # On a CPU torch shares out larger products among threads, cuts them anywhere, and rounds otherwise beside a cut.
    rows = len(qkv) if qkv.is_cuda else max(1, UNCUT_NUMBERS // turned[0].numel())
    for part, angles in zip(turned.split(rows), rotation.split(rows), strict=True):
        part.mul_(angles[:, None, None])
    if qkv.dtype != torch.float32:
        q, k = torch.view_as_real(turned).flatten(-2).to(qkv.dtype).unbind(1)
    return q, k, v


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on the device, copied without waiting for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def operations_for(device: torch.device, dtype: torch.dtype) -> ModuleType:
    """Return `triton_ops` on a GPU in half precision, else this module; say once why not where it would be slow."""
    if device.type == "cuda" and dtype in HALF:
        missing = why_no_triton(device)
        if missing is None:
            from . import triton_ops

            return triton_ops
        _warn_slow(missing)
    return sys.modules[__name__]


def why_no_triton(device: torch.device) -> str | None:
    """Return why Triton kernels cannot run on a CUDA device, or None if they can."""
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"it needs compute capability 8.0 (Ampere) or newer, not {capability[0]}.{capability[1]}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; pip install triton, in the version that torch asks for"
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CC", ""), "gcc", "cc", "clang")):
        return "triton needs a C compiler; install gcc or set CC"
    return None


@functools.cache
def _warn_slow(missing: str) -> None:
    log.warning("no Triton kernels, a little more than half as fast: %s", missing)
