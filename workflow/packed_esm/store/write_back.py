"""Have the system write files to the disk while they grow; otherwise nearly all waits for the sync at the end."""

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

STEP_BYTES = 64 * 2**20  # to be written between two syncs at least

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class WriteBack:
    """Sync files in a thread, again and again; a context manager that ends before they may be closed.

    Args:
        files: descriptors of the open files.
    """

    def __init__(self, files: Iterable[int]) -> None:
        self._files = list(files)
        self._bytes = 0
        self._running: Future | None = None

    def __enter__(self) -> "WriteBack":
        self._thread = ThreadPoolExecutor(1)
        return self

    def __exit__(self, error: type[BaseException] | None, *more: object) -> None:
        self._thread.shutdown()
        if self._running and not error:
            self._running.result()  # the system tells an error of the disk once, and a later sync knows nothing of it

    def add(self, size: int) -> None:
        """Count bytes that were written, and begin a sync if there are enough of them and none is running.

        Raises:
            OSError: of the last sync, such as a full disk.
        """
        self._bytes += size
        if self._bytes < STEP_BYTES or (self._running and not self._running.done()):
            return
        if self._running:
            self._running.result()
        self._bytes, self._running = 0, self._thread.submit(self._sync_all)

    def _sync_all(self) -> None:
        for file in self._files:
            _sync(file)
