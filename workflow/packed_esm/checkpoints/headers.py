"""Facts about a checkpoint that are read without loading it, and without torch."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError, OptionError
from ..families import CONTACT_HEAD, ESM2, FAMILIES, MODELS, Family
from ..system.files import sha256
from .folders import CONFIG, folder_files, is_adapter, read_config, read_json_object, whole_number
from .registry import contact_head_path
from .shape import LIMITS

MAX_PICKLE_BYTES = 64 * 10**6  # of a data.pkl; in published checkpoints it has less than 1 MB

_OF_FOLDERS = (".safetensors", ".json")  # some versions of torch.load read the first without config.json


def checkpoint_files(path: str | Path) -> list[Path]:
    """Return the files that determine a checkpoint, in a fixed order: the `.pt`, or all files read from a folder.

    They do not include the separate file with the contact head of a `.pt` (`contact_head_path`).

    Raises:
        CheckpointError: no such path, a folder without config.json or weights, files that contradict each other, or one
            file of a folder.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"model: {path} does not exist; give a .pt file or a Hugging Face folder")
    if path.suffix in _OF_FOLDERS and not path.is_dir():
        raise CheckpointError(
            f"model: {path} is one file of a Hugging Face folder, whose {CONFIG} must be read too; give the folder, "
            f"{path.parent}"
        )
    return folder_files(path) if path.is_dir() else [path]


def checkpoint_sha256(path: str | Path) -> str:
    """Return the sha256 of a `.pt` file, or for a folder that of the names and sha256 of its `checkpoint_files`."""
    path, files = Path(path), checkpoint_files(path)
    if not path.is_dir():
        return sha256(path)
    listing = "".join(f"{file.name} {sha256(file)}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def family_at(path: Path) -> Family:
    """Return the family of a checkpoint, from its config.json or the names of its tensors.

    Where neither says it, this is the family of ESM-2, whose reader refuses what it does not know.
    """
    if path.is_dir():
        has_config = (path / CONFIG).is_file() and not is_adapter(path)  # `checkpoint_files` says what is missing
        kind = read_json_object(path / CONFIG).get("model_type") if has_config else None
        found = [one for one in FAMILIES.values() if one.model_type and one.model_type == kind]
    else:
        named = _names_in(path)
        found = [one for one in FAMILIES.values() if one.tensor and re.search(one.tensor, named)]
    return found[0] if found else FAMILIES[ESM2]


def layer_count(model: str, path: Path) -> int:
    """Return the number of layers of a model, without torch: from the table, or else from the checkpoint.

    Args:
        model: as in the configuration.
        path: of the checkpoint; not read for a published name.

    Raises:
        OptionError: the file does not give the number.
        CheckpointError: no such path, a missing or wrong config.json, or a file that is refused.
    """
    count = known_layers(model, path)
    if not count:
        raise OptionError(f"{path}: its number of layers is unknown; count `layers` from 0, as in layers: [33]")
    return count


def known_layers(model: str, path: Path) -> int:
    """Return what `layer_count` does, or 0 if the file does not give the number.

    Raises:
        CheckpointError: as in `layer_count`.
    """
    if model in MODELS:
        return MODELS[model].num_layers
    checkpoint_files(path)
    return _layers_of_folder(path) if path.is_dir() else _layers_named(path)


def has_contact_head(path: Path) -> bool:
    """Return whether a fair-esm `.pt` has a contact head in it or in the file beside it; True for a folder.

    The loader checks the head of a folder. False for a family that has none.

    Raises:
        CheckpointError: a file that is refused.
    """
    if CONTACT_HEAD not in family_at(path).heads:
        return False
    if path.is_dir() or contact_head_path(path).exists() or not zipfile.is_zipfile(path):
        return True
    return b"contact_head.regression" in read_pickle_of(path)


def _names_in(path: Path) -> bytes:
    """Return bytes of a `.pt` that contain the names of its tensors; before torch 1.6 such a file began with them."""
    if zipfile.is_zipfile(path):
        return read_pickle_of(path)
    with path.open("rb") as handle:
        return handle.read(MAX_PICKLE_BYTES)


def read_pickle_of(path: Path) -> bytes:
    """Return the pickle, data.pkl, of a zip of torch.save; inflate at most MAX_PICKLE_BYTES.

    Raises:
        CheckpointError: a record would inflate to more, or the zip is damaged.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    pickles = _checked_pickles(path, records)
    with _reading(path), zipfile.ZipFile(path) as archive:
        # Read no more than the declared size. If that is false, the checksum of the zip is wrong.
        return b"".join(archive.open(record).read(record.file_size + 1) for record in pickles[:1])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise CheckpointError for the errors of zipfile on damaged bytes; put only calls of zipfile into the block."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: a damaged PyTorch checkpoint ({error}); fetch it again") from error


def _checked_pickles(path: Path, records: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """Return the records that are pickles, after checking that no record would inflate to more than the limit."""
    pickles = [record for record in records if record.filename.rpartition("/")[2] == "data.pkl"]
    for record in records:
        compressed = record in pickles or record.compress_type != zipfile.ZIP_STORED  # torch.save does not compress
        if compressed and record.file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(
                f"{path}: refused, its {record.filename} would take {record.file_size} bytes when inflated, "
                f"more than {MAX_PICKLE_BYTES}; no published checkpoint has such a record"
            )
    return pickles


def _layers_of_folder(folder: Path) -> int:
    if family_at(folder).name == ESM2:  # or the base of an adapter of one
        return read_config(folder).shape.num_layers
    config, field = folder / CONFIG, "num_hidden_layers"
    return whole_number(config, field, read_json_object(config).get(field), LIMITS["num_layers"])


def _layers_named(path: Path) -> int:
    """Return the number of layers from the names of tensors."""
    named = re.findall(family_at(path).layer, _names_in(path))
    return max((int(layer) + 1 for layer in named), default=0)
