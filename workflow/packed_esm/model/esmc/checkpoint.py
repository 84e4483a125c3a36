"""Checkpoints of ESM C: a Hugging Face folder of transformers, or EvolutionaryScale's own `.pth`.

The modules of `EsmC` have the names of transformers' `EsmcForMaskedLM`. What an `.pth` calls them is in `_OF_PTH`.
"""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from ...checkpoints.folders import CONFIG, check_residue_ids, read_json_object
from ...checkpoints.hugging_face import folder_tensors
from ...checkpoints.pickles import load_pickle
from ...checkpoints.shape import LIMITS, Shape, layers_of, positive_number, whole_number
from ...checkpoints.tensors import SkipRandomInit, State, check_tensors, checked_tensors
from ...errors import CheckpointError
from ...outputs import table as outputs
from .block import EsmCBlock

TOKENS = 64  # rows of the embedding, of which 33 have a meaning
HEAD_DIM = 64  # of all published models; an `.pth` does not say it
FIELDS = ("num_hidden_layers", "hidden_size", "num_attention_heads")
# What transformers' EsmcConfig may say, and what all checkpoints do say.
_ONLY = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "vocab_size": TOKENS}
_UNUSED = re.compile(r".*(\.inv_freq|\._extra_state)|classifier\..+|score\..+")

# Names of the modules in EvolutionaryScale's `esm` (esm/models/esmc.py, esm/layers/blocks.py), without the layer.
_OF_PTH = {
    "embed": "embed_tokens",
    "transformer.norm": "norm",
    "sequence_head.0": "lm_head.dense",
    "sequence_head.2": "lm_head.layer_norm",
    "sequence_head.3": "lm_head.decoder",
    "attn.layernorm_qkv.0": "input_layernorm",
    "attn.layernorm_qkv.1": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.q_ln": "self_attn.q_norm",
    "attn.k_ln": "self_attn.k_norm",
    "attn.out_proj": "self_attn.o_proj",
    "ffn.0": "post_attention_layernorm",
    "ffn.1": ("mlp.gate_proj", "mlp.up_proj"),
    "ffn.3": "mlp.down_proj",
}


def load(path: Path, mapped: bool = False) -> "EsmC":
    """Return the model (fp32, on CPU, eval) from a folder or an `.pth`; the arguments and errors are `load_esm2`'s."""
    shape, theta, state = _of_folder(path, mapped) if path.is_dir() else _of_pth(path, mapped)
    _check_agreement(path, shape, state)
    hidden = len(state["layers.0.mlp.gate_proj.weight"])
    with SkipRandomInit():
        model = EsmC(shape, hidden, theta)
    expected = model.state_dict()
    no_bias = {"norm.bias": torch.zeros_like(expected.pop("norm.bias"))}  # ESM C has none
    if not any(name.startswith("lm_head.") for name in state):
        model.absent_heads |= {outputs.LM_HEAD}
        state |= {name: torch.full(one.shape, torch.nan) for name, one in expected.items() if "lm_head" in name}
    check_tensors(path, f"an ESM C of {shape.num_layers} layers", state, expected)
    model.load_state_dict(state | no_bias, assign=True)
    return (model if mapped else model.float()).eval()


def _of_folder(folder: Path, mapped: bool) -> tuple[Shape, float, State]:
    path = folder / CONFIG
    config = read_json_object(path)
    for field, only in _ONLY.items():
        if config.get(field, only) != only:
            raise CheckpointError(f"{path}: its {field} is {config[field]!r}; an ESM C has {only!r}")
    limits = (LIMITS["num_layers"], LIMITS["embed_dim"], LIMITS["attention_heads"])
    sizes = [whole_number(path, *given) for given in zip(FIELDS, map(config.get, FIELDS), limits, strict=True)]
    theta = _rope_theta(path, config)
    check_residue_ids(folder)
    named = ((name.removeprefix("esmc."), one) for name, one in folder_tensors(folder, mapped).items())
    state = {name: one for name, one in named if not _UNUSED.fullmatch(name)}
    return Shape(*sizes, token_dropout=False, fields=FIELDS), theta, state


def _rope_theta(path: Path, config: dict) -> float:
    """Return the base of the frequencies; transformers before version 5 wrote `rope_theta` and `rope_scaling`."""
    field = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(field) or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise CheckpointError(f"{path}: {field} is {rope!r}; only rope_type 'default' is supported")
    return positive_number(path, "rope_theta", rope.get("rope_theta", config.get("rope_theta", 10000.0)))


def _of_pth(path: Path, mapped: bool) -> tuple[Shape, float, State]:
    state: State = {}
    for name, tensor in checked_tensors(path, load_pickle(path, mapped)).items():
        if not _UNUSED.fullmatch(name):
            state |= _renamed(path, name, tensor)
    embedding = state.get("embed_tokens.weight")
    width = embedding.shape[-1] if embedding is not None and embedding.ndim else 0
    if width % HEAD_DIM:
        raise CheckpointError(f"{path}: it is {width} wide, not a multiple of {HEAD_DIM}, so its heads are unknown")
    return Shape(len(layers_of(state)), width, max(1, width // HEAD_DIM), token_dropout=False), 10000.0, state


def _renamed(path: Path, name: str, tensor: torch.Tensor) -> State:
    """Return the tensor of an `.pth` with the name of transformers; q, k and v, and gate and up, are one in it."""
    layer, _, rest = name.removeprefix("transformer.blocks.").partition(".")
    prefix, rest = (f"layers.{layer}.", rest) if name.startswith("transformer.blocks.") else ("", name)
    module, _, parameter = rest.rpartition(".")
    theirs = _OF_PTH.get(module)
    if theirs is None:
        raise CheckpointError(
            f"{path}: {name} is no tensor of an ESM C; if each name has a prefix, save the tensors without it, "
            "else it is another model, or a later layout: use a Hugging Face folder"
        )
    if isinstance(theirs, str):
        return {f"{prefix}{theirs}.{parameter}": tensor}
    if not tensor.ndim or len(tensor) % len(theirs):
        raise CheckpointError(f"{path}: {name} is of shape {list(tensor.shape)}, not {len(theirs)} matrices; damaged")
    return {f"{prefix}{one}.{parameter}": part for one, part in zip(theirs, tensor.chunk(len(theirs)), strict=True)}


def _check_agreement(path: Path, shape: Shape, state: State) -> None:
    """Raise CheckpointError if tensors do not have the declared shape, so that no model is larger than its file."""
    layers, dim, heads = shape.fields
    embedding = state.get("embed_tokens.weight")
    if embedding is None:
        raise CheckpointError(f"{path}: its tensors do not contain an embedding of tokens; it is no ESM C, or damaged")
    if tuple(embedding.shape) != (TOKENS, shape.embed_dim):
        raise CheckpointError(
            f"{path}: the embedding is of shape {list(embedding.shape)}, not [{TOKENS}, {dim}], which is "
            f"{shape.embed_dim}; it belongs to another model"
        )
    if (found := layers_of(state)) != list(range(shape.num_layers)):
        raise CheckpointError(f"{path}: {layers} is {shape.num_layers}, but it has tensors of {len(found)} layers")
    if shape.embed_dim % (2 * shape.attention_heads):
        raise CheckpointError(f"{path}: {heads} is {shape.attention_heads}, which gives no heads of an even width")
    _check_largest(path, shape, state)


def _check_largest(path: Path, shape: Shape, state: State) -> None:
    """Check the largest tensors of each layer: all others of a model of this shape are smaller."""
    first = state.get("layers.0.mlp.gate_proj.weight")
    hidden = len(first) if first is not None and first.ndim else 0
    square = (shape.embed_dim, shape.embed_dim)
    largest = {"mlp.gate_proj.weight": (hidden, shape.embed_dim), "self_attn.q_proj.weight": square}
    for index in range(shape.num_layers):
        for name, want in largest.items():
            name = f"layers.{index}.{name}"
            if name not in state:
                raise CheckpointError(f"{path}: {name} is missing; it is no ESM C, or it is damaged: fetch it again")
            if tuple(state[name].shape) != want:
                raise CheckpointError(
                    f"{path}: {name} is of shape {list(state[name].shape)}, not {list(want)}; it is damaged or belongs "
                    "to another model"
                )


class EsmC(nn.Module):
    """The tensors of an ESM C, as the packed model asks for them. It has no forward of its own."""

    padding_idx, mask_idx = 1, 32
    contact_head = None

    def __init__(self, shape: Shape, hidden: int, theta: float) -> None:
        super().__init__()
        width = shape.embed_dim
        self.absent_heads = frozenset({outputs.CONTACT_HEAD})
        self.embed_tokens = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList(
            EsmCLayer(width, hidden, shape.attention_heads, theta) for _ in range(shape.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.lm_head = LMHead(width)

    @property
    def emb_layer_norm_after(self) -> nn.LayerNorm:
        """The final norm, under the name that it has in fair-esm."""
        return self.norm

    def packed_block(self, index: int, device: torch.device, dtype: torch.dtype) -> EsmCBlock:
        """Return the block of a layer, counted from 0."""
        return EsmCBlock(self.layers[index], math.sqrt(len(self.layers) / 36), device, dtype)


class EsmCLayer(nn.Module):
    """The tensors of a layer."""

    def __init__(self, width: int, hidden: int, heads: int, theta: float) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            self.self_attn.register_module(name, nn.Linear(width, width, bias=False))
        for name in ("q_norm", "k_norm"):
            self.self_attn.register_module(name, nn.LayerNorm(width, bias=False))
        for name, sizes in (
            ("gate_proj", (width, hidden)),
            ("up_proj", (width, hidden)),
            ("down_proj", (hidden, width)),
        ):
            self.mlp.register_module(name, nn.Linear(*sizes, bias=False))
        attention = self.self_attn
        attention.embed_dim, attention.num_heads, attention.head_dim = width, heads, width // heads
        frequencies = 1.0 / (theta ** (torch.arange(0, attention.head_dim, 2).float() / attention.head_dim))
        attention.rot_emb = SimpleNamespace(inv_freq=frequencies)


class LMHead(nn.Module):
    """transformers' `EsmcMaskedLMHead`: a layer, GELU, a norm, and 64 logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense, self.layer_norm, self.decoder = (
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.Linear(width, TOKENS),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [..., 64]; x: [..., E], after the final norm."""
        return self.decoder(self.layer_norm(F.gelu(self.dense(x))))
