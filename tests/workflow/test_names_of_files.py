"""Sheets and paths as people have them, from the sheet to the validation."""

import shutil

import pandas as pd
from conftest import ROOT

from .conftest import proteins

DEMO = ROOT / "workflow/models/esm2_t6_3M_demo.pt"


def test_a_sheet_of_a_spreadsheet_with_paths_that_look_like_options(project):
    """A byte order mark, Windows line ends, blanks and empty columns; a FASTA and a model that begin with a hyphen."""
    (project.folder / "-x.fa").write_text(proteins(3) + ">masked\nMKV<mask>LLAGG\n")
    shutil.copyfile(DEMO, project.folder / "-m.pt")
    (project.folder / "samples.tsv").write_bytes("\ufeffsample \tfasta\t\r\ns\t-x.fa \t\r\n".encode())
    project.results = project.folder / "results/-m"
    project.passes("results/-m/validation/summary.json", config=("model=-m.pt",))
    assert project.embeddings("s")["id"].tolist() == ["p0", "p1", "p2", "masked"]
    assert pd.read_parquet(project.folder / "results/-m/manifest.parquet")["masks"].tolist() == [0, 0, 0, 1]
    assert project.validation()["passed"] and project.validation()["sequences_compared"] == 4


def test_nucleotides_whose_path_looks_like_an_option_are_translated_up_to_the_limit(project):
    (project.folder / "-n.fa").write_text(">a\n" + "GCC" * 100 + "\n")
    (project.folder / "samples.tsv").write_text("sample\tfasta\ns\t-n.fa\n")
    options = ("input=nucleotide", "max_record_residues=300")
    project.passes("results/demo/counts.json", config=options)
    assert (project.folder / "results/demo/translated/s.tsv").read_text().splitlines()[1] == "a\t1\t300\t1\t6\t"
    done = project.fails("results/demo/counts.json", config=("input=nucleotide", "max_record_residues=299"))
    log = (project.folder / "logs/demo/translate/s.log").read_text()
    assert "-n.fa, line 2: record 'a' of line 1 has more than 299 letters" in log, done.output


def test_paths_in_the_home_folder(project, monkeypatch):
    home = project.folder / "home"
    home.mkdir()
    (home / "x.fasta").write_text(proteins(2))
    (home / "samples.tsv").write_text("sample\tfasta\ns\t~/x.fasta\n")
    (home / "about.tsv").write_text("id\tgroup\np0\ta\n")
    monkeypatch.setenv("HOME", str(home))
    options = ("samples=~/samples.tsv", "metadata=~/about.tsv")
    done = project.passes("--dry-run", "--printshellcmds", config=options)
    assert "input: home/x.fasta" in done.output and f"--metadata={home}/about.tsv" in done.output
