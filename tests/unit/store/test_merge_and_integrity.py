"""From chunk files to a sample's Parquet file: nothing is lost, mixed up or changed unnoticed."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packed_esm.embedding.reuse import look_up
from packed_esm.errors import EmbeddingFileError, ValidationError
from packed_esm.outputs.forms import Form
from packed_esm.sequences.alphabet import refget_digest
from packed_esm.sequences.manifest import SCHEMA, embedded, write_manifest
from packed_esm.store import merge
from packed_esm.store.embeddings import (
    ChunkFile,
    SampleWriter,
    chunk_settings,
    embedding_table,
    open_sample,
    row_checksums,
    sample_batches,
    sample_settings,
    write_chunk,
)
from packed_esm.store.integrity import check_file
from packed_esm.store.merge import merge_samples
from packed_esm.store.merge_residues import merge_residues
from packed_esm.store.residues import ResidueWriter, open_residues, residue_settings

SETTINGS = {"model": "m", "layers": [6], "pooling": ["mean", "max"], "include": [], "tokens_per_pack": 512}
DIGESTS = [refget_digest("M" * n) for n in range(1, 9)]


def columns_of(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "mean_6": rng.normal(size=(rows, 4)).astype("f4"),
        "max_6": rng.normal(size=(rows, 4)).astype("f4"),
    }


@pytest.fixture
def run(tmp_path):
    """Two chunks of four sequences, and a sample of ten records: two are duplicates, one is rejected."""
    paths = [tmp_path / "1-of-2.arrow", tmp_path / "2-of-2.arrow"]
    for i, path in enumerate(paths):
        write_chunk(path, DIGESTS[4 * i : 4 * i + 4], [4 * i + n for n in range(1, 5)], columns_of(4, i), SETTINGS)
    order = [7, 0, 3, 3, 4, None, 1, 2, 5, 6, 0]
    rows = [
        ("s", p, f"id{p}", f"id{p}", p, n + 1, 0, DIGESTS[n], "accepted", "", n // 4, n % 4)
        if n is not None
        else ("s", p, f"id{p}", f"id{p}", p, 0, 0, "", "rejected", "no residue", -1, -1)
        for p, n in enumerate(order)
    ]
    manifest = pd.DataFrame(rows, columns=SCHEMA.names)
    write_manifest(tmp_path / "m.parquet", manifest, {"s": "00", "other": "00"})
    return tmp_path, paths, embedded(manifest)


def merged(run):
    folder, paths, rows = run
    merge_samples(folder / "m.parquet", {"s": folder / "s.parquet"}, paths)
    return folder / "s.parquet", rows


def test_every_accepted_record_gets_its_own_embedding_in_input_order(run):
    path, rows = merged(run)
    table = pq.read_table(path).to_pandas()
    assert list(table) == ["id", "accession", "digest", "length", "mean_6", "max_6", "checksum"]
    assert table["id"].tolist() == rows["id"].tolist() and table["digest"].tolist() == rows["digest"].tolist()
    for row, embedding in zip(rows.itertuples(), table["mean_6"], strict=True):
        assert np.array_equal(embedding, columns_of(4, row.chunk)["mean_6"][row.row])
    check_file(path, rows)


def test_the_file_of_a_sample_has_accessions_and_one_without_them_or_with_others_is_told_apart(run):
    folder, paths, rows = run
    rows = rows.assign(id=[f"sp|P0000{i}|NAME" if i % 2 else f"own{i}" for i in range(len(rows))])
    write_manifest(folder / "m.parquet", rows, {})
    path, _ = merged(run)
    table = pq.read_table(path)
    accessions = [f"P0000{i}" if i % 2 else f"own{i}" for i in range(len(rows))]
    assert table["accession"].to_pylist() == accessions
    pq.write_table(table.drop_columns(["accession"]), path)  # as versions up to 0.3.0 wrote it
    check_file(path, rows)
    pq.write_table(table.set_column(1, "accession", pa.array(["own0", "own0", *accessions[2:]])), path)
    with pytest.raises(ValidationError, match=r"row 1, .*accession is 'own0', but the manifest has 'P00001'; remove"):
        check_file(path, rows)


def test_batches_do_not_change_what_is_merged(run, monkeypatch):
    path, rows = merged(run)
    whole = pq.read_table(path)
    monkeypatch.setattr(merge, "BATCH_BYTES", 60)
    path, rows = merged(run)
    assert pq.read_table(path).equals(whole) and pq.ParquetFile(path).num_row_groups > 3
    check_file(path, rows)


def test_a_chunk_is_mapped_and_not_copied(tmp_path):
    columns = {"mean_6": np.zeros((2000, 500), np.float32)}
    write_chunk(tmp_path / "big.arrow", [DIGESTS[0]] * 2000, [1] * 2000, columns, SETTINGS | {"pooling": ["mean"]})
    before = pa.total_allocated_bytes()
    chunk = ChunkFile(tmp_path / "big.arrow")
    assert pa.total_allocated_bytes() - before < 100_000
    assert chunk.columns["mean_6"].shape == (2000, 500)


def test_a_merged_file_is_read_without_keeping_it_in_memory(tmp_path):
    group = embedding_table(["SQ."] * 1024, [1] * 1024, {"mean_6": np.ones((1024, 1024), "f4")}, [0] * 1024)
    with SampleWriter(tmp_path / "s.parquet", SETTINGS) as writer:
        for _ in range(8):
            writer.write(group)
    before = pa.total_allocated_bytes()
    with open_sample(tmp_path / "s.parquet") as file:
        held = [pa.total_allocated_bytes() - before for _ in file.iter_batches(256)]
    assert len(held) == 32 and max(held) < 3 * group.nbytes


def test_merging_twice_gives_the_same_bytes(run):
    first = merged(run)[0].read_bytes()
    assert merged(run)[0].read_bytes() == first


def test_a_sample_without_records_gives_a_file_with_the_same_columns(run):
    folder, paths, _ = run
    merge_samples(folder / "m.parquet", {"other": folder / "other.parquet"}, paths)
    table = pq.read_table(folder / "other.parquet")
    assert table.num_rows == 0 and table.schema.field("mean_6").type.list_size == 4


def rewrite_chunk(path, digests=None, columns=None, checksums=None, settings=None):
    """Write a chunk file again with something changed, keeping the checksums of before unless others are given."""
    chunk = ChunkFile(path)
    before = chunk.digests(np.arange(len(chunk)))
    kept = {name: matrix.copy() for name, matrix in chunk.columns.items()}
    old = chunk.checksums.copy()
    old_settings = chunk.settings
    del chunk
    from packed_esm.store.embeddings import embedding_table
    from packed_esm.store.settings import to_metadata

    columns = columns or kept
    table = embedding_table(
        digests or before, [1] * len(digests or before), columns, old if checksums is None else checksums
    )
    table = table.replace_schema_metadata(to_metadata(settings or old_settings))
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def test_one_changed_value_in_a_chunk_is_noticed_with_the_name(run):
    columns = columns_of(4, 1)
    columns["max_6"][2, 1] = np.nextafter(columns["max_6"][2, 1], np.float32(9))
    rewrite_chunk(run[1][1], columns=columns)
    with pytest.raises(EmbeddingFileError, match=rf"2-of-2.arrow, row 2, sequence {DIGESTS[6]}: values or digest"):
        merged(run)


def test_a_shifted_row_in_a_chunk_is_noticed_with_the_name(run):
    columns = {name: np.roll(matrix, 1, axis=0) for name, matrix in columns_of(4, 0).items()}
    rewrite_chunk(run[1][0], columns=columns)
    with pytest.raises(EmbeddingFileError, match=r"1-of-2.arrow, row \d, sequence SQ"):
        merged(run)


@pytest.mark.parametrize("with_checksums", [False, True])
def test_two_swapped_digests_in_a_chunk_are_noticed_with_the_name(run, with_checksums):
    digests = [DIGESTS[1], DIGESTS[0], *DIGESTS[2:4]]
    checksums = row_checksums(digests, columns_of(4, 0)) if with_checksums else None
    rewrite_chunk(run[1][0], digests=digests, checksums=checksums)
    with pytest.raises(EmbeddingFileError, match=r"row 0: should be .*\(s\|id1\), but it contains"):
        merged(run)


def test_a_chunk_that_is_too_short_or_cut_is_noticed(run):
    path = run[1][1]
    write_chunk(path, DIGESTS[4:6], [5, 6], columns_of(2, 1), SETTINGS)
    with pytest.raises(EmbeddingFileError, match=r"row 3: should be .*id0\), but the file ends after 2 rows"):
        merged(run)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(EmbeddingFileError, match=r"2-of-2.arrow: not a whole file of chunk embeddings .* run again"):
        merged(run)
    path.write_bytes(b"")
    with pytest.raises(EmbeddingFileError, match="not a whole file"):
        merged(run)
    assert not (run[0] / "s.parquet").exists()


def test_chunks_of_other_settings_are_not_mixed(run):
    write_chunk(run[1][1], DIGESTS[4:], [5, 6, 7, 8], columns_of(4, 1), SETTINGS | {"model": "other"})
    with pytest.raises(EmbeddingFileError, match=r"2-of-2.arrow: made with other settings .*model: 'm' / 'other'"):
        merged(run)


def test_chunks_that_differ_in_budget_only_are_merged_and_say_so(run):
    write_chunk(run[1][1], DIGESTS[4:], [5, 6, 7, 8], columns_of(4, 1), SETTINGS | {"tokens_per_pack": 256})
    assert sample_settings(merged(run)[0])["tokens_per_pack"] == [256, 512]


def rewrite_sample(path, change):
    table = pq.read_table(path)
    frame = {name: table[name].combine_chunks() for name in table.column_names}
    change(frame)
    pq.write_table(pa.table(frame).replace_schema_metadata(table.schema.metadata), path)


def changed_value(frame):
    values = frame["mean_6"].flatten().to_numpy().copy()
    values[4 * 3 + 1] += np.float32(1e-6)
    frame["mean_6"] = pa.FixedSizeListArray.from_arrays(pa.array(values), 4)


def shifted_rows(frame):
    values = np.roll(frame["mean_6"].flatten().to_numpy().reshape(-1, 4), 1, axis=0)
    frame["mean_6"] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 4)


def swapped_ids(frame):
    ids = frame["id"].to_pylist()
    ids[1], ids[2] = ids[2], ids[1]
    frame["id"] = pa.array(ids)


def swapped_records(frame):
    order = [0, 2, 1, *range(3, len(frame["id"]))]
    for name in frame:
        frame[name] = frame[name].take(pa.array(order))


def missing_row(frame):
    for name in frame:
        frame[name] = frame[name].slice(0, len(frame[name]) - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed_value, r"row 3, sequence 'id3': the embedding does not match its checksum"),
        (shifted_rows, r"row 0, sequence 'id0': the embedding does not match its checksum"),
        (swapped_ids, r"row 1, sequence 'id2': id is 'id2', but the manifest has 'id1'"),
        (swapped_records, r"row 1, sequence 'id2': id is 'id2', but the manifest has 'id1'"),
        (missing_row, r"ends after 9 of 10 rows; sequence 'id10' is missing"),
    ],
)
def test_a_merged_file_that_was_changed_is_noticed_with_the_name(run, change, message):
    path, rows = merged(run)
    rewrite_sample(path, change)
    with pytest.raises(ValidationError, match=message):
        check_file(path, rows)


def test_a_value_that_is_not_finite_is_noticed_even_with_its_checksum(run):
    columns = columns_of(4, 0)
    columns["mean_6"][0, 0] = np.nan
    write_chunk(run[1][0], DIGESTS[:4], [1, 2, 3, 4], columns, SETTINGS)
    path, rows = merged(run)
    with pytest.raises(ValidationError, match="'id1'"):
        check_file(path, rows)


def test_a_merged_file_that_is_cut_or_has_a_hole_is_noticed_with_its_name(run):
    path, rows = merged(run)
    data = path.read_bytes()
    for part in range(12):
        start, end = part * len(data) // 12, (part + 1) * len(data) // 12
        path.write_bytes(data[:start])
        with pytest.raises(EmbeddingFileError, match=r"s.parquet: not a whole Parquet file"):
            check_file(path, rows)
        path.write_bytes(data[:start] + bytes(end - start) + data[end:])
        try:
            check_file(path, rows)  # what Parquet says twice may be lost once
        except (EmbeddingFileError, ValidationError) as error:
            assert str(path) in str(error)
        else:
            assert pq.read_table(path).to_pandas()["id"].tolist() == rows["id"].tolist()


def raises(error):
    def broken(*arguments, **options):
        raise error

    return broken


def looked_up(path, rows):
    columns = {name: np.empty((len(rows), 4), "f4") for name in ("mean_6", "max_6")}
    return look_up([path], rows["digest"].tolist(), sample_settings(path), columns)


OURS = [KeyError("ours"), AttributeError("ours"), TypeError("ours"), ValueError("ours"), RuntimeError("ours")]
BETWEEN = {  # what reads a file, and which of our own functions runs meanwhile
    "store.embeddings.schema_settings": lambda path, chunk, rows: chunk_settings(chunk),
    "store.embeddings.from_metadata": lambda path, chunk, rows: sample_settings(path),
    "store.embeddings.column_names": lambda path, chunk, rows: ChunkFile(chunk),
    "store.embeddings.embedding_columns": lambda path, chunk, rows: ChunkFile(chunk),
    "store.embeddings.check_whole": lambda path, chunk, rows: list(sample_batches(path)),
    "store.settings.fingerprint": lambda path, chunk, rows: list(sample_batches(path)),
    "embedding.reuse.differences": lambda path, chunk, rows: looked_up(path, rows),
    "embedding.reuse._Search._take": lambda path, chunk, rows: looked_up(path, rows),
    "embedding.reuse.embedding_columns": lambda path, chunk, rows: looked_up(path, rows),
    "embedding.reuse.row_checksums": lambda path, chunk, rows: looked_up(path, rows),
}


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", BETWEEN)
def test_a_mistake_of_our_own_is_not_taken_for_a_damaged_file(run, monkeypatch, place, error):
    path, rows = merged(run)
    monkeypatch.setattr(f"packed_esm.{place}", raises(error))
    with pytest.raises(type(error), match="^'?ours'?$"):
        BETWEEN[place](path, run[1][0], rows)


@pytest.fixture
def residue_run(run):
    """Of the same run, files of logits in `chunks`; `residues` is a link to a folder on what may be another disk."""
    folder, _, rows = run
    paths = [folder / "project" / "chunks" / f"{i}.logits.h5" for i in (1, 2)]
    for i, path in enumerate(paths):
        with ResidueWriter({"logits": path}, {"logits": Form()}) as writer:
            for n in range(4 * i, 4 * i + 4):
                writer.write(DIGESTS[n], {"logits": np.full((n + 1, 33), n, "f4")}, str(n))
            writer.finish(SETTINGS)
    (folder / "other" / "disk" / "residues").mkdir(parents=True)
    (folder / "project" / "residues").symlink_to(folder / "other" / "disk" / "residues")
    return folder, paths, rows


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_a_mistake_of_our_own_is_not_taken_for_a_damaged_file_of_residues(residue_run, monkeypatch, error):
    folder, paths, _ = residue_run
    with pytest.raises(type(error), match="^'?ours'?$"), open_residues(paths[0]):
        raise error
    with monkeypatch.context() as patched:
        patched.setattr("packed_esm.store.merge_residues.allot_copy", raises(error))
        with pytest.raises(type(error), match="^'?ours'?$"):
            merge_residues(folder / "m.parquet", {"s": folder / "s.h5"}, paths)
    monkeypatch.setattr("packed_esm.store.residues.from_metadata", raises(error))
    with pytest.raises(type(error), match="^'?ours'?$"):
        residue_settings(paths[0])


@pytest.mark.parametrize("linked", ["residues", "chunks", "both", "above"])
def test_links_are_alive_where_a_folder_of_results_is_a_link(residue_run, monkeypatch, linked):
    folder, paths, rows = residue_run
    project = folder / "project"
    if linked in ("chunks", "above"):
        (project / "residues").unlink()
        (project / "residues").mkdir()
    if linked in ("chunks", "both"):
        (project / "chunks").rename(folder / "other" / "chunks")
        (project / "chunks").symlink_to(folder / "other" / "chunks")
    if linked == "above":
        project.rename(folder / "other" / "disk" / "project")
        project.symlink_to(folder / "other" / "disk" / "project")
    monkeypatch.chdir(folder)
    chunks = [path.relative_to(folder) for path in paths]
    merge_residues(folder / "m.parquet", {"s": Path("project/residues/s.logits.h5")}, chunks, link=True)
    monkeypatch.chdir("/")
    with h5py.File(folder / "project" / "residues" / "s.logits.h5") as file:
        for row in rows.itertuples():
            assert file[row.id].attrs["digest"] == row.digest and file[row.id].shape[0] == row.length


def test_links_stay_relative_so_that_the_results_can_be_moved_as_a_whole(residue_run):
    folder, paths, rows = residue_run
    merge_residues(folder / "m.parquet", {"s": folder / "project" / "beside" / "s.logits.h5"}, paths, link=True)
    (folder / "project").rename(folder / "moved")
    with h5py.File(folder / "moved" / "beside" / "s.logits.h5") as file:
        assert file.get("id0", getlink=True).filename == "../chunks/2.logits.h5"
        assert all(file[row.id].attrs["digest"] == row.digest for row in rows.itertuples())


def changed_schema(path, change):
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.set_column(6, "checksum", t["checksum"].cast(pa.int64())), "its column checksum is of type int"),
        (lambda t: t.set_column(4, "mean_6", t["mean_6"].cast(pa.list_(pa.float64(), 4))), "its column mean_6 is of"),
        (
            lambda t: t.set_column(4, "mean_6", pa.nulls(10, t["mean_6"].type)),
            "values of its column mean_6 are missing",
        ),
        (lambda t: t.set_column(2, "digest", pa.nulls(10, pa.string())), "values of its column digest are missing"),
        (
            lambda t: t.drop_columns(["max_6"]),
            "its columns are id, accession, digest, length, mean_6, checksum, but its settings give",
        ),
    ],
    ids=["type", "type of values", "values", "digests", "column"],
)
def test_columns_of_another_type_or_without_values_are_named(run, change, why):
    path, rows = merged(run)
    changed_schema(path, change)
    with pytest.raises(EmbeddingFileError, match=rf"s.parquet: not a whole Parquet file of embeddings \({why}"):
        check_file(path, rows)


@pytest.mark.parametrize("stored", [b"{", b"[]", b'{"settings": {}}', b"\xff"], ids=str)
def test_settings_that_cannot_be_read_are_named(run, stored):
    path, _ = merged(run)
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"packed_esm": stored}), path)
    with pytest.raises(EmbeddingFileError, match=r"s.parquet: not a whole Parquet file of embeddings \(its settings"):
        sample_settings(path)
