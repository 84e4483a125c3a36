"""The device, its clock, and the commit of a measurement."""

import subprocess
from pathlib import Path

import torch
from packed_esm.embedding.device import device_name


def card(device: str) -> dict:
    """Return the columns card, clock_mhz (of the GPU's multiprocessors now; None on a CPU) and commit of a row."""
    clock = None
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "--id=0"]
        clock = int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])
    return {"card": device_name(torch.device(device)), "clock_mhz": clock, "commit": commit()}


def commit() -> str | None:
    """Return the commit of the clone; None where there is no git or no clone."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
