"""Translate a nucleotide FASTA file in six frames, window by window, and keep the frames without a stop.

Example:
  python workflow/scripts/translate.py --fasta reads.fasta.gz --window 300 --genetic-code 1 \\
      --out proteins.fasta --table proteins.tsv
"""

import argparse
import sys
from pathlib import Path

import _program
from _options import add_options, options_from
from packed_esm.sequences.options import RecordOptions, TranslationOptions


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, required=True, help="nucleotides, plain or gzip")
    parser.add_argument("--out", type=Path, required=True, help="FASTA: the proteins")
    parser.add_argument("--table", type=Path, required=True, help="TSV: the outcome for each record")
    parser.add_argument(
        "--counts", type=Path, help="JSON: counts, and the sha256 of the FASTA file (default: not written)"
    )
    add_options(parser, TranslationOptions, RecordOptions)
    return parser


def translate(args: argparse.Namespace) -> None:
    from packed_esm.sequences.translation import translate_fasta

    translation, records = options_from(args, TranslationOptions), options_from(args, RecordOptions)
    counts = translate_fasta(args.fasta, args.out, args.table, translation, records, args.counts)
    print(
        f"{_program.printable(str(args.fasta))}: {counts['records']} records, {counts['rejected']} of them rejected; "
        f"{counts['proteins']} proteins from six frames of {counts['windows']} windows"
    )


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), translate, argv)


if __name__ == "__main__":
    sys.exit(main())
