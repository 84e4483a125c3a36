"""What each rule's jobs ask for is what the formulas say of the sizes of their inputs."""

from types import SimpleNamespace

import pytest
from conftest import ROOT
from packed_esm.embedding.earlier_places import EarlierPlaces
from packed_esm.families import MODELS
from packed_esm.planning import resources as formulas
from packed_esm.planning.config import read_config
from packed_esm.planning.job_resources import JobResources, embedding_threads

SHAPE = MODELS["esm2_t33_650M_UR50D"]
BYTES = 7_000_000


def needed(residue_files=False, **config):
    settings = read_config(config, ROOT / "workflow/schemas/config.schema.yaml")
    return JobResources(settings, SHAPE, residue_files)


@pytest.fixture
def earlier(tmp_path):
    EarlierPlaces().write(tmp_path / "earlier.json")
    return str(tmp_path / "earlier.json")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\n" * BYTES)
    return str(path)


def test_a_job_asks_for_what_its_input_needs_and_more_with_each_attempt(file, earlier):
    one = SimpleNamespace(fasta=[file], manifest=file, chunks=[file], embeddings=[file], residue_values=[file])
    chunk = SimpleNamespace(earlier=earlier, fasta=file, embeddings=[file], manifest=file, chunks=[])
    run = needed(device="cuda", validation={"sequences": 9, "repeat": 0.5})
    assert run.chunking_mb(None, one, 2) == formulas.chunking_memory_mb(BYTES, 2)
    assert run.chunking_minutes(None, one, 2) == formulas.chunking_minutes(BYTES, 2)
    assert run.translating_mb(None, chunk, 1) == formulas.translating_memory_mb(BYTES)
    assert run.translating_minutes(None, chunk, 1) == formulas.translating_minutes(BYTES)
    assert run.embedding_mb(None, chunk, 1) == formulas.embedding_memory_mb(SHAPE, BYTES, 1.5)
    assert run.embedding_minutes(None, chunk, 8, 1) == formulas.embedding_minutes(SHAPE, 1.5 * BYTES, True, 8)
    assert run.merging_residues_mb(None, one, 1) == formulas.tables_memory_mb(formulas.MERGE_MB, BYTES)
    assert run.merging_mb(None, 1) == formulas.MERGE_MB
    assert run.merging_minutes(None, one, 1) == formulas.tables_minutes(2 * BYTES)
    assert run.exporting_mb(None, chunk, 1) == formulas.exporting_memory_mb(SHAPE, BYTES, 1)
    with_sequences = SimpleNamespace(manifest=file, chunks=[file, file])
    assert run.exporting_mb(None, with_sequences, 1) == formulas.exporting_memory_mb(SHAPE, BYTES, 1, 1, 2 * BYTES)
    assert run.exporting_minutes(None, chunk, 1) == formulas.exporting_minutes(SHAPE, BYTES)
    assert run.validation_mb(None, one, 1) == formulas.validation_memory_mb(SHAPE, BYTES)
    no_residues = SimpleNamespace(manifest=file, residue_values=[])
    assert run.validation_mb(None, no_residues, 1) == formulas.validation_memory_mb(SHAPE, 0)
    assert run.validation_minutes(None, one, 8, 1) == formulas.validation_minutes(SHAPE, 9, 4 * BYTES, True, 8)
    assert run.report_mb(None, one, 1) == formulas.report_memory_mb(BYTES)
    assert run.report_minutes(None, one, 1) == formulas.tables_minutes(2 * BYTES)


def test_more_columns_and_files_for_each_residue_take_more_memory(file, earlier):
    chunk = SimpleNamespace(earlier=earlier, fasta=file)
    few, many = needed(), needed(layers=[0, 1, -1], pooling=["mean", "max"])
    assert few.embedding_mb(None, chunk, 1) < many.embedding_mb(None, chunk, 1)
    cpu, gpu = ({"device": device, "layers": [0, -1]} for device in ("cpu", "cuda"))
    packs = 4 * 2 * 2 * 4 * 63  # MB: 4 packs of 63 million values, for 2 layers, in powers of two
    for config, more in ((cpu, 2000), (gpu, 2000 + packs), (gpu | {"include": ["contacts"]}, 6000 + packs)):
        without = needed(**config).embedding_mb(None, chunk, 2)
        assert needed(residue_files=True, **config).embedding_mb(None, chunk, 2) == without + 2 * more


def test_weights_that_are_streamed_ask_for_what_is_page_locked(file, earlier):
    chunk = SimpleNamespace(earlier=earlier, fasta=file, manifest=file, table=[file])
    for dtype, size in (("auto", 2), ("fp16", 2), ("fp32", 4)):
        run = needed(device="cuda", weights="streamed", dtype=dtype, validation={"repeat": 0.5})
        pinned = 4000 + size * SHAPE.parameters / 1e6
        plain = formulas.embedding_memory_mb(SHAPE, BYTES, 1.5) - 2 * 4 * SHAPE.parameters / 1e6
        assert run.embedding_mb(None, chunk, 1) == pytest.approx(plain + pinned, abs=2)
        assert run.scoring_mb(None, chunk, 1) == formulas.scoring_memory_mb(SHAPE, BYTES, streamed=size)
    for config in ({"device": "cpu", "weights": "streamed"}, {"device": "cuda"}, {"weights": "resident"}):
        assert needed(**config).scoring_mb(None, chunk, 1) == formulas.scoring_memory_mb(SHAPE, BYTES)
    large = MODELS["esm2_t48_15B_UR50D"]
    assert formulas.weights_memory_mb(large) > formulas.weights_memory_mb(large, 4) > large.weight_bytes / 1e6


def test_a_file_that_is_not_there_yet_is_left_to_snakemake(tmp_path):
    with pytest.raises(FileNotFoundError):
        needed().merging_residues_mb(None, SimpleNamespace(manifest=str(tmp_path / "m.parquet")), 1)


def test_a_job_wants_a_gpu_unless_the_device_is_the_cpu():
    assert [needed(device=device).gpus for device in ("auto", "cuda", "cpu")] == [1, 1, 0]


def test_cores_are_shared_among_as_many_jobs_as_there_are_gpus():
    assert [embedding_threads(16, 4), embedding_threads(2, 4), embedding_threads(None, 1)] == [4, 1, 8]
    assert embedding_threads(16, 0) == 16
