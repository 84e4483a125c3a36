"""Check the files between the rules: every row of a merged file, and that other files belong to the same run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ..errors import ValidationError
from ..sequences.accessions import accession_of
from ..sequences.manifest import Rows, fasta_sha256
from ..system.files import read_json, sha256
from .embeddings import embedding_columns, row_checksums, sample_batches, sample_settings, whole
from .settings import differences

ROWS_AT_ONCE = 2**16


def check_file(path: Path, rows: pd.DataFrame | Iterable[pd.DataFrame]) -> None:
    """Check every row of a sample's Parquet file; for the errors see `checked_batches`."""
    for _ in checked_batches(path, rows):
        pass


def checked_batches(path: Path, rows: pd.DataFrame | Iterable[pd.DataFrame]) -> Iterator[pa.Table]:
    """Yield the rows of a sample's Parquet file in batches; check their values, and ids and order by the manifest.

    Args:
        path: Parquet file.
        rows: of the manifest, for the records of the sample that have an embedding, in input order; at once or in
            batches.

    Raises:
        ValidationError: a row is wrong; the message names the first such sequence.
        EmbeddingFileError: the file is not a complete Parquet file of this workflow.
    """
    sample_settings(path)
    start, expected = 0, Rows([rows] if isinstance(rows, pd.DataFrame) else rows)
    for table in sample_batches(path):
        _check_identity(path, start, table, expected.take(len(table)))
        _check_values(path, start, table)
        start += len(table)
        yield table
    if missing := expected.take(1)["id"].tolist():
        total = start + 1
        while more := len(expected.take(ROWS_AT_ONCE)):
            total += more
        raise ValidationError(
            f"{path}: ends after {start} of {total} rows; sequence {missing[0]!r} is missing; "
            "remove the file and run again"
        )


def check_sources(fastas: Mapping[str, Path], manifest_path: Path) -> None:
    """Raise ValidationError if the FASTA file of a sample is not the one that the manifest was made from."""
    sources = fasta_sha256(manifest_path)
    for sample, fasta in fastas.items():
        if sha256(fasta) != sources.get(sample):
            raise ValidationError(
                f"{fasta}: not the file that {manifest_path} was made from; it changed during the run, or the "
                "manifest belongs to another run: remove the manifest and run again"
            )


def read_stats(paths: Sequence[Path], settings: dict) -> list[dict]:
    """Return the statistics of the embed jobs.

    Raises:
        DamagedFileError: a file is incomplete.
        ValidationError: a job has other settings; only the budget of tokens may differ, after an out-of-memory.
    """
    stats = [read_json(path) for path in paths]
    for path, job in zip(paths, stats, strict=True):
        budget = {"tokens_per_pack": job["settings"]["tokens_per_pack"]}
        if differing := differences(job["settings"], settings | budget):
            raise ValidationError(
                f"{path}: it belongs to another run ({'; '.join(differing)}); remove it and run again"
            )
    return stats


def _check_identity(path: Path, start: int, table: pa.Table, expected: pd.DataFrame) -> None:
    expected = expected.assign(accession=[accession_of(record_id) for record_id in expected["id"]])
    for name in [name for name in ("id", "digest", "length", "accession") if name in table.column_names]:
        got, want = table[name].to_pylist(), expected[name].tolist()
        want += [None] * (len(got) - len(want))
        for row, (here, there) in enumerate(zip(got, want, strict=True)):
            if here != there:
                raise ValidationError(
                    f"{path}, row {start + row}, sequence {table['id'][row].as_py()!r}: {name} is {here!r}, "
                    f"but the manifest has {there!r}; remove the file and run again"
                )


def _check_values(path: Path, start: int, table: pa.Table) -> None:
    columns = embedding_columns(table)
    wrong = row_checksums(whole(table["digest"]), columns) != table["checksum"].to_numpy()
    infinite = ~np.logical_and.reduce([np.isfinite(matrix).all(axis=1) for matrix in columns.values()])
    for row in np.flatnonzero(wrong | infinite)[:1]:
        problem = "does not match its checksum, it was changed or moved" if wrong[row] else "is not finite"
        raise ValidationError(
            f"{path}, row {start + row}, sequence {table['id'][int(row)].as_py()!r}: the embedding {problem}; "
            "remove the file and run again"
        )
