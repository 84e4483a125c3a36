"""What results were asked for: what changes the stamp of a stage, what does not, and what is refused."""

import json
import os

import pytest
from packed_esm.errors import OptionError
from packed_esm.planning.record import (
    Source,
    Stage,
    compare,
    not_expected,
    read_record,
    write_record,
    write_stamps,
)
from packed_esm.system.files import sha256, value_in


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text(">a\nMKV\n")
    return path


def record_of(path, recorded=None, made=None, settings=None, fixed=False):
    """Return (record, changes) of one stage `chunk` that reads one file."""
    asked = {"chunk": Stage(settings or {"on_invalid": "reject"}, {"FASTA": Source((path,), fixed)})}
    return compare(recorded or {}, asked, {"chunk": {"FASTA": made}} if made else {})


def rewrite(path, text):
    """Write other content with the times that the file had."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_nobody_touched_is_not_read_again(fasta, monkeypatch):
    record, changes = record_of(fasta)
    assert changes == {} and record["chunk"]["sources"]["FASTA"]["sha256"] is None
    monkeypatch.setattr(Source, "digest", lambda self: pytest.fail("read"))
    again, changes = record_of(fasta, record, made="of-the-job")
    assert changes == {} and again["chunk"]["stamp"] == record["chunk"]["stamp"]
    assert again["chunk"]["sources"]["FASTA"]["sha256"] == "of-the-job"


def test_the_same_content_at_another_time_or_place_is_the_same(fasta, tmp_path):
    record, _ = record_of(fasta)
    record, _ = record_of(fasta, record, made=sha256(fasta))
    os.utime(fasta)
    touched, changes = record_of(fasta, record)
    assert changes == {} and touched["chunk"]["stamp"] == record["chunk"]["stamp"] and touched != record
    (tmp_path / "b.fasta").write_bytes(fasta.read_bytes())
    assert record_of(tmp_path / "b.fasta", touched, fixed=True)[1] == {}


@pytest.mark.parametrize("text", [">a\nMKL\n", ">a\nMKVL\n"], ids=["same size", "other size"])
@pytest.mark.parametrize("known", [True, False], ids=["digest made", "no digest"])
def test_other_content_changes_the_stamp_whatever_its_time(fasta, text, known):
    record, _ = record_of(fasta, record_of(fasta)[0], made=sha256(fasta) if known else None)
    rewrite(fasta, text)
    changed, changes = record_of(fasta, record)
    assert changes == {"chunk": [f"FASTA: {fasta} is not the file that was read"]}
    assert changed["chunk"]["stamp"] != record["chunk"]["stamp"]
    assert record_of(fasta, changed)[0]["chunk"]["stamp"] == changed["chunk"]["stamp"]


def test_another_file_from_another_path_is_refused_where_results_are_of_one_alone(fasta, tmp_path):
    record, _ = record_of(fasta, record_of(fasta)[0], made=sha256(fasta), fixed=True)
    other = tmp_path / "b.fasta"
    other.write_text(">b\nMKL\n")
    with pytest.raises(
        OptionError, match="belong to another FASTA .*a.fasta.*, not to .*b.fasta; set `name` to keep both"
    ):
        record_of(other, record, fixed=True)
    rewrite(fasta, ">a\nMKL\n")
    assert record_of(fasta, record, fixed=True)[1]  # the same path: its results are made again


def test_other_settings_change_the_stamp_and_are_named(fasta):
    record, _ = record_of(fasta)
    changed, changes = record_of(fasta, record, settings={"on_invalid": "fail"})
    assert changes == {"chunk": ["on_invalid: 'reject' / 'fail'"]}
    assert changed["chunk"]["stamp"] != record["chunk"]["stamp"]


def test_a_file_that_is_yet_to_be_made_is_taken_when_it_is_there(tmp_path):
    record, _ = record_of(tmp_path / "later.pt")
    (tmp_path / "later.pt").write_text("x")
    again, changes = record_of(tmp_path / "later.pt", record)
    assert changes == {} and again["chunk"]["sources"]["FASTA"]["identity"]


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_record_that_is_none_counts_as_none(tmp_path, content):
    (tmp_path / "settings.json").write_bytes(content.encode("latin-1"))
    assert read_record(tmp_path / "settings.json") == {} == read_record(tmp_path / "nowhere.json")
    assert value_in(tmp_path / "settings.json", "a") is None


def test_stamps_are_written_where_they_differ_and_elsewhere_if_asked(tmp_path, fasta):
    record, _ = record_of(fasta)
    write_record(tmp_path / "settings.json", record)
    assert read_record(tmp_path / "settings.json") == record
    paths = write_stamps(tmp_path / "settings", record)
    before = (tmp_path / "settings/chunk.txt").stat().st_mtime_ns
    assert write_stamps(tmp_path / "settings", record, tmp_path / "dry") == paths and not (tmp_path / "dry").exists()
    changed, _ = record_of(fasta, record, settings={"on_invalid": "fail"})
    dry = write_stamps(tmp_path / "settings", changed, tmp_path / "dry")
    assert dry == {"chunk": str(tmp_path / "dry/chunk.txt")}
    assert (tmp_path / "settings/chunk.txt").stat().st_mtime_ns == before
    assert value_in(tmp_path / "settings.json", "chunk", "settings", "on_invalid") == "reject"
    assert (
        json.loads((tmp_path / "settings.json").read_text())["chunk"]["stamp"]
        in (tmp_path / "settings/chunk.txt").read_text()
    )


def test_what_is_not_expected_is_listed_but_for_hidden_files_and_what_lies_in_expected_folders(tmp_path):
    for name in (
        "embeddings/a.parquet",
        "embeddings/b.parquet",
        "embeddings/a.pt/x.pt",
        ".a.partial",
        "chunks/1.arrow",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    expected = [str(tmp_path / "embeddings/a.parquet"), str(tmp_path / "embeddings/a.pt")]
    assert not_expected(tmp_path, expected) == [
        str(tmp_path / name) for name in ("chunks/1.arrow", "embeddings/b.parquet")
    ]


def test_another_checkpoint_is_refused_also_where_it_is_yet_to_be_downloaded(fasta, tmp_path):
    record, _ = record_of(fasta, record_of(fasta)[0], made=sha256(fasta), fixed=True)
    with pytest.raises(OptionError, match="set `name` to keep both"):
        record_of(tmp_path / "later.pt", record, fixed=True)
    assert record_of(tmp_path / "later.pt", record_of(fasta)[0], fixed=True)[1]  # nothing was made of the first one


def test_what_a_job_read_of_a_file_that_was_not_there_before_is_compared(tmp_path):
    path = tmp_path / "later.fasta"
    record, _ = record_of(path)
    path.write_text(">a\nMKV\n")
    made = sha256(path)
    rewrite(path, ">a\nMKL\n")
    assert record_of(path, record, made=made)[1]
    rewrite(path, ">a\nMKV\n")
    assert record_of(path, record, made=made)[1] == {}


def test_going_back_before_anything_ran_gives_the_stamp_that_was(fasta):
    record, _ = record_of(fasta)
    changed, _ = record_of(fasta, record, settings={"on_invalid": "fail"})
    back, changes = record_of(fasta, changed)
    assert back["chunk"]["stamp"] == record["chunk"]["stamp"] != changed["chunk"]["stamp"]
    assert changes == {"chunk": ["as before the last change"]}
    again, changes = record_of(fasta, back)
    assert changes == {} and again["chunk"]["stamp"] == record["chunk"]["stamp"]
    other, _ = record_of(fasta, back, settings={"on_invalid": "replace"})
    assert other["chunk"]["stamp"] not in (record["chunk"]["stamp"], changed["chunk"]["stamp"])


def test_a_small_file_is_compared_by_its_content(fasta):
    asked = {"report": Stage({}, {"metadata": Source((fasta,), small=True)})}
    record, _ = compare({}, asked, {})
    os.utime(fasta)
    assert compare(record, asked, {})[1] == {}
    rewrite(fasta, ">a\nMKL\n")
    assert compare(record, asked, {})[1]


@pytest.mark.parametrize(
    "damage", [{"embed": 1}, {"embed": {"settings": {}, "sources": {"a": {}}, "stamp": "x"}}, {"embed": {}}]
)
def test_a_record_of_another_form_counts_as_none(tmp_path, damage):
    (tmp_path / "settings.json").write_text(json.dumps(damage))
    assert read_record(tmp_path / "settings.json") == {}
