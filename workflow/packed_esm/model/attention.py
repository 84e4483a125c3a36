"""Attention over packed sequences: every token sees its own sequence, and nothing else.

A pack is `[total, heads, head_dim]`, cut into sequences by `cu_seqlens` (int32 [n + 1], from 0, as in
flash-attention). `attention_over` binds a backend to one pack.
"""

import functools
import importlib
import importlib.metadata
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..kernels.torch_ops import HALF, on_device, why_no_triton

log = logging.getLogger(__name__)

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

BACKENDS = ("triton", "flash-attn", "flash-attn-3", "torch-varlen", "sdpa", "padded")
INSTALL_FLASH_ATTN = "pip install flash-attn --no-build-isolation, or conda-forge's flash-attn (envs/gpu.yaml)"


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
def _kernel(backend: str) -> tuple[Callable | None, str | None]:
    """Return (function of a backend or None, why it is missing or None)."""
    reason = None
    for module, name in _SOURCES[backend]:
        try:
            return getattr(importlib.import_module(module), name), None
        # OSError: a wheel built for another ABI; RuntimeError: operators that torch refuses to register.
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            reason = reason or f"{type(error).__name__}: {error}"
    return None, reason


def __getattr__(name: str) -> bool:
    if name == "FLASH_ATTN_AVAILABLE":  # found out when asked for, to start without the import
        return _kernel("flash-attn")[0] is not None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class PackLayout:
    """Where the sequences of a pack stand: `cu_seqlens` int32 [n + 1], on the host and on the device."""

    host: torch.Tensor
    device: torch.Tensor
    max_seqlen: int
    total: int


def create_position_ids_packed(cu_seqlens: torch.Tensor, total: int | None = None) -> torch.Tensor:
    """Return the position of each token in its own sequence, int64 [total], from 0 at each boundary.

    On a device, give `total` (the last of `cu_seqlens`) or reading it costs one synchronisation.
    """
    if total is None:
        total = int(cu_seqlens[-1])
    starts = per_token(cu_seqlens[:-1], cu_seqlens, total)
    return torch.arange(total, device=cu_seqlens.device) - starts


def per_token(values: torch.Tensor, cu_seqlens: torch.Tensor, total: int) -> torch.Tensor:
    """Repeat one value a sequence, [n], for each of its tokens, [total], without synchronisation."""
    return torch.repeat_interleave(values, cu_seqlens.diff(), output_size=total)


def flash_attn_varlen_wrapper(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    causal: bool = False,
    softmax_scale: float | None = None,
) -> torch.Tensor:
    """Return attention of a pack by FlashAttention-2 (Dao 2023), `flash_attn.flash_attn_varlen_func`.

    Args:
        q, k, v: fp16 or bf16 [total, heads, head_dim] on a CUDA device, head_dim a multiple of 8.
        cu_seqlens: int32 [n + 1] on the same device.
        max_seqlen: longest sequence in tokens.
        softmax_scale: head_dim ** -0.5 if None.

    Raises:
        ImportError: flash-attn is not installed or does not load; the message has the install line.
        ValueError: a dtype that the kernels do not take.
    """
    kernel, missing = _kernel("flash-attn")
    if kernel is None:
        raise ImportError(f"flash-attn cannot be used ({missing}); {INSTALL_FLASH_ATTN}")
    if q.dtype not in HALF:
        raise ValueError(f"q: flash-attn takes float16 or bfloat16, not {q.dtype}")
    return kernel(
        q,
        k,
        v,
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_k=cu_seqlens,
        max_seqlen_q=max_seqlen,
        max_seqlen_k=max_seqlen,
        dropout_p=dropout_p,
        causal=causal,
        softmax_scale=softmax_scale,
    )


def _flash_attn_3_attention(q, k, v, cu_seqlens, max_seqlen):  # noqa: ANN001, ANN202
    # num_splits=1: splitting the keys would make the order of summation depend on the neighbours.
    kernel, _ = _kernel("flash-attn-3")
    out = kernel(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        max_seqlen_q=max_seqlen,
        max_seqlen_k=max_seqlen,
        **_supported(kernel, num_splits=1),
    )
    return out[0] if isinstance(out, tuple) else out


def _torch_varlen_attention(q, k, v, cu_seqlens, max_seqlen):  # noqa: ANN001, ANN202
    kernel, _ = _kernel("torch-varlen")
    return kernel(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        **_supported(kernel, num_splits=1),
    )


def sdpa_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    softmax_scale: float | None = None,
) -> torch.Tensor:
    """Return exact attention by one `scaled_dot_product_attention` a sequence; any device and dtype.

    `cu_seqlens` is read on the host: give it there, or each call synchronises.
    """
    bounds = cu_seqlens.tolist()
    out = torch.empty_like(q)
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        one = (x[start:end].transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # [1, H, L, D]
        attended = F.scaled_dot_product_attention(*one, scale=softmax_scale)
        out[start:end] = attended.squeeze(0).transpose(0, 1)
    return out


_VARLEN = {
    "flash-attn": flash_attn_varlen_wrapper,
    "flash-attn-3": _flash_attn_3_attention,
    "torch-varlen": _torch_varlen_attention,
}


def attention_over(backend: str, layout: PackLayout) -> Attend:
    """Return the attention of one pack by a backend, a function of q, k, v, [total, heads, head_dim] each."""
    if backend == "sdpa":
        return lambda q, k, v: sdpa_attention(q, k, v, layout.host, layout.max_seqlen)
    if backend == "triton":
        from ..kernels.triton_attention import query_tiles, triton_attention

        tiles = on_device(query_tiles(layout.host), layout.device.device)
        return lambda q, k, v: triton_attention(q, k, v, tiles)
    return lambda q, k, v: _VARLEN[backend](q, k, v, layout.device, layout.max_seqlen)


def backend_version(backend: str) -> str:
    """Return `backend` with the version of the package that does the work, where it is not torch."""
    packages = {"triton": ("triton",), "flash-attn": ("flash-attn",), "flash-attn-3": ("fa3-fwd", "flash-attn-3")}
    for package in packages.get(backend, ()):
        try:
            return f"{backend} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return backend


def why_not(backend: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why a backend cannot run on a device in a dtype, or None if it can."""
    if backend in ("sdpa", "padded"):
        return None
    if device.type != "cuda":
        return f"it needs a CUDA device, not {device.type}"
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
    _, missing = _kernel(backend)
    return f"it does not import ({missing})" if missing else None


def choose_backend(requested: str, device: torch.device, dtype: torch.dtype, head_dim: int = 64) -> str:
    """Return the backend to use, and log which and why.

    `auto` takes the fastest that runs: the Triton kernel (for heads wider than 64 FlashAttention-3 before it), else
    FlashAttention-3, flash-attn 2, torch's varlen kernel, or sdpa.

    Raises:
        ValueError: an unknown backend, or one asked for by name that cannot run here (with the reason).
    """
    if requested != "auto":
        if requested not in BACKENDS:
            raise ValueError(f"attention: {requested!r} is not one of auto, {', '.join(BACKENDS)}")
        if reason := why_not(requested, device, dtype):
            raise ValueError(f"attention: {requested} cannot be used, {reason}; use attention: auto")
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


@functools.cache
def _keywords(function: Callable) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _supported(function: Callable, **keywords: Any) -> dict[str, Any]:  # noqa: ANN401
    """Keep the keywords that this version of `function` knows."""
    return {name: value for name, value in keywords.items() if name in _keywords(function)}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
