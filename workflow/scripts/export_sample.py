"""Write the embeddings of a sample in formats that other programs read.

Example:
  python workflow/scripts/export_sample.py --embeddings human.parquet --manifest manifest.parquet --sample human \\
      --npy mean_6 human.mean_6.npy --ids human.ids.txt --h5ad human.h5ad --pt human.pt \\
      --h5 mean_6 human.mean_6.h5 --skbio mean_6 human.mean_6.skbio.h5 \\
      --chunks 1-of-2.fasta 2-of-2.fasta
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import _program


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path, required=True, help="output of merge_sample.py")
    parser.add_argument("--manifest", type=Path, required=True, help="output of chunk_fasta.py")
    parser.add_argument("--sample", required=True, help="name of the sample in the manifest")
    column = {"nargs": 2, "action": "append", "default": [], "metavar": ("COLUMN", "PATH")}
    parser.add_argument("--h5", **column, help="HDF5 file in the layout of UniProt; repeatable")
    parser.add_argument("--npy", **column, help="matrix; repeatable")
    parser.add_argument(
        "--ids",
        type=Path,
        action="append",
        default=[],
        help="text file, one id per line, in the order of the matrices; repeatable",
    )
    parser.add_argument("--skbio", **column, help="HDF5 file in scikit-bio's format `embed`; repeatable")
    parser.add_argument("--h5ad", type=Path, help="AnnData file")
    parser.add_argument("--metadata", type=Path, help="sheet of metadata (TSV), for --h5ad")
    parser.add_argument("--pt", type=Path, help="folder for files like those of fair-esm's scripts/extract.py")
    parser.add_argument(
        "--residues",
        nargs=2,
        action="append",
        default=[],
        metavar=("FEATURE", "PATH"),
        help="output of merge_residues.py, for --pt; repeatable",
    )
    parser.add_argument(
        "--chunks",
        type=Path,
        nargs="+",
        default=[],
        help="FASTA files of chunk_fasta.py, in order, for --h5 and --skbio",
    )
    return parser


def export(args: argparse.Namespace) -> None:
    from packed_esm.errors import OptionError
    from packed_esm.store.export import export_sample

    others = []
    if args.pt:
        from packed_esm.embedding.pt_files import pt_folder

        others = [partial(pt_folder, args.pt, [(feature, Path(path)) for feature, path in args.residues])]
    elif args.residues:
        raise OptionError("--residues: the values are written to the files of --pt; name its folder too")

    records = export_sample(
        args.embeddings,
        args.manifest,
        args.sample,
        h5=[(column, Path(path)) for column, path in args.h5],
        npy=[(column, Path(path)) for column, path in args.npy],
        ids=args.ids,
        skbio=[(column, Path(path)) for column, path in args.skbio],
        h5ad=args.h5ad,
        chunks=args.chunks,
        metadata=args.metadata,
        others=others,
    )
    paths = [*(path for _, path in (*args.h5, *args.npy, *args.skbio)), *args.ids, *filter(None, (args.h5ad, args.pt))]
    print(f"{', '.join(map(str, paths))}: {records} records")


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), export, argv)


if __name__ == "__main__":
    sys.exit(main())
