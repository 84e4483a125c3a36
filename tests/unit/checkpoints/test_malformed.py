"""A malformed checkpoint stops in one line that names what is wrong, before anything of its sizes is built."""

import argparse
import json
import struct
import time
import tracemalloc
import zipfile

import pytest
import torch
from checkpoint_files import ABSENT, save_esm1b, save_fair_esm, save_hugging_face
from conftest import random_esm1b, random_esm2
from packed_esm.checkpoints.headers import MAX_PICKLE_BYTES, layer_count
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.errors import CheckpointError
from safetensors.torch import load_file, save_file

NAN = float("nan")


@pytest.fixture(scope="module")
def base():
    return random_esm2(num_layers=2, embed_dim=32, heads=2)


def refused(path, message):
    """See that a checkpoint is refused in one line, at once, and without much memory."""
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=message) as error:
        load_esm2(path)
    assert time.monotonic() - start < 20
    assert len(str(error.value).splitlines()) == 1 and str(path.parent) in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_attention_heads", 0, "num_attention_heads is 0, not a whole number"),
        ("num_attention_heads", None, "num_attention_heads is None"),
        ("num_attention_heads", True, "num_attention_heads is True"),
        ("num_attention_heads", [2], r"num_attention_heads is \[2\]"),
        ("num_attention_heads", 3, "num_attention_heads is 3, which does not divide 32"),
        (
            "num_attention_heads",
            4,
            "num_attention_heads is 4, so layers.0.self_attn.rot_emb.inv_freq should have 4",
        ),
        ("num_attention_heads", 32, "num_attention_heads is 32, which gives heads of width 1"),
        ("hidden_size", "8", "hidden_size is '8', not a whole number"),
        ("hidden_size", 1e6, "hidden_size is 1000000.0"),
        ("hidden_size", 10**6, "hidden_size is 1000000, not a whole number from 1 to 100000"),
        ("hidden_size", 64, "hidden_size is 64, but its tensors are 32 wide"),
        ("hidden_size", -32, "hidden_size is -32"),
        ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000, not a whole number from 1 to 1000"),
        ("num_hidden_layers", 900, "num_hidden_layers is 900, but it has tensors of 2 layers"),
        ("num_hidden_layers", NAN, "num_hidden_layers is nan"),
        ("num_hidden_layers", {"a": 1}, "num_hidden_layers is {'a': 1}"),
        ("num_hidden_layers", ABSENT, "it has no num_hidden_layers"),
        ("layer_norm_eps", NAN, "layer_norm_eps is nan, not a number above 0"),
        ("layer_norm_eps", "1e-5", "layer_norm_eps is '1e-5'"),
        ("layer_norm_eps", -1e-5, "layer_norm_eps is -1e-05"),
        ("layer_norm_eps", None, "layer_norm_eps is None"),
        ("rope_theta", 0, "rope_theta is 0, not a number above 0"),
        ("vocab_size", -33, "vocab_size is -33"),
        ("model_type", 5, "model_type is 5"),
        ("intermediate_size", "x", "intermediate_size is 'x'"),
    ],
)
def test_a_field_of_config_json_that_makes_no_sense_is_named(base, tmp_path, field, value, message):
    changes = {"intermediate_size": ABSENT} | {field: value}
    refused(save_hugging_face(base, tmp_path / "hf", **changes), message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"", "config.json: not JSON"),
        ("config.json", b"[" * 100_000, "config.json: not JSON"),
        ("config.json", b'{"hidden_size": ' + b"9" * 5000 + b"}", "config.json: not JSON"),
        ("config.json", b"\xff\xfe", "config.json: not UTF-8 text"),
        ("config.json", b"3", "config.json: not a JSON object"),
        ("vocab.txt", b"\xff", "vocab.txt: not UTF-8 text"),
        ("model.safetensors.index.json", b'{"weight_map": [1]}', "its weight_map does not name files"),
        ("model.safetensors", b"\xff" * 100, "model.safetensors: not a complete safetensors file"),
        ("model.safetensors", b"", "model.safetensors: not a complete safetensors file"),
    ],
)
def test_a_file_of_a_folder_that_is_damaged_is_named(base, tmp_path, name, content, message):
    folder = save_hugging_face(base, tmp_path / "hf")
    (folder / name).write_bytes(content)
    refused(folder, message)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("encoder_layers", "2", "encoder_layers is '2', not a whole number"),
        ("encoder_layers", 10**9, "encoder_layers is 1000000000"),
        ("encoder_layers", 3, "encoder_layers is 3, but it has tensors of 2 layers"),
        ("encoder_layers", torch.ones(2), r"encoder_layers is tensor"),
        ("encoder_embed_dim", None, "encoder_embed_dim is None"),
        ("encoder_embed_dim", 10**6, "encoder_embed_dim is 1000000"),
        ("encoder_embed_dim", 10**4, "encoder_embed_dim is 10000, but its tensors are 32 wide"),
        ("encoder_attention_heads", 0, "encoder_attention_heads is 0"),
        ("encoder_attention_heads", -2, "encoder_attention_heads is -2"),
        ("encoder_attention_heads", ABSENT, "its `cfg` has no encoder_attention_heads"),
        ("token_dropout", 3, "token_dropout is 3, not true or false"),
    ],
)
def test_a_field_of_cfg_that_makes_no_sense_is_named(base, tmp_path, field, value, message):
    path = save_fair_esm(base, tmp_path / "esm2_bad.pt")
    data = torch.load(path, weights_only=False)
    if value is ABSENT:
        delattr(data["cfg"]["model"], field)
    else:
        setattr(data["cfg"]["model"], field, value)
    torch.save(data, path)
    refused(path, message)


EMBEDDING = "encoder.sentence_encoder.embed_tokens.weight"
CONTACTS = "encoder.contact_head.regression.weight"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (CONTACTS, [0.1, 0.2, 0.3, 0.4], f"{CONTACTS} is a list, not a tensor"),
        (CONTACTS, torch.ones(1, 9), r"contact_head.regression.weight is of shape \[1, 9\], not \[1, 4\]"),
        (EMBEDDING, None, "do not contain an embedding of tokens|missing"),
        (EMBEDDING, torch.ones(5), "do not contain an embedding of tokens"),
        (EMBEDDING, torch.ones(33, 32).to_sparse(), "is a sparse, quantised or complex tensor"),
        (EMBEDDING, torch.ones(33, 32, dtype=torch.int8), "embed_tokens.weight is of torch.int8"),
        ("encoder.sentence_encoder.layers.1.fc1.weight", torch.ones(3), r"layers.1.fc1.weight is of shape \[3\]"),
        ("encoder.sentence_encoder.layers.1.fc1.weight", None, "layers.1.fc1.weight is missing"),
        ("encoder.sentence_encoder.layers.99999999999.fc1.weight", torch.ones(3), "extra tensors"),
        (7, torch.ones(3), "7 is a Tensor, not a tensor|7 "),
    ],
)
def test_a_tensor_of_a_pt_that_makes_no_sense_is_named(base, tmp_path, name, value, message):
    path = save_fair_esm(base, tmp_path / "esm2_bad.pt")
    data = torch.load(path, weights_only=False)
    del data["model"]["encoder.lm_head.weight"]
    data["model"][name] = value
    if value is None:
        del data["model"][name]
    torch.save(data, path)
    refused(path, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not an ESM-2, ESM-1b or ESM-1v checkpoint"),
        ({}, "not an ESM-2, ESM-1b or ESM-1v checkpoint"),
        ({"weight": torch.ones(3)}, "not an ESM-2, ESM-1b or ESM-1v checkpoint"),
        ({"cfg": None, "model": {"a": torch.ones(1)}}, "its `cfg` has no shape of a model"),
        ({"cfg": {"model": {"encoder_layers": 2}}, "model": {"a": torch.ones(1)}}, "its `cfg` has no shape"),
        ({"cfg": {"model": argparse.Namespace()}, "model": [1]}, "not a dictionary of tensors"),
        ({"args": argparse.Namespace(), "model": {"a": torch.ones(1)}}, "its architecture is None"),
        ({"args": argparse.Namespace(arch="roberta_large"), "model": {"a": torch.ones(1)}}, "its `args` has no layers"),
        ({"embed_tokens.weight": torch.ones(33, 8)}, "without rotary frequencies"),
        ({"embed_tokens.weight": torch.ones(33, 8), "inv_freq": torch.ones(9)}, "is 0, not a whole number"),
        ({"embed_tokens.weight": torch.ones(20, 8), "inv_freq": torch.ones(4)}, "num_layers is 0"),
    ],
)
def test_a_pt_of_another_kind_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pt")
    refused(tmp_path / "other.pt", message)


@pytest.mark.parametrize("field", ["max_positions", "ffn_embed_dim"])
def test_a_size_of_an_esm1b_that_its_tensors_do_not_have_is_refused(tmp_path, field):
    path = save_esm1b(random_esm1b(num_layers=2, embed_dim=32, heads=2), tmp_path / "esm1b_bad.pt")
    data = torch.load(path, weights_only=False)
    name = field if field == "max_positions" else f"encoder_{field}"
    setattr(data["args"], name, 10**7)
    torch.save(data, path)
    refused(path, "as the sizes in the checkpoint require")


def test_tensors_of_an_esm1b_without_its_args_are_refused_with_how_to_save_them(tmp_path):
    torch.save(random_esm1b(num_layers=1, embed_dim=32, heads=2).state_dict(), tmp_path / "bare.pt")
    refused(tmp_path / "bare.pt", r"bare\.pt: the tensors of an ESM-1b .* save {'args': model.args")


@pytest.mark.parametrize("prefix", ["model.", "module.esmc."])
def test_tensors_with_a_prefix_are_refused_with_what_to_do(base, tmp_path, prefix):
    torch.save({prefix + name: one for name, one in base.state_dict().items()}, tmp_path / "bare.pt")
    refused(
        tmp_path / "bare.pt", r"bare\.pt: .* no tensors with the names of one, without a prefix\); use a file esm2_"
    )


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("position_embedding_type", "absolute", "an ESM-1b or ESM-1v is read from the .pt of fair-esm"),
        ("quantization_config", {"load_in_8bit": True}, "save the model before quantisation"),
        ("hidden_act", "relu", "use an ESM-2 that has the latter"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 5.0}, "rope_type 'default' with rope_theta 10000.0"),
        ("num_hidden_layers", 3, "tensors of 2 layers; one of both is of another model: fetch it again"),
    ],
)
def test_a_config_that_does_not_fit_says_what_to_do(base, tmp_path, field, value, remedy):
    refused(save_hugging_face(base, tmp_path / "hf", **{field: value}), f"{field} is .*{remedy}")


@pytest.mark.parametrize(
    "content", [[1], {"model": {"contact_head.regression.weight": [1.0]}}, {"model": {"x": torch.ones(1)}}]
)
def test_a_contact_head_beside_that_is_none_is_refused(base, tmp_path, content):
    path = save_fair_esm(base, tmp_path / "esm2_small.pt")
    torch.save(content, tmp_path / "esm2_small-contact-regression.pt")
    refused(path, "esm2_small-contact-regression.pt: ")


def test_two_names_of_one_tensor_are_refused(base, tmp_path):
    folder = save_hugging_face(base, tmp_path / "hf")
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] = torch.ones(33, 32)
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "are two names of one tensor")


def zip_with(path, name, size, declared=None):
    """Write a zip with a record of zeros; let it declare another size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as record:
        for _ in range(size >> 20):
            record.write(bytes(2**20))
    if declared is not None:
        content = bytearray(path.read_bytes())
        central = content.rindex(b"PK\x01\x02")
        content[central + 24 : central + 28] = struct.pack("<I", declared)
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "declared", "message"),
    [
        ("x/data.pkl", None, "its x/data.pkl would take 104857600 bytes when inflated, more than 64000000"),
        ("data.pkl", None, "its data.pkl would take"),
        ("x/data.pkl", 1000, "a damaged PyTorch checkpoint"),
        ("x/data/0", None, "its x/data/0 would take"),
    ],
)
def test_a_record_that_inflates_beyond_measure_is_refused_before_it_does(tmp_path, name, declared, message):
    path = zip_with(tmp_path / "bomb.pt", name, 100 * 2**20, declared)
    for read in (load_esm2, lambda path: layer_count("x", path)):
        tracemalloc.start()
        with pytest.raises(CheckpointError, match=message):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MAX_PICKLE_BYTES


def test_the_number_of_layers_is_refused_where_it_makes_no_sense(base, tmp_path):
    folder = save_hugging_face(base, tmp_path / "hf", num_hidden_layers=10**9)
    with pytest.raises(CheckpointError, match="num_hidden_layers is 1000000000"):
        layer_count("x", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "esm"}))
    with pytest.raises(CheckpointError, match="position_embedding_type is 'absolute'"):
        layer_count("x", folder)
