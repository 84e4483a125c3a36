"""Give each job on a machine a GPU of its own.

Snakemake limits how many GPU jobs run at once, but each of them sees all GPUs. A lease is a lock (flock) on files of a
GPU; the kernel releases it when its holder ends.

Each GPU has two lock files: one that jobs of all users share, and one for each user. Where everyone can write to the
folder, anyone can put something else under the shared name. So a job locks both files, or the one that works, and the
jobs of one user never share a GPU.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from ..errors import GpuLeaseError

log = logging.getLogger(__name__)

SECONDS_BETWEEN_TRIES = 1.0
LONGEST_WAIT = 24 * 3600.0  # seconds; after that, something other than a job probably holds the locks


def visible_gpus() -> list[str]:
    """Return the indices of the GPUs of this machine, as nvidia-smi numbers them; none without nvidia-smi."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (FileNotFoundError, subprocess.SubprocessError) as error:
        log.info("no GPU to lease (nvidia-smi: %s)", error)
        return []
    return listing.stdout.split()


def has_gpu() -> bool:
    """Return whether this machine has a GPU that CUDA_VISIBLE_DEVICES does not hide."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and bool(visible_gpus())


@contextlib.contextmanager
def leased_gpu(gpus: Sequence[str] | None = None, folder: Path | None = None) -> Iterator[str | None]:
    """Lease one GPU for the block, and show only this one to CUDA; wait while all are leased.

    If CUDA_VISIBLE_DEVICES names one GPU (as Slurm sets it), it is used without a lease. If it names several, one of
    them is leased. Without a GPU this yields None. Enter the block before the process uses CUDA.

    Args:
        gpus: indices to choose from; by default those of CUDA_VISIBLE_DEVICES, else all of the machine.
        folder: for the lock files; by default the machine's temporary folder, shared by all users.

    Raises:
        GpuLeaseError: no lock file of any GPU can be used, or all GPUs were leased for LONGEST_WAIT.
    """
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if before is not None and "," not in before:
        log.info("CUDA_VISIBLE_DEVICES=%s is kept", before)
        yield None
        return
    if gpus is None:
        gpus = before.split(",") if before else visible_gpus()
    if not gpus:
        yield None
        return
    gpu, locks = _wait_for_locks(gpus, folder or Path(tempfile.gettempdir()))
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    log.info("GPU %s is leased to this job", gpu)
    try:
        yield gpu
    finally:
        _close(locks)
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _wait_for_locks(gpus: Sequence[str], folder: Path) -> tuple[str, list[int]]:
    """Return a free GPU and the descriptors of its locks."""
    unusable: dict[Path, str] = {}  # file: reason; each is logged once
    end = time.monotonic() + LONGEST_WAIT
    wait_is_logged = False
    while True:
        any_is_leased = False
        for gpu in gpus:
            try:
                locks = _lock(gpu, folder, unusable)
            except BlockingIOError:
                any_is_leased = True
            else:
                if locks:
                    return gpu, locks
        if not any_is_leased:
            reasons = "; ".join(f"{path}: {why}" for path, why in unusable.items())
            raise GpuLeaseError(f"no lock file of a GPU can be used ({reasons}); {_REMEDY}")
        if time.monotonic() > end:
            files = ", ".join(str(path) for gpu in gpus for path in _lock_files(gpu, folder) if path not in unusable)
            raise GpuLeaseError(
                f"all {len(gpus)} GPUs were leased to others for {LONGEST_WAIT / 3600:.0f} hours; see who holds "
                f"{files} (fuser -v FILE), or {_REMEDY}"
            )
        if not wait_is_logged:
            log.info(
                "all %d GPUs are leased to other jobs; waiting, %.0f hours at most", len(gpus), LONGEST_WAIT / 3600
            )
            wait_is_logged = True
        time.sleep(SECONDS_BETWEEN_TRIES)


_REMEDY = "remove them, let TMPDIR name another folder, or name a GPU with CUDA_VISIBLE_DEVICES"


def _lock_files(gpu: str, folder: Path) -> tuple[Path, Path]:
    """Return the lock files of a GPU: the one for this user, and the one for all users."""
    name = f"packed_esm.gpu{quote(gpu, safe='')}"
    return folder / f"{name}.user{os.getuid()}.lock", folder / f"{name}.lock"


def _lock(gpu: str, folder: Path, unusable: dict[Path, str]) -> list[int]:
    """Lock the files of a GPU and return their descriptors, none if no file works; add files that fail to `unusable`.

    Raises:
        BlockingIOError: another job holds a lock.
    """
    own, shared = _lock_files(gpu, folder)
    locks: list[int] = []
    for path, mode in ((own, 0o400), (shared, 0o444)):
        if path in unusable:
            continue
        try:
            locks.append(_open_lock(path, mode))
            fcntl.flock(locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _close(locks)
            raise
        except OSError as error:
            unusable[path] = error.strerror
            log.warning("GPU %s: its lock file %s cannot be used (%s)", gpu, path, error.strerror)
            # A file that opens but cannot be locked stays open, and is closed with the others.
    if own in unusable and shared in unusable:
        _close(locks)
        return []
    return locks


def _close(locks: Sequence[int]) -> None:
    for lock in locks:
        os.close(lock)


def _open_lock(path: Path, mode: int) -> int:
    """Open a lock file, or create it; flock works on a file opened for reading.

    Linux refuses O_CREAT on another user's file in a sticky folder (fs.protected_regular), so it is used only if there
    is no file.

    Raises:
        OSError: it is not a regular file, or it cannot be opened or created.
    """
    with contextlib.suppress(FileNotFoundError):
        return _open_regular(path)
    umask = os.umask(0)  # others must be able to open the shared file as soon as it exists
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, mode))
    finally:
        os.umask(umask)
    return _open_regular(path)


def _open_regular(path: Path) -> int:
    # Without O_NONBLOCK, opening a FIFO without a writer would wait forever.
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return lock
