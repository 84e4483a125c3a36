"""Records on their way into the manifest: written to a scratch file as they are read, in groups of bounded size.

A group becomes a row group of the manifest. So that a reader of one sample reads little else, a sample has groups of
its own, or shares one with its neighbours if it is small.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .manifest import SCHEMA, RecordRow

GROUP_ROWS = 2**16  # at most
GROUP_LETTERS = 2**26  # of headers and sequences; a group ends with the record that exceeds it
SHARE = 4  # samples up to this part of a group share one

Read = tuple[RecordRow, str]  # a record, and its sequence; empty if it is rejected
SEQUENCE = "sequence"
STAGED = pa.schema([*(SCHEMA.field(name) for name in RecordRow._fields), pa.field(SEQUENCE, pa.string())])


def stage(path: Path, samples: Iterable[Iterable[Read]]) -> None:
    """Write the records of all samples, in order, to a Parquet file with the columns `STAGED`."""
    texts = [SEQUENCE, "id", "description", "digest", "reason"]
    other = [name for name in STAGED.names if name not in texts]
    with pq.ParquetWriter(path, STAGED, compression="zstd", use_dictionary=other, write_statistics=False) as writer:
        for group in grouped(samples):
            rows, sequences = zip(*group, strict=True)
            columns = [*zip(*rows, strict=True), sequences]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, STAGED, strict=True)]
            writer.write_batch(pa.record_batch(arrays, STAGED), row_group_size=len(group))


def grouped(samples: Iterable[Iterable[Read]]) -> Iterator[list[Read]]:
    """Yield the records of all samples, in order, in groups; see the constants of this module."""
    group: list[Read] = []
    letters = 0
    for sample in samples:
        start, letters_before, shares = len(group), letters, True
        for row, sequence in sample:
            group.append((row, sequence))
            letters += len(row.description) + len(sequence)
            if shares and start and _is_large(group, letters):
                yield group[:start]
                group, letters, start = group[start:], letters - letters_before, 0
            shares = shares and not _is_large(group, letters)
            if len(group) == GROUP_ROWS or letters > GROUP_LETTERS:
                yield group
                group, letters = [], 0
        if not shares and group:
            yield group
            group, letters = [], 0
    if group:
        yield group


def _is_large(group: list[Read], letters: int) -> bool:
    """Return whether a group is too large to be shared by samples."""
    return len(group) > GROUP_ROWS // SHARE or letters > GROUP_LETTERS // SHARE
