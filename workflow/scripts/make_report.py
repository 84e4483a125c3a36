"""Draw the figures of a run and write its HTML page.

Example:
  python workflow/scripts/make_report.py --sample human human.parquet yeast yeast.parquet \\
      --manifest manifest.parquet --counts counts.json --rejected rejected.tsv --stats 1-of-2.json 2-of-2.json \\
      --validation validation.json --validation-table validation.tsv --captions workflow/report \\
      --figures figures --html report.html
"""

import argparse
import sys
from pathlib import Path

import _program


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sample",
        action=_program.InTurn,
        required=True,
        metavar=("NAME", "PARQUET"),
        help="samples, each with its output of merge_sample.py",
    )
    parser.add_argument("--manifest", type=Path, required=True, help="output of chunk_fasta.py")
    parser.add_argument("--counts", type=Path, required=True, help="output of chunk_fasta.py")
    parser.add_argument("--rejected", type=Path, required=True, help="output of chunk_fasta.py")
    parser.add_argument("--stats", nargs="+", type=Path, required=True, help="JSON outputs of embed_chunk.py")
    parser.add_argument("--validation", type=Path, required=True, help="JSON output of validate.py")
    parser.add_argument("--validation-table", type=Path, required=True, help="TSV output of validate.py")
    parser.add_argument("--captions", type=Path, required=True, help="folder with an .rst for each figure")
    parser.add_argument("--figures", type=Path, required=True, help="folder for the figures (PNG)")
    parser.add_argument("--html", type=Path, required=True, help="the page to write")
    parser.add_argument(
        "--color-by",
        default="family",
        help="a column of the metadata, or a key=value of the FASTA descriptions (default: %(default)s)",
    )
    parser.add_argument(
        "--metadata",
        type=Path,
        help="TSV: a column id or Entry, a column sample if samples share ids, any others",
    )
    parser.add_argument("--snakemake-version", help="version of Snakemake, for the page")
    parser.add_argument(
        "--stale", default="", help="a sentence on files among the results that do not belong to this run"
    )
    return parser


def report(args: argparse.Namespace) -> None:
    with _program.importing():
        from packed_esm.report.page import PageOptions, write_report
        from packed_esm.report.run_files import RunFiles

    files = RunFiles(
        samples=[(name, Path(path)) for name, path in args.sample],
        manifest=args.manifest,
        counts=args.counts,
        rejected=args.rejected,
        stats=args.stats,
        validation=args.validation,
        validation_table=args.validation_table,
    )
    options = PageOptions(
        captions=args.captions,
        color_by=args.color_by,
        metadata=args.metadata,
        workflow_versions={"snakemake": args.snakemake_version} if args.snakemake_version else {},
        stale=args.stale,
    )
    write_report(files, options, args.figures, args.html)


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), report, argv)


if __name__ == "__main__":
    sys.exit(main())
