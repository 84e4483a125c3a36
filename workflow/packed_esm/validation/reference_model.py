"""Tokens and model of the reference: fair-esm's tokens, and a checkpoint read into fair-esm's model.

It shares no code with `checkpoints`, whose loader the packed path uses: a validation with the same loader would not
detect anything that this loader ignores. The duplication is deliberate.
"""

import argparse
import re
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .reference_folder import folder_model, frequencies_of, is_transformers, to_fair_esm_names

_MASKED_LM = ("dense.weight", "dense.bias", "layer_norm.weight", "layer_norm.bias", "bias")


def reference_tokens(sequence: str) -> np.ndarray:
    """Return the tokens of a sequence, int64 [L + 2] with cls and eos, from fair-esm's Alphabet and BatchConverter."""
    from esm import Alphabet

    _, _, tokens = Alphabet.from_architecture("ESM-1b").get_batch_converter()([("", sequence)])
    return tokens[0].numpy()


def load_reference(path: str | Path) -> nn.Module:
    """Return fair-esm's model (fp32, on CPU, eval) from a `.pt`, by fair-esm's own loader, or from a folder."""
    path = Path(path)
    return (folder_model(path) if path.is_dir() else _by_fair_esm(path)).float().eval()


def stream_layers(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model with all but its layers on a device; each layer is there while it runs, and at home on the CPU.

    For a device on which the model does not fit. Every sequence copies all layers, at the rate of plain memory.
    """
    in_layers = {id(one) for layer in model.layers for one in (*layer.parameters(), *layer.buffers())}
    for one in (*model.parameters(), *model.buffers()):
        if id(one) not in in_layers:
            one.data = one.data.to(device)
    for layer in model.layers:
        home = {name: tensor.data for name, tensor in layer.state_dict(keep_vars=True).items()}
        layer.register_forward_pre_hook(partial(_put, home=home, device=device))
        layer.register_forward_hook(partial(_put, home=home, device=torch.device("cpu")))
    return model


@torch.inference_mode(mode=False)
def _put(layer: nn.Module, *_: object, home: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put the tensors of a layer on a device; `home` has them on the CPU."""
    for name, tensor in layer.state_dict(keep_vars=True).items():
        tensor.data = home[name].to(device)


def _by_fair_esm(path: Path) -> nn.Module:
    from esm.pretrained import load_model_and_alphabet_core

    data = _tensors(path)
    if "model" not in data:
        data = _as_published(data)
    beside = path.with_name(f"{path.stem}-contact-regression.pt")
    regression = _tensors(beside) if beside.is_file() else None
    _add_lm_head(data["model"])
    # fair-esm derives the generation from the file name, but here a file may have any name.
    generation = "esm2" if "cfg" in data else "esm1b"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Regression weights not found")
        model, _ = load_model_and_alphabet_core(generation, data, regression)
    return model


def _tensors(path: Path) -> dict:
    """Return the content of a file of torch.save without running code in its pickle; map tensors from the file."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _as_published(tensors: dict) -> dict:
    """Return a bare dictionary of tensors in the form in which Meta publishes them."""
    if is_transformers(tensors):
        tensors = to_fair_esm_names(tensors, vocabulary=None)
    else:
        tensors = {re.sub(r"^encoder\.(sentence_encoder\.)?", "", name): one for name, one in tensors.items()}
    tensors = {
        name: one[:33] if re.match(r"embed_tokens|lm_head\.(weight|bias)", name) else one
        for name, one in tensors.items()
    }
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers."))
    width = tensors["embed_tokens.weight"].shape[1]
    cfg = argparse.Namespace(
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_attention_heads=width // (2 * len(frequencies_of(tensors))),
        token_dropout=True,
    )
    return {"cfg": {"model": cfg}, "model": tensors}


def _add_lm_head(tensors: dict) -> None:
    """Add what fair-esm's loader needs: the tied matrix, if it is there as embedding alone, or a head of zeros.

    Such a head is not compared.
    """
    prefix = "encoder." if any(name.startswith("encoder.") for name in tensors) else ""
    (embedding,) = (one for name, one in tensors.items() if name.endswith("embed_tokens.weight"))
    tensors.setdefault(f"{prefix}lm_head.weight", embedding)
    if any("lm_head.dense" in name for name in tensors):
        return
    sizes = {"dense.weight": (embedding.shape[1],) * 2, "bias": embedding.shape[:1]}
    for name in _MASKED_LM:
        tensors[f"{prefix}lm_head.{name}"] = torch.zeros(sizes.get(name, embedding.shape[1:]))
