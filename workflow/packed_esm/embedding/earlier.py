"""Embeddings that were found in earlier results, joined with those that a job computes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..store.embeddings import row_checksums


@dataclass
class Earlier:
    """Embeddings that earlier results have for some sequences.

    Attributes:
        found: bool [n], whether each sequence was found.
        columns: {"mean_33": float32 [n, E], ...}; the rows of other sequences are not set.
        checksums: uint32 [n], from the job that computed the values.
    """

    found: np.ndarray
    columns: dict[str, np.ndarray]
    checksums: np.ndarray

    @classmethod
    def nothing(cls, rows: int, empty_columns: dict[str, np.ndarray]) -> "Earlier":
        """Return that none of `rows` sequences was found; `empty_columns`: see `columns`."""
        return cls(np.zeros(rows, bool), empty_columns, np.empty(rows, np.uint32))

    @property
    def missing(self) -> np.ndarray:
        """Indices of the sequences that were not found."""
        return np.flatnonzero(~self.found)

    def completed(
        self, digests: Sequence[str], columns: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return (columns, checksums) of all sequences; `columns` has the rows of the missing ones.

        Rows that were found keep their checksums.
        """
        if not self.found.any():
            return columns, row_checksums(digests, columns)
        self.checksums[self.missing] = row_checksums([digests[i] for i in self.missing], columns)
        for name, matrix in columns.items():
            self.columns[name][self.missing] = matrix
        return self.columns, self.checksums
