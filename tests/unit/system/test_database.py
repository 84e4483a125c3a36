"""The database: it spills into its folder, and a full disk is named."""

import errno
import resource

import duckdb
import pytest
from packed_esm.system.database import database

SORTED = "CREATE TABLE t AS SELECT hash(range) AS h, repeat('x', 20) AS text FROM range(2_000_000) ORDER BY h"


def test_what_does_not_fit_into_memory_goes_into_the_folder(tmp_path):
    little = {"memory_limit": "40MB", "threads": 1}
    with pytest.raises(duckdb.OutOfMemoryException), database(tmp_path, **little, temp_directory="") as found:
        found.execute(SORTED)
    with database(tmp_path, **little) as found:
        found.execute(SORTED)
        assert any(tmp_path.iterdir())
        assert found.execute("SELECT count(*), sum(length(text)) FROM t").fetchall() == [(2_000_000, 40_000_000)]


def test_a_full_disk_is_named_with_the_remedy(tmp_path):
    """A limit on the size of files is one of the ways in which there is no room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        pytest.raises(OSError, match=r"No space left on device; make room and run again: '.*full_disk") as raised,
        database(tmp_path, memory_limit="40MB", threads=1) as found,
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, limits[1]))
        try:
            found.execute(SORTED)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.ENOSPC


def test_a_mistake_in_a_query_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(duckdb.Error, match="nowhere"), database(tmp_path) as found:
        found.execute("SELECT * FROM nowhere")
