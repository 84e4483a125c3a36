"""What stands between the products, in torch."""

import pytest
import torch
from packed_esm.kernels.torch_ops import rotate, swiglu_product


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize(("heads", "head_dim"), [(20, 16), (20, 24), (20, 64)])
def test_equal_rows_are_turned_to_equal_bits_wherever_threads_cut_the_work(heads, head_dim, threads):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(64, 3, heads, head_dim, generator=generator)
    angles = torch.randn(64, head_dim // 2, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rotation = torch.complex(angles.cos(), angles.sin()).repeat(32, 1)
        q, k, _ = rotate(qkv.repeat(32, 1, 1, 1), rotation)
    finally:
        torch.set_num_threads(before)
    for turned in (q, k):
        blocks = turned.reshape(32, 64, heads, head_dim)
        assert torch.equal(blocks, blocks[:1].expand_as(blocks))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("width", [256, 2560, 2731])
def test_equal_rows_of_swiglu_have_equal_bits_wherever_threads_cut_the_work(width, threads):
    both = 3 * torch.randn(50, 2 * width, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = swiglu_product(both.repeat(40, 1), torch.nn.Identity())
    finally:
        torch.set_num_threads(before)
    blocks = got.reshape(40, 50, width)
    assert torch.equal(blocks, blocks[:1].expand_as(blocks))
    gate, up = both.double().chunk(2, -1)
    assert torch.allclose(blocks[0].double(), gate / (1 + torch.exp(-gate)) * up, rtol=1e-6, atol=1e-7)
