"""Take embeddings from the results of earlier runs that were made with the same settings."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import EmbeddingFileError
from ..store.embeddings import SAMPLE_FILE, embedding_columns, open_sample, row_checksums, schema_settings
from ..store.settings import differences
from ..system.arrow import check_whole

log = logging.getLogger(__name__)

EARLIER_FILE = replace(SAMPLE_FILE, remedy="take it out of `reuse` or put a whole copy there")


@dataclass
class Earlier:
    """What earlier results have of some sequences.

    Attributes:
        found: bool [n], which of the sequences.
        columns: {"mean_33": float32 [n, E], ...}; rows that were not found are not set.
        checksums: uint32 [n], as they were made where the values were computed.
    """

    found: np.ndarray
    columns: dict[str, np.ndarray]
    checksums: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """Indices of the sequences that were not found."""
        return np.flatnonzero(~self.found)

    def completed(
        self, digests: Sequence[str], columns: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return (columns, checksums) of all sequences, `columns` being those of the missing ones.

        What was found keeps the checksum that it came with.
        """
        if not self.found.any():
            return columns, row_checksums(digests, columns)
        self.checksums[self.missing] = row_checksums([digests[i] for i in self.missing], columns)
        for name, matrix in columns.items():
            self.columns[name][self.missing] = matrix
        return self.columns, self.checksums


def look_up(
    paths: Sequence[Path], digests: Sequence[str], settings: dict, empty_columns: dict[str, np.ndarray]
) -> Earlier:
    """Look for sequences, by digest, in samples' Parquet files made with the same settings.

    Of a file only the digests are read, and the row groups that have a sequence that is wanted.

    Args:
        paths: Parquet files; the first that has a sequence gives it.
        digests: of the sequences.
        settings: of this run; a file with others gives nothing, and a warning says which differ.
        empty_columns: {name: float32 [n, width]} to be filled.

    Raises:
        EmbeddingFileError: a damaged file, or a row that does not belong to its checksum.
    """
    earlier = Earlier(np.zeros(len(digests), bool), empty_columns, np.empty(len(digests), np.uint32))
    place = {digest: row for row, digest in enumerate(digests)}
    for path in paths:
        before = len(place)
        with open_sample(path, EARLIER_FILE) as file:
            differing = differences(settings, schema_settings(file.schema_arrow, EARLIER_FILE, path))
            for group in range(0 if differing else file.num_row_groups):
                _take(path, file, group, place, earlier)
        if differing:
            log.warning("reuse: nothing is taken from %s, made with other settings: %s", path, "; ".join(differing))
        else:
            log.info("reuse: %d of %d sequences are in %s", before - len(place), len(digests), path)
    return earlier


def _take(path: Path, file: pq.ParquetFile, group: int, place: dict[str, int], earlier: Earlier) -> None:
    """Take the sequences of `place` {digest: row of `earlier`} that a row group has, and take them out of `place`."""
    theirs = _row_group(path, file, group, ["digest"])["digest"]
    hits = np.flatnonzero(pc.is_in(theirs, value_set=pa.array(list(place), pa.string())))
    if not len(hits):
        return
    table = _row_group(path, file, group, ["digest", *earlier.columns, "checksum"])
    digests = table["digest"].take(hits).to_pylist()
    columns = {name: matrix[hits] for name, matrix in embedding_columns(table).items()}
    checksums = table["checksum"].to_numpy()[hits]
    for wrong in np.flatnonzero(row_checksums(digests, columns) != checksums)[:1]:
        raise EmbeddingFileError(
            f"{path}, sequence {digests[wrong]}: values or digest do not belong to their checksum, the file was "
            f"changed; {EARLIER_FILE.remedy}"
        )
    # A sample may have a sequence twice: the last one sets the row, all are equal.
    rows = [place[digest] for digest in digests]
    earlier.found[rows] = True
    earlier.checksums[rows] = checksums
    for name, matrix in columns.items():
        earlier.columns[name][rows] = matrix
    for digest in set(digests):
        del place[digest]


def _row_group(path: Path, file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
    with EARLIER_FILE.reading(path):
        table = file.read_row_group(group, columns=columns)
    check_whole(table, EARLIER_FILE, path)
    return table
