"""A sample in parts: any reader finds in the folder what it finds in one file."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from packed_esm.embedding.reuse import look_up
from packed_esm.errors import EmbeddingFileError, ValidationError
from packed_esm.sequences.alphabet import refget_digest
from packed_esm.sequences.manifest import SCHEMA, write_manifest
from packed_esm.store import merge
from packed_esm.store.embeddings import open_sample, sample_batches, sample_settings, write_chunk
from packed_esm.store.export import export_sample
from packed_esm.store.integrity import check_file
from packed_esm.validation.stored import read_rows

SETTINGS = {"model": "m", "layers": [6], "pooling": ["mean"], "include": [], "tokens_per_pack": 512}
LENGTHS = range(1, 12)
OPEN_FILES = Path("/proc/self/fd")
DIGESTS = [refget_digest("M" * n) for n in LENGTHS]


@pytest.fixture
def run(tmp_path):
    """A chunk of eleven sequences, a sample of all of them, and one without records."""
    values = {"mean_6": np.random.default_rng(0).random((11, 4), np.float32)}
    write_chunk(tmp_path / "c.arrow", DIGESTS, LENGTHS, values, SETTINGS)
    rows = [("s", p, f"s{p}", "", p, p + 1, 0, digest, "accepted", "", 0, p) for p, digest in enumerate(DIGESTS)]
    write_manifest(tmp_path / "m", pd.DataFrame(rows, columns=SCHEMA.names), {"s": "", "none": ""})
    return tmp_path


def merged(run, rows_per_file=None, sample="s"):
    out = run / ("parts" if rows_per_file else "one") / f"{sample}.parquet"
    merge.merge_samples(run / "m", {sample: out}, [run / "c.arrow"], rows_per_file)
    return out


def rows(run):
    return pd.read_parquet(run / "m")


@pytest.mark.parametrize("group_rows", [2, 3, 100])
@pytest.mark.parametrize("rows_per_file", [1, 4, 11, 12])
def test_parts_have_at_most_so_many_rows_in_row_groups_of_the_same_size(run, monkeypatch, rows_per_file, group_rows):
    monkeypatch.setattr(merge, "BATCH_BYTES", 16 * group_rows)
    parts = sorted(merged(run, rows_per_file).iterdir())
    sizes = [pq.read_metadata(part).num_rows for part in parts]
    assert sizes == [min(rows_per_file, 11 - start) for start in range(0, 11, rows_per_file)]
    assert [part.name for part in parts] == [f"part-{i:05}.parquet" for i in range(1, len(parts) + 1)]
    assert max(pq.ParquetFile(part).metadata.row_group(0).num_rows for part in parts) <= group_rows
    one, several = pq.read_table(merged(run)), pq.read_table(merged(run, rows_per_file))
    assert several.equals(one)


def test_other_tools_read_the_same_from_parts_and_from_one_file(run):
    one, parts = merged(run), merged(run, 4)
    (parts / ".snakemake_timestamp").touch()  # Snakemake puts it into each folder of results
    want = pd.read_parquet(one)
    assert pd.read_parquet(parts).map(str).equals(want.map(str))
    for pattern in (parts, f"{parts}/*.parquet"):
        assert pl.read_parquet(pattern).equals(pl.read_parquet(one))
        assert pl.scan_parquet(pattern).collect().equals(pl.read_parquet(one))
    query = "SELECT * FROM read_parquet('{}')"
    assert duckdb.sql(query.format(f"{parts}/*.parquet")).fetchall() == duckdb.sql(query.format(one)).fetchall()


def test_our_readers_read_the_same_from_parts_and_from_one_file(run):
    one, parts = merged(run), merged(run, 4)
    assert sample_settings(parts) == sample_settings(one)
    found = []
    for path in (one, parts):
        check_file(path, rows(run))
        columns = {"mean_6": np.zeros((3, 4), np.float32)}
        earlier = look_up([path], [DIGESTS[9], DIGESTS[0], DIGESTS[5]], sample_settings(path), columns)
        assert earlier.found.all()
        stored = read_rows([("s", run, path)], rows(run).iloc[[9, 2]].reset_index(drop=True))
        export_sample(path, run / "m", "s", npy=[("mean_6", run / "s.npy")])
        found.append((earlier.columns["mean_6"], stored["mean_6"], np.load(run / "s.npy")))
    for of_one, of_parts in zip(*found, strict=True):
        assert np.array_equal(of_one, of_parts) and of_one.any()
    with open_sample(parts) as file:
        assert [file.rows_of_group(i) for i in range(file.num_row_groups)] == [4, 4, 3]


def test_a_sample_without_records_is_one_part_without_rows(run):
    path = merged(run, 4, "none")
    assert [part.name for part in path.iterdir()] == ["part-00001.parquet"]
    assert pq.read_table(path).schema.equals(pq.read_table(merged(run, sample="none")).schema)
    check_file(path, rows(run)[:0])


def test_a_part_that_is_missing_strange_or_damaged_is_named(run):
    path = merged(run, 4)
    second, content = path / "part-00002.parquet", (path / "part-00002.parquet").read_bytes()
    second.unlink()
    with pytest.raises(ValidationError, match=r"s.parquet, row 4, .*: id is 's8', but the manifest has 's4'"):
        check_file(path, rows(run))
    second.write_bytes(content[:-9])
    with pytest.raises(EmbeddingFileError, match=r"s\.parquet: not a whole Parquet file"):
        check_file(path, rows(run))
    table = pq.read_table(path / "part-00001.parquet")
    pq.write_table(table.replace_schema_metadata({"packed_esm": json.dumps({})}), second)
    with pytest.raises(EmbeddingFileError, match=r"s\.parquet: .*settings of part-00002.parquet are not"):
        list(sample_batches(path))
    for part in path.iterdir():
        part.unlink()
    with pytest.raises(EmbeddingFileError, match="a folder without parts"):
        sample_settings(path)


def test_one_form_takes_the_place_of_the_other_and_an_error_leaves_what_was_there(run, monkeypatch):
    out = run / "s.parquet"
    for rows_per_file, is_folder in ((None, False), (4, True), (6, True), (None, False)):
        merge.merge_samples(run / "m", {"s": out}, [run / "c.arrow"], rows_per_file)
        assert out.is_dir() == is_folder
        check_file(out, rows(run))
    before = out.read_bytes()
    monkeypatch.setattr(merge, "BATCH_BYTES", 32)
    monkeypatch.setattr(merge, "embedding_table", lambda *args: 1 / 0)
    for rows_per_file in (None, 4):
        with pytest.raises(ZeroDivisionError):
            merge.merge_samples(run / "m", {"s": out}, [run / "c.arrow"], rows_per_file)
    assert out.read_bytes() == before and {path.name for path in run.iterdir()} == {"c.arrow", "m", "s.parquet"}


def test_more_parts_than_a_process_may_open_are_read(run):
    parts = merged(run, 1)
    before = len([*OPEN_FILES.iterdir()])
    with open_sample(parts) as file:
        batches = [(batch.num_rows, len([*OPEN_FILES.iterdir()])) for batch in file.iter_batches(5)]
        groups = [file.read_row_group(number).num_rows for number in range(file.num_row_groups)]
        assert len([*OPEN_FILES.iterdir()]) <= before + 1
    assert groups == [1] * 11 and max(opened for _, opened in batches) <= before + 1
    assert len([*OPEN_FILES.iterdir()]) == before
