"""The conda environment of the jobs that run the model, for each device, machine and attention."""

import pytest
from packed_esm.planning import conda
from packed_esm.planning.conda import embedding_environment


@pytest.fixture(autouse=True)
def no_nvidia_smi(monkeypatch, tmp_path):
    """Neither nvidia-smi nor a variable of the machine that runs the tests."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def chosen(dev, device="auto", attention="auto", submits_jobs=False):
    """Return the environment, and the reason, with these files as device files."""
    return embedding_environment({"device": device, "attention": attention}, submits_jobs, dev)


@pytest.mark.parametrize(
    ("files", "name", "reason"),
    [
        ([], "cpu", "shows no NVIDIA GPU"),
        (["nvidiactl", "nvidia-uvm"], "cpu", "shows no NVIDIA GPU"),
        (["kfd"], "cpu", "conda-forge has no torch for the AMD GPU"),
        (["nvidia0"], "gpu", "this machine has an NVIDIA GPU"),
        (["kfd", "nvidia11"], "gpu", "this machine has an NVIDIA GPU"),
    ],
)
def test_auto_takes_the_gpu_environment_where_a_gpu_of_nvidia_is_seen(tmp_path, files, name, reason):
    for file in files:
        (tmp_path / file).touch()
    got, why = chosen(tmp_path)
    assert got == name and why.startswith("device is auto, and") and reason in why


def test_auto_asks_nvidia_smi_where_there_is_no_device_file(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 0\n")
    smi.chmod(0o755)
    assert chosen(tmp_path / "dev")[0] == "gpu"
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert chosen(tmp_path / "dev")[0] == "cpu"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_hidden_from_cuda_do_not_count(tmp_path, monkeypatch, hidden):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert chosen(tmp_path)[0] == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert chosen(tmp_path)[0] == "gpu"


def test_submitted_jobs_get_the_gpu_environment_because_they_request_a_gpu(tmp_path):
    assert chosen(tmp_path, submits_jobs=True) == ("gpu", "device is auto, and submitted jobs request a GPU")


@pytest.mark.parametrize("submits_jobs", [False, True])
def test_a_device_that_is_named_decides_without_a_look_at_the_machine(tmp_path, monkeypatch, submits_jobs):
    monkeypatch.setattr(conda, "shows_nvidia_gpu", None)
    got = {device: chosen(tmp_path, device, submits_jobs=submits_jobs)[0] for device in ("cpu", "mps", "cuda")}
    assert got == {"cpu": "cpu", "mps": "cpu", "cuda": "gpu"}


def test_flash_attn_has_an_environment_of_its_own_on_a_gpu_only(tmp_path):
    assert chosen(tmp_path, "cuda", "flash-attn")[0] == chosen(tmp_path, "auto", "flash-attn", True)[0] == "flash-attn"
    assert chosen(tmp_path, "auto", "flash-attn")[0] == chosen(tmp_path, "cpu", "flash-attn")[0] == "cpu"
    assert {chosen(tmp_path, "cuda", attention)[0] for attention in ("triton", "sdpa", "padded")} == {"gpu"}
