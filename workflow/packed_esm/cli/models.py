"""`packed-esm models`: the published models, and which are on this computer."""

import argparse
from pathlib import Path

from ..checkpoints.registry import MODELS, ModelShape, find_model


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    print(f"{'model':<25}{'parameters':>11}{'layers':>8}{'width':>7}{'size':>9}  file")
    for name, shape in MODELS.items():
        print(_row(name, shape))
    print("\nmodel=NAME downloads a model once. model= also takes the path of a fair-esm .pt file, of a Hugging Face")
    print("folder or of a LoRA adapter, or the id of a model in Hugging Face's cache.")
    return 0


def _row(name: str, shape: ModelShape) -> str:
    path = find_model(name)
    size = path.stat().st_size if path.exists() else shape.weight_bytes
    parameters = f"{shape.parameters / 1e6:,.0f}M"
    return (
        f"{name:<25}{parameters:>11}{shape.num_layers:>8}{shape.embed_dim:>7,}{_size(size):>9}  "
        f"{_short(path) if path.exists() else 'not here'}"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _short(path: Path) -> str:
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)
