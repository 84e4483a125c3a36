"""New HDF5 files that a full disk does not bring down."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from ..system.files import replacing


class _Handle(io.FileIO):
    """A file of which the first write that fails is an error, and all later ones are taken for done.

    HDF5 writes once more to close; a failure then, in a file that it opened by name, ends the process in a crash.
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
    """Yield a new HDF5 file to write to; it stands under its name when the block has succeeded.

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
