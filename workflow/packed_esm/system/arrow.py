"""The errors that pyarrow raises for damaged bytes, and a check for damage that it does not notice."""

from pathlib import Path

import pyarrow as pa

from .files import FileKind

# For damaged bytes Arrow raises an OSError without a number. Names and metadata are decoded as UTF-8 outside of Arrow.
ARROW_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


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
