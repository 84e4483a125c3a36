"""Attention over packs, piece by piece: positions, the exact backend, and the choice of a backend."""

import logging
import math

import pytest
import torch
from packed_esm.model import backends
from packed_esm.model.attention import (
    FLASH_ATTN_AVAILABLE,
    create_position_ids_packed,
    flash_attn_varlen_wrapper,
    sdpa_attention,
)
from packed_esm.model.backends import BACKENDS, choose_backend

CPU = torch.device("cpu")
CU_SEQLENS = torch.tensor([0, 5, 6, 40], dtype=torch.int32)


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    return torch.randn(3, 40, 2, 16)


def test_positions_restart_at_each_sequence():
    positions = create_position_ids_packed(CU_SEQLENS)
    assert positions.dtype == torch.int64
    assert positions.tolist() == [*range(5), 0, *range(34)]
    assert torch.equal(create_position_ids_packed(CU_SEQLENS, total=40), positions)


@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
def test_exact_attention_is_softmax_of_its_own_sequence(qkv, scale):
    q, k, v = qkv
    out = sdpa_attention(q, k, v, CU_SEQLENS, 34, scale)
    for start, end in [(0, 5), (5, 6), (6, 40)]:
        a, b, c = (x[start:end].transpose(0, 1).double() for x in (q, k, v))
        weights = torch.softmax(a @ b.transpose(1, 2) * (scale or 1 / math.sqrt(16)), dim=-1)
        assert torch.allclose(out[start:end].double(), (weights @ c).transpose(0, 1), atol=1e-6)


def test_other_sequences_change_not_one_bit(qkv):
    before = sdpa_attention(*qkv, CU_SEQLENS, 34)
    qkv[:, 6:] = torch.randn(3, 34, 2, 16) * 100
    after = sdpa_attention(*qkv, CU_SEQLENS, 34)
    assert torch.equal(before[:6], after[:6])


def test_auto_takes_exact_attention_on_cpu():
    assert choose_backend("auto", CPU, torch.float32) == "sdpa"
    assert choose_backend("auto", CPU, torch.bfloat16) == "sdpa"


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b not in ("sdpa", "padded")])
def test_a_backend_that_cannot_run_is_refused_with_the_reason(backend):
    with pytest.raises(ValueError, match=f"attention: {backend} cannot be used, it needs a CUDA device"):
        choose_backend(backend, CPU, torch.float16)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="attention: 'flash' is not one of auto, triton, flash-attn"):
        choose_backend("flash", CPU, torch.float32)


@pytest.mark.skipif(FLASH_ATTN_AVAILABLE, reason="flash-attn is installed")
def test_flash_attn_missing_says_how_to_install_it(qkv):
    with pytest.raises(ImportError, match="pip install flash-attn"):
        flash_attn_varlen_wrapper(*qkv.half(), CU_SEQLENS, 34)


def test_flash_attn_missing_is_warned_of_once(monkeypatch, caplog):
    """On a GPU without flash-attn the next backend works, and one warning says what is missing."""
    monkeypatch.setattr(backends, "why_no_triton", lambda device: "it is not installed")
    missing = (None, "ImportError: undefined symbol")
    monkeypatch.setattr(backends, "kernel_of", lambda name: missing if name != "torch-varlen" else (print, None))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    backends._warn_flash_attn_missing.cache_clear()
    with caplog.at_level(logging.WARNING):
        chosen = [choose_backend("auto", torch.device("cuda"), torch.float16) for _ in range(3)]
    assert set(chosen) == {"torch-varlen"}
    warnings = [r.getMessage() for r in caplog.records if "flash-attn is not used" in r.getMessage()]
    assert len(warnings) == 1 and "undefined symbol" in warnings[0] and "pip install flash-attn" in warnings[0]


@pytest.mark.parametrize(
    ("capability", "dtype", "reason"),
    [
        ((7, 5), torch.float16, "compute capability 8.0"),
        ((9, 0), torch.float32, "float16 and bfloat16, not float32"),
    ],
)
def test_old_gpus_and_fp32_fall_to_exact_attention(monkeypatch, capability, dtype, reason):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    cuda = torch.device("cuda")
    assert choose_backend("auto", cuda, dtype) == "sdpa"
    with pytest.raises(ValueError, match=reason):
        choose_backend("torch-varlen", cuda, dtype)
