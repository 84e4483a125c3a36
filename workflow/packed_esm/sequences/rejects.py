"""Log the first rejected records of a file, and the number of the others."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)

MAX_LOGGED = 20  # per file: a log of all of them would be as large as the file


class RejectLog:
    """The rejected records of one file; `table` is the name of the file that lists all of them, for the message."""

    def __init__(self, path: Path, table: str) -> None:
        self._path, self._table = path, table
        self._count = 0

    def add(self, line: int, record_id: str, reason: str) -> None:
        """Count a record; log it if it is one of the first."""
        self._count += 1
        if self._count <= MAX_LOGGED:
            log.warning("%s, line %d: record %r rejected: %s", self._path, line, record_id, reason)

    def close(self) -> None:
        """Log the number of the records that were only counted."""
        if self._count > MAX_LOGGED:
            log.warning(
                "%s: %d more records rejected; %s has all of them", self._path, self._count - MAX_LOGGED, self._table
            )
