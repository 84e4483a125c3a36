"""Packs: everything is in exactly one, none exceeds the budget, and all have one shape."""

import numpy as np
import pytest
from conftest import random_tokens
from packed_esm.embedding.packing import MAX_FILLER_TOKENS, best_fit_decreasing, filler_lengths, iterate_packs
from packed_esm.sequences.tokens import CLS, EOS


@pytest.mark.parametrize("budget", [3, 64, 1000, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_each_sequence_is_in_exactly_one_pack_within_the_budget(budget, seed):
    lengths = np.random.default_rng(seed).integers(3, 700, 500).tolist()
    packs = best_fit_decreasing(lengths, budget)
    assert sorted(i for pack in packs for i in pack) == list(range(500))
    for pack in packs:
        assert sum(lengths[i] for i in pack) <= budget or len(pack) == 1
        assert [lengths[i] for i in pack] == sorted((lengths[i] for i in pack), reverse=True)


def test_packs_of_protein_lengths_are_full_but_for_one():
    lengths = np.clip(np.random.default_rng(0).lognormal(5.65, 0.6, 5000).astype(int), 20, 4000).tolist()
    packs = best_fit_decreasing(lengths, 4096)
    fill = sorted(sum(lengths[i] for i in pack) / 4096 for pack in packs)
    assert fill[1] > 0.98 and np.median(fill) > 0.999
    assert sum(lengths) / (4096 * len(packs)) > 0.995


@pytest.mark.parametrize("where", ["first", "last", "alone"])
def test_sequence_longer_than_the_budget_is_kept_whole_and_alone(where):
    tokens = random_tokens({"first": [900, 40, 50], "last": [40, 50, 900], "alone": [900]}[where])
    packs = list(iterate_packs(tokens, 256))
    long = next(pack for pack in packs if len(tokens[pack.indices[0]]) == 902)
    assert packs[0] is long  # the longest comes first: running out of memory is seen at once
    assert len(long.indices) == 1 and len(long.input_ids) == 902 == long.max_seqlen
    assert len(packs) == (1 if where == "alone" else 2)


@pytest.mark.parametrize("lengths", [[1], [10, 20, 30], [254], [253], [100, 152], [100, 153], [1] * 200])
def test_every_pack_has_the_shape_of_the_budget_and_its_sequences_unchanged(lengths):
    tokens = random_tokens(lengths)
    packs = list(iterate_packs(tokens, 256))
    assert sorted(i for pack in packs for i in pack.indices) == list(range(len(tokens)))
    for pack in packs:
        assert len(pack.input_ids) == 256 == pack.cu_seqlens[-1]
        assert pack.cu_seqlens.dtype == np.int32 and pack.cu_seqlens[0] == 0
        assert (np.diff(pack.cu_seqlens) > 0).all()
        assert pack.max_seqlen == np.diff(pack.cu_seqlens).max()
        assert pack.real_tokens == sum(len(tokens[i]) for i in pack.indices)
        for place, i in enumerate(pack.indices):
            rows = pack.input_ids[pack.cu_seqlens[place] : pack.cu_seqlens[place + 1]]
            assert np.array_equal(rows, tokens[i])


def test_filler_is_made_of_short_sequences():
    tokens = random_tokens([5])
    (pack,) = iterate_packs(tokens, 1000)
    fillers = np.split(pack.input_ids, pack.cu_seqlens[1:-1])[1:]
    assert all(f[0] in (CLS, EOS) and f[-1] == EOS and len(f) <= MAX_FILLER_TOKENS for f in fillers)
    assert filler_lengths(0) == [] and filler_lengths(1) == [1] and sum(filler_lengths(993)) == 993


def test_no_sequence_gives_no_pack_and_equal_input_equal_packs():
    assert list(iterate_packs([], 256)) == []
    lengths = np.random.default_rng(1).integers(3, 300, 300).tolist()
    assert best_fit_decreasing(lengths, 512) == best_fit_decreasing(list(lengths), 512)


def test_a_budget_that_takes_no_residue_is_an_error():
    with pytest.raises(ValueError, match="tokens_per_pack: 2"):
        list(iterate_packs(random_tokens([1]), 2))
