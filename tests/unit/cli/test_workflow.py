"""The command line of a run becomes one of Snakemake."""

import json

import pytest
from conftest import ROOT
from packed_esm.cli.main import build_parser
from packed_esm.cli.workflow import read_settings, snakemake_arguments
from packed_esm.errors import OptionError
from packed_esm.planning.config import read_config
from packed_esm.system.tree import tree
from snakemake.cli import parse_config


def command(*words, for_snakemake=()):
    return snakemake_arguments(build_parser().parse_intermixed_args(words), for_snakemake)


def test_files_become_samples_and_words_with_an_equals_sign_become_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd=name.fasta").touch()
    words = ["a.fasta", "pooling=mean,max", "odd=name.fasta", "b\U0001f9ec/", "name=x=y", "layers=[0,1]"]
    assert read_settings(words) == {
        "samples": '["a.fasta", "odd=name.fasta", "b\U0001f9ec/"]',
        "pooling": "mean,max",
        "name": "x=y",
        "layers": "[0,1]",
    }
    assert read_settings([]) == {} and read_settings([f"reuse={'x' * 300}"])


def test_a_value_that_looks_like_a_number_stays_text_where_text_is_wanted():
    parsed = parse_config([f"{key}={value}" for key, value in read_settings(["name=001", "chunks=4"]).items()])
    settings = read_config(parsed, ROOT / "workflow/schemas/config.schema.yaml")
    assert settings["name"] == "001" and settings["chunks"] == 4


def test_keys_with_a_dot_become_sections():
    found = read_settings(["long_proteins.max_length=1022", "long_proteins.action=split", "validation.sequences=5"])
    assert {key: json.loads(value) for key, value in found.items()} == {
        "long_proteins": {"max_length": "1022", "action": "split"},
        "validation": {"sequences": "5"},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dtype=fp16", "dtype=fp32"], "dtype is set twice"),
        (["a.fasta", "samples=b.tsv"], "samples=b.tsv and a.fasta both name the input"),
        (["validation={sequences: 4}", "validation.seed=1"], "validation is set as a whole and by its keys"),
    ],
)
def test_what_contradicts_itself_is_an_error(words, message):
    with pytest.raises(OptionError, match=message):
        read_settings(words)


def test_with_another_directory_paths_stay_those_of_this_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.fasta", "m.tsv", "i.sif", "one/x", "two/x", "demo/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    words = ["a.fasta", "metadata=m.tsv", "model=demo", "container=i.sif", "name=n", "reuse=one,two,three"]
    assert read_settings(words, "elsewhere") == {
        "samples": json.dumps([str(tmp_path / "a.fasta")]),
        "metadata": f"{tmp_path}/m.tsv",
        "model": "demo",
        "container": f"{tmp_path}/i.sif",
        "name": "n",
        "reuse": f"{tmp_path}/one,{tmp_path}/two,three",
    }


def test_options_become_snakemakes_and_what_follows_two_hyphens_goes_there_as_it_is():
    snakefile = ("--snakefile", str(ROOT / "workflow/Snakefile"))
    start = ["--logger", "packed-esm", "--config", 'samples=["a.fasta"]']
    assert command("a.fasta") == [*start, "--cores", "all", *snakefile]
    assert {"--sdm", "conda", "--dry-run"} <= {*command("--conda", "-n")}
    assert command("--apptainer")[2:4] == ["--sdm", "apptainer"]
    assert command("--apptainer", "--conda")[2:5] == ["--sdm", "conda", "apptainer"]
    assert command("--slurm")[2:4] == ["--workflow-profile", "slurm"] and "--cores" not in command("--slurm")
    assert command("--cores", "3", "--directory", "d")[2:6] == ["--directory", "d", "--cores", "3"]
    assert "--logger" not in command("--verbose")
    assert command("--config", "samples=a.tsv", "name=b") == command("samples=a.tsv", "name=b")
    assert command(for_snakemake=["chunk_fasta", "--unlock"])[-4:] == [*snakefile, "chunk_fasta", "--unlock"]


@pytest.mark.parametrize("word", ["--config", "-C"])
def test_snakemakes_config_may_not_replace_files_and_keys(word):
    with pytest.raises(OptionError, match=f"{word} after `--` would replace the files and keys before it"):
        command("a.fasta", for_snakemake=[word, "formats=npy"])


def test_the_workflow_is_that_of_the_clone():
    assert tree() == ROOT
