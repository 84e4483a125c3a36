"""Join manifest and chunk files of residues to one file a sample and feature."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import h5py

from ..sequences.manifest import embedded, read_manifest
from ..system.progress import progress_bar
from .hdf5 import NewFile, new_hdf5, write_attribute
from .names import dataset_names
from .residue_checks import ResidueChecks
from .residues import (
    FEATURE,
    FORMAT,
    ORIGINAL_ID,
    SETTINGS_ATTRIBUTE,
    copy_dataset,
    open_residues,
    residue_feature,
    residue_settings,
)
from .settings import SETTINGS_KEY, common_settings, to_metadata
from .stored_dataset import StoredDataset, allot_copy
from .write_back import WriteBack


def merge_residues(manifest_path: Path, sample: str, chunk_paths: Sequence[Path], out: Path, link: bool = False) -> int:
    """Write the file of one feature of a sample: a dataset for each record; return their number.

    Args:
        manifest_path: of all samples.
        sample: which to write.
        chunk_paths: files of the feature, in the order of the manifest's `chunk`.
        out: HDF5 file. It holds copies of the datasets, and needs no other file.
        link: write links to the datasets of the chunks instead. They are relative: they work as long as the chunks stay
            where they are beside it.

    Raises:
        EmbeddingFileError: a chunk that is damaged, has other settings than the rest, lacks a record, or has values
            that changed since they were computed.
    """
    rows = embedded(read_manifest(manifest_path, sample)).sort_values("position")
    rows["name"] = dataset_names(rows["id"].tolist())
    settings, feature = common_settings(chunk_paths, residue_settings), residue_feature(chunk_paths[0])
    with new_hdf5(out, **FORMAT) as file, progress_bar(len(rows), "records", f"merging {sample}") as bar:
        file.attrs[SETTINGS_ATTRIBUTE] = to_metadata(settings)[SETTINGS_KEY].decode()
        file.attrs[FEATURE] = feature or ""
        for number, records in rows.groupby("chunk"):
            # Of the folders as they are: HDF5 follows `..` from the folder that a link to one leads to.
            home = chunk_paths[number].parent.resolve() / chunk_paths[number].name
            home_from_here = os.path.relpath(home, out.parent.resolve())
            path = chunk_paths[number]
            with (
                open_residues(path) as chunk,
                WriteBack([file.descriptor]) as write_back,
                ResidueChecks(path, settings, feature, bar.update) as checks,
            ):
                for record in records.itertuples():
                    to = partial(_copy, target=file, name=record.name, original_id=record.id, write_back=write_back)
                    copy = None if link else to
                    where = f"{record.sample}|{record.id}"
                    checks.check(chunk, record.digest, record.digest, record.length, where, copy)
                    if link:
                        file[record.name] = h5py.ExternalLink(home_from_here, record.digest)
    return len(rows)


def _copy(dataset: StoredDataset, target: NewFile, name: str, original_id: str, write_back: WriteBack) -> None:
    """Copy a dataset; plain values follow when they are read to be checked.

    Version 0.3.0 compressed values. HDF5 copies such a dataset whole, without inflating it.
    """
    if dataset.offset is None:
        copy_dataset(h5py.Dataset(dataset.id), target, name, original_id)
        return
    copy = allot_copy(dataset, target, name)
    for attribute in dataset.stored_attributes:
        if attribute.name.decode() != ORIGINAL_ID:
            attribute.write(copy)
    write_attribute(copy, ORIGINAL_ID, original_id)
    write_back.add(dataset.nbytes)
