"""Check the records of all samples, keep one copy of equal sequences, and deal them to chunks of equal work.

Example:
  python workflow/scripts/chunk_fasta.py --sample human human.fasta.gz --sample yeast yeast.fasta \\
      --chunks 1-of-2.fasta 2-of-2.fasta --manifest manifest.parquet --rejected rejected.tsv --counts counts.json
"""

import argparse
import sys
from pathlib import Path

import _program


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sample",
        action="append",
        required=True,
        nargs=2,
        metavar=("NAME", "FASTA"),
        help="FASTA, plain or gzip; repeatable",
    )
    parser.add_argument("--chunks", nargs="+", type=Path, required=True, help="FASTA files to write, one a chunk")
    parser.add_argument("--manifest", type=Path, required=True, help="Parquet: a row for every record")
    parser.add_argument("--rejected", type=Path, required=True, help="TSV: records rejected or changed, and why")
    parser.add_argument("--counts", type=Path, required=True, help="JSON: counts of records and residues")
    parser.add_argument(
        "--on-invalid",
        default="reject",
        choices=["reject", "fail", "replace"],
        help="an invalid record: list it, stop, or put X (default: %(default)s)",
    )
    parser.add_argument(
        "--on-duplicate-id",
        default="fail",
        choices=["fail", "suffix"],
        help="an id that stands twice: stop, or add _2, _3 ... (default: %(default)s)",
    )
    parser.add_argument("--max-length", type=int, help="residues of a record (default: any)")
    parser.add_argument(
        "--action",
        default="reject",
        choices=["reject", "truncate", "split"],
        help="a longer record: list it, cut it, or leave it to windows (default: %(default)s)",
    )
    parser.add_argument("--overlap", type=int, default=128, help="residues, for split (default: %(default)s)")
    parser.add_argument(
        "--max-record-residues",
        type=int,
        default=1_000_000,
        help="letters of a record beyond which the file is refused, before they fill the memory (default: %(default)s)",
    )
    parser.add_argument(
        "--embed-dim", type=int, default=1280, help="of the model, to estimate work (default: %(default)s)"
    )
    parser.add_argument(
        "--translated", action="store_true", help="the proteins are of translate.py: warn of none that looks like DNA"
    )
    return parser


def chunk(args: argparse.Namespace) -> None:
    from packed_esm.sequences.chunking import chunk_samples
    from packed_esm.sequences.records import LengthLimit

    samples = [(name, Path(path)) for name, path in args.sample]
    counts = chunk_samples(
        samples,
        args.chunks,
        args.manifest,
        args.rejected,
        args.counts,
        args.on_invalid,
        args.on_duplicate_id,
        args.embed_dim,
        args.translated,
        LengthLimit(args.max_length, args.action, args.overlap),
        args.max_record_residues,
    )
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
