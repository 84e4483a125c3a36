"""The parts and the block of the toy."""

from packed_esm.model.parts import PackedParts
from torch import nn


def parts(model):
    return PackedParts(
        num_layers=len(model.layers),
        embed_dim=model.embed_tokens.embedding_dim,
        attention_heads=1,
        block=lambda index, device, dtype: Block(model.layers[index].to(device, dtype), dtype),
        embedding=model.embed_tokens.weight.detach().float(),
        final_norm=model.final_norm,
        padding_idx=1,
        mask_idx=32,
        lm_head=model.lm_head,
    )


class Block(nn.Module):
    def __init__(self, linear, dtype):
        super().__init__()
        self.linear, self.dtype = linear, dtype

    def forward(self, x, delta, rotation, attend):
        del rotation, attend
        x = x if delta is None else x + delta
        return x, self.linear(nn.functional.layer_norm(x, x.shape[-1:]).to(self.dtype))
