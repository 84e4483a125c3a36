"""What colours the proteins of a plot: a column of a metadata sheet, a key of their descriptions, or the sample."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import SheetError
from ..system.sheets import read_sheet

log = logging.getLogger(__name__)

NO_VALUE = ("", "NA", "NaN", "nan")  # in a column of numbers


@dataclass(frozen=True)
class Colouring:
    """A value for each protein: text (object [n]), or numbers (float64 [n], nan where there is none)."""

    name: str
    values: np.ndarray

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.values.dtype.kind == "f"


def check_metadata(path: Path) -> None:
    """Raise what is wrong with a metadata sheet, as far as its header tells.

    Raises:
        ValueError: no such file, or no column `id`.
    """
    if not path.exists():
        raise SheetError(f"metadata: there is no sheet {path}; give a TSV with the column id and any others")
    columns = read_sheet(path, rows=0).columns.tolist()
    if "id" not in columns:
        raise SheetError(f"{path}: no column `id` in its header ({', '.join(columns)}); rename the one with the ids")


def read_metadata(path: Path) -> pd.DataFrame:
    """Return a metadata sheet, every cell as text.

    Raises:
        ValueError: no such file, no column `id`, or an id (of a sample, where there is a column `sample`) that repeats.
    """
    check_metadata(path)
    sheet = read_sheet(path)
    keys = _keys(sheet)
    repeated = sheet[sheet.duplicated(keys)]
    if len(repeated):
        named = ", ".join(f"{key} {repeated.iloc[0][key]!r}" for key in keys)
        raise SheetError(
            f"{path}: {named} stands in more than one row ({len(repeated)} rows too many); keep one of each"
        )
    return sheet


def choose_colouring(proteins: pd.DataFrame, color_by: str, metadata: pd.DataFrame | None = None) -> Colouring:
    """Return the values of `color_by` for `proteins`: of a metadata column, else of a key in the descriptions.

    Where neither has it, or `color_by` is empty or `sample`, return the samples. The log counts what did not match.

    Args:
        proteins: rows of the manifest.
        color_by: a column of `metadata`, or a key.
        metadata: of `read_metadata`.
    """
    if metadata is not None:
        keys = _keys(metadata)
        known = proteins[keys].merge(metadata, on=keys, how="left", indicator=True, validate="many_to_one")
        _log_matches(proteins[keys], metadata, known["_merge"] == "both")
        if color_by in metadata.columns.difference(keys):
            return Colouring(color_by, _typed(known[color_by].fillna("").to_numpy(object), color_by))
    wanted = "" if color_by == "sample" else color_by
    values = values_of_key(proteins["description"].tolist(), wanted)
    if any(values):
        return Colouring(color_by, _named(values, color_by))
    if wanted and len(proteins):
        log.warning(
            "color_by: no record has %r as a column of the metadata or as a key=value of its description; "
            "coloured by sample",
            color_by,
        )
    return Colouring("sample", proteins["sample"].to_numpy(object))


def values_of_key(descriptions: Sequence[str], key: str) -> list[str]:
    """Return the value of `key=` in each description, empty where there is none."""
    if not key:
        return [""] * len(descriptions)
    # A value with spaces ends where the next key begins, as in UniProt's `OS=Homo sapiens OX=9606`.
    pattern = re.compile(rf"(?:^|\s){re.escape(key)}=(.*?)(?=\s\w+=|$)")
    return [match.group(1) if (match := pattern.search(text)) else "" for text in descriptions]


def _keys(metadata: pd.DataFrame) -> list[str]:
    return ["sample", "id"] if "sample" in metadata else ["id"]


def _typed(values: np.ndarray, name: str) -> np.ndarray:
    """Return the cells of a column as numbers if all that have a value are finite ones, else as text."""
    numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy(np.float64, copy=True)
    numbers[~np.isfinite(numbers)] = np.nan
    empty = np.isin(values.astype(str), NO_VALUE)
    if np.isfinite(numbers[~empty]).all() and not empty.all():
        return numbers
    return _named(values, name)


def _named(values: Sequence[str], name: str) -> np.ndarray:
    return np.array([value or f"no {name}" for value in values], dtype=object)


def _log_matches(proteins: pd.DataFrame, metadata: pd.DataFrame, known: pd.Series) -> None:
    """Log how many proteins have a row of the sheet, and how many rows belong to none."""
    keys = list(proteins)
    unused = ~metadata.set_index(keys).index.isin(proteins.set_index(keys).index)
    log.info("metadata: %d of %d proteins have a row", int(known.sum()), len(proteins))
    if unused.any():
        first = ", ".join(metadata.loc[unused, keys].iloc[0])
        log.warning(
            "metadata: %d of %d rows belong to no embedded protein (first: %s)", unused.sum(), len(unused), first
        )
