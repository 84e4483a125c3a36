"""What is kept of each residue, as arrays, of what the forward gave."""

from collections.abc import Sequence

import numpy as np

from ..errors import NonFiniteError
from ..outputs.table import RESIDUES


def residue_arrays(out: dict, features: Sequence[str], dtype: str, name: str) -> dict[str, np.ndarray]:
    """Return {feature: dataset} of one sequence, as `store.residues` writes it.

    Args:
        out: what `Embedder.embed` hands out for each sequence.
        features: names of RESIDUES.
        dtype: of representations, float16 or float32.
        name: of the sequence, for messages.

    Raises:
        NonFiniteError: a value that is beyond float16.
    """
    arrays = {feature: RESIDUES[feature].layout.stored(out[feature]) for feature in features}
    if "representations" in arrays:
        with np.errstate(over="ignore"):  # NumPy's memory: torch's, of many sizes, is not given back
            arrays["representations"] = arrays["representations"].astype(dtype)
        if not np.isfinite(arrays["representations"]).all():
            raise NonFiniteError(f"{name}: a representation is beyond {dtype}; use per_residue: float32")
    return arrays
