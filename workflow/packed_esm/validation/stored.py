"""Read the data to compare: the sequences, again from the FASTA files, and their stored values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..embedding.host_copies import Forms
from ..embedding.kept_residues import forms_of
from ..embedding.options import StorageOptions
from ..errors import ValidationError
from ..outputs.forms import StoredValues
from ..sequences.alphabet import first_residues, invalid_characters, normalise, refget_digest, replace_invalid
from ..sequences.fasta import read_records
from ..sequences.manifest import ACCEPTED, Manifest, embedded
from ..store.embeddings import embedding_columns, sample_batches, sample_settings
from ..store.names import dataset_names
from ..store.residues import RESIDUE_FILE, open_residues, residue_settings, stored_values


def read_sequences(samples: Sequence[tuple[str, Path, Path]], chosen: pd.DataFrame) -> list[str]:
    """Return the sequences of the chosen records, read again from the FASTA files of the samples.

    Raises:
        ValidationError: the sequence of a record does not match its digest in the manifest.
    """
    found: dict[int, str] = {}
    for sample, fasta, _ in samples:
        wanted = {int(r.position): r for r in chosen[chosen["sample"] == sample].itertuples()}
        for position, record in enumerate(read_records(fasta) if wanted else ()):
            row = wanted.pop(position, None)
            if row is None:
                continue
            sequence = normalise(record.sequence)
            if row.status != ACCEPTED:  # the changes that chunk_fasta made
                sequence = first_residues(replace_invalid(sequence), row.length)
            if invalid_characters(sequence) or refget_digest(sequence) != row.digest:
                raise ValidationError(
                    f"{fasta}, line {record.line}: sequence {row.id!r} is not the one in the manifest; "
                    "the file changed during the run, run again"
                )
            found[row.Index] = sequence
            if not wanted:
                break
        if wanted:
            raise ValidationError(f"{fasta}: {len(wanted)} records of the manifest are missing; run again")
    return [found[i] for i in range(len(chosen))]


def read_rows(samples: Sequence[tuple[str, Path, Path]], chosen: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the stored embeddings of the chosen records, {column: float32 [n, E]}."""
    stored: dict[str, np.ndarray] = {}
    for sample, _, path in samples:
        wanted = {r.id: r.Index for r in chosen[chosen["sample"] == sample].itertuples()}
        for table in sample_batches(path) if wanted else ():
            hits = [(i, wanted[name]) for i, name in enumerate(table["id"].to_pylist()) if name in wanted]
            if not hits:
                continue
            source, target = map(list, zip(*hits, strict=True))
            for name, matrix in embedding_columns(table).items():
                stored.setdefault(name, np.full((len(chosen), matrix.shape[1]), np.nan, np.float32))
                stored[name][target] = matrix[source]
    return stored


@dataclass(frozen=True)
class Stored:
    """The stored values of the chosen sequences.

    Attributes:
        columns: {column: float32 [n, width]}.
        residues: {feature: values} for each sequence.
        settings: of the files of embeddings.
        forms: {feature: how its values are stored}.
    """

    columns: dict[str, np.ndarray]
    residues: list[dict[str, StoredValues]]
    settings: Mapping
    forms: Forms


def read_stored(
    samples: Sequence[tuple[str, Path, Path]],
    residues: Mapping[tuple[str, str], Path],
    manifest_path: Path,
    chosen: pd.DataFrame,
) -> Stored:
    """Return the stored values of the chosen records.

    Args:
        samples: (name, FASTA path, Parquet path).
        residues: {(sample, feature): path}.
        manifest_path: of all samples.
        chosen: some of its rows that have an embedding.

    Raises:
        EmbeddingFileError: a file is damaged.
    """
    found: list[dict[str, StoredValues]] = [{} for _ in range(len(chosen))]
    with Manifest(manifest_path) as manifest:
        for (sample, feature), path in residues.items():
            of_sample = chosen[chosen["sample"] == sample]
            if of_sample.empty:
                continue
            ids = embedded(manifest.rows(sample))["id"].tolist()
            names = dict(zip(ids, dataset_names(ids), strict=True))
            with open_residues(path) as file:
                for record in of_sample.itertuples():
                    name = names[record.id]
                    with RESIDUE_FILE.reading(path):
                        found[record.Index][feature] = stored_values(file[name])
    options = [StorageOptions.of_file(residue_settings(path))[0] for path in residues.values()]
    forms = forms_of({feature for _, feature in residues}, options[0]) if options else {}
    return Stored(read_rows(samples, chosen), found, sample_settings(samples[0][2]), forms)
