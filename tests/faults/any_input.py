"""What must hold of any bytes that are given as FASTA: shared by hypothesis and the fuzzer."""

import gzip
import zlib
from pathlib import Path

import pandas as pd
from packed_esm.errors import FastaError
from packed_esm.sequences.alphabet import refget_digest, residue_count
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.fasta import read_records
from packed_esm.sequences.manifest import read_manifest
from packed_esm.sequences.options import ON_DUPLICATE_ID, ON_INVALID, ChunkOptions, RecordOptions
from packed_esm.sequences.records import read_sample
from packed_esm.system.files import read_json


def headers(data: bytes) -> int | None:
    """Return how many records any bytes have as FASTA, counted without the parser; None if they cannot be read."""
    try:
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None
    return sum(line.startswith(">") for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def check_reading(fasta: Path, data: bytes, on_invalid: str, on_duplicate_id: str) -> str:
    """Read any bytes as a sample, without what is written of it; hold each record to have a row. Return as below."""
    fasta.write_bytes(data)
    options = ChunkOptions(RecordOptions(on_invalid, on_duplicate_id))
    try:
        records = list(read_sample("s", fasta, options))
    except FastaError as error:
        assert str(fasta) in str(error) and "\n" not in str(error), error
        return str(error)
    assert len(records) == headers(data)
    for position, (row, sequence) in enumerate(records):
        assert row.position == position and row.status in ("accepted", "replaced", "rejected")
        assert bool(row.reason) == (row.status != "accepted") and bool(row.digest) == (row.status != "rejected")
        assert bool(sequence) == bool(row.digest) and (not sequence or refget_digest(sequence) == row.digest)
        assert not row.digest or residue_count(sequence) == row.length > 0
        assert 0 <= row.masks <= row.length
    return "embedded"


def check_any_bytes(folder: Path, data: bytes, on_invalid: str, on_duplicate_id: str) -> str:
    """Chunk any bytes; hold what comes out to account for every record. Return `embedded` or the message."""
    assert on_invalid in ON_INVALID and on_duplicate_id in ON_DUPLICATE_ID
    fasta, manifest_path, rejected, counts_path = (folder / n for n in ("s.fasta", "m.parquet", "r.tsv", "c.json"))
    fasta.write_bytes(data)
    chunks = [folder / "1.fasta", folder / "2.fasta"]
    try:
        options = ChunkOptions(RecordOptions(on_invalid, on_duplicate_id))
        chunk_samples([("s", fasta)], chunks, manifest_path, rejected, counts_path, options)
    except FastaError as error:
        assert str(fasta) in str(error) and "\n" not in str(error), error
        return str(error)
    counts, manifest = read_json(counts_path), read_manifest(manifest_path)
    assert counts["records"] == len(manifest) == headers(data)
    assert counts["records"] == counts["accepted"] + counts["replaced"] + counts["rejected"]
    table = pd.read_csv(rejected, sep="\t", dtype=str, keep_default_na=False)
    assert table["id"].tolist() == manifest["id"][manifest["status"] != "accepted"].tolist()
    sequences = [[record.sequence for record in read_records(path)] for path in chunks]
    assert sum(map(len, sequences)) == counts["unique_sequences"]
    for row in manifest[manifest["status"] != "rejected"].itertuples():
        assert refget_digest(sequences[row.chunk][row.row]) == row.digest
    return "embedded"
