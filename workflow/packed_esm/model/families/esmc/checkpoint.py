"""Checkpoints of ESM C: a Hugging Face folder of transformers, or EvolutionaryScale's own `.pth`.

The modules of `EsmC` have the names of transformers' `EsmcForMaskedLM`. What an `.pth` calls them is in `_OF_PTH`.
"""

import itertools
import re
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from ....checkpoints.folders import CONFIG, check_residue_ids, read_json_object
from ....checkpoints.hugging_face import folder_tensors
from ....checkpoints.pickles import load_pickle
from ....checkpoints.shape import LIMITS, Shape, check_agreement, layers_of, positive_number, whole_number
from ....checkpoints.tensors import SkipRandomInit, State, check_tensors, checked_tensors, named_once
from ....errors import CheckpointError
from ....families import CONTACT_HEAD, LM_HEAD

TOKENS = 64  # rows of the embedding, of which 33 have a meaning
HEAD_DIM = 64  # of all published models; an `.pth` does not say it
THETA = 10000.0  # base of the rotary frequencies, where a checkpoint does not say it
FIELDS = ("num_hidden_layers", "hidden_size", "num_attention_heads")
# What transformers' EsmcConfig may say, and what all checkpoints do say.
_ONLY = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "vocab_size": TOKENS}
_ONLY |= {"quantization_config": None}
_UNUSED = re.compile(r".*(\.inv_freq|\._extra_state)|classifier\..+|score\..+")

# Names of the modules in EvolutionaryScale's `esm` (esm/models/esmc.py, esm/layers/blocks.py), without the layer.
_OF_PTH = {
    "embed": "embed_tokens",
    "transformer.norm": "norm",
    "sequence_head.0": "lm_head.dense",
    "sequence_head.2": "lm_head.layer_norm",
    "sequence_head.3": "lm_head.decoder",
    "attn.layernorm_qkv.0": "input_layernorm",
    "attn.layernorm_qkv.1": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "attn.q_ln": "self_attn.q_norm",
    "attn.k_ln": "self_attn.k_norm",
    "attn.out_proj": "self_attn.o_proj",
    "ffn.0": "post_attention_layernorm",
    "ffn.1": "mlp.gate_proj mlp.up_proj",
    "ffn.3": "mlp.down_proj",
}


def load(path: Path, mapped: bool = False) -> "EsmC":
    """Return the model of a folder or an `.pth`; see `checkpoints.loading.load_model`."""
    shape, theta, state = _of_folder(path, mapped) if path.is_dir() else _of_pth(path, mapped)
    hidden = _hidden_width(state)
    check_agreement(path, "an ESM C", shape, state, _largest_tensors(shape, hidden))
    with SkipRandomInit():
        model = EsmC(shape, hidden, theta)
    expected, absent = model.state_dict(), {CONTACT_HEAD}
    if not any(name.startswith("lm_head.") for name in state):
        absent |= {LM_HEAD}
        state |= {name: torch.full(one.shape, torch.nan) for name, one in expected.items() if "lm_head" in name}
    check_tensors(path, f"an ESM C of {shape.num_layers} layers", state, expected)
    model.load_state_dict(state, assign=True)
    model.absent_heads = frozenset(absent)
    return (model if mapped else model.float()).eval()


def _of_folder(folder: Path, mapped: bool) -> tuple[Shape, float, State]:
    path = folder / CONFIG
    config = read_json_object(path)
    limits = (LIMITS["num_layers"], LIMITS["embed_dim"], LIMITS["attention_heads"])
    sizes = [whole_number(path, *given) for given in zip(FIELDS, map(config.get, FIELDS), limits, strict=True)]
    _, width, heads = sizes
    _check_fields(path, config, _ONLY | {"num_key_value_heads": heads, "head_dim": width / heads})
    theta = _rope_theta(path, config)
    check_residue_ids(folder)
    named = ((name.removeprefix("esmc."), one) for name, one in folder_tensors(folder, mapped).items())
    state = named_once(folder, ((name, one) for name, one in named if not _UNUSED.fullmatch(name)))
    if hidden := _hidden_width(state):  # `check_agreement` names a matrix that is missing
        _check_fields(path, config, {"intermediate_size": hidden})
    return Shape(*sizes, token_dropout=False, fields=FIELDS), theta, state


def _check_fields(path: Path, config: dict, only: dict) -> None:
    """Raise CheckpointError if a field has another value; None is the default of transformers."""
    for field, value in only.items():
        if config.get(field) not in (None, value):
            remedy = "use one that has it" if value is not None else "save the model without it"
            raise CheckpointError(
                f"{path}: its {field} is {config[field]!r}; an ESM C like this has {value!r}: {remedy}"
            )


def _rope_theta(path: Path, config: dict) -> float:
    """Return the base of the frequencies; transformers before version 5 wrote `rope_theta` and `rope_scaling`."""
    field = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(field) or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise CheckpointError(f"{path}: {field} is {rope!r}; only rope_type 'default' is supported")
    return positive_number(path, "rope_theta", rope.get("rope_theta", config.get("rope_theta", THETA)))


def _of_pth(path: Path, mapped: bool) -> tuple[Shape, float, State]:
    tensors = checked_tensors(path, load_pickle(path, mapped))
    renamed = (_renamed(path, name, one) for name, one in tensors.items() if not _UNUSED.fullmatch(name))
    state = named_once(path, itertools.chain.from_iterable(one.items() for one in renamed))
    embedding = state.get("embed_tokens.weight")
    width = embedding.shape[-1] if embedding is not None and embedding.ndim else 0
    if width % HEAD_DIM:
        raise CheckpointError(f"{path}: it is {width} wide, not a multiple of {HEAD_DIM}, so its heads are unknown")
    return Shape(len(layers_of(state)), width, max(1, width // HEAD_DIM), token_dropout=False), THETA, state


def _renamed(path: Path, name: str, tensor: torch.Tensor) -> State:
    """Return the tensor of an `.pth` with the name of transformers; q, k and v, and gate and up, are one in it."""
    layer, rest = re.fullmatch(r"(?:transformer\.blocks\.(\d+)\.)?(.*)", name, re.DOTALL).groups()
    module, _, parameter = rest.rpartition(".")
    if module not in _OF_PTH:
        return {name: tensor}  # `check_tensors` names it
    theirs = _OF_PTH[module].split()
    if len(theirs) > 1 and (not tensor.ndim or len(tensor) % len(theirs)):
        raise CheckpointError(f"{path}: {name} is {list(tensor.shape)}, not {len(theirs)} matrices; fetch it again")
    parts = tensor.chunk(len(theirs)) if len(theirs) > 1 else [tensor]
    prefix = f"layers.{layer}." if layer else ""
    return {f"{prefix}{one}.{parameter}": part for one, part in zip(theirs, parts, strict=True)}


def _hidden_width(state: State) -> int:
    gate = state.get("layers.0.mlp.gate_proj.weight")
    return len(gate) if gate is not None and gate.ndim else 0


def _largest_tensors(shape: Shape, hidden: int) -> dict[str, tuple[int, int]]:
    width = shape.embed_dim
    largest = {"embed_tokens.weight": (TOKENS, width)}
    for layer in range(shape.num_layers):
        largest[f"layers.{layer}.self_attn.q_proj.weight"] = (width, width)
        largest[f"layers.{layer}.mlp.gate_proj.weight"] = (hidden, width)
    return largest


class EsmC(nn.Module):
    """The tensors of an ESM C. It has no forward of its own."""

    def __init__(self, shape: Shape, hidden: int, theta: float) -> None:
        super().__init__()
        width = shape.embed_dim
        self.heads, self.rope_theta = shape.attention_heads, theta
        self.embed_tokens = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList(_layer(width, hidden) for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(width, bias=False)
        head = {"dense": nn.Linear(width, width), "gelu": nn.GELU(), "layer_norm": nn.LayerNorm(width)}
        self.lm_head = nn.Sequential(OrderedDict(head, decoder=nn.Linear(width, TOKENS)))


def _layer(width: int, hidden: int) -> nn.ModuleDict:
    attention = {f"{name}_proj": nn.Linear(width, width, bias=False) for name in "qkvo"}
    attention |= {f"{name}_norm": nn.LayerNorm(width, bias=False) for name in "qk"}
    mlp = {f"{name}_proj": nn.Linear(width, hidden, bias=False) for name in ("gate", "up")}
    mlp["down_proj"] = nn.Linear(hidden, width, bias=False)
    norms = {name: nn.LayerNorm(width) for name in ("input_layernorm", "post_attention_layernorm")}
    return nn.ModuleDict({"self_attn": nn.ModuleDict(attention), "mlp": nn.ModuleDict(mlp), **norms})
