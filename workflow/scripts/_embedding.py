"""The options for embedding, shared by embed_chunk.py, look_up.py and validate.py."""

import argparse
from pathlib import Path

from _options import add_options, options_from
from packed_esm.embedding.options import EmbedOptions, StorageOptions
from packed_esm.outputs.table import RESIDUE_DTYPES
from packed_esm.sequences.options import LongProteins


def add_earlier_results(parser: argparse.ArgumentParser) -> None:
    """Add the files and the folder of earlier results."""
    parser.add_argument(
        "--reuse",
        nargs="*",
        type=Path,
        default=[],
        help="Parquet files of earlier runs, with ../residues for values of each residue: embeddings with the same "
        "settings are copied from them (default: none)",
    )
    parser.add_argument(
        "--own-results",
        type=Path,
        metavar="FOLDER",
        help="results that the job is for: what was merged there with the same settings is copied too (default: none)",
    )


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for how values are stored."""
    parser.add_argument(
        "--residue-dtype",
        default="float16",
        choices=RESIDUE_DTYPES,
        help="of representations (default: %(default)s)",
    )
    add_options(parser, StorageOptions)


def storage_options(args: argparse.Namespace) -> StorageOptions:
    """Return the options that `add_storage_options` added."""
    return options_from(args, StorageOptions, residue_dtype=args.residue_dtype)


def add_embedding_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for embedding."""
    add_options(parser.add_argument_group("embedding"), EmbedOptions)
    add_options(parser.add_argument_group("long proteins (embedded in windows if the action is split)"), LongProteins)
    parser.add_argument(
        "--terminal",
        type=int,
        metavar="DESCRIPTOR",
        help="an open file descriptor for the progress bar, if stderr is a file (default: stderr)",
    )
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch (default: all)")


def embedding_options(args: argparse.Namespace) -> EmbedOptions:
    """Return the options that `add_embedding_options` added, and set the threads of torch."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    return options_without_threads(args)


def options_without_threads(args: argparse.Namespace) -> EmbedOptions:
    """Return the options that `add_embedding_options` added; torch is not imported."""
    from packed_esm.checkpoints.registry import find_model

    windows = options_from(args, LongProteins).windows
    return options_from(args, EmbedOptions, model=find_model(args.model), windows=windows)
