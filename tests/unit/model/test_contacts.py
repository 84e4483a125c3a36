"""Contacts and logits of packed sequences against fair-esm's `return_contacts` and `logits`."""

import copy

import numpy as np
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import RESIDUES, pack, random_esm1b, random_esm2, random_tokens
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.model import contacts
from packed_esm.model.esm2 import ESM2WithFlashAttention

LENGTHS = [2, 130, 40, 301, 3]


def with_contact_head(model):
    """Give a random contact head of weights as large as published ones: up to some tens."""
    with torch.no_grad():
        model.contact_head.regression.weight.normal_(0, 10)
        model.contact_head.regression.bias.fill_(-3.0)
    return model


def fair_esm_outputs(model, tokens):
    with torch.inference_mode():
        out = model(torch.from_numpy(tokens.astype(np.int64))[None], return_contacts=True)
    return out["logits"][0], out["contacts"][0]


@pytest.mark.parametrize("make", [random_esm2, random_esm1b], ids=["ESM-2", "ESM-1b"])
def test_contacts_and_logits_equal_fair_esm(make):
    base = with_contact_head(make(num_layers=3, embed_dim=96, heads=4))
    model = ESM2WithFlashAttention(copy.deepcopy(base), "cpu")
    tokens = random_tokens(LENGTHS, letters=RESIDUES, masked=(3,))
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    out = model.forward_packed(input_ids, cu_seqlens, max_seqlen, [], need_logits=True, return_contacts=True)
    assert out["representations"] == {}
    for i, one in enumerate(tokens):
        logits, maps = fair_esm_outputs(base, one)
        assert out["contacts"][i].shape == (len(one) - 2, len(one) - 2)
        assert torch.allclose(out["contacts"][i], maps, rtol=0, atol=1e-5), float(
            (out["contacts"][i] - maps).abs().max()
        )
        rows = out["logits"][cu_seqlens[i] : cu_seqlens[i + 1]]
        assert torch.allclose(rows, logits, rtol=0, atol=1e-5 * float(logits.abs().max()))
        assert maps.std() > 0.02 or len(one) < 6  # something to be equal to


def test_trained_weights_give_fair_esms_logits(demo):
    base = copy.deepcopy(demo)
    model = ESM2WithFlashAttention(demo, "cpu")
    tokens = random_tokens(LENGTHS)
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    logits = model.forward_packed(input_ids, cu_seqlens, max_seqlen, need_logits=True)["logits"]
    for i, one in enumerate(tokens):
        want, _ = fair_esm_outputs(base, one)
        assert torch.allclose(logits[cu_seqlens[i] : cu_seqlens[i + 1]], want, rtol=1e-5, atol=1e-5)


def test_maps_are_taken_a_few_heads_at_a_time_where_they_are_large(monkeypatch):
    """The sum is the same but for rounding; one map at a time is the least there is."""
    model = ESM2WithFlashAttention(with_contact_head(random_esm2(heads=8)), "cpu")
    arguments = pack(random_tokens([90]))
    whole = model.forward_packed(*arguments, return_contacts=True)["contacts"][0]
    for maps in (1, 3):
        monkeypatch.setattr(contacts, "MAPS_BYTES", maps * 4 * 92**2 + 8)
        some = model.forward_packed(*arguments, return_contacts=True)["contacts"][0]
        assert torch.allclose(some, whole, rtol=0, atol=1e-6)


def test_contacts_do_not_depend_on_neighbours_to_the_bit():
    model = ESM2WithFlashAttention(with_contact_head(random_esm2()), "cpu")
    tokens = random_tokens(LENGTHS)
    together = model.forward_packed(*pack(tokens), return_contacts=True)["contacts"]
    backwards = model.forward_packed(*pack(tokens[::-1]), return_contacts=True)["contacts"][::-1]
    assert all(torch.equal(a, b) for a, b in zip(together, backwards, strict=True))


@pytest.mark.parametrize("free", [1, 2, 3, 257])
def test_filler_of_any_length_has_no_part_in_it(free, tmp_path):
    base = with_contact_head(random_esm2())
    path = save_fair_esm(copy.deepcopy(base), tmp_path / "esm2_small.pt", contacts=True)
    embedder = Embedder(EmbedOptions(path, include=("contacts",), device="cpu", tokens_per_pack=302 + free))
    (tokens,) = random_tokens([300])
    seen = []
    embedder.embed([tokens], each_sequence=lambda _, out: seen.append(out["contacts"]))
    assert torch.allclose(seen[0], fair_esm_outputs(base, tokens)[1], rtol=0, atol=1e-5)


def test_the_padded_fallback_gives_logits_and_refuses_contacts(demo):
    packed, padded = (ESM2WithFlashAttention(copy.deepcopy(demo), "cpu", attention=a) for a in ("sdpa", "padded"))
    arguments = pack(random_tokens([50, 9]))
    want = packed.forward_packed(*arguments, need_logits=True)["logits"]
    assert torch.allclose(padded.forward_packed(*arguments, need_logits=True)["logits"], want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="contacts: attention: padded would have to keep the maps of all layers"):
        padded.forward_packed(*arguments, return_contacts=True)


def test_contacts_and_logits_need_no_layer_that_is_asked_for(demo):
    model = ESM2WithFlashAttention(with_contact_head(demo), "cpu")
    arguments = pack(random_tokens([40, 9]))
    want = model.forward_packed(*arguments, need_logits=True, return_contacts=True)
    contacts_alone = model.forward_packed(*arguments, [1], return_contacts=True)["contacts"]
    assert all(torch.equal(a, b) for a, b in zip(contacts_alone, want["contacts"], strict=True))
    assert torch.equal(model.forward_packed(*arguments, [1], need_logits=True)["logits"], want["logits"])


def test_maps_of_half_precision_are_computed_in_fp32():
    regression = torch.nn.Linear(8, 1)
    q, k = torch.randn(2, 60, 4, 16).bfloat16()

    def contacts_of(q, k):
        sums = contacts.contact_sums(regression, 2, torch.tensor([0, 60]), kernels=False)
        sums.add(q, k, 1)
        return sums.contacts()[0]

    assert torch.equal(contacts_of(q, k), contacts_of(q.float(), k.float()))
