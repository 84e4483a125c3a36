"""Formats in which other programs read the embeddings of a sample.

Each is a context manager that yields a function that writes a batch. The file gets its name when all is written.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from ..errors import SheetError
from ..sequences.accessions import accession_of
from ..sequences.alphabet import MASKED, residue_count
from ..system.files import replacing
from .hdf5 import new_hdf5
from .names import dataset_names
from .settings import SETTINGS_KEY

MAX_OBS = 4000  # columns: their names are one attribute, of at most 64 KiB, 16 bytes each


@dataclass(frozen=True)
class Sample:
    """A sample, before its embeddings are read.

    Attributes:
        rows: of the manifest, those with an embedding, in input order.
        widths: {"mean_33": E, ...} of the columns of embeddings.
        scalars: names of the columns with one float32 per record.
        metadata: settings and fingerprint, as JSON.
        dtype: of the vectors in the Parquet file.
        sequences: of the rows, as they were embedded; empty if no format needs them.
        known: {column: float64 or object [n]} from the user's sheet, for the rows.
    """

    rows: pd.DataFrame
    widths: dict[str, int]
    scalars: list[str]
    metadata: str
    dtype: type[np.floating] = np.float32
    sequences: Sequence[str] = ()
    known: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Some records: `rows` of the sample, `columns` {name: float32 [n, E]}, `scalars` {name: float32 [n]}."""

    rows: slice
    columns: dict[str, np.ndarray]
    scalars: dict[str, np.ndarray]


Write = Callable[[Batch], None]
Format = Callable[[Sample], AbstractContextManager[Write]]


@contextmanager
def h5_file(path: Path, column: str, sample: Sample) -> Iterator[Write]:
    """Write a column as UniProt does (https://www.uniprot.org/help/embeddings): one dataset [E] per accession.

    The values are float32, or as `pooled_dtype` says (UniProt's are float16), in input order, which h5py keeps when it
    reads. A dataset has the attributes `original_id`, the record's id, and `biotrainer_hash`, the key that biotrainer
    would give the dataset.
    """
    ids = sample.rows["id"].tolist()
    records = list(zip(dataset_names(ids), ids, sample.sequences, strict=True))
    with new_hdf5(path, track_order=True) as file:
        file.attrs[SETTINGS_KEY.decode()] = sample.metadata

        def write(batch: Batch) -> None:
            for (name, record_id, sequence), row in zip(records[batch.rows], batch.columns[column], strict=True):
                attributes = {"original_id": record_id, "biotrainer_hash": biotrainer_hash(sequence)}
                file.create_dataset(name, data=row.astype(sample.dtype, copy=False)).attrs.update(attributes)

        yield write


def biotrainer_hash(sequence: str) -> str:
    """Return the sha256, in hexadecimal digits, of `SEQUENCE_LENGTH`, as biotrainer's calculate_sequence_hash does.

    https://github.com/sacdallago/biotrainer, biotrainer/utilities/hashing.py. The sequence is as it was embedded; the
    length is that of the text.
    """
    return hashlib.sha256(f"{sequence}_{len(sequence)}".encode("ascii")).hexdigest()


@contextmanager
def skbio_file(path: Path, column: str, sample: Sample) -> Iterator[Write]:
    """Write a column in scikit-bio's `embed` format 1.0, from which it reads ProteinVector objects.

    https://scikit.bio/docs/latest/generated/skbio.io.format.embed.html: `id` has the sequences one after the other,
    `idptr` where each ends, `embedding` the vectors, float32 [n, E], and `embedding_ptr` where the rows of each end. A
    protein of scikit-bio has no masks: they become X. We add the dataset `original_id`, with the ids of the records.
    """
    ends = np.cumsum([0, *map(residue_count, sample.sequences)], dtype=np.int64)
    count, width = len(sample.sequences), sample.widths[column]
    with new_hdf5(path) as file:
        file.attrs.update({"format": "embedding", "format-version": "1.0", "dtype": "float32", "dim": width})
        file.attrs[SETTINGS_KEY.decode()] = sample.metadata
        file["idptr"], file["embedding_ptr"] = ends[1:], np.arange(1, count + 1)
        file.create_dataset("original_id", data=sample.rows["id"].tolist(), shape=count, dtype=h5py.string_dtype())
        letters = file.create_dataset("id", ends[-1:], np.uint8)
        matrix = file.create_dataset("embedding", (count, width), np.float32)

        def write(batch: Batch) -> None:
            matrix[batch.rows] = batch.columns[column]
            text = "".join(sample.sequences[batch.rows]).replace(MASKED, "X")
            start = ends[batch.rows.start]
            letters[start : start + len(text)] = np.frombuffer(text.encode("ascii"), np.uint8)

        yield write


@contextmanager
def npy_file(path: Path, column: str, sample: Sample) -> Iterator[Write]:
    """Write a column as a matrix [n, E], float32 or as `pooled_dtype` says."""
    shape = (len(sample.rows), sample.widths[column])
    # Not as a memory map: on a full disk that ends the process.
    with replacing(path) as temporary, temporary.open("wb") as handle:
        dtype = np.dtype(sample.dtype).newbyteorder("<")
        np.lib.format.write_array_header_1_0(handle, {"descr": dtype.str, "fortran_order": False, "shape": shape})
        yield lambda batch: handle.write(np.ascontiguousarray(batch.columns[column], dtype=dtype))


@contextmanager
def ids_file(path: Path, sample: Sample) -> Iterator[Write]:
    """Write the ids, one per line (UTF-8); an id has no white space."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        yield lambda batch: handle.writelines(f"{record_id}\n" for record_id in sample.rows["id"].iloc[batch.rows])


@contextmanager
def h5ad_file(path: Path, sample: Sample) -> Iterator[Write]:
    """Write an AnnData file: X is the first column, obsm the others, uns the settings.

    obs has the manifest, accessions, scalars, and the columns of the user's sheet.

    Matrices are written batch by batch, as anndata's own on-disk format has them
    (https://anndata.readthedocs.io/en/stable/fileformat-prose.html), because an AnnData would hold all in memory.
    Keys without a value are left out, because anndata before 0.12 cannot read `null`. It cannot read pandas' own type
    of strings either, so all texts are objects.
    """
    from anndata.io import write_elem

    first, *others = sample.widths
    places = {first: "X"} | {column: f"obsm/{column}" for column in others}
    obs = _observations(sample)
    with new_hdf5(path) as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("layers", "obsm", "obsp", "varm", "varp"):
            write_elem(file, name, {})
        for column, place in places.items():
            matrix = file.create_dataset(place, (len(obs), sample.widths[column]), np.float32)
            matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

        def write(batch: Batch) -> None:
            for column, place in places.items():
                file[place][batch.rows] = batch.columns[column]
            for column, values in batch.scalars.items():
                obs.iloc[batch.rows, obs.columns.get_loc(column)] = values

        yield write
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=pd.Index(map(str, range(sample.widths[first])), dtype=object)))
        write_elem(file, "uns", {SETTINGS_KEY.decode(): _without_null(json.loads(sample.metadata))})


def _observations(sample: Sample) -> pd.DataFrame:
    """Return obs: manifest, accessions, empty scalars, and the user's columns, which are renamed if a name is used."""
    rows = sample.rows.drop(columns="id")
    columns = {name: values.to_numpy(object if values.dtype.kind in "OU" else None) for name, values in rows.items()}
    columns["accession"] = np.array([accession_of(record_id) for record_id in sample.rows["id"]], dtype=object)
    columns |= {name: np.zeros(len(rows), np.float32) for name in sample.scalars}
    for name, values in zip(dataset_names(list(sample.known)), sample.known.values(), strict=True):
        while name in columns or name in ("id", "_index"):
            name = f"metadata_{name}"
        columns[name] = values
    if len(columns) > MAX_OBS:
        raise SheetError(
            f"metadata: {len(sample.known):,} columns are more than the {MAX_OBS - len(columns) + len(sample.known):,} "
            "that an h5ad file has room for; leave some out of the sheet, or leave h5ad out of formats"
        )
    index = pd.Index(sample.rows["id"], dtype=object, name="id")
    # Each keeps its dtype; otherwise pandas 3 would make strings of its own type.
    return pd.DataFrame({name: pd.Series(values, index, values.dtype) for name, values in columns.items()}, index)


def _without_null(value: Any) -> Any:  # noqa: ANN401 (JSON)
    """Return JSON without the keys that have no value."""
    if isinstance(value, dict):
        return {key: _without_null(one) for key, one in value.items() if one is not None}
    return value
