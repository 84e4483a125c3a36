"""Files of what a sequence has for each of its residues: HDF5, one dataset a sequence.

| feature | dataset |
|---|---|
| representations | [L, E], or [layers, L, E] where several layers are kept; float16 or float32 |
| logits | float32 [L, 33], in the order of fair-esm's alphabet |
| contacts | float32 [L, L], probabilities |

In the file of a chunk a dataset is named by the digest of its sequence. The file of a sample names it by accession or
id (`names.dataset_names`), in UniProt's layout. It holds copies of the datasets; by choice it holds links to the files
of the chunks.

A dataset is not compressed: gzip makes float16 values 13 % smaller and takes five times as long as the model
(tests/benchmarks/storage.py). Any HDF5 library reads it.

Attributes of a dataset: `digest`, `feature`, and `checksum`, which `residue_checksum` makes of the values as they come
from the model. A copy keeps them; `residue_checks` compares them. In the file of a sample a copy also has
`original_id`, the id of its record.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np
import xxhash

from ..errors import EmbeddingFileError
from ..system.files import FileKind
from .hdf5 import new_hdf5
from .settings import SETTINGS_KEY, from_metadata, to_metadata

# What h5py raises for bytes that make no sense; an OSError of HDF5's own has no number.
RESIDUE_FILE = FileKind(
    "HDF5 file of residues", (OSError, KeyError, RuntimeError, TypeError, ValueError), EmbeddingFileError
)

BLOCK_BYTES = 4 * 2**20  # of a dataset, in memory at the same time to be checked
WAITING_BYTES = 256 * 2**20  # of datasets that wait to be written
SETTINGS_ATTRIBUTE = SETTINGS_KEY.decode()
DIGEST, CHECKSUM, FEATURE = "digest", "checksum", "feature"  # attributes of a dataset, the last of a file too
ORIGINAL_ID = "original_id"  # attribute of a dataset in the file of a sample


class ResidueWriter:
    """Write the features of sequences; a context manager that renames the files at the end.

    A thread of its own writes the datasets, in the order of the calls, while the caller computes the next ones.

    Args:
        paths: {feature: path}, names of `outputs.table.RESIDUES`.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self._waiting: deque[tuple[int, Future]] = deque()  # (bytes, the writing)
        self._waiting_bytes = 0

    def __enter__(self) -> "ResidueWriter":
        self._stack = ExitStack()
        self._files = {feature: self._stack.enter_context(new_hdf5(path)) for feature, path in self._paths.items()}
        self._thread = ThreadPoolExecutor(1)
        self._stack.callback(self._thread.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)

    def restart(self) -> None:
        """Discard the datasets."""
        self._wait()
        for file in self._files.values():
            for digest in list(file):
                del file[digest]

    def write(self, digest: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Take the features of one sequence, {feature: dataset}; its digest names the datasets.

        The arrays must not change afterwards. The call waits while more than WAITING_BYTES are not written yet.
        """
        size = sum(array.nbytes for array in arrays.values())
        self._waiting.append((size, self._thread.submit(self._write, digest, arrays)))
        self._waiting_bytes += size
        while self._waiting and (self._waiting_bytes > WAITING_BYTES or self._waiting[0][1].done()):
            self._wait_for_oldest()

    def copy(self, datasets: Mapping[str, h5py.Dataset]) -> None:
        """Copy the datasets of one sequence from other files, {feature: dataset}."""
        self._wait()
        for feature, dataset in datasets.items():
            copy_dataset(dataset, self._files[feature], dataset.attrs[DIGEST])

    def remove(self, digest: str) -> None:
        """Remove the datasets of one sequence."""
        self._wait()
        for file in self._files.values():
            if digest in file:
                del file[digest]

    def checksum(self, feature: str, digest: str) -> int:
        """Return the checksum of a dataset."""
        self._wait()
        return int(self._files[feature][digest].attrs[CHECKSUM])

    def values(self, feature: str, digest: str) -> np.ndarray:
        """Return the values of a dataset."""
        self._wait()
        return self._files[feature][digest][...]

    def finish(self, settings: dict) -> None:
        """Write the datasets that wait, and the settings that determine the content."""
        self._wait()
        for feature, file in self._files.items():
            file.attrs[SETTINGS_ATTRIBUTE] = to_metadata(settings)[SETTINGS_KEY].decode()
            file.attrs[FEATURE] = feature

    def _wait(self) -> None:
        while self._waiting:
            self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        size, writing = self._waiting.popleft()
        self._waiting_bytes -= size
        writing.result()

    def _write(self, digest: str, arrays: Mapping[str, np.ndarray]) -> None:
        for feature, array in arrays.items():
            dataset = self._files[feature].create_dataset(digest, data=array)
            dataset.attrs[DIGEST] = digest
            dataset.attrs[CHECKSUM] = np.uint64(residue_checksum(digest, array))
            dataset.attrs[FEATURE] = feature


def copy_dataset(source: h5py.Dataset, target: h5py.Group, name: str, original_id: str | None = None) -> None:
    """Copy a dataset of residues with its attributes, as it is stored; compressed blocks stay compressed.

    Args:
        source: in another file.
        target: where to.
        name: of the copy.
        original_id: of the record that the copy is for; None where it is for all of one sequence.

    Raises:
        EmbeddingFileError: blocks that are not there.
    """
    with RESIDUE_FILE.reading(Path(source.file.filename)):
        target.copy(source, target, name)  # H5Ocopy: in blocks, which it does not inflate
    target[name].attrs.pop(ORIGINAL_ID, None)
    if original_id is not None:
        target[name].attrs[ORIGINAL_ID] = original_id


def residue_checksum(digest: str, values: np.ndarray | h5py.Dataset) -> int:
    """Return the XXH3-64 (https://xxhash.com) of a sequence's digest, and of shape, dtype and values of its dataset.

    The values are hashed in C order, as they are stored; of a dataset, [..., L, width], a block in memory at a time.
    The digest is part of it, so that two datasets that change places are noticed.
    """
    state = xxhash.xxh3_64(f"{digest} {values.shape} {values.dtype.str}".encode())
    for place in block_slices(values):
        state.update(np.ascontiguousarray(values[place]))
    return state.intdigest()


def block_shape(values: np.ndarray | h5py.Dataset) -> tuple[int, ...]:
    """Return the shape of the blocks of [..., L, width]: whole rows, of one layer."""
    *leading, rows, width = values.shape
    at_once = max(1, min(rows, BLOCK_BYTES // (width * values.dtype.itemsize)))
    return (*(1 for _ in leading), at_once, width)


def block_slices(values: np.ndarray | h5py.Dataset) -> Iterator[tuple[slice, ...]]:
    """Yield where the blocks of [..., L, width] lie, in C order; the last ones may reach beyond the end."""
    shape = block_shape(values)
    for index in np.ndindex(*(-(-size // step) for size, step in zip(values.shape, shape, strict=True))):
        yield tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, shape, strict=True))


@contextmanager
def open_residues(path: Path, kind: FileKind = RESIDUE_FILE) -> Iterator[h5py.File]:
    """Open a file of residues to read; put each call that reads it inside `kind.reading(path)`.

    Raises:
        EmbeddingFileError: not a whole one.
    """
    with kind.reading(path):
        file = h5py.File(path, "r")
    with file:
        yield file


def residue_settings(path: Path) -> dict:
    """Return the settings in the attributes of a file of residues.

    Raises:
        EmbeddingFileError: not a whole one.
    """
    with open_residues(path) as file:
        return file_settings(file, path)


def residue_feature(path: Path) -> str | None:
    """Return the feature that a file of residues is of, as it says.

    Raises:
        EmbeddingFileError: not a whole one.
    """
    with open_residues(path) as file, RESIDUE_FILE.reading(path):
        return file.attrs.get(FEATURE)


def file_settings(file: h5py.File, path: Path, kind: FileKind = RESIDUE_FILE) -> dict:
    """Return the settings in the attributes of an open file of residues.

    Raises:
        EmbeddingFileError: there are none, or changed ones.
    """
    with kind.reading(path):
        stored = file.attrs.get(SETTINGS_ATTRIBUTE)
        metadata = {SETTINGS_KEY: stored.encode()} if isinstance(stored, str) else None  # damaged text has no UTF-8
    return from_metadata(metadata, kind, path)
