"""Where earlier results have which sequences, by digest: a table in DuckDB, in bounded memory.

Only for planning which job copies what: the jobs check what they copy.
"""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path

import duckdb

from ..system.files import parquet_parts

log = logging.getLogger(__name__)

# A place is a number: the file, then the row in it, or in all parts of it.
ROW_BITS = 40
KEY = "md5_number(digest)"  # 16 bytes for the 35 of a digest


def find_known(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
    """Make the table `known` with the columns `key`, see KEY, and `place`, of all rows of samples' Parquet files.

    A file that cannot be read is left out, and a warning names it.
    """
    connection.execute("CREATE TABLE known (key UHUGEINT, place BIGINT)")
    for number, path in enumerate(paths):
        first = number << ROW_BITS
        try:
            for part in parquet_parts(path):
                # A path is a pattern to DuckDB, and `key=value` in it a column.
                file = connection.read_parquet(glob.escape(str(part)), file_row_number=True, hive_partitioning=False)
                file.project(f"{KEY}, {first} + file_row_number").insert_into("known")
                first += file.count("*").fetchall()[0][0]
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, UnicodeEncodeError) as error:
            reason = str(error).splitlines()[0]
            log.warning("reuse: the digests in %s cannot be read, so no job is planned by them: %s", path, reason)
