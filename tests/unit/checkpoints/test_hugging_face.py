"""Every form of Hugging Face folder gives what transformers gives for it, by the packed path and by the reference."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from checkpoint_files import (
    ABSENT,
    hugging_face_config,
    hugging_face_tensors,
    save_hugging_face,
    write_adapter,
    write_folder,
    write_vocabulary,
)
from conftest import random_esm2, random_sequence, relative_l2
from packed_esm.checkpoints.folders import TOKENS
from packed_esm.checkpoints.headers import checkpoint_files, checkpoint_sha256, layer_count
from packed_esm.checkpoints.heads import absent_heads, require_heads
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.checkpoints.registry import find_model, hub_snapshot, model_name
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import CheckpointError, OptionError
from packed_esm.model.esm2 import ESM2WithFlashAttention
from packed_esm.sequences.tokens import tokenize
from packed_esm.validation.reference import reference_outputs
from packed_esm.validation.reference_model import load_reference, reference_tokens
from safetensors.torch import load_file, save_file

os.environ["HF_HUB_OFFLINE"] = "1"
SEQUENCE = random_sequence(70, np.random.default_rng(3), "".join(TOKENS[4:29]))
SHUFFLED = (*TOKENS[:4], *sorted(TOKENS[4:24]), *TOKENS[24:])


@pytest.fixture
def base():
    model = random_esm2(num_layers=2, embed_dim=32, heads=2)
    for layer in model.layers:  # as in Meta's files
        layer.self_attn.rot_emb.inv_freq.copy_(layer.self_attn.rot_emb.inv_freq.half().float())
    return model


def by_transformers(folder, change=lambda model: None):
    """Return hidden states [T, E] of each layer, and logits, of transformers with the ids of its own tokenizer."""
    from transformers import EsmForMaskedLM, EsmTokenizer

    model = EsmForMaskedLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    change(model)
    vocabulary = folder / "vocab.txt"
    if not vocabulary.exists():
        vocabulary = folder.parent / "standard.txt"
        vocabulary.write_text("\n".join(TOKENS))
    ids = EsmTokenizer(str(vocabulary))(SEQUENCE, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        out = model.esm(ids, output_hidden_states=True)
        logits = model.lm_head(out.last_hidden_state)[0]
    of_tokens = [vocabulary.read_text().split("\n").index(token) for token in TOKENS]
    return [*(x[0] for x in out.hidden_states[:-1]), out.last_hidden_state[0]], logits[:, of_tokens]


def assert_equal_to_transformers(folder, change=lambda model: None, logits=True):
    states, want_logits = by_transformers(folder, change)
    layers = list(range(len(states)))
    packed = ESM2WithFlashAttention(load_esm2(folder), "cpu")
    tokens = torch.from_numpy(tokenize(SEQUENCE).astype(np.int64))
    cu_seqlens = torch.tensor([0, len(tokens)], dtype=torch.int32)
    ours = packed.forward_packed(tokens, cu_seqlens, len(tokens), layers, need_logits=True)
    reference = reference_outputs(load_reference(folder), reference_tokens(SEQUENCE), layers)
    for got in (ours, reference):
        for layer in layers:
            assert relative_l2(got["representations"][layer], states[layer]) <= 2e-6, layer
        if logits:
            assert relative_l2(got["logits"], want_logits) <= 2e-6


def of_version_4(base, folder):
    return save_hugging_face(base, folder)


def of_version_5(base, folder):
    tensors = hugging_face_tensors(base)
    shared = tensors["esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq"]
    tensors = {name: tensor for name, tensor in tensors.items() if "inv_freq" not in name}
    tensors["esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq"] = shared
    return write_folder(folder, tensors, hugging_face_config(base))


def of_version_5_by_its_own_hand(base, folder):
    from transformers import EsmForMaskedLM

    before = save_hugging_face(base, folder.with_name("before"))
    EsmForMaskedLM.from_pretrained(before, dtype=torch.float32).save_pretrained(folder)
    return folder


def frequency_of_the_model(base, folder):
    tensors = hugging_face_tensors(base)
    shared = tensors["esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq"]
    tensors = {name: tensor for name, tensor in tensors.items() if "inv_freq" not in name}
    return write_folder(folder, tensors | {"esm.rotary_embeddings.inv_freq": shared}, hugging_face_config(base))


def without_frequencies(base, folder, **config):
    tensors = {name: tensor for name, tensor in hugging_face_tensors(base).items() if "inv_freq" not in name}
    return write_folder(folder, tensors, hugging_face_config(base, **config))


def another_rope_theta(base, folder):
    return without_frequencies(base, folder, rope_theta=500.0)


def gamma_and_beta(base, folder):
    tensors = hugging_face_tensors(base)
    for ours, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        tensors = {name.replace(ours, old): tensor for name, tensor in tensors.items()}
    return write_folder(folder, tensors, hugging_face_config(base))


def small_weights(base):
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(0.05 if parameter.ndim == 2 else 1.0)
    return base


def large_eps(base, folder):
    return save_hugging_face(small_weights(base), folder, layer_norm_eps=1e-2)


def absent_eps(base, folder):
    return save_hugging_face(small_weights(base), folder, layer_norm_eps=ABSENT)


def absent_token_dropout(base, folder):
    return save_hugging_face(base, folder, token_dropout=ABSENT)


def no_token_dropout(base, folder):
    return save_hugging_face(base, folder, token_dropout=False)


def no_norm_before_as_null(base, folder):
    return save_hugging_face(base, folder, emb_layer_norm_before=None)


def another_order_of_tokens(base, folder):
    return write_vocabulary(save_hugging_face(base, folder), SHUFFLED)


def every_token_elsewhere(base, folder):
    config = {"mask_token_id": 0, "pad_token_id": 31}
    return write_vocabulary(save_hugging_face(base, folder, **config), TOKENS[::-1])


def added_tokens(base, folder):
    tensors = hugging_face_tensors(base)
    for name in ("esm.embeddings.word_embeddings.weight", "lm_head.bias"):
        tensors[name] = torch.cat([tensors[name], torch.ones_like(tensors[name][:3])])
    write_folder(folder, tensors, hugging_face_config(base, vocab_size=36))
    return write_vocabulary(folder, [*TOKENS, "<a>", "<b>", "<c>"])


def two_files(base, folder):
    tensors = hugging_face_tensors(base)
    write_folder(folder, {name: 0.5 * x for name, x in tensors.items()}, {}, "model_epoch1.safetensors")
    return write_folder(folder, tensors, hugging_face_config(base))


def in_pieces(base, folder, suffix="safetensors"):
    tensors = hugging_face_tensors(base)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    halves = [dict(list(tensors.items())[number::2]) for number in (0, 1)]
    for name, half in zip(names, halves, strict=True):
        write_folder(folder, half, hugging_face_config(base), name)
    index = {"weight_map": {key: name for name, half in zip(names, halves, strict=True) for key in half}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}} | index))
    save_file({"other": torch.ones(3)}, folder / "another.safetensors")  # not in the index
    return folder


def pickle(base, folder):
    return write_folder(folder, hugging_face_tensors(base), hugging_face_config(base), "pytorch_model.bin")


def pickles_in_pieces(base, folder):
    return in_pieces(base, folder, "bin")


def half_precision(base, folder):
    tensors = {name: tensor.half() for name, tensor in hugging_face_tensors(base).items()}
    return write_folder(folder, tensors, hugging_face_config(base))


def another_matrix_in_the_head(base, folder):
    tensors = hugging_face_tensors(base)
    tensors["lm_head.decoder.weight"] = torch.randn(33, 32)
    return write_folder(folder, tensors, hugging_face_config(base, tie_word_embeddings=False))


WITH_LM_HEAD = [
    of_version_4,
    of_version_5,
    of_version_5_by_its_own_hand,
    frequency_of_the_model,
    without_frequencies,
    another_rope_theta,
    gamma_and_beta,
    large_eps,
    absent_eps,
    absent_token_dropout,
    no_token_dropout,
    no_norm_before_as_null,
    another_order_of_tokens,
    every_token_elsewhere,
    added_tokens,
    two_files,
    in_pieces,
    pickle,
    pickles_in_pieces,
    half_precision,
    another_matrix_in_the_head,
]


@pytest.mark.parametrize("form", WITH_LM_HEAD, ids=lambda form: form.__name__)
def test_a_folder_gives_what_transformers_gives(base, tmp_path, form):
    assert_equal_to_transformers(form(base, tmp_path / "hf"))


def only_the_trunk(base, folder):
    tensors = hugging_face_tensors(base)
    trunk = {name.removeprefix("esm."): x for name, x in tensors.items() if name.startswith("esm.")}
    return write_folder(folder, trunk, hugging_face_config(base, architectures=["EsmModel"]))


def with_a_pooler(base, folder):
    tensors = load_file(only_the_trunk(base, folder) / "model.safetensors")
    pooler = {"pooler.dense.weight": torch.randn(32, 32), "pooler.dense.bias": torch.randn(32)}
    return write_folder(folder, tensors | pooler, hugging_face_config(base))


def saved_by_its_class(name):
    def form(base, folder):
        import transformers

        before = save_hugging_face(base, folder.with_name("before"))
        getattr(transformers, name).from_pretrained(before, dtype=torch.float32).save_pretrained(folder)
        return folder

    form.__name__ = name
    return form


OTHER_HEADS = ("EsmForSequenceClassification", "EsmForTokenClassification")
WITHOUT = [only_the_trunk, with_a_pooler, *map(saved_by_its_class, (*OTHER_HEADS, "EsmModel"))]


@pytest.mark.parametrize("form", WITHOUT, ids=lambda form: form.__name__)
def test_a_model_without_a_language_model_head_embeds_as_transformers_does(base, tmp_path, caplog, form):
    folder = form(base, tmp_path / "hf")
    caplog.set_level(logging.INFO)
    model = load_esm2(folder)
    assert absent_heads(model) == {"lm_head"}
    assert caplog.text.count("tensors of another head") == (form.__name__ not in ("only_the_trunk",))
    assert_equal_to_transformers(folder, logits=False)
    require_heads(model, ["contacts"], folder)
    for name in ("logits", "log_likelihood"):
        with pytest.raises(
            OptionError, match=f"include: {name} needs a language-model head .*hf has none; remove it from include"
        ):
            require_heads(model, [name], folder)
    packed = ESM2WithFlashAttention(model, "cpu")
    tokens = torch.tensor([0, 5, 6, 2])
    out = packed.forward_packed(tokens, torch.tensor([0, 4], dtype=torch.int32), 4, need_logits=True)
    assert out["logits"].isnan().all()  # nobody takes them for values


def test_added_tokens_are_said(base, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    load_esm2(added_tokens(base, tmp_path / "hf"))
    assert "3 rows of the embedding belong to added tokens and are not used" in caplog.text


def lora(base):
    """Return the tensors of a LoRA of rank 4 on the queries and values of a model, by their modules."""
    torch.manual_seed(5)
    found = {}
    for index in range(base.num_layers):
        for module in ("query", "value"):
            name = f"encoder.layer.{index}.attention.self.{module}"
            found[f"{name}.lora_A.weight"] = torch.randn(4, 32) / 6
            found[f"{name}.lora_B.weight"] = torch.randn(32, 4) / 8
    return found


def add_by_hooks(tensors, scale):
    """Return a function that lets a transformers model add s B A x where the adapter does, unmerged."""

    def change(model):
        for name, module in model.esm.named_modules():
            if f"{name}.lora_A.weight" in tensors:
                a, b = (tensors[f"{name}.lora_{letter}.weight"] for letter in "AB")
                module.register_forward_hook(lambda _, args, out, a=a, b=b: out + scale * (args[0] @ a.T @ b.T))

    return change


@pytest.mark.parametrize(("config", "scale"), [({}, 4.0), ({"use_rslora": True}, 8.0), ({"lora_alpha": 8}, 2.0)])
def test_a_lora_adapter_is_merged_into_its_base(base, tmp_path, config, scale):
    tensors = lora(base)
    whole = save_hugging_face(base, tmp_path / "whole")
    folder = write_adapter(tmp_path / "adapter", whole, tensors, **config)
    states, _ = by_transformers(whole, add_by_hooks(tensors, scale))
    plain, _ = by_transformers(whole)
    assert relative_l2(plain[2], states[2]) > 1e-2
    reference = reference_outputs(load_reference(folder), reference_tokens(SEQUENCE), [0, 1, 2])["representations"]
    ours = reference_outputs(load_esm2(folder), reference_tokens(SEQUENCE), [0, 1, 2])["representations"]
    for layer in (0, 1, 2):
        assert relative_l2(ours[layer], states[layer]) <= 2e-6
        assert relative_l2(reference[layer], states[layer]) <= 2e-6
    assert layer_count("x", folder) == 2
    names = [path.name for path in checkpoint_files(folder)]
    assert names == ["adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors"]


def test_an_adapter_whose_base_is_missing_or_another_is_refused_by_name(base, tmp_path):
    whole = save_hugging_face(base, tmp_path / "whole")
    for config, message in (
        ({"base_model_name_or_path": "facebook/esm2_x"}, "adapter of facebook/esm2_x, .*hf download facebook/esm2_x"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path does not name"),
        ({"use_dora": True}, "use_dora is True; only False"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"alpha_pattern": {"query": 3}}, "alpha_pattern is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"r": 8}, "r is 8, but lora_A of .* has 4 rows"),
        ({"lora_alpha": "x"}, "lora_alpha is 'x', not a number above 0"),
    ):
        folder = write_adapter(tmp_path / "adapter", whole, lora(base), **config)
        with pytest.raises(CheckpointError, match=message):
            load_esm2(folder)
        shutil.rmtree(folder)
    for name, tensor in (
        ("encoder.layer.7.attention.self.query.lora_A.weight", torch.ones(4, 32)),
        ("x", torch.ones(1)),
    ):
        folder = write_adapter(tmp_path / "adapter", whole, lora(base) | {name: tensor})
        with pytest.raises(CheckpointError, match="belongs to another base"):
            load_esm2(folder)
        shutil.rmtree(folder)
    shutil.copy(write_adapter(tmp_path / "adapter", whole, {}) / "adapter_config.json", whole)
    with pytest.raises(CheckpointError, match="an adapter .* and a whole model"):
        load_esm2(whole)


def cached(model_id, tmp_path, monkeypatch):
    """Let the Hugging Face cache be in `tmp_path`, and return where a snapshot of a model is to stand."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / f"models--{model_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots").mkdir()
    return repository / "snapshots" / "c0ffee"


def test_an_id_means_its_snapshot_in_the_cache(base, tmp_path, monkeypatch):
    snapshot = cached("lab/esm2_small", tmp_path, monkeypatch)
    with pytest.raises(OptionError, match="not in Hugging Face's cache .*hf download lab/esm2_small"):
        find_model("lab/esm2_small")
    save_hugging_face(base, snapshot)
    assert find_model("lab/esm2_small") == snapshot == hub_snapshot("lab/esm2_small", "c0ffee")
    assert model_name(snapshot) == "esm2_small" and model_name(tmp_path / "hf") == "hf"
    assert load_esm2(find_model("lab/esm2_small")).num_layers == 2
    with pytest.raises(OptionError, match="model: esm2_t6_8M_UR50D fetches it from Meta"):
        find_model("facebook/esm2_t6_8M_UR50D")
    adapter = write_adapter(tmp_path / "adapter", "lab/esm2_small", lora(base))
    assert load_esm2(adapter).num_layers == load_reference(adapter).num_layers == 2


@pytest.mark.parametrize("variable", ["HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_cache_is_where_hugging_face_has_it(tmp_path, monkeypatch, variable):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub", "HOME": ".cache/huggingface/hub"}[variable]
    snapshot = tmp_path / below / "models--lab--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert hub_snapshot("lab/x", "abc") == snapshot and hub_snapshot("lab/y") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"position_embedding_type": ABSENT}, "position_embedding_type is 'absolute' .the default of transformers"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"is_folding_model": True}, "is_folding_model is True"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling is"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters is"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        ({"intermediate_size": 64}, "intermediate_size is 64"),
        ({"head_dim": 8}, "head_dim is 8"),
        ({"mask_token_id": 31}, "mask_token_id is 31, but <mask> is 32"),
        ({"pad_token_id": 0}, "pad_token_id is 0, but <pad> is 1"),
        ({"vocab_size": 30}, "vocab_size is 30, but the embedding has 33 rows"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"token_dropout": "yes"}, "token_dropout is 'yes', not true or false"),
    ],
)
def test_a_field_whose_value_is_not_handled_is_refused_by_name(base, tmp_path, config, message):
    with pytest.raises(CheckpointError, match=message):
        load_esm2(save_hugging_face(base, tmp_path / "hf", **config))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (TOKENS[:-1], "'<mask>' occurs 0 times"),
        ((*TOKENS[:-1], "L"), "'L' occurs 2 times"),
        (("<a>", *TOKENS), "mask_token_id is 32, but <mask> is 33"),
    ],
)
def test_a_vocabulary_that_is_no_permutation_is_refused(base, tmp_path, tokens, message):
    folder = write_vocabulary(save_hugging_face(base, tmp_path / "hf"), tokens)
    with pytest.raises(CheckpointError, match=message):
        load_esm2(folder)


def test_the_vocabulary_of_a_tokenizer_json_counts_where_there_is_no_vocab_txt(base, tmp_path):
    by_text = another_order_of_tokens(base, tmp_path / "text")
    folder = save_hugging_face(base, tmp_path / "json")
    vocabulary = {token: index for index, token in enumerate(SHUFFLED)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    want = load_esm2(by_text).embed_tokens.weight
    assert torch.equal(load_esm2(folder).embed_tokens.weight, want) and not torch.equal(want, base.embed_tokens.weight)
    assert torch.equal(load_reference(folder).embed_tokens.weight, want)
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [1]}}))
    with pytest.raises(CheckpointError, match="it has no vocabulary"):
        load_esm2(folder)


def test_weights_that_contradict_each_other_are_refused_by_name(base, tmp_path):
    folder = two_files(base, tmp_path / "hf")
    (folder / "model.safetensors").rename(folder / "model_epoch2.safetensors")
    for read in (load_esm2, checkpoint_files):
        with pytest.raises(CheckpointError, match="2 files of weights .*model_epoch1.*, and no index"):
            read(folder)
    pieces = in_pieces(base, tmp_path / "pieces")
    shutil.copy(folder / "model_epoch2.safetensors", pieces / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"model.safetensors and model.safetensors.index.json name different weights"
    ):
        load_esm2(pieces)
    (pieces / "model.safetensors").unlink()
    (pieces / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="it names model-00002-of-00002.safetensors, which is missing"):
        checkpoint_files(pieces)
    (pieces / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../hf/model_epoch1.safetensors"}}')
    with pytest.raises(CheckpointError, match="does not name files of this folder"):
        load_esm2(pieces)


def test_the_digest_covers_exactly_the_files_that_are_read(base, tmp_path):
    folder = write_vocabulary(two_files(base, tmp_path / "hf"), TOKENS)
    assert [path.name for path in checkpoint_files(folder)] == ["config.json", "vocab.txt", "model.safetensors"]
    before = checkpoint_sha256(folder)
    (folder / "model_epoch1.safetensors").write_bytes(b"")
    (folder / "README.md").write_text("x")
    assert checkpoint_sha256(folder) == before
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        assert checkpoint_sha256(folder) != before, name
        (folder / name).write_bytes(content)
    pieces = in_pieces(base, tmp_path / "pieces")
    names = [path.name for path in checkpoint_files(pieces)]
    assert names[:2] == ["config.json", "model.safetensors.index.json"] and len(names) == 4


def test_a_folder_without_config_or_weights_has_no_files(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no config.json"):
        checkpoint_files(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="it has no weights"):
        checkpoint_files(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint_files(tmp_path / "nowhere")


def test_an_embedder_needs_a_head_only_for_what_a_head_gives(base, tmp_path, monkeypatch):
    snapshot = cached("lab/esm2_small", tmp_path, monkeypatch)
    tensors = hugging_face_tensors(base)
    trunk = {name: x for name, x in tensors.items() if not name.startswith(("lm_head", "esm.contact_head"))}
    write_folder(snapshot, trunk, hugging_face_config(base))
    embedder = Embedder(EmbedOptions(snapshot, layers=(1, 2), device="cpu"))
    assert embedder.settings["model"] == "esm2_small"
    assert embedder.embed([tokenize("MKV")]).columns["mean_2"].shape == (1, 32)
    for name, head in (("log_likelihood", "language-model"), ("logits", "language-model"), ("contacts", "contact")):
        with pytest.raises(OptionError, match=f"include: {name} needs a {head} head"):
            Embedder(EmbedOptions(snapshot, include=(name,), device="cpu"))
