"""The feed-forward in int8: exact sums, bits of a row from this row alone, and columns of large values."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import int8_runs_here
from packed_esm.errors import OptionError
from packed_esm.kernels import int8
from packed_esm.kernels.int8 import LEAST_GELU, Int8FeedForward, Int8Linear, quantise, why_no_int8
from packed_esm.model.backends import why_no_dtype
from packed_esm.model.esm2 import ESM2WithFlashAttention
from torch import nn

CPU = torch.device("cpu")
WIDTH = 192


def feed_forward(outliers: float = 1.0) -> tuple[nn.LayerNorm, nn.Linear, nn.Linear]:
    """Return a random norm, fc1 and fc2; with `outliers` some columns of both inputs are so many times larger,
    and the weights that they meet so many times smaller.
    """
    torch.manual_seed(0)
    norm, fc1, fc2 = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.bias.data.normal_(0, 0.2)
    norm.weight.data[:4] *= outliers
    norm.bias.data[:4] *= outliers
    fc1.weight.data[:, :4] /= outliers
    fc1.weight.data[-4:] *= outliers
    fc1.bias.data[-4:] *= outliers
    fc2.weight.data[:, -4:] /= outliers
    return norm.requires_grad_(False), fc1.requires_grad_(False), fc2.requires_grad_(False)


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm(dim=1).div(want.double().norm(dim=1)).max())


def test_a_row_is_quantised_by_its_largest_value():
    x = torch.tensor([[1.0, -4.0, 2.0], [0.0, 0.0, 0.0], [1e30, 1e-30, -1e30]]).bfloat16()
    rows, scale = quantise(x, torch.tensor([1.0, 0.5, 1.0]))
    assert rows.tolist() == [[64, -127, 127], [0, 0, 0], [127, 0, -127]]
    assert torch.allclose(scale[[0, 2], 0], torch.tensor([2.0, 1e30]) / 127, rtol=1e-2)


def test_with_a_least_value_the_steps_are_half_as_large():
    x = torch.tensor([[LEAST_GELU, 0.0, 1.0]]).bfloat16()
    rows, scale = quantise(x, torch.ones(3), LEAST_GELU)
    assert rows.tolist() == [[-128, -91, 127]]
    assert scale.item() == pytest.approx((1 - LEAST_GELU) / 255)


@int8_runs_here
@pytest.mark.parametrize("least", [None, 0.0])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_product_of_integers_that_int8_can_hold_is_exact(rows, least):
    """The largest sums too, of one sign."""
    generator = torch.Generator().manual_seed(0)
    low, high = (-127, 127) if least is None else (0, 255)
    weight = torch.randint(-127, 128, (96, 320), generator=generator).float()
    x = torch.randint(low, high + 1, (rows, 320), generator=generator).bfloat16()
    weight[0], weight[1], weight[:, 0] = 127, -127, 127
    x[0], x[:, 1] = high, high
    bias = torch.arange(96.0)
    got = Int8Linear(weight, bias, torch.full((320,), 127.0), least)(x)
    assert torch.equal(got, (x.double() @ weight.double().T + bias).bfloat16())


@int8_runs_here
@pytest.mark.parametrize("outliers", [1.0, 50.0])
def test_the_feed_forward_is_near_the_exact_one_also_where_some_columns_are_50_times_larger(outliers):
    norm, fc1, fc2 = feed_forward(outliers)
    x = norm(torch.randn(600, WIDTH))
    want = fc2(nn.functional.gelu(fc1(x)))
    got = Int8FeedForward(norm, fc1, fc2, CPU)(x.bfloat16())
    assert relative_error(got, want) < 0.025


@int8_runs_here
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_a_row_has_the_same_bits_alone_and_among_others_whatever_the_threads(threads):
    model = Int8FeedForward(*feed_forward(), CPU)
    x = torch.randn(1300, WIDTH).bfloat16()
    before = torch.get_num_threads()
    want = model(x)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(model(x), want)
        assert torch.equal(model(x.flip(0)).flip(0), want)
        for row in (0, 511, 512, 1299):
            assert torch.equal(model(x[row : row + 1]), want[row : row + 1])
    finally:
        torch.set_num_threads(before)


@int8_runs_here
def test_a_row_that_is_not_finite_stays_so_and_changes_no_other():
    model = Int8FeedForward(*feed_forward(), CPU)
    x = torch.randn(9, WIDTH).bfloat16()
    want = model(x)
    x[3, 5], x[4, 6] = float("nan"), float("inf")
    got = model(x)
    assert not got[3].isfinite().any() and not got[4].isfinite().all()
    kept = [0, 1, 2, 5, 6, 7, 8]
    assert torch.equal(got[kept], want[kept])


def test_where_it_cannot_run_it_is_refused_with_the_reason(demo, monkeypatch):
    reason = "int8 cannot be used, it needs a CPU or a CUDA device, not mps"
    assert why_no_dtype(torch.int8, torch.device("mps")) == reason
    for name in ("_is_vnni_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(int8.torch.cpu, name, lambda: False)
    with pytest.raises(OptionError, match="dtype: int8 cannot be used, it needs a CPU with AVX-512 VNNI or AMX; use"):
        ESM2WithFlashAttention(demo, "cpu", torch.int8)
    assert why_no_dtype(torch.bfloat16, CPU) is None


def test_a_cpu_that_is_told_to_add_with_saturation_is_refused():
    """ONEDNN_MAX_CPU_ISA makes oneDNN do without VNNI; it is read when torch is loaded."""
    code = "import torch; from packed_esm.kernels.int8 import why_no_int8; print(why_no_int8(torch.device('cpu')))"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "with saturation here; unset ONEDNN_MAX_CPU_ISA" in done.stdout or why_no_int8(CPU), done.stdout
