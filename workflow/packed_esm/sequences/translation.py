"""Translate nucleotide FASTA in six frames, window by window, and keep the frames without a stop, as VirNucPro does.

The method is that of VirNucPro's prediction (https://github.com/Li-Jing-1997/VirNucPro, `units.py` at 0f93f27:
`split_fasta_chunk`, `translate_dna`, `identify_seq`), with the same ids in the same order:

- A record of L nucleotides is cut into ceil(L / window) windows that overlap, see `nucleotide_windows`; they are
  numbered from 1, `{id}_chunk_{number}`. A record shorter than the window is one window, whole.
- Each window is translated in frames F1, F2, F3 and, from its reverse complement, R1, R2, R3; an incomplete last codon
  is ignored. A frame with a stop or without a residue is dropped; the others get the id `{id}_chunk_{number}{frame}`.

These ids are unique if those of the records are; `on_duplicate_id` ensures that first. Whole records (no windows) get
the id `{id}{frame}`. VirNucPro has genetic code 1 only. It leaves a codon with a letter other than A, C, G and T out of
the protein (`ambiguous_codons: skip`), so that the residues before and after it are joined; `resolve` keeps its
position.
"""

import csv
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from Bio.Data.CodonTable import ambiguous_dna_by_id
from Bio.Seq import reverse_complement, translate

from ..errors import FastaError, OptionError, check_one_of
from ..system.files import file_identity, replacing, write_json
from ..system.progress import progress_bar
from .alphabet import normalise
from .fasta import MAX_NUCLEOTIDES, Record, read_records, sha256_as_read
from .ids import RecordIds
from .options import AMBIGUOUS_CODONS, CODON, RecordOptions, TranslationOptions
from .rejects import RejectLog

log = logging.getLogger(__name__)

NUCLEOTIDES = "ACGTRYSWKMBDHVN"  # IUPAC, DNA
FRAMES = ("F1", "F2", "F3", "R1", "R2", "R3")
BLOCK = CODON * 2**18  # nucleotides that are translated at once; their arrays need ten times the memory
SKIPPED = "-"

_LETTER = np.zeros(128, dtype=np.int16)  # index in NUCLEOTIDES by ASCII code
_LETTER[list(NUCLEOTIDES.encode("ascii"))] = np.arange(len(NUCLEOTIDES))
_WITHOUT_NUCLEOTIDES = str.maketrans("", "", NUCLEOTIDES)


def codon_table(genetic_code: int, ambiguous_codons: str = "resolve") -> np.ndarray:
    """Return the residue of each codon on the given and on the other strand: ASCII, uint8 [2, 15^3], `*` for a stop.

    Args:
        genetic_code: NCBI's number. A codon that is both a stop and a residue (27, 28, 31) is the residue.
        ambiguous_codons: `resolve` gives the residue that all readings share, as Biopython does (GCN is A, RAY is B,
            TAR is a stop), else X; `skip` gives `SKIPPED` for any codon with a letter other than A, C, G and T.

    Raises:
        OptionError: there is no such genetic code, or `ambiguous_codons` is another word.
    """
    check_one_of("translation.ambiguous_codons", ambiguous_codons, AMBIGUOUS_CODONS)
    if genetic_code not in ambiguous_dna_by_id:
        numbers = ", ".join(map(str, sorted(ambiguous_dna_by_id)))
        raise OptionError(f"translation.genetic_code: NCBI has no table {genetic_code}; give one of {numbers}")
    codons = ["".join(letters) for letters in itertools.product(NUCLEOTIDES, repeat=CODON)]
    strands = ("".join(codons), "".join(map(reverse_complement, codons)))
    # J (I or L) is not a token of ESM-2.
    residues = [translate(strand, table=genetic_code).replace("J", "X").encode("ascii") for strand in strands]
    table = np.stack([np.frombuffer(strand, dtype=np.uint8) for strand in residues])
    if ambiguous_codons == "skip":
        table[:, [not set(codon) <= set("ACGT") for codon in codons]] = ord(SKIPPED)
    return table


def nucleotide_windows(length: int, window: int | None) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the windows of a record, from 0, end exclusive; None: the record whole.

    VirNucPro's `split_fasta_chunk`: n = ceil(length / window) windows have excess = n * window - length nucleotides too
    many. Each but the first overlaps the one before by q = excess // n, and the first q + excess % n of these by one
    more. If there are fewer windows than that, the last one is shorter: 301 nucleotides give 0-300 and 150-301.
    """
    window = window or length
    number = -(-length // window)
    overlap, remainder = divmod(number * window - length, number)
    for i in range(number):
        start = i * (window - overlap) - min(i, overlap + remainder)
        yield start, min(start + window, length)


def six_frames(sequence: str, codons: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield (frame, protein) for each of `FRAMES`; a stop is `*`.

    Args:
        sequence: letters of `NUCLEOTIDES`.
        codons: from `codon_table`.
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
    """Yield the same as `six_frames`, for a sequence whose arrays are small."""
    letters = _LETTER[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    index = (letters[:-2] * len(NUCLEOTIDES) + letters[1:-1]) * len(NUCLEOTIDES) + letters[2:]  # of the codon at each
    strands = (codons[0, index], codons[1, index][::-1])
    for frame, (strand, first) in zip(FRAMES, itertools.product(strands, range(CODON)), strict=True):
        yield frame, strand[first::CODON].tobytes().decode("ascii").replace(SKIPPED, "")


class TableRow(NamedTuple):
    """A row of the table: the outcome for a record."""

    id: str
    line: int  # of its header, from 1
    length: int  # nucleotides
    windows: int  # 0 if it is rejected
    kept: int  # proteins
    reason: str  # why it has no protein, or what was replaced

    @property
    def rejected(self) -> bool:
        return not self.windows


class Classified(NamedTuple):
    """A normalised sequence, whether to translate it, and what is or was invalid."""

    sequence: str
    accepted: bool
    reason: str


def translate_fasta(
    fasta: Path,
    out: Path,
    table: Path,
    translation: TranslationOptions = TranslationOptions(),  # noqa: B008
    records: RecordOptions = RecordOptions(),  # noqa: B008
    counts_path: Path | None = None,
) -> dict[str, int]:
    """Write the stop-free frames of all records (FASTA) and the outcome for each record (TSV); return the counts.

    Only one record and the ids are in memory; this needs at most three times the memory of the longest record.

    Args:
        fasta: nucleotides, plain or gzip.
        out: proteins; their descriptions have the window, from 1 (`nt=241-540`), then the description of the record.
        table: one `TableRow` per record.
        translation: genetic code, windows and ambiguous codons.
        records: what happens to invalid records and to repeated ids.
        counts_path: JSON with the counts and the sha256 of the FASTA file.

    Raises:
        FastaError: the file cannot be read or has changed meanwhile, no record can be translated; or an id is
            repeated, or a record invalid, and the option for it is `fail`.
        OptionError: there is no such genetic code.
    """
    codons = codon_table(translation.genetic_code, translation.ambiguous_codons)
    ids, rejects = RecordIds(fasta, records.on_duplicate_id), RejectLog(fasta, table.name)
    counts = {"records": 0, "rejected": 0, "windows": 0, "proteins": 0}
    first_problem, identity = "", file_identity(fasta)
    with _writing(out) as proteins, _writing(table) as rows, progress_bar(None, "records", "translating") as bar:
        write_row = csv.writer(rows, delimiter="\t", lineterminator="\n").writerow
        write_row(TableRow._fields)
        for record in read_records(fasta, records.max_record_residues or MAX_NUCLEOTIDES):
            name = record.id and ids.add(record.id, record.line)
            classified = _classify(fasta, record, records.on_invalid)
            row = _write_proteins(proteins, name, record, classified, translation.window, codons)
            del record, classified  # before the next one is read
            write_row(row)
            _add(counts, row)
            if row.rejected:
                rejects.add(row.line, row.id, row.reason)
                first_problem = first_problem or f"line {row.line}: record {row.id!r}: {row.reason}"
            bar.update(1)
        rejects.close()
        if ids.suffixed:
            log.warning("%s: %d repeated ids got suffixes", fasta, ids.suffixed)
        if first_problem and not counts["windows"]:
            raise FastaError(f"{fasta}, {first_problem}; none of the {counts['records']} records can be translated")
        digest = sha256_as_read(fasta, identity)
    if counts_path:
        write_json(counts_path, counts | {"fasta_sha256": digest})
    return counts


def _add(counts: dict[str, int], row: TableRow) -> None:
    """Count a record."""
    counts["records"] += 1
    counts["rejected"] += row.rejected
    counts["windows"] += row.windows
    counts["proteins"] += row.kept


def _classify(path: Path, record: Record, on_invalid: str) -> Classified:
    """Return whether to translate a record, unchanged or with letters replaced.

    Raises:
        FastaError: the record cannot be translated, and `on_invalid` is `fail`.
    """
    sequence = normalise(record.sequence)
    foreign = "".join(dict.fromkeys(sequence.translate(_WITHOUT_NUCLEOTIDES)))
    letters = " ".join(map(repr, foreign[:10]))
    if not record.id:
        reason = "header without an id"
    elif len(sequence) < CODON:
        reason = f"shorter than a codon ({len(sequence)})"
    elif foreign and on_invalid == "replace":
        replaced = sequence.translate({ord(c): "T" if c == "U" else "N" for c in foreign})
        return Classified(replaced, True, f"replaced (U by T, others by N): {letters}")
    elif foreign:
        remedy = (
            "this is RNA, write T for U" if foreign == "U" else "correct it, or set input: protein if it is a protein"
        )
        reason = f"characters that are not nucleotides of DNA: {letters}; {remedy}"
    else:
        return Classified(sequence, True, "")
    if on_invalid == "fail":
        raise FastaError(f"{path}, line {record.line}: record {record.id!r}: {reason}; or set on_invalid: reject")
    return Classified(sequence, False, reason)


def _write_proteins(
    out: TextIO, name: str, record: Record, classified: Classified, window: int | None, codons: np.ndarray
) -> TableRow:
    """Write the frames of a record that have a residue and no stop; return its row of the table."""
    sequence, accepted, reason = classified
    number = kept = 0
    description = record.description.split(maxsplit=1)[1:]
    windows = nucleotide_windows(len(sequence), window) if accepted else ()
    for number, (start, end) in enumerate(windows, 1):
        place = f"{name}_chunk_{number}" if window else name
        for frame, protein in six_frames(sequence[start:end], codons):
            if "*" not in protein and protein.strip("X"):
                title = " ".join((place + frame, f"nt={start + 1}-{end}", *description))
                out.writelines((f">{title}\n", protein, "\n"))
                kept += 1
            del protein  # before the next one is made
    if accepted and not kept:
        reason = "; ".join(filter(None, (reason, "every frame has a stop or no residue")))
    return TableRow(name, record.line, len(sequence), number, kept, reason)


@contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    """Yield a handle for text; a file `path` appears only if the block succeeds."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        yield handle
