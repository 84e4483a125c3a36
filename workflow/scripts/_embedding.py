"""The options that say how to embed, for the programs that do."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packed_esm.embedding.options import EmbedOptions


def add_embedding_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to embed."""
    add = parser.add_argument_group("embedding").add_argument
    add(
        "--model",
        required=True,
        help="demo, a name (esm2_t33_650M_UR50D), a .pt, a Hugging Face folder, or an id in its cache",
    )
    add(
        "--layers",
        nargs="+",
        type=int,
        default=[-1],
        help="0 = embedding, N = last, -1 = last (default: %(default)s)",
    )
    add(
        "--pooling",
        nargs="+",
        default=["mean"],
        help="mean, max, std (the population's), bos, eos (default: %(default)s)",
    )
    add("--include", nargs="*", default=[], help="also log_likelihood, logits, contacts (default: none)")
    add(
        "--windows",
        nargs=2,
        type=int,
        metavar=("RESIDUES", "OVERLAP"),
        help="embed longer proteins in windows of so many residues, averaged where they overlap (default: whole)",
    )
    add("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    add(
        "--dtype",
        default="auto",
        help="auto (fp32 on CPU, fp16 on a GPU), fp32, fp16, bf16, fp8 (default: %(default)s)",
    )
    add(
        "--attention",
        default="auto",
        help="auto, triton, flash-attn, flash-attn-3, torch-varlen, sdpa, padded (default: %(default)s)",
    )
    add(
        "--tokens-per-pack",
        type=_count_or_auto,
        default=None,
        help="tokens of one forward pass (default: auto)",
    )
    add(
        "--on-nonfinite",
        default="recompute",
        choices=["recompute", "fail"],
        help="values that are not finite: in fp32, or stop (default: %(default)s)",
    )
    add(
        "--terminal",
        type=int,
        metavar="DESCRIPTOR",
        help="an open file descriptor for the progress bar, where stderr goes to a file (default: stderr)",
    )
    add("--threads", type=int, default=None, help="CPU threads of torch (default: all)")


def embedding_options(args: argparse.Namespace) -> "EmbedOptions":
    """Return what `add_embedding_options` parsed."""
    import torch
    from packed_esm.checkpoints.registry import find_model
    from packed_esm.embedding.options import EmbedOptions
    from packed_esm.sequences.windows import ResidueWindows

    if args.threads:
        torch.set_num_threads(args.threads)
    return EmbedOptions(
        find_model(args.model),
        args.layers,
        args.pooling,
        args.include,
        args.device,
        args.dtype,
        args.attention,
        args.tokens_per_pack,
        args.on_nonfinite,
        ResidueWindows(*args.windows) if args.windows else None,
    )


def _count_or_auto(text: str) -> int | None:
    return None if text == "auto" else int(text)
