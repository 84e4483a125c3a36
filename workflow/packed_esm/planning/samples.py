"""The samples of a run: FASTA files, folders of them, and sample sheets."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from ..errors import OptionError, SheetError
from ..system.sheets import read_sheet
from .config import check
from .inputs import stable_path, usable_paths, user_path

FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas", ".fna", ".ffn", ".fsa", ".pep", ".aa")
_COMPRESSED = re.compile(r"\.(gz|bgz)$", re.IGNORECASE)


@dataclass(frozen=True)
class SampleReader:
    """How to read samples.

    Attributes:
        clone: the folder with config/, whose sheet is used where the working directory has none of that name.
        made_later: FASTA files may be missing, because a rule of another workflow creates them.
        in_module: another workflow uses this one; for the remedy of a missing file.
    """

    clone: Path
    made_later: bool = False
    in_module: bool = False

    def read(self, entries: Sequence[str]) -> dict[str, str]:
        """Return {sample: path of its FASTA file}.

        Args:
            entries: each is a FASTA file, a folder (its FASTA files), or a sample sheet. A sheet names its samples;
                the sample of a file gets the name of the file.

        Raises:
            OptionError: nothing there, something that is not a file (standard input), a row that the schema does not
                allow, a file or a name that comes twice, or a path with braces or a
                line break.
            SheetError: a sheet that cannot be read.
        """
        named: dict[str, str] = {}
        files: list[Path] = []
        for entry in entries:
            path = self._find(entry)
            if path.is_dir():
                files += self._inside(path)
            elif is_fasta(path):
                files.append(path)
            else:
                for sample, fasta in self._of_sheet(path).items():
                    if sample in named:
                        raise SheetError(f"{path}: sample {sample!r} is also in another sheet; names must differ")
                    named[sample] = fasta
        for path in files:
            self._check_file(path, "samples")
        samples = named | _named_by_file(files, named)
        usable_paths("samples", samples.values())
        return samples

    def _find(self, entry: str) -> Path:
        """Return the path of an entry: in the working directory, else, with a note, in the clone."""
        path = user_path(entry)
        shipped = self.clone / path
        if path.parts[:1] == ("config",) and not path.exists() and shipped.exists():
            print(f"There is no {path} here: the shipped example is used ({shipped})", file=sys.stderr)
            path = shipped
        return stable_path(path)

    def _inside(self, folder: Path) -> list[Path]:
        """Return the FASTA files in a folder, not in those below it."""
        files = sorted(path for path in folder.iterdir() if path.is_file() and has_fasta_name(path))
        if not files:
            raise OptionError(
                f"samples: there is no FASTA file in {folder}; names end in {', '.join(FASTA_SUFFIXES)}, or these "
                "with .gz"
            )
        return files

    def _of_sheet(self, sheet: Path) -> dict[str, str]:
        """Return {sample: FASTA path} of a sheet; its paths are relative to its folder."""
        table = read_sample_sheet(sheet)
        schema_path = self.clone / "workflow" / "schemas" / "samples.schema.yaml"
        schema = yaml.safe_load(schema_path.read_text(encoding="utf-8"))
        for line, row in zip(table.index, table.to_dict("records"), strict=True):
            check(row, schema, f"{sheet}, line {line}")
        rows = zip(table["sample"], table["fasta"], strict=True)
        samples = {sample: stable_path(sheet.parent / user_path(fasta)) for sample, fasta in rows}
        for sample, fasta in samples.items():
            self._check_file(fasta, f"{sheet}, sample {sample!r}")
        return {sample: str(fasta) for sample, fasta in samples.items()}

    def _check_file(self, path: Path, where: str) -> None:
        """Raise OptionError where a FASTA file is missing, or cannot be read more than once."""
        special = str(path) in ("-", "/dev/stdin") or path.is_relative_to("/dev/fd") or path.is_relative_to("/proc")
        if not special and (path.is_file() or (self.made_later and not path.exists())):
            return
        if special or path.exists():
            raise OptionError(
                f"{where}: {path} is not a file; standard input, pipes and folders cannot be used here, because the "
                "workflow reads a FASTA file more than once: write it to a file first"
            )
        remedy = ", or set `chunks` if your workflow creates the file" if self.in_module else ""
        raise OptionError(f"{where}: there is no FASTA file {path}; correct the path{remedy}")


def read_sample_sheet(sheet: Path) -> pd.DataFrame:
    """Return the sample sheet (TSV), every cell as text, so that `NA` and `001` stay what they are.

    The index has the numbers of the lines.

    Raises:
        SheetError: no such file, no text, no row, a row or a cell too few or too many, or a repeated sample.
    """
    if not sheet.exists():
        raise SheetError(
            f"samples: there is no {sheet}; give FASTA files, a folder of them, or a TSV with the columns sample, fasta"
        )
    table = read_sheet(sheet)
    if table.empty:
        raise SheetError(f"{sheet}: no sample in it; each row has a sample and its fasta")
    for line in table.index[table["sample"].duplicated()] if "sample" in table else ():
        name = table.loc[line, "sample"]
        raise SheetError(f"{sheet}, line {line}: sample {name!r} is in more than one row; names must differ")
    return table


def has_fasta_name(path: Path) -> bool:
    """Return whether the name is that of a FASTA file, plain or gzip."""
    return Path(_COMPRESSED.sub("", path.name.lower())).suffix in FASTA_SUFFIXES


def is_fasta(path: Path) -> bool:
    """Return whether a path is a FASTA file: by its name; else it begins with `>`, is gzip, or cannot be a sheet."""
    if has_fasta_name(path) or path.name == "-":
        return True
    if not path.exists() or path.suffix in (".tsv", ".csv"):
        return False
    if not path.is_file():
        return True  # standard input or a pipe, which is refused as such
    with path.open("rb") as handle:
        start = handle.read(2)
    return start[:1] in (b">", b";") or start == b"\x1f\x8b"


def _named_by_file(files: Sequence[Path], taken: Iterable[str]) -> dict[str, str]:
    """Return {sample: path}; two files of one name get the names of their folders in front, then numbers."""
    for path, count in Counter(files).items():
        if count > 1:
            raise OptionError(f"samples: {path} is given {count} times; give it once")
    short = Counter(_name(path.name) for path in files)
    names = [_name(path.name) for path in files]
    names = [
        _name(f"{path.absolute().parent.name}_{path.name}") if short[name] > 1 else name
        for path, name in zip(files, names, strict=True)
    ]
    used, samples = set(taken), {}
    for path, name in zip(files, names, strict=True):
        number, unique = 1, name
        while unique in used:
            number += 1
            unique = f"{name}_{number}"
        used.add(unique)
        samples[unique] = str(path)
    return samples


def _name(file_name: str) -> str:
    """Return the name of a sample for the name of a file: letters, digits, dot, underscore, hyphen; 128 at most."""
    stem = _COMPRESSED.sub("", file_name)
    stem = stem[: -len(Path(stem).suffix)] if Path(stem).suffix.lower() in FASTA_SUFFIXES else stem
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:120] or "sample"
