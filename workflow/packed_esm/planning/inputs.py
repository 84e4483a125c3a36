"""The input files of a run: the sample sheet, FASTA files and earlier results."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import OptionError, SheetError
from ..system.sheets import read_sheet
from .config import check

NUCLEOTIDES_PER_RESIDUE = 3  # as if one of six frames had no stop; in viral genomes 0.86 frames per window had none


def user_path(text: str) -> Path:
    """Return the path that a user wrote; `~` and `~name` at its beginning are home folders, as in a shell."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser() raises if there is no such user


def stable_path(path: Path) -> Path:
    """Return a path relative to the working directory if it is inside: absolute and relative paths then are equal.

    The result also stays valid when the project is moved.
    """
    folder = path.parent.resolve()
    inside = path.is_absolute() and folder.is_relative_to(Path.cwd())
    return folder.relative_to(Path.cwd()) / path.name if inside else path


def read_sample_sheet(sheet: Path) -> pd.DataFrame:
    """Return the sample sheet (TSV), every cell as text, so that `NA` and `001` stay as they are.

    The index has the line numbers.

    Raises:
        SheetError: no such file, no text, no row, a wrong number of cells, or a repeated sample.
    """
    if not sheet.exists():
        raise SheetError(f"samples: there is no sample sheet {sheet}; give a TSV with the columns sample, fasta")
    table = read_sheet(sheet)
    if table.empty:
        raise SheetError(f"{sheet}: no sample in it; each row has a sample and its fasta")
    for line in table.index[table["sample"].duplicated()] if "sample" in table else ():
        name = table.loc[line, "sample"]
        raise SheetError(f"{sheet}, line {line}: sample {name!r} is in more than one row; names must differ")
    return table


def find_sheet(text: str, clone: Path) -> Path:
    """Return the path of the sample sheet: in the working directory, else in the clone, with a note on stderr."""
    sheet = user_path(text)
    shipped = clone / sheet
    if not sheet.exists() and shipped.exists():
        print(f"There is no {sheet} here: the shipped example is used ({shipped})", file=sys.stderr)
        sheet = shipped
    return stable_path(sheet)


def read_samples(sheet: Path, schema: dict, made_later: bool, in_module: bool) -> dict[str, str]:
    """Return {sample: FASTA path} of a sample sheet; paths are relative to the folder of the sheet.

    Args:
        sheet: TSV.
        schema: JSON schema of a row.
        made_later: FASTA files may be missing, because a rule of another workflow creates them.
        in_module: another workflow uses this one; the message on a missing file then has another remedy.

    Raises:
        OptionError: the schema does not allow a row, a file is missing, or a path has braces.
        SheetError: the sheet cannot be read.
    """
    table = read_sample_sheet(sheet)
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        check(row, schema, f"{sheet}, line {line}")
    rows = zip(table["sample"], table["fasta"], strict=True)
    samples = {sample: str(sheet.parent / user_path(fasta)) for sample, fasta in rows}
    for sample, fasta in samples.items():
        if not made_later and not Path(fasta).exists():
            remedy = ", or set `chunks` if your workflow creates the file" if in_module else ""
            raise OptionError(
                f"{sheet}: there is no {fasta}, the FASTA file of sample {sample!r}; correct the sheet{remedy}"
            )
    without_braces("samples", samples.values())
    return samples


def without_braces(key: str, paths: Iterable[str | Path]) -> list[str]:
    """Return the paths of inputs as text.

    Raises:
        OptionError: Snakemake would read a path as a pattern; the message names its key.
    """
    texts = [str(path) for path in paths]
    for path in texts:
        if {"{", "}"} & set(path):
            raise OptionError(f"{key}: {path} has braces, which mean wildcards to Snakemake; rename it, or use a link")
    return texts


def path_inside(path: Path) -> str:
    """Return the path relative to the working directory if it is inside, so that the project may be moved."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def number_of_chunks(settings: Mapping[str, Any], fastas: Iterable[str]) -> int:
    """Return the number of chunks, without reading a FASTA.

    Raises:
        OptionError: it depends on a file that does not exist (yet).
    """
    if settings["chunks"] != "auto":
        return settings["chunks"]
    letters = NUCLEOTIDES_PER_RESIDUE if settings["input"] == "nucleotide" else 1
    return estimated_chunks(fastas, letters * settings["residues_per_chunk"])


def fasta_bytes(fastas: Iterable[str]) -> int:
    """Return the bytes of FASTA files without reading them; gzip is assumed to halve them.

    Raises:
        FileNotFoundError: a file does not exist (yet).
    """
    return sum(Path(fasta).stat().st_size * (2 if fasta.endswith(".gz") else 1) for fasta in fastas)


def estimated_chunks(fastas: Iterable[str], residues_per_chunk: int) -> int:
    """Return a number of chunks from the sizes of FASTA files.

    Raises:
        OptionError: a file does not exist (yet).
    """
    try:
        return max(1, -(-fasta_bytes(fastas) // residues_per_chunk))
    except FileNotFoundError as error:
        raise OptionError(
            f"there is no {error.filename}; correct the sample sheet, or set `chunks` if a rule creates the file"
        ) from error


def earlier_files(paths: Sequence[str], own: Path) -> list[Path]:
    """Return the Parquet files that `reuse` names: files, or folders of results.

    A folder may have the results of one model, a folder of results per model, or Parquet files.

    Args:
        paths: values of the key `reuse`.
        own: folder of the results of this run; its name is that of the model.

    Raises:
        OptionError: there are no results, or they are those of this run, which would remove them before reading them.
    """
    files = []
    for path in map(user_path, paths):
        patterns = ("embeddings/*.parquet", f"{own.name}/embeddings/*.parquet", "*.parquet")
        matches = ([path] if path.suffix == ".parquet" else sorted(path.glob(pattern)) for pattern in patterns)
        first = next(filter(None, matches), [])
        if not first or not first[0].exists():
            raise OptionError(f"reuse: there are no embeddings at {path}; give a Parquet file or a folder of results")
        files += first
    for file in files:
        if file.resolve().is_relative_to(own.resolve()):
            raise OptionError(
                f"reuse: {file} is where this run writes its own results; move it first "
                f"(`mv {own} earlier`, then reuse: [earlier]), or run in another folder"
            )
    return list(dict.fromkeys(files))
