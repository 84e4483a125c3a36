"""Read a Hugging Face folder into fair-esm's ESM2, for the reference.

`checkpoints/names.py` has a table of the same names, and `checkpoints/folders.py` reads the same fields. This
duplication is deliberate: code that checks the loader must not repeat its mistakes. This module looks up the tensor of
each parameter of fair-esm's model; the loader looks up the parameter of each tensor.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

Get = Callable[[str], torch.Tensor | None]

_TRANSFORMERS = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn.rot_emb": "attention.self.rotary_embeddings",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}
_OLD = {"weight": "gamma", "bias": "beta"}
_BY_TOKEN = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")


def folder_model(folder: Path) -> nn.Module:
    """Return fair-esm's ESM2 from a folder of transformers, or from a LoRA adapter of such a model."""
    from esm.model.esm2 import ESM2

    base = _base_of(folder)
    config = json.loads((base / "config.json").read_text())
    tensors = to_fair_esm_names(_with_adapter(folder, _read(base)), _vocabulary(base), config)
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    model = ESM2(layers, config["hidden_size"], heads, "ESM-1b", token_dropout=bool(config.get("token_dropout", False)))
    for module in model.modules():
        if type(module).__name__.endswith("LayerNorm"):
            module.eps = config.get("layer_norm_eps", 1e-12)
    if config.get("tie_word_embeddings", True) is False or "lm_head.weight" in tensors:
        model.lm_head.weight = nn.Parameter(torch.zeros_like(model.embed_tokens.weight))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.startswith(("lm_head", "contact_head"))]
    if missing or unexpected:
        raise AssertionError(f"{folder}: the reference has no counterpart of {missing}, {unexpected}")
    return model


def to_fair_esm_names(
    tensors: Mapping[str, torch.Tensor],
    vocabulary: list[str] | None,
    config: Mapping = {},  # noqa: B006
) -> dict[str, torch.Tensor]:
    """Return the tensors of an ESM2 with the names of fair-esm, in fair-esm's order of tokens.

    Args:
        tensors: with the names of transformers.
        vocabulary: the tokens in the order of the rows; None: fair-esm's order.
        config: of the folder, for rotary frequencies that no file contains.
    """

    def get(name: str) -> torch.Tensor | None:
        return next((tensors[one] for one in (f"esm.{name}", name) if one in tensors), None)

    found = {"embed_tokens.weight": get("embeddings.word_embeddings.weight")}
    for kind in ("weight", "bias"):
        found[f"emb_layer_norm_after.{kind}"] = get(f"encoder.emb_layer_norm_after.{kind}")
        found[f"contact_head.regression.{kind}"] = get(f"contact_head.regression.{kind}")
        for module in ("dense", "layer_norm"):
            found[f"lm_head.{module}.{kind}"] = get(f"lm_head.{module}.{kind}")
    found["lm_head.bias"] = get("lm_head.bias") if get("lm_head.bias") is not None else get("lm_head.decoder.bias")
    found["lm_head.weight"] = get("lm_head.decoder.weight")
    for index in _layers(tensors):
        found |= _layer(index, get, config)
    rows = _rows(vocabulary)
    return {name: (one[rows] if name in _BY_TOKEN else one).float() for name, one in found.items() if one is not None}


def is_transformers(tensors: Iterable[str]) -> bool:
    """Return whether tensors have transformers' names."""
    return any(name.endswith("word_embeddings.weight") for name in tensors)


def frequencies_of(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the rotary frequencies [D / 2] of the first layer that has them."""
    return next(one for name, one in tensors.items() if name.endswith("inv_freq"))


def _layers(tensors: Iterable[str]) -> list[int]:
    return sorted({int(number) for name in tensors for number in re.findall(r"encoder\.layer\.(\d+)\.", name)})


def _layer(index: int, get: Get, config: Mapping) -> dict[str, torch.Tensor | None]:
    found: dict[str, torch.Tensor | None] = {}
    for ours, theirs in _TRANSFORMERS.items():
        for kind in ("inv_freq",) if ours.endswith("rot_emb") else ("weight", "bias"):
            one = get(f"encoder.layer.{index}.{theirs}.{kind}")
            found[f"layers.{index}.{ours}.{kind}"] = (
                get(f"encoder.layer.{index}.{theirs}.{_OLD[kind]}") if one is None and kind in _OLD else one
            )
    name = f"layers.{index}.self_attn.rot_emb.inv_freq"
    for other in ("encoder.layer.*.attention.self.rotary_embeddings.inv_freq", "rotary_embeddings.inv_freq"):
        found[name] = get(other) if found[name] is None else found[name]
    if found[name] is None:
        width = config["hidden_size"] // config["num_attention_heads"]
        found[name] = 1.0 / (config.get("rope_theta", 10000.0) ** (torch.arange(0, width, 2).float() / width))
    return found


def _vocabulary(folder: Path) -> list[str] | None:
    if (folder / "vocab.txt").is_file():
        return [line.strip() for line in (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()]
    if (folder / "tokenizer.json").is_file():
        ids = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        return sorted(ids, key=ids.get)
    return None


def _rows(vocabulary: list[str] | None) -> list[int]:
    from esm import Alphabet

    tokens = Alphabet.from_architecture("ESM-1b").all_toks
    return [(vocabulary or tokens).index(token) for token in tokens]


def _read(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the files with the weights, in the order in which transformers looks for them."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{whole}.index.json"
        if index.is_file():
            names = json.loads(index.read_text())["weight_map"].values()
            return {name: one for file in sorted(set(names)) for name, one in _read_file(folder / file).items()}
        if (folder / whole).is_file():
            return _read_file(folder / whole)
    (only,) = (path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    return _read_file(only)


def _read_file(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    with safe_open(path, "pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118, it is not a dictionary


def _base_of(folder: Path) -> Path:
    """Return the folder of the model; for an adapter, the folder of its base."""
    if not (folder / "adapter_config.json").is_file():
        return folder
    config = json.loads((folder / "adapter_config.json").read_text())
    base = config["base_model_name_or_path"]
    cache = os.environ.get("HF_HUB_CACHE") or Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface", "hub"
    )
    repository = Path(cache).expanduser() / f"models--{base.replace('/', '--')}"
    revision = config.get("revision") or "main"
    named = repository / "refs" / revision
    snapshot = repository / "snapshots" / (named.read_text().strip() if named.is_file() else revision)
    for path in (Path(base).expanduser(), folder / base, snapshot):
        if (path / "config.json").is_file():
            return path
    raise FileNotFoundError(f"{folder}: its base {base} is missing")


def _with_adapter(folder: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Merge the adapter in `folder`, if it is one, into the tensors of its base (peft, LoraLayer.merge)."""
    if not (folder / "adapter_config.json").is_file():
        return tensors
    config = json.loads((folder / "adapter_config.json").read_text())
    (file,) = folder.glob("adapter_model.*")
    adapter = {
        name.removeprefix("base_model.model.").removeprefix("esm."): one for name, one in _read_file(file).items()
    }
    tensors = {name.removeprefix("esm."): one for name, one in tensors.items()}
    for name in tensors:
        module = name.removesuffix(".weight")
        down, up = adapter.get(f"{module}.lora_A.weight"), adapter.get(f"{module}.lora_B.weight")
        if down is not None:
            scale = config["lora_alpha"] / (len(down) ** 0.5 if config.get("use_rslora") else len(down))
            tensors[name] = torch.addmm(tensors[name].double(), up.double(), down.double(), alpha=scale)
        path, _, kind = name.rpartition(".")
        for whole in (name, f"{path}.base_layer.{kind}"):
            tensors[name] = adapter.get(whole, tensors[name])
    return tensors
