"""What look_up found: which row groups of earlier results have the sequences of each chunk. Needs no other package."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..errors import EarlierSettingsError
from ..store.settings import MAY_DIFFER, differences
from ..system.files import file_identity, read_json, write_json


@dataclass(frozen=True)
class ChunkPlaces:
    """What is known of a chunk.

    Attributes:
        sequences: their number.
        found: how many of them earlier results have.
        groups: {number of a file: numbers of its row groups} that have them.
    """

    sequences: int
    found: int
    groups: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class EarlierPlaces:
    """Where Parquet files of earlier results, all made with the same settings, have the sequences of each chunk.

    Attributes:
        settings: of the files; None if there are none.
        checkpoint: its digest, as statistics of jobs record it; None if there are no files.
        files: {path: its size and time when it was read}, in the order in which they are searched.
        chunks: {name of the chunk's FASTA file: what is known of it}.
    """

    settings: Mapping[str, Any] | None = None
    checkpoint: Mapping[str, Any] | None = None
    files: Mapping[str, list[int]] = field(default_factory=dict)
    chunks: Mapping[str, ChunkPlaces] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write these places as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "EarlierPlaces":
        """Return the places that `write` wrote; a file is read once, because many jobs of a run ask for it.

        Raises:
            FileNotFoundError: there is no such file (yet).
            DamagedFileError: the file is incomplete, or was changed after it was written.
        """
        path.stat()
        return _read(path, tuple(file_identity(path) or ()))

    def groups(self, chunk: str, path: Path) -> Sequence[int] | None:
        """Return the row groups of a file that have sequences of a chunk; None if that is not known.

        It is not known of other files, nor of files that were changed since.
        """
        places, number = self.chunks.get(chunk), self._numbers.get(str(path))
        if places is None or number is None:
            return None
        groups = places.groups.get(number, ())
        if not groups and places.found == places.sequences:
            return ()  # without a look at what may be one of thousands of files
        return groups if self._is_unchanged(str(path)) else None

    def have_all(self, chunk: str) -> bool:
        """Return whether the files, none of them changed since, have all sequences of a chunk, and it has some."""
        places = self.chunks.get(chunk)
        if not places or not places.sequences or places.found < places.sequences:
            return False
        return all(self._is_unchanged(path) for path, number in self._numbers.items() if number in places.groups)

    def _is_unchanged(self, path: str) -> bool:
        return size_and_time(Path(path)) == self.files[path]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise EarlierSettingsError if other jobs copy values that a job with these settings would make otherwise.

        Raises:
            EarlierSettingsError: the message names the settings that differ, and what to do.
        """
        theirs = {} if self.settings is None else {**self.settings}
        differing = differences(*({k: v for k, v in x.items() if k not in MAY_DIFFER} for x in (settings, theirs)))
        if differing and self.complete_chunks:
            raise EarlierSettingsError(
                f"{self.complete_chunks} chunks are copied from earlier results, which have other settings than this "
                f"job: {'; '.join(differing)}; set these keys to what the earlier results have, or, to embed "
                f"everything again, take them out of `reuse` and move {next(iter(self.files))} away"
            )

    @property
    def complete_chunks(self) -> int:
        """The number of chunks of which all sequences were found."""
        return sum(0 < places.sequences == places.found for places in self.chunks.values())

    @cached_property
    def _numbers(self) -> dict[str, str]:
        return {path: str(number) for number, path in enumerate(self.files)}


@lru_cache(maxsize=1)
def _read(path: Path, identity: tuple[int, ...]) -> EarlierPlaces:  # noqa: ARG001 - another file, another entry
    content = read_json(path)
    return EarlierPlaces(**content | {"chunks": {name: ChunkPlaces(**x) for name, x in content["chunks"].items()}})


def size_and_time(path: Path) -> list[int] | None:
    """Return size and mtime_ns of a file; None if there is none. The device has another number on each machine."""
    identity = file_identity(path)
    return identity and identity[2:4]


def own_files(results: Path | None) -> list[Path]:
    """Return the Parquet files of samples that earlier calls merged in a folder of results, sorted."""
    return sorted(results.glob("embeddings/*.parquet")) if results else []
