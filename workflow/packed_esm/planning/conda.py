"""Which conda environment runs the model, decided when the workflow is read, without importing torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..system.gpu_lease import visible_gpus


def embedding_environment(settings: Mapping[str, Any], submits_jobs: bool, dev: Path = Path("/dev")) -> tuple[str, str]:
    """Return the name of the file in envs/ for the jobs that run the model, without `.yaml`, and the reason.

    `device: auto` takes a GPU environment if this machine shows an NVIDIA GPU. If the jobs are submitted to other
    machines, it takes one in any case, because each of these jobs requests a GPU.

    Args:
        settings: of `read_config`.
        submits_jobs: the jobs run on other machines, or this is such a job.
        dev: folder of device files.
    """
    device = settings["device"]
    if device in ("cpu", "mps"):
        return "cpu", f"device is {device}"
    if device == "cuda":
        reason = "device is cuda"
    elif submits_jobs:
        reason = "device is auto, and submitted jobs request a GPU"
    elif shows_nvidia_gpu(dev):
        reason = "device is auto, and this machine has an NVIDIA GPU"
    elif (dev / "kfd").exists():
        return "cpu", "device is auto, and conda-forge has no torch for the AMD GPU of this machine"
    else:
        return "cpu", "device is auto, and this machine shows no NVIDIA GPU"
    if settings["attention"] == "flash-attn":
        return "flash-attn", f"{reason}; attention is flash-attn"
    return "gpu", reason


def shows_nvidia_gpu(dev: Path = Path("/dev")) -> bool:
    """Return whether CUDA would find a GPU, from device files, else nvidia-smi (WSL has no such files)."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1", "NoDevFiles"):
        return False
    return any(dev.glob("nvidia[0-9]*")) or bool(visible_gpus())
