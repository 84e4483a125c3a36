"""The checkpoint of a run: what is there, what is to be downloaded, and what jobs wait for."""

import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import ROOT, random_esm2
from esmc_checkpoints import random_esmc, save_esmc
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.errors import OptionError
from packed_esm.planning.checkpoint import Checkpoint
from packed_esm.planning.config import read_config

SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
PUBLISHED = "esm2_t6_8M_UR50D"


def checkpoint(**config):
    return Checkpoint(read_config(config, SCHEMA))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_published_model_is_downloaded_once_and_jobs_wait_for_its_file(hub):
    one = checkpoint(model=PUBLISHED, layers=[0, -1])
    assert one.is_missing and one.files == one.inputs == [hub / f"{PUBLISHED}.pt"]
    assert one.results_name == PUBLISHED and one.columns() == ["mean_0", "mean_6"]
    (hub / f"{PUBLISHED}.pt").touch()
    assert not checkpoint(model=PUBLISHED).is_missing


def test_the_contact_head_of_a_published_model_is_downloaded_where_contacts_are_asked_for(hub):
    head = hub / f"{PUBLISHED}-contact-regression.pt"
    one = checkpoint(model=PUBLISHED, include=["contacts"])
    assert one.is_contact_head_missing and one.inputs == [hub / f"{PUBLISHED}.pt", head]
    assert not checkpoint(model=PUBLISHED).is_contact_head_missing
    head.touch()
    there = checkpoint(model=PUBLISHED)
    assert not there.is_contact_head_missing and there.inputs == [*there.files, head]


def test_jobs_wait_for_no_file_of_the_clone():
    one = checkpoint(model="demo")
    assert one.files == [DEMO_PATH] and one.inputs == [] and not one.is_missing
    assert one.results_name == "demo" and checkpoint(model="demo", name="mine").results_name == "mine"


def test_a_file_tells_how_many_layers_and_whether_there_is_a_contact_head(tmp_path):
    model = random_esm2(2, 32, 2)
    torch.nn.init.normal_(model.contact_head.regression.weight)
    path = save_fair_esm(model, tmp_path / "esm2_small.pt", contacts=True)
    one = checkpoint(model=str(path), layers=[-1], pooling=["max", "bos"], include=["contacts"])
    assert one.columns() == ["max_2", "bos_2"] and one.files == [path]
    assert not one.is_contact_head_missing


def test_contacts_of_a_model_without_a_contact_head_are_refused(tmp_path):
    path = save_fair_esm(random_esm2(2, 32, 2), tmp_path / "esm2_small.pt")
    for model, message in ((str(path), f"neither {path} nor "), ("demo", "there is no contact head for demo")):
        with pytest.raises(OptionError, match=f"include: contacts.*{message}"):
            checkpoint(model=model, include=["contacts"]).is_contact_head_missing  # noqa: B018


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": "esm2"}, "'esm2' is neither a known name"),
        ({"model": "demo", "layers": [7]}, "layers: 7 is not a layer of demo"),
        ({"model": "esmc", "layers": [0, 4]}, "layers: 4 is not a layer of esmc; it has 0"),
        ({"model": "esmc", "dtype": "int8"}, "ESM C has no products in int8"),
        ({"model": "esmc", "include": ["contacts"]}, "contacts: ESM C has no contact head"),
    ],
)
def test_what_a_model_does_not_have_is_refused_at_once(tmp_path, monkeypatch, config, message):
    save_esmc(random_esmc(), tmp_path / "esmc")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        checkpoint(**config).is_contact_head_missing  # noqa: B018
