"""The reference is fair-esm itself, also where attention is computed in blocks of queries."""

import numpy as np
import pytest
import torch
from conftest import fair_esm_alone, random_tokens, relative_l2, worst_residue_l2
from packed_esm.outputs.table import POOLINGS
from packed_esm.validation.reference import full_precision, reference_outputs


@pytest.mark.parametrize("rows", [1, 7, 64, 299])
def test_attention_in_blocks_equals_the_forward_of_fair_esm(demo, rows):
    (tokens,) = random_tokens([298], masked=(0,))
    whole = fair_esm_alone(demo, tokens, [0, 3, 6])
    blocks = reference_outputs(demo, tokens, [0, 3, 6], map_bytes=0, block_bytes=4 * 12 * 300 * rows)["representations"]
    for layer, want in whole.items():
        assert relative_l2(blocks[layer], want) <= 2e-6
        assert worst_residue_l2(blocks[layer], want) <= 5e-6
    after = fair_esm_alone(demo, tokens, [6])[6]
    assert torch.equal(after, whole[6])  # the modules are as they were


def test_without_blocks_it_is_that_forward(demo):
    (tokens,) = random_tokens([100])
    alone = reference_outputs(demo, tokens, [6])["representations"]
    assert torch.equal(alone[6], fair_esm_alone(demo, tokens, [6])[6])


def test_full_precision_turns_tf32_off_and_back():
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_reference_of_each_pooling_takes_the_rows_that_it_is_of():
    rows = torch.randn(12, 4)
    want = {
        "mean": rows[1:-1].double().mean(0),
        "max": rows[1:-1].amax(0),
        "std": rows[1:-1].double().std(0, correction=0),
        "bos": rows[0],
        "eos": rows[-1],
    }
    assert want.keys() == POOLINGS.keys()
    for name, vector in want.items():
        assert np.allclose(POOLINGS[name].reference(rows.double().numpy()), vector), name
