"""ESM-1b and ESM-1v: learned positions that restart at each sequence, against fair-esm's own forward."""

import argparse
import copy

import pytest
import torch
from checkpoint_files import save_esm1b
from conftest import fair_esm_alone, pack, random_esm1b, random_tokens, relative_l2, worst_residue_l2
from esm import Alphabet
from esm.model.esm1 import ProteinBertModel
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import CheckpointError
from packed_esm.model.esm2 import ESM2WithFlashAttention


@pytest.mark.parametrize("norm_before", [True, False], ids=["ESM-1b", "ESM-1v"])
@pytest.mark.parametrize(("dtype", "attention"), [("float32", "sdpa"), ("float32", "padded"), ("bfloat16", "sdpa")])
def test_packed_equals_fair_esm_for_every_layer(norm_before, dtype, attention):
    base = random_esm1b(norm_before=norm_before)
    model = ESM2WithFlashAttention(copy.deepcopy(base), "cpu", getattr(torch, dtype), attention)
    tokens = random_tokens([1022, 1, 2, 127, 300], masked=(0, 4))
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    got = model.forward_packed(input_ids, cu_seqlens, max_seqlen, [0, 1, 2, 3])["representations"]
    for i, one in enumerate(tokens):
        for layer, want in fair_esm_alone(base, one, [0, 1, 2, 3]).items():
            rows = got[layer][cu_seqlens[i] : cu_seqlens[i + 1]]
            if dtype == "float32":
                assert relative_l2(rows, want) <= 2e-6 and worst_residue_l2(rows, want) <= 5e-6, (i, layer)
            else:
                assert relative_l2(rows, want) <= 2.5e-2, (i, layer)


def test_padded_half_precision_is_the_packed_one(_seed=0):
    base = random_esm1b()
    tokens = random_tokens([200, 40])
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    packed, padded = (
        ESM2WithFlashAttention(base, "cpu", torch.bfloat16, attention).forward_packed(input_ids, cu_seqlens, max_seqlen)
        for attention in ("sdpa", "padded")
    )
    assert relative_l2(padded["representations"][3], packed["representations"][3]) <= 2.5e-2


@pytest.mark.parametrize("attention", ["sdpa", "padded"])
def test_a_sequence_beyond_the_positions_is_refused_with_both_lengths(attention):
    model = ESM2WithFlashAttention(random_esm1b(), "cpu", attention=attention)
    assert model.max_residues == 1022
    with pytest.raises(ValueError, match="a sequence of 1023 residues is longer than 1022, the limit"):
        model.forward_packed(*pack(random_tokens([1023])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padded_tokens_beyond_the_positions_are_refused_with_both_lengths(dtype):
    model = ESM2WithFlashAttention(random_esm1b(), "cpu", dtype)
    tokens = torch.from_numpy(random_tokens([1023])[0].astype("int64"))[None]
    assert model(tokens[:, :1024])["logits"].shape[1] == 1024
    with pytest.raises(ValueError, match="tokens: a sequence of 1023 residues is longer than 1022, the limit"):
        model(tokens)


def test_an_esm1_has_the_class_of_an_esm1b_and_is_refused_with_what_to_use():
    sizes = {"layers": 2, "embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 2, "max_positions": 64}
    args = argparse.Namespace(arch="protein_bert_base", final_bias=True, **sizes)
    model = ProteinBertModel(args, Alphabet.from_architecture(args.arch))
    with pytest.raises(TypeError, match=r"of ESM-1 \(protein_bert_base\), .*; use an ESM-2, ESM-1b or ESM-1v"):
        ESM2WithFlashAttention(model, "cpu")


@pytest.mark.parametrize("norm_before", [True, False], ids=["ESM-1b", "ESM-1v"])
def test_a_published_file_loads_as_fair_esm_loads_it(norm_before, tmp_path):
    from esm.pretrained import load_model_and_alphabet_core

    path = save_esm1b(random_esm1b(norm_before=norm_before), tmp_path / "esm1b_small.pt")
    data, regression = (
        torch.load(p, weights_only=False) for p in (path, path.with_name("esm1b_small-contact-regression.pt"))
    )
    theirs = load_model_and_alphabet_core("esm1b_small", data, regression)[0].eval()
    ours = load_esm2(path)
    tokens = torch.from_numpy(random_tokens([60], masked=(0,))[0].astype("int64"))[None]
    with torch.inference_mode():
        want = theirs(tokens, repr_layers=[0, 3], return_contacts=True)
        got = ours(tokens, repr_layers=[0, 3], return_contacts=True)
    assert torch.equal(got["logits"], want["logits"]) and torch.equal(got["contacts"], want["contacts"])
    assert all(torch.equal(got["representations"][layer], want["representations"][layer]) for layer in (0, 3))


def test_another_architecture_is_refused_by_name(tmp_path):
    model = random_esm1b()
    model.args.arch = "msa_transformer"
    with pytest.raises(CheckpointError, match="'msa_transformer'; only ESM-2, ESM-1b and ESM-1v"):
        load_esm2(save_esm1b(model, tmp_path / "msa.pt"))


def test_an_embedding_does_not_depend_on_neighbours_to_the_bit(tmp_path):
    path = save_esm1b(random_esm1b(), tmp_path / "esm1b_small.pt")
    embedder = Embedder(EmbedOptions(path, device="cpu", tokens_per_pack=512))
    tokens = random_tokens([30, 700, 1, 260, 90])
    together = embedder.embed(tokens).columns["mean_3"]
    for i, one in enumerate(tokens):
        assert torch.equal(torch.from_numpy(embedder.embed([one]).columns["mean_3"][0]), torch.from_numpy(together[i]))
