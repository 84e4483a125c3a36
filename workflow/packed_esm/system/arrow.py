"""Arrow arrays without pandas, the errors that pyarrow raises for damaged bytes, and damage that it does not notice.

`pyarrow.array` imports pandas, if it is installed, to see whether its argument is of pandas. An embed job has no other
use for pandas, whose import takes longer than writing the embeddings of a small proteome.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from .files import FileKind

# For damaged bytes Arrow raises an OSError without a number. Names and metadata are decoded as UTF-8 outside of Arrow.
ARROW_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


def array_of_numbers(values: np.ndarray) -> pa.Array:
    """Return an Arrow array of the same dtype as `values`, [n], and share its memory if it is contiguous."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def array_of_texts(values: Iterable[str]) -> pa.Array:
    """Return an Arrow array of strings."""
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def check_whole(table: pa.Table, kind: FileKind, path: Path) -> None:
    """Raise the error of a damaged file if a table has invalid offsets or texts, or a value is missing."""
    with kind.reading(path):
        table.validate(full=True)  # else changed offsets point anywhere in memory
    for name, column in zip(table.column_names, table.columns, strict=True):
        parts = column.chunks
        if pa.types.is_fixed_size_list(column.type):
            parts = [*parts, *(part.values for part in parts)]
        if any(part.null_count for part in parts):
            raise kind.damaged(path, f"values of its column {name} are missing")


def as_texts(values: Iterable[str] | pa.StringArray) -> pa.StringArray:
    """Return values as an Arrow array of strings; one that is an array already is not copied."""
    return values if isinstance(values, pa.Array) else array_of_texts(values)


def bytes_of_texts(texts: pa.StringArray) -> list[bytes]:
    """Return each text in UTF-8; texts of one length, as digests are, take a fraction of the time."""
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1] if len(texts) else ()
    lengths = np.diff(ends)
    if not len(texts) or not lengths[0] or (lengths != lengths[0]).any():
        return texts.cast(pa.binary()).to_pylist()
    return np.frombuffer(content, f"V{lengths[0]}", len(texts), ends[0]).tolist()
