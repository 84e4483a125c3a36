"""Classify the records of FASTA files: accepted, changed or rejected, and why."""

import logging
import string
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import FastaError, check_one_of
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
from .ids import RecordIds
from .manifest import ACCEPTED, REJECTED, REPLACED, SPLIT, TRUNCATED
from .rejects import RejectLog
from .windows import ResidueWindows

log = logging.getLogger(__name__)

ON_INVALID = ("reject", "fail", "replace")
ACTIONS = ("reject", "truncate", "split")
ADVICE = {  # what to do about characters that are no residue
    ":|/": "if they part chains, write a record for each chain",
    "#": "a masked residue is written <mask>",
    "<>": "of fair-esm's special tokens only <mask> can be given",
    string.digits: "if they number lines or positions, leave them out",
}


@dataclass(frozen=True)
class LengthLimit:
    """What becomes of a record of more than `max_length` residues.

    `reject`, `truncate` (the first `max_length` are kept), or `split`: kept whole, to be embedded in windows of
    `max_length` residues that overlap by at least `overlap`. None: records may have any length.
    """

    max_length: int | None = None
    action: str = "reject"
    overlap: int = 0

    def __post_init__(self) -> None:
        check_one_of("long_proteins.action", self.action, ACTIONS)

    def apply(self, sequence: str) -> tuple[str, str, str]:
        """Return (what is kept of a sequence, status, reason), the last two empty where nothing is to be done."""
        residues = residue_count(sequence)
        if self.max_length is None or residues <= self.max_length:
            return sequence, "", ""
        if self.action == "reject":
            return sequence, REJECTED, f"{residues} residues, more than max_length {self.max_length}"
        if self.action == "truncate":
            return (
                first_residues(sequence, self.max_length),
                TRUNCATED,
                f"the first {self.max_length} of {residues} residues",
            )
        windows = len(ResidueWindows(self.max_length, self.overlap).starts(residues))
        return sequence, SPLIT, f"{residues} residues in {windows} windows of {self.max_length}"


@dataclass
class Reading:
    """What has been read so far: rows of the manifest, and the unique sequences by digest."""

    rows: list[tuple] = field(default_factory=list)  # SCHEMA's columns up to `reason`
    unique: dict[str, tuple[str, str]] = field(default_factory=dict)  # digest: (sequence, first name)


def read_sample(
    name: str,
    path: Path,
    reading: Reading,
    on_invalid: str,
    on_duplicate_id: str,
    limit: LengthLimit = LengthLimit(),  # noqa: B008
    max_record_residues: int = MAX_RESIDUES,
) -> list[tuple[str, int]]:
    """Add a sample's records to `reading`; return (id, line) of those that look like nucleotides.

    Raises:
        FastaError: see `chunk_samples`.
        OptionError: a word that an option does not have.
    """
    check_one_of("on_invalid", on_invalid, ON_INVALID)
    like_nucleotides = []
    ids, rejects = RecordIds(path, on_duplicate_id), RejectLog(path, "rejected.tsv")
    with progress_bar(None, "records", f"reading {name}") as bar:
        for position, record in enumerate(read_records(path, max_record_residues)):
            record_id = record.id and ids.add(record)
            sequence, status, reason = classify(path, record, on_invalid)
            if status != REJECTED:
                sequence, cut, why = limit.apply(sequence)
                status, reason = cut or status, "; ".join(filter(None, (reason, why)))
            if status == REJECTED:
                rejects.add(record.line, record_id, reason)
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
                    residue_count(sequence),
                    mask_count(sequence),
                    digest,
                    status,
                    reason,
                )
            )
            bar.update(1)
    rejects.close()
    if ids.suffixed:
        log.warning("%s: %d ids stood more than once and got suffixes", path, ids.suffixed)
    if not ids.first_line:
        log.warning("%s: sample %s has no record with an id", path, name)
    return like_nucleotides


def classify(path: Path, record: Record, on_invalid: str) -> tuple[str, str, str]:
    """Return (normalised sequence, status, reason) of a record."""
    sequence = normalise(record.sequence)
    invalid = invalid_characters(sequence)
    if not record.id:
        reason = "header without an id"
    elif not sequence:
        reason = "no residue"
    elif invalid:
        reason = "; ".join((f"no residue letter: {' '.join(map(repr, invalid[:10]))}", *_advice(invalid)))
        if on_invalid == "replace":
            return replace_invalid(sequence), REPLACED, reason
    else:
        return sequence, ACCEPTED, ""
    if on_invalid == "fail":
        raise FastaError(
            f"{path}, line {record.line}: record {record.id!r}: {reason}; mend it, or set on_invalid: reject or replace"
        )
    return sequence, REJECTED, reason


def _advice(invalid: str) -> list[str]:
    """Return what to do about the characters of a record that are no residue."""
    return [advice for characters, advice in ADVICE.items() if set(characters) & set(invalid)]
