"""Keep values of each residue while a job embeds: in what dtype, and in which files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..outputs.table import RESIDUES
from ..store.residues import ResidueWriter, residue_checksum
from .host_copies import StoredDtypes
from .reading import Sequences


def stored_dtypes(features: Sequence[str], dtype: str) -> StoredDtypes:
    """Return {feature: dtype} of the features that the forward gives: all but those of masked copies.

    Args:
        features: names of RESIDUES.
        dtype: of representations, float16 or float32.
    """
    forward = [name for name in features if not RESIDUES[name].of_masked]
    return {name: dtype if name == "representations" else "float32" for name in forward}


@dataclass(frozen=True)
class KeptResidues:
    """What is kept of each residue: features, the dtype of representations, and where they go."""

    writer: ResidueWriter
    sequences: Sequences
    features: list[str]
    dtype: str

    @property
    def dtypes(self) -> StoredDtypes:
        """The dtypes of the features that the forward gives, as they are written."""
        return stored_dtypes(self.features, self.dtype)

    def settings(self, settings: dict) -> dict:
        """Return what determines the values of each residue; `settings`: what determines the embeddings."""
        return settings | {"per_residue": self.dtype}

    def write(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the features of one sequence, {feature: dataset}; see `ResidueWriter.write`."""
        self.writer.write(self.sequences.digests[index], arrays, self.sequences.names[index])

    def differing(self, index: int, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the features of a sequence that have another checksum than the written ones."""
        digest = self.sequences.digests[index]
        return {f: x for f, x in arrays.items() if residue_checksum(digest, x) != self.writer.checksum(f, digest)}

    def kept(self, index: int, feature: str) -> np.ndarray:
        """Return the written values of a sequence."""
        return self.writer.values(feature, self.sequences.digests[index])
