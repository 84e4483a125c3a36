"""Load the checkpoint of a model of any family, without running code in a pickle."""

from os import PathLike
from pathlib import Path

from torch import nn

from .fair_esm import require_fair_esm
from .headers import checkpoint_files, family_at


def load_model(path: str | Path, mapped: bool = False) -> nn.Module:
    """Return the model (fp32, on CPU, eval) of a file or a Hugging Face folder.

    It is fair-esm's `ESM2`, its `ProteinBertModel` for ESM-1b and ESM-1v, or the class of another family. Its
    `absent_heads` names the heads that the checkpoint does not have. The weights of such a contact head are zero and
    those of such an LM head are nan; `require_heads` says which outputs need them. With `mapped` the weights stay in
    the file, which is mapped into memory, and keep its dtype; this is faster if they are copied to a GPU at once.

    Raises:
        CheckpointError: no such path, not such a checkpoint, truncated, with an unsupported value, or with missing,
            extra or misshapen tensors.
        TypeError: not a path.
    """
    require_fair_esm()
    path = checked_path(path)
    checkpoint_files(path)
    return family_at(path).module("checkpoint").load(path, mapped)


def checked_path(model: object) -> Path:
    """Return the path of a checkpoint; raise TypeError for anything else, such as a model that is loaded already."""
    if isinstance(model, str | PathLike):
        return Path(model)
    raise TypeError(
        f"model: a {type(model).__module__}.{type(model).__qualname__}; give the path of a checkpoint, or give a model "
        "that is loaded already to packed_esm.ESM2WithFlashAttention"
    )


load_esm2 = load_model  # its name before other families were read
