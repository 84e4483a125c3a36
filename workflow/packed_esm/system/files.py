"""Write files so that no incomplete file ever has its final name, and read them with clear errors."""

import errno
import functools
import glob
import gzip
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from ..errors import DamagedFileError

log = logging.getLogger(__name__)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDY = "make room"  # for a full disk
PARTIAL = ".partial"  # how temporary names end
# Temporary names have it beside the process id: in a container, jobs can share the process id and the host name.
TOKEN = secrets.token_hex(4)
HASHED_AT_ONCE = 32 * 2**20  # bytes
T = TypeVar("T")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds, else remove it.

    Temporary files that a killed process left for the same path, before this process first wrote to the folder, are
    removed first. Until the file is renamed only its
    owner can read it.

    Raises:
        OSError: for example a full disk, or a folder without write permission; the message names `path`.
    """
    path = Path(path)
    temporary = _temporary(path)
    with _full_disk_named(path):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())  # else the new name may have no content after a loss of power
            with suppress(PermissionError):  # from a file system without modes
                temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder; if the block succeeds rename it to `path` and replace a folder there, else remove it.

    Raises:
        OSError: for example a full disk; the message names `path`.
    """
    path = Path(path)
    temporary = _temporary(path)
    new = temporary / "new"
    with _full_disk_named(path):
        temporary.mkdir(mode=0o700)
        try:
            new.mkdir()
            yield new
            os.sync()  # one call for all: an fsync of each small file takes longer than writing it
            if path.exists():
                path.replace(temporary / "old")
            new.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, for files that are only needed while it is made; remove it at the end.

    Folders that a killed process left for the same path are removed first.

    Raises:
        OSError: for example a full disk, whose message names the folder, or a folder without write permission.
    """
    path = Path(path)
    folder = _temporary(path.with_name(f"{path.name}.scratch"))
    with _full_disk_named(folder):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check_room(path: Path, least: float, most: float, what: str) -> None:
    """Look at the free bytes of the folder of `path`: below `most` a warning, below `least` an error.

    Both name the scratch folders of `path` that other processes made: nothing removes them if their host was another.

    Raises:
        OSError: fewer than `least` bytes are free; the message gives the numbers and the remedy.
    """
    free = shutil.disk_usage(path.parent).free
    if free >= most:
        return
    others = [one for one in path.parent.glob(f".{glob.escape(path.name)}.scratch.*{PARTIAL}") if TOKEN not in one.name]
    left = "".join(f"; remove {one} if the job that made it has ended" for one in sorted(others))
    message = (
        f"{what} needs {least / 1e9:,.1f} to {most / 1e9:,.1f} GB here, and {free / 1e9:,.1f} GB are free; "
        f"{REMEDY}{left}"
    )
    if free < least:
        raise OSError(errno.ENOSPC, message, str(path.parent))
    log.warning("%s: %s", path.parent, message)


def _temporary(path: Path) -> Path:
    """Return a temporary name beside `path`; make its folder, and remove what killed processes left of `path`."""
    _check_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{TOKEN}{PARTIAL}")


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Add `path` and the remedy to the OSError of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM or REMEDY in str(error):
            raise
        raise OSError(error.errno, f"{os.strerror(error.errno)}; {REMEDY} and run again", str(path)) from error


def _umask() -> int:
    umask = os.umask(0o077)  # it cannot be read without setting it
    os.umask(umask)
    return umask


def _check_writable(folder: Path) -> None:
    """Raise PermissionError, with a remedy, if a folder (or its first parent that exists) cannot be written to."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        message = "Cannot be written to; make it writable, or put the results elsewhere (--directory)"
        raise PermissionError(errno.EACCES, message, str(existing))


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files and folders of `path` whose process on this host has ended."""
    for leftover, pid, token in _temporary_files(path.parent.absolute()).get(path.name, ()):
        if _is_dead(pid, token):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


@functools.cache
def _temporary_files(folder: Path) -> dict[str, list[tuple[Path, int, str]]]:
    """Return {final name: (path, process id, token) of the temporary files that this host's processes made for it}.

    A process lists a folder once, before it first writes there: doing so for each of many files would take a time that
    grows with the square of their number.
    """
    name = re.compile(rf"\.(.+)\.{re.escape(platform.node())}\.(\d+)(?:\.(\w+))?{re.escape(PARTIAL)}")
    found: dict[str, list[tuple[Path, int, str]]] = {}
    for path in folder.glob(f".*{PARTIAL}"):
        if match := name.fullmatch(path.name):
            found.setdefault(match[1], []).append((path, int(match[2]), match[3] or ""))
    return found


def _is_dead(pid: int, token: str) -> bool:
    """Return whether the process behind a temporary name has ended, even if its number is now that of this process."""
    if pid == os.getpid():
        return token != TOKEN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it runs as another user
    return False


@dataclass(frozen=True)
class FileKind:
    """A kind of file, and how to recognise and report a damaged one.

    Attributes:
        name: of the kind, for messages.
        raised: exceptions of its reader for damaged bytes; an OSError with a number comes from the system.
        error_class: the exception to raise instead.
        remedy: for messages.
    """

    name: str
    raised: tuple[type[Exception], ...]
    error_class: type[DamagedFileError] = DamagedFileError
    remedy: str = "remove it and run again"

    def damaged(self, path: str | Path, why: str) -> DamagedFileError:
        """Return the error of a damaged file; the message names file, reason and remedy."""
        return self.error_class(f"{path}: not a whole {self.name} ({why}); {self.remedy}")

    @contextmanager
    def reading(self, path: str | Path) -> Iterator[None]:
        """Raise the error of a damaged file if the reader fails in this block; put only the call of the reader there.

        A larger block would report a mistake in our own code as damage.
        """
        try:
            yield
        except self.raised as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise self.damaged(path, str(error)) from error

    def each(self, path: str | Path, items: Iterable[T]) -> Iterator[T]:
        """Yield the items of a reader; only errors of the reader count as damage, not those of the caller."""
        iterator = iter(items)
        while True:
            with self.reading(path):
                item = next(iterator, None)
            if item is None:
                return
            yield item


JSON_FILE = FileKind("JSON file", (ValueError, RecursionError))


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` in one step (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` to `path` in one step, with the key `checksum`: the crc32 of all other keys."""
    write_text(path, json.dumps(content | {"checksum": _json_checksum(content)}, indent=2) + "\n")


def read_json(path: str | Path) -> dict:
    """Return the content that `write_json` wrote, without its checksum.

    Raises:
        DamagedFileError: the file is incomplete, or was changed after it was written.
    """
    with JSON_FILE.reading(path):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.pop("checksum", None) != _json_checksum(content):
        raise JSON_FILE.damaged(path, "it does not match its checksum, it was changed")
    return content


def value_in(path: Path, *keys: str) -> object:
    """Return the value under nested keys in a JSON file of a job; None if file or key is missing or damaged.

    The job that reads the file reports the damage.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return value


def _json_checksum(content: dict) -> int:
    return zlib.crc32(json.dumps(content).encode())


def file_identity(path: str | Path) -> list[int] | None:
    """Return device, inode, size, mtime_ns and ctime_ns of a file, which change with it; None if there is none."""
    try:
        s = Path(path).stat()
    except FileNotFoundError:
        return None
    return [s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]


def sha256(path: str | Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits.

    It is read in large pieces: a thread that hashes asks for the interpreter only between two of them, and may wait
    there for another thread.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as handle:
        piece = memoryview(bytearray(min(HASHED_AT_ONCE, max(1, os.fstat(handle.fileno()).st_size))))
        while count := handle.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()


def open_text(path: str | Path) -> TextIO:
    """Open a plain or gzip file as UTF-8 text; its content decides which it is, not its name."""
    with Path(path).open("rb") as handle:
        magic = handle.read(2)
    opener = gzip.open if magic == _GZIP_MAGIC else open
    return opener(path, "rt", encoding="utf-8")


_GZIP_MAGIC = b"\x1f\x8b"


def parquet_parts(path: Path) -> list[Path]:
    """Return the Parquet files of a sample in order: the file itself, or the parts in the folder."""
    return sorted(path.glob("*.parquet"), key=lambda part: (len(part.name), part.name)) if path.is_dir() else [path]
