"""Read all samples, keep one copy of equal sequences, and deal them to chunks of equal work."""

import heapq
import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..system.files import file_identity, replacing, write_json
from .alphabet import residue_count
from .fasta import MAX_RESIDUES, sha256_as_read
from .manifest import ACCEPTED, REJECTED, SCHEMA, STATUSES, write_manifest
from .records import LengthLimit, Reading, read_sample

log = logging.getLogger(__name__)


def chunk_samples(
    samples: Sequence[tuple[str, Path]],
    chunk_paths: Sequence[Path],
    manifest_path: Path,
    rejected_path: Path,
    counts_path: Path,
    on_invalid: str = "reject",
    on_duplicate_id: str = "fail",
    embed_dim: int = 1280,
    translated: bool = False,
    limit: LengthLimit = LengthLimit(),  # noqa: B008
    max_record_residues: int = MAX_RESIDUES,
) -> dict:
    """Write the chunks (FASTA), the manifest (Parquet), the rejects (TSV) and the counts (JSON); return the counts.

    Args:
        samples: (name, FASTA path), in order.
        chunk_paths: where the chunks go; their number is the number of chunks, some may stay empty.
        manifest_path, rejected_path, counts_path: where the other outputs go.
        on_invalid: what becomes of a record with characters that are no residues: `reject`, `fail`, `replace` (by X).
        on_duplicate_id: what becomes of an id that a sample has twice: `fail`, or `suffix` (_2, _3 ...).
        embed_dim: of the model, for the estimate of work.
        translated: the samples are translations: those that look like nucleotides (poly-A ...) are no mistake.
        limit: what becomes of records that are too long.
        max_record_residues: letters of a record beyond which the file is refused, before the record is in memory.

    Raises:
        FastaError: a file that cannot be read, a repeated id, an invalid record where `on_invalid` is `fail`.
        OptionError: a word that an option does not have.
    """
    reading = Reading()
    identities = [file_identity(path) for _, path in samples]
    for name, path in samples:
        like_nucleotides = read_sample(name, path, reading, on_invalid, on_duplicate_id, limit, max_record_residues)
        if like_nucleotides and not translated:
            log.warning(
                "%s: %d records of sample %s look like nucleotides, first %r on line %d; they are kept as proteins, "
                "set input: nucleotide to have them translated",
                path,
                len(like_nucleotides),
                name,
                *like_nucleotides[0],
            )
    digests = list(reading.unique)
    place = _write_chunks(chunk_paths, digests, reading.unique, embed_dim)
    names = SCHEMA.names[: -len(("chunk", "row"))]
    manifest = pd.DataFrame(reading.rows, columns=names)
    places = [place.get(digest, (-1, -1)) for digest in manifest.digest]
    manifest["chunk"], manifest["row"] = zip(*places, strict=True) if places else ([], [])
    sources = {name: sha256_as_read(path, identity) for (name, path), identity in zip(samples, identities, strict=True)}
    write_manifest(manifest_path, manifest, sources)
    _write_rejected(rejected_path, manifest)
    counts = _count(manifest, reading.unique, list(sources)) | {"fasta_sha256": sources}
    write_json(counts_path, counts)
    return counts


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


def _write_chunks(
    paths: Sequence[Path], digests: list[str], unique: dict[str, tuple[str, str]], embed_dim: int
) -> dict[str, tuple[int, int]]:
    """Write each chunk, named by digest, and return {digest: (chunk, row)}."""
    place = {}
    lengths = [residue_count(unique[digest][0]) for digest in digests]
    for chunk, indices in enumerate(assign_to_chunks(lengths, len(paths), embed_dim)):
        with replacing(paths[chunk]) as temporary, temporary.open("w", encoding="utf-8") as handle:
            for row, index in enumerate(indices):
                digest = digests[index]
                sequence, name = unique[digest]
                handle.write(f">{digest} {name}\n{sequence}\n")
                place[digest] = (chunk, row)
    return place


def _write_rejected(path: Path, manifest: pd.DataFrame) -> None:
    """Write the records that were rejected or changed, with the reason."""
    unusual = manifest[manifest.status != ACCEPTED]
    with replacing(path) as temporary:
        unusual[["sample", "id", "line", "status", "reason"]].to_csv(temporary, sep="\t", index=False)


def _count(manifest: pd.DataFrame, unique: dict[str, tuple[str, str]], samples: list[str]) -> dict:
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
        "unique_residues": sum(residue_count(sequence) for sequence, _ in unique.values()),
        "samples": {name: of(manifest[manifest["sample"] == name]) for name in samples},
    }
