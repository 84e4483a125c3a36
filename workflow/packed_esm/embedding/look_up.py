"""Look for the sequences of all chunks in earlier results, once for all jobs, in bounded memory.

Only digests are read. The jobs read the row groups that have what they want, and check each value that they copy.
"""

import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from ..checkpoints.digest import CheckpointDigest
from ..errors import EmbeddingFileError
from ..sequences.known import KEY, ROW_BITS, find_known
from ..store.embeddings import open_sample, schema_settings
from ..system.database import database
from ..system.files import scratch_folder
from .earlier_places import ChunkPlaces, EarlierPlaces, size_and_time
from .expected import ExpectedSettings
from .origins import GIVEN, OWN, Origin

log = logging.getLogger(__name__)

BATCH_ROWS = 2**17


def look_up(
    out: Path,
    manifest: Path,
    chunks: Sequence[str],
    own: Sequence[Path],
    reuse: Sequence[Path],
    expected: ExpectedSettings,
    checkpoint: CheckpointDigest,
) -> EarlierPlaces:
    """Write which row groups of earlier results have the sequences of each chunk; return it too.

    Of files with several settings that are all possible, those with the settings of the first one count.

    Args:
        out: JSON, see `EarlierPlaces`. A scratch folder stands beside it while it is made.
        manifest: of the run.
        chunks: names of the chunks' FASTA files, in their order.
        own: Parquet files of this run; a damaged one is left out, and a warning names it.
        reuse: Parquet files of other results.
        expected: settings of the run.
        checkpoint: the digest of its checkpoint.

    Raises:
        EmbeddingFileError: a file of `reuse` is damaged.
    """
    usable = _usable_files([(path, OWN) for path in own] + [(path, GIVEN) for path in reuse], expected)
    places = EarlierPlaces()
    if usable:
        settings = next(iter(usable.values()))
        files = [path for path, theirs in usable.items() if theirs == settings]
        with scratch_folder(out) as scratch:
            found = _places(manifest, chunks, files, scratch)
        identities = {str(path): size_and_time(path) for path in files}
        places = EarlierPlaces(settings, checkpoint._asdict(), identities, found)
        _log(places, expected)
    places.write(out)
    return places


def _usable_files(files: Sequence[tuple[Path, Origin]], expected: ExpectedSettings) -> dict[Path, dict]:
    """Return {path: settings} of the files whose values may be those of the run; the log names the others."""
    usable = {}
    for path, origin in files:
        try:
            with open_sample(path, origin.sample) as file:
                settings = schema_settings(file.schema_arrow, origin.sample, path)
        except EmbeddingFileError as error:
            if not origin.is_own:
                raise
            log.warning("reuse: %s", error)
            continue
        if reason := expected.why_not(settings):
            level = logging.INFO if origin.is_own else logging.WARNING
            log.log(level, "reuse: %s is not used: made with other settings: %s", path, reason)
        else:
            usable[path] = settings
    return usable


def _places(manifest: Path, chunks: Sequence[str], files: Sequence[Path], scratch: Path) -> dict[str, ChunkPlaces]:
    """Return {name of a chunk: where its sequences are}."""
    starts, numbers = _row_groups(files)
    found, pairs = np.zeros(len(chunks), np.int64), np.empty(0, np.int64)
    with database(scratch / "duckdb") as connection:
        find_known(connection, files)
        sizes = _sizes(connection, manifest, len(chunks))
        with pq.ParquetFile(_found(connection, manifest, scratch / "found.parquet")) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                chunk = batch["chunk"].to_numpy().astype(np.int64)
                group = np.searchsorted(starts, batch["place"].to_numpy(), "right") - 1
                found += np.bincount(chunk, minlength=len(chunks))
                pairs = np.union1d(pairs, chunk * len(starts) + group)
    cuts = np.searchsorted(pairs, np.arange(len(chunks) + 1) * len(starts))
    places = {}
    for i, (start, end) in enumerate(pairwise(cuts.tolist())):
        groups: dict[str, list[int]] = {}
        for pair in (pairs[start:end] % max(1, len(starts))).tolist():
            file, group = numbers[pair]
            groups.setdefault(str(file), []).append(group)
        places[chunks[i]] = ChunkPlaces(sizes[i], int(found[i]), groups)
    return places


def _row_groups(files: Sequence[Path]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the place of the first row of each row group, int64, and its numbers (file, row group)."""
    starts, numbers = [], []
    for number, path in enumerate(files):
        row = 0
        with open_sample(path) as file:
            for group in range(file.num_row_groups):
                starts.append((number << ROW_BITS) + row)
                numbers.append((number, group))
                row += file.rows_of_group(group)
    return np.array(starts, np.int64), numbers


def _sizes(connection: duckdb.DuckDBPyConnection, manifest: Path, chunks: int) -> list[int]:
    """Make the view `manifest`; return the number of sequences of each chunk."""
    connection.read_parquet(str(manifest), hive_partitioning=False).create_view("manifest")
    rows = connection.execute('SELECT chunk, max("row") + 1 FROM manifest WHERE chunk >= 0 GROUP BY chunk').fetchall()
    of_chunk = dict(rows)
    return [of_chunk.get(chunk, 0) for chunk in range(chunks)]


def _found(connection: duckdb.DuckDBPyConnection, manifest: Path, path: Path) -> Path:
    """Write the chunk and the first place of each sequence that is known; return the file."""
    query = f"""
        SELECT min(chunk) AS chunk, min(place) AS place
        FROM manifest JOIN known ON key = {KEY} WHERE chunk >= 0 GROUP BY key
    """
    connection.sql(query).write_parquet(str(path))
    return path


def _log(places: EarlierPlaces, expected: ExpectedSettings) -> None:
    sequences, found = (sum(getattr(x, name) for x in places.chunks.values()) for name in ("sequences", "found"))
    log.info("reuse: %d of %d sequences are in earlier results", found, sequences)
    complete = places.complete_chunks
    assumed = ", ".join(f"{key}: {value}" for key, value in expected.assumed(places.settings).items())
    if complete:
        log.info(
            "reuse: %d of %d chunks are copied, by jobs that need no GPU; as in earlier results: %s",
            complete,
            len(places.chunks),
            assumed or "nothing",
        )
