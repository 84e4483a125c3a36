"""One block of ESM C over rows of tokens, with the weights of an `EsmCLayer`."""

import torch
from torch import nn

from ...errors import OptionError
from ...kernels.device import module_on_device, on_device
from ...kernels.dispatch import operations_for
from ...kernels.int8 import INT8
from ..attention import Attend
from ..block import linear_of, pairs_together


class EsmCBlock(nn.Module):
    """Pre-norm attention and feed-forward (transformers, `EsmcLayer`), with the arguments of `TransformerBlock`.

    q and k have a layer norm over all heads; the feed-forward is SwiGLU; no product has a bias. What a block adds to
    the residual stream is divided by a constant; here the weights of the last product before it are.

    Args:
        layer: an `EsmCLayer`.
        divisor: sqrt(layers / 36), `scaling_factor` of transformers.
        device: where to run.
        dtype: of the products.

    Raises:
        OptionError: int8.
    """

    def __init__(self, layer: nn.Module, divisor: float, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        if dtype == INT8:
            raise OptionError("dtype: int8 is there for ESM-2, ESM-1b and ESM-1v, not for ESM C; use dtype: auto")
        attention, mlp = layer.self_attn, layer.mlp
        self.heads, self.dtype = attention.num_heads, dtype
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        q, k, v = (on_device(part.weight.detach(), device) for part in parts)
        self.qkv = linear_of(torch.cat([pairs_together(q, self.heads), pairs_together(k, self.heads), v]), None, dtype)
        gains = [on_device(norm.weight.detach(), device).float() for norm in (attention.q_norm, attention.k_norm)]
        self.register_buffer(
            "gains", torch.stack([pairs_together(gain, self.heads) for gain in gains]), persistent=False
        )
        self.eps = attention.q_norm.eps
        self.out_proj = linear_of(on_device(attention.o_proj.weight.detach(), device).float() / divisor, None, dtype)
        gates_and_ups = [on_device(part.weight.detach(), device) for part in (mlp.gate_proj, mlp.up_proj)]
        self.gates_and_ups = linear_of(torch.cat(gates_and_ups), None, dtype)
        self.down_proj = linear_of(on_device(mlp.down_proj.weight.detach(), device).float() / divisor, None, dtype)
        self.attention_norm = module_on_device(layer.input_layernorm, device)
        self.final_norm = module_on_device(layer.post_attention_layernorm, device)
        self._ops = operations_for(device, dtype, attention.embed_dim)

    def forward(
        self, x: torch.Tensor, delta: torch.Tensor | None, rotation: torch.Tensor, attend: Attend
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `TransformerBlock.forward`."""
        ops = self._ops
        x, normed = ops.add_norm(x, delta, self.attention_norm, self.dtype)
        qkv = ops.normed_qkv_product(normed, self.qkv, self.heads, rotation, self.gains, self.eps)
        x, normed = ops.add_norm(x, self.out_proj(attend(*qkv).flatten(1)), self.final_norm, self.dtype)
        return x, self.down_proj(ops.swiglu_product(normed, self.gates_and_ups))
