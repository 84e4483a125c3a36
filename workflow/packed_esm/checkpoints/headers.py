"""What a checkpoint tells of itself without being loaded."""

import json
import re
import zipfile
from pathlib import Path

from ..errors import OptionError
from .registry import MODELS


def layer_count(model: str, path: Path) -> int:
    """Return the number of layers of a model, without torch: by the table, else from what the checkpoint names.

    Args:
        model: as in the configuration.
        path: of the checkpoint; a published name's is not read.

    Raises:
        ValueError: a file that does not tell.
        FileNotFoundError: a folder without config.json.
    """
    if model in MODELS:
        return MODELS[model].num_layers
    count = (
        json.loads((path / "config.json").read_text()).get("num_hidden_layers")
        if path.is_dir()
        else _layers_named(path)
    )
    if not count:
        raise OptionError(f"{path}: it does not tell how many layers it has; count `layers` from 0, as in layers: [33]")
    return count


def _layers_named(path: Path) -> int:
    """Return the number of layers by the names of the tensors, which stand in the pickle of a zip of torch.save."""
    pickles = b""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    return max((int(layer) + 1 for layer in re.findall(rb"\blayers\.(\d+)\.", pickles)), default=0)
