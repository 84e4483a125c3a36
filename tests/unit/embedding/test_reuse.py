"""Earlier results: taken by digest where all settings agree, never otherwise, and never unchecked."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import random_sequence
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding import attempts, embedder
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.embedding.reuse import look_up
from packed_esm.errors import EmbeddingFileError
from packed_esm.outputs.columns import column_names
from packed_esm.planning.inputs import earlier_files
from packed_esm.sequences.alphabet import refget_digest
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.store.embeddings import SampleFile, SampleWriter, embedding_table, row_checksums
from packed_esm.store.merge import merge_samples
from packed_esm.store.settings import BITS, SETTINGS_KEY, fingerprint

SETTINGS = {"model": "m", "layers": [6, 0], "pooling": ["mean"], "tokens_per_pack": 512}
SEQUENCES = ["M" * n for n in range(1, 31)]
DIGESTS = [refget_digest(sequence) for sequence in SEQUENCES]
COLUMNS = {"mean_6": (30, 4), "mean_0": (30, 4)}


def values(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype("f4") for name, shape in COLUMNS.items()}


def empty(rows):
    return {name: np.empty((rows, width), "f4") for name, (_, width) in COLUMNS.items()}


def write_sample(path, rows, settings=SETTINGS, columns=None, group_rows=4):
    """Write a sample with these of the thirty sequences, in row groups of a few rows."""
    columns = columns or values()
    with SampleWriter(path, settings) as writer:
        for start in range(0, len(rows), group_rows):
            some = rows[start : start + group_rows]
            digests = [DIGESTS[i] for i in some]
            checksums = row_checksums(digests, {name: matrix[some] for name, matrix in values().items()})
            matrices = {name: matrix[some] for name, matrix in columns.items()}
            writer.write(embedding_table(digests, some, matrices, checksums, ids=digests))
    return path


def test_what_is_there_is_taken_with_its_checksum_and_the_rest_is_missing(tmp_path):
    paths = [write_sample(tmp_path / "a.parquet", [3, 9, 9, 1, 7, 20]), write_sample(tmp_path / "b.parquet", [9, 12])]
    wanted = [12, 5, 9, 1, 29]
    digests = [DIGESTS[i] for i in wanted]
    earlier = look_up(paths, digests, SETTINGS, empty(5))
    assert earlier.found.tolist() == [True, False, True, True, False] and earlier.missing.tolist() == [1, 4]
    new = {name: matrix[[5, 29]] for name, matrix in values().items()}
    columns, checksums = earlier.completed(digests, new)
    assert list(columns) == list(COLUMNS)
    for name, matrix in values().items():
        assert np.array_equal(columns[name], matrix[wanted])
    assert np.array_equal(checksums, row_checksums(digests, columns))


def test_only_row_groups_with_something_wanted_are_read(tmp_path, monkeypatch):
    path = write_sample(tmp_path / "a.parquet", list(range(30)))
    read = []

    def counting(file, group, columns):
        read.append((group, tuple(columns)))
        return original(file, group, columns=columns)

    original = SampleFile.read_row_group
    monkeypatch.setattr(SampleFile, "read_row_group", counting)
    assert look_up([path], [DIGESTS[5]], SETTINGS, empty(1)).found.all()
    assert [group for group, columns in read if "mean_6" in columns] == [1]


@pytest.mark.parametrize(
    "other", [{"layers": [6]}, {"dtype": "bf16"}, {"tokens_per_pack": [256, 512]}, {"model": "n"}, {"torch": "3"}]
)
def test_a_file_with_any_other_setting_gives_nothing_and_a_warning_says_which(tmp_path, caplog, other):
    columns = {name: values()[name] for name in column_names(SETTINGS | other)}
    path = write_sample(tmp_path / "a.parquet", [1, 2], SETTINGS | other, columns)
    assert not look_up([path], DIGESTS, SETTINGS, empty(30)).found.any()
    (key,) = other
    assert f"{path} is not used: made with other settings: {key}: " in caplog.text


def rewritten_metadata(path, change):
    """Write a sample's file again with other metadata."""
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[SETTINGS_KEY])
    pq.write_table(table.replace_schema_metadata({SETTINGS_KEY: json.dumps(change(metadata))}), path)


def test_a_file_of_another_version_is_taken_and_one_of_other_bits_is_not(tmp_path):
    settings = SETTINGS | {"bits": BITS}
    path = write_sample(tmp_path / "a.parquet", [1, 2], settings)
    rewritten_metadata(path, lambda metadata: metadata | {"version": "99.0"})
    assert look_up([path], DIGESTS, settings, empty(30)).found.sum() == 2
    assert not look_up([path], DIGESTS, settings | {"bits": BITS + 1}, empty(30)).found.any()


def test_a_file_of_version_0_3_0_is_of_the_first_bits(tmp_path):
    """It had the version among the settings, and no number."""
    path, old = write_sample(tmp_path / "a.parquet", [1, 2]), SETTINGS | {"packed_esm": "0.3.0"}
    rewritten_metadata(path, lambda metadata: {"settings": old, "fingerprint": fingerprint(old)})
    assert look_up([path], DIGESTS, SETTINGS | {"bits": 1}, empty(30)).found.sum() == 2
    assert not look_up([path], DIGESTS, SETTINGS | {"bits": 2}, empty(30)).found.any()


def test_damage_is_named_with_a_remedy_that_removes_nothing(tmp_path):
    changed = values()
    changed["mean_0"][2, 3] = np.nextafter(changed["mean_0"][2, 3], np.float32(9))
    path = write_sample(tmp_path / "a.parquet", [1, 2], columns=changed)
    with pytest.raises(EmbeddingFileError, match=rf"a.parquet, sequence {DIGESTS[2]}: .* remove it from `reuse`"):
        look_up([path], DIGESTS, SETTINGS, empty(30))
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"PAR1 not at all"):
        path.write_bytes(damaged)
        with pytest.raises(EmbeddingFileError, match=r"a.parquet: not a whole .* remove it from `reuse`"):
            look_up([path], DIGESTS, SETTINGS, empty(30))


def test_folders_of_results_and_files_are_found_but_those_of_this_run_are_no_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("week1/embeddings/b.parquet", "week1/embeddings/a.parquet", "week1/manifest.parquet", "c.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    own = tmp_path / "results"
    week1 = ["week1/embeddings/a.parquet", "week1/embeddings/b.parquet"]
    for paths in (["week1", "c.parquet"], ["week1/embeddings", "week1", "c.parquet"]):
        assert list(map(str, earlier_files(paths, own))) == [*week1, "c.parquet"]
    assert earlier_files([], own) == []
    for nothing in ("nowhere", "nowhere.parquet"):
        with pytest.raises(ValueError, match=f"reuse: there are no embeddings at {nothing}; give"):
            earlier_files([nothing], own)
    shutil.copytree("week1", "results")
    (tmp_path / "link").symlink_to("results")
    for itself in ("results", "link", "results/embeddings/a.parquet"):
        assert earlier_files([itself, "c.parquet"], own) == [Path("c.parquet")]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Twelve sequences, and a sample of the first ten, embedded and merged."""
    folder = tmp_path_factory.mktemp("first")
    rng = np.random.default_rng(0)
    sequences = [random_sequence(int(length), rng) for length in rng.integers(5, 120, 12)]
    run(folder, sequences[:10])
    return folder, sequences


def run(folder, sequences, options=None, **more):
    """Chunk, embed and merge; return (statistics, bytes of the sample)."""
    (folder / "s.fasta").write_text("".join(f">p{i}\n{s}\n" for i, s in enumerate(sequences)))
    outputs = (folder / "m.parquet", folder / "r.tsv", folder / "c.json")
    chunk_samples([("s", folder / "s.fasta")], [folder / "1.fasta"], *outputs)
    options = options or EmbedOptions(DEMO_PATH, device="cpu", tokens_per_pack=2048)
    stats = embed_fasta(folder / "1.fasta", folder / "1.arrow", folder / "1.json", options, **more)
    merge_samples(folder / "m.parquet", {"s": folder / "s.parquet"}, [folder / "1.arrow"])
    return stats, (folder / "s.parquet").read_bytes()


def test_only_new_sequences_are_embedded_and_the_bytes_are_the_same(tmp_path, first, monkeypatch):
    folder, sequences = first
    stats, plain = run(tmp_path, sequences)
    assert stats["reused_sequences"] == stats["reused_residues"] == 0
    embedded = []
    original = Embedder.embed
    monkeypatch.setattr(
        Embedder, "embed", lambda self, tokens, **o: embedded.extend(map(len, tokens)) or original(self, tokens, **o)
    )
    stats, reusing = run(tmp_path, sequences, reuse=[folder / "s.parquet"], repeat=1.0)
    assert reusing == plain
    new = [len(s) + 2 for s in sequences[10:]]
    assert embedded[:2] == new and sorted(embedded[2:]) == sorted(new) and stats["repeated_sequences"] == 2
    assert stats["sequences"] == 12 and stats["reused_sequences"] == 10
    assert stats["reused_residues"] == sum(map(len, sequences[:10]))
    rate = sum(map(len, sequences[10:])) / stats["seconds"]["embed"]
    assert stats["residues_per_second"] == pytest.approx(rate)
    embedded.clear()
    stats, _ = run(tmp_path, sequences[:10], reuse=[folder / "s.parquet"])
    assert embedded == [] and stats["residues_per_second"] == 0 and stats["packs"] == 0


@pytest.mark.parametrize("include", [(), ("pseudo_log_likelihood",)])
def test_the_weights_are_loaded_only_if_a_sequence_is_new(tmp_path, first, monkeypatch, include):
    _, sequences = first
    options = EmbedOptions(DEMO_PATH, device="cpu", tokens_per_pack=2048, include=include)
    (tmp_path / "embeddings").mkdir()
    plain = run(tmp_path, sequences[:3], options)[1]
    (tmp_path / "embeddings" / "s.parquet").write_bytes(plain)
    loaded = []
    original = embedder.load_model
    monkeypatch.setattr(
        embedder, "load_model", lambda path, mapped=False: loaded.append(mapped) or original(path, mapped)
    )
    stats, again = run(tmp_path, sequences[:3], options, own_results=tmp_path, repeat=1.0)
    assert again == plain and stats["reused_sequences"] == 3 and loaded == [True]
    more = run(tmp_path, sequences[:4], options, own_results=tmp_path)[1]
    assert loaded == [True, True, False]
    assert run(tmp_path, sequences[:4], options)[1] == more and loaded == [True, True, False, False]


def test_after_an_out_of_memory_nothing_of_the_larger_budget_is_kept(tmp_path, first, monkeypatch):
    folder, sequences = first
    original = Embedder.embed

    def embed(self, tokens, **options):
        if self.tokens_per_pack > 1024:
            raise torch.OutOfMemoryError("too much")
        return original(self, tokens, **options)

    monkeypatch.setattr(Embedder, "embed", embed)
    monkeypatch.setattr(attempts.torch.cuda, "empty_cache", lambda: None)
    stats, reusing = run(tmp_path, sequences, reuse=[folder / "s.parquet"])
    assert stats["reused_sequences"] == 0 and stats["settings"]["tokens_per_pack"] == 1024
    small = EmbedOptions(DEMO_PATH, device="cpu", tokens_per_pack=1024)
    assert run(tmp_path, sequences, small)[1] == reusing
