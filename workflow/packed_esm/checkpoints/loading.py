"""Load checkpoints into fair-esm's `ESM2` or `ProteinBertModel`, without running what a pickle contains."""

import argparse
import hashlib
import json
import logging
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError
from ..sequences.tokens import MASK
from ..system.files import sha256
from .fair_esm import require_fair_esm
from .registry import contact_head_path

log = logging.getLogger(__name__)

# Needed for contact maps only; Meta publishes it in a file of its own.
CONTACT_HEAD = {"contact_head.regression.weight", "contact_head.regression.bias"}

# esm/pretrained.py, _load_model_and_alphabet_core_v1 and _v2
_FAIR_ESM_PREFIX = re.compile(r"^encoder\.(sentence_encoder\.)?")
_ESM1B = "roberta_large"  # what ESM-1b and ESM-1v call their architecture

_HF_LAYER = {
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
_HF_TOP = {
    "embeddings.word_embeddings.": "embed_tokens.",
    "encoder.emb_layer_norm_after.": "emb_layer_norm_after.",
    "contact_head.": "contact_head.",
    "lm_head.decoder.weight": "lm_head.weight",
    "lm_head.decoder.bias": "lm_head.bias",
    "lm_head.": "lm_head.",
}
# Present in some exports, used by no rotary ESM-2.
_HF_UNUSED = re.compile(r"embeddings\.position_(ids|embeddings\.weight)$")


def load_esm2(path: str | Path, mapped: bool = False) -> nn.Module:
    """Return fair-esm's model (fp32, on CPU, eval) from a fair-esm `.pt` or a Hugging Face ESM-2 folder.

    It is an `ESM2`, or the `ProteinBertModel` of an ESM-1b or ESM-1v. Without a contact head in the checkpoint its
    weights are zero. With `mapped` the weights of a `.pt` stay in the file, which is faster where they are copied to
    a GPU at once.

    Raises:
        CheckpointError: not such a checkpoint, truncated, or with missing, extra or misshapen tensors.
        FileNotFoundError: nothing at `path`.
    """
    require_fair_esm()
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"model: there is nothing at {path}; give a .pt file or a Hugging Face folder")
    shape, state = _read_hugging_face(path) if path.is_dir() else _read_fair_esm(path, mapped)
    return _build(path, shape, state)


def checkpoint_sha256(path: str | Path) -> str:
    """Return the sha256 of a `.pt` file; of a folder, that of the names and sha256 of its weight files."""
    path = Path(path)
    if path.is_file():
        return sha256(path)
    listing = "".join(f"{file.name} {sha256(file)}\n" for file in [path / "config.json", *_weight_files(path)])
    return hashlib.sha256(listing.encode()).hexdigest()


def _build(path: Path, shape: dict, state: dict[str, torch.Tensor]) -> nn.Module:
    if shape["embed_dim"] % shape["attention_heads"]:
        raise CheckpointError(
            f"{path}: dimension {shape['embed_dim']} does not divide by {shape['attention_heads']} heads"
        )
    with _NothingDrawn():  # memory that is never written to is never taken
        model = _empty_model(shape)
    expected = model.state_dict()
    missing = expected.keys() - state.keys() - CONTACT_HEAD
    extra = state.keys() - expected.keys()
    misshapen = {k for k in state.keys() & expected.keys() if state[k].shape != expected[k].shape}
    for problem, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen)):
        if names:
            raise CheckpointError(
                f"{path}: {len(names)} {problem} tensors for a model of {shape['num_layers']} layers, "
                f"{_some(names)}; the file is damaged or of another model: fetch it again"
            )
    for name in CONTACT_HEAD - state.keys():
        state[name] = torch.zeros(expected[name].shape)
    model.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)
    return model.eval()


def _empty_model(shape: dict) -> nn.Module:
    """Return the `ESM2` of a shape, or the `ProteinBertModel` where positions are learned."""
    from esm import Alphabet
    from esm.model.esm1 import ProteinBertModel
    from esm.model.esm2 import ESM2

    if "max_positions" not in shape:
        return ESM2(**shape)
    args = argparse.Namespace(arch=_ESM1B, layers=shape["num_layers"], **shape)
    return ProteinBertModel(args, Alphabet.from_architecture(_ESM1B))


class _NothingDrawn(TorchFunctionMode):
    """Leave out the random first weights, which are replaced at once.

    The meta device would leave them out too, but imports torch's compiler, which takes two seconds.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        kwargs = kwargs or {}
        if getattr(function, "__name__", "").endswith(("normal_", "uniform_")):  # also kaiming_uniform_ and its like
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def _read_fair_esm(path: Path, mapped: bool) -> tuple[dict, dict[str, torch.Tensor]]:
    data = _load_pickle(path, mapped)
    if not isinstance(data, dict) or "model" not in data or not {"cfg", "args"} & data.keys():
        raise CheckpointError(
            f"{path}: not an ESM-2, ESM-1b or ESM-1v checkpoint of fair-esm (it has no `model` with `cfg` or `args`); "
            "use a file esm2_*.pt, esm1b_*.pt or esm1v_*.pt, or a Hugging Face folder"
        )
    state = {_FAIR_ESM_PREFIX.sub("", name): tensor for name, tensor in data["model"].items()}
    try:
        shape = _esm2_shape(data["cfg"]["model"]) if "cfg" in data else _esm1b_shape(path, data["args"], state)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an ESM-2 checkpoint, its `cfg` has no shape of one ({error})") from error
    regression = contact_head_path(path)
    if regression.exists():
        state |= _load_pickle(regression)["model"]
    return shape, state


def _esm2_shape(cfg: argparse.Namespace) -> dict:
    return {
        "num_layers": cfg.encoder_layers,
        "embed_dim": cfg.encoder_embed_dim,
        "attention_heads": cfg.encoder_attention_heads,
        "token_dropout": cfg.token_dropout,
    }


def _esm1b_shape(path: Path, args: argparse.Namespace, state: dict[str, torch.Tensor]) -> dict:
    """Return the shape of an ESM-1b or ESM-1v, and zero the mask token of its `state`, as fair-esm does."""
    if args.arch != _ESM1B:
        raise CheckpointError(f"{path}: its architecture is {args.arch!r}; only ESM-2, ESM-1b and ESM-1v are supported")
    names = {name.removeprefix("encoder_"): value for name, value in vars(args).items()}
    embedding = state["embed_tokens.weight"].clone()
    embedding[MASK] = 0.0
    state |= {"embed_tokens.weight": embedding, "lm_head.weight": embedding}  # tied
    return {
        "num_layers": names["layers"],
        "token_dropout": names.get("token_dropout", False),
        "emb_layer_norm_before": "emb_layer_norm_before.weight" in state,
        **{name: names[name] for name in ("embed_dim", "ffn_embed_dim", "attention_heads", "max_positions")},
    }


def _load_pickle(path: Path, mapped: bool = False) -> dict:
    """Load tensors and plain values; a pickle with anything else is refused, not run."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # Not torch's own words: they advise to load it all the same, which would run it.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it names {named[1]}" if named else "it is no such pickle"
        raise CheckpointError(
            f"{path}: refused, it is not a checkpoint of tensors and plain values only ({reason}); "
            "use a file published as esm2_*.pt or safetensors"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a PyTorch checkpoint ({_first_line(error)}); "
            "it is truncated or of another kind: fetch it again"
        ) from error


def _read_hugging_face(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _hugging_face_config(folder)
    files = _weight_files(folder)
    if not files:
        raise CheckpointError(
            f"{folder}: no *.safetensors in it; pytorch_model.bin is not read, save the model with safetensors"
        )
    state: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except SafetensorError as error:
            raise CheckpointError(f"{file}: not a whole safetensors file ({error}); fetch it again") from error
    state = {_fair_esm_name(name): tensor for name, tensor in state.items() if not _HF_UNUSED.search(name)}
    state.setdefault("lm_head.weight", state.get("embed_tokens.weight", torch.empty(0)))  # tied
    shape = {
        "num_layers": config["num_hidden_layers"],
        "embed_dim": config["hidden_size"],
        "attention_heads": config["num_attention_heads"],
        "token_dropout": config.get("token_dropout", True),
    }
    _add_missing_frequencies(folder, shape, state)
    return shape, state


def _hugging_face_config(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no config.json; give a Hugging Face ESM-2 folder") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: not JSON ({error}); fetch it again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'}: not the configuration of an ESM-2; fetch it again")
    required = {"model_type": "esm", "position_embedding_type": "rotary", "emb_layer_norm_before": False}
    for key, value in required.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{folder}: not an ESM-2, its config.json has {key}: {config[key]!r}, not {value!r}")
    for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "model_type"):
        if key not in config:
            raise CheckpointError(f"{folder}: not an ESM-2, its config.json has no {key}")
    return config


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _fair_esm_name(name: str) -> str:
    """Return fair-esm's name of a Hugging Face tensor (transformers' EsmForMaskedLM); unknown ones stay."""
    name = name.removeprefix("esm.")
    if match := re.match(r"encoder\.layer\.(\d+)\.(.+)\.(\w+)$", name):
        index, module, parameter = match.groups()
        return f"layers.{index}.{_HF_LAYER.get(module, module)}.{parameter}"
    for theirs, ours in _HF_TOP.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _add_missing_frequencies(folder: Path, shape: dict, state: dict[str, torch.Tensor]) -> None:
    names = [f"layers.{i}.self_attn.rot_emb.inv_freq" for i in range(shape["num_layers"])]
    missing = [name for name in names if name not in state]
    if not missing:
        return
    log.warning(
        "%s: %d layers without rotary frequencies (inv_freq); computed in fp32, as transformers does. "
        "Meta's own checkpoints hold them rounded to fp16, which gives other values.",
        folder,
        len(missing),
    )
    dim = shape["embed_dim"] // shape["attention_heads"]
    for name in missing:
        state[name] = 1.0 / (10000 ** (torch.arange(0, dim, 2).float() / dim))


def _some(names: Iterable[str], at_most: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:at_most]) + (" ..." if len(names) > at_most else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
