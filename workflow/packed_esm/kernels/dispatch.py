"""Choose between operations in torch and Triton kernels; both modules have the same functions."""

import functools
import importlib.util
import logging
import os
import shutil
from types import ModuleType

import torch

from . import torch_ops
from .device import HALF

log = logging.getLogger(__name__)


def operations_for(device: torch.device, dtype: torch.dtype) -> ModuleType:
    """Return `triton_ops` on a GPU in half precision, else `torch_ops`; log once if missing kernels make it slow."""
    if device.type == "cuda" and dtype in HALF:
        missing = why_no_triton(device)
        if missing is None:
            from . import triton_ops

            return triton_ops
        _warn_slow(missing)
    return torch_ops


def why_no_triton(device: torch.device) -> str | None:
    """Return why Triton kernels cannot run on a CUDA device, or None if they can."""
    if torch.version.hip:
        return "they need an NVIDIA GPU, and this torch is for ROCm"
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
    log.warning("no Triton kernels, so it runs at little more than half the rate: %s", missing)
