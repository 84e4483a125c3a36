"""The device that a word means: what torch finds, and what runs there."""

from types import SimpleNamespace

import pytest
import torch
from packed_esm.embedding import device as device_module
from packed_esm.embedding.device import choose_device, choose_dtype, device_class, device_name
from packed_esm.errors import OptionError
from packed_esm.kernels.dispatch import operations_for
from packed_esm.kernels.int8 import why_no_int8
from packed_esm.model.backends import choose_backend


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_says_what_to_do():
    with pytest.raises(ValueError, match="device: torch .* finds no cuda device; .* use device: cpu"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="device: torch .* finds no mps device; it needs a Mac"):
        choose_device("mps")
    assert choose_device("auto").type == "cpu"


@pytest.fixture
def devices(monkeypatch):
    """Set which devices torch finds, and whether it is built for ROCm."""
    untested = device_module._warn_untested
    monkeypatch.setattr(device_module, "_warn_untested", untested.__wrapped__)

    def set_devices(cuda=False, mps=False, hip=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "hip", hip)

    return set_devices


def test_auto_is_cuda_then_mps_then_cpu(devices, caplog):
    for found, device in (({"cuda": True, "mps": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")):
        caplog.clear()
        devices(**found)
        assert choose_device("auto").type == device
        assert ("device mps: untested" in caplog.text) == (device == "mps")
    devices(mps=True)
    assert choose_device("mps").type == "mps" and choose_device("cpu").type == "cpu"
    assert choose_dtype("auto", torch.device("mps")) == "fp32"


def test_on_rocm_and_mps_torchs_own_operations_run_and_are_said_to_be_untested(devices, caplog):
    devices(cuda=True, hip="6.4")
    cuda, mps = choose_device("auto"), torch.device("mps")
    assert cuda.type == "cuda" and "device ROCm: untested" in caplog.text
    for device in (cuda, mps):
        assert choose_backend("auto", device, torch.float16) == "sdpa"
        assert operations_for(device, torch.float16, 320).NAME == "torch"
        assert why_no_int8(device)
        for backend in ("triton", "flash-attn", "flash-attn-3", "torch-varlen"):
            with pytest.raises(OptionError, match=f"attention: {backend} cannot be used, it needs"):
                choose_backend(backend, device, torch.float16)


def test_gpus_of_one_capability_with_as_many_multiprocessors_are_one_class(devices, monkeypatch):
    gpus = {"H100 SXM": (9, 0, 132), "H200": (9, 0, 132), "H100 PCIe": (9, 0, 114), "of the next": (10, 0, 132)}
    classes = {}
    devices(cuda=True)
    for name, (major, minor, multiprocessors) in gpus.items():
        found = SimpleNamespace(name=name, major=major, minor=minor, multi_processor_count=multiprocessors)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=found: found)
        classes[name] = device_class(torch.device("cuda"))
    assert classes["H100 SXM"] == classes["H200"] == "sm_90, 132 multiprocessors"
    assert len(set(classes.values())) == 3


def test_the_class_of_a_device_without_cuda_is_its_name(devices, monkeypatch):
    for device in (torch.device("cpu"), torch.device("mps")):
        assert device_class(device) == device_name(device)
    devices(cuda=True, hip="6.4")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an AMD GPU")
    assert device_class(torch.device("cuda")) == "an AMD GPU"
