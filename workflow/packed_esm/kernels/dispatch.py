"""Choose between operations in torch and GPU kernels; all modules of operations have the same functions."""

import functools
import importlib.util
import logging
import os
import shutil
from types import ModuleType

import torch

from . import torch_ops
from .device import HALF

HOPPER = (9, 0)
GLUON_WIDTHS = range(640, 2560)  # of models that `gluon_ops` makes faster: 150M and 650M, but not 3B
GLUON_MULTIPLE = 64  # columns of a part of a tile in `gluon_product`, which is rotated or not

log = logging.getLogger(__name__)


def operations_for(device: torch.device, dtype: torch.dtype, embed_dim: int) -> ModuleType:
    """Return the module of operations for a model of some width.

    On a GPU in half precision it is `triton_ops`, or on Hopper `gluon_ops`; else `torch_ops`. It is logged once if
    missing kernels make it slow.
    """
    if device.type == "cuda" and dtype in HALF:
        missing = why_no_triton(device)
        if missing is None:
            from . import triton_ops

            return _gluon_ops(device, embed_dim) or triton_ops
        _warn_slow(missing)
    return torch_ops


def _gluon_ops(device: torch.device, embed_dim: int) -> ModuleType | None:
    """Return `gluon_ops`, or None where its products do not run or do not pay."""
    if embed_dim not in GLUON_WIDTHS or embed_dim % GLUON_MULTIPLE:
        return None
    if reason := why_no_gluon(device):
        if torch.cuda.get_device_capability(device) == HOPPER:
            _warn_no_gluon(reason)
        return None
    from . import gluon_ops

    return gluon_ops


def why_no_gluon(device: torch.device) -> str | None:
    """Return why the products in Gluon cannot run on a CUDA device, or None if they can."""
    if reason := why_no_triton(device):
        return reason
    if (capability := torch.cuda.get_device_capability(device)) != HOPPER:
        return f"it needs compute capability 9.0 (Hopper), not {capability[0]}.{capability[1]}"
    try:
        importlib.import_module(".gluon_product", __package__)
    except (ImportError, AttributeError) as error:  # Gluon may still change
        return f"this triton has another Gluon ({error})"
    return None


def why_no_triton(device: torch.device) -> str | None:
    """Return why Triton kernels cannot run on a CUDA device, or None if they can."""
    if torch.version.hip:
        return "it needs an NVIDIA GPU, and this torch is for ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"it needs compute capability 8.0 (Ampere) or newer, not {capability[0]}.{capability[1]}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; pip install triton, in the version that torch asks for"
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CC", ""), "gcc", "cc", "clang")):
        return "triton needs a C compiler; install gcc or set CC"
    return None


@functools.cache
def _warn_no_gluon(reason: str) -> None:
    log.warning("the products of Hopper GPUs cannot be used, so it runs at some 0.95 of the rate: %s", reason)


@functools.cache
def _warn_slow(missing: str) -> None:
    log.warning("no Triton kernels, so it runs at little more than half the rate: %s", missing)
