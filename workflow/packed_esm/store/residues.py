"""Files of what a sequence has for each of its residues: HDF5, one dataset a sequence.

| feature | dataset |
|---|---|
| representations | [L, E], or [layers, L, E] where several layers are kept |
| logits | [L, 33], in the order of fair-esm's alphabet (ESM C: [L, 64]) |
| contacts | [L, L], probabilities; or the upper triangle, [L (L + 1) / 2] |
| wildtype_marginals, masked_marginals | [L, 20], log p(a) - log p(wild type), in the order of `amino_acids` |

They are float32 or float16; representations may be int8 with scales. `outputs.forms.Form` has the definitions.

In the file of a chunk a dataset is named by the digest of its sequence. The file of a sample names it by accession or
id (`names.dataset_names`), in UniProt's layout. It holds copies of the datasets; by choice it holds links to the files
of the chunks.

A dataset is not compressed: gzip makes float16 values some 10 % smaller and writes at a twentieth of the rate
(tests/benchmarks/storage.py). Any HDF5 library reads it.

Attributes of a dataset: `digest`, `feature`, and `checksum`, which `residue_checksum` makes of the values as they come
from the model. int8 values have `scale`. Marginals have `amino_acids`, the letters of their columns. A copy keeps them;
`residue_checks` compares them. In the file of a sample a copy also has `original_id`, the id of its record.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import xxhash

from ..errors import EmbeddingFileError, NonFiniteError
from ..outputs.forms import Form, StoredValues
from ..outputs.table import RESIDUES
from ..system.files import FileKind
from .hdf5 import new_dataset, new_hdf5, write_attribute
from .settings import SETTINGS_KEY, from_metadata, to_metadata
from .write_back import WriteBack

# What h5py raises for bytes that make no sense; an OSError of HDF5's own has no number.
RESIDUE_FILE = FileKind(
    "HDF5 file of residues", (OSError, KeyError, RuntimeError, TypeError, ValueError), EmbeddingFileError
)

BLOCK_BYTES = 4 * 2**20  # of a dataset, in memory at the same time to be checked
MOST_THREADS = 4  # that write; more were not measured
WAITING_BYTES = 256 * 2**20  # of datasets that wait to be written
FORMAT = {"libver": ("v108", "v108")}  # of HDF5 1.8: an attribute, as the scales of many layers, may exceed 64 KiB
SETTINGS_ATTRIBUTE = SETTINGS_KEY.decode()
DIGEST, CHECKSUM, FEATURE = "digest", "checksum", "feature"  # attributes of a dataset, the last of a file too
COLUMNS = "amino_acids"  # attribute of a dataset of marginals
SCALE = "scale"  # attribute of a dataset of int8
ORIGINAL_ID = "original_id"  # attribute of a dataset in the file of a sample


@dataclass(frozen=True)
class _Waiting:
    """A dataset whose values a thread writes.

    Attributes:
        size: in bytes.
        checksum, scale: attributes of the dataset.
        written: the work of the thread, which returns their values.
    """

    size: int
    checksum: h5py.h5a.AttrID
    scale: h5py.h5a.AttrID | None
    written: Future


class _Restart(Exception):  # noqa: N818 - no error
    """Ends the block of a new file, so that it is discarded."""


class ResidueWriter:
    """Write the features of sequences; a context manager that renames the files at the end.

    HDF5 allots the place of a dataset in the file. Threads hash its values and write them there, while the caller
    computes the next ones; HDF5 itself would let only one thread write at a time.

    Args:
        paths: {feature: path}, names of `outputs.table.RESIDUES`.
        forms: {feature: how its values are stored}.
        threads: that write, at most MOST_THREADS.
    """

    def __init__(self, paths: Mapping[str, Path], forms: Mapping[str, Form], threads: int = 1) -> None:
        self._paths, self._forms = dict(paths), dict(forms)
        self._thread_count = max(1, min(threads, MOST_THREADS))
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0

    def __enter__(self) -> "ResidueWriter":
        self._stack = ExitStack()
        self._open()
        self._stack.push(lambda *error: self._opened.__exit__(*error))
        self._threads = ThreadPoolExecutor(self._thread_count)
        self._stack.callback(self._threads.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)

    def restart(self) -> None:
        """Discard the datasets: begin with new files, because HDF5 would fill the gaps of removed datasets."""
        self._wait()
        if any(len(file) for file in self._files.values()):
            restart = _Restart()
            self._opened.__exit__(_Restart, restart, None)
            self._open()

    def _open(self) -> None:
        self._opened = ExitStack()
        opened = {feature: new_hdf5(path, **FORMAT) for feature, path in self._paths.items()}
        self._files = {feature: self._opened.enter_context(file) for feature, file in opened.items()}
        self._write_back = self._opened.enter_context(WriteBack(file.descriptor for file in self._files.values()))

    def write(self, digest: str, arrays: Mapping[str, np.ndarray], name: str) -> None:
        """Take the features of one sequence.

        The arrays must not change afterwards. The call waits while more than WAITING_BYTES are not written yet.

        Args:
            digest: of the sequence; it names the datasets.
            arrays: {feature: values}, [..., L, width] or [L, L].
            name: of the sequence, for messages.

        Raises:
            NonFiniteError: a value of this or an earlier sequence is beyond the dtype, or not finite.
        """
        for feature, array in arrays.items():
            file, form = self._files[feature], self._forms[feature]
            dataset = new_dataset(file, digest, form.shape(array.shape), np.dtype(form.dtype))
            write_attribute(dataset, DIGEST, digest)
            write_attribute(dataset, FEATURE, feature)
            if amino_acids := RESIDUES[feature].amino_acids:
                write_attribute(dataset, COLUMNS, amino_acids)
            # The places of what the thread will know, so that equal work gives equal bytes.
            checksum = write_attribute(dataset, CHECKSUM, np.uint64(0))
            shape = form.scale_shape(array.shape)
            scale = write_attribute(dataset, SCALE, np.zeros(shape, np.float32)) if shape else None
            place = _Place(file.descriptor, dataset.get_offset(), feature, name)
            written = self._threads.submit(_write_values, digest, array, form, place)
            self._waiting.append(_Waiting(array.nbytes, checksum, scale, written))
            self._waiting_bytes += array.nbytes
        while self._waiting and (self._waiting_bytes > WAITING_BYTES or self._waiting[0].written.done()):
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

    def has(self, feature: str, digest: str, values: StoredValues) -> bool:
        """Return whether a dataset has these values."""
        self._wait()
        return int(self._files[feature][digest].attrs[CHECKSUM]) == residue_checksum(digest, values)

    def values(self, feature: str, digest: str) -> StoredValues:
        """Return the values of a dataset."""
        self._wait()
        return stored_values(self._files[feature][digest])

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
        oldest = self._waiting.popleft()
        self._waiting_bytes -= oldest.size
        checksum, scale = oldest.written.result()
        oldest.checksum.write(np.array(checksum, np.uint64))
        if oldest.scale is not None:
            oldest.scale.write(scale)
        self._write_back.add(oldest.size)


@dataclass(frozen=True)
class _Place:
    """Where the values of a dataset go.

    Attributes:
        file: descriptor.
        offset: in the file, in bytes.
        feature: name of RESIDUES.
        sequence: its name, for messages.
    """

    file: int
    offset: int
    feature: str
    sequence: str


def _write_values(digest: str, values: np.ndarray, form: Form, place: _Place) -> tuple[int, np.ndarray | None]:
    """Write the values of a sequence, [..., L, width] or [L, L], in their form; return the checksum and the scale."""
    stored = form.stored(values)
    _check_finite(stored, place)
    offset = place.offset
    for block in np.ndindex(stored.values.shape[:-2]):
        rest = memoryview(np.ascontiguousarray(stored.values[block]).reshape(-1).view(np.uint8))
        while rest:
            written = os.pwrite(place.file, rest, offset)
            offset, rest = offset + written, rest[written:]
    return residue_checksum(digest, stored), stored.scale


def _check_finite(stored: StoredValues, place: _Place) -> None:
    """Raise NonFiniteError for a value that is not finite."""
    name = f"{place.sequence}: {place.feature}"
    if stored.values.dtype == np.float16 and not _is_finite(stored.values):
        key = "include_dtype" if RESIDUES[place.feature].in_include else "per_residue"
        raise NonFiniteError(f"{name} has a value beyond float16; use {key}: float32")
    values = stored.values if stored.scale is None else stored.scale
    if values.dtype == np.float32 and not np.isfinite(values).all():
        raise NonFiniteError(f"{name} has a value that is not finite; use dtype: fp32, or check the checkpoint")


def _is_finite(values: np.ndarray) -> bool:
    """Return whether all values, float16, are finite; np.isfinite takes eight times as long."""
    without_sign = values.view(np.uint16) << 1
    return bool(without_sign.max() < 0xF800)  # the exponent of infinity and NaN


def stored_values(dataset: h5py.Dataset) -> StoredValues:
    """Return the values of a dataset."""
    return StoredValues(dataset[...], dataset.attrs.get(SCALE))


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


def residue_checksum(digest: str, stored: StoredValues) -> int:
    """Return the XXH3-64 (https://xxhash.com) of a sequence's digest, and of shape, dtype and values of its dataset.

    The values are hashed in C order, as they are stored, and then the scale; of a dataset of HDF5 (as `stored.values`)
    a block is in memory at a time. The digest is part of it, so that two datasets that change places are noticed.
    """
    values = stored.values
    state = xxhash.xxh3_64(f"{digest} {values.shape} {values.dtype.str}".encode())
    for place in block_slices(values):
        state.update(np.ascontiguousarray(values[place]))
    if stored.scale is not None:
        state.update(np.ascontiguousarray(stored.scale, "<f4"))
    return state.intdigest()


def block_shape(values: np.ndarray | h5py.Dataset) -> tuple[int, ...]:
    """Return the shape of the blocks of [..., L, width]: whole rows, of one layer; or of [n]."""
    if values.ndim == 1:
        return (max(1, min(values.size, BLOCK_BYTES // values.dtype.itemsize)),)
    *leading, rows, width = values.shape
    at_once = max(1, min(rows, BLOCK_BYTES // (width * values.dtype.itemsize)))
    return (*(1 for _ in leading), at_once, width)


def block_slices(values: np.ndarray | h5py.Dataset) -> Iterator[tuple[slice, ...]]:
    """Yield where the blocks of [..., L, width], or [n], lie, in C order; the last ones may reach beyond the end."""
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
