"""Configuration values from a command line, and the sample sheet."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packed_esm.planning.config import coerced
from packed_esm.planning.inputs import (
    earlier_files,
    estimated_chunks,
    fasta_bytes,
    given_path,
    read_sample_sheet,
    stable_path,
)

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())


def test_strings_of_a_command_line_get_the_types_of_the_schema():
    given = {
        "layers": ["0", "-1"],
        "pooling": "max",
        "chunks": "4",
        "tokens_per_pack": "auto",
        "samples": "001",
        "validation": {"sequences": "5", "max_relative_l2": "1e-5", "min_residue_cosine": "auto"},
    }
    assert coerced(given, SCHEMA) == {
        "layers": [0, -1],
        "pooling": ["max"],
        "chunks": 4,
        "tokens_per_pack": "auto",
        "samples": "001",
        "validation": {"sequences": 5, "max_relative_l2": 1e-5, "min_residue_cosine": "auto"},
    }
    assert coerced({"layers": "[0, 6]", "validation": "abc", "more": 1}, SCHEMA) == {
        "layers": [0, 6],
        "validation": "abc",  # the schema says what is wrong with it
        "more": 1,
    }


def test_cells_of_the_sample_sheet_stay_as_they_are(tmp_path):
    sheet = tmp_path / "s.tsv"
    sheet.write_text("# my samples\nsample\tfasta\nNA\trun#1.fasta\n001\tx y.fasta\n\n")
    assert read_sample_sheet(sheet).values.tolist() == [["NA", "run#1.fasta"], ["001", "x y.fasta"]]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeffsample\tfasta\na\ta.fasta\n", id="a byte order mark"),
        pytest.param("\ufeff# mine\nsample\tfasta\na\ta.fasta\n", id="a byte order mark before a comment"),
        pytest.param("sample\tfasta\t\na\ta.fasta\t\n", id="a trailing tab in every line"),
        pytest.param("sample\tfasta\na\ta.fasta\t\n", id="a trailing tab in rows"),
        pytest.param("sample\tfasta\t\na\ta.fasta\n", id="a trailing tab in the header"),
        pytest.param("sample\tfasta\t\t\t\na\ta.fasta\t \t\t\n\t\t\t\t\n", id="columns of a spreadsheet"),
        pytest.param("sample \t fasta\na\ta.fasta\n", id="blanks around names of columns"),
        pytest.param("sample\tfasta\n a\u00a0\ta.fasta \n", id="blanks around cells"),
        pytest.param("sample\tfasta\r\na\ta.fasta\r\n", id="Windows line ends"),
        pytest.param("\ufeffsample\tfasta \t\r\na\ta.fasta\t\r\n\r\n", id="all of it"),
    ],
)
def test_what_editors_and_spreadsheets_leave_in_a_sheet_changes_nothing(tmp_path, text):
    sheet = tmp_path / "s.tsv"
    sheet.write_bytes(text.encode())
    table = read_sample_sheet(sheet)
    assert table.columns.tolist() == ["sample", "fasta"] and table.values.tolist() == [["a", "a.fasta"]]


def test_a_path_may_begin_with_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "earlier/embeddings").mkdir(parents=True)
    parquet = tmp_path / "earlier/embeddings/a.parquet"
    parquet.touch()
    assert given_path("~/a.fasta") == tmp_path / "a.fasta"
    assert earlier_files(["~/earlier"], tmp_path / "results") == [parquet]
    for path in ("a~/b.fasta", "~no-such-user/a.fasta", "./~/a.fasta"):
        assert given_path(path) == Path(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no sample in it"),
        ("sample\tfasta\n", "no sample in it"),
        ("sample\tfasta\na\tx.fasta\tnote\n", "has not as many cells as the header"),
        ("sample\tfasta\t\na\tx.fasta\tnote\n", "has not as many cells as the header"),
        ("sample\tfasta\tsample \na\tx\tb\n", "two columns 'sample'"),
        ("sample\tfasta\na\n", "the row 'a' has not as many cells"),
        ("sample\tfasta\na\tx\na\ty\n", "sample 'a' stands in more than one row"),
    ],
)
def test_mistakes_in_the_sheet_are_named(tmp_path, text, message):
    (tmp_path / "s.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sample_sheet(tmp_path / "s.tsv")


def test_the_number_of_chunks_comes_from_file_sizes(tmp_path):
    (tmp_path / "a.fasta").write_bytes(b"x" * 2500)
    (tmp_path / "b.fasta.gz").write_bytes(b"x" * 1000)
    paths = [str(tmp_path / name) for name in ("a.fasta", "b.fasta.gz")]
    assert fasta_bytes(paths) == 4500
    assert estimated_chunks(paths, 1000) == 5 and estimated_chunks(paths[:1], 10_000) == 1
    with pytest.raises(ValueError, match="there is no .*; mend the sample sheet, or set `chunks`"):
        estimated_chunks(["nowhere.fasta"], 1000)


def test_a_path_inside_the_working_directory_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    (tmp_path / "project/data").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    for folder in (tmp_path / "project", tmp_path / "linked"):
        assert stable_path(folder / "s.tsv") == Path("s.tsv") == stable_path(Path("s.tsv"))
        assert stable_path(folder / "data/s.tsv") == Path("data/s.tsv")
    for path in (tmp_path / "s.tsv", Path("../s.tsv")):
        assert stable_path(path) == path
