"""Read all samples, keep one copy of equal sequences, and deal them to chunks of equal work."""

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
        chunk_paths: where the chunks go; their number is the number of chunks, some may stay empty.
        manifest_path, rejected_path, counts_path: where the other outputs go.
        options: what happens to records that cannot be used as they are, or are too long.

    Raises:
        FastaError: a file that cannot be read, a repeated id, an invalid record where `on_invalid` is `fail`.
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
    """Return what all samples have, and {sample: sha256 of its FASTA file}."""
    reading = Reading()
    identities = [file_identity(path) for _, path in samples]
    for name, path in samples:
        like_nucleotides = read_sample(name, path, reading, options)
        if like_nucleotides and not options.translated:
            log.warning(
                "%s: %d records of sample %s look like nucleotides, first %r on line %d; they are kept as proteins, "
                "set input: nucleotide to have them translated",
                path,
                len(like_nucleotides),
                name,
                *like_nucleotides[0],
            )
    sources = {name: sha256_as_read(path, identity) for (name, path), identity in zip(samples, identities, strict=True)}
    return reading, sources


def _manifest(rows: list[RecordRow], places: Mapping[str, Place]) -> pd.DataFrame:
    """Return the manifest: all records in order, each with its place in the chunks."""
    manifest = pd.DataFrame(rows, columns=RecordRow._fields)
    found = [places.get(digest, NOWHERE) for digest in manifest.digest]
    return manifest.join(pd.DataFrame(found, columns=Place._fields))


def estimated_flops(length: int, embed_dim: int) -> int:
    """Return the estimated work of a sequence of `length` residues: 12 d^2 L + 2 d L^2 a layer, in units of 2 d."""
    return length * (6 * embed_dim + length)


def assign_to_chunks(lengths: Sequence[int], chunks: int, embed_dim: int) -> list[list[int]]:
    """Deal sequences to chunks so that each has nearly the same work; inside a chunk in order of index.

    Longest processing time first (Graham 1969): each sequence, by falling length, to the chunk with least work.
    """
    loads = [(0, chunk) for chunk in range(chunks)]
    dealt: list[list[int]] = [[] for _ in range(chunks)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, chunk = heapq.heappop(loads)
        dealt[chunk].append(index)
        heapq.heappush(loads, (load + estimated_flops(lengths[index], embed_dim), chunk))
    return [sorted(indices) for indices in dealt]


def _write_chunks(paths: Sequence[Path], unique: Mapping[str, Unique], embed_dim: int) -> dict[str, Place]:
    """Write each chunk, its records named by their digests, and return {digest: place}."""
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
    """Write the records that were rejected or changed, with the reason."""
    unusual = manifest[manifest.status != ACCEPTED]
    with replacing(path) as temporary:
        unusual[["sample", "id", "line", "status", "reason"]].to_csv(temporary, sep="\t", index=False)


def _count(manifest: pd.DataFrame, unique: Mapping[str, Unique], samples: list[str]) -> dict:
    def of(rows: pd.DataFrame) -> dict:
        statuses = rows.status.value_counts()
        kept = rows[rows.status != REJECTED]
        return {
            "records": len(rows),
            **{status: int(statuses.get(status, 0)) for status in STATUSES},
            "residues": int(kept.length.sum()),
        }

    return {
        **of(manifest),
        "unique_sequences": len(unique),
        "unique_residues": sum(residue_count(one.sequence) for one in unique.values()),
        "samples": {name: of(manifest[manifest["sample"] == name]) for name in samples},
    }
