"""Write a sample in the formats of other programs, in one pass over its Parquet file; each row is checked."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ..errors import OptionError
from ..sequences.chunk_sequences import read_sequences
from ..sequences.manifest import Manifest, embedded, read_manifest
from ..sequences.metadata import Metadata, match_metadata
from ..system.files import file_identity
from ..system.progress import progress_bar
from .embeddings import embedding_columns, sample_schema, sample_settings, vector_dtype
from .formats import Batch, Format, Sample, Write, h5_file, h5ad_file, ids_file, npy_file, skbio_file
from .integrity import checked_batches
from .settings import SETTINGS_KEY, to_metadata

log = logging.getLogger(__name__)


def export_sample(
    embeddings: Path,
    manifest_path: Path,
    name: str,
    *,
    h5: Sequence[tuple[str, Path]] = (),
    npy: Sequence[tuple[str, Path]] = (),
    ids: Sequence[Path] = (),
    skbio: Sequence[tuple[str, Path]] = (),
    h5ad: Path | None = None,
    chunks: Sequence[Path] = (),
    sequences: Mapping[str, str] | None = None,
    metadata: Path | None = None,
    others: Sequence[Format] = (),
) -> int:
    """Write the embeddings of one sample in the formats that have a path; return the number of records.

    Args:
        embeddings: the sample's Parquet file; each row is checked by the manifest and its checksum.
        manifest_path: of all samples.
        name: of the sample.
        h5: (column, path) of files in UniProt's layout.
        npy: (column, path) of matrices.
        ids: text files, one id per line, in the order of the matrices.
        skbio: (column, path) of files in scikit-bio's `embed` format.
        h5ad: AnnData file.
        chunks: FASTA files of the chunks, in the order of the manifest's `chunk`; h5 and skbio need the sequences.
        sequences: {digest: sequence}, if they were read for several samples at once.
        metadata: the user's sheet, whose columns go into the AnnData file.
        others: further formats, as `embedding.pt_files` has one.

    Raises:
        ValidationError, EmbeddingFileError: a file is damaged or does not match the manifest; the message names file
            and record.
        FastaError: a chunk cannot be read, or lacks a sequence.
        OptionError: a column is missing, or chunks are needed and not given.
        SheetError: a mistake in the metadata, or it has none of the run's proteins.
    """
    rows, known = _read_rows(manifest_path, name, metadata)
    texts: list[str] = []
    if h5 or skbio:
        sequences = sequences_of_samples(manifest_path, [name], chunks) if sequences is None else sequences
        texts = [sequences[digest] for digest in rows["digest"]]
    sample = _sample(embeddings, rows, texts, known)
    _check_columns(embeddings, sample, [column for column, _ in (*h5, *npy, *skbio)])
    formats: list[AbstractContextManager[Write]] = [
        *(h5_file(path, column, sample) for column, path in h5),
        *(npy_file(path, column, sample) for column, path in npy),
        *(ids_file(path, sample) for path in ids),
        *(skbio_file(path, column, sample) for column, path in skbio),
        *([h5ad_file(h5ad, sample)] if h5ad else []),
        *(file(sample) for file in others),
    ]
    start = 0
    with ExitStack() as stack, progress_bar(len(sample.rows), "records", f"exporting {name}") as bar:
        writers = [stack.enter_context(file) for file in formats]
        for table in checked_batches(embeddings, sample.rows):
            scalars = {column: table[column].to_numpy() for column in sample.scalars}
            vectors = embedding_columns(table.select(list(sample.widths)))
            batch = Batch(slice(start, start + len(table)), vectors, scalars)
            for write in writers:
                write(batch)
            start += len(table)
            bar.update(len(table))
    return start


def sequences_of_samples(manifest_path: Path, samples: Iterable[str], chunks: Sequence[Path]) -> dict[str, str]:
    """Return {digest: sequence} of the records of samples; each chunk is read once.

    Args:
        manifest_path: of all samples.
        samples: their names.
        chunks: FASTA files of the chunks, in the order of the manifest's `chunk`.

    Raises:
        FastaError: a chunk cannot be read, or lacks a sequence.
        OptionError: chunks are missing.
    """
    wanted: dict[str, int] = {}
    with Manifest(manifest_path) as manifest:
        for rows in (embedded(part) for sample in samples for part in manifest.batches(sample)):
            wanted |= zip(rows["digest"], rows["chunk"], strict=True)
    needed = max(wanted.values(), default=-1) + 1
    if len(chunks) < needed:
        raise OptionError(
            f"chunks: h5 and skbio need the sequences; give the FASTA files of all chunks: {len(chunks)} are given, "
            f"and the manifest names {needed}"
        )
    digests = list(wanted)
    return dict(zip(digests, read_sequences([chunks[i] for i in sorted(set(wanted.values()))], digests), strict=True))


def _read_rows(manifest_path: Path, name: str, sheet: Path | None) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return a sample's rows of the manifest that have an embedding, and their metadata."""
    if not sheet:
        return embedded(read_manifest(manifest_path, name)).sort_values("position"), {}
    files = [(path, tuple(file_identity(path) or ())) for path in (manifest_path, sheet)]
    rows, metadata = _matched(*files)
    chosen = (rows["sample"] == name).to_numpy()
    return rows[chosen], {column: metadata.values(column)[chosen] for column in metadata.sheet.columns}


@lru_cache(1)  # for the samples of a group
def _matched(manifest: tuple[Path, tuple], sheet: tuple[Path, tuple]) -> tuple[pd.DataFrame, Metadata]:
    """Return the rows of all samples and their metadata: the sheet may have none of one sample.

    The files are given with their identities, so that those of a changed file are read again.
    """
    rows = embedded(read_manifest(manifest[0])).sort_values("position")
    return rows, match_metadata(rows, sheet[0])


def _sample(embeddings: Path, rows: pd.DataFrame, sequences: list[str], known: dict[str, np.ndarray]) -> Sample:
    settings = sample_settings(embeddings)
    fields = list(sample_schema(embeddings))
    return Sample(
        rows,
        {field.name: field.type.list_size for field in fields if pa.types.is_fixed_size_list(field.type)},
        [field.name for field in fields if pa.types.is_float32(field.type)],
        to_metadata(settings)[SETTINGS_KEY].decode(),
        vector_dtype(settings),
        sequences,
        known,
    )


def _check_columns(embeddings: Path, sample: Sample, wanted: Sequence[str]) -> None:
    for column in wanted:
        if column not in sample.widths:
            raise OptionError(f"{embeddings}: no column {column!r} of embeddings; there are {', '.join(sample.widths)}")
    if wanted and sample.scalars:
        log.info("%s: one number per record, so it gets no .h5 or .npy file", ", ".join(sample.scalars))
