"""Files of what a sequence has for each of its residues: HDF5, one dataset a sequence.

| feature | dataset |
|---|---|
| representations | [L, E], or [layers, L, E] where several layers are kept; float16 or float32 |
| logits | float32 [L, 33], in the order of fair-esm's alphabet |
| contacts | float32 [L, L], probabilities |
| wildtype_marginals, masked_marginals | float32 [L, 20], log p(a) - log p(wild type), in the order of `amino_acids` |

In the file of a chunk a dataset is named by the digest of its sequence. The file of a sample names it by accession or
id (`names.dataset_names`), in UniProt's layout. It holds copies of the datasets, as they are compressed; by choice it
holds links to the files of the chunks.

Attributes of a dataset: `digest`, `feature`, and `checksum`, which `residue_checksum` makes of the values before they
are compressed. They go wherever the dataset goes; `residue_checks` compares them. Marginals have `amino_acids`, the
letters of their columns. In the file of a sample a copy has
`original_id` too, the id of its record.
"""

import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import xxhash

from ..errors import EmbeddingFileError
from ..outputs.table import RESIDUES
from ..system.files import FileKind
from .hdf5 import new_hdf5
from .settings import SETTINGS_KEY, from_metadata, to_metadata

# What h5py raises for bytes that make no sense; an OSError of HDF5's own has no number.
RESIDUE_FILE = FileKind(
    "HDF5 file of residues", (OSError, KeyError, RuntimeError, TypeError, ValueError), EmbeddingFileError
)

BLOCK_BYTES = 4 * 2**20  # of a dataset, compressed as one
WAITING_BYTES = 64 * 2**20  # of datasets that wait to be written
SETTINGS_ATTRIBUTE = SETTINGS_KEY.decode()
DIGEST, CHECKSUM, FEATURE = "digest", "checksum", "feature"  # attributes of a dataset, the last of a file too
COLUMNS = "amino_acids"  # attribute of a dataset of marginals
ORIGINAL_ID = "original_id"  # attribute of a dataset in the file of a sample


@dataclass(frozen=True)
class _Waiting:
    """A dataset that waits to be written, its blocks as they are compressed: (offset, bytes) each."""

    feature: str
    digest: str
    checksum: int
    shape: tuple[int, ...]
    dtype: np.dtype
    block_shape: tuple[int, ...]
    blocks: list[tuple[tuple[int, ...], Future]]

    def is_ready(self) -> bool:
        """Return whether all its blocks are compressed."""
        return all(block.done() for _, block in self.blocks)


class ResidueWriter:
    """Write the features of sequences as they come; a context manager that renames the files at the end.

    Blocks are compressed by threads of its own (HDF5's gzip filter would hold up everything else), and written in the
    order in which they came. The checksum in each block's zlib stream is checked by whoever reads it.

    Args:
        paths: {feature: path}, names of `outputs.table.RESIDUES`.
        threads: that compress.
    """

    def __init__(self, paths: Mapping[str, Path], threads: int = 1) -> None:
        self._paths = dict(paths)
        self._thread_count = max(1, threads)
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0

    def __enter__(self) -> "ResidueWriter":
        self._stack = ExitStack()
        self._files = {feature: self._stack.enter_context(new_hdf5(path)) for feature, path in self._paths.items()}
        self._threads = self._stack.enter_context(ThreadPoolExecutor(self._thread_count))
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)

    def restart(self) -> None:
        """Throw away what was written."""
        self._waiting.clear()
        self._waiting_bytes = 0
        for file in self._files.values():
            for digest in list(file):
                del file[digest]

    def write(self, digest: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Take the features of one sequence, {feature: dataset}; its digest names the datasets."""
        for feature, array in arrays.items():
            checksum = residue_checksum(digest, array)
            blocks = [(offset, self._threads.submit(_deflated, block)) for offset, block in _blocks(array)]
            # Not the array: what is compressed may go.
            self._waiting.append(
                _Waiting(feature, digest, checksum, array.shape, array.dtype, block_shape(array), blocks)
            )
            self._waiting_bytes += array.nbytes
        while self._waiting and (self._waiting_bytes > WAITING_BYTES or self._waiting[0].is_ready()):
            self._write_oldest()

    def copy(self, datasets: Mapping[str, h5py.Dataset]) -> None:
        """Take the datasets of one sequence from other files, {feature: dataset}, as they are compressed."""
        for feature, dataset in datasets.items():
            copy_dataset(dataset, self._files[feature], dataset.attrs[DIGEST])

    def remove(self, digest: str) -> None:
        """Remove what was copied of one sequence."""
        for file in self._files.values():
            if digest in file:
                del file[digest]

    def checksum(self, feature: str, digest: str) -> int:
        """Return the checksum of a dataset that was taken."""
        self._write_waiting()
        return int(self._files[feature][digest].attrs[CHECKSUM])

    def values(self, feature: str, digest: str) -> np.ndarray:
        """Return the values of a dataset that was taken."""
        self._write_waiting()
        return self._files[feature][digest][...]

    def finish(self, settings: dict) -> None:
        """Write what still waits, and the settings that determine the content."""
        self._write_waiting()
        for feature, file in self._files.items():
            file.attrs[SETTINGS_ATTRIBUTE] = to_metadata(settings)[SETTINGS_KEY].decode()
            file.attrs[FEATURE] = feature

    def _write_waiting(self) -> None:
        while self._waiting:
            self._write_oldest()

    def _write_oldest(self) -> None:
        one = self._waiting.popleft()
        dataset = self._files[one.feature].create_dataset(
            one.digest,
            one.shape,
            one.dtype,
            chunks=one.block_shape,
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
        for offset, block in one.blocks:
            dataset.id.write_direct_chunk(offset, block.result())
        dataset.attrs[DIGEST] = one.digest
        dataset.attrs[CHECKSUM] = np.uint64(one.checksum)
        dataset.attrs[FEATURE] = one.feature
        if RESIDUES[one.feature].amino_acids:
            dataset.attrs[COLUMNS] = RESIDUES[one.feature].amino_acids
        self._waiting_bytes -= dataset.nbytes


def copy_dataset(source: h5py.Dataset, target: h5py.Group, name: str, original_id: str | None = None) -> None:
    """Copy a dataset of residues with its attributes; its blocks stay compressed, and few are in memory at a time.

    Args:
        source: in another file.
        target: where to.
        name: of the copy.
        original_id: of the record that the copy is for; None where it is for all of one sequence.

    Raises:
        EmbeddingFileError: blocks that are not there.
    """
    with RESIDUE_FILE.reading(Path(source.file.filename)):
        target.copy(source, target, name)  # H5Ocopy, which leaves the blocks as they are
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


def _blocks(array: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yield (offset, block) of all blocks; the last one is filled up with zeros, as HDF5 wants it."""
    shape = block_shape(array)
    for place in block_slices(array):
        part = array[place]
        if part.shape != shape:
            part = np.pad(part, [(0, step - size) for size, step in zip(part.shape, shape, strict=True)])
        yield tuple(one.start for one in place), part


def _deflated(block: np.ndarray) -> bytes:
    """Return a block as HDF5's filters shuffle and gzip would leave it."""
    # Both let go of the interpreter, so that threads work side by side; tobytes() would not.
    planes = np.ascontiguousarray(np.ascontiguousarray(block).view(np.uint8).reshape(-1, block.itemsize).T)
    return zlib.compress(planes, 1)


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
