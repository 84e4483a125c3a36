"""Read all samples, keep one copy of equal sequences, and deal them to chunks of equal work."""

import heapq
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..system.files import replacing, sha256, write_json
from ..system.progress import progress_bar
from .fasta import (
    FastaError,
    Record,
    invalid_characters,
    looks_like_nucleotides,
    normalise,
    read_records,
    refget_digest,
    unique_id,
)
from .manifest import ACCEPTED, REJECTED, REPLACED, SCHEMA, SPLIT, STATUSES, TRUNCATED, write_manifest
from .windows import Windows

log = logging.getLogger(__name__)

ON_INVALID = ("reject", "fail", "replace")
ON_DUPLICATE_ID = ("fail", "suffix")
TOO_LONG = ("reject", "truncate", "split")


@dataclass(frozen=True)
class LengthLimit:
    """What becomes of a record of more than `max_length` residues.

    `reject`, `truncate` (the first `max_length` are kept), or `split`: kept whole, to be embedded in windows of
    `max_length` residues that overlap by at least `overlap`. None: records may have any length.
    """

    max_length: int | None = None
    too_long: str = "reject"
    overlap: int = 0

    def judge(self, sequence: str) -> tuple[str, str, str]:
        """Return (what is kept of a sequence, status, reason), the last two empty where nothing is to be done."""
        residues = len(sequence)
        if self.max_length is None or residues <= self.max_length:
            return sequence, "", ""
        if self.too_long == "reject":
            return sequence, REJECTED, f"{residues} residues, more than max_length {self.max_length}"
        if self.too_long == "truncate":
            return sequence[: self.max_length], TRUNCATED, f"the first {self.max_length} of {residues} residues"
        windows = len(Windows(self.max_length, self.overlap).starts(residues))
        return sequence, SPLIT, f"{residues} residues in {windows} windows of {self.max_length}"


@dataclass
class _Reading:
    """What has been read so far: rows of the manifest, and the unique sequences by digest."""

    rows: list[tuple] = field(default_factory=list)  # SCHEMA's columns up to `reason`
    unique: dict[str, tuple[str, str]] = field(default_factory=dict)  # digest: (sequence, first name)


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

    Raises:
        FastaError: a file that cannot be read, a repeated id, an invalid record where `on_invalid` is `fail`.
    """
    reading = _Reading()
    for name, path in samples:
        like_nucleotides = _read_sample(name, path, reading, on_invalid, on_duplicate_id, limit)
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
    write_manifest(manifest_path, manifest, {name: sha256(path) for name, path in samples})
    _write_rejected(rejected_path, manifest)
    counts = _count(manifest, reading.unique, [name for name, _ in samples])
    write_json(counts_path, counts)
    return counts


def _read_sample(
    name: str, path: Path, reading: _Reading, on_invalid: str, on_duplicate_id: str, limit: LengthLimit
) -> list[tuple[str, int]]:
    """Add a sample's records to `reading`; return (id, line) of those that look like nucleotides."""
    like_nucleotides = []
    first_line: dict[str, int] = {}
    last_suffix: dict[str, int] = {}
    with progress_bar(None, "records", f"reading {name}") as bar:
        for position, record in enumerate(read_records(path)):
            record_id = record.id and unique_id(path, record, first_line, last_suffix, on_duplicate_id)
            sequence, status, reason = _judge(path, record, on_invalid)
            if status != REJECTED:
                sequence, cut, why = limit.judge(sequence)
                status, reason = cut or status, "; ".join(filter(None, (reason, why)))
            digest = refget_digest(sequence) if status != REJECTED else ""
            if digest:
                reading.unique.setdefault(digest, (sequence, f"{name}|{record_id}"))
                if looks_like_nucleotides(sequence):
                    like_nucleotides.append((record_id, record.line))
            reading.rows.append(
                (
                    name,
                    position,
                    record_id,
                    record.description,
                    record.line,
                    len(sequence),
                    digest,
                    status,
                    reason,
                )
            )
            bar.update(1)
    if last_suffix:
        log.warning("%s: %d ids stood more than once and got suffixes", path, len(last_suffix))
    if not first_line:
        log.warning("%s: sample %s has no record with an id", path, name)
    return like_nucleotides


def _judge(path: Path, record: Record, on_invalid: str) -> tuple[str, str, str]:
    """Return (normalised sequence, status, reason) of a record."""
    sequence = normalise(record.sequence)
    invalid = invalid_characters(sequence)
    if not record.id:
        reason = "header without an id"
    elif not sequence:
        reason = "no residue"
    elif invalid:
        reason = f"no residue letter: {' '.join(map(repr, invalid[:10]))}"
        if on_invalid == "replace":
            return sequence.translate({ord(c): "X" for c in invalid}), REPLACED, reason
    else:
        return sequence, ACCEPTED, ""
    if on_invalid == "fail":
        raise FastaError(
            f"{path}, line {record.line}: record {record.id!r}: {reason}; mend it, or set on_invalid: reject or replace"
        )
    log.warning("%s, line %d: record %r rejected: %s", path, record.line, record.id, reason)
    return sequence, REJECTED, reason


def work(length: int, embed_dim: int) -> int:
    """Return the estimated work of a sequence of `length` residues: 12 d^2 L + 2 d L^2 a layer, over 2 d."""
    return length * (6 * embed_dim + length)


def deal(lengths: Sequence[int], chunks: int, embed_dim: int) -> list[list[int]]:
    """Deal sequences to chunks so that each has nearly the same work; inside a chunk in order of index.

    Longest processing time first (Graham 1969): each sequence, by falling length, to the chunk with least work.
    """
    loads = [(0, chunk) for chunk in range(chunks)]
    dealt: list[list[int]] = [[] for _ in range(chunks)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, chunk = heapq.heappop(loads)
        dealt[chunk].append(index)
        heapq.heappush(loads, (load + work(lengths[index], embed_dim), chunk))
    return [sorted(indices) for indices in dealt]


def _write_chunks(
    paths: Sequence[Path], digests: list[str], unique: dict[str, tuple[str, str]], embed_dim: int
) -> dict[str, tuple[int, int]]:
    """Write each chunk, named by digest, and return {digest: (chunk, row)}."""
    place = {}
    lengths = [len(unique[digest][0]) for digest in digests]
    for chunk, indices in enumerate(deal(lengths, len(paths), embed_dim)):
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
        "unique_residues": sum(len(sequence) for sequence, _ in unique.values()),
        "samples": {name: of(manifest[manifest["sample"] == name]) for name in samples},
    }
