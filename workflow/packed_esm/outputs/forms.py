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

        So what the rounding of a stored value may have changed is not taken for a difference.
        """
        return nearest(want, self.decoded, None if self.scale is None else self.scale / 2)

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


def nearest(want: np.ndarray, got: np.ndarray, half_step: np.ndarray | None = None) -> np.ndarray:
    """Return the values nearest to `want` that are rounded to `got`, float64; of infinite ones, `got`.

    Args:
        want, got: of one shape.
        half_step: largest change by the rounding; by default half the distance of the next float16, and 0 in float32.
    """
    if half_step is None:
        with np.errstate(invalid="ignore"):  # of infinity
            half_step = np.spacing(np.abs(got)) / 2 if got.dtype == np.float16 else np.zeros(1)
    got, half_step = got.astype(np.float64), half_step.astype(np.float64)
    with np.errstate(invalid="ignore"):
        closest = np.clip(want, got - half_step, got + half_step)
    return np.where(np.isfinite(got), closest, got)


def _in_8_bits(values: np.ndarray) -> StoredValues:
    largest = np.maximum(np.abs(values.max(-2, keepdims=True)), np.abs(values.min(-2, keepdims=True)))
    scale = largest * np.float32(1 / INT8_MAX)
    scale[scale < np.finfo(np.float32).tiny] = 0  # its inverse would be infinite
    with np.errstate(invalid="ignore"):  # values that are not finite, which the scale shows
        codes = values * np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        np.rint(codes, out=codes)
        return StoredValues(codes.astype(np.int8), scale)


def _bytes(values: np.ndarray | None) -> bytes | None:
    return None if values is None else values.tobytes()
