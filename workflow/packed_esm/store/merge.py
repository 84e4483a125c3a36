"""Join manifest and chunk embeddings into one file per sample."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import EmbeddingFileError
from ..sequences.manifest import CHUNK, ROW, SCHEMA, Manifest, embedded_rows
from ..system.arrow import array_of_numbers
from ..system.progress import progress_bar
from .embeddings import (
    ChunkFile,
    SampleWriter,
    chunk_settings,
    embedding_table,
    rows_in_cache,
    vector_dtype,
    whole,
)
from .settings import common_settings

BATCH_BYTES = 64 * 2**20  # of vectors, in a row group
MANY_CHUNKS = 100  # every batch opens every chunk, so with more of them a batch has
GROUPS_AT_ONCE = 4  # row groups, and not one
BATCH_ROWS = 250_000  # of several samples in memory; their texts take more than short vectors
NO_ROWS = SCHEMA.empty_table()


class Piece(NamedTuple):
    """Some rows of a sample: a row group of its file."""

    sample: str
    rows: pa.Table
    is_first: bool
    is_last: bool


def merge_samples(
    manifest_path: Path, outs: Mapping[str, Path], chunk_paths: Sequence[Path], rows_per_file: int | None = None
) -> int:
    """Write the embeddings of samples as Parquet, in input order, batch by batch; return their number.

    A batch has pieces of as many samples as fit into it, so that a chunk is opened once for all of them.

    Args:
        manifest_path: of all samples.
        outs: {sample: Parquet file, or folder of parts}.
        chunk_paths: chunk embeddings, in the order of the manifest's `chunk`.
        rows_per_file: in a part at most; None for one file a sample.

    Raises:
        EmbeddingFileError: a chunk is damaged, has other settings than the rest, or lacks a record.
    """
    samples = rows_of_samples(manifest_path, outs)
    chunks = Chunks(chunk_paths)
    settings = common_settings(chunk_paths, chunk_settings)
    group_rows = max(1, BATCH_BYTES // (4 * sum(chunks.widths.values())))
    groups = GROUPS_AT_ONCE if len(chunk_paths) > MANY_CHUNKS else 1
    most = min(groups * group_rows, BATCH_ROWS)
    # In turns, one filled while the other is written; new memory for each batch would take a tenth of the time.
    room = itertools.cycle([chunks.room(max(group_rows, most)) for _ in range(2)])
    merged, written = 0, None
    with _Writer(outs, settings, rows_per_file) as writer, progress_bar(None, "records", "merging") as bar:
        for batch in _batches(_pieces(samples, group_rows), most):
            rows = pa.concat_tables([piece.rows for piece in batch]).combine_chunks()
            check_chunks(manifest_path, rows, chunk_paths)
            values = _gather(rows, chunks, next(room))
            if written:
                written.result()
            written = writer.start(batch, rows, *values)
            merged += len(rows)
            bar.update(len(rows))
        if written:
            written.result()
    return merged


class _Writer:
    """Write batches of pieces in a thread, while the next batch is read: writing and reading take about as long."""

    def __init__(self, outs: Mapping[str, Path], settings: dict, rows_per_file: int | None) -> None:
        self._outs, self._settings, self._rows_per_file = outs, settings, rows_per_file
        self._stack, self._thread = ExitStack(), ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()
        self._stack.__exit__(*error)

    def start(self, batch: list[Piece], rows: pa.Table, columns: dict, checksums: np.ndarray) -> Future[None]:
        """Begin to write a batch, with `rows` of the manifest and the values from `_gather`."""
        return self._thread.submit(self._write, batch, rows, columns, checksums)

    def _write(self, batch: list[Piece], rows: pa.Table, columns: dict, checksums: np.ndarray) -> None:
        digests, ids, lengths = whole(rows["digest"]), whole(rows["id"]), rows["length"].to_numpy()
        dtype, start = vector_dtype(self._settings), 0
        for piece in batch:
            place = slice(start, start + len(piece.rows))
            start = place.stop
            if piece.is_first:
                self._file = self._stack.enter_context(
                    SampleWriter(self._outs[piece.sample], self._settings, self._rows_per_file)
                )
            values = {name: matrix[place] for name, matrix in columns.items()}
            table = embedding_table(digests[place], lengths[place], values, checksums[place], ids[place], dtype)
            self._file.write(table)
            if piece.is_last:
                self._stack.pop_all().close()


def rows_of_samples(manifest_path: Path, samples: Iterable[str]) -> Iterator[tuple[str, Iterator[pa.Table]]]:
    """Open the manifest; yield (sample, its rows that have an embedding, in input order and in parts)."""
    manifest = Manifest(manifest_path)  # before the first row is wanted: a damaged one is named before any chunk

    def rows() -> Iterator[tuple[str, Iterator[pa.Table]]]:
        with manifest:
            for sample in samples:
                yield sample, map(embedded_rows, manifest.tables(sample))

    return rows()


def _pieces(samples: Iterable[tuple[str, Iterator[pa.Table]]], most: int) -> Iterator[Piece]:
    """Yield the rows of samples in pieces of `most`, the last of a sample smaller; one without rows is one of none."""
    for sample, parts in samples:
        held, is_first = next(parts, NO_ROWS), True
        for part in parts:
            held = pa.concat_tables([held, part])
            while len(held) > most:
                yield Piece(sample, held[:most], is_first, is_last=False)
                held, is_first = held[most:], False
        for start in range(0, max(1, len(held)), most):
            piece = held[start : start + most]
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


def check_chunks(manifest_path: Path, rows: pa.Table, chunk_paths: Sequence[Path]) -> None:
    """Raise EmbeddingFileError if the manifest is of a run with more chunks."""
    if len(rows) and pc.max(rows[CHUNK]).as_py() >= len(chunk_paths):
        raise EmbeddingFileError(
            f"{manifest_path}: it belongs to a run with more than {len(chunk_paths)} chunks; remove it and run again"
        )


class Chunks:
    """The embeddings of all chunks. One is mapped at a time, so that mapped pages do not pile up.

    Attributes:
        widths: {column: numbers in a row}.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self._checked = paths, set()
        self.widths = {name: matrix.shape[1] for name, matrix in self.open(0).columns.items()}

    def room(self, rows: int) -> dict[str, np.ndarray]:
        """Return columns for some rows, float32 [rows, width] each, not filled."""
        return {name: np.empty((rows, width), np.float32) for name, width in self.widths.items()}

    def open(self, number: int) -> ChunkFile:
        """Open a chunk; its texts are checked the first time only, because many batches may need a few of its rows."""
        chunk = ChunkFile(self._paths[number], is_checked=number in self._checked)
        self._checked.add(number)
        return chunk


def _gather(rows: pa.Table, chunks: Chunks, room: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return (columns, checksums) of the records in `rows` of the manifest, read from their chunks and checked.

    The columns are views of `room`.
    """
    columns = {name: matrix[: len(rows)] for name, matrix in room.items()}
    checksums = np.empty(len(rows), np.uint32)
    number_of = rows[CHUNK].to_numpy()
    order = np.argsort(number_of, kind="stable")
    numbers, starts = np.unique(number_of[order], return_index=True)
    for number, places in zip(numbers.tolist(), np.split(order, starts[1:]), strict=bool(len(rows))):
        _copy_rows(chunks.open(number), rows, places, columns, checksums)  # which closes it before the next is opened
    return columns, checksums


def _copy_rows(
    chunk: ChunkFile, rows: pa.Table, places: np.ndarray, columns: dict[str, np.ndarray], checksums: np.ndarray
) -> None:
    """Copy the values of records in `places` of `rows`, which are all of one chunk, to these places of the columns."""
    _check_identity(chunk, rows, places)
    row_of, step = rows[ROW].to_numpy(), rows_in_cache(columns)
    for some in (places[start : start + step] for start in range(0, len(places), step)):
        for name, values in chunk.values(row_of[some]).items():
            columns[name][some] = values
        checksums[some] = chunk.checksums[row_of[some]]


def _check_identity(chunk: ChunkFile, rows: pa.Table, places: np.ndarray) -> None:
    """Raise EmbeddingFileError if the row of a record is missing in the chunk or belongs to another sequence."""
    row_of = rows[ROW].to_numpy()[places]
    for beyond in np.flatnonzero(row_of >= len(chunk))[:1]:
        _raise(chunk, rows, places[beyond], f"the file ends after {len(chunk)} rows")
    digests = chunk.digests(row_of)
    for wrong in np.flatnonzero(pc.not_equal(digests, whole(rows["digest"]).take(array_of_numbers(places))))[:1]:
        _raise(chunk, rows, places[wrong], f"it contains {digests[wrong]}")


def _raise(chunk: ChunkFile, rows: pa.Table, place: int, found: str) -> NoReturn:
    record = rows.slice(place, 1).to_pylist()[0]
    raise EmbeddingFileError(
        f"{chunk.path}, row {record['row']}: should be {record['digest']} ({record['sample']}|{record['id']}), "
        f"but {found}; remove it, and the FASTA file of the chunk beside it, and run again"
    )
