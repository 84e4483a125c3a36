"""Embedding files: the memory-mappable Arrow file of a chunk, and the Parquet file of a sample.

Both have `digest`, `length`, one fixed-size list for each pooling and layer (`mean_33`), of float32 or as the setting
`pooled_dtype` says, a float32 `log_likelihood` where it is included, and `checksum`: the crc32 of the digest and the
row's values as float32. The job that computes the values makes the checksum, and every later file copies it, so that a
changed value or a shifted row is noticed. The file of a sample begins with the record's `id` and `accession`. With
`rows_per_file` a sample is a folder of such files, of the name that its file would have.
"""

import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import EmbeddingFileError, NonFiniteError
from ..outputs.columns import column_names
from ..sequences.accessions import accessions_of
from ..system.arrow import ARROW_ERRORS, array_of_numbers, as_texts, bytes_of_texts, check_whole
from ..system.files import FileKind, parquet_parts, replacing, replacing_folder
from .settings import from_metadata, to_metadata

BATCH_ROWS = 4096  # rows held at a time when a file is read in batches
CACHED_BYTES = 2**18  # of rows that are copied and checked before the next, so that they stay in the cache
CHUNK_FILE = FileKind("file of chunk embeddings", ARROW_ERRORS, EmbeddingFileError)
SAMPLE_FILE = FileKind("Parquet file of embeddings", ARROW_ERRORS, EmbeddingFileError)
PART = "part-{:05}.parquet"  # from 1, in a folder of parts
NAMES = ("id", "accession")  # of a record, in the file of a sample; files of older versions have no accession
FIXED_TYPES = {
    **dict.fromkeys((*NAMES, "digest"), pa.string()),
    "length": pa.int32(),
    "checksum": pa.uint32(),
}


def row_checksums(digests: Sequence[str] | pa.StringArray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the crc32 of each digest followed by its row of every column, uint32 [n]."""
    texts = as_texts(digests)
    checksums = np.empty(len(texts), dtype=np.uint32)
    matrices = [np.ascontiguousarray(matrix, dtype="<f4") for matrix in columns.values()]
    step = rows_in_cache(columns)
    for start in range(0, len(texts), step):
        some = slice(start, start + step)
        values = map(zlib.crc32, bytes_of_texts(texts[some]))
        for matrix in matrices:
            rows = matrix[some].view(f"V{4 * matrix.shape[1]}").ravel().tolist()  # as bytes, sooner than row by row
            values = map(zlib.crc32, rows, values)
        checksums[some] = list(values)
    return checksums


def rows_in_cache(columns: Mapping[str, np.ndarray]) -> int:
    """Return the number of rows of `columns` whose values are CACHED_BYTES in float32."""
    return max(1, CACHED_BYTES // (4 * max(1, sum(matrix.shape[1] for matrix in columns.values()))))


def vector_dtype(settings: Mapping) -> type[np.floating]:
    """Return the dtype of the vectors in a file of embeddings with these settings."""
    return getattr(np, settings.get("pooled_dtype", "float32"))


def in_dtype(columns: Mapping[str, np.ndarray], settings: Mapping, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return columns, float32 [n, width], with the vectors rounded to `vector_dtype` and still float32.

    Args:
        columns: {name: float32 [n, width]}.
        settings: of the file.
        names: of the n sequences, for messages.

    Raises:
        NonFiniteError: a value is beyond the dtype.
    """
    dtype = vector_dtype(settings)
    if dtype is np.float32:
        return dict(columns)
    with np.errstate(over="ignore"):
        rounded = {name: x.astype(dtype).astype(np.float32) if x.shape[1] > 1 else x for name, x in columns.items()}
    for name, matrix in rounded.items():
        for row in np.flatnonzero(~np.isfinite(matrix).all(1))[:1]:
            raise NonFiniteError(f"{names[row]}: {name} has a value beyond float16; use pooled_dtype: float32")
    return rounded


def embedding_table(
    digests: Sequence[str] | pa.StringArray,
    lengths: Sequence[int],
    columns: Mapping[str, np.ndarray],
    checksums: np.ndarray,
    ids: Sequence[str] | pa.StringArray | None = None,
    dtype: type[np.floating] = np.float32,
) -> pa.Table:
    """Return the table of embeddings; ids and accessions come first, if given.

    Args:
        digests, lengths, checksums: of the sequences.
        columns: {name: float32 [n, width]}.
        ids: of the records.
        dtype: of the vectors.
    """
    arrays: dict[str, pa.Array] = {}
    if ids is not None:
        arrays["id"] = as_texts(ids)
        arrays["accession"] = accessions_of(arrays["id"])
    arrays["digest"] = as_texts(digests)
    arrays["length"] = array_of_numbers(np.asarray(lengths, np.int32))
    for name, matrix in columns.items():
        width = matrix.shape[1]
        values = array_of_numbers(np.ascontiguousarray(matrix, dtype if width > 1 else np.float32).reshape(-1))
        arrays[name] = values if width == 1 else pa.FixedSizeListArray.from_arrays(values, width)
    arrays["checksum"] = array_of_numbers(np.asarray(checksums, np.uint32))
    return pa.table(arrays)


def write_chunk(
    path: Path,
    digests: Sequence[str],
    lengths: Sequence[int],
    columns: Mapping[str, np.ndarray],
    settings: dict,
    checksums: np.ndarray | None = None,
) -> None:
    """Write the embeddings of a chunk in its order as one Arrow record batch; checksums are made unless given."""
    if checksums is None:
        checksums = row_checksums(digests, columns)
    table = embedding_table(digests, lengths, columns, checksums, dtype=vector_dtype(settings))
    table = table.replace_schema_metadata(to_metadata(settings))
    with replacing(path) as temporary, pa.ipc.new_file(temporary, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))


def schema_settings(schema: pa.Schema, kind: FileKind, path: Path) -> dict:
    """Return the settings in the metadata of a file of embeddings.

    Raises:
        EmbeddingFileError: the settings are missing or changed, or the columns do not match them.
    """
    settings = from_metadata(schema.metadata, kind, path)
    wanted = ["digest", "length", *column_names(settings), "checksum"]
    if [name for name in schema.names if name not in NAMES] != wanted:
        why = f"its columns are {', '.join(schema.names)}, but its settings give {', '.join(wanted)}"
        raise kind.damaged(path, why)
    of_vectors = pa.from_numpy_dtype(vector_dtype(settings))
    for field in schema:
        if not _is_right_type(field, of_vectors):
            raise kind.damaged(path, f"its column {field.name} is of type {field.type}")
    return settings


def _is_right_type(field: pa.Field, of_vectors: pa.DataType) -> bool:
    if field.name in FIXED_TYPES:
        return field.type == FIXED_TYPES[field.name]
    if pa.types.is_fixed_size_list(field.type):
        return field.type.value_type == of_vectors and field.type.list_size > 0
    return pa.types.is_float32(field.type)


def chunk_settings(path: Path) -> dict:
    """Return the settings in the metadata of a chunk's file, without reading its rows.

    Raises:
        EmbeddingFileError: not a whole file of chunk embeddings.
    """
    with CHUNK_FILE.reading(path):
        schema = pa.ipc.open_file(pa.memory_map(str(path))).schema
    return schema_settings(schema, CHUNK_FILE, path)


class ChunkFile:
    """A chunk's embeddings, memory-mapped: `columns` {name: float32 [n, E]}, `checksums` uint32 [n], `settings`.

    Args:
        path: of the file.
        is_checked: whether this process has opened it before; then its digests are not read again.
    """

    def __init__(self, path: Path, is_checked: bool = False) -> None:
        self.path = path
        with CHUNK_FILE.reading(path):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.settings = schema_settings(table.schema, CHUNK_FILE, path)
        if not is_checked:
            check_whole(table, CHUNK_FILE, path)
        self._digests = whole(table["digest"])
        self.checksums = table["checksum"].to_numpy()
        self.columns = embedding_columns(table)

    def __len__(self) -> int:
        return len(self._digests)

    def digests(self, rows: np.ndarray) -> pa.StringArray:
        """Return the digests of `rows`."""
        return self._digests.take(array_of_numbers(rows))

    def values(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return {name: float32 [n, E]} of `rows`.

        Raises:
            EmbeddingFileError: the values or the digest of a row do not match its checksum; the message has the first.
        """
        digests, values = self.digests(rows), {name: matrix[rows] for name, matrix in self.columns.items()}
        for wrong in np.flatnonzero(row_checksums(digests, values) != self.checksums[rows])[:1]:
            raise EmbeddingFileError(
                f"{self.path}, row {rows[wrong]}, sequence {digests[wrong]}: values or digest do not match "
                "their checksum, the file was changed; remove it and run again"
            )
        return values


def embedding_columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the embedding columns of a table as matrices, float32 [n, width]; of one batch float32 is not copied."""
    matrices = {}
    for field in table.schema:
        if pa.types.is_fixed_size_list(field.type):
            values = whole(table[field.name]).flatten()
            matrices[field.name] = values.to_numpy().reshape(-1, field.type.list_size).astype(np.float32, copy=False)
        elif pa.types.is_float32(field.type):
            matrices[field.name] = whole(table[field.name]).to_numpy()[:, None]
    return matrices


def whole(column: pa.ChunkedArray) -> pa.Array:
    # combine_chunks() copies even a single chunk.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class SampleWriter:
    """Write the embeddings of a sample as Parquet, batch by batch; a context manager that renames at the end.

    Args:
        path: of the file, or of the folder of parts.
        settings: of the embeddings.
        rows_per_file: in a part at most; None for one file.
    """

    def __init__(self, path: Path, settings: dict, rows_per_file: int | None = None) -> None:
        self._path, self._rows_per_file = path, rows_per_file
        self._metadata = to_metadata(settings)
        self._parts, self._room = 0, 0  # parts begun, rows that the last one still takes

    def __enter__(self) -> Self:
        # A stack, so that a writer that cannot even close (a full disk) leaves no file either.
        self._stack = ExitStack()
        new = replacing_folder if self._rows_per_file else replacing
        self._temporary = self._stack.enter_context(new(self._path))
        self._open = self._stack.enter_context(ExitStack())  # the last part
        return self

    def write(self, table: pa.Table) -> None:
        """Append one row group; one more for each further part that it goes into."""
        table = table.replace_schema_metadata(self._metadata)
        while not self._parts or len(table):
            if not self._room:
                self._begin_part(table.schema)
            now, table = table[: self._room], table[self._room :]
            self._writer.write_table(now, row_group_size=max(1, len(now)))
            self._room -= len(now)

    def _begin_part(self, schema: pa.Schema) -> None:
        self._open.close()
        self._parts += 1
        self._room = self._rows_per_file or sys.maxsize
        # Vectors do not compress (less than a tenth) and have no repeats for a dictionary. Statistics would let a
        # reader leave out rows, and nothing checks them.
        text = {*NAMES, "digest"}
        writer = pq.ParquetWriter(
            self._temporary / PART.format(self._parts) if self._rows_per_file else self._temporary,
            schema,
            compression={name: "zstd" if name in text else "none" for name in _leaf_names(schema)},
            use_dictionary=False,
            write_statistics=False,
        )
        self._writer = self._open.enter_context(writer)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool | None:
        if kind is None and not self._rows_per_file and self._path.is_dir():
            shutil.rmtree(self._path)  # the parts of before, which a file cannot replace
        return self._stack.__exit__(kind, *error)


def _leaf_names(schema: pa.Schema) -> list[str]:
    """Return Parquet's name of each column: a list's values are `name.list.element`."""
    return [f"{field.name}.list.element" if pa.types.is_fixed_size_list(field.type) else field.name for field in schema]


class SampleFile:
    """The embeddings of a sample, open to read: a Parquet file, or a folder of parts that are read as one file.

    One part is open at a time, because there may be more of them than a process may open.

    Attributes:
        schema_arrow: of the first part; that of each other part is equal.
        num_row_groups: of all parts.
    """

    def __init__(self, path: Path, kind: FileKind) -> None:
        self._parts, self._groups = parquet_parts(path), []
        self._open: tuple[Path, pq.ParquetFile] | None = None
        if not self._parts:
            raise kind.damaged(path, "a folder without parts")
        schemas = []
        for part in self._parts:
            with kind.reading(path):
                file = self._file(part)
                schemas.append(file.schema_arrow)
                footer = file.metadata
                self._groups += [(part, i, footer.row_group(i).num_rows) for i in range(footer.num_row_groups)]
            if not schemas[-1].equals(schemas[0], check_metadata=True):
                raise kind.damaged(path, f"columns or settings of {part.name} are not those of {self._parts[0].name}")
        self.schema_arrow, self.num_row_groups = schemas[0], len(self._groups)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._open:
            self._open[1].close()

    def rows_of_group(self, number: int) -> int:
        """Return the number of rows of a row group."""
        return self._groups[number][2]

    def read_row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a row group; all columns, or the given ones."""
        part, group, _ = self._groups[number]
        return self._file(part).read_row_group(group, columns=columns)

    def iter_batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order, so many at a time; fewer at the end of a part."""
        for part in self._parts:
            yield from self._file(part).iter_batches(rows, columns=columns)

    def _file(self, part: Path) -> pq.ParquetFile:
        if not self._open or self._open[0] != part:
            self.__exit__()
            # By default pyarrow reads ahead and keeps what it has read: the whole file would stay in memory.
            self._open = part, pq.ParquetFile(part, pre_buffer=False)
        return self._open[1]


def open_sample(path: Path, kind: FileKind = SAMPLE_FILE) -> SampleFile:
    """Return a sample's Parquet file, or folder of parts, to read in batches, a context manager.

    Raises:
        EmbeddingFileError: not a whole Parquet file, or a part that does not belong to the others.
    """
    return SampleFile(path, kind)


def sample_settings(path: Path) -> dict:
    """Return the settings in the metadata of a sample's Parquet file.

    Raises:
        EmbeddingFileError: not a whole Parquet file of this workflow.
    """
    return schema_settings(sample_schema(path), SAMPLE_FILE, path)


def sample_schema(path: Path) -> pa.Schema:
    """Return the schema of a sample's Parquet file.

    Raises:
        EmbeddingFileError: not a whole Parquet file.
    """
    with open_sample(path) as file:
        return file.schema_arrow


def sample_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a sample's Parquet file in order, BATCH_ROWS at a time; all columns, or the given ones.

    Raises:
        EmbeddingFileError: the file is damaged.
    """
    with open_sample(path) as file:
        schema_settings(file.schema_arrow, SAMPLE_FILE, path)
        for batch in SAMPLE_FILE.each(path, file.iter_batches(BATCH_ROWS, columns=columns)):
            table = pa.Table.from_batches([batch])
            check_whole(table, SAMPLE_FILE, path)
            yield table
