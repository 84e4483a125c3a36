"""Write files so that nothing half-written ever stands under a final name."""

import errno
import glob
import gzip
import hashlib
import json
import os
import platform
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from ..errors import DamagedFileError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PARTIAL = ".partial"  # how temporary names end
# In temporary names beside the process id, which in a container is the same, as the host's name is, of job after job.
TOKEN = secrets.token_hex(4)
T = TypeVar("T")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds, else remove it.

    What a killed process left of the same file is removed first. Until it is renamed only its owner can read it.

    Raises:
        OSError: a full disk or a folder that cannot be written to among others; the message names `path`.
    """
    path = Path(path)
    temporary = _temporary(path)
    with _full_disk_named(path):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())  # else a loss of power may leave the new name without its content
            with suppress(PermissionError):  # of a file system that has no modes
                temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder; make it `path` if the block succeeds, in place of one that stands there, else remove it.

    Raises:
        OSError: a full disk among others; the message names `path`.
    """
    path = Path(path)
    temporary = _temporary(path)
    new = temporary / "new"
    with _full_disk_named(path):
        temporary.mkdir(mode=0o700)
        try:
            new.mkdir()
            yield new
            os.sync()  # one for all: one for each of many small files takes longer than to write them
            if path.exists():
                path.replace(temporary / "old")
            new.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """Return a temporary name beside `path`, the folder made and what a killed process left of it removed."""
    _check_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{TOKEN}{PARTIAL}")


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Raise the OSError of a full disk with `path` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OSError(error.errno, f"{os.strerror(error.errno)}; make room and run again", str(path)) from error


def _umask() -> int:
    umask = os.umask(0o077)  # there is no way to read it without setting it
    os.umask(umask)
    return umask


def _check_writable(folder: Path) -> None:
    """Raise PermissionError, with a remedy, where nothing can be written to a folder that may be yet to be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        message = "Cannot be written to; make it writable, or let results go elsewhere (--directory)"
        raise PermissionError(errno.EACCES, message, str(existing))


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files and folders of `path` whose process, on this host, is no more."""
    start = f".{path.name}.{platform.node()}."
    for leftover in path.parent.glob(f"{glob.escape(start)}*{PARTIAL}"):
        pid, _, token = leftover.name.removeprefix(start).removesuffix(PARTIAL).partition(".")
        if pid.isdecimal() and _is_dead(int(pid), token):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _is_dead(pid: int, token: str) -> bool:
    """Return whether the process that took a temporary name is no more, also where its number is this one's now."""
    if pid == os.getpid():
        return token != TOKEN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it runs, as another user
    return False


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is read: how damage to one is noticed and said.

    Attributes:
        name: for messages.
        raised: what its reader raises for bytes that make no sense; an OSError with a number is the system's.
        error_class: raised in its place.
        remedy: for messages.
    """

    name: str
    raised: tuple[type[Exception], ...]
    error_class: type[DamagedFileError] = DamagedFileError
    remedy: str = "remove it and run again"

    def damaged(self, path: str | Path, why: str) -> DamagedFileError:
        """Return the error of a file that is not whole; the message names file, reason and remedy."""
        return self.error_class(f"{path}: not a whole {self.name} ({why}); {self.remedy}")

    @contextmanager
    def reading(self, path: str | Path) -> Iterator[None]:
        """Raise the error of a damaged file where the block finds `path` so; put no more than the reader's call there.

        In a larger block a mistake of our own would be taken for damage.
        """
        try:
            yield
        except self.raised as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise self.damaged(path, str(error)) from error

    def each(self, path: str | Path, items: Iterable[T]) -> Iterator[T]:
        """Yield what a reader yields; the reader alone is watched, not who takes its items."""
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
    """Write `content` to `path` in one step, with the key `checksum`: the crc32 of all else."""
    write_text(path, json.dumps(content | {"checksum": _json_checksum(content)}, indent=2) + "\n")


def read_json(path: str | Path) -> dict:
    """Return what `write_json` was given.

    Raises:
        DamagedFileError: not whole, or changed since it was written.
    """
    with JSON_FILE.reading(path):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.pop("checksum", None) != _json_checksum(content):
        raise JSON_FILE.damaged(path, "it does not belong to its checksum, it was changed")
    return content


def _json_checksum(content: dict) -> int:
    return zlib.crc32(json.dumps(content).encode())


def file_identity(path: str | Path) -> list[int] | None:
    """Return device, inode, size, mtime_ns and ctime_ns of a file, which change when it does; None if not there."""
    try:
        s = Path(path).stat()
    except FileNotFoundError:
        return None
    return [s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]


def sha256(path: str | Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def open_text(path: str | Path) -> TextIO:
    """Open a plain or gzip file as UTF-8 text; the content decides, not the name."""
    with Path(path).open("rb") as handle:
        magic = handle.read(2)
    opener = gzip.open if magic == _GZIP_MAGIC else open
    return opener(path, "rt", encoding="utf-8")


_GZIP_MAGIC = b"\x1f\x8b"
