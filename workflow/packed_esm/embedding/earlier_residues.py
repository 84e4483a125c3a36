"""Copy values for each residue from earlier results, as they are stored."""

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import h5py

from ..errors import EmbeddingFileError
from ..store.residue_checks import ResidueCheck
from ..store.residues import DIGEST, FEATURE, ResidueWriter, file_settings, open_residues
from ..store.settings import differences
from ..store.stored_dataset import StoredDataset, open_dataset
from ..system.files import FileKind

log = logging.getLogger(__name__)


class EarlierResidues:
    """The residue files that belong to a Parquet file of a sample; a context manager that opens them.

    `embeddings/{sample}.parquet` has `residues/{sample}.{feature}.h5` beside it.

    Args:
        parquet: of the sample.
        features: the wanted features.
        settings: the values must have been made with these settings.
        kind: of the files; its errors name the remedy for a damaged one.
        is_own: whether the files belong to this run, which writes them again. Then changed values are not an error.
            Values behind a link are not copied, because the linked file of a chunk is removed before its job begins.
    """

    def __init__(self, parquet: Path, features: Iterable[str], settings: dict, kind: FileKind, is_own: bool) -> None:
        folder = parquet.parent.parent / "residues"
        self._paths = {feature: folder / f"{parquet.stem}.{feature}.h5" for feature in features}
        self._settings, self._kind, self._is_own = settings, kind, is_own
        self.without = 0  # number of sequences that one of the files lacks

    def __enter__(self) -> "EarlierResidues":
        self._stack = ExitStack()
        self._files = {name: self._stack.enter_context(open_residues(x, self._kind)) for name, x in self._paths.items()}
        self._checks = {name: ResidueCheck(path, self._settings, name) for name, path in self._paths.items()}
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)

    def why_not(self) -> str:
        """Return why these files cannot be used; empty if they can.

        Raises:
            EmbeddingFileError: a file is damaged.
        """
        for feature, path in self._paths.items():
            if not path.is_file():
                return f"{path} is missing"
            with open_residues(path, self._kind) as file:
                differing = differences(self._settings, file_settings(file, path, self._kind))
                with self._kind.reading(path):
                    found = file.attrs.get(FEATURE)
            if differing:
                return f"{path} was made with other settings: {'; '.join(differing)}"
            if found != feature:
                return f"{path} contains {found}, not {feature}"
        return ""

    def take(self, digest: str, name: str, length: int, writer: ResidueWriter) -> bool:
        """Check the values of a sequence in all files, then copy them; return whether all files have the sequence.

        Args:
            digest, length: of the sequence.
            name: of its datasets.
            writer: the copies go to this writer.

        Raises:
            EmbeddingFileError: a damaged file or changed values, if the files do not belong to this run. If they do, a
                damaged sequence is not copied.
        """
        try:
            return self._take(digest, name, length, writer)
        except EmbeddingFileError as error:
            if not self._is_own:
                raise
            log.warning("reuse: sequence %s is embedded again: %s", digest, error)
            writer.remove(digest)
            return False

    def _take(self, digest: str, name: str, length: int, writer: ResidueWriter) -> bool:
        datasets = {feature: self._dataset(feature, name, digest) for feature in self._paths}
        if any(dataset is None for dataset in datasets.values()):
            self.without += 1
            return False
        for feature, dataset in datasets.items():
            if problem := self._checks[feature].problem(dataset, digest, length):
                raise EmbeddingFileError(
                    f"{self._paths[feature]}, dataset {name!r}, sequence {digest}: {problem}; {self._kind.remedy}"
                )
        writer.copy({feature: h5py.Dataset(dataset.id) for feature, dataset in datasets.items()})
        return True

    def _dataset(self, feature: str, name: str, digest: str) -> StoredDataset | None:
        """Return the dataset of a sequence; None if there is none that may be copied."""
        file = self._files[feature]
        with self._kind.reading(self._paths[feature]):
            dataset = open_dataset(file, name)
            if not isinstance(dataset, StoredDataset) or dataset.attrs.get(DIGEST) != digest:
                return None
            is_linked = dataset.file_name != file.filename
        return None if self._is_own and is_linked else dataset
