"""The options for embedding, shared by embed_chunk.py and validate.py."""

import argparse

from _options import add_options, options_from
from packed_esm.embedding.options import EmbedOptions
from packed_esm.sequences.options import LongProteins


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
    from packed_esm.checkpoints.registry import find_model

    if args.threads:
        torch.set_num_threads(args.threads)
    windows = options_from(args, LongProteins).windows
    return options_from(args, EmbedOptions, model=find_model(args.model), windows=windows)
