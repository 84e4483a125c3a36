"""The sha256 of a checkpoint: computed in a thread, or taken from other jobs of the run.

The statistics of an embed job record the sha256 with the identity of the files: device, inode, size, and the times of
the last change of content and of inode. While all of them are the same, the sha256 is not computed again. Not noticed:
a change of bytes that the file system does not see (on the disk itself, or within one tick of its clock, some
milliseconds), and a change on another machine that a network file system does not show yet.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, DamagedFileError
from ..system.files import file_identity, read_json
from .headers import checkpoint_files, checkpoint_sha256

log = logging.getLogger(__name__)


class CheckpointDigest(NamedTuple):
    """The sha256 of a checkpoint, and the files that it was computed of.

    Attributes:
        path: of the first file.
        identity: `file_identity` of each file, from before the sha256 was computed.
        sha256: see `checkpoint_sha256`.
    """

    path: str
    identity: list[list[int]]
    sha256: str


def records_in(results: Path) -> list[Path]:
    """Return the statistics of embed jobs in a folder of results."""
    return sorted((results / "chunks").glob("*.json"))


def read_digests(records: Iterable[Path]) -> list[CheckpointDigest]:
    """Return what statistics record; nothing of a file that is missing or damaged, which its own reader reports."""
    found = []
    for path in records:
        try:
            entry = read_json(path).get("checkpoint")
        except (OSError, DamagedFileError):
            continue
        if isinstance(entry, dict) and entry.keys() == set(CheckpointDigest._fields):
            found.append(CheckpointDigest(**entry))
    return found


def checkpoint_digest(checkpoint: Path, known: Sequence[CheckpointDigest] = ()) -> CheckpointDigest:
    """Return the digest of a checkpoint: the one of `known` that is of the present files, else a computed one.

    Raises:
        CheckpointError: there is no checkpoint at this path.
    """
    path, identity = _identity(checkpoint)
    for one in known:
        if (one.path, one.identity) == (path, identity):
            log.info("%s: sha256 as recorded, the file has not changed", checkpoint)
            return one
    return CheckpointDigest(path, identity, checkpoint_sha256(checkpoint))


def require_unchanged(checkpoint: Path, digest: CheckpointDigest) -> None:
    """Raise CheckpointError if the files are not those of the digest any more."""
    if _identity(checkpoint) != (digest.path, digest.identity):
        raise CheckpointError(f"{checkpoint}: it was changed while it was loaded; run again")


def _identity(checkpoint: Path) -> tuple[str, list[list[int]]]:
    """Return the path of the first file of a checkpoint, and the identity of each file."""
    files = checkpoint_files(checkpoint)
    return str(files[0]), [file_identity(file) for file in files]


def start_digest(checkpoint: Path, known: Sequence[CheckpointDigest] = ()) -> Future[CheckpointDigest]:
    """Start `checkpoint_digest` in a thread and return its future; the thread ends with the process."""
    future: Future[CheckpointDigest] = Future()

    def work() -> None:
        try:
            future.set_result(checkpoint_digest(checkpoint, known))
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work, name="sha256 of the checkpoint", daemon=True).start()
    return future
