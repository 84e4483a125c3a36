"""Files for other programs, made of a sample's Parquet file and the manifest, in one pass of checked batches.

Each format is a context manager that yields what takes a batch; its file stands under its name when all is written.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..errors import OptionError
from ..sequences.manifest import embedded, read_manifest
from ..system.files import replacing
from ..system.progress import progress_bar
from .embeddings import embedding_columns, sample_schema, sample_settings
from .hdf5 import new_hdf5
from .integrity import checked_batches
from .names import dataset_names
from .settings import SETTINGS_KEY, to_metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """What is known of a sample before its embeddings are read.

    Attributes:
        rows: of the manifest, those with an embedding, in input order.
        widths: {"mean_33": E, ...} of the columns of embeddings.
        scalars: names of the columns with one float32 a record.
        metadata: settings and fingerprint, as JSON.
    """

    rows: pd.DataFrame
    widths: dict[str, int]
    scalars: list[str]
    metadata: str


@dataclass(frozen=True)
class Batch:
    """Some records: `rows` of the sample, `columns` {name: float32 [n, E]}, `scalars` {name: float32 [n]}."""

    rows: slice
    columns: dict[str, np.ndarray]
    scalars: dict[str, np.ndarray]


Write = Callable[[Batch], None]
Format = Callable[[Sample], AbstractContextManager[Write]]


def export_sample(
    embeddings: Path,
    manifest_path: Path,
    name: str,
    *,
    h5: Sequence[tuple[str, Path]] = (),
    npy: Sequence[tuple[str, Path]] = (),
    ids: Sequence[Path] = (),
    h5ad: Path | None = None,
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
        h5ad: AnnData file.
        others: further formats, as `embedding.pt_files` has one.

    Raises:
        ValidationError, EmbeddingFileError: a file that is damaged or not the manifest's; file and record are named.
        ValueError: a column that is not there.
    """
    sample = _sample(embeddings, embedded(read_manifest(manifest_path, name)).sort_values("position"))
    _check_columns(embeddings, sample, [column for column, _ in (*h5, *npy)])
    formats: list[AbstractContextManager[Write]] = [
        *(h5_file(path, column, sample) for column, path in h5),
        *(npy_file(path, column, sample) for column, path in npy),
        *(ids_file(path, sample) for path in ids),
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


def _sample(embeddings: Path, rows: pd.DataFrame) -> Sample:
    settings = sample_settings(embeddings)
    fields = list(sample_schema(embeddings))
    return Sample(
        rows,
        {field.name: field.type.list_size for field in fields if pa.types.is_fixed_size_list(field.type)},
        [field.name for field in fields if pa.types.is_float32(field.type)],
        to_metadata(settings)[SETTINGS_KEY].decode(),
    )


def _check_columns(embeddings: Path, sample: Sample, wanted: Sequence[str]) -> None:
    for column in wanted:
        if column not in sample.widths:
            raise OptionError(f"{embeddings}: no column {column!r} of embeddings; there are {', '.join(sample.widths)}")
    if wanted and sample.scalars:
        log.info("%s: one number a record, so in no .h5 or .npy file of its own", ", ".join(sample.scalars))


@contextmanager
def h5_file(path: Path, column: str, sample: Sample) -> Iterator[Write]:
    """Write a column as UniProt does (https://www.uniprot.org/help/embeddings): one dataset [E] an accession.

    float32, where UniProt's are float16; in input order, which h5py follows when it reads.
    """
    names, ids = dataset_names(sample.rows["id"].tolist()), sample.rows["id"].tolist()
    with new_hdf5(path, track_order=True) as file:
        file.attrs[SETTINGS_KEY.decode()] = sample.metadata

        def write(batch: Batch) -> None:
            for name, record_id, row in zip(names[batch.rows], ids[batch.rows], batch.columns[column], strict=True):
                file.create_dataset(name, data=row).attrs["original_id"] = record_id

        yield write


@contextmanager
def npy_file(path: Path, column: str, sample: Sample) -> Iterator[Write]:
    """Write a column as a matrix, float32 [n, E]."""
    shape = (len(sample.rows), sample.widths[column])
    # Not as a memory map: on a full disk that ends the process.
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, {"descr": "<f4", "fortran_order": False, "shape": shape})
        yield lambda batch: handle.write(np.ascontiguousarray(batch.columns[column], dtype="<f4"))


@contextmanager
def ids_file(path: Path, sample: Sample) -> Iterator[Write]:
    """Write the ids, one a line (UTF-8); an id has no white space."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        yield lambda batch: handle.writelines(f"{record_id}\n" for record_id in sample.rows["id"].iloc[batch.rows])


@contextmanager
def h5ad_file(path: Path, sample: Sample) -> Iterator[Write]:
    """Write an AnnData file: X is the first column, obsm the others, obs the manifest and scalars, uns the settings.

    Matrices are written batch by batch, as anndata's own on-disk format has them
    (https://anndata.readthedocs.io/en/stable/fileformat-prose.html), because an AnnData would hold all in memory.
    What has no value is left out: anndata before 0.12 cannot read the `null` that stands for it since.
    """
    from anndata.io import write_elem

    first, *others = sample.widths
    places = {first: "X"} | {column: f"obsm/{column}" for column in others}
    obs = sample.rows.set_index("id")
    obs = obs.assign(**{column: np.zeros(len(obs), np.float32) for column in sample.scalars})
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
        write_elem(file, "var", pd.DataFrame(index=[str(i) for i in range(sample.widths[first])]))
        write_elem(file, "uns", {SETTINGS_KEY.decode(): _without_null(json.loads(sample.metadata))})


def _without_null(value: Any) -> Any:  # noqa: ANN401 (JSON)
    """Return JSON without the keys that have no value."""
    if isinstance(value, dict):
        return {key: _without_null(one) for key, one in value.items() if one is not None}
    return value
