"""Join manifest and chunk embeddings into one file per sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from ..errors import EmbeddingFileError
from ..sequences.manifest import embedded, read_manifest
from ..system.progress import progress_bar
from .embeddings import ChunkFile, SampleWriter, chunk_settings, embedding_table, vector_dtype
from .settings import common_settings

BATCH_BYTES = 64 * 2**20


def merge_sample(manifest_path: Path, sample: str, chunk_paths: Sequence[Path], out: Path) -> int:
    """Write the embeddings of one sample as Parquet, in input order, batch by batch; return their number.

    Args:
        manifest_path: of all samples.
        sample: its name.
        chunk_paths: chunk embeddings, in the order of the manifest's `chunk`.
        out: Parquet file.

    Raises:
        EmbeddingFileError: a chunk is damaged, has other settings than the rest, or lacks a record.
    """
    rows = embedded(read_manifest(manifest_path, sample)).sort_values("position")
    settings = common_settings(chunk_paths, chunk_settings)
    dtype = vector_dtype(settings)
    if len(rows) and rows["chunk"].max() >= len(chunk_paths):
        raise EmbeddingFileError(
            f"{manifest_path}: it belongs to a run with more than {len(chunk_paths)} chunks; remove it and run again"
        )
    first = ChunkFile(chunk_paths[0])
    row_bytes = sum(4 * matrix.shape[1] for matrix in first.columns.values())
    batch_rows = max(1, BATCH_BYTES // row_bytes)
    with (
        SampleWriter(out, settings) as writer,
        progress_bar(len(rows), "records", f"merging {sample}") as bar,
    ):
        for start in range(0, max(1, len(rows)), batch_rows):
            batch = rows.iloc[start : start + batch_rows]
            columns, checksums = _gather(batch, chunk_paths, first)
            digests, ids = batch["digest"].tolist(), batch["id"].tolist()
            writer.write(embedding_table(digests, batch["length"], columns, checksums, ids, dtype))
            bar.update(len(batch))
    return len(rows)


def _gather(
    batch: pd.DataFrame, chunk_paths: Sequence[Path], like: ChunkFile
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return (columns, checksums) of the records of `batch`, read from their chunks and checked."""
    columns = {name: np.empty((len(batch), matrix.shape[1]), np.float32) for name, matrix in like.columns.items()}
    checksums = np.empty(len(batch), np.uint32)
    # A chunk is opened for each batch and closed after it, so that mapped pages do not pile up.
    for number, group in batch.reset_index(drop=True).groupby("chunk"):
        chunk = ChunkFile(chunk_paths[number])
        rows = group["row"].to_numpy()
        _check_identity(chunk, group)
        chunk.check_rows(rows)
        for name, matrix in columns.items():
            matrix[group.index] = chunk.columns[name][rows]
        checksums[group.index] = chunk.checksums[rows]
    return columns, checksums


def _check_identity(chunk: ChunkFile, group: pd.DataFrame) -> None:
    """Raise EmbeddingFileError if the row of a record is missing in the chunk or belongs to another sequence."""
    beyond = group[group["row"] >= len(chunk)]
    if len(beyond):
        _raise(chunk, beyond.iloc[0], f"the file ends after {len(chunk)} rows")
    digests = np.array(chunk.digests(group["row"].to_numpy()))
    for wrong in np.flatnonzero(digests != group["digest"].to_numpy(dtype=str))[:1]:
        _raise(chunk, group.iloc[wrong], f"it contains {digests[wrong]}")


def _raise(chunk: ChunkFile, record: pd.Series, found: str) -> NoReturn:
    raise EmbeddingFileError(
        f"{chunk.path}, row {record['row']}: should be {record['digest']} ({record['sample']}|{record['id']}), "
        f"but {found}; remove it, and the FASTA file of the chunk beside it, and run again"
    )
