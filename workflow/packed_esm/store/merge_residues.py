"""Join manifest and chunk files of residues to one file a sample and feature."""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py

from ..sequences.manifest import embedded, read_manifest
from ..system.progress import progress_bar
from .hdf5 import new_hdf5
from .names import dataset_names
from .residue_checks import ResidueCheck
from .residues import (
    FEATURE,
    FORMAT,
    SETTINGS_ATTRIBUTE,
    copy_dataset,
    open_residues,
    residue_feature,
    residue_settings,
)
from .settings import SETTINGS_KEY, common_settings, to_metadata


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
            check = ResidueCheck(chunk_paths[number], settings, feature)
            with open_residues(chunk_paths[number]) as chunk:
                for record in records.itertuples():
                    check.check(chunk, record.digest, record.digest, record.length, f"{record.sample}|{record.id}")
                    if link:
                        file[record.name] = h5py.ExternalLink(home_from_here, record.digest)
                    else:
                        copy_dataset(chunk[record.digest], file, record.name, record.id)
                    bar.update(1)
    return len(rows)
