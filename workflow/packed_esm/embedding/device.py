"""What `auto` means for the device and the dtype, names and classes of devices; for memory see `memory`."""

import functools
import logging
import platform
import re
from pathlib import Path

import torch

from ..errors import OptionError, check_one_of
from ..kernels.int8 import INT8

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": INT8}


def choose_device(requested: str) -> torch.device:
    """Return the device that a word of DEVICES means here; `auto` is cuda, else mps (Apple), else cpu.

    torch for ROCm (AMD) calls its GPUs `cuda`.

    Raises:
        OptionError: `cuda` or `mps` where torch finds no such device, or another word.
    """
    check_one_of("device", requested, DEVICES)
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if requested == "auto":
        requested = next(name for name, is_available in available.items() if is_available())
    if not available[requested]():
        raise OptionError(f"device: torch {torch.__version__} finds no {requested} device; {_REMEDIES[requested]}")
    if requested == "mps" or (requested == "cuda" and torch.version.hip):
        _warn_untested("mps" if requested == "mps" else "ROCm")
    return torch.device(requested)


_REMEDIES = {
    "cuda": "check nvidia-smi and CUDA_VISIBLE_DEVICES, install a torch built for CUDA, or use device: cpu",
    "mps": "it needs a Mac with an Apple GPU and macOS 14 or newer; use device: auto",
}


@functools.cache
def _warn_untested(what: str) -> None:
    log.warning("device %s: untested; torch's own operations are used. The validation compares results as always", what)


def choose_dtype(requested: str, device: torch.device) -> str:
    """Return the name of the dtype: `auto` is fp16 on a CUDA device, else fp32."""
    if requested == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    check_one_of("dtype", requested, ("auto", *DTYPES))
    return requested


def device_identity(device: torch.device) -> str:
    """Return which device it is among others of its kind: its name, and the UUID of a GPU, as nvidia-smi -L has it."""
    if device.type != "cuda":
        return device_name(device)
    return f"{device_name(device)} (GPU-{torch.cuda.get_device_properties(device).uuid})"


def device_class(device: torch.device) -> str:
    """Return the class of the device, on which the last bits depend.

    NVIDIA GPUs of one compute capability with as many multiprocessors are one class: kernels are chosen
    for these two, and divide the work by them (measured on an H100 and an H200, docs/correctness.md). For other devices
    the class is the name.
    """
    if device.type != "cuda" or torch.version.hip:
        return device_name(device)
    gpu = torch.cuda.get_device_properties(device)
    return f"sm_{gpu.major}{gpu.minor}, {gpu.multi_processor_count} multiprocessors"


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the CPU's model and vector unit."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()}, mps)"
    return f"{models[0] if models else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})"
