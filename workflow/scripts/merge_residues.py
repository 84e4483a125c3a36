"""Join the residue files of all chunks to one HDF5 file of a sample: one dataset per accession or id.

The file links to those of the chunks, which must stay in place; --copy writes a file that can be moved.

Example:
  python workflow/scripts/merge_residues.py --manifest manifest.parquet --sample human --copy \\
      --chunks 1-of-2.representations.h5 2-of-2.representations.h5 --out human.representations.h5
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
        "--chunks", nargs="+", type=Path, required=True, help="residue files of one feature, in chunk order"
    )
    parser.add_argument("--out", type=Path, required=True, help="HDF5 file")
    parser.add_argument("--copy", action="store_true", help="copy the datasets (default: link to them)")
    return parser


def merge(args: argparse.Namespace) -> None:
    from packed_esm.store.merge_residues import merge_residues

    rows = merge_residues(args.manifest, args.sample, args.chunks, args.out, args.copy)
    print(f"{args.out}: {rows} datasets")


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), merge, argv)


if __name__ == "__main__":
    sys.exit(main())
