"""Names of tensors: from those of Hugging Face (transformers' EsmModel and models built on it) to those of fair-esm.

`validation/reference_folder.py` has its own table of the same names. This duplication is deliberate: the reference
checks what is loaded here, and must not share a mistake of this table.
"""

import re
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError

SHARED_FREQUENCIES = "inv_freq"  # one tensor for all layers, in transformers 5
CONTACT_HEAD = frozenset({"contact_head.regression.weight", "contact_head.regression.bias"})
LM_HEAD = frozenset(
    {"lm_head.dense.weight", "lm_head.dense.bias", "lm_head.layer_norm.weight", "lm_head.layer_norm.bias"}
    | {"lm_head.bias", "lm_head.weight"}
)

# esm/pretrained.py, _load_model_and_alphabet_core_v1 and _v2
_FAIR_ESM_PREFIX = re.compile(r"^encoder\.(sentence_encoder\.)?")

_LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.self.rotary_embeddings": "self_attn.rot_emb",
    "attention.output.dense": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "LayerNorm": "final_layer_norm",
}
_TOP = {
    "embeddings.word_embeddings.": "embed_tokens.",
    "encoder.emb_layer_norm_after.": "emb_layer_norm_after.",
    "lm_head.decoder.": "lm_head.",
}
# transformers 5 keeps one tensor for all layers, and saves it under the second name, which contains an asterisk.
_SHARED = ("rotary_embeddings.inv_freq", "encoder.layer.*.attention.self.rotary_embeddings.inv_freq")
_OLD_PARAMETERS = {"gamma": "weight", "beta": "bias"}
_WORD_EMBEDDINGS = re.compile(r"(esm\.)?embeddings\.word_embeddings\.weight")
# Some exports have them; a rotary ESM-2 does not use them.
_UNUSED = re.compile(r"(esm\.)?embeddings\.position_(ids|embeddings\.weight)")
_OTHER_HEADS = re.compile(r"((esm\.)?pooler|classifier)\.")


def plain_fair_esm_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a fair-esm file with the names of its classes, without the prefixes of fairseq."""
    return {_FAIR_ESM_PREFIX.sub("", name): tensor for name, tensor in tensors.items()}


def is_hugging_face(tensors: Mapping[str, Any]) -> bool:
    """Return whether the tensors have the names of transformers."""
    return any(_WORD_EMBEDDINGS.fullmatch(name) for name in tensors)


def from_hugging_face(where: object, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the tensors with the names of fair-esm, and the names of tensors of other heads, which are left out.

    Raises:
        CheckpointError: two names for one tensor.
    """
    named: dict[str, str] = {}
    others = sorted(name for name in tensors if _OTHER_HEADS.match(name))
    unused = {name for name in tensors if _UNUSED.fullmatch(name)} | set(others)
    if "lm_head.bias" in tensors:
        unused.add("lm_head.decoder.bias")  # an old name, which transformers no longer reads
    for name in tensors:
        if name in unused:
            continue
        ours = _fair_esm_name(name)
        if ours in named:
            raise CheckpointError(f"{where}: {named[ours]} and {name} are two names of one tensor; keep one of them")
        named[ours] = name
    return {ours: tensors[name] for ours, name in named.items()}, others


def _fair_esm_name(name: str) -> str:
    """Return the name of a tensor in fair-esm; unknown names are kept."""
    plain = name.removeprefix("esm.")
    if plain in _SHARED:
        return SHARED_FREQUENCIES
    if match := re.match(r"encoder\.layer\.(\d+)\.(.+)\.(\w+)$", plain):
        index, module, parameter = match.groups()
        return f"layers.{index}.{_LAYER.get(module, module)}.{_OLD_PARAMETERS.get(parameter, parameter)}"
    for theirs, ours in _TOP.items():
        if plain.startswith(theirs):
            return ours + plain.removeprefix(theirs)
    return plain
