"""Classify the records of FASTA files: accepted, changed or rejected, and why."""

import logging
import string
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import FastaError
from ..system.progress import progress_bar
from .alphabet import (
    first_residues,
    invalid_characters,
    looks_like_nucleotides,
    mask_count,
    normalise,
    refget_digest,
    replace_invalid,
    residue_count,
)
from .fasta import MAX_RESIDUES, Record, read_records
from .manifest import ACCEPTED, REJECTED, REPLACED, SPLIT, TRUNCATED, RecordRow
from .options import ChunkOptions, LongProteins
from .rejects import RejectLog

log = logging.getLogger(__name__)

ADVICE = {  # what to do about characters that are not residues
    ":|/": "if they separate chains, write a record for each chain",
    "#": "a masked residue is written <mask>",
    "<>": "<mask> is the only special token that is allowed",
    string.digits: "if they number lines or positions, leave them out",
}


class Classified(NamedTuple):
    """The sequence that is kept of a record, its status in the manifest, and the reason (empty if accepted)."""

    sequence: str
    status: str
    reason: str


def read_sample(name: str, path: Path, options: ChunkOptions) -> Iterator[tuple[RecordRow, str]]:
    """Yield the row and the sequence of each record of a sample, in order; a rejected one has no sequence.

    Ids are as they stand in the file: the same one may come again.

    Raises:
        FastaError: see `chunk_samples`.
    """
    has_ids, like_nucleotides, first_like_them = False, 0, None
    rejects = RejectLog(path, "rejected.tsv")
    with progress_bar(None, "records", f"reading {name}") as bar:
        for position, record in enumerate(read_records(path, options.records.max_record_residues or MAX_RESIDUES)):
            has_ids |= bool(record.id)
            kept = classify(path, record, options.records.on_invalid)
            if kept.status != REJECTED:
                kept = limit_length(kept, options.long_proteins)
            if kept.status == REJECTED:
                rejects.add(record.line, record.id, kept.reason)
            elif looks_like_nucleotides(kept.sequence):
                like_nucleotides += 1
                first_like_them = first_like_them or (record.id, record.line)
            yield _manifest_row(name, position, record, kept), "" if kept.status == REJECTED else kept.sequence
            bar.update(1)
    rejects.close()
    if not has_ids:
        log.warning("%s: sample %s has no record with an id", path, name)
    if first_like_them and not options.translated:
        log.warning(
            "%s: %d records of sample %s look like nucleotides, the first is %r on line %d; they are kept as "
            "proteins; set input: nucleotide to translate them",
            path,
            like_nucleotides,
            name,
            *first_like_them,
        )


def classify(path: Path, record: Record, on_invalid: str) -> Classified:
    """Return whether and how a record is kept; its length is not checked.

    Raises:
        FastaError: the record is invalid, and `on_invalid` is `fail`.
    """
    sequence = normalise(record.sequence)
    invalid = invalid_characters(sequence)
    if not record.id:
        reason = "header without an id"
    elif not sequence:
        reason = "no residue"
    elif invalid:
        reason = "; ".join(
            (f"characters that are not residues: {' '.join(map(repr, invalid[:10]))}", *_advice(invalid))
        )
        if on_invalid == "replace":
            return Classified(replace_invalid(sequence), REPLACED, reason)
    else:
        return Classified(sequence, ACCEPTED, "")
    if on_invalid == "fail":
        raise FastaError(
            f"{path}, line {record.line}: record {record.id!r}: {reason}; "
            "correct it, or set on_invalid: reject or replace"
        )
    return Classified(sequence, REJECTED, reason)


def limit_length(kept: Classified, options: LongProteins) -> Classified:
    """Return whether and how a record is kept that was not rejected, by its length."""
    residues, longest = residue_count(kept.sequence), options.max_length
    if longest is None or residues <= longest:
        return kept
    sequence = kept.sequence
    if options.action == "reject":
        status, reason = REJECTED, f"{residues} residues, more than max_length {longest}"
    elif options.action == "truncate":
        sequence = first_residues(sequence, longest)
        status, reason = TRUNCATED, f"the first {longest} of {residues} residues"
    else:
        windows = len(options.windows.starts(residues))
        status, reason = SPLIT, f"{residues} residues in {windows} windows of {longest}"
    return Classified(sequence, status, "; ".join(filter(None, (kept.reason, reason))))


def _manifest_row(sample: str, position: int, record: Record, kept: Classified) -> RecordRow:
    return RecordRow(
        sample=sample,
        position=position,
        id=record.id,
        description=record.description,
        line=record.line,
        length=residue_count(kept.sequence),
        masks=mask_count(kept.sequence),
        digest=refget_digest(kept.sequence) if kept.status != REJECTED else "",
        status=kept.status,
        reason=kept.reason,
    )


def _advice(invalid: str) -> list[str]:
    """Return what to do about the invalid characters of a record."""
    return [advice for characters, advice in ADVICE.items() if set(characters) & set(invalid)]
