"""Attention backends: where each comes from, which can run here, and which to use; also which dtypes can run."""

import functools
import importlib
import logging
from collections.abc import Callable

import torch

from ..errors import OptionError, check_one_of
from ..kernels.device import HALF
from ..kernels.dispatch import why_no_triton
from ..kernels.int8 import INT8, activation_dtype, why_no_int8

log = logging.getLogger(__name__)

BACKENDS = ("triton", "flash-attn", "flash-attn-3", "torch-varlen", "sdpa", "padded")
INSTALL_FLASH_ATTN = "pip install flash-attn --no-build-isolation, or envs/flash-attn.yaml by conda"
# Where each kernel comes from: (module, function), the first that imports. Importing one can take seconds.
_SOURCES = {
    "flash-attn": [("flash_attn", "flash_attn_varlen_func")],
    "flash-attn-3": [
        ("fa3_fwd_interface", "flash_attn_varlen_func"),
        ("flash_attn_interface", "flash_attn_varlen_func"),
    ],
    "torch-varlen": [("torch.nn.attention.varlen", "varlen_attn")],
}


@functools.cache
def kernel_of(backend: str) -> tuple[Callable | None, str | None]:
    """Return (function of a backend or None, why it is missing or None)."""
    reason = None
    for module, name in _SOURCES[backend]:
        try:
            return getattr(importlib.import_module(module), name), None
        # OSError: a wheel built for another ABI; RuntimeError: operators that torch refuses to register.
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            reason = reason or f"{type(error).__name__}: {error}"
    return None, reason


def why_not(backend: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why a backend cannot run on a device in a dtype, or None if it can."""
    if backend in ("sdpa", "padded"):
        return None
    if device.type != "cuda":
        return f"it needs a CUDA device, not {device.type}"
    if torch.version.hip:
        return "it needs an NVIDIA GPU, and this torch is for ROCm"
    if dtype not in HALF:
        return f"its kernels take float16 and bfloat16, not {_name(dtype)}"
    if backend == "triton":
        return why_no_triton(device)
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"it needs compute capability 8.0 (Ampere) or newer, not {capability[0]}.{capability[1]}"
    if backend == "flash-attn-3":
        if capability[0] != 9:
            return f"its kernels are built for Hopper (9.x), not {capability[0]}.{capability[1]}"
        if dtype != torch.bfloat16:
            return f"its forward-only build takes bfloat16, not {_name(dtype)}"
    _, missing = kernel_of(backend)
    return f"it does not import ({missing})" if missing else None


def check_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of activations for products in a dtype; raise OptionError if these cannot run on the device."""
    if reason := why_no_dtype(dtype, device):
        raise OptionError(f"dtype: {reason}; use dtype: auto")
    return activation_dtype(dtype)


def why_no_dtype(dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why matrix products in a dtype cannot run on a device, or None if they can."""
    if dtype == INT8 and (reason := why_no_int8(device)):
        return f"int8 cannot be used, {reason}"
    return None


def choose_backend(requested: str, device: torch.device, dtype: torch.dtype, head_dim: int = 64) -> str:
    """Return the backend to use, and log which and why.

    `auto` takes the fastest that runs: the Triton kernel (for heads wider than 64 FlashAttention-3 before it), else
    FlashAttention-3, flash-attn 2, torch's varlen kernel, or sdpa.

    Raises:
        ValueError: an unknown backend, or one asked for by name that cannot run here (with the reason).
    """
    if requested != "auto":
        check_one_of("attention", requested, ("auto", *BACKENDS))
        if reason := why_not(requested, device, dtype):
            raise OptionError(f"attention: {requested} cannot be used, {reason}; use attention: auto")
        return requested
    fastest = ("triton", "flash-attn-3") if head_dim <= 64 else ("flash-attn-3", "triton")
    for backend in (*fastest, "flash-attn", "torch-varlen", "sdpa"):
        reason = why_not(backend, device, dtype)
        if reason is None:
            break
        log.debug("attention %s: %s", backend, reason)
    if backend in ("torch-varlen", "sdpa") and device.type == "cuda" and dtype in HALF:
        _warn_flash_attn_missing(backend, why_not("flash-attn", device, dtype))
    log.info("attention backend: %s (chosen for %s, %s)", backend, device.type, _name(dtype))
    return backend


@functools.cache
def _warn_flash_attn_missing(instead: str, reason: str) -> None:
    remedy = f" To install: {INSTALL_FLASH_ATTN}" if "does not import" in reason else ""
    log.warning("flash-attn is not used (%s); attention by %s instead.%s", reason, instead, remedy)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
