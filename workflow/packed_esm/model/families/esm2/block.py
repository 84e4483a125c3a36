"""One block of ESM-2 over rows of tokens, with the weights of a fair-esm `TransformerLayer`."""

from types import ModuleType

import torch
from torch import nn

from ....kernels.device import module_on_device, on_device
from ....kernels.dispatch import operations_for
from ....kernels.int8 import INT8, Int8FeedForward, activation_dtype
from ...attention import Attend
from ...parts import linear_of, pairs_together


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward (esm/modules.py, `TransformerLayer`).

    q, k and v come from one matrix. The residual stream and the norms are fp32, the rest is `dtype`. With int8 only the
    feed-forward products (two thirds of the work) use it, and the rest is bf16. With all products in int8 the worst
    residue's 1 - cosine was 1.3e-3 with trained weights, with these alone 2.9e-4, and with these in fp8 7.7e-4; with
    outliers planted fp8 had 2.7e-3 (tests/benchmarks/eight_bits.py).
    """

    def __init__(self, layer: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads, self.head_dim, self.dtype = attention.num_heads, attention.head_dim, activation_dtype(dtype)
        self.qkv = _fused(attention, device, self.dtype)
        self.out_proj = _on(attention.out_proj, device, self.dtype)
        self.attention_norm = module_on_device(layer.self_attn_layer_norm, device)
        self.final_norm = module_on_device(layer.final_layer_norm, device)
        self._ops = operations_for(device, self.dtype, attention.embed_dim)
        self.feed_forward = _feed_forward(layer, device, dtype, self._ops)

    def forward(
        self, x: torch.Tensor, delta: torch.Tensor | None, rotation: torch.Tensor | None, attend: Attend
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (x, delta), whose sum is the output of the block; its input is the sum of the arguments x and delta.

        The next block does the last addition, in one operation with its norm.

        Args:
            x: fp32 [rows, E], the residual stream.
            delta: [rows, E] in `dtype`, or None for nothing.
            rotation: complex64 [rows, D / 2], see `torch_ops.rotate`; None without rotary embedding (ESM-1b).
            attend: attention of q, k, v, [rows, H, D] each.
        """
        ops = self._ops
        x, normed = ops.add_norm(x, delta, self.attention_norm, self.dtype)
        attended = attend(*ops.qkv_product(normed, self.qkv, self.heads, rotation)).flatten(1)
        x, normed = ops.add_norm(x, self.out_proj(attended), self.final_norm, self.dtype)
        return x, self.feed_forward(normed)


class FeedForward(nn.Module):
    """fc2(GELU(fc1(x))) in `dtype`; the layers are fair-esm's, `ops` does the product with GELU."""

    def __init__(
        self, fc1: nn.Linear, fc2: nn.Linear, device: torch.device, dtype: torch.dtype, ops: ModuleType
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = (_on(linear, device, dtype) for linear in (fc1, fc2))
        self._ops = ops

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [rows, E]; x: [rows, E]."""
        return self.fc2(self._ops.gelu_product(x, self.fc1))


def _feed_forward(layer: nn.Module, device: torch.device, dtype: torch.dtype, ops: ModuleType) -> nn.Module:
    if dtype == INT8:
        return Int8FeedForward(layer.final_layer_norm, layer.fc1, layer.fc2, device)
    return FeedForward(layer.fc1, layer.fc2, device, dtype, ops)


def _fused(attention: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return one layer for q, k and v; the two outputs of q or k that rotate together are neighbours."""
    heads = attention.num_heads
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    moved = ([on_device(getattr(part, name).detach(), device) for part in parts] for name in ("weight", "bias"))
    weight, bias = (torch.cat([pairs_together(q, heads), pairs_together(k, heads), v]) for q, k, v in moved)
    return linear_of(weight, bias, dtype)


def _on(linear: nn.Linear, device: torch.device, dtype: torch.dtype) -> nn.Linear:
    return linear_of(*(on_device(one.detach(), device) for one in (linear.weight, linear.bias)), dtype)
