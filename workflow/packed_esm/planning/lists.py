"""Arguments in files: a command that names all samples or chunks of a large run would be longer than systems allow.

Each file has one argument a line. A program reads it where the word `@FILE` stands (`scripts/_program.py`). A digest of
the content is part of its name, so no job reads the list of an earlier call.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..system.files import replacing
from .arguments import path_argument, residue_arguments, sample_arguments
from .results import Results


def argument_lists(results: Results, earlier: Iterable[str]) -> dict[str, list[str]]:
    """Return {name of a list: arguments} of the programs.

    Args:
        results: the results of the run.
        earlier: Parquet files of other results, to reuse.
    """
    embeddings = sample_arguments(results.samples, results.embeddings)
    lists = {
        "chunk": sample_arguments(results.samples, results.proteins),
        "validate": [
            *sample_arguments(results.samples, results.proteins, results.embeddings),
            *residue_arguments(results.residues),
        ],
        "report": embeddings,
        "reuse": list(map(path_argument, earlier)),
    }
    for ending in ("fasta", "arrow", "json", *(f"{feature}.h5" for feature in results.features)):
        lists[f"chunks.{ending}"] = list(map(path_argument, results.chunk_files(ending)))
    parts = [f"--rows-per-file={results.rows_per_file}"] if results.rows_per_file else []
    for number, group in enumerate(results.groups, 1):
        lists[f"samples.{number}"] = ["--sample", *group]
        paths = {sample: results.embedding_file(sample) for sample in group}
        lists[f"merge.{number}"] = out_arguments(paths) + parts
        for feature in results.features:
            paths = {sample: results.residue_file(sample, feature) for sample in group}
            lists[f"merge.{feature}.{number}"] = out_arguments(paths)
    return lists


def out_arguments(paths: Mapping[str, str]) -> list[str]:
    """Return `--sample NAME ... --out PATH ...` of all samples."""
    return ["--sample", *paths, "--out", *map(path_argument, paths.values())]


def list_argument(results: Results, name: str, words: Iterable[str], is_run: bool) -> str:
    """Return the word that stands for a list in a command; a run writes its file if it is missing or damaged."""
    content = os.fsencode("".join(f"{word}\n" for word in words))
    digest = hashlib.sha256(content).hexdigest()[:12]
    path = Path(results.folder, "settings", "lists", f"{name}.{digest}.txt")
    if is_run and not (path.is_file() and path.read_bytes() == content):
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return f"@{path}"
