"""Write the FASTA files of the chunks, many at a time."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..system.files import replacing
from .manifest import CHUNK

WAITING_BYTES = 2**28  # in memory before they are appended, so that a file is not opened for every few records


class ChunkFiles:
    """Context manager that writes FASTA files, each whole or not at all.

    They are opened one after the other: there may be more of them than a process may have open.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._stack = ExitStack()
        self._temporary: list[Path] = []
        self._waiting: list[list[memoryview]] = [[] for _ in paths]
        self._bytes = 0

    def __enter__(self) -> Self:
        with self._stack:
            self._temporary = [self._stack.enter_context(replacing(path)) for path in self._paths]
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            if error:
                raise error
            self._append()

    def add(self, records: pa.Table) -> None:
        """Add records, in order, to the chunk of each: columns digest, sample, id, sequence and chunk."""
        if not len(records):
            return
        columns = [records[name] for name in ("digest", "sample", "id", "sequence")]
        digest, sample, name, sequence = (column.combine_chunks() for column in columns)
        texts = pc.binary_join_element_wise(">", digest, " ", sample, "|", name, "\n", sequence, "\n", "")
        numbers = records[CHUNK].to_numpy()
        order = np.argsort(numbers, kind="stable")
        texts, numbers = texts.take(pa.array(order)), numbers[order]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        _, offsets, letters = texts.buffers()
        ends = np.frombuffer(offsets, np.int32)
        for number, start, end in zip(numbers[starts], starts, [*starts[1:], len(numbers)], strict=True):
            self._waiting[number].append(memoryview(letters)[ends[start] : ends[end]])
            self._bytes += int(ends[end] - ends[start])
        if self._bytes > WAITING_BYTES:
            self._append()

    def _append(self) -> None:
        for path, pieces in zip(self._temporary, self._waiting, strict=True):
            if pieces:
                with path.open("ab") as handle:
                    handle.writelines(pieces)
                pieces.clear()
        self._bytes = 0
