"""Where published checkpoints and the demonstration model are."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import CheckpointError, OptionError
from ..families import MODELS, ModelShape
from ..system.tree import tree

DEMO = "demo"
FILES = (".pt", ".pth")  # how the names of files of fair-esm and of EvolutionaryScale end
DEMO_PATH = tree() / "workflow" / "models" / "esm2_t6_3M_demo.pt"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
BASE_URL = "https://dl.fbaipublicfiles.com/fair-esm"


def model_url(name: str) -> str:
    """Return the URL of a published checkpoint."""
    return f"{BASE_URL}/models/{name}.pt"


def contact_head_url(name: str) -> str:
    """Return the URL of the contact head of a published checkpoint.

    Raises:
        OptionError: none is published (esm/pretrained.py, `_has_regression_weights`).
    """
    if not MODELS[name].has_contact_head:
        raise OptionError(
            f"include: contacts: there is no contact head for {name}; remove contacts, or use an ESM-2 of Meta"
        )
    return f"{BASE_URL}/regression/{name}-contact-regression.pt"


def contact_head_path(model: Path) -> Path:
    """Return the path where fair-esm looks for the contact head of a checkpoint, beside it."""
    return model.with_name(f"{model.stem}-contact-regression.pt")


def hub_path(name: str) -> Path:
    """Return the path in torch hub's cache, in $TORCH_HOME, else $XDG_CACHE_HOME/torch, else ~/.cache/torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    home = Path(os.environ.get("TORCH_HOME", cache))
    return (home / "hub" / "checkpoints" / f"{name}.pt").expanduser().absolute()


def find_model(model: str) -> Path:
    """Return the path of a model, without using the network.

    `model` is `demo`, a published name (torch hub's cache), a path, or an id of Hugging Face such as
    `facebook/esm2_t6_8M_UR50D` (the snapshot in its cache). A path that exists comes before an id.

    Raises:
        OptionError: neither a known name nor similar to a path, or an id that is not in the cache.
    """
    if model == DEMO:
        if not DEMO_PATH.exists():
            raise OptionError(f"model: {DEMO_PATH}, the file of demo, is missing; give another name, or a path")
        return DEMO_PATH
    if model in MODELS:
        return _cached(hub_id) if (hub_id := MODELS[model].hub_id) else hub_path(model)
    if _HUB_ID.fullmatch(model) and not Path(model).exists() and not model.endswith(FILES):
        return _cached(model)
    if "/" in model or model.endswith(FILES) or Path(model).exists():
        return Path(model).expanduser()
    raise OptionError(
        f"model: {model!r} is neither a known name nor a path; names are {', '.join(MODELS)}, "
        "or give the path of a fair-esm .pt file, of an ESM C .pth, of a Hugging Face folder, or a Hugging Face id"
    )


def results_name(model: str) -> str:
    """Return the name of the folder with the results of a model: its own name, or that of its file, folder or id.

    Characters other than letters, digits, `.`, `_` and `-` become `_`.
    """
    name = model
    if model not in MODELS:
        name = re.sub(r"\.pth?$", "", model_name(find_model(model).resolve()))
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "model"


def hugging_face_cache() -> Path:
    """Return the cache folder of Hugging Face: $HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    home = Path(os.environ.get("HF_HOME", cache))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser().absolute()


def hub_snapshot(model_id: str, revision: str = "main") -> Path | None:
    """Return the folder of a model id in the cache of Hugging Face; None if it is missing.

    Args:
        model_id: `organisation/name`.
        revision: a branch, a tag or a commit.
    """
    if not _HUB_ID.fullmatch(model_id) or ".." in revision:
        return None
    folder = hugging_face_cache() / f"models--{model_id.replace('/', '--')}"
    reference = folder / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def model_name(path: Path) -> str:
    """Return the name of a checkpoint at a path; for a snapshot in Hugging Face's cache, the last part of its id."""
    repository = path.parent.parent.name
    return repository.split("--")[-1] if path.parent.name == "snapshots" and "--" in repository else path.name


def _cached(model_id: str) -> Path:
    snapshot = hub_snapshot(model_id)
    if snapshot is None:
        name = model_id.split("/")[1]
        by_name = f"; model: {name} fetches it from Meta" if name in MODELS else ""
        raise OptionError(
            f"model: {model_id} does not exist as a path, and the id is not in Hugging Face's cache "
            f"({hugging_face_cache()}); fetch it there with hf download {model_id}, or give a path{by_name}"
        )
    return snapshot


def check_layers(model: str, last: int, layers: Iterable[int]) -> None:
    """Raise OptionError for a layer that a model does not have; its last one is `last`."""
    for layer in layers:
        if not -(last + 1) <= layer <= last:
            raise OptionError(
                f"layers: {layer} is not a layer of {model}; it has 0 (embedding) to {last}, or {-last - 1} to -1"
            )


def check_published(path: Path, shape: ModelShape) -> None:
    """Raise CheckpointError if the file of a published name in torch hub's cache is another model.

    Args:
        path: of the checkpoint.
        shape: of the model in that file, with the sha256 of the file.
    """
    published = MODELS.get(path.stem)
    if published is None or path != hub_path(path.stem):
        return
    found = (shape.num_layers, shape.embed_dim, shape.attention_heads)
    right = found == (published.num_layers, published.embed_dim, published.attention_heads)
    if not right or shape.sha256 != (published.sha256 or shape.sha256):
        raise CheckpointError(
            f"{path}: not the published {path.stem} (layers, dimension, heads {found}, sha256 {shape.sha256}); "
            "remove it to download it again, or give your own model another name and its path"
        )


def shape_of(model: str) -> ModelShape:
    """Return the shape of the model whose name is in `model`, or that of 650M; for estimates only."""
    for name, shape in MODELS.items():
        if (name != DEMO and name in model) or (shape.hub_id and shape.hub_id in model):
            return shape
    return MODELS["demo" if model == DEMO else "esm2_t33_650M_UR50D"]
