"""Metadata of the proteins: match the rows of a user's sheet to the records, by id or accession."""

import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import SheetError
from ..system.sheets import read_sheet
from .accessions import accession_of

log = logging.getLogger(__name__)

NAMES = ("id", "accession", "Entry")  # the first of these columns has the keys of the rows; UniProt calls it Entry
NO_VALUE = ("", "NA", "NaN", "nan")  # in a column of numbers
# 007 is not a number: it would lose its zeros.
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
SHOWN_COLUMNS, SHOWN_IDS = 10, 2  # in a message


@dataclass(frozen=True)
class Sheet:
    """A metadata sheet.

    Attributes:
        path: of the sheet.
        rows: of the sheet, every cell as text.
        name: the column with the key of each row, one of NAMES.
    """

    path: Path
    rows: pd.DataFrame
    name: str

    @property
    def keys(self) -> pd.DataFrame:
        """`id` of each row, and `sample` before it if the sheet has that column; all rows differ."""
        samples = ["sample"] if "sample" in self.rows else []
        return self.rows[[*samples, self.name]].rename(columns={self.name: "id"})

    @property
    def columns(self) -> list[str]:
        """The columns with metadata: all but `sample` and the key."""
        return [column for column in self.rows.columns if column not in ("sample", self.name)]


@dataclass(frozen=True)
class Metadata:
    """A metadata sheet, and the row of each protein.

    Attributes:
        sheet: the sheet.
        places: index of the row of each protein, from 0; -1 for a protein without one. int64 [n].
    """

    sheet: Sheet
    places: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """Return the cell of each protein in a column, object [n]; empty for a protein without a row."""
        cells = np.append(self.sheet.rows[name].to_numpy(object), "")
        return cells[self.places]

    def values(self, name: str) -> np.ndarray:
        """Return the cells of a column: as numbers, float64 [n], nan for empty ones, if all others are numbers.

        A column stays text if it has an integer that a float64 cannot hold: it is an identifier.
        """
        cells = self.column(name)
        given = set(cells) - set(NO_VALUE)
        if not given or not all(map(_is_number, given)):
            return cells
        return np.array([math.nan if cell in NO_VALUE else float(cell) for cell in cells])

    def matches(self) -> str:
        """Return a sentence on how many proteins have a row, and how many rows belong to none."""
        found, unused = self.places >= 0, np.setdiff1d(np.arange(len(self.sheet.rows)), self.places)
        text = f"{found.sum():,} of {len(found):,} proteins matched by `{self.sheet.name}` of {self.sheet.path}"
        if len(unused):
            first = ", ".join(self.sheet.keys.iloc[unused[0]])
            text += f"; {len(unused):,} of its {len(self.sheet.rows):,} rows belong to none of them (first: {first})"
        return text


def check_metadata(path: Path) -> None:
    """Check the header of a metadata sheet.

    Raises:
        SheetError: no such file, or none of the columns NAMES.
    """
    if not path.exists():
        raise SheetError(f"metadata: there is no sheet {path}; give a TSV with the column id and any others")
    columns = read_sheet(path, rows=0).columns.tolist()
    if not set(NAMES) & set(columns):
        shown = ", ".join(columns[:SHOWN_COLUMNS]) + (", ..." if len(columns) > SHOWN_COLUMNS else "")
        raise SheetError(
            f"{path}: no column `id` in its header ({shown}); rename the one with the ids, or the one with accessions "
            f"to `accession`, or `Entry`, as UniProt calls it"
        )


def read_metadata(path: Path) -> Sheet:
    """Return a metadata sheet.

    Raises:
        SheetError: no such file, none of the columns NAMES, or a repeated id (in a sample, if the sheet has samples).
    """
    check_metadata(path)
    rows = read_sheet(path)
    sheet = Sheet(path, rows, next(name for name in NAMES if name in rows))
    repeated = sheet.keys[sheet.keys.duplicated()]
    if len(repeated):
        named = ", ".join(f"{key} {repeated.iloc[0][key]!r}" for key in repeated)
        raise SheetError(f"{path}: {named} is in more than one row ({len(repeated)} rows too many); keep one of each")
    return sheet


def match_metadata(proteins: pd.DataFrame, path: Path) -> Metadata:
    """Read a sheet and find the row of each protein: by its id, or else by its accession.

    Args:
        proteins: rows of the manifest.
        path: of the sheet; it may have whole ids (`sp|P12345|AATM_RABIT`) or accessions (`P12345`).

    Raises:
        SheetError: a mistake in the sheet, or no protein has a row.
    """
    sheet = read_metadata(path)
    theirs, ours = sheet.keys, proteins[list(sheet.keys)]
    places = _places(theirs, ours)
    found = Metadata(sheet, np.where(places < 0, _places(_with_accessions(theirs), _with_accessions(ours)), places))
    if len(proteins) and (found.places < 0).all():
        raise SheetError(
            f"{path}: 0 of {len(proteins):,} proteins matched: its column `{sheet.name}` begins with {_first(theirs)}, "
            f"the ids of the proteins with {_first(ours)}; give each protein's id, or its accession, in that column"
        )
    log.log(logging.INFO if (found.places >= 0).all() else logging.WARNING, "metadata: %s", found.matches())
    return found


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number that keeps its digits as float64."""
    if not NUMBER.fullmatch(cell) or not math.isfinite(float(cell)):
        return False
    return not cell.lstrip("+-").isdigit() or int(float(cell)) == int(cell)


def _places(rows: pd.DataFrame, wanted: pd.DataFrame) -> np.ndarray:
    """Return the index of the row that equals each of `wanted`, -1 if none or several do."""
    once = np.flatnonzero(~rows.duplicated(keep=False))
    numbers = pd.MultiIndex.from_frame(rows.iloc[once]).get_indexer(pd.MultiIndex.from_frame(wanted))
    return np.append(once, -1)[numbers]


def _with_accessions(keys: pd.DataFrame) -> pd.DataFrame:
    return keys.assign(id=[accession_of(name) for name in keys["id"]])


def _first(keys: pd.DataFrame) -> str:
    rows = [", ".join(row) for row in keys.head(SHOWN_IDS).to_numpy()]
    return " and ".join(map(repr, rows)) or "nothing"
