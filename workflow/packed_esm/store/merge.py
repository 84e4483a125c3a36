"""Join manifest and chunk embeddings into one file per sample."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pandas as pd

from ..errors import EmbeddingFileError
from ..sequences.manifest import SCHEMA, Manifest, embedded
from ..system.progress import progress_bar
from .embeddings import ChunkFile, SampleWriter, chunk_settings, embedding_table, vector_dtype
from .settings import common_settings

BATCH_BYTES = 64 * 2**20  # of vectors, in a row group
BATCH_ROWS = 250_000  # of several samples in memory; their texts take more than short vectors
NO_ROWS = SCHEMA.empty_table().to_pandas()


class Piece(NamedTuple):
    """Some rows of a sample: a row group of its file."""

    sample: str
    rows: pd.DataFrame
    is_first: bool
    is_last: bool


def merge_samples(manifest_path: Path, outs: Mapping[str, Path], chunk_paths: Sequence[Path]) -> int:
    """Write the embeddings of samples as Parquet, in input order, batch by batch; return their number.

    A batch has pieces of as many samples as fit into it, so that a chunk is opened once for all of them.

    Args:
        manifest_path: of all samples.
        outs: {sample: Parquet file}.
        chunk_paths: chunk embeddings, in the order of the manifest's `chunk`.

    Raises:
        EmbeddingFileError: a chunk is damaged, has other settings than the rest, or lacks a record.
    """
    samples = rows_of_samples(manifest_path, outs)
    settings = common_settings(chunk_paths, chunk_settings)
    dtype, first = vector_dtype(settings), ChunkFile(chunk_paths[0])
    batch_rows = max(1, BATCH_BYTES // sum(4 * matrix.shape[1] for matrix in first.columns.values()))
    merged = 0
    with ExitStack() as stack, progress_bar(None, "records", "merging") as bar:
        for batch in _batches(_pieces(samples, batch_rows), min(batch_rows, BATCH_ROWS)):
            rows = pd.concat([piece.rows for piece in batch], ignore_index=True)
            check_chunks(manifest_path, rows, chunk_paths)
            columns, checksums = _gather(rows, chunk_paths, first)
            start = 0
            for piece in batch:
                place = slice(start, start + len(piece.rows))
                start = place.stop
                if piece.is_first:
                    writer = stack.enter_context(SampleWriter(outs[piece.sample], settings))
                values = {name: matrix[place] for name, matrix in columns.items()}
                digests, ids = piece.rows["digest"].tolist(), piece.rows["id"].tolist()
                writer.write(embedding_table(digests, piece.rows["length"], values, checksums[place], ids, dtype))
                if piece.is_last:
                    stack.pop_all().close()
            merged += len(rows)
            bar.update(len(rows))
    return merged


def rows_of_samples(manifest_path: Path, samples: Iterable[str]) -> Iterator[tuple[str, Iterator[pd.DataFrame]]]:
    """Open the manifest; yield (sample, its rows that have an embedding, in input order and in parts)."""
    manifest = Manifest(manifest_path)  # before the first row is wanted: a damaged one is named before any chunk

    def rows() -> Iterator[tuple[str, Iterator[pd.DataFrame]]]:
        with manifest:
            for sample in samples:
                yield sample, map(embedded, manifest.batches(sample))

    return rows()


def _pieces(samples: Iterable[tuple[str, Iterator[pd.DataFrame]]], most: int) -> Iterator[Piece]:
    """Yield the rows of samples in pieces of `most`, the last of a sample smaller; one without rows is one of none."""
    for sample, parts in samples:
        held, is_first = next(parts, NO_ROWS), True
        for part in parts:
            held = pd.concat([held, part], ignore_index=True)
            while len(held) > most:
                yield Piece(sample, held.iloc[:most], is_first, is_last=False)
                held, is_first = held.iloc[most:], False
        for start in range(0, max(1, len(held)), most):
            piece = held.iloc[start : start + most]
            yield Piece(sample, piece, is_first and start == 0, is_last=start + most >= len(held))


def _batches(pieces: Iterable[Piece], most: int) -> Iterator[list[Piece]]:
    """Yield pieces together that have no more rows than `most`, or one that has more."""
    batch: list[Piece] = []
    held = 0
    for piece in pieces:
        if batch and held + len(piece.rows) > most:
            yield batch
            batch, held = [], 0
        batch.append(piece)
        held += len(piece.rows)
    if batch:
        yield batch


def check_chunks(manifest_path: Path, rows: pd.DataFrame, chunk_paths: Sequence[Path]) -> None:
    """Raise EmbeddingFileError if the manifest is of a run with more chunks."""
    if len(rows) and rows["chunk"].max() >= len(chunk_paths):
        raise EmbeddingFileError(
            f"{manifest_path}: it belongs to a run with more than {len(chunk_paths)} chunks; remove it and run again"
        )


def _gather(
    batch: pd.DataFrame, chunk_paths: Sequence[Path], like: ChunkFile
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return (columns, checksums) of the records of `batch`, read from their chunks and checked."""
    columns = {name: np.empty((len(batch), matrix.shape[1]), np.float32) for name, matrix in like.columns.items()}
    checksums = np.empty(len(batch), np.uint32)
    # A chunk is opened for each batch and closed after it, so that mapped pages do not pile up.
    for number, group in batch.groupby("chunk"):
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
