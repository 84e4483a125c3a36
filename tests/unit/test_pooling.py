"""Pooling: residues only, each sequence by itself."""

import numpy as np
import pytest
import torch
from packed_esm.pooling import nonfinite_sequences, pool_packed

LENGTHS = [7, 3, 40, 1002]


@pytest.fixture
def rows():
    torch.manual_seed(0)
    return torch.randn(sum(LENGTHS) + 20, 24)  # the last 20 are filler


def test_pools_are_those_of_the_residue_rows_only(rows):
    """Row 11: mean over rows 1..L (scripts/extract.py), bos is row 0; filler and eos count nowhere."""
    pooled = pool_packed(rows, LENGTHS, ["mean", "bos", "max"])
    start = 0
    for i, length in enumerate(LENGTHS):
        residues = rows[start + 1 : start + length - 1].double().numpy()
        assert np.allclose(pooled["mean"][i], residues.mean(0), atol=1e-6)
        assert np.array_equal(pooled["max"][i], residues.max(0).astype(np.float32))
        assert torch.equal(pooled["bos"][i], rows[start])
        start += length


def test_pools_do_not_depend_on_neighbours_to_the_bit(rows):
    together = pool_packed(rows, LENGTHS, ["mean"])["mean"]
    alone = pool_packed(rows[10:50].clone(), [40], ["mean"])["mean"]
    assert torch.equal(together[2], alone[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("row", "which"), [(0, 0), (6, 0), (7, 1), (9, 1), (10, 2), (49, 2), (50, 3), (1051, 3)])
def test_a_value_that_is_not_finite_is_found_in_its_sequence(rows, value, row, which):
    rows[row, 5] = value
    assert nonfinite_sequences(rows, LENGTHS).tolist() == [i == which for i in range(4)]


def test_filler_may_be_anything(rows):
    rows[-20:] = float("nan")
    assert not nonfinite_sequences(rows, LENGTHS).any()
    assert torch.isfinite(pool_packed(rows, LENGTHS, ["mean", "bos", "max"])["max"]).all()
