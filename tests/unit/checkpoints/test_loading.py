"""Checkpoints: both formats read back equal, damaged and foreign ones are refused by name, no pickle runs."""

import argparse
import copy
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import hugging_face_config, hugging_face_tensors, save_fair_esm, save_hugging_face, write_folder
from conftest import fair_esm_alone, random_esm2, random_tokens, relative_l2
from packed_esm.checkpoints.fair_esm import require_fair_esm
from packed_esm.checkpoints.headers import checkpoint_sha256, layer_count
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.checkpoints.registry import DEMO_PATH, find_model, hub_path, shape_of
from packed_esm.errors import CheckpointError
from packed_esm.families import MODELS
from packed_esm.model.esm2 import ESM2WithFlashAttention
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode


@pytest.fixture
def base():
    model = random_esm2(num_layers=2, embed_dim=32, heads=2)
    for layer in model.layers:  # as in Meta's files
        layer.self_attn.rot_emb.inv_freq.copy_(layer.self_attn.rot_emb.inv_freq.half().float())
    return model


def assert_same_model(loaded, base):
    (tokens,) = random_tokens([60], masked=(0,))
    want = fair_esm_alone(copy.deepcopy(base), tokens, [0, 1, 2])
    got = fair_esm_alone(loaded, tokens, [0, 1, 2])
    assert all(torch.equal(got[layer], want[layer]) for layer in want)


def test_both_formats_give_the_model_that_was_saved(base, tmp_path):
    assert_same_model(load_esm2(save_fair_esm(base, tmp_path / "esm2_small.pt")), base)
    assert_same_model(load_esm2(save_hugging_face(base, tmp_path / "hf")), base)


def test_a_hugging_face_folder_embeds_as_the_fair_esm_file_to_the_bit(base, tmp_path):
    """Row 15: names mapped, and the frequencies of the file taken."""
    (tokens,) = random_tokens([300])
    out = []
    for path in (save_fair_esm(base, tmp_path / "esm2_small.pt"), save_hugging_face(base, tmp_path / "hf")):
        model = ESM2WithFlashAttention(load_esm2(path), "cpu")
        input_ids = torch.from_numpy(tokens.astype(np.int64))
        cu_seqlens = torch.tensor([0, len(tokens)], dtype=torch.int32)
        out.append(model.forward_packed(input_ids, cu_seqlens, len(tokens))["representations"][2])
    assert torch.equal(*out)


def test_weights_in_half_precision_are_read_as_fp32(base, tmp_path):
    model = load_esm2(save_fair_esm(copy.deepcopy(base).half(), tmp_path / "esm2_half.pt"))
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_the_contact_head_comes_from_the_file_beside(base, tmp_path):
    path = save_fair_esm(base, tmp_path / "esm2_small.pt")
    weights = {
        "contact_head.regression.weight": torch.ones(1, 4),
        "contact_head.regression.bias": torch.ones(1),
    }
    torch.save({"model": weights}, tmp_path / "esm2_small-contact-regression.pt")
    assert torch.equal(load_esm2(path).contact_head.regression.weight, torch.ones(1, 4))


def test_missing_frequencies_are_computed_as_transformers_does_and_said(base, tmp_path, caplog):
    folder = save_hugging_face(base, tmp_path / "hf")
    state = {k: v for k, v in load_file(folder / "model.safetensors").items() if "inv_freq" not in k}
    save_file(state, folder / "model.safetensors")
    model = load_esm2(folder)
    assert torch.equal(
        model.layers[1].self_attn.rot_emb.inv_freq, 1.0 / (10000 ** (torch.arange(0, 16, 2).float() / 16))
    )
    assert "2 layers without rotary frequencies" in caplog.text


class Payload:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"cfg": Payload(), "model": {}}, "evil.pt")
    Path("evil_old.pt").write_bytes(pickle.dumps({"model": Payload()}))
    for name in ("evil.pt", "evil_old.pt"):
        with pytest.raises(CheckpointError, match=f"{name}: refused"):
            load_esm2(name)
    assert not Path("pwned").exists()


def test_truncated_and_foreign_files_say_so(base, tmp_path):
    path = save_fair_esm(base, tmp_path / "esm2_small.pt")
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:20000])
    (tmp_path / "text.pt").write_text("MKV\n" * 100)
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"weights": torch.ones(3)}, tmp_path / "other.pt")
    torch.save({"cfg": {}, "model": {}}, tmp_path / "no_shape.pt")
    torch.save({"cfg": {"model": argparse.Namespace(arch="esm1b")}, "model": {}}, tmp_path / "esm1.pt")
    for name in ("cut.pt", "text.pt", "empty.pt", "other.pt", "no_shape.pt", "esm1.pt"):
        with pytest.raises(CheckpointError, match=name):
            load_esm2(tmp_path / name)
    folder = save_hugging_face(base, tmp_path / "hf")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"model.safetensors: not a complete safetensors file"):
        load_esm2(folder)


def test_missing_extra_and_misshapen_tensors_are_named(base, tmp_path):
    name = "encoder.sentence_encoder.layers.1.fc1.bias"
    for problem, change in (
        ("1 missing tensors .* layers.1.fc1.bias", {name: None}),
        ("1 extra tensors .* layers.1.fc1.scale", {name.replace("bias", "scale"): torch.ones(128)}),
        ("1 misshapen tensors .* layers.1.fc1.bias", {name: torch.ones(3)}),
    ):
        with pytest.raises(CheckpointError, match=problem) as error:
            load_esm2(save_fair_esm(base, tmp_path / "esm2_bad.pt", **change))
        assert ("fetch it again" in str(error.value)) == ("extra" not in problem)  # one that holds more is not damaged


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, r"model_type is 'bert'; known are 'esm' \(ESM-2\), .*'esmc' \(ESM C\)"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute', not 'rotary'"),
        ({"emb_layer_norm_before": True}, "emb_layer_norm_before is True"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, but it has tensors of 2 layers"),
    ],
)
def test_a_folder_that_is_no_esm2_says_why(base, tmp_path, config, message):
    with pytest.raises(CheckpointError, match=message):
        load_esm2(save_hugging_face(base, tmp_path / "hf", **config))


def test_one_file_of_a_folder_is_refused_with_the_folder_to_give(base, tmp_path):
    """Some versions of torch.load read it, but not what config.json says about it."""
    folder = save_hugging_face(base, tmp_path / "hf", layer_norm_eps=1e-2)
    for name in ("model.safetensors", "config.json"):
        for read in (load_esm2, lambda path: layer_count(str(path), path)):
            with pytest.raises(
                CheckpointError, match=f"{name} is one file of a Hugging Face folder.*; give the folder, .*hf$"
            ):
                read(folder / name)


def test_folders_without_weights_or_config_say_what_is_missing(base, tmp_path):
    folder = save_hugging_face(base, tmp_path / "hf")
    (folder / "model.safetensors").rename(folder / "model.gguf")
    with pytest.raises(CheckpointError, match="it has no weights; model.safetensors or pytorch_model.bin is missing"):
        load_esm2(folder)
    (folder / "model.gguf").rename(folder / "model.safetensors")
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="config.json: not a JSON object"):
        load_esm2(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_esm2(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="no config.json"):
        load_esm2(folder)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_esm2(tmp_path / "nowhere.pt")


def test_sha256_of_a_folder_changes_with_any_of_its_files(base, tmp_path):
    folder = save_hugging_face(base, tmp_path / "hf")
    before = checkpoint_sha256(folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert checkpoint_sha256(folder) != before


def test_models_are_found_by_name_and_path(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_model("demo") == DEMO_PATH and DEMO_PATH.exists()
    assert find_model("esm2_t6_8M_UR50D") == tmp_path / "hub/checkpoints/esm2_t6_8M_UR50D.pt"
    assert hub_path("x") == Path(torch.hub.get_dir()) / "checkpoints" / "x.pt"
    assert find_model("some/folder/of/mine") == Path("some/folder/of/mine")
    with pytest.raises(ValueError, match="model: 'esm2_8M' is neither a known name .* esm2_t6_8M_UR50D"):
        find_model("esm2_8M")
    assert shape_of("/data/esm2_t36_3B_UR50D.pt") == MODELS["esm2_t36_3B_UR50D"]


def test_the_other_package_of_the_same_name_is_noticed(tmp_path, monkeypatch):
    package = tmp_path / "esm"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in list(__import__("sys").modules) if n == "esm" or n.startswith("esm.")]:
        monkeypatch.delitem(__import__("sys").modules, name)
    with pytest.raises(ImportError, match="EvolutionaryScale.*pip uninstall esm && pip install --force-reinstall"):
        require_fair_esm()
    shutil.rmtree(package)


WEIGHTS = os.environ.get("PACKED_ESM_WEIGHTS", "")


@pytest.mark.parametrize(("golden", "name"), [("8m", "esm2_t6_8M_UR50D"), ("35m", "esm2_t12_35M_UR50D")])
def test_genuine_weights_give_the_published_hidden_states(shared, golden, name):
    """Set PACKED_ESM_WEIGHTS to a folder with the .pt files (or Hugging Face folders) to run this."""
    path = next((p for p in (Path(WEIGHTS) / f"{name}.pt", Path(WEIGHTS) / name) if WEIGHTS and p.exists()), None)
    if path is None:
        pytest.skip(f"needs {name}.pt in the folder that PACKED_ESM_WEIGHTS names")
    data = load_file(shared / "golden" / f"golden_esm2_{golden}.safetensors")
    model = ESM2WithFlashAttention(load_esm2(path), "cpu")
    hidden = [name for name in data if "hidden" in name]
    for ids, mask, want in zip(
        data["input__input_ids"], data["input__attention_mask"].bool(), data[hidden[-1]].float(), strict=True
    ):
        cu_seqlens = torch.tensor([0, int(mask.sum())], dtype=torch.int32)
        got = model.forward_packed(ids[mask].long(), cu_seqlens, int(mask.sum()))["representations"]
        assert relative_l2(got[model.num_layers], want[mask]) < 2e-2  # made from bf16 weights


def test_the_number_of_layers_is_found_without_loading_the_model(tmp_path):
    base = random_esm2(num_layers=11, embed_dim=32, heads=2)
    save_fair_esm(base, tmp_path / "mine.pt")
    save_hugging_face(base, tmp_path / "hf")
    assert layer_count("mine.pt", tmp_path / "mine.pt") == layer_count("hf", tmp_path / "hf") == 11
    assert layer_count("esm2_t33_650M_UR50D", tmp_path / "not there yet.pt") == 33
    assert layer_count(str(DEMO_PATH), DEMO_PATH) == layer_count("demo", DEMO_PATH) == 6
    old = tmp_path / "old.pt"  # as torch wrote it before 1.6
    torch.save(torch.load(tmp_path / "mine.pt", weights_only=False), old, _use_new_zipfile_serialization=False)
    assert layer_count("old.pt", old) == 11
    (tmp_path / "other.pt").write_bytes(b"of another kind")
    with pytest.raises(ValueError, match=r"other.pt: its number of layers is unknown; count `layers` from 0"):
        layer_count("other.pt", tmp_path / "other.pt")


@pytest.mark.parametrize("write", [lambda base, path: save_fair_esm(base, path / "m.pt"), save_hugging_face])
def test_weights_on_a_cpu_do_not_change_with_the_file(base, tmp_path, write):
    path = write(base, tmp_path)
    model = load_esm2(path)
    before = copy.deepcopy(model.state_dict())
    for file in [path] if path.is_file() else path.glob("*.safetensors"):
        size = file.stat().st_size
        with file.open("r+b") as handle:
            handle.write(b"\xff" * size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_mapped_weights_keep_their_dtype_and_give_the_same_model(base, tmp_path, dtype):
    state = {name: tensor.to(dtype) for name, tensor in hugging_face_tensors(base).items()}
    folder = write_folder(tmp_path / "hf", state, hugging_face_config(base))
    mapped, loaded = load_esm2(folder, mapped=True), load_esm2(folder)
    assert mapped.layers[0].fc1.weight.dtype == dtype and loaded.layers[0].fc1.weight.dtype == torch.float32
    for half in (torch.float16, torch.bfloat16):
        ours, theirs = (ESM2WithFlashAttention(one, "cpu", half).state_dict() for one in (mapped, loaded))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name


class HostCopies(TorchDispatchMode):
    """The operations that make a matrix of a block, or of several, in host memory."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in args if isinstance(x, torch.Tensor)}
        if isinstance(result, torch.Tensor) and result.device.type == "cpu" and result.shape[-2:].numel() % 1024 == 0:
            self.seen += [] if result.untyped_storage()._cdata in given else [function.overloadpacket.__name__]
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_weights_reach_another_device_without_a_copy_in_host_memory(base, tmp_path, dtype):
    state = {name: tensor.to(dtype) for name, tensor in hugging_face_tensors(base).items()}
    folder = write_folder(tmp_path / "hf", state, hugging_face_config(base))
    with HostCopies() as copies:
        model = load_esm2(folder, mapped=True)
        ESM2WithFlashAttention(model, "meta", torch.float16, "sdpa")
    assert {*copies.seen} == {"empty"}  # those of the model whose weights are replaced: never written
