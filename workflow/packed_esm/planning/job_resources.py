"""Memory and minutes of the jobs of each rule, as Snakemake asks for them when a job starts.

Each method is a function of a rule's `resources`: of its input files, whose sizes count, and of the attempt. A file
that is not there yet (at the start, in a dry run) raises FileNotFoundError, and Snakemake shows <TBD>.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.registry import ModelShape
from . import resources as needed
from .inputs import fasta_bytes

Input = Any  # Snakemake's, with the names of the rule
Wildcards = Any


@dataclass(frozen=True)
class JobResources:
    """What jobs need with these settings and a model of this shape."""

    settings: Mapping[str, Any]
    shape: ModelShape
    residue_files: bool

    @property
    def gpus(self) -> int:
        """GPUs of a job that runs the model."""
        return 0 if self.settings["device"] == "cpu" else 1

    @property
    def _columns(self) -> int:
        return len(self.settings["layers"]) * len(self.settings["pooling"])

    @property
    def _share(self) -> float:
        """How many times each sequence is embedded: some are embedded twice."""
        return 1 + self.settings["validation"]["repeat"]

    def translating_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of translate."""
        return needed.translating_memory_mb(fasta_bytes([input.fasta]), attempt)

    def translating_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of translate."""
        return needed.translating_minutes(fasta_bytes([input.fasta]), attempt)

    def chunking_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of chunk_fasta."""
        return needed.chunking_memory_mb(fasta_bytes(input.fasta), attempt)

    def chunking_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of chunk_fasta."""
        return needed.chunking_minutes(fasta_bytes(input.fasta), attempt)

    def embedding_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of embed_chunk; a sequence that is embedded twice has two vectors."""
        base = needed.embedding_memory_mb(self.shape, _size(input.fasta), self._columns * self._share, attempt)
        return base + (needed.RESIDUES_MB * attempt if self.residue_files else 0)

    def embedding_minutes(self, wildcards: Wildcards, input: Input, threads: int, attempt: int) -> int:  # noqa: A002
        """Return minutes of embed_chunk."""
        residues = _size(input.fasta) * self._share
        return needed.embedding_minutes(self.shape, residues, bool(self.gpus), threads, attempt)

    def merging_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of merge_sample and merge_residues."""
        return needed.tables_memory_mb(needed.MERGE_MB, _size(input.manifest), attempt)

    def merging_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of merge_sample and merge_residues."""
        return needed.tables_minutes(_size(input.manifest, *input.chunks), attempt)

    def exporting_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of export_sample."""
        return needed.exporting_memory_mb(
            self.shape, _size(input.manifest), self._columns, attempt, chunk_bytes=_size(*input.chunks)
        )

    def exporting_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of export_sample."""
        return needed.exporting_minutes(self.shape, _size(input.embeddings), attempt)

    def validation_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of validate."""
        return needed.validation_memory_mb(self.shape, _size(input.manifest), attempt)

    def validation_minutes(self, wildcards: Wildcards, input: Input, threads: int, attempt: int) -> int:  # noqa: A002
        """Return minutes of validate."""
        read = fasta_bytes(input.fasta) + _size(input.manifest, *input.embeddings, *input.residue_values)
        sequences = self.settings["validation"]["sequences"]
        return needed.validation_minutes(self.shape, sequences, read, bool(self.gpus), threads, attempt)

    def report_mb(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return MB of make_report."""
        return needed.tables_memory_mb(needed.REPORT_MB, _size(input.manifest), attempt)

    def report_minutes(self, wildcards: Wildcards, input: Input, attempt: int) -> int:  # noqa: A002
        """Return minutes of make_report."""
        return needed.tables_minutes(_size(input.manifest, *input.embeddings), attempt)


def _size(*paths: str) -> int:
    """Return the bytes of files."""
    return sum(Path(path).stat().st_size for path in paths)


def embedding_threads(cores: int | None, gpus: int) -> int:
    """Return the CPU threads of a job that runs the model: all cores, shared among as many jobs as may run at once.

    Args:
        cores: of this machine for the run; None where Snakemake was not told.
        gpus: jobs that run the model at once.
    """
    return max(1, (cores or 8) // max(1, gpus))
