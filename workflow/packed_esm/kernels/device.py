"""The dtypes of half precision, and copies to a device."""

import torch

HALF = (torch.float16, torch.bfloat16)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to the device, on CUDA without waiting for the copy, and return it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type == "cuda")
