"""Streamed weights on a real GPU: the bits of resident ones, within less memory. Run: pytest -m gpu tests/gpu"""

import copy

import numpy as np
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import pack, random_esm2, random_tokens
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding import memory
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.masked import MaskedCopies
from packed_esm.embedding.options import EmbedOptions
from packed_esm.families import MODELS
from packed_esm.kernels.int8 import INT8, why_no_int8
from packed_esm.model.esm2 import ESM2WithFlashAttention, PackInput
from packed_esm.outputs.forms import Form
from packed_esm.validation.reference import reference_outputs
from packed_esm.validation.reference_model import reference_tokens, stream_layers

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": INT8}


@pytest.fixture(scope="module", autouse=True)
def _needs_cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")


def inputs(lengths, packs):
    made = [pack(random_tokens(lengths, seed)) for seed in range(packs)]
    return [PackInput(ids.cuda(), cu_seqlens, longest) for ids, cu_seqlens, longest in made]


def assert_same(one, other):
    for layer, rows in one["representations"].items():
        assert torch.equal(rows, other["representations"][layer]), layer
    assert torch.equal(one["logits"], other["logits"])
    assert all(map(torch.equal, one["contacts"], other["contacts"]))


@pytest.mark.parametrize("weights", ["host", "file"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("kernels")
def test_the_bits_are_those_of_resident_weights_in_every_sweep(weights, dtype):
    if dtype == "int8" and (reason := why_no_int8(CUDA)):
        pytest.skip(reason)
    base = random_esm2(num_layers=5, embed_dim=256, heads=4)
    torch.nn.init.normal_(base.contact_head.regression.weight)
    streamed = ESM2WithFlashAttention(base, "cuda", DTYPES[dtype], weights=weights)
    packs = inputs([700, 90, 5, 300], 4)
    options = {"repr_layers": [0, 2, 5], "need_logits": True, "return_contacts": True}
    sweeps = [streamed.forward_packs(packs, **options) for _ in range(5)]  # queued one behind the other
    resident = ESM2WithFlashAttention(base, "cuda", DTYPES[dtype])
    for index, one in enumerate(packs):
        want = resident.forward_packed(*one[:3], **options)
        for sweep in sweeps:
            assert_same(want, sweep[index])


@pytest.mark.usefixtures("kernels")
def test_a_copy_waits_for_the_work_on_the_layer_before_and_the_work_for_the_copy():
    """Copies that are slower than the layers, and layers that are slower than the copies."""
    base = random_esm2(num_layers=12, embed_dim=1280, heads=20)
    resident = ESM2WithFlashAttention(base, "cuda", torch.float16)
    streamed = ESM2WithFlashAttention(base, "cuda", torch.float16, weights="host")
    for packs in (inputs([20], 1), inputs([1022] * 30, 3)):
        want = [resident.forward_packed(*one[:3])["representations"][12] for one in packs]
        for _ in range(20):
            for got, expected in zip(streamed.forward_packs(packs), want, strict=True):
                assert torch.equal(got["representations"][12], expected)


@pytest.mark.usefixtures("kernels")
def test_streaming_from_the_host_does_not_synchronise():
    model = ESM2WithFlashAttention(random_esm2(4, 128, 2), "cuda", torch.float16, weights="host")
    packs = inputs([300, 40], 3)
    model.forward_packs(packs)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.forward_packs(packs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("place", ["host", "file"])
@pytest.mark.usefixtures("kernels")
def test_an_embedder_gives_equal_columns_residues_and_masked_copies(tmp_path, monkeypatch, place):
    monkeypatch.setattr(memory, "available_memory", lambda: {"host": None, "file": 0}[place])
    path = save_fair_esm(random_esm2(3, 128, 2), tmp_path / "esm2_small.pt")
    tokens = random_tokens(np.random.default_rng(3).integers(1, 900, 40))
    results = []
    for weights in ("resident", "streamed"):
        options = EmbedOptions(path, (0, 3), ("mean", "std"), ("log_likelihood", "logits"), "cuda", weights=weights)
        embedder = Embedder(options)
        seen = {}
        stored = {"representations": Form("float16"), "logits": Form()}
        columns = embedder.embed(tokens, seen.__setitem__, stored=stored).columns
        copies = dict(MaskedCopies(embedder, tokens[:5], list("abcde")).logits())
        results.append((embedder.settings, columns, seen, copies))
    (settings, columns, seen, copies), (same_settings, same_columns, same_seen, same_copies) = results
    assert settings == same_settings
    assert all(np.array_equal(columns[name], same_columns[name]) for name in columns)
    assert all(np.array_equal(one[name], same_seen[i][name]) for i, one in seen.items() for name in one)
    assert all(np.array_equal(copies[i], same_copies[i]) for i in range(5))


@pytest.mark.usefixtures("kernels")
def test_the_3b_shape_within_4_gb_has_the_bits_of_resident_weights():
    shape = MODELS["esm2_t36_3B_UR50D"]
    plan = memory.MemoryPlan(CUDA, shape.num_layers, shape.embed_dim, "fp16")
    with torch.device("cuda"):
        base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads)
    base.half().cpu()
    packs = inputs([1022] * 8, 4)
    resident = ESM2WithFlashAttention(base, "cuda", torch.float16)
    want = [resident.forward_packed(*one[:3])["representations"][36].cpu() for one in packs]
    del resident
    torch.cuda.empty_cache()
    limit = 4e9 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(limit)
    try:
        assert plan.placement("auto") == "host" and plan.tokens_per_pack() == 8192
        streamed = ESM2WithFlashAttention(base, "cuda", torch.float16, weights="host")
        for _ in range(2):
            for got, expected in zip(streamed.forward_packs(packs), want, strict=True):
                assert torch.equal(got["representations"][36].cpu(), expected)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_weights_from_the_file_take_page_locked_memory_of_few_layers_at_once():
    model = ESM2WithFlashAttention(random_esm2(12, 512, 8), "cuda", torch.float16, weights="file")
    packs = inputs([300], 1)
    model.forward_packs(packs)
    torch.cuda.synchronize()
    before = torch.cuda.host_memory_stats()["allocated_bytes.current"]
    torch.cuda._sleep(2 * 10**9)  # about a second, in which the host could make every layer
    model.forward_packs(packs)
    layer = 12 * 512**2 * 4
    assert torch.cuda.host_memory_stats()["allocated_bytes.current"] - before <= 3 * layer


def test_page_locked_memory_is_given_back_with_the_model():
    model = ESM2WithFlashAttention(random_esm2(2, 64, 2), "cuda", torch.float16, weights="host")
    (first, *_) = model.layers._host
    assert first.is_pinned()
    memory_of_it = first.untyped_storage()
    del first, model
    assert not torch.empty(0, dtype=torch.uint8).set_(memory_of_it).is_pinned()


def test_a_reference_whose_layers_are_streamed_is_the_same_and_only_one_layer_is_on_the_gpu():
    base = random_esm2(8, 512, 8)
    tokens = reference_tokens("MKTAYIAKQRQISFVKSHFSRQ" * 20)
    want = reference_outputs(copy.deepcopy(base).cuda(), tokens, [3, 8])
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    streamed = stream_layers(base, CUDA)
    for _ in range(2):
        got = reference_outputs(streamed, tokens, [3, 8])
        assert all(torch.equal(got["representations"][layer], want["representations"][layer]) for layer in (3, 8))
        assert torch.equal(got["logits"], want["logits"])
    assert {one.device.type for one in streamed.layers.parameters()} == {"cpu"}
    layers = sum(one.nbytes for one in streamed.layers.parameters())
    assert torch.cuda.max_memory_allocated() - before < layers / 2


def test_auto_on_this_card_is_resident():
    assert Embedder(EmbedOptions(DEMO_PATH, device="cuda")).weights == "resident"
