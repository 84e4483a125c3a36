"""Find equal sequences and repeated ids among staged records, in bounded memory: DuckDB sorts, joins and spills."""

import glob
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .dealing import assign_to_chunks, chunks_of_new, estimated_flops, ranks
from .ids import RecordIds
from .known import KEY, find_known
from .manifest import CHUNK, ROW

log = logging.getLogger(__name__)

FIRST = "is_first"
PLACES = pa.schema([("ordinal", pa.int64()), (CHUNK, pa.int32()), (ROW, pa.int32())])
KNOWN = pa.schema([("ordinal", pa.int64()), (CHUNK, pa.int32())])
BATCH_ROWS = 2**17


class Records:
    """The staged records in a database; `ordinal` is the number of a record among all.

    Args:
        connection: to an empty database.
        staged: the file of `staging.stage`.
        folder: for files of this class.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, staged: Path, folder: Path) -> None:
        self._connection, self._folder = connection, folder
        columns = "* EXCLUDE (sequence), file_row_number AS ordinal"
        self._read(staged, file_row_number=True).project(columns).create_view("records")

    def suffixes(self, paths: Mapping[str, Path], on_duplicate_id: str) -> dict[int, str]:
        """Return {ordinal: new id} of the records whose id was taken; `paths`: {sample: FASTA file}, for messages.

        Only records that can matter are looked at one by one: those with a repeated id, and those whose id is such an
        id with a suffix.

        Raises:
            FastaError: an id is repeated, and `on_duplicate_id` is `fail`.
        """
        self._connection.execute(
            """
            CREATE TABLE taken AS WITH RECURSIVE taken (name) AS (
                SELECT hash(sample, id) FROM records WHERE id <> '' GROUP BY 1 HAVING count(*) > 1
                UNION
                SELECT hash(sample, id) FROM records JOIN taken
                    ON taken.name = hash(sample, regexp_replace(id, '_[0-9]+$', ''))
                    WHERE regexp_matches(id, '_[0-9]+$')
            ) FROM taken
            """
        )
        query = "SELECT ordinal, sample, id, line FROM records WHERE hash(sample, id) IN (FROM taken) AND id <> ''"
        found = self._connection.execute(f"{query} ORDER BY ordinal")
        renamed = {}
        for sample, rows in groupby(iter(found.fetchone, None), key=itemgetter(1)):
            ids = RecordIds(paths[sample], on_duplicate_id)
            for ordinal, _, name, line in rows:
                new = ids.add(name, line)
                if new != name:
                    renamed[ordinal] = new
            if ids.suffixed:
                log.warning("%s: %d repeated ids got suffixes", paths[sample], ids.suffixed)
        return renamed

    def find_equal(self) -> dict[int, int]:
        """Find equal sequences; return {length: number of different sequences}."""
        # A sequence is known by its first record; the digest is only kept of those that have copies.
        self._connection.execute(
            """
            CREATE TABLE sequences AS
                SELECT min(ordinal) AS ordinal, min(length) AS length, if(count(*) > 1, digest, NULL) AS repeated
                FROM records WHERE digest <> '' GROUP BY digest;
            CREATE TABLE copies AS
                SELECT records.ordinal, sequences.ordinal AS original
                FROM records JOIN sequences ON records.digest = sequences.repeated
                WHERE records.ordinal <> sequences.ordinal;
            """
        )
        return dict(self._connection.execute("SELECT length, count(*) FROM sequences GROUP BY length").fetchall())

    def place(self, counts: Mapping[int, int], chunks: int, embed_dim: int, earlier: Sequence[Path] = ()) -> Path:
        """Assign each sequence to a chunk; return a Parquet file with a row for each record, in order.

        Its columns are the chunk, the row in the chunk, both -1 if the record is rejected, and whether the record is
        the first with its sequence. The rows of a chunk are in the order of these first records.

        Args:
            counts: {length: number of different sequences}.
            chunks: their number.
            embed_dim: of the model.
            earlier: Parquet files of samples. The sequences that they have get chunks of their own, the last ones.
        """
        sequences, places, of_records = (self._folder / f"{name}.parquet" for name in ("sequences", "places", "all"))
        known = self._find_known(earlier if chunks > 1 else ())
        new = Counter(counts) - known
        of_new = chunks_of_new(_work(new, embed_dim), _work(known, embed_dim), chunks)
        self._deal_known(known, range(of_new, chunks), embed_dim)
        columns = "ordinal, length, coalesce(chunk, -1) AS chunk"
        self._write(f"SELECT {columns} FROM sequences LEFT JOIN dealt USING (ordinal) ORDER BY ordinal", sequences)
        with pq.ParquetWriter(places, PLACES) as writer:
            for batch in _placed(sequences, new, of_new, chunks, embed_dim):
                writer.write_batch(batch)
        self._read(places).create_view("places")
        self._write(
            """
            SELECT chunk, row, is_first FROM (
                SELECT ordinal, chunk, row, true AS is_first FROM places
                UNION ALL
                SELECT copies.ordinal, chunk, row, false FROM copies JOIN places ON copies.original = places.ordinal
                UNION ALL
                SELECT ordinal, -1, -1, false FROM records WHERE digest = ''
            ) ORDER BY ordinal
            """,
            of_records,
        )
        return of_records

    def _find_known(self, earlier: Sequence[Path]) -> Counter[int]:
        """Find the sequences that earlier results have; return {length: their number}."""
        find_known(self._connection, earlier)
        self._connection.execute(
            f"""
            CREATE TABLE known_sequences AS
                SELECT min(place) AS place, min(ordinal) AS ordinal, min(length) AS length
                FROM records JOIN known ON key = {KEY} WHERE digest <> '' GROUP BY key;
            DROP TABLE known;
            """
        )
        query = "SELECT length, count(*) FROM known_sequences GROUP BY length"
        return Counter(dict(self._connection.execute(query).fetchall()))

    def _deal_known(self, counts: Mapping[int, int], chunks: range, embed_dim: int) -> None:
        """Make the view `dealt`, the chunks of the known sequences: equal work, in the order of the earlier files.

        So the job of a chunk reads few parts of these files.
        """
        in_order, dealt = self._folder / "known.parquet", self._folder / "dealt.parquet"
        self._write("SELECT ordinal, length FROM known_sequences ORDER BY place", in_order)
        total, done = _work(counts, embed_dim), 0
        with pq.ParquetFile(in_order) as file, pq.ParquetWriter(dealt, KNOWN) as writer:
            for batch in file.iter_batches(BATCH_ROWS):
                work = estimated_flops(batch["length"].to_numpy(), embed_dim)
                before = done + np.cumsum(work) - work
                number = np.minimum(before / total * len(chunks), len(chunks) - 1).astype(np.int32)
                writer.write_batch(pa.record_batch([batch["ordinal"], pa.array(chunks.start + number)], KNOWN))
                done += int(work.sum())
        self._read(dealt).create_view("dealt")

    def _read(self, path: Path, **options: bool) -> duckdb.DuckDBPyRelation:
        # A path is a pattern to DuckDB, and `key=value` in it a column.
        return self._connection.read_parquet(glob.escape(str(path)), hive_partitioning=False, **options)

    def _write(self, query: str, path: Path) -> None:
        self._connection.sql(query).write_parquet(str(path))


def _work(counts: Mapping[int, int], embed_dim: int) -> int:
    return sum(number * estimated_flops(length, embed_dim) for length, number in counts.items())


def _placed(
    sequences: Path, counts: Mapping[int, int], of_new: int, chunks: int, embed_dim: int
) -> Iterator[pa.RecordBatch]:
    """Yield the sequences of a file, in order, with their places: batches of `PLACES`.

    Args:
        sequences: Parquet with ordinal, length and chunk, which is -1 for those to assign.
        counts: {length: number of those to assign}.
        of_new: they go to the first of the chunks.
        chunks: number of all chunks.
        embed_dim: of the model.
    """
    assigned = assign_to_chunks(counts, of_new, embed_dim)
    lengths = np.sort(np.fromiter(counts, np.int64, len(counts)))
    sizes = np.array([counts[length] for length in lengths.tolist()], np.int64)
    next_of_length = np.cumsum(sizes) - sizes  # in `chunk_of`
    chunk_of = np.empty(sizes.sum(), np.int32)
    for length, start, size in zip(lengths.tolist(), next_of_length, sizes, strict=True):
        chunk_of[start : start + size] = assigned.pop(length)  # each place is in memory once
    next_row = np.zeros(chunks, np.int64)
    with pq.ParquetFile(sequences) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            chunk = batch[CHUNK].to_numpy().copy()
            new = chunk < 0
            number = np.searchsorted(lengths, batch["length"].to_numpy()[new])
            chunk[new] = chunk_of[ranks(number, next_of_length)]
            row = ranks(chunk, next_row).astype(np.int32)
            yield pa.record_batch([batch["ordinal"], pa.array(chunk), pa.array(row)], PLACES)


def in_groups(path: Path, sizes: Sequence[int]) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file in groups of the given sizes, which are all of them."""
    with pq.ParquetFile(path) as file:
        batches, waiting = file.iter_batches(BATCH_ROWS), file.schema_arrow.empty_table()
        for size in sizes:
            while len(waiting) < size:
                waiting = pa.concat_tables([waiting, pa.Table.from_batches([next(batches)])])
            yield waiting.slice(0, size)
            waiting = waiting.slice(size)
