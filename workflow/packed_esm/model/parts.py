"""What the packed forward uses of a model of any family, and steps that the blocks of families share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..families import family_of


@dataclass(frozen=True)
class PackedParts:
    """The parts of a model. Tensors are fp32.

    Attributes:
        num_layers, embed_dim, attention_heads: its shape.
        block: of (layer from 0, device, dtype), which returns the block of a layer. It is called with
            (x, delta, rotation, attend), see `families.esm2.block.TransformerBlock.forward`.
        embedding: [tokens, E], scaled as it is for every sequence.
        final_norm: layer norm with a weight and a bias.
        padding_idx, mask_idx: tokens.
        inv_freq: [D / 2], rotary frequencies; None: q and k are not rotated.
        position_embedding: [positions, E], of the positions from that of cls; None: no position is learned.
        norm_before: layer norm before the first block, or None.
        lm_head: from [..., E] after the final norm to logits; None: it has none.
        contact_head: fair-esm's `ContactPredictionHead`, or None.
        token_dropout: the embedding is divided by 1 - (share of mask tokens in the sequence).
        has_forward: it has a forward for padded tokens with the arguments of fair-esm's `ESM2.forward`.
    """

    num_layers: int
    embed_dim: int
    attention_heads: int
    block: Callable[[int, torch.device, torch.dtype], nn.Module]
    embedding: torch.Tensor
    final_norm: nn.Module
    padding_idx: int
    mask_idx: int
    inv_freq: torch.Tensor | None = None
    position_embedding: torch.Tensor | None = None
    norm_before: nn.Module | None = None
    lm_head: nn.Module | None = None
    contact_head: nn.Module | None = None
    token_dropout: bool = False
    has_forward: bool = False


def packed_parts(model: nn.Module) -> PackedParts:
    """Return the parts of a model, from the module `packed` of its family.

    Raises:
        TypeError: a model of no known family.
    """
    return family_of(model).module("packed").parts(model)


def pairs_together(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Order the rows of each head 0, D/2, 1, D/2 + 1, ...: rotary embedding rotates row j with row j + D/2."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def linear_of(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> nn.Linear:
    """Return the layer with these weights in `dtype`; they are cast from fp32, whatever the checkpoint."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.float().to(dtype), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.float().to(dtype), requires_grad=False)
    return linear
