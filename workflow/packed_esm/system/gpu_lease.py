"""Give each job on a machine a GPU of its own.

Snakemake limits how many GPU jobs run at once, but starts all of them with the same view of the
machine. A lease is a lock (flock) on one file per GPU; the kernel releases it when its holder dies.
"""

import contextlib
import fcntl
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

SECONDS_BETWEEN_TRIES = 1.0


def visible_gpus() -> list[str]:
    """Return the indices of the GPUs of this machine, as nvidia-smi counts them; none without nvidia-smi."""
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


@contextlib.contextmanager
def leased_gpu(gpus: Sequence[str] | None = None, folder: Path | None = None) -> Iterator[str | None]:
    """Hold one GPU for the length of the block, and show only that one to CUDA; wait while all are taken.

    Where CUDA_VISIBLE_DEVICES names one GPU (as Slurm sets it) that is kept, where it names several one of those is
    taken. Without a GPU, does nothing and yields None.
    Enter it before CUDA is used in the process.

    Args:
        gpus: indices to choose from; by default those of CUDA_VISIBLE_DEVICES, else all of the machine.
        folder: of the lock files; by default the machine's temporary folder, shared by all users.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None and "," not in given:
        log.info("CUDA_VISIBLE_DEVICES=%s is kept", given)
        yield None
        return
    if gpus is None:
        gpus = given.split(",") if given else visible_gpus()
    if not gpus:
        yield None
        return
    gpu, lock = _wait_for_lock(gpus, folder or Path(tempfile.gettempdir()))
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    log.info("GPU %s is leased to this job", gpu)
    try:
        yield gpu
    finally:
        os.close(lock)
        if given is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = given


def _wait_for_lock(gpus: Sequence[str], folder: Path) -> tuple[str, int]:
    said = False
    while True:
        for gpu in gpus:
            lock = _open_lock(folder / f"packed_esm.gpu{gpu}.lock")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return gpu, lock
            except BlockingIOError:
                os.close(lock)
        if not said:
            log.info("all %d GPUs are leased to other jobs; waiting", len(gpus))
            said = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _open_lock(path: Path) -> int:
    """Open (or make) a lock file that any user can lock.

    Reading is enough for flock. A file of another user in a sticky folder must not be opened with
    O_CREAT (Linux's fs.protected_regular), so that is tried only where there is none.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.suppress(FileExistsError):
        lock = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444)
        os.fchmod(lock, 0o444)  # whatever the umask: others must be able to open it
        os.close(lock)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
