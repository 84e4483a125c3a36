"""The files that a run is given: the sample sheet, FASTA files and earlier results."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ..errors import OptionError, SheetError
from ..system.sheets import read_sheet

NUCLEOTIDES_PER_RESIDUE = 3  # as if one of six frames had no stop; of windows of viral genomes 0.86 had none


def given_path(text: str) -> Path:
    """Return the path that a user wrote, `~` and `~name` at its beginning being home folders, as in a shell."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser() raises for a name that nobody has


def stable_path(path: Path) -> Path:
    """Return a path relative to the working directory where it is inside, so that both ways to write it are the same.

    It also survives that the project moves.
    """
    folder = path.parent.resolve()
    inside = path.is_absolute() and folder.is_relative_to(Path.cwd())
    return folder.relative_to(Path.cwd()) / path.name if inside else path


def read_sample_sheet(sheet: Path) -> pd.DataFrame:
    """Return the sample sheet (TSV), every cell as text, so that `NA` and `001` stay what they are.

    The index has the numbers of the lines.

    Raises:
        SheetError: no such file, no text, no row, a row or a cell too few or too many, or a sample that stands twice.
    """
    if not sheet.exists():
        raise SheetError(f"samples: there is no sample sheet {sheet}; give a TSV with the columns sample, fasta")
    table = read_sheet(sheet)
    if table.empty:
        raise SheetError(f"{sheet}: no sample in it; each row has a sample and its fasta")
    for line in table.index[table["sample"].duplicated()] if "sample" in table else ():
        name = table.loc[line, "sample"]
        raise SheetError(f"{sheet}, line {line}: sample {name!r} stands in more than one row; names must differ")
    return table


def fasta_bytes(fastas: Iterable[str]) -> int:
    """Return the bytes of FASTA files, which are not read; gzip is taken to halve them.

    Raises:
        FileNotFoundError: a file that is not there (yet).
    """
    return sum(Path(fasta).stat().st_size * (2 if fasta.endswith(".gz") else 1) for fasta in fastas)


def estimated_chunks(fastas: Iterable[str], residues_per_chunk: int) -> int:
    """Return a number of chunks from the sizes of FASTA files.

    Raises:
        OptionError: a file that is not there (yet).
    """
    try:
        return max(1, -(-fasta_bytes(fastas) // residues_per_chunk))
    except FileNotFoundError as error:
        raise OptionError(
            f"there is no {error.filename}; mend the sample sheet, or set `chunks` if a rule makes the file"
        ) from error


def earlier_files(paths: Sequence[str], own: Path) -> list[Path]:
    """Return the Parquet files that `reuse` names: files, or folders of results.

    A folder holds the results of one model, those of several by their names, or Parquet files.

    Args:
        paths: values of the key `reuse`.
        own: folder of results of this run, whose name is that of the model.

    Raises:
        OptionError: nothing there, or results of this very run, which it would remove before it reads them.
    """
    files = []
    for path in map(given_path, paths):
        patterns = ("embeddings/*.parquet", f"{own.name}/embeddings/*.parquet", "*.parquet")
        found = ([path] if path.suffix == ".parquet" else sorted(path.glob(pattern)) for pattern in patterns)
        here = next(filter(None, found), [])
        if not here or not here[0].exists():
            raise OptionError(f"reuse: there are no embeddings at {path}; give a Parquet file or a folder of results")
        files += here
    for file in files:
        if file.resolve().is_relative_to(own.resolve()):
            raise OptionError(
                f"reuse: {file} is where this run writes its own results; move it first "
                f"(`mv {own} earlier`, then reuse: [earlier]), or run in another folder"
            )
    return list(dict.fromkeys(files))
