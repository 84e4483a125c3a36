"""Translate a nucleotide FASTA file in six frames, window by window, and keep the frames without a stop.

Example:
  python workflow/scripts/translate.py --fasta reads.fasta.gz --window 300 --genetic-code 1 \\
      --out proteins.fasta --table proteins.tsv
"""

import argparse
import sys
from pathlib import Path

import _program


def window(text: str) -> int | None:
    """Return the number, or None for `none`."""
    return None if text == "none" else int(text)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, required=True, help="nucleotides, plain or gzip")
    parser.add_argument("--out", type=Path, required=True, help="FASTA: the proteins")
    parser.add_argument("--table", type=Path, required=True, help="TSV: what became of each record")
    parser.add_argument("--counts", type=Path, help="JSON: counts, and the sha256 of the FASTA file (default: none)")
    parser.add_argument("--genetic-code", type=int, default=1, help="NCBI's number (default: %(default)s)")
    parser.add_argument(
        "--window", type=window, default=300, help="nucleotides, or none: whole records (default: %(default)s)"
    )
    parser.add_argument(
        "--ambiguous-codons",
        default="resolve",
        choices=["resolve", "skip"],
        help="what all their readings have in common, else X; or no residue (default: %(default)s)",
    )
    parser.add_argument(
        "--on-invalid",
        default="reject",
        choices=["reject", "fail", "replace"],
        help="an invalid record: list it, stop, or put T for U, else N (default: %(default)s)",
    )
    parser.add_argument(
        "--on-duplicate-id",
        default="fail",
        choices=["fail", "suffix"],
        help="an id that stands twice: stop, or add _2, _3 ... (default: %(default)s)",
    )
    parser.add_argument(
        "--max-record-residues",
        type=int,
        default=3_000_000_000,
        help="nucleotides of a record beyond which the file is refused, before they fill the memory "
        "(default: %(default)s)",
    )
    return parser


def work(args: argparse.Namespace) -> None:
    from packed_esm.sequences.translation import translate_fasta

    counts = translate_fasta(
        args.fasta,
        args.out,
        args.table,
        args.genetic_code,
        args.window,
        args.ambiguous_codons,
        args.on_invalid,
        args.on_duplicate_id,
        args.max_record_residues,
        args.counts,
    )
    print(
        f"{_program.printable(str(args.fasta))}: {counts['records']} records, {counts['rejected']} of them rejected; "
        f"{counts['proteins']} proteins from six frames of {counts['windows']} windows"
    )


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
