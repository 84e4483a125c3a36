"""Keep values of each residue while a job embeds: in what dtype, and in which files."""

from dataclasses import dataclass

import numpy as np

from ..store.residues import ResidueWriter, residue_checksum
from .reading import Sequences
from .residue_arrays import residue_arrays


@dataclass(frozen=True)
class KeptResidues:
    """What is kept of each residue: features, the dtype of representations, and where they go."""

    writer: ResidueWriter
    sequences: Sequences
    features: list[str]
    dtype: str

    def settings(self, settings: dict) -> dict:
        """Return what determines the values of each residue; `settings`: what determines the embeddings."""
        return settings | {"per_residue": self.dtype}

    def write(self, index: int, out: dict) -> None:
        """Write the features of one sequence; `out`: what `Embedder.embed` hands out for it."""
        self.writer.write(self.sequences.digests[index], self._arrays(index, out))

    def differing(self, index: int, out: dict) -> dict[str, np.ndarray]:
        """Return the features of a sequence that have another checksum than what was written."""
        digest = self.sequences.digests[index]
        arrays = self._arrays(index, out).items()
        return {f: x for f, x in arrays if residue_checksum(digest, x) != self.writer.checksum(f, digest)}

    def kept(self, index: int, feature: str) -> np.ndarray:
        """Return what was written."""
        return self.writer.values(feature, self.sequences.digests[index])

    def _arrays(self, index: int, out: dict) -> dict[str, np.ndarray]:
        features = [feature for feature in self.features if feature in out]  # those of masked copies come by themselves
        return residue_arrays(out, features, self.dtype, self.sequences.names[index])
