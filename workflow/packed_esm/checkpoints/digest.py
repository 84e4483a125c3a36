"""The sha256 of a checkpoint: computed in a thread, or taken from files of the run while the checkpoint is the same.

`settings.json` of a run and the statistics of its embed jobs record the sha256 with the identity of the files: device,
inode, size, and the times of the last change of content and of inode. While all of them are the same, the sha256 is not
computed again. Not noticed: a change of bytes that the file system does not see (on the disk itself, or within one tick
of its clock, some milliseconds), and a change on another machine that a network file system does not show yet.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from ..system.files import file_identity, value_in
from .headers import checkpoint_files, checkpoint_sha256

log = logging.getLogger(__name__)

_RECORDED_UNDER = (("checkpoint",), ("embed", "sources", "checkpoint"))  # in statistics, and in settings.json


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
    """Return the files in a folder of results that may record the sha256 of the checkpoint."""
    return [results / "settings.json", *sorted((results / "chunks").glob("*.json"))]


def read_digests(records: Iterable[Path]) -> list[CheckpointDigest]:
    """Return what the files record; nothing of a file that is missing or damaged, which its own reader reports."""
    entries = [value_in(path, *keys) for path in records for keys in _RECORDED_UNDER]
    wanted = CheckpointDigest._fields
    found = [entry for entry in entries if isinstance(entry, dict) and entry.keys() >= set(wanted)]
    return [CheckpointDigest(*(entry[name] for name in wanted)) for entry in found if entry["sha256"]]


def checkpoint_digest(checkpoint: Path, known: Sequence[CheckpointDigest] = ()) -> CheckpointDigest:
    """Return the digest of a checkpoint: the one of `known` that is of the present files, else a computed one.

    Raises:
        CheckpointError: there is no checkpoint at this path.
    """
    files = checkpoint_files(checkpoint)
    path, identity = str(files[0]), [file_identity(file) for file in files]
    for one in known:
        if (one.path, one.identity) == (path, identity):
            log.info("%s: sha256 as recorded, the file has not changed", checkpoint)
            return one
    return CheckpointDigest(path, identity, checkpoint_sha256(checkpoint))


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
