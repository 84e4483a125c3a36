"""Write HDF5 files; a full disk raises an error and does not crash the process."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

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


@contextmanager
def new_hdf5(path: Path, **options: Any) -> Iterator[h5py.File]:  # noqa: ANN401
    """Yield a new HDF5 file; it gets its name when the block has succeeded.

    Args:
        path: of the file.
        options: of h5py.File.

    Raises:
        OSError: a full disk among others; the message names `path`.
    """
    with replacing(path) as temporary, _Handle(temporary, "w+") as handle:
        try:
            with h5py.File(handle, "w", **options) as file:
                yield file
        finally:
            if handle.error:
                raise handle.error
