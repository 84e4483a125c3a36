"""What fits on a GPU of a size: resident or streamed weights, the tokens of a pack and of a sweep."""

import pytest
import torch
from packed_esm.embedding import memory
from packed_esm.embedding.memory import MemoryPlan, default_tokens_per_pack
from packed_esm.families import MODELS

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def plan(model, gigabytes, monkeypatch, dtype="fp16", device=CUDA):
    monkeypatch.setattr(memory, "gpu_memory", lambda device: gigabytes * 10**9)
    shape = MODELS[f"esm2_{model}_UR50D"]
    return MemoryPlan(device, shape.num_layers, shape.embed_dim, dtype)


@pytest.mark.parametrize(
    ("model", "gigabytes", "dtype", "resident"),
    [
        ("t33_650M", 4, "fp16", True),
        ("t36_3B", 4, "fp16", False),
        ("t36_3B", 8, "fp16", True),
        ("t36_3B", 12, "fp32", False),
        ("t48_15B", 24, "fp16", False),
        ("t48_15B", 24, "int8", False),
        ("t48_15B", 40, "fp16", True),
        ("t48_15B", 40, "fp32", False),
    ],
)
def test_auto_streams_only_what_does_not_fit(model, gigabytes, dtype, resident, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10**12)
    one = plan(model, gigabytes, monkeypatch, dtype)
    assert one.placement("auto") == ("resident" if resident else "host")
    assert one.placement("resident") == "resident" and one.placement("streamed") == "host"


def test_weights_come_from_the_file_where_the_host_has_too_little_memory(monkeypatch, caplog):
    one = plan("t48_15B", 24, monkeypatch)
    for free, place in ((34, "file"), (35, "host")):
        monkeypatch.setattr(memory, "available_memory", lambda free=free: free * 10**9)
        assert one.placement("auto") == place
    for free, place in ((94, "file"), (95, "host")):  # 60.4 GB of fp32 more
        monkeypatch.setattr(memory, "available_memory", lambda free=free: free * 10**9)
        assert one.placement("auto", beside_reference=True) == place
    first, second, *_ = [record.message for record in caplog.records]
    assert first == (
        "weights: 30.2 GB do not fit into the 24.0 GB of the GPU; streamed from the file, at the rate of its disk: the "
        "host has 34.0 GB of memory"
    )
    assert second == "weights: 30.2 GB do not fit into the 24.0 GB of the GPU; streamed from the memory of the host"


@pytest.mark.parametrize(("model", "gigabytes", "dtype"), [("t48_15B", 33, "fp16"), ("t36_3B", 12.3, "fp32")])
def test_a_model_that_nearly_fits_is_streamed_in_the_small_packs_of_resident_weights(
    model, gigabytes, dtype, monkeypatch
):
    monkeypatch.setattr(memory, "available_memory", lambda: 10**12)
    one = plan(model, gigabytes, monkeypatch, dtype)
    assert one.placement("auto") == "host" and one.tokens_per_pack() <= 8192
    assert one.tokens_per_sweep(one.tokens_per_pack(), 0, "host") >= 32768


@pytest.mark.parametrize("gigabytes", [8, 16, 24, 32, 40, 48, 80, 140])
@pytest.mark.parametrize("model", ["t6_8M", "t12_35M", "t30_150M", "t33_650M", "t36_3B"])
def test_the_budget_of_a_model_that_fits_is_what_it_was_before_weights_were_streamed(model, gigabytes, monkeypatch):
    one = plan(model, gigabytes, monkeypatch)
    width = one.embed_dim
    budget = 131072 if width <= 480 else 65536 if width <= 640 else 32768
    while budget > 2048 and 24 * width**2 * one.num_layers + 64 * width * budget > 0.6e9 * gigabytes:
        budget //= 2
    assert one.fits() and one.tokens_per_pack() == budget
    assert default_tokens_per_pack(CUDA, one.num_layers, width) == budget


@pytest.mark.parametrize(
    ("model", "gigabytes", "pack"),
    [("t48_15B", 8, 8192), ("t48_15B", 16, 16384), ("t48_15B", 24, 32768), ("t36_3B", 4, 8192)],
)
def test_packs_and_sweeps_of_a_streamed_model_fill_the_card_and_hide_the_copies(model, gigabytes, pack, monkeypatch):
    one = plan(model, gigabytes, monkeypatch)
    assert one.tokens_per_pack() == pack
    sweep = one.tokens_per_sweep(pack, 0, "host")
    assert 32768 <= sweep <= 65536
    layer, width = 24 * one.embed_dim**2, one.embed_dim
    assert 2 * layer + 4 * width**2 + 64 * width * pack + 8 * width * sweep <= 0.86e9 * gigabytes
    assert one.tokens_per_sweep(pack, 40, "host") < sweep and one.tokens_per_sweep(pack, 0, "file") <= sweep
    assert one.tokens_per_sweep(pack, 0, "resident") == 0 and one.tokens_per_sweep(10**6, 0, "host") == 0


def test_on_a_cpu_everything_is_resident_unless_it_is_asked_for(monkeypatch):
    one = plan("t48_15B", 0, monkeypatch, "fp32", CPU)
    assert one.placement("auto") == "resident" and one.tokens_per_pack() == 2048
    assert one.tokens_per_sweep(2048, 0, "host") == 8192


def test_bytes_of_the_weights_are_those_of_the_published_shapes(monkeypatch):
    sizes = {dtype: plan("t48_15B", 8, monkeypatch, dtype).weight_bytes / 1e9 for dtype in ("fp32", "fp16", "int8")}
    assert {dtype: round(size, 1) for dtype, size in sizes.items()} == {"fp32": 60.4, "fp16": 30.2, "int8": 20.1}
