"""Attention over packed sequences: each token attends only to its own sequence.

A pack is `[total, heads, head_dim]`, cut into sequences by `cu_seqlens` (int32 [n + 1], from 0, as in
flash-attention). `attention_over` binds a backend to one pack.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import MissingPackageError
from ..kernels.device import HALF, on_device
from .backends import INSTALL_FLASH_ATTN, kernel_of

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def __getattr__(name: str) -> bool:
    if name == "FLASH_ATTN_AVAILABLE":  # lazy, because importing flash-attn takes seconds
        return kernel_of("flash-attn")[0] is not None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class PackLayout:
    """The boundaries of the sequences of a pack: `cu_seqlens` int32 [n + 1], on the host and on the device."""

    host: torch.Tensor
    device: torch.Tensor
    max_seqlen: int
    total: int

    @classmethod
    def of(
        cls, input_ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, device: torch.device
    ) -> "PackLayout":
        """Return the layout of a pack on `device`.

        Raises:
            ValueError: an argument has a wrong shape, dtype or device, or the bounds do not fit the pack.
        """
        if input_ids.ndim != 1 or input_ids.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"input_ids: need int32 or int64 [total], not {input_ids.dtype} {list(input_ids.shape)}")
        if input_ids.device != device:
            raise ValueError(f"input_ids: on {input_ids.device}, but the model is on {device}")
        if cu_seqlens.ndim != 1 or cu_seqlens.dtype != torch.int32:
            raise ValueError(f"cu_seqlens: need int32 [n + 1], not {cu_seqlens.dtype} {list(cu_seqlens.shape)}")
        if cu_seqlens.device.type not in ("cpu", device.type):
            raise ValueError(f"cu_seqlens: on {cu_seqlens.device}, need the host or {device}")
        host = cu_seqlens.cpu()
        if len(host) < 2 or input_ids.numel() == 0:
            raise ValueError("cu_seqlens: the pack is empty; it needs at least one sequence")
        lengths = host.diff()
        if host[0] != 0:
            raise ValueError(f"cu_seqlens: must begin with 0, not {int(host[0])}")
        if int(lengths.min()) < 1:
            raise ValueError(f"cu_seqlens: must be strictly increasing, but a sequence has {int(lengths.min())} tokens")
        if host[-1] != input_ids.numel():
            raise ValueError(f"cu_seqlens: ends at {int(host[-1])}, but input_ids has {input_ids.numel()} tokens")
        if max_seqlen < int(lengths.max()):
            raise ValueError(f"max_seqlen: {max_seqlen} is less than the longest sequence, {int(lengths.max())} tokens")
        return cls(host, on_device(cu_seqlens, device), int(max_seqlen), input_ids.numel())


def create_position_ids_packed(cu_seqlens: torch.Tensor, total: int | None = None) -> torch.Tensor:
    """Return the position of each token in its own sequence, int64 [total], from 0 at each boundary.

    On a device, give `total` (the last value of `cu_seqlens`): reading it there costs a synchronisation.
    """
    if total is None:
        total = int(cu_seqlens[-1])
    starts = per_token(cu_seqlens[:-1], cu_seqlens, total)
    return torch.arange(total, device=cu_seqlens.device) - starts


def per_token(values: torch.Tensor, cu_seqlens: torch.Tensor, total: int) -> torch.Tensor:
    """Repeat one value per sequence, [n], for each of its tokens, [total], without synchronisation."""
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
        ImportError: flash-attn is not installed or does not load; the message has the command that installs it.
        ValueError: a dtype that the kernels do not support.
    """
    kernel, missing = kernel_of("flash-attn")
    if kernel is None:
        raise MissingPackageError(f"flash-attn cannot be used ({missing}); {INSTALL_FLASH_ATTN}")
    if q.dtype not in HALF:
        raise ValueError(f"q: flash-attn needs float16 or bfloat16, not {q.dtype}")
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
    kernel, _ = kernel_of("flash-attn-3")
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
    kernel, _ = kernel_of("torch-varlen")
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
    """Return exact attention by one `scaled_dot_product_attention` per sequence; any device and dtype.

    Give `cu_seqlens` on the host; otherwise each call synchronises.
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
    """Return the attention function of a backend for one pack; its arguments are q, k, v, [total, heads, head_dim]."""
    if backend == "sdpa":
        return lambda q, k, v: sdpa_attention(q, k, v, layout.host, layout.max_seqlen)
    if backend == "triton":
        from ..kernels.triton_attention import query_tiles, triton_attention

        tiles = on_device(query_tiles(layout.host), layout.device.device)
        return lambda q, k, v: triton_attention(q, k, v, tiles)
    return lambda q, k, v: _VARLEN[backend](q, k, v, layout.device, layout.max_seqlen)


@functools.cache
def _keywords(function: Callable) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _supported(function: Callable, **keywords: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the keywords that this version of `function` has."""
    return {name: value for name, value in keywords.items() if name in _keywords(function)}
