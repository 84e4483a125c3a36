"""The files of a finished run, and what the page needs from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..sequences.manifest import embedded, read_manifest
from ..system.files import read_json

CONTACTS = ("contacts_abs_per_residue", "contacts_precision", "contacts_correlation")  # columns of the validation table


@dataclass(frozen=True)
class RunFiles:
    """Paths of the files that a run wrote.

    Attributes:
        samples: (name, Parquet file of its embeddings), in the order of the page.
        manifest, counts, rejected: outputs of chunk_fasta.py.
        stats: JSON of each embed job.
        validation, validation_table: outputs of validate.py.
    """

    samples: Sequence[tuple[str, Path]]
    manifest: Path
    counts: Path
    rejected: Path
    stats: Sequence[Path]
    validation: Path
    validation_table: Path


@dataclass(frozen=True)
class Run:
    """The content of these files; the embeddings themselves stay on disk.

    Attributes:
        files: the paths.
        proteins: rows of the manifest that were embedded, sample by sample.
        counts: records and residues, of each sample and in total.
        rejected: rejected and changed records, every cell as text.
        stats: {chunk: statistics of its embed job}.
        validation: summary of the validation.
        compared: errors of each compared sequence and layer.
    """

    files: RunFiles
    proteins: pd.DataFrame
    counts: dict
    rejected: pd.DataFrame
    stats: dict[str, dict]
    validation: dict
    compared: pd.DataFrame

    @property
    def sample_names(self) -> list[str]:
        """Names of the samples, in the order of the page."""
        return [name for name, _ in self.files.samples]


def read_run(files: RunFiles) -> Run:
    """Read everything but the embeddings.

    Raises:
        DamagedFileError: a file is not whole, or was changed.
    """
    rows = embedded(read_manifest(files.manifest))
    return Run(
        files=files,
        proteins=pd.concat([rows[rows["sample"] == name] for name, _ in files.samples]),
        counts=read_json(files.counts),
        rejected=pd.read_csv(files.rejected, sep="\t", dtype=str, keep_default_na=False),
        stats={path.stem: read_json(path) for path in files.stats},
        validation=read_json(files.validation),
        compared=_read_comparison(files.validation_table),
    )


def _read_comparison(path: Path) -> pd.DataFrame:
    return pd.read_csv(
        path,
        sep="\t",
        dtype={"sample": str, "id": str},
        keep_default_na=False,  # a sample may be called NA
        na_values=dict.fromkeys(CONTACTS, ""),  # these cells are empty where a contact map has no such measure
    )
