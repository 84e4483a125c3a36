"""How FASTA files become chunks: options of reading, of translation and of long proteins."""

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
    """What happens to records that cannot be used as they are.

    `max_record_residues` counts letters, of proteins or nucleotides; None: by which of them they are.
    """

    on_invalid: str = option(
        "reject",
        "on_invalid",
        "What happens to a record with other characters than residues (or nucleotides); reject lists it, fail stops, "
        "replace puts X (or T for U, else N)",
        words=ON_INVALID,
    )
    on_duplicate_id: str = option(
        "fail",
        "on_duplicate_id",
        "What happens to an id that a sample has twice; fail stops, suffix adds _2, _3 and so on",
        words=ON_DUPLICATE_ID,
    )
    max_record_residues: int | None = option(
        None,
        "max_record_residues",
        "Letters of a record above which its FASTA file is refused; auto is 1,000,000 for proteins and 3,000,000,000 "
        "for nucleotides",
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
        "Nucleotides that are translated as one piece; none translates whole records",
        kind=int,
        none="none",
    )
    ambiguous_codons: str = option(
        "resolve",
        "translation.ambiguous_codons",
        "What becomes of a codon with letters other than A, C, G and T; resolve gives what all its readings share, "
        "else X, skip leaves it out",
        words=AMBIGUOUS_CODONS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window < CODON:
            raise OptionError(
                f"translation.window: {self.window} nucleotides are no codon; give {CODON} or more, or none"
            )


@dataclass(frozen=True)
class LongProteins(Options):
    """What happens to a protein of more than `max_length` residues; None: proteins may have any length.

    `reject`; `truncate`: the first `max_length` residues are kept; `split`: it is kept whole, to be embedded in windows
    of `max_length` residues of which neighbours share at least `overlap`.
    """

    max_length: int | None = option(
        None,
        "long_proteins.max_length",
        "Residues of the longest protein that is embedded whole; none embeds all proteins whole",
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
        "Residues that neighbouring windows share at least, less than max_length; each such residue is the mean of its "
        "windows",
        kind=int,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.windows  # raises what is wrong with them

    @property
    def windows(self) -> ResidueWindows | None:
        """The windows of longer proteins; None where there are none."""
        if self.max_length is None or self.action != "split":
            return None
        return ResidueWindows(self.max_length, self.overlap)


@dataclass(frozen=True)
class ChunkOptions:
    """How samples become chunks.

    Attributes:
        records: what happens to records that cannot be used as they are.
        long_proteins: what happens to proteins that are too long.
        embed_dim: of the model, to estimate the work of a sequence.
        translated: the samples are translations: those that look like nucleotides (poly-A ...) are no mistake.
    """

    records: RecordOptions = RecordOptions()
    long_proteins: LongProteins = LongProteins()
    embed_dim: int = 1280
    translated: bool = False
