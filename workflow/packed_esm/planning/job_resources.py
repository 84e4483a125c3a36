"""Memory (MB) and minutes of the jobs of each rule, for `resources` of the rules.

Snakemake calls each method when a job starts. The result depends on the sizes of the input files and on the attempt. If
a file does not exist yet (at the start, in a dry run), the method raises FileNotFoundError, and Snakemake shows <TBD>.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..embedding.earlier_places import EarlierPlaces
from ..families import ModelShape
from ..outputs.table import needs_masked_copies
from . import resources as estimates
from .inputs import fasta_bytes

Input = Any  # Snakemake's, with the names of the rule's input
Wildcards = Any


@dataclass(frozen=True)
class JobResources:
    """The memory and time of jobs with these settings and a model of this shape."""

    settings: Mapping[str, Any]
    shape: ModelShape
    residue_files: bool

    @property
    def gpus(self) -> int:
        """GPUs of a job that runs the model."""
        return 0 if self.settings["device"] in ("cpu", "mps") else 1

    @property
    def _streamed(self) -> int | None:
        """Bytes of a parameter that is streamed from the host; `auto`, which may stream, asks for more than that."""
        if not self.gpus or self.settings["weights"] != "streamed":
            return None
        return 4 if self.settings["dtype"] == "fp32" else 2

    @property
    def _columns(self) -> int:
        return len(self.settings["layers"]) * len(self.settings["pooling"])

    @property
    def _share(self) -> float:
        """How often a sequence is embedded on average: some are embedded twice."""
        return 1 + self.settings["validation"]["repeat"]

    def translating_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of translate."""
        return estimates.translating_memory_mb(fasta_bytes([input.fasta]), attempt)

    def translating_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of translate."""
        return estimates.translating_minutes(fasta_bytes([input.fasta]), attempt)

    def chunking_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of chunk_fasta."""
        return estimates.chunking_memory_mb(fasta_bytes(input.fasta), attempt)

    def chunking_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of chunk_fasta."""
        return estimates.chunking_minutes(fasta_bytes(input.fasta), attempt)

    def looking_up_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of look_up."""
        return estimates.looking_up_memory_mb(_size(input.manifest), attempt)

    def looking_up_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of look_up, as if earlier results had as many digests as the run."""
        return estimates.tables_minutes(_size(input.manifest, *input.model), attempt)

    def embedding_gpus(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return the GPUs of embed_chunk: none if earlier results have all of its sequences.

        A second attempt has one, because a file of these results may be damaged. So has a job that writes values of
        each residue: only who reads them knows whether they are all there.
        """
        return 0 if attempt == 1 and self._is_copied(input) else self.gpus

    def _is_copied(self, input: Input) -> bool:  # noqa: A002
        fasta = Path(input.fasta)
        return EarlierPlaces.read(Path(input.earlier)).have_all(fasta.name) and not self.residue_files

    def embedding_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of embed_chunk; a sequence that is embedded twice has two vectors."""
        if attempt == 1 and self._is_copied(input):
            return estimates.copying_memory_mb(self.shape, _size(input.fasta), self._columns)
        columns = self._columns * self._share
        base = estimates.embedding_memory_mb(self.shape, _size(input.fasta), columns, attempt, self._streamed)
        if not self.residue_files:
            return base
        layers, contacts = len(self.settings["layers"]), "contacts" in self.settings["include"]
        return base + estimates.residues_memory_mb(self.shape, layers, contacts, bool(self.gpus), attempt)

    def embedding_minutes(self, wildcards: Wildcards, input: Input, threads: int, attempt: int) -> int:  # noqa: A002
        """Return minutes of embed_chunk."""
        residues = _size(input.fasta) * self._share
        copies = needs_masked_copies(self.settings["include"])
        return estimates.embedding_minutes(self.shape, residues, bool(self.gpus), threads, attempt, copies)

    def merging_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """Return MB of merge_samples, which reads rows of the manifest in parts."""
        return estimates.merging_memory_mb(attempt)

    def merging_residues_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of merge_residues, which holds the rows of some samples: at most those of all."""
        return estimates.tables_memory_mb(estimates.MERGE_MB, _size(input.manifest), attempt)

    def merging_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of merge_samples and merge_residues."""
        return estimates.tables_minutes(_size(input.manifest, *input.chunks), attempt)

    def exporting_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of export_samples."""
        return estimates.exporting_memory_mb(
            self.shape, _size(input.manifest), self._columns, attempt, chunk_bytes=_size(*input.chunks)
        )

    def exporting_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of export_samples."""
        return estimates.exporting_minutes(self.shape, _size(*input.embeddings), attempt)

    def validation_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of validate."""
        manifest = _size(input.manifest) if input.residue_values else 0
        return estimates.validation_memory_mb(self.shape, manifest, attempt)

    def validation_minutes(self, wildcards: Wildcards, input: Input, threads: int, attempt: int) -> int:  # noqa: A002
        """Return minutes of validate."""
        read = fasta_bytes(input.fasta) + _size(input.manifest, *input.embeddings, *input.residue_values)
        sequences = self.settings["validation"]["sequences"]
        return estimates.validation_minutes(self.shape, sequences, read, bool(self.gpus), threads, attempt)

    def scoring_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of score_variants."""
        return estimates.scoring_memory_mb(self.shape, _size(*input.table), attempt, self._streamed)

    def scoring_minutes(self, wildcards: Wildcards, input: Input, threads: int, attempt: int) -> int:  # noqa: A002
        """Return minutes of score_variants."""
        masks = "pseudo_log_likelihood" in self.settings["variant_scores"]
        read = _size(input.manifest, *input.chunks)
        return estimates.scoring_minutes(
            self.shape, _size(*input.table), read, bool(self.gpus), threads, masks, attempt
        )

    def report_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of make_report."""
        return estimates.report_memory_mb(_size(input.manifest), attempt)

    def report_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of make_report."""
        return estimates.tables_minutes(_size(input.manifest, *input.embeddings), attempt)


def _size(*paths: str) -> int:
    """Return the bytes of files, and of those in folders."""
    files = (part for path in map(Path, paths) for part in (path.iterdir() if path.is_dir() else [path]))
    return sum(file.stat().st_size for file in files)


def embedding_threads(cores: int | None, gpus: int) -> int:
    """Return the CPU threads of a job that runs the model: all cores, shared among as many jobs as may run at once.

    Args:
        cores: of this machine for the run; None if Snakemake was not given a number.
        gpus: jobs that run the model at once.
    """
    return max(1, (cores or 8) // max(1, gpus))
