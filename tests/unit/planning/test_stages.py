"""What stages are asked for: which keys and files change which stage, and what is written of it."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packed_esm.planning import stages
from packed_esm.planning.checkpoint import Checkpoint
from packed_esm.planning.config import keys, read_config
from packed_esm.planning.results import Results
from packed_esm.store.settings import BITS

SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
RECORDS = {"on_invalid": "replace", "on_duplicate_id": "suffix", "max_record_residues": 70_000}
EMBEDDING = {
    "layers": [0],
    "pooling": ["max"],
    "include": ["logits"],
    "per_residue": "float16",
    "device": "cpu",
    "dtype": "bf16",
    "attention": "sdpa",
    "tokens_per_pack": 512,
    "on_nonfinite": "fail",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.fasta").write_text(">a\nMKV\n")
    (tmp_path / "page.html.j2").write_text("page")
    return tmp_path


def requested(**config):
    settings = read_config(config, SCHEMA)
    results = Results("results/demo", settings, {"s": "s.fasta"}, 1)
    return results, stages.requested_stages(
        results, Checkpoint(settings), {"template of the page": Path("page.html.j2")}
    )


def stamps_of(results, requested_stages, is_run):
    return stages.stamps_of(results, stages.compare_with_record(results, requested_stages), is_run)


def changed(**config):
    """Return the stages that a configuration changes."""
    (_, before), (_, after) = requested(), requested(**config)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        *(({key: value}, {"chunk"}) for key, value in RECORDS.items()),
        *(({key: value}, {"embed"}) for key, value in EMBEDDING.items()),
        ({"weights": "streamed"}, set()),
        ({"long_proteins": {"max_length": 60}}, {"chunk", "embed"}),
        ({"validation": {"sequences": 4}}, {"validate"}),
        ({"validation": {"repeat": 0.5}}, set()),
        ({"formats": ["npy"]}, set()),  # of which Snakemake keeps the parameters
        ({"color_by": "OX"}, {"report"}),
        ({"translation": {"window": 500}}, set()),  # of proteins
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),  # a set has no order of its own
)
def test_a_key_changes_the_stages_that_it_determines(here, config, expected):
    assert changed(**config) == expected


def test_nucleotides_are_what_translate_reads_and_proteins_what_chunk_reads(here):
    _, proteins = requested()
    _, nucleotides = requested(input="nucleotide")
    assert "translate" not in proteins and list(proteins["chunk"].sources) == ["FASTA of sample s"]
    assert list(nucleotides["translate"].sources) == ["FASTA of sample s"] and not nucleotides["chunk"].sources
    assert nucleotides["translate"].settings["translation.window"] == 300


def test_the_number_is_in_the_settings_of_what_computes(here, monkeypatch):
    monkeypatch.setattr(stages, "BITS", BITS + 1)
    _, after = requested(input="nucleotide")
    monkeypatch.undo()
    _, before = requested(input="nucleotide")
    assert {name for name in after if before[name] != after[name]} == {"translate", "chunk", "embed"}


def test_jobs_say_what_they_read_in_counts_and_statistics(here):
    results, _ = requested()
    recorded = {"embed": {"sources": {"checkpoint": {"identity": [[1, 2, 3]]}}}}
    assert stages.digests_of_jobs(results, recorded) == {"translate": {}, "chunk": {}, "embed": {}, "variants": {}}
    for path, content in (
        ("counts.json", {"fasta_sha256": {"s": "of proteins"}}),
        ("translated/s.json", {"fasta_sha256": "of nucleotides"}),
        ("chunks/1-of-1.json", {"checkpoint": {"identity": [[1, 2, 3]], "sha256": "of the model"}}),
        ("variants.json", {"settings": {"model_sha256": "of the scores"}}),
    ):
        (here / "results/demo" / path).parent.mkdir(parents=True, exist_ok=True)
        (here / "results/demo" / path).write_text(json.dumps(content))
    made = stages.digests_of_jobs(results, recorded)
    assert made["chunk"] == {"FASTA of sample s": "of proteins"} and made["embed"] == {"checkpoint": "of the model"}
    assert made["variants"] == {"checkpoint": "of the scores"}
    recorded["embed"]["sources"]["checkpoint"]["identity"] = [[1, 2, 4]]  # of a file that the job did not read
    assert stages.digests_of_jobs(results, recorded)["embed"] == {}
    made = stages.digests_of_jobs(requested(input="nucleotide")[0], {})
    assert made["translate"] == {"FASTA of sample s": "of nucleotides"} and made["chunk"] == {}


def test_only_locks_of_the_same_results_count(here):
    results, _ = requested()
    locks = here / ".snakemake/locks"
    assert not stages.are_locked(results)
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/demo2/counts.json\nmy/results/demo/counts.json\n")
    assert not stages.are_locked(results)
    (locks / "1.input.lock").write_text("s.fasta\nresults/demo/chunks/1-of-1.fasta\n")
    assert stages.are_locked(results)


def test_a_run_writes_record_and_stamps_and_a_dry_run_neither(here, capsys):
    results, first = requested()
    dry = stamps_of(results, first, is_run=False)
    assert not (here / "results").exists() and all(Path(path).is_file() for path in dry.values())
    stamps = stamps_of(results, first, is_run=True)
    assert stamps == stages.stamps_of_this_run(results, first)
    assert stages.record_path(results).is_file() and not capsys.readouterr().err
    kept = stamps_of(results, first, is_run=False)
    assert kept == stamps
    results, other = requested(layers=[0])
    shown = stamps_of(results, other, is_run=False)
    assert {name for name, path in shown.items() if path != stamps[name]} == {"embed"}
    assert "results/demo: embed runs again; layers: [-1] / [0]\n" in capsys.readouterr().err


def test_once_all_is_done_what_was_asked_for_before_is_forgotten(here):
    results, first = requested()
    stamps_of(results, first, is_run=True)
    results, other = requested(layers=[0])
    stamps_of(results, other, is_run=True)
    for done, kept in ((False, True), (True, False)):
        stages.record_digests(results, other, done)
        assert ("previous" in json.loads(stages.record_path(results).read_text())["embed"]) == kept


def test_a_record_that_cannot_be_read_is_said_and_all_runs_again(here, capsys):
    results, first = requested()
    stamps = stamps_of(results, first, is_run=True)
    stages.record_path(results).write_text("{")
    again = stamps_of(results, first, is_run=False)
    assert not set(again.values()) & set(stamps.values())
    assert "settings.json: incomplete record of the settings; everything runs again" in capsys.readouterr().err


def test_scores_of_variants_have_a_stage_of_their_own_where_there_is_a_table(here):
    def of_variants(**config):
        return requested(**{"variants": "v.tsv"} | config)[1]["variants"]

    (here / "v.tsv").write_text("sample\tid\tmutations\n")
    assert "variants" not in requested()[1] and requested(variants="v.tsv")[1].keys() - requested()[1].keys() == {
        "variants"
    }
    for key in ("layers", "pooling", "include"):
        assert of_variants(**{key: EMBEDDING[key]}) == of_variants()
    for key in ("dtype", "attention", "device", "tokens_per_pack", "on_nonfinite"):
        assert of_variants(**{key: EMBEDDING[key]}) != of_variants()
    assert of_variants(weights="streamed") == of_variants()
    assert of_variants(variant_scores=["pseudo_log_likelihood"]) != of_variants()
    assert of_variants(long_proteins={"max_length": 60}) != of_variants()
    assert {name: source.paths for name, source in of_variants().sources.items()}["table of variants"] == (
        Path("v.tsv"),
    )


def test_every_key_is_of_a_stage_or_known_to_be_of_none(here):
    """A key of none: Snakemake's own, of parameters alone, or of where things are."""
    schema = yaml.safe_load(SCHEMA.read_text())
    (here / "v.tsv").touch()
    storage = {"include_dtype": "float16", "contact_maps": "triangle", "pooled_dtype": "float16"}
    _, known = requested(input="nucleotide", variants="v.tsv", **storage)
    of_stages = {key for stage in known.values() for key in stage.settings}
    of_none = {
        "name",
        "model",
        "chunks",
        "container",
        "residues_per_chunk",
        "reuse",
        "formats",
        "residue_files",
        "rows_per_file",
        "keep_chunks",
        "validation.repeat",
        "weights",
    }
    assert set(keys(schema)) <= of_stages | of_none
