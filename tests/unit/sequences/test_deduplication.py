"""Equal sequences and their places: as a dictionary would find them, whatever the memory."""

import tracemalloc
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packed_esm.sequences.deduplication import Records, _placed, in_groups
from packed_esm.sequences.staging import STAGED
from packed_esm.system.database import database

COUNT, CHUNKS, EMBED_DIM = 600_000, 7, 64


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """Return a file of staged records, and the number of each one's sequence; -1 if it is rejected."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, COUNT, COUNT)
    numbers[rng.random(COUNT) < 0.01] = -1
    digests = [f"SQ.{number:032x}" if number >= 0 else "" for number in numbers]
    lengths = np.where(numbers < 0, 0, numbers % 997 + 1)
    table = {"digest": digests, "length": lengths, "id": [f"p{i}" for i in range(COUNT)], "sample": ["s"] * COUNT}
    empty = {name: pa.nulls(COUNT, field.type) for name, field in zip(STAGED.names, STAGED, strict=True)}
    path = tmp_path_factory.mktemp("staged") / "records.parquet"
    pq.write_table(pa.table(empty | {name: pa.array(table[name], STAGED.field(name).type) for name in table}), path)
    return path, numbers, lengths


def places(staged, folder, **settings):
    with database(folder / "duckdb", **settings) as connection:
        records = Records(connection, staged, folder)
        assert records.suffixes({}, "fail") == {}
        counts = records.find_equal()
        return counts, records.place(counts, CHUNKS, EMBED_DIM)


def test_equal_sequences_have_the_place_of_the_first_and_neither_memory_nor_threads_change_it(staged, tmp_path):
    path, numbers, lengths = staged
    little = {"memory_limit": "40MB", "threads": 1}
    with pytest.raises(MemoryError):
        places(path, tmp_path, **little, temp_directory="")
    found = []
    for name, settings in (("as_set", {}), ("little", little), ("threads", {"threads": 3})):
        (tmp_path / name).mkdir()
        counts, file = places(path, tmp_path / name, **settings)
        found.append(file.read_bytes())
    assert found[0] == found[1] == found[2]
    table = pq.read_table(file).to_pandas()
    _, firsts = np.unique(numbers, return_index=True)
    assert np.flatnonzero(table["is_first"]).tolist() == sorted(firsts[1:].tolist())
    assert ((table["chunk"] < 0) == (numbers < 0)).all() and ((table["row"] < 0) == (numbers < 0)).all()
    kept = table[numbers >= 0].assign(number=numbers[numbers >= 0])
    assert kept.groupby("number")[["chunk", "row"]].nunique().max().tolist() == [1, 1]
    for _, rows in table[table["is_first"]].groupby("chunk"):
        assert rows["row"].tolist() == list(range(len(rows)))
    assert counts == Counter(lengths[firsts[1:]].tolist())


def test_a_place_takes_4_bytes_and_no_second_copy(tmp_path):
    """As far as the counts are concerned: the file may be empty."""
    counts = {length: 10_000 for length in range(1, 501)}
    pq.write_table(pa.table({"ordinal": pa.array([], pa.int64()), "length": pa.array([], pa.int32())}), tmp_path / "s")
    tracemalloc.start()
    try:
        assert list(_placed(tmp_path / "s", counts, CHUNKS, CHUNKS, EMBED_DIM)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2 * 4 * sum(counts.values()) < peak < 2.2 * 4 * sum(counts.values())


def test_rows_come_in_the_groups_that_are_asked_for(tmp_path):
    pq.write_table(pa.table({"x": range(1000)}), tmp_path / "x.parquet", row_group_size=64)
    groups = [group["x"].to_pylist() for group in in_groups(tmp_path / "x.parquet", [1, 0, 600, 399])]
    assert [len(group) for group in groups] == [1, 0, 600, 399]
    assert sum(groups, []) == list(range(1000))
