"""What a checkpoint tells of itself without being loaded, and without torch."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError, OptionError
from ..system.files import sha256
from .folders import folder_files, read_config
from .registry import MODELS, contact_head_path

MOST_PICKLE_BYTES = 64 * 10**6  # of a data.pkl: that of the largest published checkpoint has less than 1 MB


def checkpoint_files(path: str | Path) -> list[Path]:
    """Return the files that determine a checkpoint: the `.pt`, or all of a folder that are read, in a fixed order.

    The contact head of a `.pt` stands in a file of its own (`contact_head_path`), which is not among them.

    Raises:
        CheckpointError: nothing there, a folder without config.json or weights, or files that contradict each other.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"model: there is nothing at {path}; give a .pt file or a Hugging Face folder")
    return folder_files(path) if path.is_dir() else [path]


def checkpoint_sha256(path: str | Path) -> str:
    """Return the sha256 of a `.pt` file; of a folder, that of the names and sha256 of `checkpoint_files`."""
    path, files = Path(path), checkpoint_files(path)
    if not path.is_dir():
        return sha256(path)
    listing = "".join(f"{file.name} {sha256(file)}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def layer_count(model: str, path: Path) -> int:
    """Return the number of layers of a model, without torch: by the table, else from what the checkpoint names.

    Args:
        model: as in the configuration.
        path: of the checkpoint; a published name's is not read.

    Raises:
        OptionError: a file that does not tell.
        CheckpointError: nothing there, a folder whose config.json is missing or wrong, or a file that is refused.
    """
    if model in MODELS:
        return MODELS[model].num_layers
    checkpoint_files(path)
    count = read_config(path).shape.num_layers if path.is_dir() else _layers_named(path)
    if not count:
        raise OptionError(f"{path}: it does not tell how many layers it has; count `layers` from 0, as in layers: [33]")
    return count


def has_contact_head(path: Path) -> bool:
    """Return whether a fair-esm `.pt` has a contact head, in it or in the file beside it; of a folder the loader knows.

    Raises:
        CheckpointError: a file that is refused.
    """
    if path.is_dir() or contact_head_path(path).exists() or not zipfile.is_zipfile(path):
        return True
    return b"contact_head.regression" in read_pickle_of(path)


def read_pickle_of(path: Path) -> bytes:
    """Return the pickle, data.pkl, of a zip of torch.save, and inflate no more than MOST_PICKLE_BYTES.

    Raises:
        CheckpointError: a record that would inflate to more, or a damaged zip.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    pickles = _checked_pickles(path, records)
    with _reading(path), zipfile.ZipFile(path) as archive:
        # No more than is declared, which need not be true: then the checksum of the zip is wrong.
        return b"".join(archive.open(record).read(record.file_size + 1) for record in pickles[:1])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise CheckpointError for what zipfile raises where bytes make no sense; put no more than its calls there."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: a damaged PyTorch checkpoint ({error}); fetch it again") from error


def _checked_pickles(path: Path, records: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """Return the records that are pickles, once no record is found that would inflate beyond measure."""
    pickles = [record for record in records if record.filename.rpartition("/")[2] == "data.pkl"]
    for record in records:
        squeezed = record in pickles or record.compress_type != zipfile.ZIP_STORED  # torch.save squeezes none
        if squeezed and record.file_size > MOST_PICKLE_BYTES:
            raise CheckpointError(
                f"{path}: refused, its {record.filename} would take {record.file_size} bytes when inflated, "
                f"more than {MOST_PICKLE_BYTES}; no published checkpoint has such a record"
            )
    return pickles


def _layers_named(path: Path) -> int:
    """Return the number of layers by the names of the tensors, which stand in the pickle of a zip of torch.save."""
    content = read_pickle_of(path) if zipfile.is_zipfile(path) else b""
    named = re.findall(rb"\b(?:layers|encoder\.layer)\.(\d{1,4})\.", content)
    return max((int(layer) + 1 for layer in named), default=0)
