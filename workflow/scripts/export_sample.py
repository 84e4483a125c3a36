"""Write the embeddings of a sample in formats that other programs read.

With several samples, {sample} in a path stands for the name of each.

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

EACH = "{sample}"  # in paths; for each sample its name


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path, required=True, help="output of merge_sample.py")
    parser.add_argument("--manifest", type=Path, required=True, help="output of chunk_fasta.py")
    parser.add_argument("--sample", nargs="+", action="extend", required=True, help="names of samples in the manifest")
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
        action=_program.InTurn,
        default=[],
        metavar=("FEATURE", "PATH"),
        help="features, each with its output of merge_residues.py, for --pt",
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
    from packed_esm.store.export import with_sequences

    for option, path in paths_of_a_sample(args) if len(args.sample) > 1 else ():
        if EACH not in str(path):
            raise OptionError(
                f"{option}: {path} would be the file of every sample; write {EACH} in it in place of the sample's name"
            )
    if args.residues and not args.pt:
        raise OptionError("--residues: the values are written to the files of --pt; name its folder too")
    without = ((sample, {}) for sample in args.sample)
    for sample, sequences in (
        with_sequences(args.manifest, args.sample, args.chunks) if args.h5 or args.skbio else without
    ):
        export_one(args, sample, sequences)


def paths_of_a_sample(args: argparse.Namespace) -> list[tuple[str, str | Path]]:
    """Return (option, path) of each file that belongs to one sample."""
    one = [(f"--{name}", getattr(args, name)) for name in ("embeddings", "h5ad", "pt") if getattr(args, name)]
    pairs = [(f"--{name}", path) for name in ("h5", "npy", "skbio", "residues") for _, path in getattr(args, name)]
    return [*one, *pairs, *(("--ids", path) for path in args.ids)]


def export_one(args: argparse.Namespace, sample: str, sequences: dict[str, str]) -> None:
    """Export one sample; `sequences`: {digest: sequence}."""
    from packed_esm.store.export import export_sample

    def of_sample(path: str | Path) -> Path:
        return Path(str(path).replace(EACH, sample))

    def columns(pairs: list[list[str]]) -> list[tuple[str, Path]]:
        return [(column, of_sample(path)) for column, path in pairs]

    others = []
    if args.pt:
        from packed_esm.embedding.pt_files import pt_folder

        others = [partial(pt_folder, of_sample(args.pt), columns(args.residues))]
    formats = {"h5": columns(args.h5), "npy": columns(args.npy), "skbio": columns(args.skbio)}
    ids, h5ad = list(map(of_sample, args.ids)), of_sample(args.h5ad) if args.h5ad else None
    records = export_sample(
        of_sample(args.embeddings),
        args.manifest,
        sample,
        **formats,
        ids=ids,
        h5ad=h5ad,
        sequences=sequences,
        metadata=args.metadata,
        others=others,
    )
    paths = [path for pairs in formats.values() for _, path in pairs] + ids + [path for path in (h5ad, args.pt) if path]
    print(f"{', '.join(str(of_sample(path)) for path in paths)}: {records} records")


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), export, argv)


if __name__ == "__main__":
    sys.exit(main())
