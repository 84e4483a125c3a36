"""The configuration and its three copies, and the sample sheet."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packed_esm.errors import OptionError
from packed_esm.planning.config import coerced, keys, plain, read_config
from packed_esm.planning.inputs import earlier_files, estimated_chunks, fasta_bytes, stable_path, user_path
from packed_esm.planning.samples import read_sample_sheet

SCHEMA_PATH = ROOT / "workflow/schemas/config.schema.yaml"
SCHEMA = yaml.safe_load(SCHEMA_PATH.read_text())


def test_config_yaml_has_the_keys_and_defaults_of_the_schema_in_its_order():
    shipped = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    defaults = plain(read_config({}, SCHEMA_PATH))
    assert shipped == defaults and list(shipped) == list(defaults)
    assert all(list(shipped[key]) == list(value) for key, value in defaults.items() if isinstance(value, dict))


def row(key, rule):
    """Return the row of a key in the table of config/README.md."""
    default = yaml.safe_dump(rule["default"], default_flow_style=True).splitlines()[0].replace("''", '""')
    return f"| `{key}` | `{default}` | {values(rule)} | {rule['description'].removesuffix('.')} |"


def values(rule):
    """Return what the values of a key may be."""
    if "oneOf" in rule:
        word, other = rule["oneOf"]
        return f"`{word['const']}`, or {values(other)}"
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    if rule["type"] == "array":
        return f"list of {values(rule['items'])}"
    bounds = [f"{word} {rule[name]}" for word, name in (("from", "minimum"), ("to", "maximum")) if name in rule]
    return " ".join([{"string": "text"}.get(rule["type"], rule["type"]), *bounds])


def test_the_table_of_the_configuration_is_made_of_the_schema():
    """If it is not: replace the rows by those that the assertion shows."""
    text = (ROOT / "config/README.md").read_text().split("## Sample sheet")[0]
    table = [line for line in text.splitlines() if line.startswith("| `")]
    assert table == [row(key, rule) for key, rule in keys(SCHEMA).items()]


def test_a_key_has_one_place():
    names = [key.rpartition(".")[2] for key in keys(SCHEMA)]
    assert len(names) == len(set(names))


def test_settings_have_all_defaults_and_cannot_be_changed():
    given = {"translation": {"window": "500"}, "validation": None, "layers": [0, 6]}
    settings = read_config(given, SCHEMA_PATH)
    assert settings["translation"] == {"genetic_code": 1, "window": 500, "ambiguous_codons": "resolve"}
    assert settings["validation"]["sequences"] == 32 and settings["layers"] == (0, 6) and settings["device"] == "auto"
    assert plain(settings)["layers"] == [0, 6] and type(plain(settings)["translation"]) is dict
    with pytest.raises(TypeError):
        settings["device"] = "cpu"
    with pytest.raises(TypeError):
        settings["translation"]["window"] = 300
    assert given == {"translation": {"window": "500"}, "validation": None, "layers": [0, 6]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 500}, "config: window is now translation.window; write --config 'translation={window: 500}'"),
        (
            {"genetic_code": "11"},
            "write --config 'translation={genetic_code: 11}'",
        ),
        ({"ambiguous_codons": "skip"}, "--config 'translation={ambiguous_codons: skip}'"),
        ({"max_length": 60}, "config: max_length is now long_proteins.max_length; .* 'long_proteins={max_length: 60}'"),
        ({"too_long": "split"}, "config: too_long is now long_proteins.action; .* 'long_proteins={action: split}'"),
        (
            {"window_overlap": 20},
            "config: window_overlap is now long_proteins.overlap; .*={overlap: 20}'",
        ),
        ({"long_proteins": {"too_long": "split"}}, "config, long_proteins: too_long is now long_proteins.action; "),
    ],
)
def test_an_old_name_is_an_error_that_says_the_new_one(given, message):
    with pytest.raises(OptionError, match=message):
        read_config(given, SCHEMA_PATH)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modle": "demo"}, "config: there is no key modle; did you mean model?"),
        ({"overlap": 20}, "config: there is no key overlap; did you mean long_proteins.overlap?"),
        (
            {"translation": {"windows": 3}},
            "config, translation: there is no key windows; did you mean translation.window?",
        ),
        ({"validate": {}}, "config: there is no key validate; did you mean validation?"),
        ({"qqq": 1}, "config: there is no key qqq; config/README.md has all keys"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(given, message):
    with pytest.raises(OptionError) as error:
        read_config(given, SCHEMA_PATH)
    assert str(error.value) == message


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
        "samples": ["001"],
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
    assert user_path("~/a.fasta") == tmp_path / "a.fasta"
    assert earlier_files(["~/earlier"], tmp_path / "results") == [parquet]
    for path in ("a~/b.fasta", "~no-such-user/a.fasta", "./~/a.fasta"):
        assert user_path(path) == Path(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no sample in it"),
        ("sample\tfasta\n", "no sample in it"),
        ("sample\tfasta\na\tx.fasta\tnote\n", "has not as many cells as the header"),
        ("sample\tfasta\t\na\tx.fasta\tnote\n", "has not as many cells as the header"),
        ("sample\tfasta\tsample \na\tx\tb\n", "two columns 'sample'"),
        ("sample\tfasta\na\n", "the row 'a' has not as many cells"),
        ("sample\tfasta\na\tx\na\ty\n", "sample 'a' is in more than one row"),
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
    with pytest.raises(ValueError, match="there is no .*; correct the sample sheet, or set `chunks`"):
        estimated_chunks(["nowhere.fasta"], 1000)


def test_a_path_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    (tmp_path / "project/data").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    for folder in (tmp_path / "project", tmp_path / "linked"):
        assert stable_path(folder / "s.tsv") == Path("s.tsv") == stable_path(Path("s.tsv"))
        assert stable_path(folder / "data/s.tsv") == Path("data/s.tsv")
    for path in (tmp_path / "s.tsv", Path("../s.tsv"), Path("data/../../s.tsv")):
        assert stable_path(path) == tmp_path / "s.tsv"
