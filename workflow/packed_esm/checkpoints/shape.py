"""The shape that a checkpoint declares, checked against its tensors before a model of that size is built."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError

LIMITS = {"num_layers": 1_000, "embed_dim": 100_000, "attention_heads": 1_000, "max_positions": 10**7}
FAIR_ESM_EPS = 1e-5  # the default of torch, which fair-esm uses
_AGAIN = "one of both is of another model: fetch it again"
_LAYER = re.compile(r"layers\.(\d{1,9})\.")


@dataclass(frozen=True)
class LearnedPositions:
    """The learned positions of ESM-1b and ESM-1v, and whether a norm comes before the blocks."""

    max_positions: int
    ffn_embed_dim: int
    emb_layer_norm_before: bool


@dataclass(frozen=True)
class Shape:
    """Everything that determines a model, except its tensors.

    `fields`: the names of `num_layers`, `embed_dim` and `attention_heads` in the checkpoint, for messages.
    """

    num_layers: int
    embed_dim: int
    attention_heads: int
    token_dropout: bool
    layer_norm_eps: float = FAIR_ESM_EPS
    positions: LearnedPositions | None = None
    fields: tuple[str, str, str] = ("num_layers", "embed_dim", "attention_heads")


def whole_number(where: object, field: str, value: Any, largest: int) -> int:  # noqa: ANN401
    """Return `value` if it is a whole number from 1 to `largest`.

    Raises:
        CheckpointError: it is not; the message names `where` and `field`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise CheckpointError(f"{where}: {field} is {_short(value)}, not a whole number from 1 to {largest}")
    return value


def truth_value(where: object, field: str, value: Any) -> bool:  # noqa: ANN401
    """Return `value` if it is true or false; None counts as false, as in transformers."""
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{where}: {field} is {_short(value)}, not true or false")
    return bool(value)


def positive_number(where: object, field: str, value: Any) -> float:  # noqa: ANN401
    """Return `value` if it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise CheckpointError(f"{where}: {field} is {_short(value)}, not a number above 0")
    return float(value)


def layers_of(tensors: Iterable[str]) -> list[int]:
    """Return the indices of the layers of tensors with names of fair-esm."""
    return sorted({int(match[1]) for match in map(_LAYER.match, tensors) if match})


def check_agreement(
    where: object, what: str, shape: Shape, tensors: Mapping[str, Any], largest: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise CheckpointError if tensors do not have the declared shape. After this a model is no larger than its file.

    Args:
        where, what: the checkpoint and its kind of model, for messages.
        shape: as declared.
        tensors: with the names `embed_tokens` and `layers.N` of fair-esm and transformers.
        largest: {name: shape} of the largest tensors, of every layer: all others of such a model are smaller.
    """
    layers, dim, heads = shape.fields
    embedding = tensors.get("embed_tokens.weight")
    if embedding is None or embedding.ndim != 2:
        raise CheckpointError(
            f"{where}: its tensors do not contain an embedding of tokens; it is not {what}, "
            "or it is damaged: fetch it again, or save its tensors without a prefix"
        )
    if embedding.shape[1] != shape.embed_dim:
        raise CheckpointError(
            f"{where}: {dim} is {shape.embed_dim}, but its tensors are {embedding.shape[1]} wide; {_AGAIN}"
        )
    found = layers_of(tensors)
    if found != list(range(shape.num_layers)):
        which = f"{len(found)} layers" if len(found) != shape.num_layers else f"layers {found}, counted from 0"
        raise CheckpointError(f"{where}: {layers} is {shape.num_layers}, but it has tensors of {which}; {_AGAIN}")
    if shape.embed_dim % shape.attention_heads:
        raise CheckpointError(f"{where}: {heads} is {shape.attention_heads}, which does not divide {shape.embed_dim}")
    _check_heads(where, shape, tensors)
    for name, want in largest.items():
        if name not in tensors:
            raise CheckpointError(f"{where}: {name} is missing; the file is damaged: fetch it again")
        if tuple(tensors[name].shape) != want:
            raise CheckpointError(
                f"{where}: {name} is of shape {list(tensors[name].shape)}, not {list(want)} as the sizes in the "
                "checkpoint require; it is damaged or belongs to another model"
            )


def _check_heads(where: object, shape: Shape, tensors: Mapping[str, Any]) -> None:
    field, width = shape.fields[2], shape.embed_dim // shape.attention_heads
    if shape.positions is None and width % 2:
        raise CheckpointError(
            f"{where}: {field} is {shape.attention_heads}, which gives heads of width {width}; "
            "rotary heads have an even width"
        )
    for name, tensor in tensors.items():
        if name.endswith("rot_emb.inv_freq") and tuple(tensor.shape) != (width // 2,):
            raise CheckpointError(
                f"{where}: {field} is {shape.attention_heads}, so {name} should have {width // 2} values, "
                f"but its shape is {list(tensor.shape)}"
            )
    regression = tensors.get("contact_head.regression.weight")
    maps = shape.num_layers * shape.attention_heads
    if regression is not None and tuple(regression.shape) != (1, maps):
        raise CheckpointError(
            f"{where}: contact_head.regression.weight is of shape {list(regression.shape)}, not [1, {maps}]: "
            f"one weight for each of {shape.attention_heads} heads ({field}) in each of {shape.num_layers} layers"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
