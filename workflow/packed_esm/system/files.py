"""Write files so that nothing half-written ever stands under a final name."""

import errno
import glob
import gzip
import hashlib
import json
import os
import platform
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ..errors import DamagedFileError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PARTIAL = ".partial"  # how temporary names end


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds, else remove it.

    What a killed process left of the same file is removed first. Until it is renamed only its owner can read it.

    Raises:
        OSError: a full disk or a folder that cannot be written to among others; the message names `path`.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with _full_disk_named(path):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
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
    try:
        with _full_disk_named(path):
            temporary.mkdir(mode=0o700)
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
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}{PARTIAL}")


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
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(platform.node())}.*{PARTIAL}"):
        pid = leftover.name.removesuffix(PARTIAL).rpartition(".")[2]
        if pid.isdecimal() and not _is_running(int(pid)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True


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
    with damage_named(path, "JSON file"):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.pop("checksum", None) != _json_checksum(content):
            raise ValueError("it does not belong to its checksum, it was changed")
        return content


def _json_checksum(content: dict) -> int:
    return zlib.crc32(json.dumps(content).encode())


@contextmanager
def damage_named(
    path: str | Path,
    kind: str,
    error_class: type[DamagedFileError] = DamagedFileError,
    remedy: str = "remove it and run again",
) -> Iterator[None]:
    """Raise `error_class`, with file and remedy, where the block finds that `path` is no whole `kind`."""
    try:
        yield
    except (DamagedFileError, FileNotFoundError):
        raise
    except (ValueError, OSError, LookupError, TypeError, AttributeError, NotImplementedError, MemoryError) as error:
        # Bytes that make no sense: a column of another name or type, a size beyond all memory. Arrow raises an OSError
        # for them too, but one without a number.
        if getattr(error, "errno", None) is not None:
            raise
        raise error_class(f"{path}: not a whole {kind} ({error}); {remedy}") from error


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
