"""Families of models: a new one needs no change of the library, and each is found and named as it should be."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import pack, random_sequence, random_tokens, relative_l2
from esmc_checkpoints import pth_of, random_esmc, save_esmc
from packed_esm import families
from packed_esm.checkpoints.headers import family_at, has_contact_head, layer_count
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.checkpoints.registry import check_layers, find_model, results_name, shape_of
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import CheckpointError, MissingPackageError, OptionError
from packed_esm.model.esm2 import ESM2WithFlashAttention
from packed_esm.planning.checkpoint import Checkpoint
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.store.merge import merge_samples
from packed_esm.validation.run import validate
from packed_esm.validation.tolerance import ValidationOptions
from safetensors.torch import save_file
from toy_family import TOY
from toy_family.checkpoint import Toy
from toy_family.reference import load_reference


@pytest.fixture
def toy(tmp_path):
    """The folder of a toy model, whose family is known during a test."""
    before = dict(families.FAMILIES), dict(families.MODELS)
    families.register(TOY)
    folder = tmp_path / "toy"
    folder.mkdir()
    torch.manual_seed(0)
    save_file({name: one.contiguous() for name, one in Toy(3, 16).state_dict().items()}, folder / "model.safetensors")
    config = {"model_type": "toy", "num_hidden_layers": 3, "hidden_size": 16}
    (folder / "config.json").write_text(json.dumps(config))
    yield folder
    for known, old in zip((families.FAMILIES, families.MODELS), before, strict=True):
        known.clear()
        known.update(old)


def test_a_toy_family_runs_packed_as_its_reference_says(toy):
    model, reference = ESM2WithFlashAttention(load_esm2(toy), "cpu"), load_reference(toy)
    tokens = random_tokens([1, 40, 7], masked=(1,))
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    got = model.forward_packed(input_ids, cu_seqlens, max_seqlen, [0, 1, 3], need_logits=True)
    for one, start, end in zip(tokens, cu_seqlens[:-1], cu_seqlens[1:], strict=True):
        want = reference.outputs(one, [0, 1, 3])
        for layer in (0, 1, 3):
            assert relative_l2(got["representations"][layer][start:end], want["representations"][layer]) <= 2e-6
        assert relative_l2(got["logits"][start:end], want["logits"]) <= 2e-6


@pytest.mark.parametrize(("family", "reference"), [("toy", "pip "), ("ESM C", "transformers ")])
def test_a_family_is_embedded_and_validated_against_its_own_reference(family, reference, toy, tmp_path):
    model = toy if family == "toy" else save_esmc(random_esmc(), tmp_path / "small")
    rng, fasta = np.random.default_rng(0), tmp_path / "s.fasta"
    fasta.write_text("".join(f">p{i}\n{random_sequence(3 + 20 * i, rng)}\n" for i in range(6)))
    paths = {name: tmp_path / name for name in ("c.fasta", "m.parquet", "r.tsv", "c.json", "c.arrow", "e.json")}
    chunk_samples([("s", fasta)], [paths["c.fasta"]], paths["m.parquet"], paths["r.tsv"], paths["c.json"])
    options = EmbedOptions(model, (0, 3), ("mean", "max"), ("log_likelihood",), device="cpu", tokens_per_pack=512)
    embed_fasta(paths["c.fasta"], paths["c.arrow"], paths["e.json"], options)
    merge_samples(paths["m.parquet"], {"s": tmp_path / "s.parquet"}, [paths["c.arrow"]])
    summary = validate(
        [("s", fasta, tmp_path / "s.parquet")],
        paths["m.parquet"],
        [paths["e.json"]],
        tmp_path / "v.tsv",
        tmp_path / "v.json",
        ValidationOptions(),
        options,
    )
    assert summary["passed"] and summary["sequences_compared"] == 6
    assert summary["reference"].startswith(reference)
    assert not has_contact_head(model) and layer_count(str(model), model) == 3


def test_families_are_known_by_config_and_by_names_of_tensors(tmp_path, demo):
    model = random_esmc(num_layers=2)
    folder = save_esmc(model, tmp_path / "small")
    torch.save(pth_of(model), tmp_path / "small.pth")
    torch.save(demo.state_dict(), tmp_path / "esm2.pt")
    for path in (folder, tmp_path / "small.pth"):
        assert family_at(path).name == "ESM C" and layer_count(str(path), path) == 2
    assert family_at(tmp_path / "esm2.pt").name == "ESM-2" and has_contact_head(folder) is False


def test_an_adapter_of_esm_c_is_refused_with_the_remedy(tmp_path):
    base, adapter = save_esmc(random_esmc(num_layers=1), tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    save_file({"base_model.model.x.lora_A.weight": torch.ones(1, 1)}, adapter / "adapter_model.safetensors")
    for read in (load_esm2, lambda path: layer_count(str(path), path)):
        with pytest.raises(
            CheckpointError, match="adapter: an adapter of .*base, whose model_type is 'esmc'; .* merge"
        ):
            read(adapter)


def test_a_folder_without_config_is_left_to_the_check_of_its_files(tmp_path):
    assert family_at(tmp_path).name == "ESM-2" and has_contact_head(tmp_path)
    with pytest.raises(CheckpointError, match="no config.json"):
        load_esm2(tmp_path)


def test_a_pth_that_is_missing_is_a_path_and_gives_its_name_to_results():
    assert str(find_model("weights/esmc_300m.pth")) == "weights/esmc_300m.pth"
    assert results_name("weights/esmc_300m_2024_12_v0.pth") == "esmc_300m_2024_12_v0"


def test_published_names_are_found_in_the_cache_of_hugging_face(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OptionError, match="fetch it there with hf download biohub/ESMC-300M"):
        find_model("esmc_300m")
    snapshot = tmp_path / "models--biohub--ESMC-300M" / "snapshots" / "1a"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("1a")
    assert find_model("esmc_300m") == snapshot and results_name("esmc_300m") == "esmc_300m"
    assert layer_count("esmc_300m", snapshot) == 30
    with pytest.raises(OptionError, match="37 is not a layer of esmc_600m; it has 0"):
        check_layers("esmc_600m", layer_count("esmc_600m", snapshot), [37])
    shape = shape_of("biohub/ESMC-600M")
    assert (shape.num_layers, shape.embed_dim, shape.attention_heads) == (36, 1152, 18)
    assert shape.parameters == pytest.approx(575e6, rel=0.01)


def test_a_missing_or_old_package_of_the_reference_is_named_with_its_remedy():
    for family in families.FAMILIES.values():
        family.require_reference()
    missing = replace(TOY, reference_package="no-such-package>=2")
    with pytest.raises(MissingPackageError, match="Toy is compared with no-such-package, .*; pip install 'no-such-pa"):
        missing.require_reference()
    old = replace(TOY, reference_package="transformers>=999")
    with pytest.raises(
        MissingPackageError, match="transformers, whose version here is .*; pip install 'transformers>="
    ):
        old.require_reference()
    replace(TOY, reference_package="transformers>=0.999").require_reference()


def test_environments_without_the_package_of_the_reference_are_refused_at_the_start(tmp_path):
    settings = {"model": str(save_esmc(random_esmc(num_layers=1), tmp_path / "small")), "layers": [-1], "dtype": "auto"}
    for without_it in ((), {"apptainer"}):
        Checkpoint(settings).require_packages(without_it)
    with pytest.raises(MissingPackageError, match="ESM C is compared with transformers, which the conda environments"):
        Checkpoint(settings).require_packages({"conda", "apptainer"})
    Checkpoint(settings | {"model": "demo"}).require_packages({"conda"})


def test_a_pth_whose_heads_are_unknown_is_refused(tmp_path):
    torch.save(pth_of(random_esmc(num_layers=1, embed_dim=96, heads=2)), tmp_path / "esmc.pth")
    with pytest.raises(CheckpointError, match="it is 96 wide, not a multiple of 64"):
        load_esm2(tmp_path / "esmc.pth")


def test_a_loaded_model_in_the_place_of_a_path_is_refused_with_where_it_belongs(demo):
    for given in (lambda: load_esm2(demo), lambda: Embedder(demo), lambda: Embedder(EmbedOptions(demo))):
        with pytest.raises(TypeError, match=r"a esm\.model\.esm2\.ESM2; give the path .*ESM2WithFlashAttention"):
            given()
    with pytest.raises(TypeError, match="options: a str; give EmbedOptions"):
        Embedder("demo.pt")


def test_a_model_of_no_family_is_refused_with_the_way_to_load_one():
    with pytest.raises(TypeError, match="a torch.nn.modules.linear.Linear, which is of no known family .*load_model"):
        ESM2WithFlashAttention(torch.nn.Linear(1, 1), "cpu")
