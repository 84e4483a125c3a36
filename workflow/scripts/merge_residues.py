"""Join the residue files of all chunks to one HDF5 file of a sample: one dataset per accession or id.

The file holds copies and can be moved; --link writes one of links to the chunks, which then
must stay in place.

Example:
  python workflow/scripts/merge_residues.py --manifest manifest.parquet --sample human \\
      --chunks 1-of-2.representations.h5 2-of-2.representations.h5 --out human.representations.h5
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
        "--chunks", nargs="+", type=Path, required=True, help="residue files of one feature, in chunk order"
    )
    parser.add_argument(
        "--out", type=Path, nargs="+", action="extend", required=True, help="HDF5 file of each sample, in order"
    )
    parser.add_argument("--link", action="store_true", help="link to the datasets of the chunks (default: copy them)")
    return parser


def merge(args: argparse.Namespace) -> None:
    with _program.importing():
        from packed_esm.store.merge_residues import merge_residues

    outs = _program.paired(args.sample, args.out, "--sample", "--out")
    rows = merge_residues(args.manifest, outs, args.chunks, args.link)
    print(f"datasets: {rows}, samples: {len(outs)}")


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), merge, argv)


if __name__ == "__main__":
    sys.exit(main())
