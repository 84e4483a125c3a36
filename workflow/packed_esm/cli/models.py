"""`packed-esm models`: the published models, and which are on this computer."""

import argparse
from pathlib import Path

from ..checkpoints.registry import find_model, hub_snapshot
from ..families import MODELS, ModelShape


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    print(f"{'model':<25}{'parameters':>11}{'layers':>8}{'width':>7}{'size':>9}  file")
    for name, shape in MODELS.items():
        print(_row(name, shape, hub_snapshot(shape.hub_id) if shape.hub_id else find_model(name)))
    print("\nmodel=NAME downloads a model of Meta once; `hf download` fetches ESM C. model= also takes the path of")
    print("a fair-esm .pt file, of a Hugging Face folder or of a LoRA adapter, or the id of a model in its cache.")
    return 0


def _row(name: str, shape: ModelShape, path: Path | None) -> str:
    is_here = path is not None and path.exists()
    size = path.stat().st_size if is_here and path.is_file() else shape.weight_bytes
    parameters = f"{shape.parameters / 1e6:,.0f}M"
    return (
        f"{name:<25}{parameters:>11}{shape.num_layers:>8}{shape.embed_dim:>7,}{_size(size):>9}  "
        f"{_short(path) if is_here else 'not here'}"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _short(path: Path) -> str:
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)
