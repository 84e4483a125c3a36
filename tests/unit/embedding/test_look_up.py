"""One look-up for all chunks: which row groups have what, which chunks need no device, and what may be copied."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import PROGRAMS, ROOT, random_sequence
from packed_esm.checkpoints.digest import checkpoint_digest
from packed_esm.checkpoints.registry import DEMO_PATH, shape_of
from packed_esm.embedding.copying import copy_chunk, require_device
from packed_esm.embedding.earlier_places import EarlierPlaces
from packed_esm.embedding.expected import ExpectedSettings
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.look_up import look_up
from packed_esm.embedding.options import EmbedOptions, StorageOptions
from packed_esm.errors import EarlierSettingsError, EmbeddingFileError
from packed_esm.planning.config import read_config
from packed_esm.planning.job_resources import JobResources
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.store import merge
from packed_esm.store.embeddings import SampleFile, sample_settings
from packed_esm.store.settings import to_metadata
from packed_esm.system import gpu_lease

RNG = np.random.default_rng(0)
SEQUENCES = [random_sequence(int(length), RNG) for length in RNG.integers(5, 120, 44)]
OPTIONS = EmbedOptions(DEMO_PATH)
CHUNKS = [f"{number}-of-4.fasta" for number in (1, 2, 3, 4)]


class Run:
    """A run of one sample in four chunks; its merged file has row groups of five rows."""

    def __init__(self, folder: Path, sequences, earlier=()):
        self.folder, self.earlier = folder, list(earlier)
        (folder / "embeddings").mkdir(parents=True, exist_ok=True)
        (folder / "s.fasta").write_text("".join(f">p{i}\n{s}\n" for i, s in enumerate(sequences)))
        outputs = (folder / "m.parquet", folder / "r.tsv", folder / "c.json")
        fastas = [folder / name for name in CHUNKS]
        chunk_samples([("s", folder / "s.fasta")], fastas, *outputs, earlier=self.earlier)

    @property
    def parquet(self):
        return self.folder / "embeddings/s.parquet"

    def look_up(self, own=(), options=OPTIONS, storage=StorageOptions(), **more):  # noqa: B008
        digest = checkpoint_digest(DEMO_PATH)
        expected = ExpectedSettings.of(options, storage, "demo", digest.sha256, **{"on_cluster": False} | more)
        out = self.folder / "earlier.json"
        look_up(out, self.folder / "m.parquet", CHUNKS, own, self.earlier, expected, digest)
        return EarlierPlaces.read(out)

    def embed(self, chunk, places=EarlierPlaces(), options=OPTIONS):  # noqa: B008
        out = self.folder / chunk
        files = out, out.with_suffix(".arrow"), out.with_suffix(".json")
        return embed_fasta(*files, options, self.earlier, places=places)

    def copy(self, chunk, places, **more):
        out = self.folder / chunk
        return copy_chunk(out, out.with_suffix(".arrow"), out.with_suffix(".json"), places, self.earlier, **more)

    def merge(self, monkeypatch):
        monkeypatch.setattr(merge, "BATCH_BYTES", 5 * 4 * shape_of("demo").embed_dim)
        arrows = [self.folder / chunk.replace("fasta", "arrow") for chunk in CHUNKS]
        merge.merge_samples(self.folder / "m.parquet", {"s": self.parquet}, arrows)
        return self.parquet.read_bytes()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("embedded"), SEQUENCES[:40])
    with pytest.MonkeyPatch.context() as patch:
        for chunk in CHUNKS:
            run.embed(chunk)
        run.merge(patch)
    assert pq.read_metadata(run.parquet).num_row_groups == 8
    return run.parquet


@pytest.fixture
def first(tmp_path, embedded):
    run = Run(tmp_path / "first", SEQUENCES[:40])
    shutil.copy(embedded, run.parquet)
    return run


@pytest.fixture
def second(tmp_path, first):
    return Run(tmp_path / "second", SEQUENCES, [first.parquet])


def test_the_new_are_in_one_chunk_and_each_other_chunk_in_a_few_row_groups(second):
    places = second.look_up()
    assert [places.have_all(chunk) for chunk in CHUNKS] == [False, True, True, True]
    assert places.chunks[CHUNKS[0]].found == 0 and places.chunks[CHUNKS[0]].sequences == 4
    assert [(x.sequences == x.found) for x in places.chunks.values()] == [False, True, True, True]
    groups = [places.groups(chunk, second.earlier[0]) for chunk in CHUNKS]
    assert groups[0] == () and sorted({*groups[1], *groups[2], *groups[3]}) == list(range(8))
    assert sum(map(len, groups)) <= 8 + 2 and places.groups(CHUNKS[0], Path("other.parquet")) is None


def test_a_folder_of_parts_is_searched_as_one_file(tmp_path, embedded, second):
    """Its rows are counted over all parts; a copy has the bytes of a copy from one file."""
    parts = tmp_path / "embeddings" / "s.parquet"
    parts.parent.mkdir()
    made = embedded.parents[1]
    arrows = [made / chunk.replace("fasta", "arrow") for chunk in CHUNKS]
    merge.merge_samples(made / "m.parquet", {"s": parts}, arrows, rows_per_file=12)
    assert len([*parts.iterdir()]) == 4
    other = Run(tmp_path / "other", SEQUENCES, [parts])
    of_parts, of_file = other.look_up(), second.look_up()
    assert {*of_parts.groups(CHUNKS[1], parts)} < {*range(4)}
    for chunk in CHUNKS[1:]:
        assert of_parts.have_all(chunk)
        other.copy(chunk, of_parts)
        second.copy(chunk, of_file)
        arrow = chunk.replace("fasta", "arrow")
        assert (other.folder / arrow).read_bytes() == (second.folder / arrow).read_bytes()


def test_copies_are_those_of_a_run_without_earlier_results_byte_for_byte(second, tmp_path, monkeypatch):
    plain = Run(tmp_path / "plain", SEQUENCES)
    for chunk in CHUNKS:
        plain.embed(chunk)
    places = second.look_up()
    second.embed(CHUNKS[0], places)
    read = []
    original = SampleFile.read_row_group
    with monkeypatch.context() as patch:
        patch.setattr(SampleFile, "read_row_group", lambda *one, **more: read.append(one) or original(*one, **more))
        for chunk in CHUNKS[1:]:
            stats = second.copy(chunk, places)
            assert stats["reused_sequences"] == stats["sequences"] > 0 and stats["device"] == "no device: copied"
    assert len(read) <= 2 * (8 + 2)
    assert second.merge(monkeypatch) == plain.merge(monkeypatch)
    stats = [json.loads((second.folder / x).with_suffix(".json").read_text()) for x in CHUNKS]
    assert stats[0].keys() == stats[1].keys()


def test_a_chunk_with_one_new_sequence_is_not_complete(tmp_path, first):
    run = Run(tmp_path / "plain", SEQUENCES[:41])
    run.earlier = [first.parquet]
    places = run.look_up()
    assert sorted(x.sequences - x.found for x in places.chunks.values()) == [0, 0, 0, 1]
    for name, chunk in places.chunks.items():
        assert places.have_all(name) == (chunk.sequences == chunk.found)


def test_a_job_whose_sequences_are_all_found_asks_for_no_gpu(second):
    settings = read_config({"model": "demo"}, ROOT / "workflow/schemas/config.schema.yaml")

    def gpus(chunk, attempt=1, residues=False, **changed):
        resources = JobResources(settings | changed, shape_of("demo"), residues)
        job = SimpleNamespace(fasta=str(second.folder / chunk), earlier=str(second.folder / "earlier.json"))
        return resources.embedding_gpus({}, job, attempt), resources.embedding_mb({}, job, attempt)

    with pytest.raises(FileNotFoundError):  # Snakemake asks again when the job is to start
        gpus(CHUNKS[1])
    second.look_up()
    assert [gpus(chunk)[0] for chunk in CHUNKS] == [1, 0, 0, 0]
    assert gpus(CHUNKS[1], attempt=2)[0] == 1 and gpus(CHUNKS[1], residues=True)[0] == 1
    assert gpus(CHUNKS[0], device="cpu")[0] == gpus(CHUNKS[1], device="cpu")[0] == 0
    assert gpus(CHUNKS[1])[1] < gpus(CHUNKS[1], attempt=2)[1] / 2
    second.earlier[0].write_bytes(second.earlier[0].read_bytes() + b"x")
    assert [gpus(chunk)[0] for chunk in CHUNKS] == [1, 1, 1, 1]


def test_files_that_changed_since_are_searched(second, first):
    places = second.look_up()
    first.parquet.write_bytes(first.parquet.read_bytes())
    assert places.groups(CHUNKS[1], first.parquet) is None and not places.have_all(CHUNKS[1])
    stats = second.embed(CHUNKS[1], places)
    assert stats["reused_sequences"] == stats["sequences"]


def test_a_damaged_row_of_the_run_itself_is_not_copied_and_of_another_run_is_an_error(
    second, first, caplog, monkeypatch
):
    table = pq.read_table(first.parquet)
    checksums = table["checksum"].to_numpy().copy()
    checksums[7] += 1
    number = table.schema.get_field_index("checksum")
    pq.write_table(table.set_column(number, "checksum", [checksums]), first.parquet, row_group_size=5)
    places = second.look_up()
    chunk = next(name for name in CHUNKS if 1 in places.chunks[name].groups.get("0", ()))
    with pytest.raises(EmbeddingFileError, match=r"s.parquet, sequence .* remove it from `reuse`"):
        second.copy(chunk, places)
    second.earlier = []
    places = second.look_up(own=[first.parquet])
    assert second.copy(chunk, places, own_results=first.folder) is None
    assert "are embedded again" in caplog.text and not (second.folder / chunk).with_suffix(".arrow").exists()
    require_device(places.settings, Path(chunk))  # the results are those of a CPU, which each job has
    of_gpu = {**places.settings, "device": "cuda"}
    with pytest.raises(EarlierSettingsError, match="there is no GPU to compute them; run again with --retries 1"):
        require_device(of_gpu, Path(chunk))
    monkeypatch.setattr(gpu_lease, "visible_gpus", lambda: ["0"])
    require_device(of_gpu, Path(chunk))


@pytest.mark.parametrize(
    ("options", "storage", "why"),
    [
        ({"dtype": "bf16"}, {}, "dtype: 'bf16' / 'fp32'"),
        ({"layers": (0,)}, {}, r"layers: \[0\] / \[6\]"),
        ({"attention": "padded"}, {}, "attention: 'padded' / 'sdpa'"),
        ({"tokens_per_pack": 512}, {}, "tokens_per_pack: 512 / 2048"),
        ({"device": "cuda"}, {}, "device: 'cuda' / 'cpu'; dtype: 'fp16' / 'fp32'"),
        ({}, {"pooled_dtype": "float16"}, "pooled_dtype: 'float16' / None"),
    ],
)
def test_results_of_other_settings_are_left_out_and_the_log_says_why(second, caplog, options, storage, why):
    places = second.look_up(options=replace(OPTIONS, **options), storage=StorageOptions(**storage))
    assert not places.files and not any(places.have_all(chunk) for chunk in CHUNKS)
    assert f"is not used: made with other settings: {why}".replace("\\", "") in caplog.text


def with_settings(path, settings):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(to_metadata(settings)), path, row_group_size=5)


def test_what_auto_becomes_is_taken_from_results_of_the_kind_of_device_that_jobs_have(
    second, first, monkeypatch, caplog
):
    settings = sample_settings(first.parquet)
    of_gpu = settings | {"device": "cuda", "dtype": "fp16", "tokens_per_pack": 32768}
    assert not second.look_up(on_cluster=True).files  # of a CPU
    with_settings(first.parquet, of_gpu)
    caplog.clear()
    caplog.set_level("INFO")
    places = second.look_up(on_cluster=True)
    assert places.have_all(CHUNKS[1]) and places.settings == of_gpu
    assert "as in earlier results: attention: sdpa, kernels: torch, tokens_per_pack: 32768" in caplog.text
    assert not second.look_up().files and "device: no GPU / 'cuda'" in caplog.text
    monkeypatch.setattr(gpu_lease, "visible_gpus", lambda: ["0"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert second.look_up().have_all(CHUNKS[1])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not second.look_up().files
    for other in ({"attention": "triton 1.0"}, {"tokens_per_pack": [1024, 2048]}, {"bits": 99}, {"torch": "1.0"}):
        with_settings(first.parquet, of_gpu | other)
        assert not second.look_up(on_cluster=True).files, other


def test_a_job_with_other_settings_than_the_copies_stops_before_it_embeds(second, first):
    places = second.look_up()
    other = replace(OPTIONS, dtype="bf16")
    with pytest.raises(EarlierSettingsError, match=r"3 chunks are copied .*: dtype: 'bf16' / 'fp32'; set these keys"):
        second.embed(CHUNKS[0], places, other)
    second.embed(CHUNKS[0], places, replace(OPTIONS, tokens_per_pack=1024))  # as after an out-of-memory


def test_of_results_with_several_settings_those_of_the_first_count(second, first, tmp_path):
    other = tmp_path / "other.parquet"
    other.write_bytes(first.parquet.read_bytes())
    with_settings(other, sample_settings(first.parquet) | {"tokens_per_pack": 1024})
    second.earlier = [other, first.parquet]
    places = second.look_up()
    assert list(places.files) == [str(other)] and places.settings["tokens_per_pack"] == 1024


def test_damaged_files_of_the_run_are_left_out_and_given_ones_are_an_error(second, first, caplog):
    half = first.parquet.with_name("half.parquet")
    half.write_bytes(first.parquet.read_bytes()[:1000])
    places = second.look_up(own=[half])
    assert list(places.files) == [str(first.parquet)] and f"{half}: not a whole" in caplog.text
    second.earlier.append(half)
    with pytest.raises(EmbeddingFileError, match=r"half.parquet: not a whole .* remove it from `reuse`"):
        second.look_up()


def test_a_job_that_copies_needs_no_torch(second):
    second.look_up()
    fasta = second.folder / CHUNKS[1]
    files = ["--fasta", fasta, "--out", fasta.with_suffix(".arrow"), "--stats", fasta.with_suffix(".json")]
    words = [*files, "--reuse", second.earlier[0], "--earlier", second.folder / "earlier.json", "--model", "demo"]
    code = "import sys, embed_chunk; assert embed_chunk.main(sys.argv[1:]) == 0; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=PROGRAMS,
        env=os.environ | {"PYTHONPATH": str(PROGRAMS)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n", done.stderr
    assert json.loads(fasta.with_suffix(".json").read_text())["device"] == "no device: copied"


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAMS))
    import look_up as module

    return module.main


def test_without_earlier_results_the_file_says_so(program, tmp_path):
    out = tmp_path / "earlier.json"
    words = ["--manifest", "nowhere", "--chunks", "1.fasta", "--out", out, "--model", "demo", "--own-results", tmp_path]
    assert program([*map(str, words)]) == 0 and EarlierPlaces.read(out) == EarlierPlaces()
