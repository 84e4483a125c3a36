"""Merge a LoRA adapter, in the format of the package peft, into the tensors of its base (Hu et al. 2021, W + s B A)."""

import logging
import re
from pathlib import Path

import torch

from ..errors import CheckpointError
from .folders import ADAPTER, read_json_object
from .shape import positive_number, whole_number
from .tensors import State

log = logging.getLogger(__name__)

_PREFIX = "base_model.model."
_LOW_RANK = re.compile(r"(.+)\.lora_([AB])\.weight")
# Fields of peft's LoraConfig that change numbers, each with the only supported value.
_REQUIRED = {
    "peft_type": "LORA",
    "use_dora": False,
    "use_qalora": False,
    "fan_in_fan_out": False,
    "alpha_pattern": {},
    "lora_bias": False,
    "layer_replication": None,
    "alora_invocation_tokens": None,
}
_KEEP_THE_BASE = (True, False, None, "gaussian", "eva")  # initialisations; others (pissa, olora) change the base too
_NEW_MODULES = re.compile(r"(classifier|pooler)\.")  # heads of a task, which the base does not have


def merge_adapter(folder: Path, adapter: State, base: State) -> State:
    """Return the tensors of `base` (Hugging Face's names) with the adapter of `folder` merged into them, in fp32.

    Raises:
        CheckpointError: an unsupported kind of adapter, or an adapter for another base.
    """
    config = read_json_object(folder / ADAPTER)
    for field, only in _REQUIRED.items():
        if (config.get(field, only) or None) != (only or None):
            raise CheckpointError(f"{folder / ADAPTER}: {field} is {config[field]!r}; only {only!r} can be merged")
    if (initialisation := config.get("init_lora_weights")) not in _KEEP_THE_BASE:
        raise CheckpointError(
            f"{folder / ADAPTER}: init_lora_weights is {initialisation!r}, which also changes the base"
        )
    merged = {name.removeprefix("esm."): tensor for name, tensor in base.items()}
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in adapter.items():
        plain = name.removeprefix(_PREFIX).removeprefix("esm.")
        if match := _LOW_RANK.fullmatch(plain):
            pairs.setdefault(f"{match[1]}.weight", {})[match[2]] = tensor
        elif (whole := plain.replace(".base_layer.", ".")) in merged and merged[whole].shape == tensor.shape:
            merged[whole] = tensor  # trained without low rank: a bias, or a module of `modules_to_save`
        elif not _NEW_MODULES.match(plain):
            raise CheckpointError(
                f"{folder}: {name} of the adapter does not fit any tensor of its base; it belongs to another base"
            )
    for name, pair in pairs.items():
        merged[name] = _merged(folder, config, name, pair, merged.get(name))
    log.info("%s: an adapter, merged into %d matrices of its base", folder, len(pairs))
    return merged


def _merged(folder: Path, config: dict, name: str, pair: State, weight: torch.Tensor | None) -> torch.Tensor:
    down, up = pair.get("A"), pair.get("B")
    fits = (
        weight is not None
        and down is not None
        and up is not None
        and down.ndim == up.ndim == weight.ndim == 2
        and (up.shape[0], down.shape[1]) == tuple(weight.shape)
        and up.shape[1] == down.shape[0]
    )
    if not fits:
        raise CheckpointError(f"{folder}: lora_A and lora_B of {name} do not fit its base; it belongs to another base")
    rank = down.shape[0]
    if not config.get("rank_pattern") and whole_number(folder / ADAPTER, "r", config.get("r"), 10**5) != rank:
        raise CheckpointError(f"{folder / ADAPTER}: r is {config['r']}, but lora_A of {name} has {rank} rows")
    alpha = positive_number(folder / ADAPTER, "lora_alpha", config.get("lora_alpha"))
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return weight.float() + scale * (up.float() @ down.float())
