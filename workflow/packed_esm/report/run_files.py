"""The files of a finished run, and what the page needs from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..outputs.table import MEASURES
from ..sequences.manifest import ACCEPTED, REJECTED, SCHEMA, Manifest
from ..system.files import read_json

MAX_REJECTS_SHOWN = 1000


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
        counts: records and residues, of each sample and in total.
        rejected: the first rejected and changed records, every cell as text.
        stats: {chunk: statistics of its embed job}.
        validation: summary of the validation.
        compared: errors of each compared sequence and layer.
    """

    files: RunFiles
    counts: dict
    rejected: pd.DataFrame
    stats: dict[str, dict]
    validation: dict
    compared: pd.DataFrame

    @property
    def sample_names(self) -> list[str]:
        """Names of the samples, in the order of the page."""
        return [name for name, _ in self.files.samples]

    @property
    def embedded(self) -> int:
        """Number of records that have an embedding."""
        return self.counts["records"] - self.counts[REJECTED]

    @property
    def unusual(self) -> int:
        """Number of rejected and changed records."""
        return self.counts["records"] - self.counts[ACCEPTED]


@dataclass(frozen=True)
class Proteins:
    """What the page needs of the manifest.

    Attributes:
        drawn: some of the rows that have an embedding.
        lengths: {sample: residues of all of them, int32 [n]}.
    """

    drawn: pd.DataFrame
    lengths: dict[str, np.ndarray]


def read_run(files: RunFiles) -> Run:
    """Read everything but the embeddings and the manifest.

    Raises:
        DamagedFileError: a file is incomplete, or was changed.
    """
    return Run(
        files=files,
        counts=read_json(files.counts),
        rejected=pd.read_csv(files.rejected, sep="\t", dtype=str, keep_default_na=False, nrows=MAX_REJECTS_SHOWN),
        stats={path.stem: read_json(path) for path in files.stats},
        validation=read_json(files.validation),
        compared=_read_comparison(files.validation_table),
    )


def read_proteins(files: RunFiles, rows: np.ndarray) -> Proteins:
    """Read the manifest, sample by sample.

    Args:
        files: of the run.
        rows: which proteins to keep whole, int64 [n], ascending; numbered over all samples, those without an embedding
            left out.

    Raises:
        DamagedFileError: the manifest is incomplete, or was changed.
    """
    start, drawn, lengths = 0, [SCHEMA.empty_table().to_pandas()], {}
    with Manifest(files.manifest) as manifest:
        for sample in (name for name, _ in files.samples):
            of_sample = [np.zeros(0, np.int32)]
            for batch in manifest.embedded(sample):
                here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(batch))]
                drawn.append(batch.iloc[here - start])
                of_sample.append(batch["length"].to_numpy())
                start += len(batch)
            lengths[sample] = np.concatenate(of_sample)
    return Proteins(pd.concat([some for some in drawn if len(some)] or drawn[:1]), lengths)


def _read_comparison(path: Path) -> pd.DataFrame:
    return pd.read_csv(
        path,
        sep="\t",
        dtype={"sample": str, "id": str},
        keep_default_na=False,  # a sample may be called NA
        na_values={measure.name: "" for measure in MEASURES.values() if measure.may_be_absent},
    )
