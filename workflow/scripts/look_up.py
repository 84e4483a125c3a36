"""Look for the sequences of all chunks in earlier results: a JSON that says which parts of them have those of a chunk.

Example:
  python workflow/scripts/look_up.py --manifest manifest.parquet --chunks 1-of-2.fasta 2-of-2.fasta \\
      --reuse human.parquet --model demo --layers 6 --out earlier.json
"""

import argparse
import sys
from pathlib import Path

import _embedding
import _program
from packed_esm.embedding.earlier_places import EarlierPlaces, own_files


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="Parquet: one row per record, by chunk_fasta.py")
    parser.add_argument("--chunks", nargs="+", type=Path, required=True, help="FASTA files of the chunks, in order")
    parser.add_argument("--out", type=Path, required=True, help="JSON: where earlier results have the sequences")
    parser.add_argument(
        "--on-cluster", action="store_true", help="other machines embed, and have a GPU unless --device says otherwise"
    )
    _embedding.add_earlier_results(parser)
    _embedding.add_storage_options(parser)
    _embedding.add_embedding_options(parser)
    return parser


def find(args: argparse.Namespace) -> None:
    own = own_files(args.own_results)
    if not own and not args.reuse:
        EarlierPlaces().write(args.out)
        return
    with _program.importing():
        from packed_esm.checkpoints.digest import checkpoint_digest, read_digests, records_in
        from packed_esm.embedding.expected import ExpectedSettings
        from packed_esm.embedding.look_up import look_up

    options, storage = _embedding.options_without_threads(args), _embedding.storage_options(args)
    digest = checkpoint_digest(options.model, read_digests(records_in(args.own_results) if args.own_results else []))
    expected = ExpectedSettings.of(options, storage, args.model, digest.sha256, args.on_cluster)
    look_up(args.out, args.manifest, [path.name for path in args.chunks], own, args.reuse, expected, digest)


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), find, argv)


if __name__ == "__main__":
    sys.exit(main())
