"""Colour the proteins of a plot by a column of a metadata sheet, a key of their descriptions, or the sample."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import SheetError
from ..store.names import uniprot_accession
from ..system.sheets import read_sheet

log = logging.getLogger(__name__)

NO_VALUE = ("", "NA", "NaN", "nan")  # in a column of numbers
UNIPROT_KEY = "Entry"  # the column of accessions in a sheet downloaded from UniProt
SHOWN_COLUMNS, SHOWN_IDS = 10, 2  # in a message
MAX_COLUMNS = 30  # of the sheet, on the page


@dataclass(frozen=True)
class Colouring:
    """A value for each protein: text (object [n]), or numbers (float64 [n], nan for a protein without one)."""

    name: str
    values: np.ndarray

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.values.dtype.kind == "f"

    def of(self, rows: np.ndarray) -> "Colouring":
        """Return the same of some of the proteins."""
        return Colouring(self.name, self.values[rows])


@dataclass(frozen=True)
class Metadata:
    """A metadata sheet, and the row of each protein.

    Attributes:
        path: of the sheet.
        rows: of the sheet, every cell as text; the keys are `id` and, in some sheets, `sample`.
        places: index of the row of each protein, from 0; -1 for a protein without one. int64 [n].
    """

    path: Path
    rows: pd.DataFrame
    places: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """Return the cell of each protein in a column, object [n]; empty for a protein without a row."""
        cells = np.append(self.rows[name].to_numpy(object), "")
        return cells[self.places]

    def columns(self) -> list[Colouring]:
        """Return what each column but the keys says of the proteins, in the order of the sheet, up to MAX_COLUMNS."""
        return [self.typed(name) for name in self._names()[:MAX_COLUMNS]]

    @property
    def left_out(self) -> int:
        """Number of columns beyond MAX_COLUMNS."""
        return max(0, len(self._names()) - MAX_COLUMNS)

    def _names(self) -> list[str]:
        return [name for name in self.rows.columns if name not in _keys(self.rows)]

    def typed(self, name: str) -> Colouring:
        """Return what a column says of the proteins."""
        return Colouring(name, _typed(self.column(name), name))

    def matches(self) -> str:
        """Return a sentence on how many proteins have a row, and how many rows belong to none."""
        found, unused = self.places >= 0, np.setdiff1d(np.arange(len(self.rows)), self.places)
        text = f"{found.sum():,} of {len(found):,} proteins have a row in {self.path}"
        if len(unused):
            first = ", ".join(self.rows[_keys(self.rows)].iloc[unused[0]])
            text += f"; {len(unused):,} of its {len(self.rows):,} rows belong to no embedded protein (first: {first})"
        return text


def check_metadata(path: Path) -> None:
    """Check the header of a metadata sheet.

    Raises:
        SheetError: no such file, or no column of ids.
    """
    if not path.exists():
        raise SheetError(f"metadata: there is no sheet {path}; give a TSV with the column id and any others")
    columns = read_sheet(path, rows=0).columns.tolist()
    if not {"id", UNIPROT_KEY} & set(columns):
        shown = ", ".join(columns[:SHOWN_COLUMNS]) + (", ..." if len(columns) > SHOWN_COLUMNS else "")
        raise SheetError(
            f"{path}: no column `id` in its header ({shown}); rename the one with the ids, or the one with accessions "
            f"to `{UNIPROT_KEY}`, as UniProt calls it"
        )


def read_metadata(path: Path) -> pd.DataFrame:
    """Return a metadata sheet, every cell as text, with a column `id`: the sheet's own, or UniProt's `Entry`.

    Raises:
        SheetError: no such file, no column of ids, or an id (of a sample, where the sheet has samples) that repeats.
    """
    check_metadata(path)
    sheet = read_sheet(path)
    if "id" not in sheet:
        sheet = sheet.assign(id=sheet[UNIPROT_KEY])
    keys = _keys(sheet)
    repeated = sheet[sheet.duplicated(keys)]
    if len(repeated):
        named = ", ".join(f"{key} {repeated.iloc[0][key]!r}" for key in keys)
        raise SheetError(
            f"{path}: {named} stands in more than one row ({len(repeated)} rows too many); keep one of each"
        )
    return sheet


def match_metadata(proteins: pd.DataFrame, path: Path) -> Metadata:
    """Read a sheet and find the row of each protein by its id, or else by its accession in UniProtKB.

    Args:
        proteins: rows of the manifest.
        path: of the sheet; its ids may be whole ones (`sp|P12345|AATM_RABIT`) or accessions (`P12345`).

    Raises:
        SheetError: a mistake in the sheet, or no protein has a row.
    """
    sheet = read_metadata(path)
    keys = _keys(sheet)
    places = _places(sheet[keys], proteins[keys])
    by_accession = _places(_with_accessions(sheet[keys]), _with_accessions(proteins[keys]))
    found = Metadata(path, sheet, np.where(places < 0, by_accession, places))
    if len(proteins) and (found.places < 0).all():
        raise SheetError(
            f"{path}: 0 of {len(proteins):,} records have a row; its ids begin with {_first(sheet[keys])}, those of "
            f"the records with {_first(proteins[keys])}; give each record's id, or its accession in UniProt"
        )
    log.log(logging.INFO if (found.places >= 0).all() else logging.WARNING, "metadata: %s", found.matches())
    return found


def choose_colouring(proteins: pd.DataFrame, color_by: str, metadata: Metadata | None = None) -> Colouring:
    """Return the values of `color_by`: from a column of the metadata, or else from a key in the descriptions.

    If neither has it, or `color_by` is empty or `sample`, return the samples.

    Args:
        proteins: rows of the manifest.
        color_by: a column of the metadata, or a key.
        metadata: sheet matched to these proteins.
    """
    if metadata is not None and color_by in metadata.rows.columns and color_by not in _keys(metadata.rows):
        return metadata.typed(color_by)
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
    """Return the value of `key=` in each description, empty for a description without it."""
    if not key:
        return [""] * len(descriptions)
    # A value with spaces ends where the next key begins, as in UniProt's `OS=Homo sapiens OX=9606`.
    pattern = re.compile(rf"(?:^|\s){re.escape(key)}=(.*?)(?=\s\w+=|$)")
    return [match.group(1) if (match := pattern.search(text)) else "" for text in descriptions]


def _keys(metadata: pd.DataFrame) -> list[str]:
    return ["sample", "id"] if "sample" in metadata else ["id"]


def _typed(values: np.ndarray, name: str) -> np.ndarray:
    """Return the cells of a column as numbers if all values in it are finite numbers, else as text."""
    numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy(np.float64, copy=True)
    numbers[~np.isfinite(numbers)] = np.nan
    empty = np.isin(values.astype(str), NO_VALUE)
    if np.isfinite(numbers[~empty]).all() and not empty.all():
        return numbers
    return _named(values, name)


def _named(values: Sequence[str], name: str) -> np.ndarray:
    return np.array([value or f"no {name}" for value in values], dtype=object)


def _places(rows: pd.DataFrame, wanted: pd.DataFrame) -> np.ndarray:
    """Return the index of the row that equals each of `wanted`, -1 if none or several do."""
    once = np.flatnonzero(~rows.duplicated(keep=False))
    numbers = pd.MultiIndex.from_frame(rows.iloc[once]).get_indexer(pd.MultiIndex.from_frame(wanted))
    return np.append(once, -1)[numbers]


def _with_accessions(keys: pd.DataFrame) -> pd.DataFrame:
    return keys.assign(id=[uniprot_accession(name) or name for name in keys["id"]])


def _first(keys: pd.DataFrame) -> str:
    rows = [", ".join(row) for row in keys.head(SHOWN_IDS).to_numpy()]
    return " and ".join(map(repr, rows)) or "nothing"
