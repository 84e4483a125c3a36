"""ESM C: packed rows against transformers' own model, its two kinds of checkpoints, and what it does not have."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import pack, random_tokens, relative_l2, worst_residue_l2
from esmc_checkpoints import pth_of, random_esmc, save_esmc
from packed_esm.checkpoints.folders import TOKENS
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import CheckpointError, OptionError
from packed_esm.model.esm2 import ESM2WithFlashAttention, PackInput
from packed_esm.model.families.esmc.reference import load_reference, reference_tokens
from packed_esm.sequences.tokens import tokenize
from packed_esm.validation.reference_model import stream_layers
from safetensors.torch import load_file, save_file

LAYERS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def theirs():
    return random_esmc()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    return save_esmc(theirs, tmp_path_factory.mktemp("esmc") / "small")


@torch.inference_mode()
def alone(model, tokens):
    out = model(input_ids=torch.from_numpy(tokens.astype(np.int64))[None], output_hidden_states=True)
    return [hidden[0] for hidden in out.hidden_states], out.logits[0]


@pytest.mark.parametrize(("dtype", "attention"), [("float32", "sdpa"), ("float32", "padded"), ("bfloat16", "sdpa")])
def test_packed_equals_transformers_for_every_layer_and_the_logits(theirs, folder, dtype, attention):
    model = ESM2WithFlashAttention(load_esm2(folder), "cpu", getattr(torch, dtype), attention)
    tokens = random_tokens([2554, 1, 2, 127, 300], masked=(0, 4))
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    got = model.forward_packed(input_ids, cu_seqlens, max_seqlen, LAYERS, need_logits=True)
    for i, one in enumerate(tokens):
        rows = slice(int(cu_seqlens[i]), int(cu_seqlens[i + 1]))
        hidden, logits = alone(theirs, one)
        pairs = [(got["representations"][layer][rows], hidden[layer]) for layer in LAYERS]
        for layer, (ours, want) in enumerate([*pairs, (got["logits"][rows], logits)]):
            if dtype == "float32":
                assert relative_l2(ours, want) <= 2e-6 and worst_residue_l2(ours, want) <= 5e-6, (i, layer)
            else:
                assert relative_l2(ours, want) <= 2.5e-2, (i, layer)


def test_the_layers_of_the_reference_are_what_the_blocks_leave(theirs):
    """Hooks on the modules, so that the order of transformers' hidden states is not taken for granted."""
    seen = []
    modules = [theirs.esmc.embed_tokens, *theirs.esmc.layers[:-1], theirs.esmc.norm]
    hooks = [one.register_forward_hook(lambda _, __, out: seen.append(out[0])) for one in modules]
    hidden, _ = alone(theirs, random_tokens([30])[0])
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(hidden) and all(torch.equal(one, other) for one, other in zip(seen, hidden, strict=True))


def test_the_reference_has_the_same_outputs_if_its_layers_are_streamed(folder):
    reference, tokens = load_reference(folder), random_tokens([30])[0]
    want = reference.outputs(tokens, LAYERS)
    got = stream_layers(reference, torch.device("cpu")).outputs(tokens, LAYERS)
    assert torch.equal(got["logits"], want["logits"])
    assert all(torch.equal(got["representations"][layer], want["representations"][layer]) for layer in LAYERS)


def test_a_pth_of_evolutionaryscale_is_the_same_model(theirs, folder, tmp_path):
    path = tmp_path / "esmc_small.pth"
    torch.save(pth_of(theirs), path)
    one, other = load_esm2(folder).state_dict(), load_esm2(path).state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_embeddings_do_not_depend_on_neighbours_to_the_bit(folder):
    embedder = Embedder(EmbedOptions(folder, (0, 2, 3), ("mean", "max", "bos"), tokens_per_pack=512, device="cpu"))
    tokens = random_tokens(np.random.default_rng(0).integers(1, 400, 20))
    together, backwards = embedder.embed(tokens).columns, embedder.embed(tokens[::-1]).columns
    alone_ = [embedder.embed([one]).columns for one in tokens]
    for name, rows in together.items():
        assert np.array_equal(rows, backwards[name][::-1])
        assert np.array_equal(rows, np.concatenate([one[name] for one in alone_]))


@pytest.mark.parametrize("weights", ["host", "file"])
def test_streamed_weights_have_the_bits_of_resident_ones(folder, weights):
    packs = [pack(random_tokens([40, 7])), pack(random_tokens([90], 1))]
    resident = ESM2WithFlashAttention(load_esm2(folder), "cpu", torch.bfloat16)
    streamed = ESM2WithFlashAttention(load_esm2(folder), "cpu", torch.bfloat16, weights=weights)
    for got, one in zip(streamed.forward_packs([PackInput(*one) for one in packs]), packs, strict=True):
        assert torch.equal(got["representations"][3], resident.forward_packed(*one)["representations"][3])


def test_streamed_weights_in_padded_batches_have_the_bits_of_resident_ones(folder):
    one = pack(random_tokens([40, 7]))
    resident, streamed = (
        ESM2WithFlashAttention(load_esm2(folder), "cpu", torch.float32, "padded", weights)
        for weights in ("resident", "host")
    )
    got, want = (model.forward_packed(*one)["representations"][3] for model in (streamed, resident))
    assert torch.equal(got, want)


def test_the_tokens_are_those_of_transformers_tokenizer():
    sequence = "".join(TOKENS[4:29])
    assert len(sequence) == 25 and np.array_equal(reference_tokens(sequence), tokenize(sequence))


def test_contacts_and_int8_are_refused_by_name(theirs, folder, tmp_path):
    with pytest.raises(OptionError, match="contacts needs a contact head, and .*small has none"):
        Embedder(EmbedOptions(folder, include=("contacts",), device="cpu"))
    torch.save(pth_of(theirs), tmp_path / "c.pth")
    with pytest.raises(
        OptionError, match="contacts needs a contact head, and .*c.pth has none, as no ESM C has; remove"
    ):
        Embedder(EmbedOptions(tmp_path / "c.pth", include=("contacts",), device="cpu"))
    with pytest.raises(OptionError, match="ESM C has no products in int8; use dtype: auto"):
        ESM2WithFlashAttention(load_esm2(folder), "cpu", torch.int8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; an ESM C like this has 'silu'"),
        ({"num_hidden_layers": 4}, "num_hidden_layers is 4, but it has tensors of 3 layers"),
        ({"num_attention_heads": 7, "num_key_value_heads": 7, "head_dim": None}, "is 7, which does not divide 128"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1; an ESM C like this has 2"),
        ({"head_dim": 32}, "head_dim is 32; an ESM C like this has 64"),
        ({"intermediate_size": 999}, "intermediate_size is 999; an ESM C like this has 512"),
        (
            {"quantization_config": {"load_in_8bit": True}},
            "quantization_config is {'load_in_8bit': True}; .* save the model without it",
        ),
        ({"rope_parameters": {"rope_type": "yarn"}}, "only rope_type 'default'"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling is .*; only rope_type 'default'"),
        ({"hidden_size": "64"}, "hidden_size is '64', not a whole number"),
    ],
)
def test_a_config_that_does_not_fit_is_named(theirs, tmp_path, change, message):
    folder = save_esmc(theirs, tmp_path / "small", **change)
    with pytest.raises(CheckpointError, match=message):
        load_esm2(folder)


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        (r"transformer\.blocks\.1\.attn\.q_ln\.weight", r"layers\.1\.self_attn\.q_norm\.weight"),
        (r"transformer\.blocks\.2\.ffn\.1\.weight", r"layers\.2\.mlp\.gate_proj\.weight is missing"),
        (r".*\.ffn\.1\.weight", r"layers\.0\.mlp\.gate_proj\.weight is missing"),
        (r"sequence_head\.0\.weight", r"1 missing tensors .*, lm_head\.dense\.weight"),
        (r"embed\.weight", "do not contain an embedding"),
    ],
)
def test_a_tensor_that_is_missing_in_a_pth_is_named(theirs, tmp_path, pattern, named):
    tensors = {name: one for name, one in pth_of(theirs).items() if not re.fullmatch(pattern, name)}
    torch.save(tensors, tmp_path / "esmc_small.pth")
    with pytest.raises(CheckpointError, match=named):
        load_esm2(tmp_path / "esmc_small.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformer.norm.bias": torch.ones(128)}, r"1 extra tensors .*, norm\.bias"),
        ({"transformer.blocks.0.ffn.1.weight": torch.ones(2)}, r"gate_proj\.weight is of shape \[1\], not \[1, 128\]"),
        (
            {"encoder.sequence_embed.weight": torch.ones(1)},
            "1 extra tensors .*, encoder.sequence_embed.weight",
        ),
        ({"step": torch.ones(1)}, "1 extra tensors .*, step;"),
        ({"transformer.blocks.0.weight": torch.ones(1)}, r"1 extra tensors .*, transformer\.blocks\.0\.weight"),
        ({"a b.weight": torch.ones(1)}, r"1 extra tensors .*, a b\.weight"),
        ({"embed_tokens.weight": torch.ones(64, 128)}, r"esmc_small\.pth: two of its tensors are embed_tokens\.weight"),
        (
            {"transformer.blocks.0.ffn.1.weight": torch.tensor(1.0)},
            r"ffn\.1\.weight is \[\], not 2 matrices; fetch it again",
        ),
    ],
)
def test_a_pth_with_more_or_other_tensors_is_refused(theirs, tmp_path, changes, message):
    torch.save(pth_of(theirs) | changes, tmp_path / "esmc_small.pth")
    with pytest.raises(CheckpointError, match=message):
        load_esm2(tmp_path / "esmc_small.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm.weight": torch.ones(128)}, r"small: two of its tensors are norm\.weight; save it with one"),
        ({"esmc.layers.0.mlp.gate_proj.weight": None}, r"small: layers\.0\.mlp\.gate_proj\.weight is missing; .*fetch"),
    ],
)
def test_a_folder_with_a_tensor_too_many_or_too_few_is_refused(theirs, tmp_path, changes, message):
    folder = save_esmc(theirs, tmp_path / "small")
    tensors = load_file(folder / "model.safetensors") | changes
    tensors = {name: one.clone() for name, one in tensors.items() if one is not None}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        load_esm2(folder)


@pytest.mark.parametrize("as_zip", [True, False])  # torch before 1.6 wrote no zip
def test_a_pth_without_lm_head_has_embeddings_and_a_reference(theirs, tmp_path, as_zip):
    path, tokens = tmp_path / "bare.pth", random_tokens([9])
    tensors = {name: one for name, one in pth_of(theirs).items() if "sequence_head" not in name}
    torch.save(tensors, path, _use_new_zipfile_serialization=as_zip)
    base = load_esm2(path)
    got = ESM2WithFlashAttention(base, "cpu").forward_packed(*pack(tokens))["representations"][3]
    want = load_reference(path).outputs(tokens[0], [3])["representations"][3]
    assert "lm_head" in base.absent_heads and relative_l2(got, want) <= 2e-6


@pytest.mark.parametrize(
    "fields", [{"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, {"rope_theta": 500.0}]
)
def test_rope_theta_of_the_config_is_used(theirs, tmp_path, fields):
    folder = save_esmc(theirs, tmp_path / "small", **{"rope_parameters": None} | fields)
    want, _ = alone(type(theirs).from_pretrained(folder), tokens := random_tokens([60])[0])
    got = ESM2WithFlashAttention(load_esm2(folder), "cpu").forward_packed(*pack([tokens]))["representations"][3]
    assert relative_l2(got, want[3]) <= 2e-6
    assert relative_l2(got, alone(theirs, tokens)[0][3]) > 1e-3


def test_a_folder_without_lm_head_has_embeddings_and_no_logits(theirs, tmp_path):
    theirs.esmc.save_pretrained(tmp_path / "bare")
    base = load_esm2(tmp_path / "bare")
    got = ESM2WithFlashAttention(base, "cpu").forward_packed(*pack(random_tokens([9])), need_logits=True)
    assert "lm_head" in base.absent_heads and got["logits"].isnan().all()
    assert relative_l2(got["representations"][3], alone(theirs, random_tokens([9])[0])[0][3]) <= 2e-6
    with pytest.raises(OptionError, match="logits needs a language-model head"):
        Embedder(EmbedOptions(tmp_path / "bare", include=("logits",), device="cpu"))


def test_a_vocabulary_of_another_order_is_refused(theirs, tmp_path):
    folder = save_esmc(theirs, tmp_path / "small")
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    vocabulary["L"], vocabulary["A"] = vocabulary["A"], vocabulary["L"]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    with pytest.raises(CheckpointError, match="tokenizer.json: L has the id 5, not 4"):
        load_esm2(folder)
