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
from _options import add_options, options_from
from packed_esm.validation.tolerance import ValidationOptions


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sample",
        action=_program.InTurn,
        required=True,
        metavar=("NAME", "FASTA", "PARQUET"),
        help="samples, each with its FASTA file and its output of merge_sample.py",
    )
    parser.add_argument(
        "--residues",
        action=_program.InTurn,
        default=[],
        metavar=("NAME", "FEATURE", "HDF5"),
        help="samples, each with a feature and the output of merge_residues.py for it",
    )
    parser.add_argument("--manifest", type=Path, required=True, help="output of chunk_fasta.py")
    parser.add_argument("--stats", nargs="+", type=Path, required=True, help="JSON outputs of embed_chunk.py")
    parser.add_argument("--table", type=Path, required=True, help="TSV: one row per sequence and layer")
    parser.add_argument("--summary", type=Path, required=True, help="JSON: the results")
    add_options(parser, ValidationOptions)
    _embedding.add_embedding_options(parser)
    return parser


def check(args: argparse.Namespace) -> None:
    from packed_esm.system.gpu_lease import leased_gpu

    with leased_gpu([] if args.device == "cpu" else None):  # before torch looks at the GPUs
        with _program.importing():
            from packed_esm.validation.run import validate

        summary = validate(
            [(name, Path(fasta), Path(parquet)) for name, fasta, parquet in args.sample],
            args.manifest,
            args.stats,
            args.table,
            args.summary,
            options_from(args, ValidationOptions),
            _embedding.embedding_options(args),
            {(name, feature): Path(path) for name, feature, path in args.residues},
        )
    print(f"{summary['rows_checked']} rows checked, {summary['sequences_compared']} sequences compared: passed")


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), check, argv)


if __name__ == "__main__":
    sys.exit(main())
