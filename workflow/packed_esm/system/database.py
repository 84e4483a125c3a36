"""DuckDB for sorting, joining and grouping more rows than fit into memory."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from .files import NO_ROOM

MEMORY_BYTES = 2_000_000_000
THREADS = 1  # as the rule requests; of 14 s to chunk 700,000 proteins DuckDB takes 1, and no less with two threads
INTERRUPTED = "Query interrupted"  # DuckDB raises it in place of what the handler of a signal raised
# In messages of DuckDB. The setting is nine tenths of what was free at the beginning.
FULL_DISK = (*map(os.strerror, NO_ROOM), "max_temp_directory_size")


@contextmanager
def database(folder: Path, **settings: str | int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to an empty database; rows that do not fit into memory go to files in `folder`.

    No query may rely on the order of rows without `ORDER BY`: it depends on threads and memory.

    Args:
        folder: for DuckDB's own files; DuckDB makes it, and the caller removes it.
        settings: of DuckDB, in place of those that are set here.

    Raises:
        OSError: the disk is full; the message names the folder.
        MemoryError: a query needs more memory than DuckDB may use.
        KeyboardInterrupt: a signal came during a query.
    """
    config = {
        "memory_limit": f"{MEMORY_BYTES}B",
        "threads": THREADS,
        "temp_directory": str(folder),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,  # it would look for them in the network
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(":memory:", config=config | settings)
    try:
        yield connection
    except duckdb.OutOfMemoryException as error:
        if any(words in str(error) for words in FULL_DISK):
            raise _full(folder) from error
        raise MemoryError(f"DuckDB needs more memory than {MEMORY_BYTES / 1e9:g} GB: {error}") from error
    except RuntimeError as error:
        if str(error) != INTERRUPTED:
            raise
        raise KeyboardInterrupt from error
    except duckdb.Error as error:
        if not any(words in str(error) for words in FULL_DISK):
            raise
        raise _full(folder) from error
    finally:
        connection.close()


def _full(folder: Path) -> OSError:
    return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}; make room and run again", str(folder))
