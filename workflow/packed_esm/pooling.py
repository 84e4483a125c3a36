"""Pool token representations of a pack to one vector a sequence."""

from collections.abc import Sequence

import torch

POOLINGS = ("mean", "bos", "max")


def pool_packed(
    representation: torch.Tensor, lengths: Sequence[int], poolings: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return {pooling: fp32 [n, E]} of the first n sequences of a pack.

    `mean` and `max` run over the residues only (without cls and eos), `bos` is the row of cls, as
    `--include mean bos` of fair-esm's scripts/extract.py.

    Args:
        representation: fp32 [total, E], the sequences one after the other, each with cls and eos.
        lengths: tokens of each sequence, on the host, each at least 3; rows after their sum are left out.
        poolings: names of POOLINGS.
    """
    # One reduction a sequence: its order of summation depends on nothing but the sequence itself.
    sequences = representation[: sum(lengths)].split(list(lengths))
    return {name: torch.stack([_POOL[name](rows) for rows in sequences]) for name in poolings}


def nonfinite_sequences(representation: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Return which of the first n sequences have a value that is not finite, bool [n]."""
    bad = ~torch.isfinite(representation).all(-1)
    ends = torch.tensor([0, *lengths]).cumsum(0).to(bad.device, non_blocking=True)
    counts = torch.nn.functional.pad(bad.cumsum(0), (1, 0))
    return counts[ends].diff() > 0


_POOL = {
    "mean": lambda rows: rows[1:-1].mean(0),
    "bos": lambda rows: rows[0],
    "max": lambda rows: rows[1:-1].amax(0),
}
