"""The Triton kernels against torch: compiled where there is a GPU, else by Triton's interpreter."""

import os

import numpy as np
import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined

pytest.importorskip("triton", reason="needs triton (Linux)")

from packed_esm.kernels import int8, pooling, torch_ops, triton_ops  # noqa: E402
from packed_esm.kernels.triton_attention import query_tiles, triton_attention  # noqa: E402
from packed_esm.kernels.triton_contacts import TritonContacts  # noqa: E402
from packed_esm.model.attention import sdpa_attention  # noqa: E402
from packed_esm.model.contacts import TorchContacts  # noqa: E402

DTYPES = [torch.float16, torch.bfloat16]
# The interpreter multiplies bfloat16 matrices as if they were integers.
DOT_DTYPES = DTYPES if DEVICE == "cuda" else [torch.float16]
LENGTHS = [3, 130, 64, 65, 1, 20]


def bounds(lengths):
    return torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float32])
@pytest.mark.parametrize(("rows", "width"), [(1, 48), (23, 320), (5, 1280), (3, 5120)])
@pytest.mark.parametrize("add", [False, True])
def test_add_norm(rows, width, dtype, add):
    norm = torch.nn.LayerNorm(width, device=DEVICE)
    norm.weight.data, norm.bias.data = random(width), random(width)
    x = 3 + random(rows, width)
    delta = random(rows, width, dtype=dtype) if add else None
    total, normed = triton_ops.add_norm(x, delta, norm, dtype)
    want_total, want = torch_ops.add_norm(x.double(), delta, norm.double(), torch.float64)
    assert normed.dtype == dtype and total.dtype == torch.float32
    assert torch.equal(total, want_total.float())
    precision = torch.finfo(dtype).eps
    # The rows are up to 6 high, and norms of them up to 4 times as wide: that is what fp32 can know of them.
    assert torch.allclose(normed.double(), want, rtol=precision, atol=24 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "head_dim"), [(20, 16), (20, 24), (3, 64), (20, 64)])
def test_rotate(heads, head_dim, dtype):
    qkv = random(7, 3, heads, head_dim, dtype=dtype)
    angles = 100 * random(7, head_dim // 2)
    rotation = torch.complex(angles.cos(), angles.sin())
    wanted = torch_ops.rotate(qkv.clone(), rotation)
    rotated = triton_ops.rotate(qkv.clone(), rotation)
    assert torch.equal(rotated[2], qkv[:, 2])
    for got, want, given in zip(rotated[:2], wanted[:2], qkv.unbind(1)[:2], strict=True):
        assert torch.allclose(got.float(), want.float(), rtol=torch.finfo(dtype).eps, atol=1e-6)
        assert not torch.allclose(got.float(), given.float(), atol=0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "head_dim"), [(5, 16), (3, 24), (15, 64), (18, 64)])
def test_norm_and_rotate(heads, head_dim, dtype):
    qkv, gains = 2 + 3 * random(9, 3, heads, head_dim, dtype=dtype), 1 + random(2, heads * head_dim)
    angles = 100 * random(9, head_dim // 2)
    rotation = torch.complex(angles.cos(), angles.sin())
    got = triton_ops.norm_and_rotate(qkv.clone(), rotation, gains, 1e-5)
    same = torch.nn.Identity()
    want = torch_ops.normed_qkv_product(qkv.double().flatten(1), same, heads, rotation, gains, 1e-5)
    assert torch.equal(got[2], qkv[:, 2])
    for one, other in zip(got[:2], want[:2], strict=True):
        assert one.dtype == dtype
        # The normed value and the rotated one are rounded; a pair shares its size.
        assert torch.allclose(one.double(), other.double(), rtol=0, atol=3 * torch.finfo(dtype).eps * other.abs().max())
        assert (one.double() - other).norm() <= torch.finfo(dtype).eps * other.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (7, 2560), (3, 1100)])
def test_swiglu(rows, width, dtype):
    x = 3 * random(rows, 2 * width, dtype=dtype)
    got, want = triton_ops.swiglu(x), torch_ops.swiglu_product(x.double(), torch.nn.Identity())
    assert got.dtype == dtype and got.shape == (rows, width)
    assert torch.allclose(got.double(), want, rtol=torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("dtype", DOT_DTYPES)
@pytest.mark.parametrize("head_dim", [16, 24, 32, 64, 128])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_attention_of_each_sequence_alone(head_dim, dtype, scale):
    cu_seqlens = bounds(LENGTHS)
    qkv = random(int(cu_seqlens[-1]), 3, 2, head_dim, dtype=dtype)  # rows that are strided, as in a block
    q, k, v = qkv.unbind(1)
    got = triton_attention(q, k, v, query_tiles(cu_seqlens).to(DEVICE), scale)
    want = sdpa_attention(q.double(), k.double(), v.double(), cu_seqlens, max(LENGTHS), scale)
    assert got.dtype == dtype
    error = (got.double() - want).norm(dim=(1, 2)) / want.norm(dim=(1, 2))
    assert error.max() <= 2 * torch.finfo(dtype).eps


def test_attention_does_not_depend_on_neighbours_or_place_to_the_bit():
    dtype = torch.float16
    cu_seqlens = bounds([70, 100, 33])
    q, k, v = random(203, 3, 2, 16, dtype=dtype).unbind(1)
    together = triton_attention(q, k, v, query_tiles(cu_seqlens).to(DEVICE))
    alone = triton_attention(q[70:170], k[70:170], v[70:170], query_tiles(bounds([100])).to(DEVICE))
    assert torch.equal(together[70:170], alone)
    k[:70], v[170:] = float("nan"), float("inf")
    beside = triton_attention(q, k, v, query_tiles(cu_seqlens).to(DEVICE))
    assert torch.equal(beside[70:170], alone)


def test_query_tiles_cover_every_row_once():
    cu_seqlens = bounds(LENGTHS)
    rows = [
        start + row
        for start, length, first in query_tiles(cu_seqlens).tolist()
        for row in range(first, min(first + 64, length))
    ]
    assert rows == list(range(int(cu_seqlens[-1])))


def test_pool():
    lengths = [7, 3, 40, 202, 20]  # the last is filler
    rows = random(sum(lengths), 100)
    pooled, bad = triton_ops.pool(rows, bounds(lengths), 4)
    wanted, _ = pooling.pool_packed(rows.cpu(), bounds(lengths), 4, triton_ops.POOLED)
    assert torch.allclose(pooled.cpu(), wanted, rtol=1e-6, atol=1e-6) and not bad.any()
    summed = [triton_ops.POOLED.index(name) for name in ("mean", "std")]
    assert all(torch.equal(pooled[i].cpu(), wanted[i]) for i in range(len(wanted)) if i not in summed)
    alone, _ = triton_ops.pool(rows[10:50], bounds([40]), 1)
    assert torch.equal(alone[:, 0], pooled[:, 2])


def test_pool_of_one_number_a_token():
    lengths = [7, 3, 40, 202]
    column = random(sum(lengths), 1)
    pooled, bad = triton_ops.pool(column, bounds(lengths), 4)
    wanted, _ = pooling.pool_packed(column.cpu(), bounds(lengths), 4, triton_ops.POOLED)
    assert torch.allclose(pooled.cpu(), wanted, rtol=1e-6, atol=1e-6) and not bad.any()


@pytest.mark.parametrize("least", [None, -2.5])
@pytest.mark.parametrize(("rows", "width"), [(1, 48), (23, 320), (3, 5120)])
def test_quantise(rows, width, least):
    """Equal to the function for CPUs, but for values half-way between two integers."""
    x = random(rows, width, dtype=torch.bfloat16).clamp(min=-2.5)
    x[0] = -x[0].abs()
    factor = 0.5 + random(width).abs()
    quantised, scale = triton_ops.quantise(x, factor, least)
    want, want_scale = int8.quantise(x, factor, least)
    assert torch.allclose(scale, want_scale[:, 0], rtol=1e-6, atol=0)
    assert quantised.dtype == torch.int8 and (quantised.int() - want.int()).abs().max() <= 1
    assert (quantised != want).float().mean() <= 0.01


def test_quantise_shows_a_value_that_is_not_finite_in_the_scale():
    x = random(3, 100, dtype=torch.bfloat16)
    x[0, 99], x[2, 0] = float("nan"), float("inf")
    for least in (None, -9.0):
        scale = triton_ops.quantise(x, torch.ones(100, device=DEVICE), least)[1]
        assert torch.isfinite(scale).tolist() == [False, True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("row", "which"), [(0, 0), (6, 0), (7, 1), (8, 1), (9, 1), (10, 2), (49, 2), (120, 3)])
def test_pool_finds_a_value_that_is_not_finite(value, row, which):
    lengths = [7, 3, 40, 202, 20]
    rows = random(sum(lengths), 100)
    rows[row, 99] = value
    rows[-20:] = float("nan")  # filler may be anything
    assert triton_ops.pool(rows, bounds(lengths), 4)[1].tolist() == [i == which for i in range(4)]


@pytest.mark.parametrize("dtype", DOT_DTYPES)
@pytest.mark.parametrize(("heads", "head_dim"), [(2, 16), (3, 24), (2, 64)])
def test_contacts(heads, head_dim, dtype):
    """The kernels and torch give the same probabilities, for sequences of all positions in tiles."""
    lengths, layers = [3, 131, 66, 67, 2, 1, 20], 2
    cu_seqlens = bounds(lengths)
    weights = 10 * random(layers, heads)
    bias = torch.full((1,), -1.0, device=DEVICE)
    got, want = TritonContacts(weights, bias, cu_seqlens), TorchContacts(weights, bias, cu_seqlens)
    for layer in range(layers):
        qkv = random(sum(lengths), 3, heads, head_dim, dtype=dtype) * (1 + layer)
        got.add(qkv[:, 0], qkv[:, 1], layer)
        want.add(qkv[:, 0], qkv[:, 1], layer)
    for one, other, length in zip(got.contacts(), want.contacts(), lengths, strict=True):
        residues = max(length - 2, 0)
        assert one.shape == other.shape == (residues, residues)
        assert torch.equal(one, one.mT)
        assert torch.allclose(one, other, rtol=0, atol=2e-5), float((one - other).abs().max())
        assert residues < 6 or one.std() > 0.01  # something to be equal to


def test_contacts_of_a_sequence_do_not_depend_on_its_pack():
    weights, bias = 10 * random(1, 2), torch.zeros(1, device=DEVICE)
    alone = random(131, 3, 2, 16, dtype=torch.float16)
    maps = []
    for before, after in [((), ()), ((70, 3), (20,)), ((1,), (65, 130))]:
        rows = [random(n, 3, 2, 16, dtype=torch.float16) for n in (*before, *after)]
        qkv = torch.cat([*rows[: len(before)], alone, *rows[len(before) :]])
        sums = TritonContacts(weights, bias, bounds([*before, 131, *after]))
        sums.add(qkv[:, 0], qkv[:, 1], 0)
        maps.append(sums.contacts()[len(before)])
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])
