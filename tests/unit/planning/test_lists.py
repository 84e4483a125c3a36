"""Arguments in files: what the programs read from them is what the workflow has."""

import importlib

import pytest
from conftest import PROGRAMS, ROOT
from packed_esm.planning.config import read_config
from packed_esm.planning.lists import argument_lists, list_argument
from packed_esm.planning.results import Results

SAMPLES = {"a": "a.fasta", "b": "-b.fasta", "c": "@c.fasta", "d": "o d\udcff\x85\u2028é.fasta"}
SAFE = {"a": "a.fasta", "b": "./-b.fasta", "c": "./@c.fasta", "d": "o d\udcff\x85\u2028é.fasta"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(PROGRAMS))
    settings = read_config({"per_residue": "float16"}, ROOT / "workflow/schemas/config.schema.yaml")
    return Results("r", settings, SAMPLES, 2, groups=[["a", "b", "c"], ["d"]])


def read(program, results, *words):
    """Return what a program reads from its arguments."""
    lists = argument_lists(results, ["x.parquet", "-y.parquet"])
    words = [list_argument(results, w[1:], lists[w[1:]], is_run=True) if w.startswith("@") else w for w in words]
    common = importlib.import_module("_program")
    return importlib.import_module(program).build_parser().parse_args(list(common.with_files(words)))


def test_programs_read_the_samples_and_chunks_of_the_run_from_their_lists(results):
    files = ["--manifest", "m", "--rejected", "r", "--counts", "c"]
    chunk = read("chunk_fasta", results, "@chunk", "--chunks", "@chunks.fasta", *files)
    assert chunk.sample == [(name, path) for name, path in SAFE.items()]
    assert list(map(str, chunk.chunks)) == ["r/chunks/1-of-2.fasta", "r/chunks/2-of-2.fasta"]
    merge = read("merge_sample", results, "--manifest", "m", "@merge.1", "--chunks", "@chunks.arrow")
    assert merge.sample == ["a", "b", "c"]
    assert list(map(str, merge.out)) == [f"r/embeddings/{name}.parquet" for name in merge.sample]
    assert list(map(str, merge.chunks)) == ["r/chunks/1-of-2.arrow", "r/chunks/2-of-2.arrow"]
    words = ["--manifest", "m", "@merge.representations.2", "--chunks", "@chunks.representations.h5"]
    residues = read("merge_residues", results, *words)
    assert (residues.sample, list(map(str, residues.out))) == (["d"], ["r/residues/d.representations.h5"])
    assert residues.chunks[1].name == "2-of-2.representations.h5"
    files = ["--manifest", "m", "--table", "t", "--summary", "s", "--model", "demo"]
    check = read("validate", results, "@validate", "--stats", "@chunks.json", *files)
    assert check.sample == [(name, path, f"r/embeddings/{name}.parquet") for name, path in SAFE.items()]
    assert check.residues == [(name, "representations", f"r/residues/{name}.representations.h5") for name in SAMPLES]
    assert list(map(str, check.stats)) == ["r/chunks/1-of-2.json", "r/chunks/2-of-2.json"]
    files = ["--manifest", "m", "--counts", "c", "--rejected", "r", "--validation", "v", "--validation-table", "t"]
    files += ["--captions", "c", "--figures", "f", "--html", "h"]
    report = read("make_report", results, "@report", "--stats", "@chunks.json", *files)
    assert report.sample == [(name, f"r/embeddings/{name}.parquet") for name in SAMPLES]
    files = ["--fasta", "f", "--out", "o", "--stats", "s", "--model", "demo"]
    embed = read("embed_chunk", results, "--reuse", "@reuse", "--own-results", "r", *files)
    assert list(map(str, embed.reuse)) == ["x.parquet", "-y.parquet"]
    words = ["--embeddings", "e", "--manifest", "m", "@samples.1", "--chunks", "@chunks.fasta"]
    assert read("export_sample", results, *words).sample == ["a", "b", "c"]


def test_no_list_repeats_an_option_because_the_time_to_parse_grows_with_the_square_of_options(results):
    for words in argument_lists(results, ["x.parquet", "-y.parquet"]).values():
        options = [word for word in words if word.startswith("--")]
        assert len(options) == len(set(options))


def test_by_hand_an_option_may_also_be_repeated(results, capsys):
    files = ["--chunks", "1.fasta", "--manifest", "m", "--rejected", "r", "--counts", "c"]
    words = ["--sample", "a", "a.fasta", "--sample", "b", "b.fasta", "c", "c.fasta"]
    chunk = read("chunk_fasta", results, *words, *files)
    assert chunk.sample == [("a", "a.fasta"), ("b", "b.fasta"), ("c", "c.fasta")]
    files = ["--manifest", "m", "--chunks", "1.arrow"]
    merge = read("merge_sample", results, "--sample", "a", "--out", "a.p", "--sample", "b", "--out", "b.p", *files)
    assert (merge.sample, list(map(str, merge.out))) == (["a", "b"], ["a.p", "b.p"])
    with pytest.raises(SystemExit):
        read("chunk_fasta", results, "--sample", "a", "a.fasta", "b", *files)
    assert "argument --sample: expected NAME FASTA, in turn" in capsys.readouterr().err


def test_a_list_has_the_name_of_its_content_and_only_a_run_writes_it(results, tmp_path):
    shown = list_argument(results, "x", ["a", "b"], is_run=False)
    assert shown.startswith("@r/settings/lists/x.") and not (tmp_path / "r").exists()
    assert list_argument(results, "x", ["a", "b"], is_run=True) == shown
    path = tmp_path / shown[1:]
    before = path.stat()
    other = tmp_path / list_argument(results, "x", ["a"], is_run=True)[1:]
    assert other != path and other.read_text() == "a\n" and path.read_text() == "a\nb\n"
    list_argument(results, "x", ["a", "b"], is_run=True)
    assert path.stat() == before
    path.write_text("a\n")  # damaged
    list_argument(results, "x", ["a", "b"], is_run=True)
    assert path.read_text() == "a\nb\n"
    assert (tmp_path / list_argument(results, "y", [], is_run=True)[1:]).read_bytes() == b""


@pytest.mark.parametrize("content", ["a\n\nb\n", "a\n\nb"])
def test_no_line_of_a_list_is_lost(results, tmp_path, content):
    (tmp_path / "x.txt").write_text(content)
    assert list(importlib.import_module("_program").with_files(["@x.txt", "c"])) == ["a", "", "b", "c"]


def test_a_program_says_which_list_is_missing(results, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("merge_sample").main(["@no.txt"])
    assert "No such file or directory: 'no.txt'" in capsys.readouterr().err
