"""Paths of input files, earlier results, and the number of chunks."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError

NUCLEOTIDES_PER_RESIDUE = 3  # as if one of six frames had no stop; of windows of viral genomes 0.86 had none


def given_path(text: str) -> Path:
    """Return the path that a user wrote, `~` and `~name` at its beginning being home folders, as in a shell."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser() raises for a name that nobody has


def stable_path(path: Path) -> Path:
    """Return a path relative to the working directory if it is inside, else absolute.

    So all ways to write a path give the same one, and results survive when the working directory moves.
    """
    folder = path.parent.resolve()
    if folder.is_relative_to(Path.cwd()):
        return folder.relative_to(Path.cwd()) / path.name
    return Path(os.path.abspath(path))  # noqa: PTH100 - it keeps symbolic links, which may be the same on all nodes


def without_braces(key: str, paths: Iterable[str | Path]) -> list[str]:
    """Return paths of inputs, as text.

    Raises:
        OptionError: one that Snakemake would take for a pattern, by its key.
    """
    texts = [str(path) for path in paths]
    for path in texts:
        if {"{", "}"} & set(path):
            raise OptionError(f"{key}: {path} has braces, which mean wildcards to Snakemake; rename it, or give a link")
    return texts


def path_inside(path: Path) -> str:
    """Return the path relative to the working directory where it is inside, so that the project may move."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def number_of_chunks(settings: Mapping[str, Any], fastas: Iterable[str]) -> int:
    """Return the number of chunks, without reading a FASTA.

    Raises:
        OptionError: it depends on a file that is not there (yet).
    """
    if settings["chunks"] != "auto":
        return settings["chunks"]
    letters = NUCLEOTIDES_PER_RESIDUE if settings["input"] == "nucleotide" else 1
    return estimated_chunks(fastas, letters * settings["residues_per_chunk"])


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

    Those of this run itself are left out: its jobs take what is there when they begin, and as inputs they would be
    outputs too. A folder holds the results of one model, those of several by their names, or Parquet files.

    Args:
        paths: values of the key `reuse`.
        own: folder of results of this run, whose name is that of the model.

    Raises:
        OptionError: nothing there.
    """
    files = []
    for path in map(given_path, paths):
        patterns = ("embeddings/*.parquet", f"{own.name}/embeddings/*.parquet", "*.parquet")
        found = ([path] if path.suffix == ".parquet" else sorted(path.glob(pattern)) for pattern in patterns)
        here = next(filter(None, found), [])
        if not here or not here[0].exists():
            raise OptionError(f"reuse: there are no embeddings at {path}; give a Parquet file or a folder of results")
        files += here
    return [file for file in dict.fromkeys(files) if not file.resolve().is_relative_to(own.resolve())]
