"""Make sure that `import esm` means fair-esm."""

import importlib.util
from pathlib import Path

from ..errors import MissingPackageError


def require_fair_esm() -> None:
    """Raise MissingPackageError with the remedy if `esm` is missing or is EvolutionaryScale's package of that name."""
    spec = importlib.util.find_spec("esm")
    if spec is None:
        raise MissingPackageError("fair-esm is not installed; pip install fair-esm==2.0.0")
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    if not any((folder / "model" / "esm2.py").exists() for folder in folders):
        raise MissingPackageError(
            f"the package `esm` in {', '.join(map(str, folders))} is not fair-esm (EvolutionaryScale's `esm` has "
            "the same import name); pip uninstall esm && pip install --force-reinstall --no-deps fair-esm==2.0.0"
        )
