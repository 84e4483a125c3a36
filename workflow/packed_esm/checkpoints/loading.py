"""Load checkpoints into fair-esm's `ESM2` or `ProteinBertModel`, without running code in a pickle."""

import argparse
from pathlib import Path

import torch
from torch import nn

from ..outputs import table as outputs
from .fair_esm import require_fair_esm
from .headers import checkpoint_files, family_at
from .hugging_face import read_hugging_face
from .names import CONTACT_HEAD, LM_HEAD
from .pt_files import ESM1B, read_pt
from .shape import FAIR_ESM_EPS, Shape, check_agreement
from .tensors import SkipRandomInit, State, check_tensors


def load_esm2(path: str | Path, mapped: bool = False) -> nn.Module:
    """Return the model (fp32, on CPU, eval) of a `.pt` or a Hugging Face folder.

    It is fair-esm's `ESM2`, its `ProteinBertModel` for ESM-1b and ESM-1v, or the model of another family. Its
    `absent_heads` names the heads that the checkpoint does not have. The weights of such a contact head are zero and
    those of such an LM head are nan; `require_heads` says which outputs need them. With `mapped` the weights stay in
    the file, which is mapped into memory, and keep its dtype; this is faster if they are copied to a GPU at once.

    Raises:
        CheckpointError: no such path, not such a checkpoint, truncated, with an unsupported value, or with missing,
            extra or misshapen tensors.
    """
    require_fair_esm()
    path = Path(path)
    checkpoint_files(path)
    if family := family_at(path):
        return family.module("checkpoint").load(path, mapped)
    shape, state = read_hugging_face(path, mapped) if path.is_dir() else read_pt(path, mapped)
    model = _build(path, shape, state)
    return model if mapped else model.float()


def _build(path: Path, shape: Shape, state: State) -> nn.Module:
    check_agreement(path, shape, state)
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


def _complete_heads(state: State, expected: State) -> frozenset[str]:
    """Add placeholder tensors of missing heads to `state`, and return the names of the heads."""
    absent = set()
    if not LM_HEAD - {"lm_head.weight"} & state.keys() or (
        LM_HEAD - state.keys() == {"lm_head.weight"}  # not tied, and the matrix is missing
    ):
        absent.add(outputs.LM_HEAD)
        state |= {name: torch.full(expected[name].shape, torch.nan) for name in LM_HEAD}
    if not CONTACT_HEAD & state.keys():
        state |= {name: torch.zeros(expected[name].shape) for name in CONTACT_HEAD}
    if not state.get("contact_head.regression.weight", torch.ones(1)).any():
        absent.add(outputs.CONTACT_HEAD)
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
