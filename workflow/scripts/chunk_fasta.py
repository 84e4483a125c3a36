"""Check the records of all samples, keep one copy of equal sequences, and assign them to chunks of equal work.

Example:
  python workflow/scripts/chunk_fasta.py --sample human human.fasta.gz yeast yeast.fasta \\
      --chunks 1-of-2.fasta 2-of-2.fasta --manifest manifest.parquet --rejected rejected.tsv --counts counts.json
"""

import argparse
import sys
from pathlib import Path

import _program
from _options import add_options, options_from
from packed_esm.sequences.options import ChunkOptions, LongProteins, RecordOptions


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sample",
        action=_program.InTurn,
        required=True,
        metavar=("NAME", "FASTA"),
        help="samples, each with its FASTA file, plain or gzip",
    )
    parser.add_argument("--chunks", nargs="+", type=Path, required=True, help="FASTA files to write, one per chunk")
    parser.add_argument("--manifest", type=Path, required=True, help="Parquet: one row per record")
    parser.add_argument("--rejected", type=Path, required=True, help="TSV: records rejected or changed, and why")
    parser.add_argument("--counts", type=Path, required=True, help="JSON: counts of records and residues")
    parser.add_argument(
        "--reuse",
        nargs="*",
        type=Path,
        default=[],
        help="Parquet files of earlier runs: their sequences get chunks of their own (default: none)",
    )
    parser.add_argument(
        "--own-results", type=Path, metavar="FOLDER", help="the same for what was merged here earlier (default: none)"
    )
    add_options(parser, RecordOptions, LongProteins)
    parser.add_argument(
        "--embed-dim",
        type=int,
        default=ChunkOptions.embed_dim,
        help="of the model, to estimate work (default: %(default)s)",
    )
    parser.add_argument(
        "--translated",
        action="store_true",
        help="the proteins are from translate.py: do not warn about those that look like DNA",
    )
    return parser


def chunk(args: argparse.Namespace) -> None:
    with _program.importing():
        from packed_esm.embedding.earlier_places import own_files
        from packed_esm.sequences.chunking import chunk_samples

    samples = [(name, Path(path)) for name, path in args.sample]
    records, long_proteins = options_from(args, RecordOptions), options_from(args, LongProteins)
    options = ChunkOptions(records, long_proteins, args.embed_dim, args.translated)
    earlier = [*own_files(args.own_results), *args.reuse]
    counts = chunk_samples(samples, args.chunks, args.manifest, args.rejected, args.counts, options, earlier)
    print(
        f"{counts['records']} records of {len(samples)} samples: {counts['accepted']} accepted, "
        f"{counts['replaced']} replaced, {counts['truncated']} truncated, {counts['split']} split, "
        f"{counts['rejected']} rejected; {counts['unique_sequences']} unique "
        f"sequences ({counts['unique_residues']} residues) in {len(args.chunks)} chunks"
    )


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), chunk, argv)


if __name__ == "__main__":
    sys.exit(main())
