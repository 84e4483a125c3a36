"""Join the embeddings of all chunks to one Parquet file of a sample, in input order.

Example:
  python workflow/scripts/merge_sample.py --manifest manifest.parquet --sample human \\
      --chunks 1-of-2.arrow 2-of-2.arrow --out human.parquet
"""

import argparse
import sys
from pathlib import Path

import _program


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="output of chunk_fasta.py")
    parser.add_argument("--sample", nargs="+", action="extend", required=True, help="names of samples in the manifest")
    parser.add_argument(
        "--chunks", nargs="+", type=Path, required=True, help="outputs of embed_chunk.py, in chunk order"
    )
    parser.add_argument(
        "--out",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="Parquet file of each sample, or folder of parts, in order",
    )
    parser.add_argument("--rows-per-file", type=int, help="write folders of parts with at most that many proteins each")
    return parser


def merge(args: argparse.Namespace) -> None:
    with _program.importing():
        from packed_esm.store.merge import merge_samples

    outs = _program.paired(args.sample, args.out, "--sample", "--out")
    rows = merge_samples(args.manifest, outs, args.chunks, args.rows_per_file)
    print(f"embeddings: {rows}, samples: {len(outs)}")


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), merge, argv)


if __name__ == "__main__":
    sys.exit(main())
