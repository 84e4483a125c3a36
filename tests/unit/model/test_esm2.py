"""Packed ESM-2 against fair-esm's own forward, fp32, one unpadded sequence at a time."""

import copy

import numpy as np
import pytest
import torch
from conftest import (
    RESIDUES,
    fair_esm_alone,
    pack,
    random_esm2,
    random_sequence,
    random_tokens,
    relative_l2,
    worst_residue_cosine,
    worst_residue_l2,
)
from packed_esm.embedding.packing import build_pack
from packed_esm.model import esm2
from packed_esm.model.esm2 import ESM2WithFlashAttention, resolve_layers
from packed_esm.sequences.tokens import CLS, MASK, PAD, tokenize

AWKWARD = [2554, 1, 2, 127, 128, 129, 1023, 1024, 1025, 3, 300]
CPU_BACKENDS = ["sdpa", "padded"]
# fp32 on CPU: what reordering the same sums costs (fair-esm batched against single differs as much).
SEQUENCE_L2, RESIDUE_L2 = 2e-6, 5e-6


def assert_equals_fair_esm(base, model, tokens, layers, sequence_l2=SEQUENCE_L2, residue_l2=RESIDUE_L2):
    reference = copy.deepcopy(base)
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    got = model.forward_packed(input_ids, cu_seqlens, max_seqlen, layers)["representations"]
    resolved = resolve_layers(layers, base.num_layers)
    assert list(got) == sorted(resolved)
    for i, one in enumerate(tokens):
        want = fair_esm_alone(reference, one, resolved)
        for layer in resolved:
            rows = got[layer][cu_seqlens[i] : cu_seqlens[i + 1]]
            where = f"sequence {i} of {len(one) - 2} residues, layer {layer}"
            assert rows.dtype == torch.float32
            assert relative_l2(rows, want[layer]) <= sequence_l2, where
            assert worst_residue_l2(rows, want[layer]) <= residue_l2, where


@pytest.mark.parametrize("attention", CPU_BACKENDS)
def test_packed_equals_fair_esm_for_every_residue_length_and_layer(demo, attention):
    base = copy.deepcopy(demo)
    model = ESM2WithFlashAttention(demo, "cpu", attention=attention)
    tokens = random_tokens(AWKWARD, letters=RESIDUES, masked=(0, 3, 10))
    assert_equals_fair_esm(base, model, tokens, [0, 3, 5, -1])


@pytest.mark.parametrize("attention", CPU_BACKENDS)
@pytest.mark.parametrize("head_dim", [16, 24, 32, 64, 128])
def test_packed_equals_fair_esm_for_every_head_dim_of_esm2(head_dim, attention):
    base = random_esm2(num_layers=3, embed_dim=2 * head_dim, heads=2)
    model = ESM2WithFlashAttention(copy.deepcopy(base), "cpu", attention=attention)
    assert_equals_fair_esm(base, model, random_tokens([70, 1, 333], masked=(2,)), [0, 1, 2, 3])


@pytest.mark.parametrize("attention", CPU_BACKENDS)
def test_a_thousand_sequences_in_one_pack_equal_fair_esm(attention):
    base = random_esm2(num_layers=2, embed_dim=32)
    model = ESM2WithFlashAttention(copy.deepcopy(base), "cpu", attention=attention)
    lengths = np.random.default_rng(1).integers(1, 40, size=1000)
    assert_equals_fair_esm(base, model, random_tokens(lengths, letters=RESIDUES), [1, 2])


@pytest.mark.parametrize("attention", CPU_BACKENDS)
def test_mask_tokens_rescale_their_own_sequence_only(demo, attention):
    """Row 2: token dropout divides by the share of mask tokens of one sequence, cls and eos counted."""
    base = copy.deepcopy(demo)
    tokens = random_tokens([50, 50, 7])
    tokens[1][1:31] = MASK
    model = ESM2WithFlashAttention(demo, "cpu", attention=attention)
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    got = model.forward_packed(input_ids, cu_seqlens, max_seqlen, [0])["representations"][0]
    embedding = base.embed_tokens.weight.detach()
    assert torch.equal(got[:52], embedding[input_ids[:52]] * 0.88 / 1.0)
    assert torch.allclose(got[52], embedding[CLS] * 0.88 / (1 - 30 / 52), rtol=1e-6, atol=0)
    assert not got[53:83].any()
    assert_equals_fair_esm(base, model, tokens, [0, 3, 6])


@pytest.mark.parametrize("attention", CPU_BACKENDS)
def test_a_model_without_token_dropout_equals_fair_esm(attention):
    base = random_esm2()
    base.token_dropout = False
    model = ESM2WithFlashAttention(copy.deepcopy(base), "cpu", attention=attention)
    assert_equals_fair_esm(base, model, random_tokens([20, 5], masked=(0,)), [0, 3])


def test_rotary_frequencies_come_from_the_checkpoint(demo):
    """Row 3: rounded to fp16 as Meta's are, or anything else; row 16: on a model never used before."""
    recomputed = 1.0 / (10000 ** (torch.arange(0, 16, 2).float() / 16))
    assert not torch.equal(demo.layers[0].self_attn.rot_emb.inv_freq, recomputed)
    base = random_esm2()
    for layer in base.layers:
        layer.self_attn.rot_emb.inv_freq.mul_(1.5)
    model = ESM2WithFlashAttention(copy.deepcopy(base), "cpu")
    assert_equals_fair_esm(base, model, random_tokens([400, 30]), [3])


def test_rotary_frequencies_that_differ_between_layers_are_refused():
    base = random_esm2()
    base.layers[1].self_attn.rot_emb.inv_freq.mul_(1.5)
    with pytest.raises(ValueError, match="different rotary frequencies"):
        ESM2WithFlashAttention(base, "cpu")


def test_a_used_reference_would_hide_other_frequencies():
    """Row 16: fair-esm keeps rotary tables by length, so these tests compare with models never used."""
    base = random_esm2()
    tokens = random_tokens([40])[0]
    before = fair_esm_alone(base, tokens, [3])[3]
    for layer in base.layers:
        layer.self_attn.rot_emb.inv_freq.mul_(1.5)
    assert torch.equal(fair_esm_alone(base, tokens, [3])[3], before)
    fresh = random_esm2()
    for layer in fresh.layers:
        layer.self_attn.rot_emb.inv_freq.mul_(1.5)
    assert not torch.allclose(fair_esm_alone(fresh, tokens, [3])[3], before, atol=1e-2)


@pytest.mark.parametrize("attention", CPU_BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "length", "sequence_l2", "cosine"),
    [
        # 1.5 times the worst of 300, 1,427 and 2,500 residues on CPU (bf16 4.5e-3, fp16 5.2e-4).
        pytest.param(torch.bfloat16, 1427, 7e-3, 0.9999, id="bf16-beyond-256"),
        pytest.param(torch.float16, 2500, 8e-4, 0.999999, id="fp16-beyond-2048"),
    ],
)
def test_half_precision_keeps_positions_and_residual_stream_in_fp32(
    demo, attention, dtype, length, sequence_l2, cosine
):
    """Row 4: rotary tables from fp32 positions, also where half precision cannot count so far."""
    base = copy.deepcopy(demo)
    model = ESM2WithFlashAttention(demo, "cpu", dtype=dtype, attention=attention)
    tokens = random_tokens([length, 60], masked=(1,))
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    got = model.forward_packed(input_ids, cu_seqlens, max_seqlen, [0, 3, 6])["representations"]
    for i, one in enumerate(tokens):
        want = fair_esm_alone(base, one, [0, 3, 6])
        for layer in (0, 3, 6):
            rows = got[layer][cu_seqlens[i] : cu_seqlens[i + 1]]
            if layer == 0:
                assert torch.equal(rows, want[layer])
            else:
                assert relative_l2(rows, want[layer]) <= sequence_l2
                assert worst_residue_cosine(rows, want[layer]) >= cosine


def test_half_precision_leaves_the_base_model_as_it_was(demo):
    before = {name: tensor.clone() for name, tensor in demo.state_dict().items()}
    ESM2WithFlashAttention(demo, "cpu", dtype=torch.bfloat16)
    assert all(torch.equal(before[name], tensor) for name, tensor in demo.state_dict().items())


@pytest.mark.parametrize("seed", range(3))
def test_embedding_does_not_depend_on_pack_neighbours_or_place_to_the_bit(demo, seed):
    model = ESM2WithFlashAttention(demo, "cpu", attention="sdpa")
    rng = np.random.default_rng(seed)
    probe = random_tokens([211], seed=99)[0]

    def embed(before, after):
        tokens = [*random_tokens(before, seed=seed), probe, *random_tokens(after, seed=seed + 50)]
        one_pack = build_pack(list(range(len(tokens))), tokens, budget=2048)
        out = model.forward_packed(
            torch.from_numpy(one_pack.input_ids).long(),
            torch.from_numpy(one_pack.cu_seqlens),
            one_pack.max_seqlen,
            [0, 3, 6],
        )["representations"]
        start = sum(before) + 2 * len(before)
        return torch.stack([out[layer][start : start + len(probe)] for layer in (0, 3, 6)])

    alone = embed([], [])
    assert torch.equal(embed(list(rng.integers(1, 200, 5)), list(rng.integers(1, 300, 3))), alone)
    assert torch.equal(embed([700, 900], [1]), alone)


def test_padded_forward_in_fp32_is_fair_esm_itself(demo):
    base = copy.deepcopy(demo)
    model = ESM2WithFlashAttention(demo, "cpu")
    tokens = torch.full((2, 40), PAD)
    for row, one in enumerate(random_tokens([38, 11])):
        tokens[row, : len(one)] = torch.from_numpy(one.astype(np.int64))
    with torch.inference_mode():
        want = base(tokens, repr_layers=[0, 6], return_contacts=True)
    got = model(tokens, repr_layers=[0, -1], return_contacts=True)
    for key in ("logits", "contacts", "attentions"):
        assert torch.allclose(got[key], want[key], atol=1e-5), key
    assert torch.allclose(got["representations"][6], want["representations"][6], atol=1e-5)


def test_padded_forward_in_half_precision_gives_logits_and_refuses_contacts(demo):
    base = copy.deepcopy(demo)
    model = ESM2WithFlashAttention(demo, "cpu", dtype=torch.float16)
    tokens = torch.from_numpy(random_tokens([38])[0].astype(np.int64))[None]
    with torch.inference_mode():
        want = base(tokens)["logits"]
    assert relative_l2(model(tokens)["logits"], want) < 2e-3
    with pytest.raises(ValueError, match="return_contacts: needs dtype=torch.float32"):
        model(tokens, return_contacts=True)


def test_padding_is_zero_at_the_embedding_as_in_fair_esm(demo):
    """Row 10, for the padded forward in half precision."""
    base = copy.deepcopy(demo)
    tokens = torch.full((2, 20), PAD)
    for row, one in enumerate(random_tokens([18, 4], masked=(1,))):
        tokens[row, : len(one)] = torch.from_numpy(one.astype(np.int64))
    with torch.inference_mode():
        want = base(tokens, repr_layers=[0])["representations"][0]
    got = ESM2WithFlashAttention(demo, "cpu", dtype=torch.float16)(tokens, [0])["representations"][0]
    assert torch.equal(got, want) and not got[1, 6:].any()


def test_negative_layers_count_from_the_last_as_extract_py_does():
    """Row 6: -1 is the last, -(N + 1) the embedding."""
    assert resolve_layers([-1, -7, 0, 3, 6], 6) == [6, 0, 3]
    for layer in (7, -8):
        with pytest.raises(ValueError, match=rf"repr_layers: {layer} is out of range .* 6 layers"):
            resolve_layers([layer], 6)


def bad(**changes):
    input_ids, cu_seqlens, max_seqlen = pack(random_tokens([5, 8]))
    arguments = {"input_ids": input_ids, "cu_seqlens": cu_seqlens, "max_seqlen": max_seqlen}
    return arguments | {name: change(arguments[name]) for name, change in changes.items()}


@pytest.mark.parametrize("attention", CPU_BACKENDS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (bad(cu_seqlens=lambda c: c + 1), "cu_seqlens: must begin with 0, not 1"),
        (bad(cu_seqlens=lambda c: c[[0, 2, 1]]), "cu_seqlens: must be strictly increasing"),
        (bad(cu_seqlens=lambda c: torch.cat([c[:1], c])), "cu_seqlens: must be strictly increasing"),
        (bad(cu_seqlens=lambda c: c.long()), "cu_seqlens: need int32"),
        (bad(cu_seqlens=lambda c: c[None]), "cu_seqlens: need int32"),
        (bad(cu_seqlens=lambda c: c.to("meta")), "cu_seqlens: on meta"),
        (bad(cu_seqlens=lambda c: c[:2]), "cu_seqlens: ends at 7, but input_ids has 17 tokens"),
        (bad(cu_seqlens=lambda c: c[:1]), "cu_seqlens: the pack is empty"),
        (bad(input_ids=lambda i: i[:0], cu_seqlens=lambda c: c[:1]), "cu_seqlens: the pack is empty"),
        (bad(max_seqlen=lambda m: m - 1), "max_seqlen: 9 is less than the longest sequence, 10 tokens"),
        (bad(input_ids=lambda i: i.float()), "input_ids: need int32 or int64"),
        (bad(input_ids=lambda i: i[None]), "input_ids: need int32 or int64"),
        (bad(input_ids=lambda i: i.to("meta")), "input_ids: on meta, but the model is on cpu"),
        (bad() | {"repr_layers": [4]}, "repr_layers: 4 is out of range"),
    ],
)
def test_bad_arguments_are_named(arguments, message, attention):
    model = ESM2WithFlashAttention(random_esm2(), "cpu", attention=attention)
    with pytest.raises(ValueError, match=message):
        model.forward_packed(**arguments)


def test_fallback_has_the_contract_of_forward_packed(demo):
    model = ESM2WithFlashAttention(demo, "cpu")
    arguments = pack(random_tokens([30, 400, 1, 77], masked=(1,)))
    packed = model.forward_packed(*arguments, [0, 6])["representations"]
    fallback = model._forward_packed_fallback(*arguments, [0, 6])["representations"]
    assert packed.keys() == fallback.keys()
    for layer in packed:
        assert relative_l2(fallback[layer], packed[layer]) <= SEQUENCE_L2


def test_a_protein_too_long_for_the_padded_map_is_refused_in_fp32(demo, monkeypatch):
    monkeypatch.setattr(esm2, "MAX_PADDED_FP32", 100)
    model = ESM2WithFlashAttention(demo, "cpu", attention="padded")
    with pytest.raises(ValueError, match="attention map of 152 tokens is too large .* use attention: auto"):
        model.forward_packed(*pack(random_tokens([20, 150])))


def test_int32_tokens_and_special_residues_are_taken(demo):
    base = copy.deepcopy(demo)
    model = ESM2WithFlashAttention(demo, "cpu")
    rng = np.random.default_rng(5)
    tokens = [tokenize(s) for s in ("XBUZO.-", "-", random_sequence(90, rng, "XBUZO.-"), "M")]
    assert_equals_fair_esm(base, model, tokens, [0, 6])
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    as_int32 = model.forward_packed(input_ids.int(), cu_seqlens, max_seqlen)["representations"][6]
    assert torch.equal(as_int32, model.forward_packed(input_ids, cu_seqlens, max_seqlen)["representations"][6])
