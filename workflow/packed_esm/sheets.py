"""Tab-separated sheets that users write: read as text, so that `NA` and `001` stay what they are."""

import zlib
from pathlib import Path

import pandas as pd

from .fasta import open_text


def read_sheet(path: Path, rows: int | None = None) -> pd.DataFrame:
    """Return a sheet with a header, plain or gzip; of `rows` only the first. Lines that begin with `#` are comments.

    Raises:
        ValueError: not UTF-8, two columns of one name, or a row that has not as many cells as the header.
    """
    cells: list[list[str]] = []
    try:
        with open_text(path) as handle:
            for number, line in enumerate(handle, 1):
                if line.startswith("#") or not line.strip():
                    continue
                cells.append(line.rstrip("\r\n").split("\t"))
                if len(cells[-1]) != len(cells[0]):
                    raise ValueError(
                        f"{path}, line {number}: the row {line.strip()[:60]!r} has not as many cells as the header "
                        f"({len(cells[-1])}, not {len(cells[0])}); separate them by tabs"
                    )
                if rows is not None and len(cells) > rows:
                    break
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not UTF-8 text, plain or gzip ({error}); save it as such") from error
    header, *body = cells or [[]]
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: two columns have the same name, of {', '.join(header)}; rename one")
    return pd.DataFrame(body, columns=header, dtype=str)
