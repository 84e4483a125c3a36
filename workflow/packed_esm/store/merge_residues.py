"""Join manifest and chunk files of residues to one file a sample and feature."""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import pandas as pd

from ..errors import EmbeddingFileError
from ..sequences.manifest import embedded, read_manifest
from ..system.progress import progress_bar
from .hdf5 import new_hdf5
from .names import dataset_names
from .residues import RESIDUE_FILE, SETTINGS_ATTRIBUTE, open_residues, residue_settings
from .settings import SETTINGS_KEY, common_settings, to_metadata


def merge_residues(manifest_path: Path, sample: str, chunk_paths: Sequence[Path], out: Path, copy: bool = False) -> int:
    """Write the file of one feature of a sample: a name for each record, linked to its chunk; return their number.

    Args:
        manifest_path: of all samples.
        sample: which to write.
        chunk_paths: files of the feature, in the order of the manifest's `chunk`.
        out: HDF5 file. Its links are relative: it works as long as the chunks stay where they are beside it.
        copy: copy the datasets, as they are compressed, for a file that can be taken elsewhere.

    Raises:
        EmbeddingFileError: a chunk that is damaged, has other settings than the rest, or lacks a record.
    """
    rows = embedded(read_manifest(manifest_path, sample)).sort_values("position")
    rows["name"] = dataset_names(rows["id"].tolist())
    settings = common_settings(chunk_paths, residue_settings)
    with new_hdf5(out) as file, progress_bar(len(rows), "records", f"merging {sample}") as bar:
        file.attrs[SETTINGS_ATTRIBUTE] = to_metadata(settings)[SETTINGS_KEY].decode()
        for number, records in rows.groupby("chunk"):
            # Of the folders as they are: HDF5 follows `..` from the folder that a link to one leads to.
            chunk = chunk_paths[number].parent.resolve() / chunk_paths[number].name
            _take(chunk_paths[number], records, file, os.path.relpath(chunk, out.parent.resolve()), copy)
            bar.update(len(records))
    return len(rows)


def _take(chunk_path: Path, records: pd.DataFrame, file: h5py.File, link: str, copy: bool) -> None:
    """Link (or copy) the datasets of the records of one chunk."""
    with open_residues(chunk_path) as chunk:
        for record in records.itertuples():
            if _identity(chunk_path, chunk, record.digest) != (record.digest, record.length):
                raise EmbeddingFileError(
                    f"{chunk_path}: it should hold {record.digest} ({record.sample}|{record.id}, {record.length} "
                    "residues), but does not; remove it and run again"
                )
            if copy:
                with RESIDUE_FILE.reading(chunk_path):
                    chunk.copy(record.digest, file, record.name)
                file[record.name].attrs["original_id"] = record.id
            else:
                file[record.name] = h5py.ExternalLink(link, record.digest)


def _identity(path: Path, file: h5py.File, name: str) -> tuple[str, int] | None:
    """Return digest and residues of the dataset `name`, [..., L, width]; None where there is no such one."""
    with RESIDUE_FILE.reading(path):
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim < 2:
            return None
        return dataset.attrs.get("digest"), dataset.shape[-2]
