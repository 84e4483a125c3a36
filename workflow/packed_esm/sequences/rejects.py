"""What the log says of rejected records: the first ones of a file, and how many more there are."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)

MAX_LOGGED = 20  # of a file: a log of all of them would be as large as it


class RejectLog:
    """The rejected records of one file as they are read; `table` is where all of them are listed, for the message."""

    def __init__(self, path: Path, table: str) -> None:
        self._path, self._table = path, table
        self._count = 0

    def add(self, line: int, record_id: str, reason: str) -> None:
        """Count a record, and log it if it is one of the first."""
        self._count += 1
        if self._count <= MAX_LOGGED:
            log.warning("%s, line %d: record %r rejected: %s", self._path, line, record_id, reason)

    def close(self) -> None:
        """Log how many records were counted beyond those."""
        if self._count > MAX_LOGGED:
            log.warning(
                "%s: %d more records rejected; %s has all of them", self._path, self._count - MAX_LOGGED, self._table
            )
