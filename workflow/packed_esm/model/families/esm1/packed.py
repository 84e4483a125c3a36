"""The parts of an ESM-1b or ESM-1v of fair-esm that the packed forward uses."""

import torch
from torch import nn

from ...parts import PackedParts
from ..esm2.packed import fair_esm_parts


def parts(model: nn.Module) -> PackedParts:
    """Return the parts of fair-esm's `ProteinBertModel`, with the architecture of ESM-1b.

    Raises:
        TypeError: one with the architecture of ESM-1, whose blocks and positions are others.
    """
    if model.model_version != "ESM-1b":
        raise TypeError(
            f"base_model: a ProteinBertModel of {model.model_version} ({model.args.arch}), whose blocks are not "
            "supported; use an ESM-2, ESM-1b or ESM-1v"
        )
    return fair_esm_parts(
        model,
        token_dropout=getattr(model.args, "token_dropout", False),
        position_embedding=_position_embedding(model),
        norm_before=model.emb_layer_norm_before,
    )


def _position_embedding(model: nn.Module) -> torch.Tensor:
    """Return the learned embedding of each position, fp32 [positions, E]; the first is that of cls.

    fair-esm counts positions from padding_idx + 1 (esm/modules.py, `LearnedPositionalEmbedding`).
    """
    return model.embed_positions.weight.detach().float()[model.padding_idx + 1 :].clone()
