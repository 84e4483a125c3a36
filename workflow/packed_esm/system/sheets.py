"""Tab-separated sheets that users write: read as text, so that `NA` and `001` stay what they are."""

import zlib
from collections import Counter
from pathlib import Path

import pandas as pd

from ..errors import SheetError
from .files import open_text


def read_sheet(path: Path, rows: int | None = None) -> pd.DataFrame:
    """Return a sheet with a header, plain or gzip; of `rows` only the first. Lines that begin with `#` are comments.

    The index has the numbers of the lines.

    Raises:
        ValueError: not UTF-8, two columns of one name, or a row that has not as many cells as the header.
    """
    cells: dict[int, list[str]] = {}
    header: list[str] = []
    try:
        with open_text(path) as handle:
            for number, line in enumerate(handle, 1):
                if line.startswith("#") or not line.strip():
                    continue
                row = line.rstrip("\r\n").split("\t")
                if not header:
                    header = row
                    continue
                if len(row) != len(header):
                    raise SheetError(
                        f"{path}, line {number}: the row {line.strip()[:60]!r} has not as many cells as the header "
                        f"({len(row)}, not {len(header)}); cells are separated by one tab"
                    )
                if rows is not None and len(cells) == rows:
                    break
                cells[number] = row
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise SheetError(f"{path}: cannot be read ({error}); give a TSV of UTF-8 text, plain or gzip") from error
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise SheetError(f"{path}: two columns {repeated[0]!r}; rename one")
    return pd.DataFrame.from_dict(cells, orient="index", columns=header, dtype=str)
