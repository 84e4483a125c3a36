"""Dealing: chunks have equal work, and each sequence goes where one after the other would have gone."""

import heapq
from collections import Counter

import numpy as np
import pytest
from packed_esm.sequences.dealing import assign_to_chunks, estimated_flops, ranks


def lengths_like_uniprot(count, seed=0):
    return np.clip(np.random.default_rng(seed).lognormal(5.65, 0.6, count).astype(int), 20, 5000).tolist()


def one_after_the_other(lengths, chunks, embed_dim):
    """Return the chunk of each sequence by Graham's rule, with a heap of loads."""
    loads, assigned = [(0, chunk) for chunk in range(chunks)], [0] * len(lengths)
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, assigned[i] = heapq.heappop(loads)
        heapq.heappush(loads, (load + estimated_flops(lengths[i], embed_dim), assigned[i]))
    return assigned


@pytest.mark.parametrize("chunks", [1, 2, 7, 16])
def test_chunks_have_equal_work(chunks):
    counts = Counter(lengths_like_uniprot(3000))
    dealt = assign_to_chunks(counts, chunks, 1280)
    assert {length: len(of_length) for length, of_length in dealt.items()} == counts
    loads = sum(
        estimated_flops(length, 1280) * np.bincount(of_length, minlength=chunks) for length, of_length in dealt.items()
    )
    assert loads.sum() == sum(estimated_flops(length, 1280) * count for length, count in counts.items())
    assert max(loads) / min(loads) < 1.01


@pytest.mark.parametrize("seed", range(20))
def test_sequences_go_where_they_would_one_after_the_other(seed):
    rng = np.random.default_rng(seed)
    count, chunks, embed_dim = (int(rng.integers(*limits)) for limits in ((0, 500), (1, 20), (1, 60)))
    lengths = [length // 40 + 1 for length in lengths_like_uniprot(count, seed)]  # so that many are equal
    dealt = {length: iter(chunk) for length, chunk in assign_to_chunks(Counter(lengths), chunks, embed_dim).items()}
    assert [next(dealt[length]) for length in lengths] == one_after_the_other(lengths, chunks, embed_dim)


def test_ranks_count_on_from_batch_to_batch():
    groups, next_rank = np.random.default_rng(0).integers(0, 5, 200), np.array([0, 100, 0, 0, 0, 7])
    seen = {group: int(first) for group, first in enumerate(next_rank)}
    wanted = []
    for group in groups.tolist():
        wanted.append(seen[group])
        seen[group] += 1
    parts = [ranks(part, next_rank) for part in np.split(groups, [3, 3, 120])]
    assert np.concatenate(parts).tolist() == wanted
    assert next_rank.tolist() == list(seen.values())
