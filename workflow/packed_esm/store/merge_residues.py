"""Join manifest and chunk files of residues to one file a sample and feature."""

import itertools
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import h5py
import pandas as pd
import pyarrow as pa

from ..system.progress import progress_bar
from .hdf5 import NewFile, new_hdf5, write_attribute
from .merge import NO_ROWS, check_chunks, rows_of_samples
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

OPEN_FILES = 100  # of samples; systems allow 256 at least


def merge_residues(
    manifest_path: Path, outs: Mapping[str, Path], chunk_paths: Sequence[Path], link: bool = False
) -> int:
    """Write the files of one feature of samples: a dataset for each record; return their number.

    Args:
        manifest_path: of all samples.
        outs: {sample: HDF5 file}. It holds copies of the datasets, and needs no other file.
        chunk_paths: files of the feature, in the order of the manifest's `chunk`.
        link: write links to the datasets of the chunks instead. They are relative: they work as long as the chunks stay
            where they are beside it.

    Raises:
        EmbeddingFileError: a chunk that is damaged, has other settings than the rest, lacks a record, or has values
            that changed since they were computed; or the manifest is of a run with more chunks.
    """
    merged, samples = 0, rows_of_samples(manifest_path, outs)
    settings, feature = common_settings(chunk_paths, residue_settings), residue_feature(chunk_paths[0])
    with progress_bar(None, "records", "merging") as bar:
        while some := {
            name: pa.concat_tables([NO_ROWS, *parts]) for name, parts in itertools.islice(samples, OPEN_FILES)
        }:
            table = pa.concat_tables(some.values())
            check_chunks(manifest_path, table, chunk_paths)
            names = (dataset_names(rows["id"].to_pylist()) for rows in some.values())
            rows = table.to_pandas().assign(name=list(itertools.chain.from_iterable(names)))
            with ExitStack() as stack:
                files = {sample: stack.enter_context(new_hdf5(outs[sample], **FORMAT)) for sample in some}
                for file in files.values():
                    file.attrs[SETTINGS_ATTRIBUTE] = to_metadata(settings)[SETTINGS_KEY].decode()
                    file.attrs[FEATURE] = feature or ""
                for number, records in rows.groupby("chunk"):
                    path = chunk_paths[number]
                    with (
                        open_residues(path) as chunk,
                        WriteBack([file.descriptor for file in files.values()]) as write_back,
                        ResidueChecks(path, settings, feature, bar.update) as checks,
                    ):
                        links = _links(path, {sample: outs[sample] for sample in some}) if link else {}
                        _add_datasets(chunk, records, files, links, write_back, checks)
            merged += len(rows)
    return merged


def _links(chunk: Path, outs: Mapping[str, Path]) -> dict[str, str]:
    """Return {sample: path of a chunk's file from the folder of the sample's file}."""
    # Of the folders as they are: HDF5 follows `..` from the folder that a link to one leads to.
    home = chunk.parent.resolve() / chunk.name
    return {sample: os.path.relpath(home, out.parent.resolve()) for sample, out in outs.items()}


def _add_datasets(
    chunk: h5py.File,
    records: pd.DataFrame,
    files: Mapping[str, NewFile],
    links: Mapping[str, str],
    write_back: WriteBack,
    checks: ResidueChecks,
) -> None:
    """Check datasets of a chunk, and copy each, or add a link to it, to the file of its sample."""
    for record in records.itertuples():
        file, where = files[record.sample], f"{record.sample}|{record.id}"
        to = partial(_copy, target=file, name=record.name, original_id=record.id, write_back=write_back)
        checks.check(chunk, record.digest, record.digest, record.length, where, None if links else to)
        if links:
            file[record.name] = h5py.ExternalLink(links[record.sample], record.digest)


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
