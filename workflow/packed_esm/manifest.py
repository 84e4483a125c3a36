"""The manifest: one row for every input record, and what became of it."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from .files import damage_named, replacing

ACCEPTED, REPLACED, REJECTED = "accepted", "replaced", "rejected"

SCHEMA = pa.schema(
    {
        "sample": pa.string(),
        "position": pa.int64(),  # in the sample, from 0
        "id": pa.string(),
        "description": pa.string(),
        "line": pa.int64(),  # of the header, from 1
        "length": pa.int32(),  # residues
        "digest": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
        "chunk": pa.int32(),  # from 0; -1 where rejected
        "row": pa.int32(),  # in the chunk, from 0; -1 where rejected
    }
)


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Write the manifest as Parquet."""
    with replacing(path) as temporary:
        manifest.to_parquet(temporary, schema=SCHEMA, index=False, write_page_checksum=True)


def read_manifest(path: Path, sample: str | None = None) -> pd.DataFrame:
    """Return the manifest, of one sample or of all.

    Raises:
        DamagedFileError: not a whole manifest.
    """
    filters = None if sample is None else [("sample", "==", sample)]
    with damage_named(path, "manifest"):
        return pd.read_parquet(path, filters=filters, page_checksum_verification=True)


def embedded(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have an embedding, in input order."""
    return manifest[manifest.status != REJECTED]
