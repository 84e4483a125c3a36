"""How the values of a sequence are stored: their dtype, 8 bits with scales, or one half of a symmetric square.

A program that computes with them needs two lines of NumPy at most, see docs/using.md.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

INT8_MAX = 127  # -128 is not used, so that the codes are symmetric


@dataclass(frozen=True)
class StoredValues:
    """The values of one sequence as a dataset has them.

    Attributes:
        values: float16 or float32 [..., L, width]; codes int8 [..., L, width]; or float [L (L + 1) / 2], see `Form`.
        scale: of codes, float32 [..., 1, width]; a value is its code multiplied by the scale. Else None.
    """

    values: np.ndarray
    scale: np.ndarray | None = None

    @cached_property
    def decoded(self) -> np.ndarray:
        """The values, float16 or float32 [..., L, width], or [L, L]."""
        if self.scale is not None:
            return self.values * self.scale
        if self.values.ndim > 1:
            return self.values
        residues = residues_of(self.values.shape)
        square = np.empty((residues, residues), self.values.dtype)
        square[np.triu_indices(residues)] = self.values
        square.T[np.triu_indices(residues)] = self.values
        return square

    def nearest_to(self, want: np.ndarray) -> np.ndarray:
        """Return, among the values that would be stored as these, those nearest to `want`; float64.

        So what the rounding of a stored value may have changed is not taken for a difference. The step of 8 bits is
        that of `want`: a scale that is too large would explain any value.
        """
        if self.scale is None:
            return nearest(want, self.decoded)
        half_step = np.abs(want).max(-2, keepdims=True).astype(np.float64) / (2 * INT8_MAX)
        return _clipped(want, self.decoded, self.decoded - half_step, self.decoded + half_step)

    def has_bits_of(self, other: "StoredValues") -> bool:
        """Return whether all bits are equal."""
        return _bytes(self.values) == _bytes(other.values) and _bytes(self.scale) == _bytes(other.scale)


@dataclass(frozen=True)
class Form:
    """How the values of each residue are stored.

    Attributes:
        dtype: float16, float32, or int8. int8: symmetric codes with a scale for each dimension (and layer) of a
            sequence, the largest magnitude over its residues divided by 127. The dimensions of ESM-2 differ in size by
            orders of magnitude, so a scale for each residue would lose most of them.
        is_triangle: of a symmetric [L, L], store the diagonal and what is above it, row by row: [L (L + 1) / 2].
    """

    dtype: str = "float32"
    is_triangle: bool = False

    @property
    def computed(self) -> str:
        """The dtype of the values that `stored` takes without a loss."""
        return "float32" if self.dtype == "int8" else self.dtype

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a dataset for values of a shape."""
        return (shape[0] * (shape[0] + 1) // 2,) if self.is_triangle else shape

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape of the scales for values of a shape; None: they have none."""
        return (*shape[:-2], 1, shape[-1]) if self.dtype == "int8" else None

    def stored(self, values: np.ndarray) -> StoredValues:
        """Return values [..., L, width], or [L, L], as they are stored. They may be infinite in float16."""
        if self.dtype == "int8":
            return _in_8_bits(values.astype(np.float32, copy=False))
        if self.is_triangle:
            values = values[np.tri(len(values), dtype=bool).T]
        with np.errstate(over="ignore"):
            return StoredValues(values.astype(self.dtype, copy=False))


def residues_of(shape: tuple[int, ...]) -> int:
    """Return the number of residues of a dataset with a shape; -1 if no sequence has such a dataset."""
    if len(shape) >= 2:
        return shape[-2]
    residues = (math.isqrt(8 * shape[0] + 1) - 1) // 2 if len(shape) == 1 else -1
    return residues if Form(is_triangle=True).shape((residues,)) == shape else -1


def nearest(want: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Return the values nearest to `want` that are rounded to `got`, float64; of infinite ones, `got`.

    Args:
        want: values of the reference.
        got: float32, which are not rounded, or float16, of the same shape.
    """
    if got.dtype != np.float16:
        return got.astype(np.float64)
    exact = got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        below, above = (np.nextafter(got, np.float16(end)).astype(np.float64) for end in (-np.inf, np.inf))
        # The largest finite value has as much room on both sides.
        below, above = (
            np.where(np.isinf(below), 2 * exact - above, below),
            np.where(np.isinf(above), 2 * exact - below, above),
        )
        return _clipped(want, exact, (exact + below) / 2, (exact + above) / 2)


def _clipped(want: np.ndarray, got: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return `want`, limited to low and high; of values that are not finite, `got`."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(got), np.clip(want.astype(np.float64), low, high), got)


def _in_8_bits(values: np.ndarray) -> StoredValues:
    largest = np.maximum(np.abs(values.max(-2, keepdims=True)), np.abs(values.min(-2, keepdims=True)))
    scale = largest * np.float32(1 / INT8_MAX)
    scale[scale < np.finfo(np.float32).tiny] = 0  # its inverse would be infinite
    with np.errstate(invalid="ignore"):  # values that are not finite, which the scale shows
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        codes = np.empty(values.shape, np.int8)
        for layer in np.ndindex(values.shape[:-2]):  # one in float32 at a time
            rounded = values[layer] * inverse[layer]
            np.rint(rounded, out=rounded)
            codes[layer] = rounded
    return StoredValues(codes, scale)


def _bytes(values: np.ndarray | None) -> bytes | None:
    return None if values is None else values.tobytes()
