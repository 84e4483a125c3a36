"""Unique ids for the records of one FASTA file."""

from pathlib import Path

from ..errors import FastaError


class RecordIds:
    """The ids of the records of a file, collected while it is read.

    Args:
        path: of the file, for messages.
        on_duplicate_id: what happens to a repeated id: `fail`, or `suffix` (_2, _3 ...).

    Attributes:
        first_line: {id: line of its record}.
        suffixed: number of ids that were repeated.
    """

    def __init__(self, path: Path, on_duplicate_id: str) -> None:
        self.first_line: dict[str, int] = {}
        self._path, self._on_duplicate_id = path, on_duplicate_id
        self._last_suffix: dict[str, int] = {}

    @property
    def suffixed(self) -> int:
        return len(self._last_suffix)

    def add(self, name: str, line: int) -> str:
        """Return the id of a record, with a suffix if it is repeated, and remember its line.

        Raises:
            FastaError: the id is repeated, and `on_duplicate_id` is `fail`.
        """
        if name in self.first_line:
            if self._on_duplicate_id == "fail":
                raise FastaError(
                    f"{self._path}, line {line}: id {name!r} is already on line {self.first_line[name]}; "
                    "rename one, or set on_duplicate_id: suffix"
                )
            name = self._with_suffix(name)
        self.first_line[name] = line
        return name

    def _with_suffix(self, name: str) -> str:
        number = self._last_suffix.get(name, 1) + 1
        while f"{name}_{number}" in self.first_line:
            number += 1
        self._last_suffix[name] = number
        return f"{name}_{number}"
