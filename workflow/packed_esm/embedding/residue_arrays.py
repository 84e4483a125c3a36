"""Outputs for each residue, in the dtype and the shape in which they are stored."""

from collections.abc import Sequence

import numpy as np

from ..errors import NonFiniteError
from ..outputs.table import RESIDUES
from .host_copies import HostDtypes


def stored_dtypes(features: Sequence[str], dtype: str) -> HostDtypes:
    """Return {feature: dtype} of residue files; `dtype`: of representations, float16 or float32."""
    return {name: dtype if name == "representations" else "float32" for name in features}


def residue_arrays(out: dict, dtypes: HostDtypes, name: str) -> dict[str, np.ndarray]:
    """Return {feature: dataset} of one sequence, as `store.residues` writes it.

    Args:
        out: what `Embedder.embed` gives for each sequence, on any device.
        dtypes: the features, see `stored_dtypes`.
        name: of the sequence, for messages.

    Raises:
        NonFiniteError: a value that is beyond float16.
    """
    arrays = {}
    for feature, dtype in dtypes.items():
        with np.errstate(over="ignore"):
            array = arrays[feature] = RESIDUES[feature].layout.stored(out[feature]).astype(dtype, copy=False)
        if array.dtype == np.float16 and not _is_finite(array):
            raise NonFiniteError(f"{name}: {feature} has a value beyond float16; use per_residue: float32")
    return arrays


def _is_finite(values: np.ndarray) -> bool:
    """Return whether all values, float16, are finite; np.isfinite takes eight times as long."""
    without_sign = values.view(np.uint16) << 1
    return bool(without_sign.max() < 0xF800)  # the exponent of infinity and NaN
