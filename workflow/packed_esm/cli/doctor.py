"""`packed-esm doctor`: what a run would use here."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from ..errors import OptionError, PackedEsmError
from ..system.tree import tree
from ..system.versions import package_versions
from .settings import settings_there


def main(args: argparse.Namespace) -> int:
    """Print what a run with these settings would use; return 1 where it could not run."""
    settings = settings_there(args)
    versions = package_versions()
    print(f"packed-esm   {versions['packed_esm']} ({tree()})")
    print(f"Python       {versions['python']} ({sys.executable})")
    print(f"packages     {', '.join(f'{name} {found}' for name, found in versions.items() if name not in _SHOWN)}")
    print(f"CPU          {os.cpu_count()} cores")
    disk = shutil.disk_usage(Path.cwd())
    print(f"disk here    {disk.free / 1e9:,.0f} GB free")
    problems = [*_device(settings), *_model(settings)]
    if not problems:
        _weights(settings)
    for problem in problems:
        print(f"PROBLEM      {problem}")
    return 1 if problems else 0


_SHOWN = ("packed_esm", "python")


def _device(settings: dict) -> list[str]:
    """Print device, dtype and attention; return what is wrong."""
    from ..embedding.device import DTYPES, choose_device, choose_dtype, device_name
    from ..model.backends import BACKENDS, check_dtype, choose_backend, why_not

    try:
        device = choose_device(settings["device"])
        dtype = choose_dtype(settings["dtype"], device)
        activations = check_dtype(DTYPES[dtype], device)
        attention = choose_backend(settings["attention"], device, activations)
    except OptionError as error:
        return [str(error)]
    print(f"device       {device_name(device)}, in {dtype}")
    print(f"attention    {attention}")
    for backend in BACKENDS:
        if reason := why_not(backend, device, activations):
            print(f"  not {backend + ':':<16}{reason}")
    return []


def _weights(settings: dict) -> None:
    """Print where the weights would be."""
    from ..embedding.device import choose_device, choose_dtype
    from ..embedding.memory import MemoryPlan
    from ..planning.checkpoint import Checkpoint

    shape, device = Checkpoint(settings).shape, choose_device(settings["device"])
    plan = MemoryPlan(device, shape.num_layers, shape.embed_dim, choose_dtype(settings["dtype"], device))
    place = plan.placement(settings["weights"])
    print(f"weights      {place if place == 'resident' else f'streamed from the {place}'}")


def _model(settings: dict) -> list[str]:
    """Print where the model is; return what is wrong."""
    from ..planning.checkpoint import Checkpoint

    try:
        model = Checkpoint(settings)
        path, missing = model.path, model.is_missing
    except PackedEsmError as error:
        return [str(error)]
    print(f"model        {model.model}: {'to be downloaded to ' if missing else ''}{path}")
    return [] if missing or path.exists() else [f"model: there is no {path}"]
