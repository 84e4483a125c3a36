"""Options for turning FASTA files into chunks: for records, translation and long proteins."""

from dataclasses import dataclass

from ..errors import OptionError
from ..options import Options, option
from .windows import ResidueWindows

ON_INVALID = ("reject", "fail", "replace")
ON_DUPLICATE_ID = ("fail", "suffix")
ACTIONS = ("reject", "truncate", "split")
AMBIGUOUS_CODONS = ("resolve", "skip")
CODON = 3  # nucleotides


@dataclass(frozen=True)
class RecordOptions(Options):
    """What happens to invalid records.

    `max_record_residues` counts letters of proteins or nucleotides; None: a default for each of the two.
    """

    on_invalid: str = option(
        "reject",
        "on_invalid",
        "What happens to a record with characters that are not residues (or nucleotides); reject lists it, fail stops "
        "the run, replace writes X (for nucleotides T in place of U, else N)",
        words=ON_INVALID,
    )
    on_duplicate_id: str = option(
        "fail",
        "on_duplicate_id",
        "What happens to an id that occurs twice in a sample; fail stops the run, suffix adds _2, _3 and so on",
        words=ON_DUPLICATE_ID,
    )
    max_record_residues: int | None = option(
        None,
        "max_record_residues",
        "Largest number of letters in a record; a longer record stops the run; auto is 1,000,000 for proteins and "
        "3,000,000,000 for nucleotides",
        kind=int,
        none="auto",
    )


@dataclass(frozen=True)
class TranslationOptions(Options):
    """How nucleotides are translated; `window` in nucleotides, None: whole records."""

    genetic_code: int = option(
        1,
        "translation.genetic_code",
        "NCBI's number of the genetic code; 1 is the standard code, 11 that of bacteria",
        kind=int,
    )
    window: int | None = option(
        300,
        "translation.window",
        "Length of a window, in nucleotides; none translates whole records",
        kind=int,
        none="none",
    )
    ambiguous_codons: str = option(
        "resolve",
        "translation.ambiguous_codons",
        "What happens to a codon with letters other than A, C, G and T; resolve gives the residue that all its "
        "readings share, else X; skip leaves it out",
        words=AMBIGUOUS_CODONS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window < CODON:
            raise OptionError(
                f"translation.window: {self.window} nucleotides are less than a codon; give {CODON} or more, or none"
            )


@dataclass(frozen=True)
class LongProteins(Options):
    """What happens to a protein of more than `max_length` residues; None: proteins may have any length.

    `reject` leaves it out; `truncate` keeps its first `max_length` residues; `split` keeps it whole, and it is embedded
    in windows of `max_length` residues, of which neighbours share at least `overlap`.
    """

    max_length: int | None = option(
        None,
        "long_proteins.max_length",
        "Largest number of residues of a protein that is embedded whole; none embeds all proteins whole",
        kind=int,
        none="none",
    )
    action: str = option(
        "reject",
        "long_proteins.action",
        "What happens to a longer protein; reject lists it, truncate embeds its first max_length residues, split "
        "embeds windows of max_length residues",
        words=ACTIONS,
    )
    overlap: int = option(
        128,
        "long_proteins.overlap",
        "Smallest number of residues that neighbouring windows share, less than max_length; a shared residue gets the "
        "mean of its windows",
        kind=int,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.windows  # raises OptionError if they are impossible

    @property
    def windows(self) -> ResidueWindows | None:
        """The windows of longer proteins; None if there are none."""
        if self.max_length is None or self.action != "split":
            return None
        return ResidueWindows(self.max_length, self.overlap)


@dataclass(frozen=True)
class ChunkOptions:
    """Options for turning samples into chunks.

    Attributes:
        records: what happens to invalid records.
        long_proteins: what happens to long proteins.
        embed_dim: of the model, to estimate the work of a sequence.
        translated: the proteins are translations; one that looks like nucleotides (poly-A ...) is not a mistake.
    """

    records: RecordOptions = RecordOptions()
    long_proteins: LongProteins = LongProteins()
    embed_dim: int = 1280
    translated: bool = False
