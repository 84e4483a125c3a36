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
    parser.add_argument("--sample", required=True, help="name of the sample in the manifest")
    parser.add_argument(
        "--chunks", nargs="+", type=Path, required=True, help="outputs of embed_chunk.py, in chunk order"
    )
    parser.add_argument("--out", type=Path, required=True, help="Parquet file")
    return parser


def merge(args: argparse.Namespace) -> None:
    with _program.importing():
        from packed_esm.store.merge import merge_sample

    rows = merge_sample(args.manifest, args.sample, args.chunks, args.out)
    print(f"{args.out}: {rows} embeddings")


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), merge, argv)


if __name__ == "__main__":
    sys.exit(main())
