"""Write HDF5 files; a full disk raises an error and does not crash the process."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5p, h5s, h5t

from ..system.files import replacing


class _Handle(io.FileIO):
    """A file whose first failed write raises an error; later writes do nothing.

    HDF5 writes again when it closes a file. If that fails in a file that HDF5 opened by name, the process crashes.
    """

    error: BaseException | None = None  # also the SystemExit of a signal

    def write(self, data: Any) -> int:  # noqa: ANN401
        try:
            view, written = memoryview(data).cast("B"), 0
            while written < len(view):
                written += super().write(view[written:])
        except BaseException as error:
            if not self.error:
                self.error = error
                raise
        return len(data)


# The functions of h5py for datasets and attributes take five times as long as those of its low level, which these use.
_SCALAR = h5s.create(h5s.SCALAR)
_TEXT = h5py.string_dtype()
_NAME_IN_UTF8 = h5p.create(h5p.LINK_CREATE)
_NAME_IN_UTF8.set_char_encoding(h5t.CSET_UTF8)
_ALLOTTED = h5p.create(h5p.DATASET_CREATE)
_ALLOTTED.set_alloc_time(h5d.ALLOC_TIME_EARLY)
_ALLOTTED.set_fill_time(h5d.FILL_TIME_NEVER)
_ALLOTTED.set_obj_track_times(False)  # so that equal work gives equal bytes


def new_dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> h5d.DatasetID:
    """Return a new dataset without values, which has its place in the file already (`get_offset`)."""
    space, link = h5s.create_simple(shape), None if name.isascii() else _NAME_IN_UTF8
    return h5d.create(file.id, name.encode(), h5t.py_create(dtype, logical=True), space, _ALLOTTED, link)


def write_attribute(dataset: h5d.DatasetID, name: str, value: str | np.generic | np.ndarray) -> h5a.AttrID:
    """Write a new attribute, text or numbers, and return it; as `h5py.Dataset.attrs[name] = value` does."""
    array = np.array(value, _TEXT if isinstance(value, str) else value.dtype)
    space = h5s.create_simple(array.shape) if array.ndim else _SCALAR
    attribute = h5a.create(dataset, name.encode(), h5t.py_create(array.dtype, logical=True), space)
    attribute.write(array)
    return attribute


class NewFile(h5py.File):
    """A new HDF5 file.

    Attributes:
        descriptor: of the open file.
    """

    descriptor: int


@contextmanager
def new_hdf5(path: Path, **options: Any) -> Iterator[NewFile]:  # noqa: ANN401
    """Yield a new HDF5 file; it gets its name when the block has succeeded.

    Args:
        path: of the file.
        options: of h5py.File.

    Raises:
        OSError: a full disk among others; the message names `path`.
    """
    with replacing(path) as temporary, _Handle(temporary, "w+") as handle:
        try:
            with NewFile(handle, "w", **options) as file:
                file.descriptor = handle.fileno()
                yield file
        finally:
            if handle.error:
                raise handle.error
