"""Run the sequences of a pack in padded batches: what the packed forward is a faster way to do."""

from collections.abc import Callable

import torch

from .attention import PackLayout

PADDED_BATCH_SCORES = 2**24  # B * T^2 of one padded batch: 64 MiB of fp32 scores a head


def in_padded_batches(
    forward: Callable[[torch.Tensor], dict], input_ids: torch.Tensor, layout: PackLayout, padding_idx: int
) -> dict:
    """Return {"representations": {layer: [total, E]}, "logits": [total, tokens]} of a pack, by padded batches.

    Args:
        forward: takes tokens, int [B, T], and returns what fair-esm's `ESM2.forward` does.
        input_ids: int [total], the pack.
        layout: where its sequences stand.
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
    """Group sequences of like length so that a batch's attention scores stay bounded."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] ** 2 <= PADDED_BATCH_SCORES:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
