"""Pooling: residues only, each sequence by itself."""

import numpy as np
import pytest
import torch
from packed_esm.kernels.pooling import pool_packed
from packed_esm.outputs.table import POOLINGS

LENGTHS = [7, 3, 40, 1002]
CU_SEQLENS = torch.tensor([0, *np.cumsum([*LENGTHS, 20])], dtype=torch.int32)  # the last is filler


@pytest.fixture
def rows():
    torch.manual_seed(0)
    return torch.randn(sum(LENGTHS) + 20, 24)  # the last 20 are filler


def test_pools_are_those_of_the_residue_rows_only(rows):
    """Row 11: mean over rows 1..L (scripts/extract.py), bos is row 0; filler and eos count nowhere."""
    mean, bos, most, eos, std = pool_packed(rows, CU_SEQLENS, 4, ["mean", "bos", "max", "eos", "std"])[0]
    start = 0
    for i, length in enumerate(LENGTHS):
        residues = rows[start + 1 : start + length - 1].double().numpy()
        assert np.allclose(mean[i], residues.mean(0), atol=1e-6)
        assert np.array_equal(most[i], residues.max(0).astype(np.float32))
        assert np.allclose(std[i], residues.std(0), atol=1e-6)
        assert torch.equal(bos[i], rows[start]) and torch.equal(eos[i], rows[start + length - 1])
        start += length


def test_pools_do_not_depend_on_neighbours_to_the_bit(rows):
    together = pool_packed(rows, CU_SEQLENS, 4, POOLINGS)[0]
    alone = pool_packed(rows[10:50].clone(), torch.tensor([0, 40], dtype=torch.int32), 1, POOLINGS)[0]
    assert torch.equal(together[:, 2], alone[:, 0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("row", "which"), [(0, 0), (6, 0), (7, 1), (9, 1), (10, 2), (49, 2), (50, 3), (1051, 3)])
def test_a_value_that_is_not_finite_is_found_in_its_sequence(rows, value, row, which):
    rows[row, 5] = value
    assert pool_packed(rows, CU_SEQLENS, 4, ["bos"])[1].tolist() == [i == which for i in range(4)]


def test_filler_may_be_anything(rows):
    rows[-20:] = float("nan")
    pooled, bad = pool_packed(rows, CU_SEQLENS, 4, POOLINGS)
    assert not bad.any() and torch.isfinite(pooled).all()
