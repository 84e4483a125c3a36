"""What pyarrow raises for bytes that make no sense, and a check for those that it reads without a word."""

from pathlib import Path

import pyarrow as pa

from .files import FileKind

# An OSError of Arrow's own, for such bytes, has no number. Names and metadata are decoded as UTF-8 outside of Arrow.
ARROW_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


def check_whole(table: pa.Table, kind: FileKind, path: Path) -> None:
    """Raise the error of a damaged file where offsets or texts of a table make no sense, or a value is missing."""
    with kind.reading(path):
        table.validate(full=True)  # else offsets that were changed point anywhere in memory
    for name, column in zip(table.column_names, table.columns, strict=True):
        parts = column.chunks
        if pa.types.is_fixed_size_list(column.type):
            parts = [*parts, *(part.values for part in parts)]
        if any(part.null_count for part in parts):
            raise kind.damaged(path, f"values of its column {name} are missing")
