"""The manifest: one row per input record, with its outcome.

Its metadata has a checksum of each sample's rows, and the sha256 of each sample's FASTA file. The checksums are needed
because Parquet's own do not cover the positions of columns, the number of rows and the statistics that filters use.
"""

import itertools
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

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


class Place(NamedTuple):
    """Where a sequence is in the chunks."""

    chunk: int
    row: int


NOWHERE = Place(-1, -1)  # for rejected records
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
        "chunk": pa.int32(),  # from 0; -1 if rejected
        "row": pa.int32(),  # in the chunk, from 0; -1 if rejected
    }
)
CHECKSUMS, SOURCES = b"packed_esm_checksums", b"packed_esm_fasta_sha256"  # keys of the metadata: {sample: ...} each
BATCH_ROWS = 65536  # rows that are converted at a time
MANIFEST = FileKind("manifest", ARROW_ERRORS)


def write_manifest(path: Path, manifest: pd.DataFrame, sources: Mapping[str, str]) -> None:
    """Write the manifest as Parquet; `sources` has the sha256 of each sample's FASTA file."""
    table = pa.Table.from_pandas(manifest, schema=SCHEMA, preserve_index=False)
    metadata = {CHECKSUMS: json.dumps(_checksums(table)), SOURCES: json.dumps(dict(sources))}
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, write_page_checksum=True)


def read_manifest(path: Path, sample: str | None = None) -> pd.DataFrame:
    """Return the rows of one sample, or of all.

    Raises:
        DamagedFileError: the manifest is incomplete, or was changed after it was written.
    """
    # pyarrow's datasets, and with them its filters, are avoided: one flipped bit can make them wait forever.
    with MANIFEST.reading(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
    with file:
        written = _stored(path, file.schema_arrow, CHECKSUMS)
        batches = MANIFEST.each(path, file.iter_batches(BATCH_ROWS, use_threads=False))
        if sample is not None:
            written = {name: checksum for name, checksum in written.items() if name == sample}
            batches = (batch.filter(pc.equal(batch["sample"], sample)) for batch in batches)
        table = pa.Table.from_batches(batches, SCHEMA)
    check_whole(table, MANIFEST, path)
    if _checksums(table) != written:
        raise MANIFEST.damaged(path, "its rows do not match their checksums, it was changed")
    return table.to_pandas()


def fasta_sha256(path: Path) -> dict[str, str]:
    """Return the sha256 of each sample's FASTA file as it was when the manifest was made.

    Raises:
        DamagedFileError: the manifest is incomplete.
    """
    with MANIFEST.reading(path):
        schema = pq.read_schema(path)
    return _stored(path, schema, SOURCES)


def _stored(path: Path, schema: pa.Schema, key: bytes) -> dict:
    """Return the value of `key` in the metadata of a manifest.

    Raises:
        DamagedFileError: the columns are not those of a manifest, or the value is missing or invalid.
    """
    if not schema.equals(SCHEMA):
        raise MANIFEST.damaged(path, f"its columns are {', '.join(schema.names)}, not those of a manifest")
    try:
        stored = json.loads((schema.metadata or {}).get(key, b""))
    except ValueError as error:
        raise MANIFEST.damaged(path, f"its metadata {key.decode()}: {error}") from error
    if not isinstance(stored, dict):
        raise MANIFEST.damaged(path, f"its metadata {key.decode()} is not a table")
    return stored


def embedded(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have an embedding, in input order."""
    return manifest[manifest.status != REJECTED]


def _checksums(table: pa.Table) -> dict[str, int]:
    """Return {sample: crc32 of its rows, in order}."""
    names = table["sample"].to_numpy()
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]][: len(names)])  # the rows of a sample are adjacent
    checksums = {}
    for start, end in itertools.pairwise([*starts, len(names)]):
        value = 0
        for first in range(start, end, BATCH_ROWS):
            for column in table.slice(first, min(BATCH_ROWS, end - first)).columns:
                value = zlib.crc32(_bytes(column), value)
        checksums[names[start]] = value
    return checksums


def _bytes(column: pa.ChunkedArray) -> bytes:
    if pa.types.is_string(column.type):
        return "\0".join(column.to_pylist()).encode()  # no text of a FASTA file has a NUL
    return column.to_numpy().tobytes()
