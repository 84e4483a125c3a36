"""Checkpoints of ESM-2, ESM-1b and ESM-1v in the classes of fair-esm; their files are read by `checkpoints`."""

import argparse
from pathlib import Path

import torch
from torch import nn

from .... import families
from ....checkpoints.hugging_face import read_hugging_face
from ....checkpoints.names import CONTACT_HEAD, LM_HEAD
from ....checkpoints.pt_files import ESM1B, read_pt
from ....checkpoints.shape import FAIR_ESM_EPS, Shape, check_agreement
from ....checkpoints.tensors import SkipRandomInit, State, check_tensors


def load(path: Path, mapped: bool = False) -> nn.Module:
    """Return fair-esm's model of a `.pt` or a folder; see `checkpoints.loading.load_model`."""
    shape, state = read_hugging_face(path, mapped) if path.is_dir() else read_pt(path, mapped)
    model = _build(path, shape, state)
    return model if mapped else model.float()


def _build(path: Path, shape: Shape, state: State) -> nn.Module:
    check_agreement(path, "an ESM-2", shape, state, _largest_tensors(shape))
    with SkipRandomInit():  # the system does not allocate memory that is never written
        model = _empty_model(shape)
    expected = model.state_dict()
    absent = _complete_heads(state, expected)
    check_tensors(path, f"an ESM-2 of {shape.num_layers} layers", state, expected)
    model.load_state_dict(state, assign=True)
    if shape.layer_norm_eps != FAIR_ESM_EPS:
        for module in model.modules():
            if hasattr(module, "eps"):
                module.eps = shape.layer_norm_eps
    model.absent_heads = absent
    return model.eval()


def _largest_tensors(shape: Shape) -> dict[str, tuple[int, int]]:
    """Return {name: shape} of the largest tensors: all others of a model of this shape are smaller."""
    positions = shape.positions
    wide = positions.ffn_embed_dim if positions else 4 * shape.embed_dim
    largest = {f"layers.{index}.fc1.weight": (wide, shape.embed_dim) for index in range(shape.num_layers)}
    if positions:  # fair-esm counts them from the padding index, 1 (esm/modules.py, LearnedPositionalEmbedding)
        largest["embed_positions.weight"] = (positions.max_positions + 2, shape.embed_dim)
    return largest


def _complete_heads(state: State, expected: State) -> frozenset[str]:
    """Add placeholder tensors of missing heads to `state`, and return the names of the heads."""
    absent = set()
    if not LM_HEAD - {"lm_head.weight"} & state.keys() or (
        LM_HEAD - state.keys() == {"lm_head.weight"}  # not tied, and the matrix is missing
    ):
        absent.add(families.LM_HEAD)
        state |= {name: torch.full(expected[name].shape, torch.nan) for name in LM_HEAD}
    if not CONTACT_HEAD & state.keys():
        state |= {name: torch.zeros(expected[name].shape) for name in CONTACT_HEAD}
    if not state.get("contact_head.regression.weight", torch.ones(1)).any():
        absent.add(families.CONTACT_HEAD)
    return frozenset(absent)


def _empty_model(shape: Shape) -> nn.Module:
    """Return an `ESM2` of a shape, or a `ProteinBertModel` if positions are learned."""
    from esm import Alphabet
    from esm.model.esm1 import ProteinBertModel
    from esm.model.esm2 import ESM2

    sizes = (shape.num_layers, shape.embed_dim, shape.attention_heads)
    if shape.positions is None:
        return ESM2(*sizes, token_dropout=shape.token_dropout)
    args = argparse.Namespace(
        arch=ESM1B,
        layers=shape.num_layers,
        embed_dim=shape.embed_dim,
        attention_heads=shape.attention_heads,
        token_dropout=shape.token_dropout,
        **vars(shape.positions),
    )
    return ProteinBertModel(args, Alphabet.from_architecture(ESM1B))
