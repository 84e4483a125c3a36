"""Datasets of HDF5 files by the low level of h5py: their attributes, and values read where they lie in the file."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5i, h5o, h5s, h5t

from .hdf5 import NewFile, new_dataset

_type_of = cache(h5t.py_create)


class StoredDataset:
    """A dataset of a file that is open to read; `residues.residue_checksum` reads it as it reads an h5py.Dataset.

    Plain values are read from their place in the file, without HDF5, so that a thread can read them while another one
    uses HDF5. What is read also goes into the copy, if there is one (`copy_values_to`).

    Attributes:
        id: of h5py's low level.
        shape, dtype, ndim, size, nbytes: of the values.
        offset: where they begin in the file, in bytes; None unless they lie there one after the other, as in NumPy.
        file_name: of the file that has them; not the one that was asked for them, if a link leads to another.
    """

    def __init__(self, dataset: h5d.DatasetID) -> None:
        stored_type, file = dataset.get_type(), h5i.get_file_id(dataset)
        self.id, self.shape, self.dtype = dataset, dataset.shape, stored_type.dtype
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self.nbytes = self.size * self.dtype.itemsize
        # None too where they are compressed, in the header, or in another file.
        self.offset = dataset.get_offset() if _type_of(self.dtype) == stored_type else None
        self.file_name = file.name.decode("utf-8", "surrogateescape")
        self._descriptor, self._copy = file.get_vfd_handle(), None

    @cached_property
    def stored_attributes(self) -> list["StoredAttribute"]:
        """All attributes, by name."""
        return [StoredAttribute(h5a.open(self.id, index=i)) for i in range(h5a.get_num_attrs(self.id))]

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """The values of the attributes."""
        return {attribute.name.decode(): attribute.value for attribute in self.stored_attributes}

    def copy_values_to(self, file: int, offset: int) -> None:
        """Write all values that are read from now on into the copy, by the file's descriptor and the copy's place."""
        self._copy = file, offset

    def __getitem__(self, place: tuple[slice, ...]) -> np.ndarray:
        """Return a block in which the values lie one after the other in C order (`residues.block_slices`).

        Raises:
            UnreadableValuesError: bytes that are not there, or that cannot be inflated.
            OSError: the copy cannot be written: a full disk, for example.
        """
        if self.offset is None:
            with _reading():
                return h5py.Dataset(self.id)[place]
        shape = [min(x.stop, size) - x.start for x, size in zip(place, self.shape, strict=True)]
        start = int(np.ravel_multi_index([x.start for x in place], self.shape)) * self.dtype.itemsize
        with _reading():
            content = _read(self._descriptor, math.prod(shape) * self.dtype.itemsize, self.offset + start)
        if self._copy:
            file, offset = self._copy
            _write(file, memoryview(content), offset + start)
        return np.frombuffer(content, self.dtype).reshape(shape)


class UnreadableValuesError(Exception):
    """Values of a dataset that cannot be read."""


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UnreadableValuesError(str(error)) from error


class StoredAttribute:
    """An attribute as it is stored, of any type.

    Attributes:
        name: in UTF-8.
    """

    def __init__(self, attribute: h5a.AttrID) -> None:
        self.name, self._type, self._space = attribute.name, attribute.get_type(), attribute.get_space()
        self._dtype = self._type.dtype
        # As bytes, which nothing converts. Not text of any length: in memory that is a pointer.
        self._is_raw = not self._dtype.hasobject and self._dtype.itemsize == self._type.get_size()
        self._content = None
        if self._space.get_simple_extent_type() != h5s.NULL:
            shape = self._space.get_simple_extent_dims()
            self._content = np.empty(shape, f"V{self._dtype.itemsize}" if self._is_raw else self._dtype)
            attribute.read(self._content, self._type if self._is_raw else None)

    @property
    def value(self) -> Any:  # noqa: ANN401
        """Text as str, whether its length is fixed or not; else as h5py has it; None if it is empty."""
        if self._content is None:
            return None
        value = np.ndarray(self._content.shape, self._dtype, self._content)[()]
        # As h5py decodes text; a damaged file may have any bytes.
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value

    def write(self, dataset: h5d.DatasetID) -> None:
        """Write a copy to another dataset."""
        attribute = h5a.create(dataset, self.name, self._type, self._space)
        if self._content is not None:
            attribute.write(self._content, self._type if self._is_raw else None)


def open_dataset(file: h5py.File, name: str) -> StoredDataset | object | None:
    """Return a dataset of a file; another object if the name is that of one; None if nothing is there.

    Raises:
        KeyError: it is damaged.
    """
    try:
        found = h5o.open(file.id, name.encode())
    except KeyError:
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise
        return None  # also for a link to a file that is gone
    return StoredDataset(found) if isinstance(found, h5d.DatasetID) else found


def allot_copy(source: StoredDataset, target: NewFile, name: str) -> h5d.DatasetID:
    """Return a new dataset without attributes; it gets the values of a plain `source` as they are read there."""
    dataset = new_dataset(target, name, source.shape, source.dtype)
    source.copy_values_to(target.descriptor, dataset.get_offset())
    return dataset


def _read(file: int, size: int, offset: int) -> bytes:
    content = os.pread(file, size, offset)
    while len(content) < size:
        more = os.pread(file, size - len(content), offset + len(content))
        if not more:
            raise OSError(f"the file ends at byte {offset + len(content):,}")
        content += more
    return content


def _write(file: int, content: memoryview, offset: int) -> None:
    while content:
        count = os.pwrite(file, content, offset)
        content, offset = content[count:], offset + count
