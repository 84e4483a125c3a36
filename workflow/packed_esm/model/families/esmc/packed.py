"""ESM C over packed sequences, with the weights of `checkpoint.EsmC`."""

import math

import torch
from torch import nn

from ....kernels.device import module_on_device, on_device
from ....kernels.dispatch import operations_for
from ....sequences.tokens import MASK, PAD
from ...attention import Attend
from ...parts import PackedParts, linear_of, pairs_together
from .checkpoint import EsmC


def parts(model: EsmC) -> PackedParts:
    """Return the parts of an ESM C."""
    width, heads = model.norm.normalized_shape[0], model.heads
    divisor = math.sqrt(len(model.layers) / 36)  # `scaling_factor` of transformers
    return PackedParts(
        num_layers=len(model.layers),
        embed_dim=width,
        attention_heads=heads,
        block=lambda index, device, dtype: EsmCBlock(model.layers[index], heads, divisor, device, dtype),
        embedding=model.embed_tokens.weight.detach().float(),
        final_norm=_with_bias(model.norm),
        padding_idx=PAD,
        mask_idx=MASK,
        inv_freq=1.0 / (model.rope_theta ** (torch.arange(0, width // heads, 2).float() / (width // heads))),
        lm_head=model.lm_head,
    )


def _with_bias(norm: nn.LayerNorm) -> nn.LayerNorm:
    """Return the norm with a bias of zero, which the kernels read."""
    result = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    result.weight = norm.weight
    return result


class EsmCBlock(nn.Module):
    """Pre-norm attention and feed-forward (transformers, `EsmcLayer`), called as `TransformerBlock` is.

    q and k have a layer norm over all heads; the feed-forward is SwiGLU; no product has a bias. What a block adds to
    the residual stream is divided by a constant; here the weights of the last product before it are.

    Args:
        layer: of an `EsmC`.
        heads: of the attention.
        divisor: sqrt(layers / 36).
        device: where to run.
        dtype: of the products.
    """

    def __init__(
        self, layer: nn.ModuleDict, heads: int, divisor: float, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        weight = {name: on_device(one.detach(), device) for name, one in layer.named_parameters() if one.ndim > 1}
        norms = {name: one for name, one in layer.named_modules() if isinstance(one, nn.LayerNorm)}
        q, k, v, out = (weight[f"self_attn.{name}_proj.weight"] for name in "qkvo")
        gate, up, down = (weight[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        self.heads, self.dtype = heads, dtype
        self.qkv = linear_of(torch.cat([pairs_together(q, heads), pairs_together(k, heads), v]), None, dtype)
        gains = [on_device(norms[f"self_attn.{name}_norm"].weight.detach(), device).float() for name in "qk"]
        self.register_buffer("gains", torch.stack([pairs_together(gain, heads) for gain in gains]), persistent=False)
        self.eps = norms["self_attn.q_norm"].eps
        self.out_proj = linear_of(out.float() / divisor, None, dtype)
        self.gates_and_ups = linear_of(torch.cat([gate, up]), None, dtype)
        self.down_proj = linear_of(down.float() / divisor, None, dtype)
        self.attention_norm = module_on_device(norms["input_layernorm"], device)
        self.final_norm = module_on_device(norms["post_attention_layernorm"], device)
        self._ops = operations_for(device, dtype, q.shape[1])

    def forward(
        self, x: torch.Tensor, delta: torch.Tensor | None, rotation: torch.Tensor, attend: Attend
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (x, delta), whose sum is the output of the block."""
        ops = self._ops
        x, normed = ops.add_norm(x, delta, self.attention_norm, self.dtype)
        qkv = ops.normed_qkv_product(normed, self.qkv, self.heads, rotation, self.gains, self.eps)
        x, normed = ops.add_norm(x, self.out_proj(attend(*qkv).flatten(1)), self.final_norm, self.dtype)
        return x, self.down_proj(ops.swiglu_product(normed, self.gates_and_ups))
