"""Keep values of each residue while a job embeds: in what form, and in which files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..outputs.forms import Form
from ..outputs.table import RESIDUES
from ..store.residues import ResidueWriter
from .host_copies import Forms
from .options import StorageOptions
from .reading import Sequences


def forms_of(features: Iterable[str], options: StorageOptions) -> Forms:
    """Return how the values of each feature are stored; `features`: names of RESIDUES."""
    triangle = options.contact_maps == "triangle"
    return {
        name: Form(options.include_dtype, triangle and RESIDUES[name].layout.is_symmetric)
        if RESIDUES[name].in_include
        else Form(options.residue_dtype)
        for name in features
    }


@dataclass(frozen=True)
class KeptResidues:
    """What is kept of each residue: features and their forms, and where they go."""

    writer: ResidueWriter
    sequences: Sequences
    forms: Forms

    @property
    def of_forward(self) -> Forms:
        """The features that the forward gives: all but those of masked copies."""
        return {name: form for name, form in self.forms.items() if not RESIDUES[name].of_masked}

    def write(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the features of one sequence, {feature: values}; see `ResidueWriter.write`."""
        self.writer.write(self.sequences.digests[index], arrays, self.sequences.names[index])

    def differing(self, index: int, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the features of a sequence of which other values are written; as they would be stored."""
        digest = self.sequences.digests[index]
        stored = {feature: self.forms[feature].stored(values) for feature, values in arrays.items()}
        return {f: x.decoded for f, x in stored.items() if not self.writer.has(f, digest, x)}

    def kept(self, index: int, feature: str) -> np.ndarray:
        """Return the written values of a sequence."""
        return self.writer.values(feature, self.sequences.digests[index]).decoded
