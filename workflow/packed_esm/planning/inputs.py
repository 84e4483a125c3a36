"""Paths of input files, earlier results, and the number of chunks."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..sequences.fasta import fasta_bytes

NUCLEOTIDES_PER_RESIDUE = 3  # as if one of six frames had no stop; in viral genomes 0.86 frames per window had none


def user_path(text: str) -> Path:
    """Return the path that a user wrote; `~` and `~name` at its beginning are home folders, as in a shell."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser() raises if there is no such user


def stable_path(path: Path) -> Path:
    """Return a path relative to the working directory if it is inside, else absolute.

    So all ways to write a path give the same one, and results survive when the working directory moves.
    """
    folder = path.parent.resolve()
    if folder.is_relative_to(Path.cwd()):
        return folder.relative_to(Path.cwd()) / path.name
    return Path(os.path.abspath(path))  # noqa: PTH100 - it keeps symbolic links, which may be the same on all nodes


def usable_paths(key: str, paths: Iterable[str | Path]) -> list[str]:
    """Return the paths of inputs as text.

    Raises:
        OptionError: Snakemake would read a path as a pattern, or a program would read it as two lines of a list of
            arguments; the message names its key.
    """
    texts = [str(path) for path in paths]
    for path in texts:
        if {"{", "}"} & set(path):
            raise OptionError(f"{key}: {path} has braces, which mean wildcards to Snakemake; rename it, or use a link")
        if "\n" in path:
            raise OptionError(f"{key}: {path!r} has a line break, which no path may have; rename it, or use a link")
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

    Those of this run are left out: its jobs find them when they begin, and as inputs they would be outputs too.
    A folder may have the results of one model, a folder of results per model, or Parquet files.

    Args:
        paths: values of the key `reuse`.
        own: folder of the results of this run; its name is that of the model.

    Raises:
        OptionError: there are no results.
    """
    files = []
    for path in map(user_path, paths):
        patterns = ("embeddings/*.parquet", f"{own.name}/embeddings/*.parquet", "*.parquet")
        matches = ([path] if path.suffix == ".parquet" else sorted(path.glob(pattern)) for pattern in patterns)
        first = next(filter(None, matches), [])
        if not first or not first[0].exists():
            raise OptionError(f"reuse: there are no embeddings at {path}; give a Parquet file or a folder of results")
        files += first
    return [file for file in dict.fromkeys(files) if not file.resolve().is_relative_to(own.resolve())]


def folder_of_results(embeddings: Path) -> Path:
    """Return the folder of results that a Parquet file is in, which has its residue files too; else its own folder."""
    return embeddings.parents[1] if embeddings.parent.name == "embeddings" else embeddings.parent
