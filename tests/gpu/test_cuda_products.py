"""Products of Hopper GPUs, with the operation after them, against torch in fp64. Run: pytest -m gpu tests/gpu"""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import RESIDUES, pack, random_esm2, random_tokens, relative_l2
from packed_esm.kernels import dispatch, torch_ops
from packed_esm.model.esm2 import ESM2WithFlashAttention
from packed_esm.outputs.bounds import tolerance
from packed_esm.validation.reference import reference_outputs
from torch import nn

pytestmark = pytest.mark.gpu

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
HEAD_DIM = 64


@pytest.fixture(scope="module")
def product():
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    from packed_esm.kernels.gluon_product import product

    return product


def layer(depth, width, dtype):
    linear = nn.Linear(depth, width, device="cuda").requires_grad_(False)
    nn.init.normal_(linear.weight, std=depth**-0.5)
    nn.init.normal_(linear.bias)
    return linear.to(dtype)


def rotation(rows):
    angles = 100 * torch.randn(rows, HEAD_DIM // 2, device="cuda")
    return torch.complex(angles.cos(), angles.sin())


def exact(value, after, angles):
    """Return f of the product, which is rounded as in the kernel; fp64."""
    if after == "gelu":
        return F.gelu(value.double())
    if after == "rotate":
        qkv = value.float().view(len(value), 3, -1, HEAD_DIM)
        return torch.stack(torch_ops.rotate(qkv, angles), 1).flatten(1).double()
    return value.double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("depth", "width"), [(64, 192), (72, 960), (1280, 3840), (5120, 1344)])
@pytest.mark.parametrize("rows", [1, 130, 20000])
@pytest.mark.parametrize("after", ["gelu", "rotate", "nothing"])
def test_product(product, after, rows, depth, width, dtype):
    torch.manual_seed(rows)
    x = torch.randn(rows, depth, device="cuda").to(DTYPES[dtype])
    linear, angles = layer(depth, width, DTYPES[dtype]), rotation(rows)
    got = product(x, linear.weight, linear.bias, after, angles if after == "rotate" else None)
    value = F.linear(x.double(), linear.weight.double(), linear.bias.double()).to(DTYPES[dtype])
    want = exact(value, after, angles)
    assert got.dtype == DTYPES[dtype]
    # Sums in another order may round the other way, so one unit of the value before f.
    unit = torch.finfo(DTYPES[dtype]).eps
    assert ((got - want).abs() <= 3 * unit * (1 + want.abs())).all()
    assert relative_l2(got.double(), want) <= unit / 2


@pytest.mark.parametrize(
    ("rows", "depth", "width"), [(1, 128, 192), (130, 80, 960), (5000, 5120, 1344), (300, 480, 1920), (300, 1920, 480)]
)
@pytest.mark.parametrize("after", ["gelu", "nothing"])
def test_product_of_int8(product, after, rows, depth, width):
    """The sums are exact, so only the last steps may round another way."""
    from packed_esm.kernels.gluon_product import Scales

    torch.manual_seed(rows)
    x, weight = (torch.randint(-128, 128, (n, depth), device="cuda", dtype=torch.int8) for n in (rows, width))
    row, column = (torch.rand(n, device="cuda") / depth / 100 + 1e-6 for n in (rows, width))
    bias, first = torch.randn(width, device="cuda"), torch.randint(-(10**6), 10**6, (width,), device="cuda").int()
    got = product(x, weight, bias, after, scales=Scales(row, column, first))
    sums = x.double() @ weight.double().T + first
    want = exact((sums * column * row[:, None] + bias).bfloat16(), after, None)
    assert got.dtype == torch.bfloat16
    assert ((got - want).abs() <= 2 * torch.finfo(torch.bfloat16).eps * (1 + want.abs())).all()
    assert relative_l2(got.double(), want) <= torch.finfo(torch.bfloat16).eps / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("depth", "width"), [(64, 256), (72, 200), (960, 2560), (1152, 3072)])
@pytest.mark.parametrize("rows", [1, 130, 20000])
def test_swiglu_product(product, rows, depth, width, dtype):
    torch.manual_seed(rows)
    x = 3 * torch.randn(rows, depth, device="cuda").to(DTYPES[dtype])
    weight = layer(depth, 2 * width, DTYPES[dtype]).weight
    got = product(x, weight, None, "swiglu")
    gate, up = (x.double() @ weight.double().T).to(DTYPES[dtype]).double().chunk(2, -1)
    want = F.silu(gate) * up
    unit = torch.finfo(DTYPES[dtype]).eps
    assert got.shape == (rows, width) and got.dtype == DTYPES[dtype]
    # Gate and up may be rounded the other way, and then the result is rounded.
    assert ((got - want).abs() <= unit * (3 * want.abs() + 3 * gate.abs() + 3 * up.abs() + 1e-3)).all()
    assert relative_l2(got.double(), want) <= unit / 2


PARTS = (slice(20000), slice(1), slice(7, 300), slice(9999, 20000))


def assert_equal_rows(of_parts):
    together, *others = of_parts
    for part, rows in zip(PARTS[1:], others, strict=True):
        assert torch.equal(rows, together[part])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("after", ["gelu", "rotate", "nothing", "swiglu"])
def test_a_row_has_the_same_bits_wherever_it_is(product, after, dtype):
    torch.manual_seed(0)
    linear = layer(320, 960, DTYPES[dtype])
    x, angles = torch.randn(20000, 320, device="cuda").to(DTYPES[dtype]), rotation(20000)
    assert_equal_rows(
        product(
            x[part],
            linear.weight,
            None if after == "swiglu" else linear.bias,
            after,
            angles[part] if after == "rotate" else None,
        )
        for part in PARTS
    )


@pytest.mark.parametrize(("depth", "width"), [(320, 1280), (1280, 320)])
def test_a_row_of_int8_has_the_same_bits_wherever_it_is(product, depth, width):
    del product
    from packed_esm.kernels.int8 import LEAST_GELU, Int8Linear

    torch.manual_seed(0)
    linear = layer(depth, width, torch.float32)
    is_second = depth > width
    quantised = Int8Linear(
        linear.weight, linear.bias, torch.ones(depth, device="cuda"), LEAST_GELU if is_second else None
    )
    x = torch.randn(20000, depth, device="cuda").bfloat16()
    x = F.gelu(x) if is_second else x
    assert_equal_rows(quantised(x[part], gelu=not is_second) for part in PARTS)


def test_gelu_of_all_numbers_of_fp16(product):
    numbers = torch.arange(2**16).to(torch.int32).to(torch.int16).view(torch.float16).cuda()
    numbers = numbers[numbers.isfinite()].view(-1, 64)
    linear = layer(64, 64, torch.float16)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    got, want = product(numbers, linear.weight, linear.bias, "gelu").double(), F.gelu(numbers.double())
    assert ((got - want).abs() <= 2**-11 * want.abs() + 3e-7).all()  # the rounding to fp16, and the error of erf


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_that_is_not_finite_stays_in_its_row(product, dtype):
    linear = layer(320, 960, DTYPES[dtype])
    x = torch.randn(300, 320, device="cuda").to(DTYPES[dtype])
    clean = product(x, linear.weight, linear.bias, "gelu")
    x[130, 5] = float("nan")
    got = product(x, linear.weight, linear.bias, "gelu")
    assert got[130].isnan().all()
    keep = torch.arange(300, device="cuda") != 130
    assert torch.equal(got[keep], clean[keep])


@pytest.mark.parametrize("dtype", [*DTYPES, "int8"])
@pytest.mark.parametrize("heads", [5, 10])
def test_model_equals_fair_esm(product, monkeypatch, heads, dtype):
    del product
    monkeypatch.setattr(dispatch, "GLUON_WIDTHS", range(64, 10**4))
    base = random_esm2(num_layers=4, embed_dim=64 * heads, heads=heads)
    reference = copy.deepcopy(base).cuda()
    form = torch.int8 if dtype == "int8" else DTYPES[dtype]
    model = ESM2WithFlashAttention(copy.deepcopy(base), "cuda", form)
    assert model.kernels.startswith("gluon")
    tokens = random_tokens([2554, 1, 2, 127, 128, 129, 300], letters=RESIDUES, masked=(0, 4))
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    got = model.forward_packed(input_ids.cuda(), cu_seqlens, max_seqlen, [0, 2, 4])["representations"]
    for i, one in enumerate(tokens):
        want = reference_outputs(reference, one, [0, 2, 4])["representations"]
        for wanted in (2, 4):
            rows = slice(int(cu_seqlens[i]), int(cu_seqlens[i + 1]))
            assert relative_l2(got[wanted][rows], want[wanted]) <= tolerance(dtype)["relative_l2"]
    monkeypatch.setattr(dispatch, "GLUON_WIDTHS", range(0))
    plain = ESM2WithFlashAttention(copy.deepcopy(base), "cuda", form)
    assert plain.kernels.startswith("triton")
    other = plain.forward_packed(input_ids.cuda(), cu_seqlens, max_seqlen, [4])["representations"][4]
    truth = torch.cat([reference_outputs(reference, one, [4])["representations"][4] for one in tokens])
    assert relative_l2(got[4][: len(truth)], truth) <= 1.1 * relative_l2(other[: len(truth)], truth)
