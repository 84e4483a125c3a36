"""Files: whole or not at all, also where a process is killed, the disk is full, or bytes are lost."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packed_esm.errors import DamagedFileError
from packed_esm.sequences.manifest import SCHEMA, fasta_sha256, manifest_writer, read_manifest, write_manifest
from packed_esm.system.files import FileKind, read_json, replacing, write_json


def test_a_file_stands_under_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    others = tmp_path / f".[a].txt.{platform.node()}.{process.pid}.0badc0de.partial"
    others.write_text("half")
    with replacing(tmp_path / "[a].txt") as temporary:
        temporary.write_text("mine")
        assert others.exists()
    process.kill()
    process.wait()
    with replacing(tmp_path / "[a].txt") as temporary:
        temporary.write_text("mine")
        assert not others.exists()


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("token", [".0badc0de", ""], ids=["with-a-token", "without"])
def test_what_an_earlier_process_of_this_number_left_is_removed(tmp_path, folder, token):
    """As in containers, where each job is process 1 of a host of the same name."""
    left = tmp_path / f".a.txt.{platform.node()}.{os.getpid()}{token}.partial"
    if folder:
        left.mkdir()
        (left / "half").write_text("half")
    else:
        left.write_text("half")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not left.exists() and temporary != left
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_this_process_writes_is_not_taken_for_a_leftover(tmp_path):
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("first")
        with pytest.raises(FileExistsError):
            replacing(tmp_path / "a.txt").__enter__()
        assert temporary.read_text() == "first"
    assert (tmp_path / "a.txt").read_text() == "first"


def test_a_folder_is_listed_once_however_many_files_are_written_there(tmp_path, monkeypatch):
    listed, glob = [], Path.glob
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: listed.append(folder) or glob(folder, pattern))
    left = tmp_path / f".3.txt.{platform.node()}.{os.getpid()}.0badc0de.partial"
    left.write_text("half")
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        assert left.exists() == (number < 4)
        with replacing(f"{number}.txt") as temporary:
            temporary.write_text("whole")
    assert listed == [tmp_path] and len(list(tmp_path.iterdir())) == 5


def raises(error):
    def broken(*arguments, **options):
        raise error

    return broken


OURS = [KeyError("ours"), AttributeError("ours"), TypeError("ours"), ValueError("ours"), RuntimeError("ours")]


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_a_mistake_of_our_own_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch, error):
    write_json(tmp_path / "a.json", {"one": 1})
    rows = [("s", i, f"p{i}", f"p{i} x", i, 5, 0, f"SQ.{i}", "accepted", "", 0, i) for i in range(3)]
    write_manifest(tmp_path / "m.parquet", pd.DataFrame(rows, columns=SCHEMA.names), {"s": "00"})
    for function, place in (
        (lambda: read_json(tmp_path / "a.json"), "system.files._json_checksum"),
        (lambda: read_manifest(tmp_path / "m.parquet"), "sequences.manifest._stored"),
        (lambda: read_manifest(tmp_path / "m.parquet", "s"), "sequences.manifest._bytes"),
        (lambda: fasta_sha256(tmp_path / "m.parquet"), "sequences.manifest._stored"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"packed_esm.{place}", raises(error))
            with pytest.raises(type(error), match="^'?ours'?$"):
                function()


def test_of_a_kind_of_file_only_the_readers_own_errors_are_damage_and_those_of_the_system_stay():
    kind = FileKind("list", (KeyError, OSError), remedy="write it again")
    with (
        pytest.raises(DamagedFileError, match=r"^a.txt: not a whole list \('no'\); write it"),
        kind.reading("a.txt"),
    ):
        raise KeyError("no")
    with pytest.raises(DamagedFileError, match="file signature"), kind.reading("a.txt"):
        raise OSError("file signature not found")
    with pytest.raises(PermissionError), kind.reading("a.txt"):
        raise PermissionError(errno.EACCES, "keep off")
    with pytest.raises(AttributeError), kind.reading("a.txt"):
        raise AttributeError
    taken = kind.each("a.txt", iter([1, 2]))
    with pytest.raises(KeyError):
        for _ in taken:
            raise KeyError("of who takes them")

    def reader():
        yield 1
        raise KeyError("no")

    with pytest.raises(DamagedFileError):
        list(kind.each("a.txt", reader()))


def test_json_that_is_no_table_is_named(tmp_path):
    for text in ("[1]", "1" * 5000, "[" * 100_000, "null"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DamagedFileError, match="a.json: not a whole JSON file"):
            read_json(tmp_path / "a.json")


@pytest.mark.parametrize("change", ["column", "type", "metadata", "missing"])
def test_a_manifest_of_another_kind_is_named(tmp_path, change):
    path = tmp_path / "m.parquet"
    rows = [("s", i, f"p{i}", f"p{i} x", i, 5, 0, f"SQ.{i}", "accepted", "", 0, i) for i in range(3)]
    write_manifest(path, pd.DataFrame(rows, columns=SCHEMA.names), {"s": "00"})
    table = pq.read_table(path)
    if change == "column":
        table = table.drop_columns(["reason"])
    elif change == "type":
        table = table.set_column(5, "length", table["length"].cast(pa.int64()))
    elif change == "metadata":
        table = table.replace_schema_metadata({b"packed_esm_samples": b"[", b"packed_esm_fasta_sha256": b"[]"})
    else:
        table = table.set_column(6, "digest", pa.array(["SQ.0", None, "SQ.2"]))
    pq.write_table(table, path)
    with pytest.raises(DamagedFileError, match="m.parquet: not a whole manifest"):
        read_manifest(path)
    if change != "missing":
        with pytest.raises(DamagedFileError, match="m.parquet: not a whole manifest"):
            fasta_sha256(path)


def test_a_full_disk_is_named_with_the_file_and_the_remedy(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match=r"No space left on device; make room and run again: '.*a.txt'"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError, match="keep off"), replacing(path):
        raise PermissionError(errno.EACCES, "keep off")


def test_json_that_is_cut_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"one": [1, 2')
    with pytest.raises(DamagedFileError, match=r"a.json: not a whole JSON file .* remove it and run again"):
        read_json(tmp_path / "a.json")


def test_any_byte_of_a_manifest_may_change_and_it_is_noticed_or_read_as_it_was(tmp_path):
    """One bit of every third byte, in turn: also of what Parquet's own checksums do not cover."""
    rows = [("s", i, f"p{i}", f"p{i} x", i, 5, 0, f"SQ.{i}", "accepted", "", i % 3, i // 3) for i in range(20)]
    path = tmp_path / "m.parquet"
    write_manifest(path, pd.DataFrame(rows, columns=SCHEMA.names), {"s": "00"})
    whole, data = read_manifest(path, "s"), path.read_bytes()
    places, noticed = range(0, len(data), 3), 0
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert read_manifest(path, "s").equals(whole), place
        except DamagedFileError as error:
            assert f"{path}: not a whole manifest" in str(error)
            noticed += 1
    assert noticed > len(places) / 2


def test_json_that_was_changed_is_named_and_spaces_do_not_matter(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"one": [1, 2.5], "two": {"three": "é"}})
    text = path.read_text()
    path.write_text(text.replace("\n", " "))
    assert read_json(path) == {"one": [1, 2.5], "two": {"three": "é"}}
    for before, after in (("2.5", "2.4"), ("three", "thref"), ("checksum", "checksun")):
        path.write_text(text.replace(before, after))
        with pytest.raises(
            DamagedFileError, match=r"a.json: not a whole JSON file .* was changed\); remove it and run again"
        ):
            read_json(path)


def test_json_with_a_changed_number_is_named(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"sequences": 12, "seconds": {"read": 1.5}})
    path.write_text(path.read_text().replace("12", "13"))
    with pytest.raises(DamagedFileError, match=r"a.json: .*it does not match its checksum, it was changed"):
        read_json(path)


@pytest.mark.parametrize(("column", "value"), [("id", "other"), ("length", 6), ("row", 7)])
@pytest.mark.parametrize("row", [0, 499])
def test_a_manifest_that_another_program_changed_is_noticed_in_any_row(tmp_path, row, column, value):
    rows = [("s", i, f"p{i}", f"p{i} x", i, 5, 0, f"SQ.{i}", "accepted", "", 0, i) for i in range(500)]
    path = tmp_path / "m.parquet"
    frame = pd.DataFrame(rows, columns=SCHEMA.names)
    with manifest_writer(path, {}) as write:
        for start in range(0, 500, 100):
            write(pa.Table.from_pandas(frame[start : start + 100], SCHEMA, preserve_index=False))
    metadata = pq.read_metadata(path).metadata
    frame.loc[row, column] = value
    changed = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
    changed = changed.replace_schema_metadata({key: metadata[key] for key in metadata if key != b"ARROW:schema"})
    pq.write_table(changed, path, row_group_size=100, write_page_checksum=True)
    for sample in (None, "s"):
        with pytest.raises(DamagedFileError, match="its rows do not match their checksums, it was changed"):
            read_manifest(path, sample)


def test_a_manifest_with_a_hole_or_an_end_missing_is_never_read_as_something_else(tmp_path):
    """As after a loss of power: any twentieth of the file is zero, or the file ends there."""
    rows = [("s", i, f"p{i}", f"p{i} x", i, 5, 0, f"SQ.{i}", "accepted", "", i % 3, i // 3) for i in range(500)]
    path = tmp_path / "m.parquet"
    write_manifest(path, pd.DataFrame(rows, columns=SCHEMA.names), {})
    whole, data = read_manifest(path), path.read_bytes()
    noticed = 0
    for part in range(20):
        start, end = part * len(data) // 20, (part + 1) * len(data) // 20
        for damaged in (data[:start], data[:start] + bytes(end - start) + data[end:]):
            path.write_bytes(damaged)
            try:
                assert read_manifest(path).equals(whole)  # what was lost was of no use
            except DamagedFileError as error:
                noticed += 1
                assert str(path) in str(error)
    assert noticed > 30
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "nowhere.parquet")
