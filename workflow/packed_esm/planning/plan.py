"""What a run will make, from its settings: the model, the samples, and the files of results."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint
from .groups import sample_groups
from .inputs import number_of_chunks
from .resources import RECORD_BYTES
from .results import OF_COLUMNS, Results
from .samples import SampleReader


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        settings: of `read_config`.
        folder: of the workflow, with Snakefile and schemas/.
        in_module: another workflow uses this one, and may make FASTA files where it sets `chunks`.
    """

    settings: Mapping[str, Any]
    folder: Path
    in_module: bool = False

    @cached_property
    def model(self) -> Checkpoint:
        """The checkpoint."""
        return Checkpoint(self.settings)

    @cached_property
    def samples(self) -> dict[str, str]:
        """{sample: path of its FASTA file}."""
        return SampleReader(self.folder.parent, self.made_later, self.in_module).read(self.settings["samples"])

    @property
    def made_later(self) -> bool:
        """Whether FASTA files may be missing, because a rule of another workflow creates them."""
        return self.in_module and self.settings["chunks"] != "auto"

    @property
    def _growth(self) -> float:
        """Bytes of the embeddings for a byte of FASTA."""
        columns = len(self.settings["layers"]) * len(self.settings["pooling"])
        return 4 * self.model.shape.embed_dim * columns / RECORD_BYTES

    def results(self, folder: str = "") -> Results:
        """Return the files of results, in a folder; by default results/NAME."""
        return Results(
            folder or f"results/{self.model.results_name}",
            self.settings,
            self.samples,
            number_of_chunks(self.settings, self.samples.values()),
            self.model.columns() if OF_COLUMNS & set(self.settings["formats"]) else (),
            sample_groups(self.samples, None if self.made_later else self._growth),
        )
