"""The dtypes of half precision, and copies to a device."""

import copy

import torch
from torch import nn

HALF = (torch.float16, torch.bfloat16)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to the device, on CUDA without waiting for the copy, and return it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type == "cuda")


def module_on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of a module with fp32 parameters on the device, which are copied nowhere else on the way."""
    moved = {
        id(one): nn.Parameter(on_device(one.detach(), device).float(), requires_grad=False)
        for one in module.parameters()
    }
    return copy.deepcopy(module, moved)  # it takes the parameters from `moved`
