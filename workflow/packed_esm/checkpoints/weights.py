"""Tensors of a fair-esm model that the packed forward uses in addition to its blocks."""

import torch
from torch import nn

from ..errors import CheckpointError

MASK_RATIO_TRAIN = 0.15 * 0.8  # esm/model/esm2.py: share of residues masked in training


def rotary_frequencies(base_model: nn.Module) -> torch.Tensor | None:
    """Return `inv_freq` of the checkpoint, fp32 [D / 2]: Meta's are rounded to fp16, so computed ones differ."""
    if base_model.layers[0].self_attn.rot_emb is None:
        return None
    frequencies = [layer.self_attn.rot_emb.inv_freq.float() for layer in base_model.layers]
    if any(not torch.equal(f, frequencies[0]) for f in frequencies):
        raise CheckpointError("base_model: its layers have different rotary frequencies (inv_freq)")
    return frequencies[0]


def position_embedding(base_model: nn.Module) -> torch.Tensor | None:
    """Return the learned embedding of each position of ESM-1b, fp32 [positions, E]; the first is that of cls.

    fair-esm counts positions from padding_idx + 1 (esm/modules.py, `LearnedPositionalEmbedding`).
    """
    positions = getattr(base_model, "embed_positions", None)
    return None if positions is None else positions.weight.detach().float()[base_model.padding_idx + 1 :].clone()


def token_dropout(base_model: nn.Module) -> bool:
    """Return whether a model uses token dropout; ESM-1b has this in `args`."""
    return getattr(base_model.args if hasattr(base_model, "args") else base_model, "token_dropout", False)


def scaled_embedding(base_model: nn.Module) -> torch.Tensor:
    """Return the embedding of each token, fp32 [tokens, E], scaled as token dropout scales every sequence."""
    embedding = base_model.embed_tokens.weight.detach().float().clone()
    if token_dropout(base_model):
        embedding[base_model.mask_idx] = 0.0
        embedding *= 1 - MASK_RATIO_TRAIN
    return embedding
