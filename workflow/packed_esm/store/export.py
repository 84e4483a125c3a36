"""Write a sample in the formats of other programs, in one pass over its Parquet file; each row is checked."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ..errors import OptionError
from ..sequences.chunk_sequences import read_sequences
from ..sequences.manifest import Manifest, embedded
from ..sequences.metadata import match_metadata
from ..system.files import file_identity
from ..system.progress import progress_bar
from .embeddings import embedding_columns, sample_schema, sample_settings, vector_dtype
from .formats import Batch, Format, Sample, Write, h5_file, h5ad_file, ids_file, npy_file, skbio_file
from .integrity import checked_batches
from .settings import SETTINGS_KEY, to_metadata

log = logging.getLogger(__name__)

HELD_RESIDUES = 2**27  # of sequences in memory, which take 2 to 3.5 times as many bytes


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
        _, sequences = next(with_sequences(manifest_path, [name], chunks)) if sequences is None else (name, sequences)
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


def with_sequences(
    manifest_path: Path, samples: Iterable[str], chunks: Sequence[Path]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (sample, {digest: sequence} of its records, and perhaps of others).

    A chunk is read once for as many samples as have HELD_RESIDUES, or for one that has more.

    Args:
        manifest_path: of all samples.
        samples: their names.
        chunks: FASTA files of the chunks, in the order of the manifest's `chunk`.

    Raises:
        FastaError: a chunk cannot be read, or lacks a sequence.
        OptionError: chunks are missing.
    """
    held: list[str] = []
    wanted: dict[str, int] = {}
    residues = 0
    with Manifest(manifest_path) as manifest:
        for sample in samples:
            rows = embedded(manifest.rows(sample))
            if held and residues + rows["length"].sum() > HELD_RESIDUES:
                yield from zip(held, itertools.repeat(_sequences(wanted, chunks)))
                held, wanted, residues = [], {}, 0
            held.append(sample)
            wanted |= zip(rows["digest"], rows["chunk"], strict=True)
            residues += rows["length"].sum()
    yield from zip(held, itertools.repeat(_sequences(wanted, chunks)))


def _sequences(wanted: Mapping[str, int], chunks: Sequence[Path]) -> dict[str, str]:
    """Return {digest: sequence}; `wanted` is {digest: number of its chunk}."""
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
    manifest = manifest_path, tuple(file_identity(manifest_path) or ())
    if not sheet:
        return embedded(_opened(*manifest).rows(name)).sort_values("position"), {}
    matched = _matched(manifest, (sheet, tuple(file_identity(sheet) or ())))
    place = matched.places.get(name, [])
    return matched.rows.iloc[place], {column: values[place] for column, values in matched.columns.items()}


@lru_cache(1)  # for the samples of a group
def _opened(path: Path, identity: tuple) -> Manifest:  # noqa: ARG001 - a changed file is opened again
    return Manifest(path)


class _Matched(NamedTuple):
    """The rows of all samples that have an embedding, their metadata by column, and the places of each sample."""

    rows: pd.DataFrame
    columns: dict[str, np.ndarray]
    places: dict[str, np.ndarray]


@lru_cache(1)  # for the samples of a group
def _matched(manifest: tuple[Path, tuple], sheet: tuple[Path, tuple]) -> _Matched:
    """Return the rows of all samples and their metadata: the sheet may have none of one sample.

    The files are given with their identities, so that those of a changed file are read again.
    """
    rows = embedded(_opened(*manifest).rows()).sort_values("position")
    metadata = match_metadata(rows, sheet[0])
    columns = {column: metadata.values(column) for column in metadata.sheet.columns}
    return _Matched(rows, columns, rows.groupby("sample").indices)


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
