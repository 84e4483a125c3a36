"""Read all samples, keep one copy of equal sequences, and assign them to chunks of equal work."""

import heapq
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..system.files import file_identity, replacing, write_json
from .alphabet import residue_count
from .fasta import sha256_as_read
from .manifest import ACCEPTED, NOWHERE, REJECTED, STATUSES, Place, RecordRow, write_manifest
from .options import ChunkOptions
from .records import Reading, Unique, read_sample

log = logging.getLogger(__name__)


def chunk_samples(
    samples: Sequence[tuple[str, Path]],
    chunk_paths: Sequence[Path],
    manifest_path: Path,
    rejected_path: Path,
    counts_path: Path,
    options: ChunkOptions = ChunkOptions(),  # noqa: B008
) -> dict:
    """Write the chunks (FASTA), the manifest (Parquet), the rejects (TSV) and the counts (JSON); return the counts.

    Args:
        samples: (name, FASTA path), in order.
        chunk_paths: one file per chunk; some may stay empty.
        manifest_path, rejected_path, counts_path: the other outputs.
        options: what happens to invalid records and to long proteins.

    Raises:
        FastaError: a file cannot be read; or an id is repeated, or a record invalid, and the option for it is `fail`.
    """
    reading, sources = _read_samples(samples, options)
    places = _write_chunks(chunk_paths, reading.unique, options.embed_dim)
    manifest = _manifest(reading.rows, places)
    write_manifest(manifest_path, manifest, sources)
    _write_rejected(rejected_path, manifest)
    counts = _count(manifest, reading.unique, list(sources)) | {"fasta_sha256": sources}
    write_json(counts_path, counts)
    return counts


def _read_samples(samples: Sequence[tuple[str, Path]], options: ChunkOptions) -> tuple[Reading, dict[str, str]]:
    """Return the records and sequences of all samples, and {sample: sha256 of its FASTA file}."""
    reading = Reading()
    identities = [file_identity(path) for _, path in samples]
    for name, path in samples:
        nucleotide_like = read_sample(name, path, reading, options)
        if nucleotide_like and not options.translated:
            log.warning(
                "%s: %d records of sample %s look like nucleotides, the first is %r on line %d; they are kept as "
                "proteins; set input: nucleotide to translate them",
                path,
                len(nucleotide_like),
                name,
                *nucleotide_like[0],
            )
    sources = {name: sha256_as_read(path, identity) for (name, path), identity in zip(samples, identities, strict=True)}
    return reading, sources


def _manifest(rows: list[RecordRow], places: Mapping[str, Place]) -> pd.DataFrame:
    """Return the manifest: all records in order, each with its place in the chunks."""
    manifest = pd.DataFrame(rows, columns=RecordRow._fields)
    of_records = [places.get(digest, NOWHERE) for digest in manifest.digest]
    return manifest.join(pd.DataFrame(of_records, columns=Place._fields))


def estimated_flops(length: int, embed_dim: int) -> int:
    """Return the estimated work of a sequence of `length` residues: 12 d^2 L + 2 d L^2 per layer, in units of 2 d."""
    return length * (6 * embed_dim + length)


def assign_to_chunks(lengths: Sequence[int], chunks: int, embed_dim: int) -> list[list[int]]:
    """Assign sequences to chunks of nearly equal work; return the indices of each chunk, in increasing order.

    Longest processing time first (Graham 1969): by decreasing length, each sequence goes to the chunk with least work.
    """
    loads = [(0, chunk) for chunk in range(chunks)]
    assigned: list[list[int]] = [[] for _ in range(chunks)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, chunk = heapq.heappop(loads)
        assigned[chunk].append(index)
        heapq.heappush(loads, (load + estimated_flops(lengths[index], embed_dim), chunk))
    return [sorted(indices) for indices in assigned]


def _write_chunks(paths: Sequence[Path], unique: Mapping[str, Unique], embed_dim: int) -> dict[str, Place]:
    """Write each chunk, with the digests as ids of its records; return {digest: place}."""
    places = {}
    digests = list(unique)
    lengths = [residue_count(unique[digest].sequence) for digest in digests]
    for chunk, indices in enumerate(assign_to_chunks(lengths, len(paths), embed_dim)):
        with replacing(paths[chunk]) as temporary, temporary.open("w", encoding="utf-8") as handle:
            for row, index in enumerate(indices):
                digest = digests[index]
                sequence, name = unique[digest]
                handle.write(f">{digest} {name}\n{sequence}\n")
                places[digest] = Place(chunk, row)
    return places


def _write_rejected(path: Path, manifest: pd.DataFrame) -> None:
    """Write the records that were rejected or changed, each with its reason."""
    unusual = manifest[manifest.status != ACCEPTED]
    with replacing(path) as temporary:
        unusual[["sample", "id", "line", "status", "reason"]].to_csv(temporary, sep="\t", index=False)


def _count(manifest: pd.DataFrame, unique: Mapping[str, Unique], samples: list[str]) -> dict:
    def counts_of(rows: pd.DataFrame) -> dict:
        statuses = rows.status.value_counts()
        kept = rows[rows.status != REJECTED]
        return {
            "records": len(rows),
            **{status: int(statuses.get(status, 0)) for status in STATUSES},
            "residues": int(kept.length.sum()),
        }

    return {
        **counts_of(manifest),
        "unique_sequences": len(unique),
        "unique_residues": sum(residue_count(one.sequence) for one in unique.values()),
        "samples": {name: counts_of(manifest[manifest["sample"] == name]) for name in samples},
    }
