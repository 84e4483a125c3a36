"""The comparison with fair-esm can fail: what it must notice, and the sequence it must name."""

import hashlib
import logging
import shutil
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import int8_runs_here, random_sequence
from packed_esm.checkpoints import digest
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding import long_proteins
from packed_esm.embedding.device import DTYPES, device_name
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import RepeatError, ValidationError
from packed_esm.model import esm2
from packed_esm.outputs.bounds import BOUNDS
from packed_esm.outputs.measures import residue_errors
from packed_esm.outputs.table import MEASURES
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.windows import ResidueWindows
from packed_esm.store.embeddings import ChunkFile, write_chunk
from packed_esm.store.merge import merge_samples
from packed_esm.system.files import read_json, write_json
from packed_esm.validation import candidates
from packed_esm.validation.candidates import Candidates, stratified_sample
from packed_esm.validation.run import validate
from packed_esm.validation.tolerance import ValidationOptions, find_failures

OPTIONS = EmbedOptions(DEMO_PATH, layers=(3, 6), poolings=("mean", "bos"), device="cpu", tokens_per_pack=512)


def embedded_run(folder, sequences, embedding=OPTIONS):
    """A run of {id: sequence} up to the chunk file: return a function that merges and validates it."""
    fasta = folder / "s.fasta"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
    paths = {name: folder / name for name in ("c.fasta", "m.parquet", "r.tsv", "c.json", "c.arrow", "e.json")}
    chunk_samples([("s", fasta)], [paths["c.fasta"]], paths["m.parquet"], paths["r.tsv"], paths["c.json"])
    embed_fasta(paths["c.fasta"], paths["c.arrow"], paths["e.json"], embedding)

    def check(options=ValidationOptions(), embedding=embedding):  # noqa: B008
        merge_samples(paths["m.parquet"], {"s": folder / "s.parquet"}, [paths["c.arrow"]])
        return validate(
            [("s", fasta, folder / "s.parquet")],
            paths["m.parquet"],
            [paths["e.json"]],
            folder / "v.tsv",
            folder / "v.json",
            options,
            embedding,
        )

    check.folder = folder
    return check


@pytest.fixture
def run(tmp_path):
    """A run of 12 proteins of 20 to 350 residues."""
    rng = np.random.default_rng(0)
    letters = list("ACDEFGHIKLMNPQRSTVWY")
    return embedded_run(tmp_path, {f"p{i}": "".join(rng.choice(letters, 20 + 30 * i)) for i in range(12)})


def change_before_checksums(run, change):
    """Change the embeddings as a bug in the embed job would: the checksums are of the wrong values."""
    chunk = ChunkFile(run.folder / "c.arrow")
    digests = chunk.digests(np.arange(len(chunk)))
    columns = {name: matrix.copy() for name, matrix in chunk.columns.items()}
    settings = chunk.settings
    change(columns)
    write_chunk(run.folder / "c.arrow", digests, [1] * len(digests), columns, settings)


def test_the_checkpoint_is_not_hashed_again_unless_it_changed(tmp_path, monkeypatch):
    checkpoint, hashed = tmp_path / "esm2_t6.pt", []
    shutil.copy(DEMO_PATH, checkpoint)
    check = embedded_run(tmp_path, {"a": "MKTAYIAKQR", "b": "MKVLAA"}, replace(OPTIONS, model=checkpoint))
    monkeypatch.setattr(digest, "checkpoint_sha256", lambda path: hashed.append(path) or "of another model")
    assert check(embedding=replace(OPTIONS, model=checkpoint))["passed"] and not hashed
    time.sleep(0.02)  # more than a tick of the clock of the file system
    shutil.copy2(DEMO_PATH, checkpoint)
    with pytest.raises(ValidationError, match="model_sha256: .* / 'of another model'"):
        check(embedding=replace(OPTIONS, model=checkpoint))
    assert hashed == [checkpoint]


def test_a_good_run_passes_and_says_how_good(run):
    summary = run()
    assert summary["passed"] and summary["bit_equal"] and summary["failures"] == []
    assert summary["sequences_compared"] == 12 == summary["rows_checked"]
    assert (summary["shortest"], summary["longest"], summary["layers"]) == (20, 350, [3, 6])
    assert 0 < summary["worst_relative_l2"] < 2e-6
    table = pd.read_csv(run.folder / "v.tsv", sep="\t")
    assert len(table) == 24 and table["id"].nunique() == 12
    assert {"mean_relative_l2", "bos_relative_l2", "min_residue_cosine", "worst_residue", "max_abs"} <= set(table)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", pytest.param("int8", marks=int8_runs_here)])
def test_proteins_whose_vectors_are_near_zero_pass_with_every_pooling(tmp_path, dtype):
    """One residue, and one residue over and over: their standard deviation is 0, or what rounding left of it."""
    alike = {"one": "M", "A": "A" * 70, "X": "X" * 40, "BU": "BU", "W": "W" * 300, "other": "MKTAYIAKQRQISFVKSHFSRQ"}
    poolings = ("mean", "max", "std", "bos", "eos")
    embedding = replace(OPTIONS, layers=(0, 3, 6), poolings=poolings, include=("log_likelihood",), dtype=dtype)
    run = embedded_run(tmp_path, alike, embedding)
    summary = run()
    assert summary["passed"] and summary["bit_equal"] and summary["sequences_compared"] == len(alike)
    table = pd.read_csv(tmp_path / "v.tsv", sep="\t")
    assert np.isfinite(table["std_relative_l2"]).all() and (table["std_relative_l2"][table["id"] == "one"] == 0).all()

    def another_deviation(columns):
        columns["std_6"] += 0.2 * columns["mean_6"]

    change_before_checksums(run, another_deviation)
    with pytest.raises(ValidationError, match="std_relative_l2 to the reference is"):
        run()


def one_value(columns):
    columns["mean_6"][5, 17] = np.nextafter(columns["mean_6"][5, 17], np.float32(1e9))


def one_value_of_another_pooling(columns):
    columns["bos_6"][5, 17] = np.nextafter(columns["bos_6"][5, 17], np.float32(1e9))


def shifted(columns):
    columns["bos_3"][:] = np.roll(columns["bos_3"], 1, axis=0)


def other_layer(columns):
    columns["mean_6"][:] = columns["mean_3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            one_value,
            r"s\|p5, 170 residues, layer 6: the stored values differ from those that the same settings give now",
        ),
        (
            one_value_of_another_pooling,
            r"s\|p5, 170 residues, layer 6: the stored values differ from those",
        ),
        (shifted, r"s\|p\d+, \d+ residues, layer 3: bos_relative_l2 to the reference is"),
        (other_layer, r"layer 6: mean_relative_l2 to the reference is"),
    ],
)
def test_wrong_values_with_right_checksums_fail_with_the_name(run, change, message, caplog):
    change_before_checksums(run, change)
    with pytest.raises(ValidationError):
        run()
    assert any(pd.Series([r.getMessage() for r in caplog.records]).str.contains(message))


def test_a_bug_in_the_packed_path_fails_though_a_second_run_repeats_it(run, monkeypatch):
    """Positions that run on: packed so again, the same wrong bits come out, but fair-esm gives others."""
    monkeypatch.setattr(esm2, "create_position_ids_packed", lambda cu_seqlens, total: torch.arange(total) // 2)
    paths = [run.folder / name for name in ("c.fasta", "c.arrow", "e.json")]
    with pytest.raises(RepeatError, match="gave different bits"):  # packed otherwise they are others
        embed_fasta(*paths, OPTIONS)
    paths[2].with_suffix(".repeat.npz").unlink()
    embed_fasta(*paths, OPTIONS, repeat=0.0)
    with pytest.raises(ValidationError, match="relative_l2 to the reference"):
        run()


def test_long_proteins_are_compared_with_fair_esms_own_windows(run, monkeypatch):
    windowed = replace(OPTIONS, windows=ResidueWindows(100, 30))
    paths = [run.folder / name for name in ("c.fasta", "c.arrow", "e.json")]
    embed_fasta(*paths, windowed)
    assert run(embedding=windowed)["worst_relative_l2"] < 2e-6
    joined = long_proteins.joined
    monkeypatch.setattr(long_proteins, "joined", lambda windows, parts, *more: joined(windows, parts[::-1], *more))
    embed_fasta(*paths, windowed)
    with pytest.raises(ValidationError, match="relative_l2 to the reference"):
        run(embedding=windowed)


def test_files_of_other_settings_are_refused(run):
    with pytest.raises(ValidationError, match=r"settings differ from the present ones \(layers: \[3, 6\] / \[6\]\)"):
        run(embedding=replace(OPTIONS, layers=(6,)))


def test_the_budget_of_the_files_is_used_again(run):
    assert run(embedding=replace(OPTIONS, tokens_per_pack=None))["bit_equal"]


def test_a_fasta_that_changed_during_the_run_is_noticed(run):
    fasta = run.folder / "s.fasta"
    fasta.write_text(fasta.read_text().replace(">p3\n", ">p3\nM"))
    with pytest.raises(ValidationError, match=r"line 7: sequence 'p3' is not the one in the manifest"):
        run()


def test_a_fasta_that_changed_where_no_sequence_is_compared_is_noticed(run):
    fasta = run.folder / "s.fasta"
    fasta.write_text(fasta.read_text().replace(">p3\n", ">p3\nM"))
    with pytest.raises(ValidationError, match=r"s.fasta: not the file that .*m.parquet was made from"):
        run(ValidationOptions(sequences=2))


def test_statistics_of_another_run_are_refused(run):
    stats = read_json(run.folder / "e.json")
    write_json(run.folder / "e.json", stats | {"settings": stats["settings"] | {"layers": [5]}})
    with pytest.raises(ValidationError, match=r"e.json: it belongs to another run \(layers: \[5\] / \[3, 6\]\)"):
        run()


HERE = device_name(torch.device("cpu"))
CLASS = "sm_90, 132 multiprocessors"


@pytest.mark.parametrize(
    ("made_on", "required"),
    [
        ({"device": HERE, "device_class": CLASS}, True),
        ({"device": "NVIDIA H200", "device_class": CLASS}, True),
        ({"device": HERE, "device_class": "sm_90, 114 multiprocessors"}, False),
        ({"device": "NVIDIA H100 PCIe", "device_class": "sm_90, 114 multiprocessors"}, False),
        ({"device": HERE}, True),
        ({"device": "NVIDIA H200"}, False),
    ],
)
def test_equal_bits_are_required_of_a_class_of_devices_and_of_a_name_without_a_class(
    run, made_on, required, monkeypatch, caplog
):
    monkeypatch.setattr("packed_esm.validation.run.device_class", lambda device: CLASS)
    stats = read_json(run.folder / "e.json")
    del stats["device_class"]
    write_json(run.folder / "e.json", stats | made_on)
    change_before_checksums(run, one_value)
    if required:
        with pytest.raises(ValidationError, match="differ from those that the same settings give now"):
            run()
        return
    with caplog.at_level(logging.WARNING):
        summary = run()
    assert summary["passed"] and not summary["bit_equal"]
    assert "equal bits are not required: made on (class of device, tokens per pack)" in caplog.text


def test_equal_bits_are_not_required_with_another_budget(run, caplog):
    stats = read_json(run.folder / "e.json")
    write_json(run.folder / "e.json", stats | {"settings": stats["settings"] | {"tokens_per_pack": 256}})
    change_before_checksums(run, one_value)
    with caplog.at_level(logging.WARNING):
        assert run()["passed"]
    assert "equal bits are not required" in caplog.text


def test_the_padded_fallback_is_validated_without_equal_bits(run):
    padded = replace(OPTIONS, attention="padded")
    embed_fasta(run.folder / "c.fasta", run.folder / "c.arrow", run.folder / "e.json", padded)
    assert run(embedding=padded)["passed"]


def test_tolerances_can_be_set(run):
    with pytest.raises(ValidationError, match=r"relative_l2 to the reference is .* more than 1.00e-09"):
        run(ValidationOptions(max_relative_l2=1e-9))
    with pytest.raises(ValidationError, match="cosine of residue"):
        run(ValidationOptions(min_residue_cosine=1.0))


def test_a_run_without_records_passes_and_says_so(tmp_path):
    fasta = tmp_path / "s.fasta"
    fasta.write_text("")
    chunk_samples([("s", fasta)], [tmp_path / "c.fasta"], tmp_path / "m", tmp_path / "r", tmp_path / "c.json")
    embed_fasta(tmp_path / "c.fasta", tmp_path / "c.arrow", tmp_path / "e.json", OPTIONS)
    merge_samples(tmp_path / "m", {"s": tmp_path / "s.parquet"}, [tmp_path / "c.arrow"])
    summary = validate(
        [("s", fasta, tmp_path / "s.parquet")],
        tmp_path / "m",
        [tmp_path / "e.json"],
        tmp_path / "v.tsv",
        tmp_path / "v.json",
        ValidationOptions(),
        OPTIONS,
    )
    assert summary["passed"] and summary["sequences_compared"] == 0


def test_the_sample_spreads_over_the_lengths_and_has_both_ends():
    lengths = np.random.default_rng(0).integers(10, 3000, 1000)
    rows = pd.DataFrame({"length": lengths, "digest": [f"d{i}" for i in range(1000)], "id": range(1000)})
    chosen = stratified_sample(rows, 32, seed=0)
    assert len(chosen) == 32 and chosen["length"].is_monotonic_decreasing
    assert chosen["length"].iloc[0] == lengths.max() and chosen["length"].iloc[-1] == lengths.min()
    assert np.histogram(chosen["length"], bins=8, range=(10, 3000))[0].min() >= 2
    assert not chosen.equals(stratified_sample(rows, 32, seed=1))
    assert len(stratified_sample(rows.iloc[[0, 0, 1]], 32, 0)) == 2  # equal sequences once
    for few in (2, 3):
        assert len(stratified_sample(rows, few, 0)) == few


def test_of_very_many_sequences_a_random_sample_and_both_ends_are_candidates(monkeypatch):
    """As many as are kept: all of them, the first record of each, whatever the batches."""
    monkeypatch.setattr(candidates, "MOST_KEPT", 300)
    lengths = np.random.default_rng(0).integers(10, 3000, 2000)
    digests = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2000)]
    rows = pd.DataFrame({"length": lengths, "digest": digests, "id": range(2000)})
    again = pd.concat([rows, rows.assign(id=-1)])
    chosen = []
    for size in (1, 77, 4000):
        found = Candidates()
        batches = [again.iloc[start : start + size] for start in range(0, 4000, size)]
        assert sum(map(len, found.among(batches))) == found.seen == 4000
        chosen.append(found.rows.sort_values("digest").reset_index(drop=True)[["length", "digest", "id"]])
        assert 300 <= len(found.rows) <= 302 and found.rows["digest"].is_unique and (found.rows["id"] >= 0).all()
        assert found.rows["length"].min() == lengths.min() and found.rows["length"].max() == lengths.max()
        assert abs(found.rows["length"].mean() / lengths.mean() - 1) < 0.1
    assert chosen[0].equals(chosen[1]) and chosen[0].equals(chosen[2])
    few = Candidates()
    assert sum(map(len, few.among([rows[:200], rows[:200]]))) == 400 and few.rows["id"].tolist() == list(range(200))


def test_the_worst_residue_is_named_even_where_the_mean_is_fine():
    truth = np.random.default_rng(0).normal(size=(500, 64))
    packed = truth.copy()
    packed[123] = -packed[123]
    found = residue_errors(packed, truth)
    assert found["worst_residue"] == 123 and found["min_residue_cosine"] == pytest.approx(-1)


@int8_runs_here
def test_weights_that_do_not_bear_int8_fail_and_the_message_names_the_dtype_to_use(tmp_path):
    """A column of the residual stream is 500 times as large as the others, and the last norm takes it away."""
    checkpoint = tmp_path / "esm2_t6.pt"
    weights = torch.load(DEMO_PATH, weights_only=False)
    tensors = {
        name.removeprefix("encoder.").removeprefix("sentence_encoder."): tensor
        for name, tensor in weights["model"].items()
    }
    embedding = tensors["embed_tokens.weight"].clone()
    embedding[:, 0] += 500 * embedding.std()
    for name in ("embed_tokens.weight", "lm_head.weight"):  # one tensor in the model
        tensors[name].copy_(embedding)
    for kind in ("weight", "bias"):
        tensors[f"emb_layer_norm_after.{kind}"][0] = 0
    torch.save(weights, checkpoint)
    rng = np.random.default_rng(0)
    sequences = {f"p{i}": random_sequence(30 + 20 * i, rng) for i in range(6)}
    options = replace(OPTIONS, model=checkpoint, layers=(6,))
    (tmp_path / "bf16").mkdir()
    assert embedded_run(tmp_path / "bf16", sequences, replace(options, dtype="bf16"))()["passed"]
    with pytest.raises(
        ValidationError, match="mean_relative_l2 to the reference is .*, more than 1.40e-02; use dtype: bf16"
    ):
        embedded_run(tmp_path, sequences, replace(options, dtype="int8"))()


def test_values_that_are_not_numbers_never_pass():
    row = {
        "sample": "s",
        "id": "x",
        "length": 9,
        "layer": 6,
        "relative_l2": float("nan"),
        "mean_relative_l2": 0.0,
    }
    row |= {"min_residue_cosine": float("nan"), "worst_residue": 1, "bit_equal": True}
    bounds = {"relative_l2": 1.0, "mean_relative_l2": 1.0, "min_residue_cosine": -1.0}
    assert len(find_failures(pd.DataFrame([row]), bounds, True)) == 2


def test_there_is_a_tolerance_for_each_dtype():
    assert all(by_dtype.keys() == DTYPES.keys() for by_dtype in BOUNDS.values())
    assert {measure.bound for measure in MEASURES.values()} == BOUNDS.keys()
