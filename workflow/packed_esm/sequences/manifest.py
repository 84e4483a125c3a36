"""The manifest: one row per input record, with its outcome.

The rows of a sample are adjacent. The metadata has the number of each sample's rows and a checksum of them, and the
sha256 of each sample's FASTA file. The numbers say which row groups have a sample: its reader decodes no others. The
checksums are needed because Parquet's own do not cover the positions of columns, the number of rows and the statistics
that filters use.
"""

import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..system.arrow import ARROW_ERRORS, check_whole
from ..system.files import FileKind, replacing

ACCEPTED, REPLACED, REJECTED = "accepted", "replaced", "rejected"
TRUNCATED, SPLIT = "truncated", "split"  # longer than max_length
STATUSES = (ACCEPTED, REPLACED, TRUNCATED, SPLIT, REJECTED)


class RecordRow(NamedTuple):
    """The columns of the manifest for a record, except its place in the chunks."""

    sample: str
    position: int  # in the sample, from 0
    id: str
    description: str
    line: int  # of the header, from 1
    length: int  # residues
    masks: int  # number of these that are masked
    digest: str  # empty if rejected
    status: str
    reason: str


CHUNK, ROW = "chunk", "row"  # the columns of a record's place in the chunks
SCHEMA = pa.schema(
    {
        "sample": pa.string(),
        "position": pa.int64(),
        "id": pa.string(),
        "description": pa.string(),
        "line": pa.int64(),
        "length": pa.int32(),
        "masks": pa.int32(),
        "digest": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
        CHUNK: pa.int32(),  # from 0; -1 if rejected
        ROW: pa.int32(),  # in the chunk, from 0; -1 if rejected
    }
)
SAMPLES, SOURCES = b"packed_esm_samples", b"packed_esm_fasta_sha256"  # keys of the metadata: {sample: ...} each
MANIFEST = FileKind("manifest", ARROW_ERRORS)
Counted = dict[str, list[int]]  # {sample: [number of its rows, crc32 of them]}


@contextmanager
def manifest_writer(path: Path, sources: Mapping[str, str]) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that adds rows to a new manifest, as a row group; the rows of a sample come one after the other.

    Args:
        path: of the manifest.
        sources: the sha256 of each sample's FASTA file, also of samples that have no record.
    """
    counted: Counted = {sample: [0, 0] for sample in sources}
    with replacing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, write_page_checksum=True) as writer:

        def write(table: pa.Table) -> None:
            _count(table, counted)
            writer.write_table(table, row_group_size=max(1, len(table)))

        yield write
        writer.add_key_value_metadata({SAMPLES: json.dumps(counted), SOURCES: json.dumps(dict(sources))})


class Manifest:
    """An open manifest. It holds one row group at a time.

    Raises:
        DamagedFileError: the file is incomplete.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # pyarrow's datasets, and with them its filters, are avoided: one flipped bit can make them wait forever.
        with MANIFEST.reading(path):
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            metadata = self._file.metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._counted: Counted = _stored(path, self._file, SAMPLES)
        if not all(_is_counted(value) for value in self._counted.values()):
            raise MANIFEST.damaged(path, f"its metadata {SAMPLES.decode()} is not a table of numbers")
        self._ends = np.cumsum([0, *sizes])  # of the row groups, in rows; the first is their beginning
        sample_ends = np.cumsum([0, *(rows for rows, _ in self._counted.values())]).tolist()
        self._spans = dict(zip(self._counted, itertools.pairwise(sample_ends), strict=True))
        if sample_ends[-1] != self._ends[-1]:
            raise MANIFEST.damaged(path, f"it has {self._ends[-1]} rows, and {sample_ends[-1]} were written")
        self._read: tuple[int, pa.Table] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def samples(self) -> list[str]:
        """Names of the samples, in order, also of those without records."""
        return list(self._counted)

    def tables(self, sample: str | None = None) -> Iterator[pa.Table]:
        """Yield the rows of one sample, or of all, in order, a row group at a time; no other row group is decoded.

        Raises:
            DamagedFileError: there is no such sample, or its rows were changed after they were written. Some errors
                come only after the last row.
        """
        if sample is not None and sample not in self._spans:
            raise MANIFEST.damaged(self._path, f"it has no sample {sample!r}")
        wanted = self._counted if sample is None else {sample: self._counted[sample]}
        start, stop = (0, int(self._ends[-1])) if sample is None else self._spans[sample]
        counted: Counted = {name: [0, 0] for name in wanted}
        first, last = np.searchsorted(self._ends, start, "right") - 1, np.searchsorted(self._ends, stop, "left")
        for group in range(first, last) if stop > start else ():
            offset = int(self._ends[group])
            table = self._group(group)
            table = table.slice(max(0, start - offset), min(stop - offset, len(table)) - max(0, start - offset))
            _count(table, counted)
            yield table
        if counted != wanted:
            raise MANIFEST.damaged(self._path, "its rows do not match their checksums, it was changed")

    def batches(self, sample: str | None = None) -> Iterator[pd.DataFrame]:
        """Yield the rows of `tables` as frames."""
        return (table.to_pandas() for table in self.tables(sample))

    def embedded(self, sample: str | None = None) -> Iterator[pd.DataFrame]:
        """Yield those rows of `batches` that have an embedding."""
        return map(embedded, self.batches(sample))

    def rows(self, sample: str | None = None) -> pd.DataFrame:
        """Return the rows of `batches` in memory."""
        return pa.concat_tables([SCHEMA.empty_table(), *self.tables(sample)]).to_pandas()

    def _group(self, number: int) -> pa.Table:
        """Return a row group; the last one is kept, because small samples share one."""
        if self._read is None or self._read[0] != number:
            with MANIFEST.reading(self._path):
                table = self._file.read_row_group(number, use_threads=False).cast(SCHEMA).combine_chunks()
            check_whole(table, MANIFEST, self._path)
            self._read = number, table
        return self._read[1]


class Rows:
    """Rows that come in batches, to take as many at a time as are needed."""

    def __init__(self, batches: Iterable[pd.DataFrame]) -> None:
        self._batches = iter(batches)
        self._waiting = SCHEMA.empty_table().to_pandas()

    def take(self, count: int) -> pd.DataFrame:
        """Return the next `count` rows; fewer at the end."""
        while len(self._waiting) < count and (batch := next(self._batches, None)) is not None:
            self._waiting = pd.concat([self._waiting, batch]) if len(self._waiting) else batch
        taken, self._waiting = self._waiting.iloc[:count], self._waiting.iloc[count:]
        return taken


def read_manifest(path: Path, sample: str | None = None) -> pd.DataFrame:
    """Return the rows of one sample, or of all, in memory.

    Raises:
        DamagedFileError: the manifest is incomplete, was changed after it was written, or has no such sample.
    """
    with Manifest(path) as manifest:
        return manifest.rows(sample)


def write_manifest(path: Path, manifest: pd.DataFrame, sources: Mapping[str, str]) -> None:
    """Write rows that are in memory, as a manifest with one row group; for the rest see `manifest_writer`."""
    with manifest_writer(path, sources) as write:
        write(pa.Table.from_pandas(manifest, schema=SCHEMA, preserve_index=False))


def fasta_sha256(path: Path) -> dict[str, str]:
    """Return the sha256 of each sample's FASTA file as it was when the manifest was made.

    Raises:
        DamagedFileError: the manifest is incomplete.
    """
    with MANIFEST.reading(path):
        file = pq.ParquetFile(path)
    with file:
        return _stored(path, file, SOURCES)


def embedded(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have an embedding, in input order."""
    return manifest[manifest.status != REJECTED]


def embedded_rows(table: pa.Table) -> pa.Table:
    """Return `embedded` of a table; the table itself if none of its rows is rejected."""
    is_kept = pc.not_equal(table["status"], REJECTED)
    return table if pc.all(is_kept).as_py() else table.filter(is_kept)


def _stored(path: Path, file: pq.ParquetFile, key: bytes) -> dict:
    """Return the value of `key` in the metadata of a manifest.

    Raises:
        DamagedFileError: the columns are not those of a manifest, or the value is missing or invalid.
    """
    with MANIFEST.reading(path):
        schema, metadata = file.schema_arrow, file.metadata.metadata or {}
    if not schema.equals(SCHEMA):
        raise MANIFEST.damaged(path, f"its columns are {', '.join(schema.names)}, not those of a manifest")
    if key not in metadata:
        raise MANIFEST.damaged(path, f"it has no {key.decode()}: an earlier version wrote it, or it was changed")
    try:
        stored = json.loads(metadata[key])
    except ValueError as error:
        raise MANIFEST.damaged(path, f"its metadata {key.decode()}: {error}") from error
    if not isinstance(stored, dict):
        raise MANIFEST.damaged(path, f"its metadata {key.decode()} is not a table")
    return stored


def _is_counted(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(one) is int and one >= 0 for one in value)


def _count(table: pa.Table, counted: Counted) -> None:
    """Add the rows of a table to the numbers and checksums of their samples."""
    table = table.combine_chunks()
    names = table["sample"].to_numpy()
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]][: len(names)])  # the rows of a sample are adjacent
    for start, end in itertools.pairwise([*starts, len(names)]):
        rows, value = counted.get(names[start], (0, 0))
        for column in table.slice(start, end - start).columns:
            value = zlib.crc32(_bytes(column.chunk(0)), value)
        counted[names[start]] = [rows + int(end - start), value]


def _bytes(column: pa.Array) -> bytes:
    """Return the bytes of an array: its numbers; or the lengths of its texts, and the texts."""
    if not pa.types.is_string(column.type):
        return column.to_numpy().tobytes()
    _, offsets, texts = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return np.diff(ends).tobytes() + (memoryview(texts)[ends[0] : ends[-1]] if texts else b"")
