"""The manifest: a sample is found without its neighbours, and rows that changed are noticed."""

import itertools

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packed_esm.errors import DamagedFileError
from packed_esm.sequences import staging
from packed_esm.sequences.manifest import SCHEMA, Manifest, RecordRow, Rows, manifest_writer, read_manifest
from packed_esm.sequences.staging import grouped


def rows_of(sample, count):
    return [
        (sample, i, f"{sample}{i}", f"{sample}{i} é", 2 * i, 5, 0, f"SQ.{sample}{i}", "accepted", "", i % 3, i // 3)
        for i in range(count)
    ]


def written(path, groups, samples):
    """Write a manifest of groups of [(sample, rows)]; return its rows."""
    with manifest_writer(path, dict.fromkeys(samples, "00")) as write:
        tables = [
            pa.Table.from_pylist(
                [dict(zip(SCHEMA.names, row, strict=True)) for one in group for row in rows_of(*one)], SCHEMA
            )
            for group in groups
        ]
        for table in tables:
            write(table)
    return pa.concat_tables(tables).to_pandas()


@pytest.fixture
def manifest(tmp_path):
    """Large samples a and e have row groups of their own; b and d, and c without rows, share one."""
    path = tmp_path / "m.parquet"
    return path, written(path, [[("a", 200)], [("b", 3), ("d", 5)], [("e", 90)]], "abcde")


def test_the_rows_of_each_sample_and_of_all_come_back(manifest):
    path, rows = manifest
    assert read_manifest(path).equals(rows)
    with Manifest(path) as opened:
        assert opened.samples == list("abcde")
        for sample in "ebdcae":
            found = read_manifest(path, sample)
            assert found.equals(rows[rows["sample"] == sample].reset_index(drop=True))
            assert sum(map(len, opened.batches(sample))) == len(found)
        assert [len(batch) for batch in opened.batches()] == [200, 8, 90]


def test_a_sample_that_is_not_there_is_named(manifest):
    with pytest.raises(DamagedFileError, match="m.parquet: not a whole manifest .*it has no sample 'f'"):
        read_manifest(manifest[0], "f")


def damage(path, group):
    """Change bytes in the middle of each column of a row group."""
    metadata, data = pq.read_metadata(path).row_group(group), bytearray(path.read_bytes())
    for column in (metadata.column(i) for i in range(metadata.num_columns)):
        start = column.dictionary_page_offset or column.data_page_offset
        data[start + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(("group", "hurt"), [(0, "a"), (1, "bd"), (2, "e")])
def test_damage_in_a_row_group_hurts_its_own_samples_alone(manifest, group, hurt):
    path, rows = manifest
    damage(path, group)
    for sample in "abcde":
        if sample in hurt:
            with pytest.raises(DamagedFileError, match="m.parquet: not a whole manifest"):
                read_manifest(path, sample)
        else:
            assert read_manifest(path, sample).equals(rows[rows["sample"] == sample].reset_index(drop=True))
    with pytest.raises(DamagedFileError):
        read_manifest(path)


@pytest.mark.parametrize(("row", "sample"), [(201, "b"), (204, "d"), (297, "e")])
def test_a_changed_row_is_noticed_by_readers_of_its_sample(manifest, row, sample):
    path, rows = manifest
    metadata = pq.read_metadata(path).metadata
    rows.loc[row, "row"] += 1
    changed = pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start, count in ((0, 200), (200, 8), (208, 90)):
            writer.write_table(changed.slice(start, count))
        writer.add_key_value_metadata({key: metadata[key] for key in metadata if key != b"ARROW:schema"})
    for name in "abcde":
        if name == sample:
            with pytest.raises(DamagedFileError, match="its rows do not match their checksums, it was changed"):
                read_manifest(path, name)
        else:
            assert len(read_manifest(path, name)) == (rows["sample"] == name).sum()


def test_rows_are_taken_in_any_number():
    frame = pd.DataFrame(rows_of("s", 100), columns=SCHEMA.names)
    rows = Rows([frame[:30], frame[30:30], frame[30:31], frame[31:]])
    taken = [rows.take(count) for count in (0, 10, 25, 60, 60, 1)]
    assert [len(some) for some in taken] == [0, 10, 25, 60, 5, 0]
    assert pd.concat(taken[1:5])["id"].tolist() == frame["id"].tolist()


def groups_of(sizes, letters=10):
    """Return [{sample: records}] of each group that samples of these sizes are read into."""

    def records(i, size):
        return ((RecordRow(f"s{i}", n, "", "", 0, 0, 0, "", "", ""), "M" * letters) for n in range(size))

    groups = list(grouped(records(i, size) for i, size in enumerate(sizes)))
    assert [(row.sample, row.position) for group in groups for row, _ in group] == [
        (f"s{i}", n) for i, size in enumerate(sizes) for n in range(size)
    ]
    return [{name: len(list(some)) for name, some in itertools.groupby(row.sample for row, _ in g)} for g in groups]


def test_small_samples_share_a_row_group_and_others_have_their_own(monkeypatch):
    monkeypatch.setattr(staging, "GROUP_ROWS", 100)
    assert groups_of([]) == groups_of([0, 0]) == []
    assert groups_of([10, 0, 8, 200, 3, 4, 30, 25, 1]) == [
        {"s0": 10, "s2": 8},
        {"s3": 100},
        {"s3": 100},
        {"s4": 3, "s5": 4},
        {"s6": 30},
        {"s7": 25},
        {"s8": 1},
    ]
    assert max(map(len, groups_of([1] * 1000))) == 25 and len(groups_of([1] * 1000)) == 40


def test_row_groups_of_long_records_have_fewer(monkeypatch):
    monkeypatch.setattr(staging, "GROUP_LETTERS", 1000)
    assert max(sum(group.values()) for group in groups_of([50, 3, 500], letters=100)) == 11
