"""The command packed-esm: help, errors, and its subcommands."""

import json
import re

import pytest
import torch
import yaml
from conftest import ROOT
from packed_esm.cli.main import HELP, main
from packed_esm.families import MODELS


def test_help_fits_a_screen_and_names_keys_that_there_are(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120
    properties = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())["properties"]
    for section, key in re.findall(r"\b([a-z_]+)(?:\.([a-z_]+))?=", HELP):
        assert section in properties and (not key or key in properties[section]["properties"])


def test_an_unknown_option_says_where_those_of_snakemake_go(capsys):
    assert main(["a.fasta", "--keep-going"]) == 2
    assert "there is no option --keep-going; options of Snakemake go after `--`" in capsys.readouterr().err


def test_models_lists_every_model_and_where_it_is(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(MODELS) + 1]] == [*MODELS]
    assert lines[1].endswith("esm2_t6_3M_demo.pt") and lines[2].endswith("not here")
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints/esm2_t6_8M_UR50D.pt").write_bytes(b"x" * 2_000_000)
    main(["models"])
    assert re.search(r" 2 MB  \S+esm2_t6_8M_UR50D.pt$", capsys.readouterr().out, re.MULTILINE)


def test_doctor_says_what_a_run_would_use(capsys):
    assert main(["doctor", "device=cpu", "weights=streamed"]) == 0
    text = capsys.readouterr().out
    assert f"torch {torch.__version__}" in text and re.search(r"^device .*, in fp32$", text, re.MULTILINE)
    assert re.search(r"^attention +sdpa$", text, re.MULTILINE) and "not triton:" in text
    assert re.search(r"^model +demo: .*esm2_t6_3M_demo.pt$", text, re.MULTILINE) and "PROBLEM" not in text
    assert re.search(r"^weights +streamed from the host$", text, re.MULTILINE)


def test_doctor_knows_where_int8_cannot_run(capsys, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert main(["doctor", "device=cpu", "dtype=int8"]) == 1
    assert re.search(
        r"^PROBLEM +dtype: int8 cannot be used, it needs a CPU with", capsys.readouterr().out, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("attention=triton", "attention: triton cannot be used, it needs a CUDA device"),
        ("model=nothing.pt", "model: there is no nothing.pt"),
        ("model=esm3", "model: 'esm3' is"),
    ],
)
def test_doctor_names_what_would_fail_and_its_status_says_so(capsys, word, message):
    assert main(["doctor", "device=cpu", word]) == 1
    assert re.search(rf"^PROBLEM +{message}", capsys.readouterr().out, re.MULTILINE)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.fasta").write_text(">a\nMK\n")
    for name in ("embeddings/a.parquet", "embeddings/b.parquet", "chunks/2-of-2.arrow", "counts.json"):
        path = tmp_path / "results/demo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "results/demo/notebook.ipynb").touch()
    stage = {"settings": {"samples": ["a"]}, "sources": {}, "stamp": "x"}
    (tmp_path / "results/demo/settings.json").write_text(json.dumps({"chunk": stage}))
    (tmp_path / "results/other").mkdir()
    (tmp_path / "results/other/embeddings").touch()
    return tmp_path / "results"


def test_clean_lists_what_does_not_belong_and_removes_only_that(results, capsys):
    assert main(["clean", "a.fasta"]) == 1  # nobody to ask
    text = capsys.readouterr().out
    assert "chunks/2-of-2.arrow" in text and "embeddings/b.parquet" in text and "a.parquet" not in text
    assert "nothing was removed" in text and (results / "demo/embeddings/b.parquet").exists()
    assert main(["clean", "a.fasta", "--yes"]) == 0
    left = sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file())
    kept = ["counts.json", "embeddings/a.parquet", "notebook.ipynb", "settings.json"]
    assert left == [*(f"demo/{name}" for name in kept), "other/embeddings"]
    assert not (results / "demo/chunks").exists()
    assert main(["clean", "a.fasta", "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_clean_leaves_a_folder_in_which_a_run_is_under_way(results, capsys):
    (results.parent / ".snakemake/locks").mkdir(parents=True)
    (results.parent / ".snakemake/locks/0.input.lock").touch()
    assert main(["clean", "a.fasta", "--yes"]) == 2
    assert "a run is under way here" in capsys.readouterr().err
    assert (results / "demo/embeddings/b.parquet").exists()


def test_clean_with_other_samples_than_the_last_run_removes_nothing(results, capsys):
    assert main(["clean", "--yes"]) == 2
    assert "the last run had the samples a, and this command has" in capsys.readouterr().err
    assert (results / "demo/embeddings/b.parquet").exists()


def test_clean_takes_the_same_words_as_the_run_in_another_folder(results, tmp_path_factory, monkeypatch, capsys):
    (results.parent / "a.fasta").rename(results.parent.parent / "a.fasta")
    monkeypatch.chdir(results.parent.parent)
    assert main(["clean", "a.fasta", "--directory", str(results.parent), "--yes"]) == 0
    assert "removed 2 files" in capsys.readouterr().out


def test_doctor_reads_the_configuration_of_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("model: nowhere.pt\n")
    assert main(["doctor", "device=cpu"]) == 1 and "there is no nowhere.pt" in capsys.readouterr().out


def test_what_follows_two_hyphens_is_for_runs_alone(capsys):
    assert main(["doctor", "--", "--keep-going"]) == 2
    assert "doctor has no options of Snakemake" in capsys.readouterr().err
