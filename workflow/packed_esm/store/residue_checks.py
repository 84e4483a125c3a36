"""Check datasets of residues: that each belongs to its sequence, and that no value was changed."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ..errors import EmbeddingFileError, ValidationError
from ..outputs.forms import Form, StoredValues, residues_of
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
    open_residues,
    residue_checksum,
    residue_settings,
)
from .settings import MAY_DIFFER, differences
from .stored_dataset import StoredDataset, UnreadableValuesError, open_dataset

if TYPE_CHECKING:
    import pandas as pd

THREADS = 2  # that read values; more were not measured
SMALL = 256 * 2**10  # bytes of a dataset that is read sooner than a thread can be asked to
MOST_WAITING = 32  # datasets that wait for a thread


class ResidueCheck:
    """Check datasets, a block in memory at a time.

    Args:
        path: of the file that names them.
        settings: all files must have been made with these settings, also files behind links.
        feature: all datasets must contain this feature.
    """

    def __init__(self, path: Path, settings: dict, feature: str | None) -> None:
        self._path, self._feature = path, feature
        self._settings = settings
        self._homes: dict[str, tuple[h5py.File, list[str]]] = {}  # open; HDF5 would open one again for each link

    def problem(self, dataset: StoredDataset, digest: str, length: int) -> str | None:
        """Return what is wrong with a dataset, or None.

        Args:
            dataset: of a file that is open.
            digest, length: of the sequence to which the values should belong.
        """
        return self.problem_but_for_values(dataset, digest, length) or problem_of_values(dataset, digest)

    def problem_but_for_values(self, dataset: object, digest: str, length: int) -> str | None:
        """Return what is wrong with a dataset before its values are read, or None; see `problem`."""
        if not isinstance(dataset, StoredDataset):
            return "it is missing" if dataset is None else "it is not a dataset"
        with RESIDUE_FILE.reading(self._path):
            attributes = dataset.attrs
        if (found := attributes.get(DIGEST)) != digest:
            return f"it contains {found}"
        if attributes.get(FEATURE) != self._feature:
            return f"it contains {attributes.get(FEATURE)}, not {self._feature}"
        if residues_of(dataset.shape) != length or not dataset.size:
            return f"its shape is {dataset.shape}"
        if not _has_right_scale(dataset):
            return "its scale is missing, or is not one of such values"
        if differing := self._differences(dataset):
            return f"it links to {dataset.file_name}, which has other settings ({'; '.join(differing)})"
        return None if CHECKSUM in attributes else "it has no checksum"

    def _differences(self, dataset: StoredDataset) -> list[str]:
        """Return the settings in which the file with the values differs."""
        name = dataset.file_name
        if name not in self._homes:
            home = h5py.Dataset(dataset.id).file
            budget = {key: self._settings.get(key) for key in MAY_DIFFER}
            settings = file_settings(home, Path(name)) if SETTINGS_ATTRIBUTE in home.attrs else {}
            self._homes[name] = home, differences(settings | budget, self._settings | budget)
        return self._homes[name][1]


def _has_right_scale(dataset: StoredDataset) -> bool:
    """Return whether int8 values have scales, float32 [..., 1, width], and others have none."""
    scale = dataset.attrs.get(SCALE)
    if dataset.dtype != np.int8:
        return scale is None
    wanted = Form("int8").scale_shape(dataset.shape) if dataset.ndim > 1 else None
    return getattr(scale, "dtype", None) == np.float32 and scale.shape == wanted


def problem_of_values(dataset: StoredDataset, digest: str) -> str | None:
    """Return what is wrong with the values of a dataset, or None."""
    try:
        checksum = residue_checksum(digest, StoredValues(dataset, dataset.attrs.get(SCALE)))
    except UnreadableValuesError as error:
        return f"its values cannot be read ({error})"
    return None if checksum == dataset.attrs[CHECKSUM] else "its values were changed: they do not match its checksum"


class ResidueChecks:
    """Check datasets of a file in turn; threads read the values of large ones while the caller uses HDF5.

    A context manager. When its block has ended all datasets are checked; until then their files must stay open.

    Args:
        path, settings, feature: see `ResidueCheck`.
        done: called with 1 for each dataset that is as it should be, in the thread of the caller.
    """

    def __init__(self, path: Path, settings: dict, feature: str | None, done: Callable[[int], object]) -> None:
        self._path, self._done = path, done
        self._check = ResidueCheck(path, settings, feature)
        self._waiting: deque[Future] = deque()

    def __enter__(self) -> "ResidueChecks":
        self._threads = ThreadPoolExecutor(THREADS)
        return self

    def __exit__(self, error: type[BaseException] | None, *more: object) -> None:
        try:
            while self._waiting and not error:
                self._finish_oldest()
        finally:
            self._threads.shutdown(cancel_futures=True)

    def check(
        self,
        file: h5py.File,
        name: str,
        digest: str,
        length: int,
        record: str,
        copy: Callable[[StoredDataset], object] | None = None,
    ) -> None:
        """Check one dataset; what is wrong with its values may be raised by a later call, or at the end.

        Args:
            file: the open file.
            name: of the dataset.
            digest, length: of the sequence to which the values should belong.
            record: sample and id, for the message.
            copy: is called with the dataset when all but its values is checked.

        Raises:
            EmbeddingFileError: it is missing, belongs to another sequence, leads to a foreign file, or was changed.
        """
        with RESIDUE_FILE.reading(self._path):
            dataset = open_dataset(file, name)
        what = f"{self._path}, dataset {name!r}: it should contain {digest} ({record}, {length} residues)"
        self._refuse(what, dataset, self._check.problem_but_for_values(dataset, digest, length))
        if copy:
            copy(dataset)
        if dataset.offset is None or dataset.nbytes < SMALL:
            self._check_values(what, dataset, digest)
            self._done(1)
        else:
            self._waiting.append(self._threads.submit(self._check_values, what, dataset, digest))
        while self._waiting and (len(self._waiting) > MOST_WAITING or self._waiting[0].done()):
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        self._waiting.popleft().result()
        self._done(1)

    def _check_values(self, what: str, dataset: StoredDataset, digest: str) -> None:
        self._refuse(what, dataset, problem_of_values(dataset, digest))

    def _refuse(self, what: str, dataset: object, problem: str | None) -> None:
        """Raise the error of a dataset if there is a problem."""
        if not problem:
            return
        remedy = f"remove {self._path}"
        if isinstance(dataset, StoredDataset) and dataset.file_name != str(self._path):
            remedy += f", and {os.path.normpath(dataset.file_name)} with its values,"
        raise EmbeddingFileError(f"{what}, but {problem}; {remedy} and run again")


def check_residues(path: Path, sample: str, rows: "pd.DataFrame", feature: str) -> None:
    """Check every dataset of a sample's file of residues: name and sequence by the manifest, and the values.

    Args:
        path: HDF5 file.
        sample: its name.
        rows: of the manifest, for the records of the sample that have an embedding.
        feature: name of `outputs.table.RESIDUES`.

    Raises:
        ValidationError: a dataset is missing, or one is too many.
        EmbeddingFileError: see `ResidueChecks.check`; or the file is damaged.
    """
    names = dataset_names(rows["id"].tolist())
    settings = residue_settings(path)
    with open_residues(path) as file:
        present = set(file)
    if wrong := sorted(present ^ set(names)):
        raise ValidationError(
            f"{path}: {len(wrong)} datasets are missing or too many, {wrong[0]!r} first; remove it and run again"
        )
    with (
        open_residues(path) as file,
        progress_bar(len(rows), "records", f"checking {path.name}") as bar,
        ResidueChecks(path, settings, feature, bar.update) as checks,
    ):
        for name, record in zip(names, rows.itertuples(), strict=True):
            checks.check(file, name, record.digest, record.length, f"{sample}|{record.id}")
