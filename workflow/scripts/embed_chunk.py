"""Embed the proteins of a FASTA file with packed ESM-2: an Arrow file, one row per sequence, in input order.

Example:
  python workflow/scripts/embed_chunk.py --fasta 1-of-2.fasta --model demo --layers 6 --out 1-of-2.arrow \\
      --stats 1-of-2.json --residues representations 1-of-2.representations.h5
"""

import argparse
import sys
from pathlib import Path

import _embedding
import _program
from _options import add_options, options_from
from packed_esm.embedding.options import RepeatOptions, StorageOptions
from packed_esm.outputs.table import RESIDUE_DTYPES


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, required=True, help="normalised sequences, as chunk_fasta.py writes them")
    parser.add_argument("--out", type=Path, required=True, help="Arrow file of embeddings")
    parser.add_argument("--stats", type=Path, required=True, help="JSON: seconds, memory, device, counters")
    parser.add_argument(
        "--reuse",
        nargs="*",
        type=Path,
        default=[],
        help="Parquet files of earlier runs, with ../residues for values of each residue: embeddings with the same "
        "settings are copied from them (default: none)",
    )
    parser.add_argument(
        "--own-results",
        type=Path,
        metavar="FOLDER",
        help="results that the job is for: what was merged there with the same settings is copied too (default: none)",
    )
    parser.add_argument(
        "--residues",
        action=_program.InTurn,
        default=[],
        metavar=("FEATURE", "HDF5"),
        help="also write representations, logits or other values of each residue",
    )
    parser.add_argument(
        "--residue-dtype",
        default="float16",
        choices=RESIDUE_DTYPES,
        help="of representations (default: %(default)s)",
    )
    add_options(parser, StorageOptions, RepeatOptions)
    _embedding.add_embedding_options(parser)
    return parser


def embed(args: argparse.Namespace) -> None:
    from packed_esm.checkpoints.digest import read_digests, records_in, start_digest
    from packed_esm.checkpoints.registry import find_model
    from packed_esm.system.gpu_lease import leased_gpu

    with leased_gpu([] if args.device == "cpu" else None):  # before torch looks at the GPUs
        records = records_in(args.own_results) if args.own_results else []
        digest = start_digest(find_model(args.model), read_digests(records))  # it runs while torch is imported
        with _program.importing():
            from packed_esm.embedding.job import embed_fasta

        embed_fasta(
            args.fasta,
            args.out,
            args.stats,
            _embedding.embedding_options(args),
            args.reuse,
            {feature: Path(path) for feature, path in args.residues},
            options_from(args, StorageOptions, residue_dtype=args.residue_dtype),
            args.repeat,
            own_results=args.own_results,
            digest=digest,
        )


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), embed, argv)


if __name__ == "__main__":
    sys.exit(main())
