"""Paths of inputs, and the number of chunks."""

from pathlib import Path

import pytest
from packed_esm.errors import OptionError
from packed_esm.planning.inputs import number_of_chunks, path_inside, usable_paths


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "project/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_braces_are_refused_by_the_key_that_they_stand_in():
    assert usable_paths("reuse", [Path("a/b.parquet")]) == ["a/b.parquet"]
    with pytest.raises(OptionError, match="reuse: a/{b}.parquet has braces, which mean wildcards to Snakemake"):
        usable_paths("reuse", [Path("a/{b}.parquet")])


def test_a_path_below_the_working_directory_is_relative(project):
    assert path_inside(project / "a/b") == "a/b" and path_inside(project.parent / "a") == str(project.parent / "a")


def test_the_number_of_chunks_is_the_one_that_is_asked_for_or_by_the_size_of_the_files(project):
    (project / "a.fasta").write_bytes(b"x" * 6000)
    settings = {"chunks": "auto", "residues_per_chunk": 1000, "input": "protein"}
    assert number_of_chunks(settings, ["a.fasta"]) == 6
    assert number_of_chunks(settings | {"input": "nucleotide"}, ["a.fasta"]) == 2
    assert number_of_chunks(settings | {"chunks": 4}, ["nowhere.fasta"]) == 4
