"""ESM C on a real GPU against transformers in fp32, and its bits. Run: pytest -m gpu tests/gpu"""

import numpy as np
import pytest
import torch
from conftest import pack, random_tokens, relative_l2, worst_residue_cosine
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.model.esm2 import ESM2WithFlashAttention, PackInput
from packed_esm.outputs.bounds import tolerance
from packed_esm.validation.reference import reference_outputs

pytest.importorskip("transformers.models.esmc", reason="needs transformers 5.24 or newer")

from esmc_checkpoints import random_esmc, save_esmc  # noqa: E402
from packed_esm.model.families.esmc.reference import Reference  # noqa: E402

pytestmark = pytest.mark.gpu
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LAYERS = [0, 2, 4]


@pytest.fixture(scope="module")
def theirs():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")
    return random_esmc(num_layers=4, embed_dim=960, heads=15)


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    return save_esmc(theirs, tmp_path_factory.mktemp("esmc") / "small")


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_and_logits_equal_transformers_within_the_tolerance(theirs, folder, dtype, kernels):
    reference = Reference(theirs).cuda()
    model = ESM2WithFlashAttention(load_esm2(folder), "cuda", DTYPES[dtype])
    assert dtype == "fp32" or model.kernels.startswith(kernels)
    tokens = random_tokens([2554, 1, 2, 127, 128, 129, 300], masked=(0, 4))
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    out = model.forward_packed(input_ids.cuda(), cu_seqlens, max_seqlen, LAYERS, need_logits=True)
    bounds = tolerance(dtype)
    for i, one in enumerate(tokens):
        rows = slice(int(cu_seqlens[i]), int(cu_seqlens[i + 1]))
        want = reference_outputs(reference, one, LAYERS)
        pairs = [(out["representations"][layer][rows], want["representations"][layer]) for layer in LAYERS]
        for got, truth in [*pairs, (out["logits"][rows], want["logits"])]:
            print(dtype, kernels, len(one), relative_l2(got, truth), 1 - worst_residue_cosine(got, truth))
            assert relative_l2(got, truth) <= bounds["relative_l2"]
            assert worst_residue_cosine(got, truth) >= bounds["residue_cosine"]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_no_bit_depends_on_the_neighbours(folder, dtype, kernels):
    options = EmbedOptions(folder, (0, 2, 4), ("mean", "max"), device="cuda", dtype=dtype, tokens_per_pack=2048)
    embedder = Embedder(options)
    assert embedder.model.kernels.startswith(kernels)
    tokens = random_tokens(np.random.default_rng(0).integers(1, 900, 40))
    together, backwards = embedder.embed(tokens).columns, embedder.embed(tokens[::-1]).columns
    for name, rows in together.items():
        assert np.array_equal(rows, backwards[name][::-1])
        for index in range(0, 40, 7):
            assert np.array_equal(embedder.embed([tokens[index]]).columns[name][0], rows[index])


@pytest.mark.parametrize("weights", ["host", "file"])
def test_streamed_weights_have_the_bits_of_resident_ones(folder, weights, kernels):
    del kernels
    made = [pack(random_tokens([700, 90, 5], seed)) for seed in range(3)]
    packs = [PackInput(ids.cuda(), cu_seqlens, longest) for ids, cu_seqlens, longest in made]
    resident = ESM2WithFlashAttention(load_esm2(folder), "cuda", torch.float16)
    streamed = ESM2WithFlashAttention(load_esm2(folder, mapped=True), "cuda", torch.float16, weights=weights)
    for got, one in zip(streamed.forward_packs(packs), packs, strict=True):
        assert torch.equal(got["representations"][4], resident.forward_packed(*one[:3])["representations"][4])
