"""The parts of a model of fair-esm that the packed forward uses."""

import torch
from torch import nn

from ....errors import CheckpointError
from ...parts import PackedParts
from .block import TransformerBlock

MASK_RATIO_TRAIN = 0.15 * 0.8  # esm/model/esm2.py: share of residues masked in training


def parts(model: nn.Module) -> PackedParts:
    """Return the parts of fair-esm's `ESM2`.

    Raises:
        CheckpointError: rotary frequencies that differ by layer.
    """
    return fair_esm_parts(model, model.token_dropout, inv_freq=_rotary_frequencies(model))


def fair_esm_parts(
    model: nn.Module, token_dropout: bool, **of_positions: torch.Tensor | nn.Module | None
) -> PackedParts:
    """Return the parts of a model of fair-esm; `of_positions`: `PackedParts` that tell the positions of residues."""
    first = model.layers[0].self_attn
    return PackedParts(
        num_layers=len(model.layers),
        embed_dim=first.embed_dim,
        attention_heads=first.num_heads,
        block=lambda index, device, dtype: TransformerBlock(model.layers[index], device, dtype),
        embedding=_scaled_embedding(model, token_dropout),
        final_norm=model.emb_layer_norm_after,
        padding_idx=model.padding_idx,
        mask_idx=model.mask_idx,
        lm_head=model.lm_head,
        contact_head=model.contact_head,
        token_dropout=token_dropout,
        has_forward=True,
        **of_positions,
    )


def _rotary_frequencies(model: nn.Module) -> torch.Tensor:
    """Return `inv_freq` of the checkpoint, fp32 [D / 2]: Meta's are rounded to fp16, so computed ones differ."""
    frequencies = [layer.self_attn.rot_emb.inv_freq.float() for layer in model.layers]
    if any(not torch.equal(f, frequencies[0]) for f in frequencies):
        raise CheckpointError("base_model: its layers have different rotary frequencies (inv_freq)")
    return frequencies[0]


def _scaled_embedding(model: nn.Module, token_dropout: bool) -> torch.Tensor:
    """Return the embedding of each token, fp32 [tokens, E], scaled as token dropout scales every sequence."""
    embedding = model.embed_tokens.weight.detach().float().clone()
    if token_dropout:
        embedding[model.mask_idx] = 0.0
        embedding *= 1 - MASK_RATIO_TRAIN
    return embedding
