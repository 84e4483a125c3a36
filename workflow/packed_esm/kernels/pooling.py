"""Pool the token representations of a pack to one vector per sequence."""

from collections.abc import Sequence

import torch

from ..outputs.table import POOLINGS


def pool_packed(
    representation: torch.Tensor, cu_seqlens: torch.Tensor, count: int, poolings: Sequence[str], kernels: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pooled vectors of `count` sequences of a pack, and whether each has values that are not finite.

    `mean`, `max` and `std` (of the population: 0 for one residue) use the residues without cls and eos; `bos` is the
    row of cls, `eos` that of eos. `mean` and `bos` are those of `--include mean bos` in fair-esm's scripts/extract.py.
    The order of a sum depends only on its sequence.

    Args:
        representation: fp32 [total, E], the sequences one after the other, each with cls and eos.
        cu_seqlens: int32 [n + 1] on the host, n >= count, starting at the first of these sequences. Each sequence has
            at least 3 tokens.
        count: number of sequences to pool.
        poolings: names of POOLINGS.
        kernels: use a Triton kernel on a CUDA device, without synchronisation, for the poolings that it computes. The
            last bits of its sums differ from those of torch.

    Returns:
        fp32 [len(poolings), count, E], and bool [count]: whether any token of the sequence has a value that is not
        finite.
    """
    if not kernels:
        return _by_torch(representation, cu_seqlens, count, poolings)
    from .triton_ops import POOLED, pool

    by_kernel, nonfinite = pool(representation, cu_seqlens, count)
    others = [name for name in poolings if name not in POOLED]
    by_torch = _by_torch(representation, cu_seqlens, count, others)[0] if others else ()
    vectors = dict(zip(POOLED, by_kernel, strict=True)) | dict(zip(others, by_torch, strict=True))
    return torch.stack([vectors[name] for name in poolings]), nonfinite


def _by_torch(
    representation: torch.Tensor, cu_seqlens: torch.Tensor, count: int, poolings: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `pool_packed`."""
    lengths = cu_seqlens[: count + 1].diff().tolist()
    sequences = representation[cu_seqlens[0] : cu_seqlens[count]].split(lengths)
    if representation.shape[1] == 1:
        # On a GPU the order in which torch sums one column depends on its address: copies have the same alignment.
        sequences = [rows.clone() for rows in sequences]
    pooled = [torch.stack([POOLINGS[name].pool(rows) for rows in sequences]) for name in poolings]
    nonfinite = torch.stack([~torch.isfinite(rows).all() for rows in sequences])
    return torch.stack(pooled), nonfinite
