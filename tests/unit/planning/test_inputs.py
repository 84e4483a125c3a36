"""The samples of a run: which sheet, which files, and how many chunks."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packed_esm.errors import OptionError
from packed_esm.planning.inputs import find_sheet, number_of_chunks, path_inside, read_samples, without_braces

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/samples.schema.yaml").read_text())


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "project/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def write_sheet(folder, *rows):
    sheet = folder / "s.tsv"
    sheet.write_text("".join(f"{line}\n" for line in ("sample\tfasta", *rows)))
    return sheet


def test_a_sheet_that_is_here_wins_and_without_one_the_clones_is_used_and_said(project, capsys):
    clone = project.parent / "clone"
    clone.mkdir()
    write_sheet(clone)
    assert find_sheet("s.tsv", clone) == clone / "s.tsv"
    assert f"There is no s.tsv here: the shipped example is used ({clone}/s.tsv)" in capsys.readouterr().err
    write_sheet(project)
    assert find_sheet("s.tsv", clone) == Path("s.tsv") and not capsys.readouterr().err
    assert find_sheet("nowhere.tsv", clone) == Path("nowhere.tsv")


def test_paths_are_relative_to_the_sheet_however_its_own_path_is_written(project):
    (project / "data/a.fasta").touch()
    sheet = write_sheet(project / "data", "a\ta.fasta")
    for path in (Path("data/s.tsv"), find_sheet(str(sheet), ROOT)):
        assert read_samples(path, SCHEMA, False, False) == {"a": "data/a.fasta"}


def test_a_missing_file_is_named_by_sheet_and_sample_with_the_remedy_of_a_module(project):
    sheet = write_sheet(project, "a\ta.fasta")
    message = r"s.tsv: there is no \S*a.fasta, the FASTA file of sample 'a'; correct the sheet"
    with pytest.raises(OptionError, match=f"{message}$"):
        read_samples(sheet, SCHEMA, made_later=False, in_module=False)
    with pytest.raises(OptionError, match=f"{message}, or set `chunks` if your workflow creates the file$"):
        read_samples(sheet, SCHEMA, made_later=False, in_module=True)
    assert list(read_samples(sheet, SCHEMA, made_later=True, in_module=True)) == ["a"]


@pytest.mark.parametrize(
    ("row", "message"),
    [("a b\ta.fasta", "s.tsv, line 2, sample: 'a b' does not match"), ("a\t{a}.fasta", "samples: .* has braces")],
)
def test_what_cannot_be_a_sample_is_named(project, row, message):
    (project / "{a}.fasta").touch()
    with pytest.raises(OptionError, match=message):
        read_samples(write_sheet(project, row), SCHEMA, False, False)


def test_braces_are_refused_by_the_key_that_they_stand_in():
    assert without_braces("reuse", [Path("a/b.parquet")]) == ["a/b.parquet"]
    with pytest.raises(OptionError, match="reuse: a/{b}.parquet has braces, which mean wildcards to Snakemake"):
        without_braces("reuse", [Path("a/{b}.parquet")])


def test_a_path_below_the_working_directory_is_relative(project):
    assert path_inside(project / "a/b") == "a/b" and path_inside(project.parent / "a") == str(project.parent / "a")


def test_the_number_of_chunks_is_the_one_that_is_asked_for_or_by_the_size_of_the_files(project):
    (project / "a.fasta").write_bytes(b"x" * 6000)
    settings = {"chunks": "auto", "residues_per_chunk": 1000, "input": "protein"}
    assert number_of_chunks(settings, ["a.fasta"]) == 6
    assert number_of_chunks(settings | {"input": "nucleotide"}, ["a.fasta"]) == 2
    assert number_of_chunks(settings | {"chunks": 4}, ["nowhere.fasta"]) == 4
