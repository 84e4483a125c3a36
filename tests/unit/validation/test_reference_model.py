"""The reference reads checkpoints by itself, so that validation sees a loader that ignores what it is told."""

import argparse
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoint_files import (
    hugging_face_tensors,
    save_esm1b,
    save_fair_esm,
    save_hugging_face,
    write_folder,
    write_vocabulary,
)
from conftest import random_esm1b, random_esm2, random_sequence, random_tokens, relative_l2
from packed_esm.checkpoints import folders, hugging_face, names
from packed_esm.checkpoints.folders import TOKENS, WeightFiles
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import ValidationError
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.tokens import tokenize
from packed_esm.store.merge import merge_samples
from packed_esm.validation import reference_model
from packed_esm.validation.reference import masked_logits, reference_outputs
from packed_esm.validation.reference_model import load_reference, reference_tokens, stream_layers
from packed_esm.validation.run import validate
from packed_esm.validation.tolerance import ValidationOptions
from safetensors.torch import load_file

SHUFFLED = (*TOKENS[:4], *sorted(TOKENS[4:24]), *TOKENS[24:])


@pytest.fixture
def folder(tmp_path):
    """A folder in which every field differs from the default, and two files of weights."""
    base = random_esm2(num_layers=2, embed_dim=32, heads=2)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(0.1 if parameter.ndim == 2 else 1.0)
    folder = save_hugging_face(base, tmp_path / "hf", layer_norm_eps=1e-2, token_dropout=False)
    tensors = load_file(folder / "model.safetensors")
    config = (folder / "config.json").read_text()
    write_folder(folder, {name: 0.5 * x.float() for name, x in tensors.items()}, {}, "model_epoch1.safetensors")
    (folder / "config.json").write_text(config)
    return write_vocabulary(folder, SHUFFLED)


@pytest.fixture
def validated(tmp_path, folder):
    """A function that embeds six proteins with the folder, from FASTA on, and validates them."""
    rng = np.random.default_rng(0)
    fasta = tmp_path / "s.fasta"
    fasta.write_text("".join(f">p{i}\n{random_sequence(20 + 30 * i, rng)}\n" for i in range(6)))
    paths = {name: tmp_path / name for name in ("c.fasta", "m.parquet", "r.tsv", "c.json", "c.arrow", "e.json")}

    def run(**more):
        options = EmbedOptions(folder, layers=(0, 1, 2), device="cpu", **more)
        chunk_samples([("s", fasta)], [paths["c.fasta"]], paths["m.parquet"], paths["r.tsv"], paths["c.json"])
        embed_fasta(paths["c.fasta"], paths["c.arrow"], paths["e.json"], options)
        merge_samples(paths["m.parquet"], {"s": tmp_path / "s.parquet"}, [paths["c.arrow"]])
        tables = tmp_path / "v.tsv", tmp_path / "v.json"
        sample = ("s", fasta, tmp_path / "s.parquet")
        return validate([sample], paths["m.parquet"], [paths["e.json"]], *tables, ValidationOptions(), options)

    return run


def test_validation_passes_where_the_loader_does_as_it_is_told(validated):
    assert validated()["worst_relative_l2"] < 2e-6


def eps_ignored(monkeypatch):
    read = folders.read_config

    def without(path):
        config = read(path)
        return replace(config, shape=replace(config.shape, layer_norm_eps=1e-5))

    monkeypatch.setattr(hugging_face, "read_config", without)


def token_dropout_taken_for_granted(monkeypatch):
    monkeypatch.setattr(folders, "truth_value", lambda where, field, value: True)


def order_of_tokens_ignored(monkeypatch):
    read = folders.read_config
    plain = list(range(len(TOKENS)))
    monkeypatch.setattr(hugging_face, "read_config", lambda path: replace(read(path), token_rows=plain))


def wrong_file_of_two(monkeypatch):
    monkeypatch.setattr(hugging_face, "weight_files", lambda path: WeightFiles([path / "model_epoch1.safetensors"]))


def names_mixed_up(monkeypatch):
    monkeypatch.setitem(names._LAYER, "attention.self.query", "self_attn.k_proj")
    monkeypatch.setitem(names._LAYER, "attention.self.key", "self_attn.q_proj")


BROKEN = [eps_ignored, token_dropout_taken_for_granted, order_of_tokens_ignored, wrong_file_of_two, names_mixed_up]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_validation_fails_where_the_loader_is_broken(validated, monkeypatch, broken):
    broken(monkeypatch)
    with pytest.raises(ValidationError, match="relative_l2 to the reference"):
        validated()


def assert_same(path, layers):
    (tokens,) = random_tokens([60], masked=(0,))
    want = reference_outputs(load_reference(path), tokens, layers)
    got = reference_outputs(load_esm2(path), tokens, layers)
    for layer in layers:
        assert relative_l2(got["representations"][layer], want["representations"][layer]) <= 2e-6
    assert relative_l2(got["logits"], want["logits"]) <= 2e-6


def test_a_pt_file_is_read_by_fair_esms_own_loader(tmp_path):
    import esm.pretrained

    base = random_esm2(num_layers=2, embed_dim=32, heads=2)
    path = save_fair_esm(base, tmp_path / "esm2_small.pt", contacts=True)
    theirs, _ = esm.pretrained.load_model_and_alphabet_core("esm2", torch.load(path, weights_only=False))
    ours = load_reference(path)
    assert all(torch.equal(one, theirs.state_dict()[name]) for name, one in ours.state_dict().items())
    assert_same(DEMO_PATH, [0, 6])
    save_esm1b(random_esm1b(num_layers=2, embed_dim=32, heads=2), tmp_path / "esm1b_small.pt")
    assert_same(tmp_path / "esm1b_small.pt", [0, 1, 2])


@pytest.mark.parametrize("save", [save_fair_esm, save_esm1b])
def test_where_head_and_embedding_differ_fair_esms_loader_decides(tmp_path, save):
    generation = random_esm2 if save is save_fair_esm else random_esm1b
    path = save(generation(num_layers=2, embed_dim=32, heads=2), tmp_path / "small.pt")
    data = torch.load(path, weights_only=False)
    name = "encoder.lm_head.weight"
    data["model"][name] = data["model"][name] + torch.randn(33, 32)
    torch.save(data, path)
    assert torch.equal(load_reference(path).embed_tokens.weight, data["model"][name])
    assert_same(path, [0, 1, 2])


def bare(model):
    return model.state_dict()


def bare_with_prefixes(model):
    return {f"encoder.sentence_encoder.{name}": one for name, one in model.state_dict().items() if "head" not in name}


def bare_of_transformers(model):
    import transformers

    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        position_embedding_type="rotary",
    )
    return transformers.EsmForMaskedLM(config).state_dict()


@pytest.mark.parametrize("form", [bare, bare_of_transformers], ids=lambda form: form.__name__)
def test_a_bare_dictionary_of_tensors_tells_its_shape(tmp_path, form):
    torch.save(form(random_esm2(num_layers=2, embed_dim=32, heads=2)), tmp_path / "bare.pt")
    model = load_esm2(tmp_path / "bare.pt")
    assert (model.num_layers, model.embed_dim, model.attention_heads, model.token_dropout) == (2, 32, 2, True)
    assert_same(tmp_path / "bare.pt", [0, 1, 2])


def test_a_bare_dictionary_equals_the_model_that_it_came_from(tmp_path):
    base = random_esm2(num_layers=2, embed_dim=32, heads=2)
    torch.save(base.state_dict(), tmp_path / "bare.pt")
    (tokens,) = random_tokens([50])
    want = reference_outputs(copy.deepcopy(base), tokens, [0, 1, 2])
    got = reference_outputs(load_reference(tmp_path / "bare.pt"), tokens, [0, 1, 2])
    assert torch.equal(got["logits"], want["logits"])


@pytest.mark.parametrize("form", ["ESM-2", "ESM-1b", "bare", "transformers"])
def test_a_tied_matrix_that_is_there_once_is_both(tmp_path, form):
    model, path = random_esm1b() if form == "ESM-1b" else random_esm2(), tmp_path / "once.pt"
    if form in ("ESM-2", "ESM-1b"):
        data = torch.load((save_esm1b if form == "ESM-1b" else save_fair_esm)(model, path), weights_only=False)
        del data["model"]["encoder.lm_head.weight"]
    else:
        data = hugging_face_tensors(model) if form == "transformers" else model.state_dict()
        data.pop("lm_head.weight", None)
    torch.save(data, path)
    one, other = load_reference(path), load_esm2(path)
    assert one.lm_head.weight.any()
    assert torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert torch.equal(one.embed_tokens.weight, other.embed_tokens.weight)


def test_a_pt_without_a_head_is_read_too(tmp_path):
    torch.save(bare_with_prefixes(random_esm2(num_layers=2, embed_dim=32, heads=2)), tmp_path / "bare.pt")
    cfg = argparse.Namespace(encoder_layers=2, encoder_embed_dim=32, encoder_attention_heads=2, token_dropout=True)
    torch.save({"cfg": {"model": cfg}, "model": torch.load(tmp_path / "bare.pt")}, tmp_path / "cfg.pt")
    (tokens,) = random_tokens([60])
    for name in ("bare.pt", "cfg.pt"):
        ours, reference = load_esm2(tmp_path / name), load_reference(tmp_path / name)
        assert ours.absent_heads == {"lm_head", "contact_head"}
        got, want = (reference_outputs(one, tokens, [0, 2])["representations"] for one in (ours, reference))
        assert torch.equal(got[2], want[2]) and torch.equal(got[0], want[0])


def test_tokens_are_those_of_fair_esms_batch_converter():
    sequence = "".join(TOKENS[4:31])
    assert reference_tokens(sequence).tolist() == tokenize(sequence).tolist()
    assert reference_tokens("M<mask>K").tolist() == [0, 20, 32, 15, 2]


def test_a_reference_whose_layers_are_streamed_gives_the_same_bits_and_each_layer_goes_home(monkeypatch):
    put, placed = reference_model._put, []
    monkeypatch.setattr(reference_model, "_put", lambda layer, *rest, **at: placed.append(layer) or put(layer, **at))
    model, tokens = random_esm2(3), reference_tokens("MKTAYIAKQRQISFVKSHFSRQ")
    streamed = stream_layers(copy.deepcopy(model), torch.device("cpu"))
    for map_bytes in (2**30, 0):  # whole attention maps, and blocks of queries
        options = {"layers": [0, 2, 3], "map_bytes": map_bytes}
        want, got = (reference_outputs(one, tokens, **options) for one in (model, streamed))
        assert all(torch.equal(want["representations"][x], got["representations"][x]) for x in (0, 2, 3))
        assert torch.equal(want["logits"], got["logits"])
    assert placed == [layer for _ in range(2) for layer in streamed.layers for _ in range(2)]
    want, got = (masked_logits(one, tokens, [3, 7], [0], len(tokens) - 2) for one in (model, streamed))
    assert np.array_equal(want, got)


def test_embeddings_of_streamed_weights_are_validated_with_either_and_the_reference_is_streamed_too(validated, caplog):
    copied = "its layers are copied for each sequence"
    assert validated(weights="streamed")["bit_equal"] and copied in caplog.text
    caplog.clear()
    assert validated()["bit_equal"] and copied not in caplog.text
