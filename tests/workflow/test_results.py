"""Results that are there are as asked for, made again, or refused, also where Snakemake's own folder is lost."""

import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from checkpoint_files import save_fair_esm
from conftest import random_esm2, random_sequence

from .conftest import Project, proteins, without_group

MODEL = "esm2_small.pt"
EVERY = {"chunk_fasta", "look_up", "embed_chunk", "merge_samples", "validate", "make_report"}
EMBED = EVERY - {"chunk_fasta"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("finished"))
    project.write_samples(s=proteins(4), t=proteins(3, seed=1))
    save_fair_esm(random_esm2(2, 32, 2), project.folder / MODEL)
    project.passes(config=(f"model=./{MODEL}",))
    return project.folder


@pytest.fixture
def copy(finished, project):
    """A copy of a finished run, times kept, without Snakemake's own folder."""
    shutil.copytree(finished, project.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".snakemake"))
    return project


def reruns(project, *config, arguments=()):
    """Return the rules that a dry run wants, and that a real one, which records what is asked for, wants after it."""
    done = project.passes("--dry-run", *arguments, config=(f"model=./{MODEL}", *config))
    return set(map(without_group, re.findall(r"^(\w+) +\d+$", done.output, re.MULTILINE))) - {"all", "total"}


def rewritten(path, change):
    """Change the content of a file, not its size and times, as `touch -r` and `cp -p` would leave it."""
    before = path.stat()
    content = change(path.read_bytes())
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_reruns_where_nothing_changed(copy):
    assert reruns(copy) == set()
    (copy.folder / "s.fasta").touch()
    assert "runs again" not in copy.passes("--dry-run", config=(f"model=./{MODEL}",)).output  # the same content


@pytest.mark.parametrize(
    "config", ["layers=[1]", "pooling=[max]", "dtype=bf16", "attention=padded", "tokens_per_pack=512"]
)
def test_other_settings_rerun_what_they_determine(copy, config):
    assert reruns(copy, config) == EMBED
    assert (
        "embed runs again; " + config.split("=")[0] in copy.run("--dry-run", config=(f"model=./{MODEL}", config)).output
    )


def test_a_fasta_edited_in_place_with_its_time_and_size_kept_is_noticed(copy):
    rewritten(copy.folder / "s.fasta", lambda text: text[:-2] + (b"A" if text[-2:-1] != b"A" else b"C") + b"\n")
    assert reruns(copy) == EVERY


def test_a_fasta_replaced_by_an_older_file_is_noticed(copy):
    older = copy.folder / "older.fasta"
    older.write_text(proteins(2, seed=7))
    os.utime(older, (1, 1))
    older.replace(copy.folder / "t.fasta")
    assert reruns(copy) == EVERY


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """A finished run of nucleotides, without Snakemake's own folder."""
    project = Project(tmp_path_factory.mktemp("translated"))
    project.write_samples(s=f">a\n{random_sequence(900, np.random.default_rng(0), 'ACG')}\n")
    project.passes("merge_samples", config=("input=nucleotide",))
    shutil.rmtree(project.folder / ".snakemake")
    return project.folder


@pytest.mark.parametrize("touched_only", [True, False], ids=["another time", "edited, time and size kept"])
def test_nucleotides_are_translated_again_where_their_content_changed_alone(translated, project, touched_only):
    shutil.copytree(translated, project.folder, dirs_exist_ok=True)
    if touched_only:
        os.utime(project.folder / "s.fasta", (1, 1))
    else:
        rewritten(project.folder / "s.fasta", lambda text: text[:-2] + (b"A" if text[-2:-1] != b"A" else b"C") + b"\n")
    done = project.passes("--dry-run", "merge_samples", config=("input=nucleotide",))
    said = "translate runs again; FASTA of sample s: s.fasta is not the file that was read"
    assert (said in done.output, "translate " in done.output) == (not touched_only, not touched_only), done.output


def test_a_checkpoint_edited_in_place_with_its_time_and_size_kept_is_noticed(copy):
    later = save_other_model(copy.folder / "other.pt")
    rewritten(copy.folder / MODEL, lambda content: later[: len(content)].ljust(len(content), b"\0"))
    assert reruns(copy) >= EMBED


def save_other_model(path):
    path.parent.mkdir(exist_ok=True)
    save_fair_esm(random_esm2(2, 32, 2, seed=1), path)
    return path.read_bytes()


def test_another_checkpoint_of_the_same_name_is_refused_until_it_has_a_name(copy):
    save_other_model(copy.folder / "new" / MODEL)
    config = (f"model=new/{MODEL}",)
    done = copy.fails("--dry-run", config=config)
    assert f"the existing results belong to another checkpoint ({MODEL}), not to new/{MODEL}" in done.output
    assert "set `name` to keep both" in done.output
    copy.passes("--dry-run", config=(*config, "name=new"))


def test_the_same_checkpoint_elsewhere_is_the_same(copy):
    (copy.folder / "new").mkdir()
    shutil.copy(copy.folder / MODEL, copy.folder / "new" / MODEL)
    assert "runs again" not in copy.passes("--dry-run", config=(f"model=new/{MODEL}",)).output


def test_an_interrupted_change_is_not_forgotten(copy):
    """A run with other layers stops before it embeds: the next one knows that the vectors are of the old layers."""
    config = (f"model=./{MODEL}", "layers=[1]")
    copy.passes("--until", "chunk_fasta", config=config)
    shutil.rmtree(copy.folder / ".snakemake", ignore_errors=True)
    assert reruns(copy, "layers=[1]") == EMBED
    copy.passes(config=config)
    assert reruns(copy, "layers=[1]") == set() and "mean_1" in pd.read_parquet(
        copy.folder / "results/esm2_small/embeddings/s.parquet"
    )
    assert reruns(copy) >= EMBED


def test_results_without_a_record_are_made_again(copy):
    shutil.rmtree(copy.folder / "results/esm2_small/settings")
    (copy.folder / "results/esm2_small/settings.json").unlink()
    assert reruns(copy) == EVERY


def test_the_record_says_what_the_results_are_of(finished):
    record = json.loads((finished / "results/esm2_small/settings.json").read_text())
    assert record["embed"]["settings"]["layers"] == [-1]
    stats = json.loads((finished / "results/esm2_small/chunks/1-of-1.json").read_text())
    assert record["embed"]["sources"]["checkpoint"]["sha256"] == stats["settings"]["model_sha256"]
    assert all(len(source["sha256"]) == 64 for source in record["chunk"]["sources"].values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model=empty/", "config.json"),
        ("model=./nowhere.pt", "model: nowhere.pt does not exist"),
        ("samples=missing.tsv", "sample 'g': there is no FASTA file gone.fasta"),
        ("metadata=gone.tsv", "there is no sheet gone.tsv"),
        ("reuse=gone", "there are no embeddings at gone"),
    ],
)
def test_what_is_not_there_stops_the_run_over_finished_results(copy, config, message):
    (copy.folder / "empty").mkdir()
    (copy.folder / "missing.tsv").write_text("sample\tfasta\ng\tgone.fasta\n")
    done = copy.fails(config=(f"model=./{MODEL}", config))
    assert message in done.output and "Nothing to be done" not in done.output


def test_files_of_other_settings_are_named_and_left(copy):
    """A sample that is gone, a format that is no longer asked for, chunks of another count."""
    results = copy.folder / "results/esm2_small"
    copy.write_samples(s=proteins(4))
    (results / "embeddings/s.mean_1.npy").write_bytes(b"of an earlier run")
    (results / "chunks/1-of-3.arrow").write_bytes(b"of an earlier run")
    done = copy.passes(config=(f"model=./{MODEL}",))
    page = (results / "report.html").read_text()
    for path in ("chunks/1-of-3.arrow", "embeddings/s.mean_1.npy", "embeddings/t.parquet"):
        assert (results / path).exists() and f"results/esm2_small/{path}" in done.output and path in page


def test_results_of_the_old_layout_are_named_left_and_reused(finished, project):
    project.write_samples(s=proteins(4), t=proteins(3, seed=1), u=proteins(1, seed=5))
    shutil.copy(finished / MODEL, project.folder)
    shutil.copytree(finished / "results/esm2_small/embeddings", project.folder / "results/embeddings")
    done = project.passes(config=(f"model=./{MODEL}", "reuse=results"))
    assert "results/embeddings: from version 0.3.0, kept" in done.output
    project.results = project.folder / "results/esm2_small"
    assert sum(job["reused_sequences"] for job in project.stats()) == 7
    assert sorted(path.name for path in (project.folder / "results/embeddings").iterdir()) == ["s.parquet", "t.parquet"]


@pytest.mark.parametrize("key", ["model", "samples", "metadata"])
def test_braces_in_a_path_are_refused_by_its_key(copy, key):
    """Snakemake has no way to escape them in an input."""
    (copy.folder / "{s}.fasta").write_text(proteins(1))
    (copy.folder / "odd.tsv").write_text("sample\tfasta\ns\t{s}.fasta\n")
    (copy.folder / "{m}.tsv").write_text("id\thost\np0\tpig\n")
    shutil.copy(copy.folder / MODEL, copy.folder / "{m}.pt")
    values = {"model": '"./{m}.pt"', "samples": "odd.tsv", "metadata": '"{m}.tsv"'}
    done = copy.fails("--dry-run", config=(f"model=./{MODEL}", f"{key}={values[key]}"))
    assert re.search(rf"{key}: \S*{{.}}\S* has braces, which mean wildcards to Snakemake", done.output), done.output


def test_a_sheet_with_braces_in_its_name_is_read(copy):
    (copy.folder / "samples.tsv").rename(copy.folder / "{sheet}.tsv")
    copy.passes("--dry-run", config=(f"model=./{MODEL}", 'samples="{sheet}.tsv"'))


def test_contacts_without_a_contact_head_stop_before_anything_runs(project):
    project.write_samples(s=proteins(2))
    done = project.fails(config=("include=[contacts]",))
    assert "there is no contact head for demo" in done.output and not (project.folder / "logs").exists()
