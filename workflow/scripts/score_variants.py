"""Score the variants of a table with packed ESM-2: a TSV, one row per variant, in the order of the table.

Example:
  python workflow/scripts/score_variants.py --table variants.tsv --manifest manifest.parquet \\
      --chunks 1-of-2.fasta 2-of-2.fasta --model demo --out scores.tsv --summary scores.json
"""

import argparse
import sys
from pathlib import Path

import _embedding
import _program
from _options import add_options, options_from
from packed_esm.variants.options import VariantOptions


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table",
        type=Path,
        required=True,
        help="TSV with sample, id and mutations (A24G:K30R), or a CSV of ProteinGym with mutant and mutated_sequence",
    )
    parser.add_argument("--manifest", type=Path, required=True, help="output of chunk_fasta.py")
    parser.add_argument("--chunks", nargs="+", type=Path, required=True, help="FASTA files that chunk_fasta.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="TSV: one row per variant")
    parser.add_argument("--summary", type=Path, required=True, help="JSON: settings and counts")
    add_options(parser, VariantOptions)
    _embedding.add_embedding_options(parser)
    return parser


def score(args: argparse.Namespace) -> None:
    from packed_esm.system.gpu_lease import leased_gpu

    with leased_gpu([] if args.device == "cpu" else None):  # before torch looks at the GPUs
        with _program.importing():
            from packed_esm.variants.score import score_variants

        score_variants(
            args.table,
            args.manifest,
            args.chunks,
            args.out,
            args.summary,
            _embedding.embedding_options(args),
            options_from(args, VariantOptions),
        )


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), score, argv)


if __name__ == "__main__":
    sys.exit(main())
