"""A Hugging Face folder without its tensors: the files that belong to the model, config.json and the vocabulary.

The defaults are those of transformers' EsmConfig. Values that fair-esm's ESM-2 does not support are refused.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..families import FAMILIES
from ..sequences.alphabet import RESIDUES
from .registry import hub_snapshot
from .shape import LIMITS, Shape, positive_number, truth_value, whole_number

ADAPTER = "adapter_config.json"
CONFIG = "config.json"
SINGLE = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# fair-esm's Alphabet "ESM-1b" (esm/data.py), in token order
TOKENS = ("<cls>", "<pad>", "<eos>", "<unk>", *RESIDUES, "<null_1>", "<mask>")
FIELDS = ("num_hidden_layers", "hidden_size", "num_attention_heads")
MAX_TEXT_BYTES = 64 * 2**20  # of a text file; larger than any vocabulary or index

# The default of transformers for a missing field, and the only value that fits an ESM-2 of fair-esm.
_REQUIRED = {
    "position_embedding_type": ("absolute", "rotary"),
    "hidden_act": ("gelu", "gelu"),
    "emb_layer_norm_before": (False, False),
    "is_decoder": (False, False),
    "add_cross_attention": (False, False),
    "is_folding_model": (False, False),
    "rope_scaling": (None, None),
    "quantization_config": (None, None),
    "pruned_heads": (None, None),
}
_OTHER = "use an ESM-2 that has the latter"
_REMEDIES = {
    "position_embedding_type": "an ESM-1b or ESM-1v is read from the .pt of fair-esm (model: esm1b_t33_650M_UR50S)",
    "quantization_config": "save the model before quantisation",
}


@dataclass(frozen=True)
class FolderConfig:
    """The content of a folder without its tensors.

    Attributes:
        shape: of the model.
        rope_theta: base of the rotary frequencies, used if the weights do not contain them.
        tie_word_embeddings: whether the embedding replaces a missing matrix of the LM head.
        vocab_size: rows of the embedding; None if the folder does not give it.
        token_rows: for each token of fair-esm, in its order, the row of the embedding.
    """

    shape: Shape
    rope_theta: float
    tie_word_embeddings: bool
    vocab_size: int | None
    token_rows: list[int]


@dataclass(frozen=True)
class WeightFiles:
    """The files with the weights of a model, and the index that lists them, if there is one."""

    files: list[Path]
    index: Path | None = None


def folder_files(folder: Path) -> list[Path]:
    """Return all files of a folder that determine a model; for an adapter, its own files and then those of its base.

    Raises:
        CheckpointError: no config.json or no weights, or files that contradict each other.
    """
    if is_adapter(folder):
        return [folder / ADAPTER, adapter_weights(folder), *folder_files(adapter_base(folder))]
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: no config.json; give a Hugging Face folder of a model")
    vocabulary, weights = vocabulary_file(folder), weight_files(folder)
    optional = [path for path in (vocabulary, weights.index) if path]
    return [folder / CONFIG, *optional, *weights.files]


def is_adapter(folder: Path) -> bool:
    """Return whether a folder has a LoRA adapter (of the package peft) and not a model.

    Raises:
        CheckpointError: it has both.
    """
    if not (folder / ADAPTER).is_file():
        return False
    if (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: an adapter ({ADAPTER}) and a whole model ({CONFIG}); move one of them away")
    return True


def adapter_weights(folder: Path) -> Path:
    """Return the file with the weights of an adapter."""
    for name in ADAPTER_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: an adapter without weights; {ADAPTER_WEIGHTS[0]} is missing, fetch it again")


def adapter_base(folder: Path) -> Path:
    """Return the folder of the model that an adapter was trained on: a path, or an id in Hugging Face's cache.

    Raises:
        CheckpointError: the folder does not exist.
    """
    config = read_json_object(folder / ADAPTER)
    base, revision = config.get("base_model_name_or_path"), config.get("revision") or "main"
    if not isinstance(base, str) or not base or not isinstance(revision, str):
        raise CheckpointError(f"{folder / ADAPTER}: base_model_name_or_path does not name the model that it belongs to")
    path = Path(base).expanduser()
    for candidate in (path, folder / path, hub_snapshot(base, revision)):
        if candidate and (candidate / CONFIG).is_file():
            return candidate
    raise CheckpointError(
        f"{folder}: an adapter of {base}, which is neither a folder here nor in Hugging Face's cache; fetch it "
        f"(hf download {base}), or set base_model_name_or_path in {ADAPTER} to the folder of the base"
    )


def weight_files(folder: Path) -> WeightFiles:
    """Return the files with the weights: one with a name of transformers, those of an index, or the only file.

    Raises:
        CheckpointError: no file, or several and no index.
    """
    for name in SINGLE:
        whole, index = folder / name, folder / f"{name}.index.json"
        if index.is_file():
            files = _files_of_index(index)
            if whole.is_file() and files != [whole]:
                raise CheckpointError(
                    f"{folder}: {whole.name} and {index.name} name different weights; move one of them away"
                )
            return WeightFiles(files, index)
        if whole.is_file():
            return WeightFiles([whole])
    found = sorted(path for path in folder.glob("*.safetensors") if path.name not in ADAPTER_WEIGHTS)
    if len(found) == 1:
        return WeightFiles(found)
    if found:
        names = ", ".join(path.name for path in found[:5])
        raise CheckpointError(
            f"{folder}: {len(found)} files of weights ({names}), and no index lists them; "
            "name one of them model.safetensors"
        )
    raise CheckpointError(f"{folder}: it has no weights; model.safetensors or pytorch_model.bin is missing")


def _files_of_index(index: Path) -> list[Path]:
    weights = read_json_object(index).get("weight_map")
    names = set(weights.values()) if isinstance(weights, dict) and _all_text(list(weights.values())) else set()
    if not names or any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index}: its weight_map does not name files of this folder; fetch it again")
    files = [index.with_name(name) for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{index}: it names {file.name}, which is missing; fetch it again")
    return files


def vocabulary_file(folder: Path) -> Path | None:
    """Return the file with the ids of tokens, vocab.txt or else tokenizer.json; None: the ids are those of fair-esm."""
    return next((folder / name for name in ("vocab.txt", "tokenizer.json") if (folder / name).is_file()), None)


def read_config(folder: Path) -> FolderConfig:
    """Read config.json and the vocabulary of a folder, or of the base of an adapter.

    Raises:
        CheckpointError: a field has a wrong type or range or an unsupported value; the message names it.
    """
    if is_adapter(folder):
        base = adapter_base(folder)
        if (kind := read_json_object(base / CONFIG).get("model_type")) != "esm":
            raise CheckpointError(
                f"{folder}: an adapter of {base}, whose model_type is {kind!r}; only adapters of ESM-2 ('esm') are "
                "merged here: merge it with peft (merge_and_unload), and give the folder that this saves"
            )
        return read_config(base)
    path = folder / CONFIG
    config = read_json_object(path)
    if config.get("model_type") != "esm":
        known = ", ".join(f"{one.model_type!r} ({one.name})" for one in FAMILIES.values() if one.model_type)
        raise CheckpointError(f"{path}: its model_type is {config.get('model_type')!r}; known are {known}")
    for field, (default, only) in _REQUIRED.items():
        value = config.get(field, default)
        if (value or None) != (only or None):
            absent = "" if field in config else " (the default of transformers for a missing field)"
            raise CheckpointError(
                f"{path}: not an ESM-2, its {field} is {value!r}{absent}, not {only!r}; {_REMEDIES.get(field, _OTHER)}"
            )
    shape = _shape(path, config)
    rows = _token_rows(folder)
    for field, token in (("mask_token_id", "<mask>"), ("pad_token_id", "<pad>")):
        if config.get(field) not in (None, rows[TOKENS.index(token)]):
            raise CheckpointError(
                f"{path}: {field} is {config[field]!r}, but {token} is {rows[TOKENS.index(token)]} in the vocabulary"
            )
    theta = positive_number(path, "rope_theta", config.get("rope_theta", 10000.0))
    tied = truth_value(path, "tie_word_embeddings", config.get("tie_word_embeddings", True))
    size = config.get("vocab_size")
    vocab_size = None if size is None else whole_number(path, "vocab_size", size, 10**6)
    return FolderConfig(shape, theta, tied, vocab_size, rows)


def _shape(path: Path, config: dict) -> Shape:
    for field in FIELDS:
        if field not in config:
            raise CheckpointError(f"{path}: not an ESM-2, it has no {field}")
    limits = [LIMITS[name] for name in ("num_layers", "embed_dim", "attention_heads")]
    layers, dim, heads = (
        whole_number(path, field, config[field], at_most) for field, at_most in zip(FIELDS, limits, strict=True)
    )
    if config.get("intermediate_size", 4 * dim) != 4 * dim:
        raise CheckpointError(
            f"{path}: intermediate_size is {config['intermediate_size']!r}; an ESM-2 has 4 x hidden_size, {4 * dim}"
        )
    if config.get("head_dim") not in (None, dim / heads):
        raise CheckpointError(f"{path}: head_dim is {config['head_dim']!r}, not hidden_size / num_attention_heads")
    _check_rope(path, config)
    return Shape(
        layers,
        dim,
        heads,
        token_dropout=truth_value(path, "token_dropout", config.get("token_dropout", False)),
        layer_norm_eps=positive_number(path, "layer_norm_eps", config.get("layer_norm_eps", 1e-12)),
        fields=FIELDS,
    )


def _check_rope(path: Path, config: dict) -> None:
    rope = config.get("rope_parameters")
    if rope is None:
        return
    theta = config.get("rope_theta", 10000.0)
    if not isinstance(rope, dict) or {"rope_type": "default", "rope_theta": theta} | rope != {
        "rope_type": "default",
        "rope_theta": theta,
    }:
        raise CheckpointError(
            f"{path}: rope_parameters is {rope!r}; only rope_type 'default' with rope_theta {theta} is supported"
        )


def _token_rows(folder: Path) -> list[int]:
    """Return the id of each token of fair-esm in the vocabulary of a folder; other tokens are left out.

    Raises:
        CheckpointError: a token is missing or appears twice.
    """
    path = vocabulary_file(folder)
    if path is None:
        return list(range(len(TOKENS)))
    ids: dict[str, list[int]] = {}
    for token, index in _vocabulary(path):
        ids.setdefault(token, []).append(index)
    wrong = [token for token in TOKENS if len(ids.get(token, [])) != 1]
    rows = [ids[token][0] for token in TOKENS if token not in wrong]
    if wrong or len(set(rows)) != len(TOKENS):
        what = f"{wrong[0]!r} occurs {len(ids.get(wrong[0], []))} times" if wrong else "two tokens have one id"
        raise CheckpointError(f"{path}: not the vocabulary of an ESM-2 in any order, {what}; fetch it again")
    return rows


def check_residue_ids(folder: Path) -> None:
    """Raise CheckpointError if in the vocabulary of a folder a residue, cls, eos or mask has not fair-esm's id."""
    path = vocabulary_file(folder)
    ids = dict(_vocabulary(path)) if path else {}
    for index, token in enumerate(TOKENS):
        if path and token not in ("<null_1>", "<unk>") and ids.get(token) != index:
            raise CheckpointError(f"{path}: {token} has the id {ids.get(token)}, not {index}; fetch it again")


def _vocabulary(path: Path) -> list[tuple[str, int]]:
    """Return (token, id) pairs; vocab.txt is read as in transformers' EsmTokenizer."""
    if path.suffix == ".txt":
        return [(line.strip(), index) for index, line in enumerate(_text(path).splitlines())]
    model = read_json_object(path).get("model")
    entries = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(entries, dict) or not all(type(index) is int and index >= 0 for index in entries.values()):
        raise CheckpointError(f"{path}: it has no vocabulary (model.vocab); fetch it again")
    return list(entries.items())


def read_json_object(path: Path) -> dict:
    """Return the object of a JSON file that came with a checkpoint.

    Raises:
        CheckpointError: not JSON, or not an object.
    """
    text = _text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number with too many digits
        raise CheckpointError(f"{path}: not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object, so it does not belong to an ESM-2; fetch it again")
    return content


def _text(path: Path) -> str:
    with path.open("rb") as handle:
        content = handle.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise CheckpointError(f"{path}: larger than {MAX_TEXT_BYTES >> 20} MiB, so it does not belong to an ESM-2")
    try:
        return content.decode("utf-8-sig" if path.suffix == ".json" else "utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 text ({error}); fetch it again") from error


def _all_text(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)
