"""A group of samples is merged in one pass over the chunks, and each file has the bytes that it has alone."""

import errno
from functools import partial

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from packed_esm.errors import EmbeddingFileError
from packed_esm.outputs.forms import Form
from packed_esm.sequences.alphabet import refget_digest
from packed_esm.sequences.manifest import SCHEMA, write_manifest
from packed_esm.store import embeddings, merge, merge_residues
from packed_esm.store.embeddings import ChunkFile, write_chunk
from packed_esm.store.residues import ResidueWriter

SETTINGS = {"model": "m", "layers": [6], "pooling": ["mean"], "include": [], "tokens_per_pack": 512}
LENGTHS = range(1, 13)
DIGESTS = [refget_digest("M" * n) for n in LENGTHS]
ROWS = {"s": 5, "none": 0, "t": 1, "u": 30, "v": 7}  # records of each sample


@pytest.fixture
def run(tmp_path):
    """Three chunks of four sequences with embeddings and logits, and samples of any of them, one without records."""
    rng = np.random.default_rng(0)
    for i in range(3):
        some = slice(4 * i, 4 * i + 4)
        values = {"mean_6": rng.random((4, 4), np.float32)}
        write_chunk(tmp_path / f"{i}.arrow", DIGESTS[some], LENGTHS[some], values, SETTINGS)
        with ResidueWriter({"logits": tmp_path / f"{i}.h5"}, {"logits": Form("float32")}) as writer:
            for digest, length in zip(DIGESTS[some], LENGTHS[some], strict=True):
                writer.write(digest, {"logits": rng.random((length, 3), np.float32)}, digest)
            writer.finish(SETTINGS)
    rows = [
        (sample, p, f"{sample}{p}", "", p, n + 1, 0, DIGESTS[n], "accepted", "", n // 4, n % 4)
        for sample, count in ROWS.items()
        for p, n in enumerate(rng.integers(0, 12, count))
    ]
    write_manifest(tmp_path / "m", pd.DataFrame(rows, columns=SCHEMA.names), dict.fromkeys(ROWS, ""))
    return tmp_path


def merged(run, function, ending, samples, folder):
    (run / folder).mkdir(exist_ok=True)
    chunks = [run / f"{i}.{ending}" for i in range(3)]
    outs = {sample: run / folder / f"{sample}.{ending}" for sample in samples}
    function(run / "m", outs, chunks)
    return [path.read_bytes() for path in outs.values()]


@pytest.mark.parametrize("many_chunks", [2, 100])
@pytest.mark.parametrize("batch_bytes", [16, 48, 160, 2**20])
def test_embeddings_of_a_group_have_the_bytes_of_each_sample_alone(run, monkeypatch, batch_bytes, many_chunks):
    monkeypatch.setattr(merge, "BATCH_BYTES", batch_bytes)
    monkeypatch.setattr(merge, "MANY_CHUNKS", many_chunks)
    alone = [merged(run, merge.merge_samples, "arrow", [sample], "alone")[0] for sample in ROWS]
    assert merged(run, merge.merge_samples, "arrow", ROWS, "together") == alone
    groups = pq.ParquetFile(run / "together/u.arrow").metadata.num_row_groups
    assert groups == -(-ROWS["u"] // (batch_bytes // 16))


def test_a_chunk_is_opened_once_for_the_samples_that_fit_into_a_batch(run, monkeypatch):
    opened = []
    monkeypatch.setattr(merge, "ChunkFile", lambda path, **of: opened.append(path.name) or ChunkFile(path, **of))
    merged(run, merge.merge_samples, "arrow", ROWS, "together")
    assert sorted(opened) == ["0.arrow", "0.arrow", "1.arrow", "2.arrow"]  # the first also for its columns


def test_the_texts_of_a_chunk_are_checked_once_and_its_rows_each_time(run, monkeypatch):
    checked = []
    monkeypatch.setattr(merge, "BATCH_BYTES", 16)
    monkeypatch.setattr(embeddings, "check_whole", lambda table, kind, path: checked.append(path.name))
    merged(run, merge.merge_samples, "arrow", ROWS, "together")
    assert sorted(checked) == ["0.arrow", "1.arrow", "2.arrow"]
    chunk = ChunkFile(run / "1.arrow")
    values = {"mean_6": chunk.columns["mean_6"] + 1}
    digests, checksums = chunk.digests(np.arange(4)), chunk.checksums.copy()
    write_chunk(run / "1.arrow", digests, LENGTHS[4:8], values, SETTINGS, checksums)
    with pytest.raises(EmbeddingFileError, match=r"1\.arrow, row \d, sequence SQ.*: values or digest do not match"):
        merged(run, merge.merge_samples, "arrow", ROWS, "together")


def test_an_error_while_a_batch_is_written_ends_merging_and_leaves_no_file_of_the_sample(run, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(merge, "BATCH_BYTES", 48)
    monkeypatch.setattr(merge.SampleWriter, "write", full)
    with pytest.raises(OSError, match=r"s\.arrow"):
        merged(run, merge.merge_samples, "arrow", ROWS, "together")
    assert list((run / "together").iterdir()) == []


@pytest.mark.parametrize(("many_chunks", "opened"), [(100, 1 + 43), (2, 25)])
def test_with_many_chunks_a_batch_has_several_row_groups(run, monkeypatch, many_chunks, opened):
    paths = []
    monkeypatch.setattr(merge, "BATCH_BYTES", 16)
    monkeypatch.setattr(merge, "MANY_CHUNKS", many_chunks)
    monkeypatch.setattr(merge, "ChunkFile", lambda path, **of: paths.append(path) or ChunkFile(path, **of))
    merged(run, merge.merge_samples, "arrow", ROWS, "together")
    assert len(paths) == opened


@pytest.mark.parametrize("open_files", [1, 2, 100])
def test_residues_of_a_group_have_the_bytes_of_each_sample_alone(run, monkeypatch, open_files):
    monkeypatch.setattr(merge_residues, "OPEN_FILES", open_files)
    alone = [merged(run, merge_residues.merge_residues, "h5", [sample], "alone")[0] for sample in ROWS]
    assert merged(run, merge_residues.merge_residues, "h5", ROWS, "together") == alone
    with h5py.File(run / "together/u.h5") as file:
        assert len(file) == ROWS["u"]


def test_links_are_looked_up_for_the_samples_whose_files_are_open(run, monkeypatch):
    monkeypatch.setattr(merge_residues, "OPEN_FILES", 1)
    links, asked = merge_residues._links, []
    monkeypatch.setattr(merge_residues, "_links", lambda chunk, outs: asked.append(list(outs)) or links(chunk, outs))
    merged(run, partial(merge_residues.merge_residues, link=True), "h5", ["s", "u"], "together")
    assert {tuple(samples) for samples in asked} == {("s",), ("u",)}


@pytest.mark.parametrize(
    ("function", "ending"), [(merge.merge_samples, "arrow"), (merge_residues.merge_residues, "h5")]
)
def test_a_manifest_of_a_run_with_more_chunks_is_named(run, function, ending):
    with pytest.raises(EmbeddingFileError, match="m: it belongs to a run with more than 2 chunks; remove it"):
        function(run / "m", {"u": run / "u"}, [run / f"{i}.{ending}" for i in range(2)])
    assert not (run / "u").exists()


def test_a_chunk_that_is_missing_or_damaged_is_named_and_no_half_file_is_left(run):
    content = (run / "1.arrow").read_bytes()
    (run / "1.arrow").write_bytes(content[:200])
    with pytest.raises(EmbeddingFileError, match=r"1\.arrow: not a whole file of chunk embeddings"):
        merged(run, merge.merge_samples, "arrow", ROWS, "together")
    (run / "1.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.arrow"):
        merged(run, merge.merge_samples, "arrow", ROWS, "together")
    (run / "2.h5").write_bytes((run / "2.h5").read_bytes()[:-300])
    with pytest.raises(EmbeddingFileError, match=r"2\.h5"):
        merged(run, merge_residues.merge_residues, "h5", ROWS, "together")
    assert list((run / "together").iterdir()) == []
