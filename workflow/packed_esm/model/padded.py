"""Run the sequences of a pack in padded batches, the slow equivalent of the packed forward."""

from collections.abc import Callable

import torch

from .attention import PackLayout

PADDED_BATCH_SCORES = 2**24  # B * T^2 of one padded batch: 64 MiB of fp32 scores per head


def in_padded_batches(
    forward: Callable[[torch.Tensor], dict], input_ids: torch.Tensor, layout: PackLayout, padding_idx: int
) -> dict:
    """Return {"representations": {layer: [total, E]}, "logits": [total, tokens]} of a pack, by padded batches.

    Args:
        forward: function of tokens, int [B, T], with the result of fair-esm's `ESM2.forward`.
        input_ids: int [total], the pack.
        layout: the boundaries of its sequences.
        padding_idx: the token to pad with.
    """
    starts, lengths = layout.host[:-1].tolist(), layout.host.diff().tolist()
    packed: dict = {}
    for batch in _batches(lengths):
        tokens = input_ids.new_full((len(batch), max(lengths[i] for i in batch)), padding_idx)
        for row, i in enumerate(batch):
            tokens[row, : lengths[i]] = input_ids[starts[i] : starts[i] + lengths[i]]
        out = forward(tokens)
        for key, padded in (out["representations"] | {"logits": out["logits"]}).items():
            rows = packed.setdefault(key, padded.new_empty(layout.total, padded.shape[-1]))
            for row, i in enumerate(batch):
                rows[starts[i] : starts[i] + lengths[i]] = padded[row, : lengths[i]]
    return {"logits": packed.pop("logits"), "representations": packed}


def _batches(lengths: list[int]) -> list[list[int]]:
    """Group sequences of similar length so that several together have at most PADDED_BATCH_SCORES scores."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] ** 2 <= PADDED_BATCH_SCORES:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
