"""Read a Hugging Face folder of an ESM-2: an EsmModel, a model with a head of transformers, or a LoRA adapter."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch

from ..errors import CheckpointError
from .adapters import merge_adapter
from .folders import FolderConfig, adapter_base, adapter_weights, is_adapter, read_config, weight_files
from .names import from_hugging_face
from .pickles import load_pickle
from .shape import Shape
from .tensors import State, checked_tensors, copy_shared_frequencies, frequency_names, log_unused, select_rows

log = logging.getLogger(__name__)


def read_hugging_face(folder: Path, mapped: bool) -> tuple[Shape, State]:
    """Return shape and tensors, with the names of fair-esm and its order of tokens; `mapped`: see `load_esm2`.

    Raises:
        CheckpointError: not such a folder, damaged, or contradictory.
    """
    config = read_config(folder)
    state, others = from_hugging_face(folder, folder_tensors(folder, mapped))
    log_unused(folder, others)
    _check_vocabulary(folder, config, state)
    select_rows(folder, state, config.token_rows)
    if config.tie_word_embeddings and "embed_tokens.weight" in state:
        state.setdefault("lm_head.weight", state["embed_tokens.weight"])
    copy_shared_frequencies(state)
    _add_missing_frequencies(folder, config, state)
    return config.shape, state


def folder_tensors(folder: Path, mapped: bool) -> State:
    """Return the tensors of a folder with the names in its files; an adapter is merged into its base."""
    if is_adapter(folder):
        return merge_adapter(
            folder, _read_files([adapter_weights(folder)], mapped), folder_tensors(adapter_base(folder), mapped)
        )
    return _read_files(weight_files(folder).files, mapped)


def _read_files(files: Iterable[Path], mapped: bool) -> State:
    state: State = {}
    for file in files:
        tensors = _read_file(file, mapped)
        if twice := sorted(tensors.keys() & state.keys()):
            raise CheckpointError(f"{file}: {twice[0]} is also in another file of the index; fetch them again")
        state |= tensors
    return state


def _read_file(file: Path, mapped: bool) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.suffix != ".safetensors":
        return checked_tensors(file, load_pickle(file, mapped))
    try:
        tensors = checked_tensors(file, load_file(file))  # mapped
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a complete safetensors file ({error}); fetch it again") from error
    return tensors if mapped else {name: tensor.clone() for name, tensor in tensors.items()}


def _check_vocabulary(folder: Path, config: FolderConfig, state: State) -> None:
    embedding = state.get("embed_tokens.weight")
    if config.vocab_size and embedding is not None and embedding.ndim and len(embedding) != config.vocab_size:
        raise CheckpointError(
            f"{folder}: vocab_size is {config.vocab_size}, but the embedding has {len(embedding)} rows; "
            "config.json and weights belong to different models"
        )


def _add_missing_frequencies(folder: Path, config: FolderConfig, state: State) -> None:
    shape = config.shape
    missing = [name for name in frequency_names(state) if name not in state]
    if not missing or shape.embed_dim % (2 * shape.attention_heads):
        return
    log.warning(
        "%s: %d layers without rotary frequencies (inv_freq); computed in fp32, as transformers does. "
        "Meta's checkpoints contain them rounded to fp16, so the embeddings differ slightly.",
        folder,
        len(missing),
    )
    dim = shape.embed_dim // shape.attention_heads
    for name in missing:
        state[name] = 1.0 / (config.rope_theta ** (torch.arange(0, dim, 2).float() / dim))
