"""Check every row of merged embeddings, and compare a sample of them with fair-esm residue by residue.

Example:
  python workflow/scripts/validate.py --sample human human.fasta.gz human.parquet \\
      --sample yeast yeast.fasta yeast.parquet --manifest manifest.parquet --stats 1-of-2.json 2-of-2.json \\
      --model demo --table validation.tsv --summary validation.json
"""

import argparse
import sys
from pathlib import Path

import _embedding
import _program


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sample",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "FASTA", "PARQUET"),
        help="as for chunk_fasta.py, and of merge_sample.py; repeatable",
    )
    parser.add_argument(
        "--residues",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "FEATURE", "HDF5"),
        help="of merge_residues.py; repeatable",
    )
    parser.add_argument("--manifest", type=Path, required=True, help="of chunk_fasta.py")
    parser.add_argument("--stats", nargs="+", type=Path, required=True, help="JSON files of embed_chunk.py")
    parser.add_argument("--table", type=Path, required=True, help="TSV: a row a sequence and layer")
    parser.add_argument("--summary", type=Path, required=True, help="JSON: what was found")
    parser.add_argument("--sequences", type=int, default=32, help="how many to compare (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their choice (default: %(default)s)")
    parser.add_argument("--max-relative-l2", type=_number_or_auto, help="of a sequence (default: auto, by dtype)")
    parser.add_argument("--min-residue-cosine", type=_number_or_auto, help="of any residue (default: auto, by dtype)")
    _embedding.add_embedding_options(parser)
    return parser


def _number_or_auto(text: str) -> float | None:
    return None if text == "auto" else float(text)


def check(args: argparse.Namespace) -> None:
    from packed_esm.system.gpu_lease import leased_gpu

    with leased_gpu([] if args.device == "cpu" else None):  # before torch looks at the GPUs
        from packed_esm.validation.run import validate
        from packed_esm.validation.tolerance import ValidationOptions

        summary = validate(
            [(name, Path(fasta), Path(parquet)) for name, fasta, parquet in args.sample],
            args.manifest,
            args.stats,
            args.table,
            args.summary,
            ValidationOptions(args.sequences, args.seed, args.max_relative_l2, args.min_residue_cosine),
            _embedding.embedding_options(args),
            {(name, feature): Path(path) for name, feature, path in args.residues},
        )
    print(f"{summary['rows_checked']} rows checked, {summary['sequences_compared']} sequences compared: passed")


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), check, argv)


if __name__ == "__main__":
    sys.exit(main())
