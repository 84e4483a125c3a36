"""Read tab-separated sheets of users as text, so that `NA` and `001` keep their letters."""

import zlib
from collections import Counter
from pathlib import Path

import pandas as pd

from ..errors import SheetError
from .files import open_text


def read_sheet(path: Path, rows: int | None = None) -> pd.DataFrame:
    """Return a sheet with a header, plain or gzip, or only its first `rows`. Lines that begin with `#` are comments.

    White space around cells, empty cells after the last named column, and a byte order mark are ignored, because
    spreadsheets and editors add them. The index of the table has the line numbers.

    Raises:
        SheetError: not UTF-8, two columns with one name, or a row with more or fewer cells than the header.
    """
    cells: dict[int, list[str]] = {}
    header: list[str] = []
    try:
        with open_text(path) as handle:
            for number, line in enumerate(handle, 1):
                line = line.removeprefix("\ufeff") if number == 1 else line
                if line.startswith("#") or not line.strip():
                    continue
                row = [cell.strip() for cell in line.split("\t")]
                if not header:
                    header = _without_empty_end(row, 0)
                    continue
                row = _without_empty_end(row, len(header))
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


def _without_empty_end(row: list[str], least: int) -> list[str]:
    """Return a row without the empty cells at its end, but with at least `least` cells."""
    end = len(row)
    while end > least and not row[end - 1]:
        end -= 1
    return row[:end]
