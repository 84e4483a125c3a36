"""Pool token representations of a pack to one vector a sequence."""

from collections.abc import Sequence

import torch

from ..outputs.table import POOLINGS


def pool_packed(
    representation: torch.Tensor, cu_seqlens: torch.Tensor, count: int, poolings: Sequence[str], kernels: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pooled vectors of `count` sequences of a pack, and which of them are not sound.

    `mean`, `max` and `std` (of the population: 0 for one residue) run over the residues only, without cls and eos;
    `bos` is the row of cls, as `--include mean bos` of fair-esm's scripts/extract.py, `eos` that of eos. A sum's order
    depends on nothing but its sequence.

    Args:
        representation: fp32 [total, E], the sequences one after the other, each with cls and eos.
        cu_seqlens: int32 [n + 1] on the host, n >= count, from where the first of them begins; each of them has at
            least 3 tokens.
        poolings: names of POOLINGS.
        kernels: by a Triton kernel where it knows the pooling, on a CUDA device, without synchronisation; its sums
            have other last bits.

    Returns:
        fp32 [len(poolings), count, E], and bool [count]: a value of any of its tokens is not finite.
    """
    if not kernels:
        return _by_torch(representation, cu_seqlens, count, poolings)
    from .triton_ops import POOLED, pool

    by_kernel, bad = pool(representation, cu_seqlens, count)
    others = [name for name in poolings if name not in POOLED]
    more = _by_torch(representation, cu_seqlens, count, others)[0] if others else ()
    vectors = dict(zip(POOLED, by_kernel, strict=True)) | dict(zip(others, more, strict=True))
    return torch.stack([vectors[name] for name in poolings]), bad


def _by_torch(
    representation: torch.Tensor, cu_seqlens: torch.Tensor, count: int, poolings: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `pool_packed`."""
    lengths = cu_seqlens[: count + 1].diff().tolist()
    sequences = representation[cu_seqlens[0] : cu_seqlens[count]].split(lengths)
    if representation.shape[1] == 1:
        # On a GPU torch sums one column in an order that depends on where it begins in memory: a copy begins alike.
        sequences = [rows.clone() for rows in sequences]
    pooled = [torch.stack([POOLINGS[name].of(rows) for rows in sequences]) for name in poolings]
    bad = torch.stack([~torch.isfinite(rows).all() for rows in sequences])
    return torch.stack(pooled), bad
