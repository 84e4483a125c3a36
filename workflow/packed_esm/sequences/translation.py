"""Translate nucleotide FASTA in six frames, window by window, and keep what has no stop, as VirNucPro does.

The rule is that of VirNucPro's prediction (https://github.com/Li-Jing-1997/VirNucPro, `units.py` at 0f93f27:
`split_fasta_chunk`, `translate_dna`, `identify_seq`), with the same ids in the same order:

- A record of L nucleotides becomes ceil(L / window) windows that overlap, see `nucleotide_windows`; they are numbered
  from 1, `{id}_chunk_{number}`. A record shorter than the window is one window, whole.
- Each window is read in frames F1, F2, F3 and, of its reverse complement, R1, R2, R3; what is left of a last codon is
  not. A frame with a stop is dropped, and so is one without a residue; the others are `{id}_chunk_{number}{frame}`.

These ids are distinct where those of the records are, and `on_duplicate_id` sees to that before any is made. Where a
record is read whole (no windows) they are `{id}{frame}`. VirNucPro knows genetic code 1 only, and leaves a codon with a
letter other than A, C, G and T out of the protein (`ambiguous_codons: skip`), which joins what stands on its sides;
`resolve` keeps its place.
"""

import csv
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from Bio.Data.CodonTable import ambiguous_dna_by_id
from Bio.Seq import reverse_complement, translate

from ..errors import FastaError, OptionError, check_one_of
from ..system.files import file_identity, replacing, write_json
from ..system.progress import progress_bar
from .alphabet import normalise
from .fasta import MAX_NUCLEOTIDES, Record, read_records, sha256_as_read
from .ids import RecordIds
from .rejects import RejectLog

log = logging.getLogger(__name__)

NUCLEOTIDES = "ACGTRYSWKMBDHVN"  # IUPAC, DNA
FRAMES = ("F1", "F2", "F3", "R1", "R2", "R3")
CODON = 3  # nucleotides
BLOCK = CODON * 2**18  # nucleotides that are translated at once: their arrays take ten times as much memory
AMBIGUOUS_CODONS = ("resolve", "skip")
ON_INVALID = ("reject", "fail", "replace")
SKIPPED = "-"
COLUMNS = ("id", "line", "length", "windows", "kept", "reason")  # of the table

_LETTER = np.zeros(128, dtype=np.int16)  # place in NUCLEOTIDES by ASCII code
_LETTER[list(NUCLEOTIDES.encode("ascii"))] = np.arange(len(NUCLEOTIDES))
_WITHOUT_NUCLEOTIDES = str.maketrans("", "", NUCLEOTIDES)


def codon_table(genetic_code: int, ambiguous_codons: str = "resolve") -> np.ndarray:
    """Return the residue of each codon, read forwards and on the other strand: ASCII, uint8 [2, 15^3], `*` for a stop.

    Args:
        genetic_code: NCBI's number. A codon that is both a stop and a residue (27, 28, 31) is the residue.
        ambiguous_codons: `resolve` gives what all readings have in common, as Biopython does (GCN is A, RAY is B, TAR
            is a stop), else X; `skip` gives `SKIPPED` for any codon with a letter other than A, C, G and T.

    Raises:
        OptionError: no such genetic code, or another word in `ambiguous_codons`.
    """
    check_one_of("translation.ambiguous_codons", ambiguous_codons, AMBIGUOUS_CODONS)
    if genetic_code not in ambiguous_dna_by_id:
        numbers = ", ".join(map(str, sorted(ambiguous_dna_by_id)))
        raise OptionError(f"translation.genetic_code: NCBI has no table {genetic_code}; give one of {numbers}")
    codons = ["".join(letters) for letters in itertools.product(NUCLEOTIDES, repeat=CODON)]
    strands = ("".join(codons), "".join(map(reverse_complement, codons)))
    # J (I or L) is no token of ESM-2.
    residues = [translate(strand, table=genetic_code).replace("J", "X").encode("ascii") for strand in strands]
    table = np.stack([np.frombuffer(strand, dtype=np.uint8) for strand in residues])
    if ambiguous_codons == "skip":
        table[:, [not set(codon) <= set("ACGT") for codon in codons]] = ord(SKIPPED)
    return table


def nucleotide_windows(length: int, window: int | None) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the windows of a record, from 0, end exclusive; None: the record whole.

    VirNucPro's `split_fasta_chunk`: n = ceil(length / window) windows have excess = n * window - length nucleotides too
    many. Each but the first overlaps the one before by q = excess // n, and the first q + excess % n of these by one
    more. Where that is more windows than there are, the last one is shorter: 301 nucleotides are 0-300 and 150-301.
    """
    window = window or length
    number = -(-length // window)
    overlap, remainder = divmod(number * window - length, number)
    for i in range(number):
        start = i * (window - overlap) - min(i, overlap + remainder)
        yield start, min(start + window, length)


def six_frames(sequence: str, codons: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield (frame, protein) of `FRAMES`, stops as `*`.

    Args:
        sequence: `NUCLEOTIDES`.
        codons: of `codon_table`.
    """
    if len(sequence) <= BLOCK:
        yield from _six_frames(sequence, codons)
        return
    length, overlap = len(sequence), CODON - 1  # the last codons of the second and third frame end in the next block
    forward = [slice(start, start + BLOCK + overlap) for start in range(0, length, BLOCK)]
    reverse = [slice(max(0, end - BLOCK - overlap), end) for end in range(length, 0, -BLOCK)]
    for number, frame in enumerate(FRAMES):
        blocks = (sequence[place] for place in (forward if number < CODON else reverse))
        yield frame, "".join(dict(_six_frames(block, codons))[frame] for block in blocks)


def _six_frames(sequence: str, codons: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield what `six_frames` does of a sequence whose arrays are small."""
    letters = _LETTER[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    index = (letters[:-2] * len(NUCLEOTIDES) + letters[1:-1]) * len(NUCLEOTIDES) + letters[2:]  # of the codon from each
    strands = (codons[0, index], codons[1, index][::-1])
    for frame, (strand, first) in zip(FRAMES, itertools.product(strands, range(CODON)), strict=True):
        yield frame, strand[first::CODON].tobytes().decode("ascii").replace(SKIPPED, "")


def translate_fasta(
    fasta: Path,
    out: Path,
    table: Path,
    genetic_code: int = 1,
    window: int | None = 300,
    ambiguous_codons: str = "resolve",
    on_invalid: str = "reject",
    on_duplicate_id: str = "fail",
    max_record_residues: int = MAX_NUCLEOTIDES,
    counts_path: Path | None = None,
) -> dict:
    """Write the stop-free frames of all records (FASTA) and what became of each record (TSV); return the counts.

    Of the file only one record is in memory, and the ids; the memory is at most three times the record.

    Args:
        fasta: nucleotides, plain or gzip.
        out: proteins; their descriptions have the window, from 1 (`nt=241-540`), then what the record's had.
        table: a row for every record: `COLUMNS`, where `kept` is the number of its proteins.
        genetic_code, ambiguous_codons: see `codon_table`.
        window: nucleotides, or None to read records whole.
        on_invalid: what becomes of a record with letters that are no nucleotides: `reject` (it has no protein), `fail`,
            or `replace` (U by T, others by N).
        on_duplicate_id: what becomes of an id that stands twice: `fail`, or `suffix` (_2, _3 ...).
        max_record_residues: nucleotides of a record beyond which the file is refused, before the record is in memory.
        counts_path: JSON of the counts and of the sha256 of the FASTA file.

    Raises:
        FastaError: a file that cannot be read or that changes meanwhile, a repeated id, an invalid record where
            `on_invalid` is `fail`, or none but such records.
        OptionError: no such genetic code, a window shorter than a codon, or a word that an option does not have.
    """
    check_one_of("on_invalid", on_invalid, ON_INVALID)
    if window is not None and window < CODON:
        raise OptionError(f"translation.window: {window} nucleotides are no codon; give {CODON} or more, or none")
    codons = codon_table(genetic_code, ambiguous_codons)
    ids, rejects = RecordIds(fasta, on_duplicate_id), RejectLog(fasta, table.name)
    counts = {"records": 0, "rejected": 0, "windows": 0, "proteins": 0}
    problem = ""  # of the first rejected record
    identity = file_identity(fasta)
    with _writing(out) as proteins, _writing(table) as rows, progress_bar(None, "records", "translating") as bar:
        write_row = csv.writer(rows, delimiter="\t", lineterminator="\n").writerow
        write_row(COLUMNS)
        for record in read_records(fasta, max_record_residues):
            accepted, row = _translate_record(
                fasta, record, record.id and ids.add(record), proteins, window, codons, on_invalid
            )
            del record  # before the next one is read
            write_row(row)
            name, line, _, number, kept, reason = row
            if not accepted:
                rejects.add(line, name, reason)
                problem = problem or f"line {line}: record {name!r}: {reason}"
            for key, amount in zip(counts, (1, not accepted, number, kept), strict=True):
                counts[key] += amount
            bar.update(1)
        rejects.close()
        if ids.suffixed:
            log.warning("%s: %d ids stood more than once and got suffixes", fasta, ids.suffixed)
        if problem and not counts["windows"]:
            raise FastaError(f"{fasta}, {problem}; none of the {counts['records']} records can be translated")
        digest = sha256_as_read(fasta, identity)
    if counts_path:
        write_json(counts_path, counts | {"fasta_sha256": digest})
    return counts


def _translate_record(
    path: Path, record: Record, name: str, out: TextIO, window: int | None, codons: np.ndarray, on_invalid: str
) -> tuple[bool, tuple[str, int, int, int, int, str]]:
    """Write the proteins of a record; return whether it was accepted, and its `COLUMNS`."""
    sequence, accepted, reason = _classify(path, record, on_invalid)
    number, kept = _write_proteins(out, name, record, sequence, window, codons) if accepted else (0, 0)
    if accepted and not kept:
        reason = "; ".join(filter(None, (reason, "in every frame a stop, or no residue")))
    return accepted, (name, record.line, len(sequence), number, kept, reason)


def _classify(path: Path, record: Record, on_invalid: str) -> tuple[str, bool, str]:
    """Return (normalised sequence, whether to translate it, what is or was wrong with it)."""
    sequence = normalise(record.sequence)
    foreign = "".join(dict.fromkeys(sequence.translate(_WITHOUT_NUCLEOTIDES)))
    letters = " ".join(map(repr, foreign[:10]))
    if not record.id:
        reason = "header without an id"
    elif len(sequence) < CODON:
        reason = f"shorter than a codon ({len(sequence)})"
    elif foreign and on_invalid == "replace":
        replaced = sequence.translate({ord(c): "T" if c == "U" else "N" for c in foreign})
        return replaced, True, f"replaced (U by T, others by N): {letters}"
    elif foreign:
        remedy = "this is RNA, write T for U" if foreign == "U" else "mend it, or set input: protein if it is one"
        reason = f"no nucleotide of DNA: {letters}; {remedy}"
    else:
        return sequence, True, ""
    if on_invalid == "fail":
        raise FastaError(f"{path}, line {record.line}: record {record.id!r}: {reason}; or set on_invalid: reject")
    return sequence, False, reason


def _write_proteins(
    out: TextIO, name: str, record: Record, sequence: str, window: int | None, codons: np.ndarray
) -> tuple[int, int]:
    """Write the frames of a record that have no stop and a residue; return the numbers of windows and of proteins."""
    number = kept = 0
    description = record.description.split(maxsplit=1)[1:]
    for number, (start, end) in enumerate(nucleotide_windows(len(sequence), window), 1):
        place = f"{name}_chunk_{number}" if window else name
        for frame, protein in six_frames(sequence[start:end], codons):
            if "*" not in protein and protein.strip("X"):
                title = " ".join((place + frame, f"nt={start + 1}-{end}", *description))
                out.writelines((f">{title}\n", protein, "\n"))
                kept += 1
            del protein  # before the next one is made
    return number, kept


@contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    """Yield a handle for text that stands under `path` only if the block succeeds."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        yield handle
