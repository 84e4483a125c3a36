"""What is kept of each residue, as arrays, of what the forward gave."""

from collections.abc import Sequence

import numpy as np
import torch

from ..errors import NonFiniteError


def _representations(out: dict) -> torch.Tensor:
    layers = [rows[1:-1] for rows in out["representations"].values()]
    return layers[0] if len(layers) == 1 else torch.stack(layers)


_ARRAY = {
    "representations": _representations,
    "logits": lambda out: out["logits"][1:-1],
    "contacts": lambda out: out["contacts"],
}


def residue_arrays(out: dict, features: Sequence[str], dtype: str, name: str) -> dict[str, np.ndarray]:
    """Return {feature: dataset} of one sequence, as `store.residues` writes it.

    Args:
        out: what `Embedder.embed` hands out for each sequence.
        features: names of FEATURES.
        dtype: of representations, float16 or float32.
        name: of the sequence, for messages.

    Raises:
        ValueError: a value that is beyond float16.
    """
    arrays = {feature: _ARRAY[feature](out).numpy(force=True) for feature in features}
    if "representations" in arrays:
        with np.errstate(over="ignore"):  # NumPy's memory: torch's, of many sizes, is not given back
            arrays["representations"] = arrays["representations"].astype(dtype)
        if not np.isfinite(arrays["representations"]).all():
            raise NonFiniteError(f"{name}: a representation is beyond {dtype}; use per_residue: float32")
    return arrays
