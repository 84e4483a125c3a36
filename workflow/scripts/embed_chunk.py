"""Embed the proteins of a FASTA file with packed ESM-2: an Arrow file, one row per sequence, in input order.

Example:
  python workflow/scripts/embed_chunk.py --fasta 1-of-2.fasta --model demo --layers 6 --out 1-of-2.arrow \\
      --stats 1-of-2.json --residues representations 1-of-2.representations.h5
"""

import argparse
import sys
from pathlib import Path

import _embedding
import _program
from _options import add_options
from packed_esm.embedding.earlier_places import EarlierPlaces
from packed_esm.embedding.options import RepeatOptions


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, required=True, help="normalised sequences, as chunk_fasta.py writes them")
    parser.add_argument("--out", type=Path, required=True, help="Arrow file of embeddings")
    parser.add_argument("--stats", type=Path, required=True, help="JSON: seconds, memory, device, counters")
    _embedding.add_earlier_results(parser)
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="JSON",
        help="what look_up.py found in them; a chunk that they have entirely is copied without torch (default: none)",
    )
    parser.add_argument(
        "--residues",
        action=_program.InTurn,
        default=[],
        metavar=("FEATURE", "HDF5"),
        help="also write representations, logits or other values of each residue",
    )
    _embedding.add_storage_options(parser)
    add_options(parser, RepeatOptions)
    _embedding.add_embedding_options(parser)
    return parser


def embed(args: argparse.Namespace) -> None:
    places = EarlierPlaces.read(args.earlier) if args.earlier else EarlierPlaces()
    if args.residues or not places.have_all(args.fasta.name):
        compute(args, places)
        return
    with _program.importing():
        from packed_esm.embedding.copying import copy_chunk, require_device

    if copy_chunk(args.fasta, args.out, args.stats, places, args.reuse, args.own_results):
        return
    require_device(places.settings, args.fasta)
    compute(args, places)


def compute(args: argparse.Namespace, places: EarlierPlaces) -> None:
    from packed_esm.checkpoints.digest import read_digests, records_in, start_digest
    from packed_esm.checkpoints.registry import find_model
    from packed_esm.system.gpu_lease import leased_gpu

    with leased_gpu([] if args.device == "cpu" else None):  # before torch looks at the GPUs
        records = records_in(args.own_results) if args.own_results else []
        digest = start_digest(find_model(args.model), read_digests(records))  # it runs while torch is imported
        with _program.importing():
            from packed_esm.embedding.job import embed_fasta

        embed_fasta(
            args.fasta,
            args.out,
            args.stats,
            _embedding.embedding_options(args),
            args.reuse,
            {feature: Path(path) for feature, path in args.residues},
            _embedding.storage_options(args),
            args.repeat,
            own_results=args.own_results,
            digest=digest,
            places=places,
        )


def main(argv: list[str] | None = None) -> int:
    return _program.run(build_parser(), embed, argv)


if __name__ == "__main__":
    sys.exit(main())
