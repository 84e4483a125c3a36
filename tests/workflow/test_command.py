"""The command packed-esm from a user's folder: what it prints, and what it leaves."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from .conftest import proteins


@pytest.fixture
def packed_esm(tmp_path):
    """Return a call of the command in an empty folder, with another clone's path nowhere in its environment."""

    def call(*words, status=0, **options):
        command = [sys.executable, "-m", "packed_esm.cli.main", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, **options
        )
        done.output = done.stdout + done.stderr
        assert done.returncode == status, done.output[-6000:]
        return done

    call.folder = tmp_path
    return call


def test_one_command_embeds_fasta_files_and_prints_few_lines(packed_esm):
    (packed_esm.folder / "mine.faa").write_text(proteins(4))
    (packed_esm.folder / "sub").mkdir()
    (packed_esm.folder / "sub/x.fa").write_text(proteins(2, seed=1))
    done = packed_esm("mine.faa", "sub", "pooling=mean,max", "validation.sequences=3", "--cores", "1")
    results = packed_esm.folder / "results/demo"
    assert {path.name for path in results.glob("embeddings/*")} == {"mine.parquet", "x.parquet"}
    lines = done.output.splitlines()
    assert len(lines) < 25
    assert "merge_samples: 2 of 2 jobs done" in lines and any(line.startswith("Validation: passed") for line in lines)
    again = packed_esm("mine.faa", "sub", "pooling=mean,max", "validation.sequences=3")
    assert "Nothing to be done" in again.output


def test_errors_stand_on_the_terminal_without_our_code(packed_esm):
    done = packed_esm("poolng=max", status=1)
    assert "packed-esm: error: config: there is no key poolng; did you mean pooling?" in done.output
    assert ".smk" not in done.output and ".py" not in done.output
    (packed_esm.folder / "bad.fasta").write_text(">a\nMK\n>a\nMKL\n")
    done = packed_esm("bad.fasta", status=1)
    assert "chunk_fasta failed:" in done.output and "bad.fasta, line 3: id 'a'" in done.output
    assert "(log: logs/demo/chunk_fasta.log)" in done.output and "Traceback" not in done.output
    assert len(done.output.splitlines()) < 25


def test_a_dry_run_lists_jobs_once_and_leaves_no_results(packed_esm):
    (packed_esm.folder / "a.fasta").write_text(proteins(1))
    done = packed_esm("a.fasta", "--dry-run")
    assert done.output.count("embed_chunk") == 1 and not list(packed_esm.folder.glob("results/*"))


def test_modules_in_the_folder_of_the_user_are_not_imported(packed_esm):
    (packed_esm.folder / "a.fasta").write_text(proteins(1))
    (packed_esm.folder / "yaml.py").write_text("raise SystemExit('imported')\n")
    assert "embed_chunk" in packed_esm("a.fasta", "--dry-run").output


def test_verbose_shows_snakemakes_own_output(packed_esm):
    (packed_esm.folder / "a.fasta").write_text(proteins(1))
    assert "Building DAG of jobs..." in packed_esm("a.fasta", "--dry-run", "--verbose").output


def test_the_example_runs_in_a_temporary_folder_and_says_that_it_passed(packed_esm):
    done = packed_esm("test", "validation.sequences=2", "--cores", "1")
    assert done.output.splitlines()[-1] == "The example passed." and "domains" in done.output
    assert not list(packed_esm.folder.iterdir())
    assert "The example failed." in packed_esm("test", "layers=9", status=1).output
