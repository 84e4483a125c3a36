"""Check datasets of residues: that each belongs to its sequence, and that no value was changed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from ..errors import EmbeddingFileError, ValidationError
from ..outputs.forms import StoredValues, residues_of
from ..system.progress import progress_bar
from .names import dataset_names
from .residues import (
    CHECKSUM,
    DIGEST,
    FEATURE,
    RESIDUE_FILE,
    SCALE,
    SETTINGS_ATTRIBUTE,
    file_settings,
    find_dataset,
    open_residues,
    residue_checksum,
    residue_settings,
)
from .settings import MAY_DIFFER, differences

if TYPE_CHECKING:
    import pandas as pd


class ResidueCheck:
    """Check datasets one after the other, a block in memory at a time.

    Args:
        path: of the file that names them.
        settings: all files must have been made with these settings, also files behind links.
        feature: all datasets must contain this feature.
    """

    def __init__(self, path: Path, settings: dict, feature: str | None) -> None:
        self._path, self._feature = path, feature
        self._settings = settings
        self._homes: dict[str, tuple[h5py.File, list[str]]] = {}  # open; HDF5 would open one again for each link

    def check(self, file: h5py.File, name: str, digest: str, length: int, record: str) -> None:
        """Check one dataset.

        Args:
            file: the open file.
            name: of the dataset.
            digest, length: of the sequence to which the values should belong.
            record: sample and id, for the message.

        Raises:
            EmbeddingFileError: it is missing, belongs to another sequence, leads to a foreign file, or was changed.
        """
        with RESIDUE_FILE.reading(self._path):
            dataset = find_dataset(file, name)
        if problem := self.problem(dataset, digest, length):
            remedy = f"remove {self._path}"
            if isinstance(dataset, h5py.Dataset) and dataset.file.filename != str(self._path):
                remedy += f", and {os.path.normpath(dataset.file.filename)} with its values,"
            raise EmbeddingFileError(
                f"{self._path}, dataset {name!r}: it should contain {digest} ({record}, {length} residues), but "
                f"{problem}; {remedy} and run again"
            )

    def problem(self, dataset: object, digest: str, length: int) -> str | None:
        """Return what is wrong with a dataset, or None; `digest` and `length` as in `check`."""
        if not isinstance(dataset, h5py.Dataset):
            return "it is missing" if dataset is None else "it is not a dataset"
        with RESIDUE_FILE.reading(self._path):
            attributes = dict(dataset.attrs)
        if (found := attributes.get(DIGEST)) != digest:
            return f"it contains {found}"
        if attributes.get(FEATURE) != self._feature:
            return f"it contains {attributes.get(FEATURE)}, not {self._feature}"
        if residues_of(dataset.shape) != length or not dataset.size:
            return f"its shape is {dataset.shape}"
        if differing := self._differences(dataset.file):
            return f"it links to {dataset.file.filename}, which has other settings ({'; '.join(differing)})"
        if CHECKSUM not in attributes:
            return "it has no checksum"
        try:
            checksum = residue_checksum(digest, StoredValues(dataset, attributes.get(SCALE)))
        except (OSError, RuntimeError) as error:  # bytes that cannot be inflated
            return f"its values cannot be read ({error})"
        return None if checksum == attributes[CHECKSUM] else "its values were changed: they do not match its checksum"

    def _differences(self, home: h5py.File) -> list[str]:
        """Return the settings in which the file with the values differs."""
        if home.filename not in self._homes:
            budget = {key: self._settings.get(key) for key in MAY_DIFFER}
            settings = file_settings(home, Path(home.filename)) if SETTINGS_ATTRIBUTE in home.attrs else {}
            self._homes[home.filename] = home, differences(settings | budget, self._settings | budget)
        return self._homes[home.filename][1]


def check_residues(path: Path, sample: str, rows: "pd.DataFrame", feature: str) -> None:
    """Check every dataset of a sample's file of residues: name and sequence by the manifest, and the values.

    Args:
        path: HDF5 file.
        sample: its name.
        rows: of the manifest, for the records of the sample that have an embedding.
        feature: name of `outputs.table.RESIDUES`.

    Raises:
        ValidationError: a dataset is missing, or one is too many.
        EmbeddingFileError: see `ResidueCheck.check`; or the file is damaged.
    """
    names = dataset_names(rows["id"].tolist())
    check = ResidueCheck(path, residue_settings(path), feature)
    with open_residues(path) as file:
        present = set(file)
    if wrong := sorted(present ^ set(names)):
        raise ValidationError(
            f"{path}: {len(wrong)} datasets are missing or too many, {wrong[0]!r} first; remove it and run again"
        )
    with open_residues(path) as file, progress_bar(len(rows), "records", f"checking {path.name}") as bar:
        for name, record in zip(names, rows.itertuples(), strict=True):
            check.check(file, name, record.digest, record.length, f"{sample}|{record.id}")
            bar.update(1)
