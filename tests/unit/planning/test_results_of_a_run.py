"""The files of results, and the summary that is made of them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from packed_esm.planning import summary
from packed_esm.planning.config import read_config
from packed_esm.planning.results import Results, residue_features
from packed_esm.system.files import write_json

SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
FOLDER = "results/demo"


def results(columns=("mean_6",), chunks=2, folder=FOLDER, **config):
    return Results(folder, read_config(config, SCHEMA), {"s": "s.fasta", "t": "t.fasta"}, chunks, columns)


def write(*paths, content=None):
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if content is None else write_json(path, content)


def test_a_run_is_for_embeddings_exports_residues_validation_and_report():
    run = results(formats=["npy", "h5ad", "pt"], per_residue="float16")
    assert run.final() == [
        *(f"{FOLDER}/embeddings/{sample}.parquet" for sample in "st"),
        *(f"{FOLDER}/residues/{sample}.representations.h5" for sample in "st"),
        *(f"{FOLDER}/embeddings/{s}.{end}" for s in "st" for end in ("mean_6.npy", "mean_6.ids.txt", "h5ad", "pt")),
        f"{FOLDER}/validation/summary.json",
        f"{FOLDER}/report.html",
    ]
    assert run.exported_residues("s") == {"representations": f"{FOLDER}/residues/s.representations.h5"}
    assert results(formats=["h5"], per_residue="float16").exported_residues("s") == {} and run.exported_chunks() == []


@pytest.mark.parametrize("name", ["h5", "skbio"])
def test_the_sequences_are_there_for_the_formats_that_need_them(name):
    run = results(formats=["pt", name])
    assert run.exported_chunks() == [f"{FOLDER}/chunks/{i}-of-2.fasta" for i in (1, 2)]
    assert run.exports("s")[0][-1] == f"{FOLDER}/embeddings/s.mean_6.{'h5' if name == 'h5' else 'skbio.h5'}"


def test_proteins_are_those_of_the_sheet_or_their_translations():
    assert results().proteins == {"s": "s.fasta", "t": "t.fasta"}
    assert results(input="nucleotide").proteins["s"] == f"{FOLDER}/translated/s.fasta"


def test_files_for_each_residue_are_those_that_are_asked_for_also_with_reuse():
    settings = read_config({"per_residue": "float32", "include": ["contacts", "log_likelihood", "logits"]}, SCHEMA)
    assert residue_features(settings) == ["representations", "logits", "contacts"]
    assert residue_features(read_config({"include": ["log_likelihood"], "reuse": ["a"]}, SCHEMA)) == []
    assert residue_features(read_config({"include": ["logits"], "reuse": ["a"]}, SCHEMA)) == ["logits"]


def test_values_of_each_residue_lie_in_the_files_of_samples_and_of_linked_ones_in_those_of_chunks():
    asked = {"per_residue": "float16", "include": ["logits"]}
    whole, linked = results(**asked), results(**asked, residue_files="linked")
    assert whole.residue_values() == list(whole.residues.values()) == list(linked.residues.values())
    assert linked.residue_values() == [
        f"{FOLDER}/chunks/{chunk}-of-2.{feature}.h5" for feature in ("representations", "logits") for chunk in (1, 2)
    ]
    assert results().residue_values() == []


def test_files_of_another_configuration_are_named_six_of_them_in_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = results(input="nucleotide", include=["logits"])
    assert run.stale() == ""
    write(*run.final(), f"{FOLDER}/translated/s.json", f"{FOLDER}/counts.json")
    assert run.stale() == ""
    write(f"{FOLDER}/embeddings/u.parquet")
    assert run.stale() == f"1 files do not belong to this configuration: {FOLDER}/embeddings/u.parquet"
    write(*(f"{FOLDER}/chunks/{i}-of-5.arrow" for i in range(1, 6)))
    assert run.stale().startswith("6 files do not belong") and run.stale().endswith("5-of-5.arrow and 1 more")


def test_residues_of_chunks_are_expected_until_all_are_merged_and_of_linked_files_always(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, chunk = results(include=["logits"]), f"{FOLDER}/chunks/2-of-2.logits.h5"
    write(chunk, *run.final())
    assert run.not_expected() == [chunk] and not results(include=["logits"], residue_files="linked").not_expected()
    os.utime(chunk, (2e9, 2e9))  # of a run that ended between embedding and merging
    assert run.not_expected() == []
    os.utime(chunk, (1e9, 1e9))
    Path(f"{FOLDER}/residues/t.logits.h5").unlink()
    assert run.not_expected() == []


def test_results_of_the_first_layout_are_named_unless_results_are_wanted_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("results/manifest.parquet")
    assert results().first_layout() == ["results/manifest.parquet"] and results(folder="results").first_layout() == []


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = results()
    counts = dict.fromkeys(("records", "accepted", "replaced", "truncated", "split", "rejected", "residues"), 3)
    write(f"{FOLDER}/counts.json", content=counts | {"samples": {"s": counts, "t": counts}})
    job = {"residues": 10, "reused_residues": 0, "reused_sequences": 0, "seconds": {"embed": 2.0}}
    write(*run.statistics(), content=job)
    write(*run.embeddings.values())
    write(run.validation, content={"sequences_compared": 0})
    return run


def test_the_summary_says_what_was_done_and_what_is_stale(finished):
    write(f"{FOLDER}/embeddings/u.parquet")
    text = summary.end(finished)
    assert "5 residues/s in a job" in text and f"Report:     {FOLDER}/report.html" in text
    assert (
        f"Stale:      1 files do not belong to this configuration: {FOLDER}/embeddings/u.parquet (packed-esm clean,"
        in text
    )


def test_the_summary_names_residue_files_and_scores_only_if_there_are_some(finished):
    plain = summary.end(finished)
    more = summary.end(results(per_residue="float16", variants="v.tsv"))
    assert f"Residues:   {FOLDER}/residues/" in more and f"Variants:   {FOLDER}/variants.tsv" in more
    assert "Residues:" not in plain and "Variants:" not in plain


@pytest.mark.parametrize("missing", ["counts.json", "chunks/2-of-2.json", "validation/summary.json"])
def test_a_run_that_did_not_come_to_its_end_has_no_summary(finished, missing):
    Path(FOLDER, missing).unlink()
    assert summary.end(finished) == ""


def test_embeddings_that_are_newer_than_their_validation_have_no_summary(finished):
    later = Path(finished.validation).stat().st_mtime + 60
    os.utime(finished.embeddings["t"], (later, later))
    assert summary.end(finished) == ""


def test_a_run_says_what_it_is_for_and_after_a_failure_what_to_do(finished):
    settings, one = {"model": "demo"}, replace(finished, samples={"s": "s.fasta"}, chunks=1)
    line = summary.start(finished, settings)
    assert line == f"packed-esm: 2 samples, model demo, 2 embed jobs; results go to {FOLDER}/"
    assert "1 sample, model demo, 1 embed job;" in summary.start(one, settings)
    assert "their logs are in logs/demo/" in summary.failure("logs/demo")
