"""Read a `.pt`: a checkpoint of fair-esm (ESM-2, ESM-1b or ESM-1v), or a bare dictionary of tensors."""

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..sequences.tokens import MASK
from .names import CONTACT_HEAD, from_hugging_face, is_hugging_face, plain_fair_esm_names
from .pickles import load_pickle
from .registry import contact_head_path
from .shape import LIMITS, LearnedPositions, Shape, layers_of, truth_value, whole_number
from .tensors import State, checked_tensors, copy_shared_frequencies, log_unused, select_rows

log = logging.getLogger(__name__)

ESM1B = "roberta_large"  # the name of the architecture in ESM-1b and ESM-1v
_CFG = ("encoder_layers", "encoder_embed_dim", "encoder_attention_heads")


def read_pt(path: Path, mapped: bool) -> tuple[Shape, State]:
    """Return shape and tensors, with the names of fair-esm.

    Raises:
        CheckpointError: not such a file, or a contradictory one.
    """
    data = load_pickle(path, mapped)
    if not isinstance(data, dict):
        raise _foreign(path)
    if "model" in data and {"cfg", "args"} & data.keys():
        shape, state = _read_published(path, data)
    elif data and all(isinstance(value, torch.Tensor) for value in data.values()):
        shape, state = _read_bare(path, data)
    else:
        raise _foreign(path)
    regression = contact_head_path(path)
    if regression.exists():
        state |= _contact_head(regression)
    return shape, state


def _foreign(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: not an ESM-2, ESM-1b or ESM-1v checkpoint of fair-esm (it has no `model` with `cfg` or `args`, "
        "and no tensors with the names of one, without a prefix); use a file esm2_*.pt, esm1b_*.pt or esm1v_*.pt, an "
        "esmc_*.pth, or a Hugging Face folder"
    )


def _read_published(path: Path, data: dict) -> tuple[Shape, State]:
    state = plain_fair_esm_names(checked_tensors(f"{path}: `model`", data["model"]))
    if "cfg" in data:
        cfg = data["cfg"].get("model") if isinstance(data["cfg"], dict) else None
        fields = _values_of(path, "cfg", cfg, (*_CFG, "token_dropout"))
        shape = Shape(
            *_sizes(path, fields, _CFG), truth_value(path, "token_dropout", fields["token_dropout"]), fields=_CFG
        )
    else:
        shape = _esm1b_shape(path, data["args"], state)
        _zero_mask_token(state)
    _tie(state)
    return shape, state


def _tie(state: State) -> None:
    """Use the matrix of the LM head as embedding too: in fair-esm both are one tensor, and the head is loaded last."""
    if "embed_tokens.weight" in state:
        state["embed_tokens.weight"] = state.setdefault("lm_head.weight", state["embed_tokens.weight"])


def _esm1b_shape(path: Path, args: argparse.Namespace, state: State) -> Shape:
    arch = getattr(args, "arch", None)
    if arch != ESM1B:
        raise CheckpointError(f"{path}: its architecture is {arch!r}; only ESM-2, ESM-1b and ESM-1v are supported")
    # `encoder_layers` in the arguments of fairseq, or `layers`
    values = {name.removeprefix("encoder_"): value for name, value in vars(args).items()}
    names = ("layers", "embed_dim", "attention_heads")
    fields = _values_of(path, "args", argparse.Namespace(**values), (*names, "ffn_embed_dim", "max_positions"))
    largest = LIMITS["max_positions"]
    return Shape(
        *_sizes(path, fields, names),
        truth_value(path, "token_dropout", values.get("token_dropout")),
        positions=LearnedPositions(
            whole_number(path, "max_positions", fields["max_positions"], largest),
            whole_number(path, "ffn_embed_dim", fields["ffn_embed_dim"], largest),
            "emb_layer_norm_before.weight" in state,
        ),
        fields=names,
    )


def _zero_mask_token(state: State) -> None:
    """Zero the embedding of the mask token, as fair-esm does in place; a tied head is the same tensor."""
    embedding, head = state.get("embed_tokens.weight"), state.get("lm_head.weight")
    if embedding is None or embedding.ndim != 2 or len(embedding) <= MASK:
        return
    zeroed = embedding.clone()
    zeroed[MASK] = 0.0
    state["embed_tokens.weight"] = zeroed
    if head is None or head.data_ptr() == embedding.data_ptr():
        state["lm_head.weight"] = zeroed


def _values_of(path: Path, what: str, holder: object, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(holder, argparse.Namespace):
        raise CheckpointError(f"{path}: not a checkpoint of fair-esm, its `{what}` has no shape of a model")
    for name in names:
        if not hasattr(holder, name):
            raise CheckpointError(f"{path}: not a checkpoint of fair-esm, its `{what}` has no {name}")
    return {name: getattr(holder, name) for name in names}


def _sizes(path: Path, fields: dict[str, Any], names: tuple[str, ...]) -> list[int]:
    limits = (LIMITS["num_layers"], LIMITS["embed_dim"], LIMITS["attention_heads"])
    return [whole_number(path, name, fields[name], at_most) for name, at_most in zip(names, limits, strict=True)]


def _read_bare(path: Path, tensors: State) -> tuple[Shape, State]:
    """Return shape and tensors of a `model.state_dict()` of fair-esm or transformers."""
    if is_hugging_face(tensors):
        state, others = from_hugging_face(path, checked_tensors(path, tensors))
        log_unused(path, others)
    else:
        state = plain_fair_esm_names(checked_tensors(path, tensors))
        _tie(state)
    embedding = state.get("embed_tokens.weight")
    if embedding is None or embedding.ndim != 2:
        raise _foreign(path)
    if "embed_positions.weight" in state:
        raise CheckpointError(
            f"{path}: the tensors of an ESM-1b or ESM-1v without their `args`, so the number of heads is unknown; save "
            "{'args': model.args, 'model': model.state_dict()}"
        )
    frequencies = [x for name, x in state.items() if name.endswith("inv_freq")]
    if not frequencies or frequencies[0].ndim != 1 or not len(frequencies[0]):
        raise CheckpointError(
            f"{path}: a dictionary of tensors without rotary frequencies (inv_freq), so the number of heads is "
            "unknown; save the checkpoint with its `cfg`, or as a Hugging Face folder"
        )
    width, head_width = embedding.shape[1], 2 * len(frequencies[0])
    sizes = (len(layers_of(state)), width, width // head_width)
    shape = Shape(*_sizes(path, dict(zip(Shape.fields, sizes, strict=True)), Shape.fields), token_dropout=True)
    log.warning(
        "%s: a dictionary of tensors, with %d layers and %d heads; token dropout and layer norms as in Meta's models",
        path,
        shape.num_layers,
        shape.attention_heads,
    )
    copy_shared_frequencies(state)
    select_rows(path, state, None)
    state.setdefault("lm_head.weight", state["embed_tokens.weight"])
    return shape, state


def _contact_head(path: Path) -> State:
    data = load_pickle(path)
    tensors = data.get("model") if isinstance(data, dict) else None
    state = checked_tensors(f"{path}: `model`", tensors)
    if state.keys() != CONTACT_HEAD:
        raise CheckpointError(f"{path}: not a contact head, which has {' and '.join(sorted(CONTACT_HEAD))}; remove it")
    return state
