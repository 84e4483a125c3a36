"""Read a table of variants: a TSV with sample, id and mutations, or a CSV of ProteinGym.

The TSV has the columns `sample`, `id` and `mutations`. The CSV has `mutant` and `mutated_sequence`, as ProteinGym's
files of deep mutational scans have them. Other columns are kept. Mutations are written `A24G`, several as `A24G:K30R`;
positions count from 1.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..errors import SheetError
from ..outputs.marginals import AMINO_ACIDS
from ..sequences.alphabet import RESIDUES, normalise, refget_digest
from ..system.files import open_text
from ..system.sheets import read_sheet
from .options import SCORES

TSV_COLUMNS, CSV_COLUMNS = ("sample", "id", "mutations"), ("mutant", "mutated_sequence")
_MUTATION = re.compile(rf"([{re.escape(RESIDUES)}])([1-9]\d*)([{AMINO_ACIDS}])")


class Mutation(NamedTuple):
    """A substitution; the position counts from 1."""

    wild_type: str
    position: int
    mutant: str

    def __str__(self) -> str:
        return f"{self.wild_type}{self.position}{self.mutant}"


class Variant(NamedTuple):
    """A row of the table.

    Attributes:
        line: of the file, from 1.
        mutations: of different positions.
        sample, id: of the protein; empty if it is found by its sequence.
        digest: of the protein's sequence, if it is found by that; else empty.
    """

    line: int
    mutations: tuple[Mutation, ...]
    sample: str = ""
    id: str = ""
    digest: str = ""


@dataclass(frozen=True)
class VariantTable:
    """A table of variants.

    Attributes:
        path: of the file.
        rows: its cells as text, without `mutated_sequence`.
        variants: one per row.
    """

    path: Path
    rows: pd.DataFrame
    variants: list[Variant]


def read_variants(path: Path) -> VariantTable:
    """Return a table of variants, plain or gzip.

    Raises:
        SheetError: the file cannot be read, lacks a column, or a row has a mistake; the message names the line.
    """
    rows = _read(path)
    of_csv = set(CSV_COLUMNS) <= set(rows)
    missing = [name for name in TSV_COLUMNS if name not in rows]
    if missing and not of_csv:
        raise SheetError(
            f"{path}: no column `{missing[0]}` in its header; give a TSV with {', '.join(TSV_COLUMNS)}, or a CSV with "
            f"{', '.join(CSV_COLUMNS)}"
        )
    if taken := [name for name in SCORES if name in rows]:
        raise SheetError(f"{path}: the column `{taken[0]}` has the name of a score; rename it")
    read = _of_csv if of_csv else _of_tsv
    variants = [read(path, int(row.Index), row._asdict()) for row in rows.itertuples()]
    return VariantTable(path, rows.drop(columns="mutated_sequence", errors="ignore"), variants)


def check_variants(path: Path) -> None:
    """Raise SheetError if there is no table."""
    if not path.exists():
        raise SheetError(f"variants: there is no table {path}; give a TSV with {', '.join(TSV_COLUMNS)}")


def parse_mutations(path: Path, line: int, text: str) -> tuple[Mutation, ...]:
    """Return the mutations of a cell, `A24G:K30R`.

    Raises:
        SheetError: one of them cannot be read, or two have one position.
    """
    mutations = []
    for part in text.split(":"):
        match = _MUTATION.fullmatch(part.strip())
        if not match:
            raise SheetError(
                f"{path}, line {line}: {part!r} is not a mutation; write the residue, its position from 1, and one of "
                f"the 20 amino acids, as in A24G, and several as A24G:K30R"
            )
        mutations.append(Mutation(match[1], int(match[2]), match[3]))
    repeated = [position for position, n in Counter(one.position for one in mutations).items() if n > 1]
    if repeated:
        raise SheetError(f"{path}, line {line}: two mutations of position {repeated[0]} in {text!r}; give one")
    return tuple(mutations)


def _of_tsv(path: Path, line: int, row: dict[str, str]) -> Variant:
    return Variant(line, parse_mutations(path, line, row["mutations"]), row["sample"], row["id"])


def _of_csv(path: Path, line: int, row: dict[str, str]) -> Variant:
    """Return a row of ProteinGym; its protein is `mutated_sequence` with the mutations undone."""
    mutations = parse_mutations(path, line, row["mutant"])
    residues = list(normalise(row["mutated_sequence"]))
    for mutation in mutations:
        if mutation.position > len(residues):
            raise SheetError(
                f"{path}, line {line}: {mutation} is beyond the end of mutated_sequence, which has {len(residues)} "
                "residues"
            )
        if (found := residues[mutation.position - 1]) != mutation.mutant:
            raise SheetError(
                f"{path}, line {line}: mutated_sequence has {found} at position {mutation.position}, which does not "
                f"fit {mutation}; correct one of them"
            )
        residues[mutation.position - 1] = mutation.wild_type
    return Variant(line, mutations, digest=_digest(path, line, "".join(residues)))


def _digest(path: Path, line: int, sequence: str) -> str:
    if not sequence.isascii():
        raise SheetError(f"{path}, line {line}: mutated_sequence has letters that are not residues; correct it")
    return refget_digest(sequence)


def _read(path: Path) -> pd.DataFrame:
    """Return a TSV or CSV as text; its header says which. The index has the line numbers."""
    try:
        with open_text(path) as handle:
            header = handle.readline()
    except (OSError, UnicodeDecodeError, EOFError):
        header = "\t"  # read_sheet says what is wrong
    if "\t" in header or "," not in header:
        return read_sheet(path)
    with open_text(path) as handle:
        try:
            return _rows_of_csv(path, handle)
        except (csv.Error, UnicodeDecodeError, EOFError) as error:
            raise SheetError(f"{path}: cannot be read as CSV ({error}); give UTF-8 text, plain or gzip") from error


def _rows_of_csv(path: Path, handle: Iterable[str]) -> pd.DataFrame:
    reader = csv.reader(handle)
    header = [cell.strip().removeprefix("\ufeff") for cell in next(reader)]
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        raise SheetError(f"{path}: two columns {repeated[0]!r}; rename one")
    cells = {}
    for row in reader:
        if row and len(row) != len(header):
            raise SheetError(
                f"{path}, line {reader.line_num}: the row has not as many cells as the header ({len(row)}, not "
                f"{len(header)}); cells are separated by one comma"
            )
        if row:
            cells[reader.line_num] = [cell.strip() for cell in row]
    return pd.DataFrame.from_dict(cells, orient="index", columns=header, dtype=str)
