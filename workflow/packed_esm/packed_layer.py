"""One block of ESM-2 over rows of tokens, with the weights of a fair-esm `TransformerLayer`."""

import copy
import types
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

# Kernels are chosen by shape alone: a choice by timing could pick another order of summation in another process.
COMPILE_OPTIONS = {"deterministic": True, "max_autotune": False}


class PackedLayer(nn.Module):
    """Pre-norm attention and feed-forward (esm/modules.py, `TransformerLayer`).

    q, k and v come from one matrix. The residual stream and the norms are fp32, the rest is `dtype`.
    """

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads, self.head_dim, self.dtype = attention.num_heads, attention.head_dim, dtype
        self.qkv = _fuse([attention.q_proj, attention.k_proj, attention.v_proj], dtype)
        self.out_proj = _linear(attention.out_proj, dtype)
        self.fc1 = _linear(layer.fc1, dtype)
        self.fc2 = _linear(layer.fc2, dtype)
        self.attention_norm = copy.deepcopy(layer.self_attn_layer_norm).float()
        self.final_norm = copy.deepcopy(layer.final_layer_norm).float()

    def before_attention(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return q, k, v, [rows, H, D] each, q and k rotated; x: fp32 [rows, E]; cos, sin: fp32 [rows, 1, D]."""
        normed = self.attention_norm(x).to(self.dtype)
        q, k, v = self.qkv(normed).view(-1, 3, self.heads, self.head_dim).unbind(1)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def after_attention(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Return the block's output, fp32 [rows, E]; attended: [rows, H, D]."""
        x = x + self.out_proj(attended.flatten(1))
        normed = self.final_norm(x).to(self.dtype)
        return x + self.fc2(F.gelu(self.fc1(normed)))


class CompiledHalves:
    """What stands before and after the attention of a block, compiled for packs of `tokens` tokens.

    One compilation serves all layers. The attention stays outside: its shapes change from pack to pack
    (number of sequences, longest sequence), those of the rest never do.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.before = _compile(PackedLayer.before_attention)
        self.after = _compile(PackedLayer.after_attention)


def _compile(function: Callable) -> Callable:
    from torch._inductor import config  # takes a second to import

    options = {key: value for key, value in COMPILE_OPTIONS.items() if hasattr(config, key)}
    # A code object of its own: torch counts recompilations by code object, over all models, and gives up after eight.
    own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    return torch.compile(own, dynamic=False, fullgraph=True, options=options)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return x [rows, H, D] turned by its angles, in fp32, in the dtype of x (esm/rotary_embedding.py, half-split)."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def _fuse(linears: list[nn.Linear], dtype: torch.dtype) -> nn.Linear:
    """Return one Linear for several of the same input; in fp32 the originals become views of it."""
    weight = torch.cat([linear.weight.detach() for linear in linears]).to(dtype)
    bias = torch.cat([linear.bias.detach() for linear in linears]).to(dtype)
    fused = _linear_of(weight, bias)
    if dtype == torch.float32:
        rows = weight.shape[0] // len(linears)
        for i, linear in enumerate(linears):
            linear.weight.data = weight[i * rows : (i + 1) * rows]
            linear.bias.data = bias[i * rows : (i + 1) * rows]
    return fused


def _linear(linear: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    return _linear_of(linear.weight.detach().to(dtype), linear.bias.detach().to(dtype))


def _linear_of(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
