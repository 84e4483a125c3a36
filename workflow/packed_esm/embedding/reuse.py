"""Copy embeddings from earlier results with the same settings: of other runs, and of this run."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import EmbeddingFileError
from ..store.embeddings import SampleFile, embedding_columns, open_sample, row_checksums, schema_settings
from ..store.names import dataset_names
from ..store.settings import differences
from ..system.arrow import array_of_numbers, array_of_texts, check_whole
from .earlier import Earlier
from .earlier_places import EarlierPlaces
from .options import StorageOptions
from .origins import GIVEN, OWN, Origin

if TYPE_CHECKING:
    from .earlier_residues import EarlierResidues
    from .kept_residues import KeptResidues

log = logging.getLogger(__name__)


def look_up(
    paths: Sequence[Path],
    digests: Sequence[str],
    settings: dict,
    empty_columns: dict[str, np.ndarray],
    residues: "KeptResidues | None" = None,
    own: Sequence[Path] = (),
    storage: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    places: EarlierPlaces = EarlierPlaces(),  # noqa: B008 - frozen
    chunk: str = "",
) -> Earlier:
    """Look for sequences, by digest, in samples' Parquet files made with the same settings.

    Only the digests of a file are read, and the row groups with a sequence that is wanted. With `residues`, a sequence
    is found only if the files beside the Parquet file have all of its values. They are copied to the writer of
    `residues`.

    Args:
        paths: Parquet files; a sequence is copied from the first file that has it.
        digests: of the sequences.
        settings: of this run; a file with other settings is not used, and a warning names the differences.
        empty_columns: {name: float32 [n, width]} to be filled.
        residues: the wanted values for each residue.
        own: Parquet files of this run, which it will write again. They are searched first. A damaged sequence or file
            among them is not used, and a warning names it.
        storage: how the values of this run are stored; part of its settings.
        places: what `look_up.look_up` found; files that it does not know are searched.
        chunk: name of the chunk in `places`.

    Raises:
        EmbeddingFileError: a damaged file of `paths`, or a row or dataset that does not belong to its checksum.
    """
    earlier = Earlier.nothing(len(digests), empty_columns)
    wanted = {digest: row for row, digest in enumerate(digests)}
    search = _Search(wanted, earlier, settings, storage, residues, partial(places.groups, chunk))
    for path in own:
        try:
            search.look_into(path, OWN)
        except EmbeddingFileError as error:
            log.warning("reuse: the other sequences of %s are embedded again: %s", path, error)
    for path in paths:
        search.look_into(path, GIVEN)
    return earlier


@dataclass(frozen=True)
class _Search:
    """The search for sequences in several Parquet files.

    Attributes:
        place: {digest: row of `earlier`} of the sequences that are not found yet.
        earlier: the sequences that are found.
        settings, storage, residues: see `look_up`.
        groups: returns the row groups of a file to read; None for all.
    """

    place: dict[str, int]
    earlier: Earlier
    settings: dict
    storage: StorageOptions
    residues: "KeptResidues | None"
    groups: Callable[[Path], Sequence[int] | None]

    def look_into(self, path: Path, origin: Origin) -> None:
        """Copy from a Parquet file and the residue files beside it; log how many sequences, or why none."""
        before, groups = len(self.place), self.groups(path)
        if groups is not None and not len(groups):
            return
        with open_sample(path, origin.sample) as file:
            wanted = self.storage.of_embeddings(self.settings)
            differing = differences(wanted, schema_settings(file.schema_arrow, origin.sample, path))
            values = self._values(path, origin)
            reason = f"made with other settings: {'; '.join(differing)}" if differing else values and values.why_not()
            if reason:
                level = logging.INFO if origin.is_own else logging.WARNING
                log.log(level, "reuse: %s is not used: %s", path, reason)
                return
            sample = _Sample(path, file, origin)
            with values or nullcontext():
                for group in range(file.num_row_groups) if groups is None else groups:
                    self._take(sample, group, values)
        log.info("reuse: %d of %d sequences are in %s", before - len(self.place), before, path)
        if values and values.without:
            log.warning(
                "reuse: %d more sequences are in it, but not all of their values for each residue", values.without
            )

    def _values(self, path: Path, origin: Origin) -> "EarlierResidues | None":
        """Return the residue files beside a Parquet file, if values for each residue are wanted."""
        if not self.residues:
            return None
        from ..store.residues import RESIDUE_FILE  # HDF5, which other jobs do not need
        from .earlier_residues import EarlierResidues

        settings = self.storage.of_residues(self.settings)
        return EarlierResidues(path, self.residues.forms, settings, origin.kind(RESIDUE_FILE), origin.is_own)

    def _take(self, sample: "_Sample", group: int, values: "EarlierResidues | None") -> None:
        """Copy the wanted sequences of a row group, and remove them from `place`."""
        theirs = sample.row_group(group, ["digest"])["digest"]
        hits = pc.indices_nonzero(pc.is_in(theirs, value_set=array_of_texts(self.place))).to_numpy()
        if not len(hits):
            return
        table = sample.row_group(group, ["digest", *self.earlier.columns, "checksum"])
        digests = table["digest"].take(array_of_numbers(hits)).to_pylist()
        columns = {name: _rows(matrix, hits) for name, matrix in embedding_columns(table).items()}
        checksums = table["checksum"].to_numpy()[hits]
        for wrong in np.flatnonzero(row_checksums(digests, columns) != checksums)[:1]:
            raise EmbeddingFileError(
                f"{sample.path}, sequence {digests[wrong]}: values or digest do not match their checksum, the "
                f"file was changed; {sample.origin.sample.remedy}"
            )
        # A sample may have a sequence twice; both are equal, and the last one is copied.
        chosen = {digest: hit for hit, digest in enumerate(digests)}
        if values:
            names, lengths = sample.names(group)[hits], self.residues.sequences.lengths
            copied = partial(values.take, writer=self.residues.writer)
            chosen = {x: hit for x, hit in chosen.items() if copied(x, names[hit], lengths[self.place[x]])}
        rows, places = list(chosen.values()), [self.place.pop(digest) for digest in chosen]
        self.earlier.found[places] = True
        self.earlier.checksums[places] = checksums[rows]
        for name, matrix in columns.items():
            self.earlier.columns[name][places] = _rows(matrix, rows)


def _rows(matrix: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """Return rows of a matrix, in their order and each once; not a copy if they are all."""
    return matrix if len(numbers) == len(matrix) else matrix[numbers]


@dataclass(frozen=True)
class _Sample:
    """An open Parquet file of a sample."""

    path: Path
    file: SampleFile
    origin: Origin

    def row_group(self, group: int, columns: list[str]) -> pa.Table:
        """Return columns of a row group."""
        with self.origin.sample.reading(self.path):
            table = self.file.read_row_group(group, columns=columns)
        check_whole(table, self.origin.sample, self.path)
        return table

    def names(self, group: int) -> np.ndarray:
        """Return the names of a row group's records in the residue files."""
        start = sum(map(self.file.rows_of_group, range(group)))
        return self._names[start : start + self.file.rows_of_group(group)]

    @cached_property
    def _names(self) -> np.ndarray:
        groups = [self.row_group(i, ["id"])["id"].to_pylist() for i in range(self.file.num_row_groups)]
        return np.array(dataset_names([record_id for group in groups for record_id in group]), object)
