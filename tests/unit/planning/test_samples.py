"""The samples of a run: FASTA files, folders of them, and sample sheets."""

import gzip
import os

import pytest
from conftest import ROOT
from packed_esm.errors import OptionError, SheetError
from packed_esm.planning.samples import SampleReader, has_fasta_name, is_fasta

READER = SampleReader(ROOT)


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "project/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def write_sheet(folder, *rows):
    sheet = folder / "s.tsv"
    sheet.write_text("".join(f"{line}\n" for line in ("sample\tfasta", *rows)))
    return sheet


def write_fasta(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(">a\nMK\n")


def test_a_sheet_that_is_here_wins_and_without_one_the_clones_is_used_and_said(project, capsys):
    shipped = READER.read(["config/samples.tsv"])
    assert shipped["domains"] == str(ROOT / "config/example/domains.fasta")
    assert "There is no config/samples.tsv here: the shipped example is used" in capsys.readouterr().err
    (project / "config").mkdir()
    write_fasta(project / "config/mine.fasta")
    write_sheet(project / "config", "mine\tmine.fasta").rename("config/samples.tsv")
    assert READER.read(["config/samples.tsv"]) == {"mine": "config/mine.fasta"}
    assert not capsys.readouterr().err


def test_paths_are_relative_to_the_sheet_however_its_own_path_is_written(project):
    write_fasta(project / "data/a.fasta", project.parent / "b.fasta")
    sheet = write_sheet(project / "data", "a\ta.fasta", "b\t../../b.fasta")
    expected = {"a": "data/a.fasta", "b": str(project.parent / "b.fasta")}
    for path in ("data/s.tsv", str(sheet), "../project/data/s.tsv"):
        assert READER.read([path]) == expected


def test_a_missing_file_is_named_by_sheet_and_sample_with_the_remedy_of_a_module(project):
    sheet = str(write_sheet(project, "a\ta.fasta"))
    message = "s.tsv, sample 'a': there is no FASTA file a.fasta; correct the path"
    with pytest.raises(OptionError, match=f"{message}$"):
        READER.read([sheet])
    with pytest.raises(OptionError, match=f"{message}, or set `chunks` if your workflow creates the file$"):
        SampleReader(ROOT, in_module=True).read([sheet])
    later = SampleReader(ROOT, made_later=True, in_module=True)
    assert later.read([sheet, "b.faa.gz"]) == {"a": "a.fasta", "b": "b.faa.gz"}


@pytest.mark.parametrize(
    ("row", "message"),
    [("a b\ta.fasta", "s.tsv, line 2, sample: 'a b' does not match"), ("a\t{a}.fasta", "samples: .* has braces")],
)
def test_what_cannot_be_a_sample_is_named(project, row, message):
    write_fasta(project / "{a}.fasta")
    with pytest.raises(OptionError, match=message):
        READER.read([str(write_sheet(project, row))])


def test_a_path_with_a_line_break_is_refused(project):
    write_fasta(project / "set/a\nb.fasta")
    for entry in ("set", "set/a\nb.fasta"):
        with pytest.raises(OptionError, match=r"samples: 'set/a\\nb.fasta' has a line break.*; rename it"):
            READER.read([entry])


def test_files_folders_and_sheets_can_be_mixed_and_a_file_names_its_sample(project):
    write_fasta(project / "my proteins.v2.faa", project / "set/x.fa", project / "set/y.fasta.gz", project / "a.fasta")
    (project / "set/notes.txt").write_text("no FASTA file\n")
    write_fasta(project / "set/below/z.fa")
    write_sheet(project, "a\ta.fasta")
    assert READER.read(["my proteins.v2.faa", "set", "s.tsv"]) == {
        "a": "a.fasta",
        "my_proteins.v2": "my proteins.v2.faa",
        "x": "set/x.fa",
        "y": "set/y.fasta.gz",
    }


def test_two_files_of_one_name_get_the_names_of_their_folders_in_any_order(project):
    write_fasta(project / "p/x.fa", project / "q/x.fa", project / "q/x.fasta", project / "y.fa")
    expected = {"p_x": "p/x.fa", "q_x": "q/x.fa", "y": "y.fa"}
    assert READER.read(["p/x.fa", "q/x.fa", "y.fa"]) == READER.read(["y.fa", "q/x.fa", "p/x.fa"]) == expected
    assert READER.read(["q"]) == {"q_x": "q/x.fa", "q_x_2": "q/x.fasta"}


def test_the_name_of_a_sheet_is_kept_and_that_of_a_file_gives_way(project):
    write_fasta(project / "a.fasta", project / "other.fasta")
    write_sheet(project, "a\tother.fasta")
    assert READER.read(["a.fasta", "s.tsv"]) == {"a": "other.fasta", "a_2": "a.fasta"}


def test_a_file_that_is_given_twice_is_an_error(project):
    write_fasta(project / "a.fasta")
    with pytest.raises(OptionError, match="samples: a.fasta is given 2 times"):
        READER.read(["a.fasta", str(project / "a.fasta")])
    first = write_sheet(project, "a\ta.fasta")
    second = first.rename(project / "t.tsv")
    write_sheet(project, "a\ta.fasta")
    with pytest.raises(SheetError, match="t.tsv: sample 'a' is also in another sheet"):
        READER.read([str(first), str(second)])


@pytest.mark.parametrize("entry", ["-", "/dev/stdin", "/dev/fd/0", "pipe.fasta"])
def test_standard_input_and_pipes_are_refused_by_name(project, entry):
    os.mkfifo(project / "pipe.fasta")
    with pytest.raises(OptionError, match=f"{entry} is not a file; standard input, pipes and folders cannot be used"):
        READER.read([entry])


def test_a_file_that_is_open_as_a_number_is_refused(project):
    """Jobs are other processes, in which the number means another file."""
    write_fasta(project / "a.fasta")
    with (project / "a.fasta").open() as handle:
        path = f"/dev/fd/{handle.fileno()}"
        assert os.path.isfile(path)  # noqa: PTH113
        with pytest.raises(OptionError, match=f"{path} is not a file"):
            READER.read([path])


def test_a_folder_without_fasta_files_is_an_error(project):
    with pytest.raises(OptionError, match="there is no FASTA file in data; names end in .fasta"):
        READER.read(["data"])


def test_a_missing_sheet_says_what_can_be_given(project):
    with pytest.raises(SheetError, match="there is no nowhere; give FASTA files, a folder of them, or a TSV"):
        READER.read(["nowhere"])


def test_a_fasta_file_is_known_by_its_name_or_its_first_letters(project):
    assert all(map(has_fasta_name, [project / name for name in ("a.FASTA", "a.faa.gz", "b.pep", "c.fna.GZ")]))
    assert not any(map(has_fasta_name, [project / name for name in ("a.tsv", "fasta", "a.gz", "a.txt")]))
    (project / "plain").write_text(">a\nMK\n")
    (project / "packed").write_bytes(gzip.compress(b">a\nMK\n"))
    (project / "sheet").write_text("sample\tfasta\n")
    (project / "sheet.tsv").write_text("> not a FASTA file\n")
    assert [is_fasta(project / name) for name in ("plain", "packed", "sheet", "sheet.tsv")] == [
        True,
        True,
        False,
        False,
    ]
