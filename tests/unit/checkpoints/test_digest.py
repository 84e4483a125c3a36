"""The sha256 of a checkpoint is taken from earlier files only while the checkpoint is the same file."""

import hashlib
import json
import os
import time
from concurrent.futures import Future

import pytest
from checkpoint_files import save_fair_esm, save_hugging_face
from conftest import random_esm2
from packed_esm.checkpoints import digest as module
from packed_esm.checkpoints.digest import checkpoint_digest, read_digests, records_in, start_digest
from packed_esm.checkpoints.headers import checkpoint_sha256
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import CheckpointError
from packed_esm.planning.record import Source, Stage, compare, write_record
from packed_esm.system import files
from packed_esm.system.files import read_json, write_json

CONTENT = b"weights" * 1000


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "esm2.pt"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def hashed(monkeypatch):
    """The paths of the checkpoints whose sha256 is computed."""
    computed = []

    def compute(path):
        computed.append(path)
        return checkpoint_sha256(path)

    monkeypatch.setattr(module, "checkpoint_sha256", compute)
    return computed


def changed_in_place(path):
    """Write other bytes into the same inode, with the same size and the same time of change of the content."""
    before = path.stat()
    time.sleep(0.02)  # more than a tick of the clock of the file system
    with path.open("r+b") as handle:
        handle.write(b"W")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def replaced(path):
    """Put another file of the same size and time in its place."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"W" + CONTENT[1:])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def test_an_unchanged_checkpoint_is_not_read_again(checkpoint, hashed):
    first = checkpoint_digest(checkpoint)
    assert first.sha256 == hashlib.sha256(CONTENT).hexdigest() and hashed == [checkpoint]
    assert checkpoint_digest(checkpoint, [first]) == first and hashed == [checkpoint]


@pytest.mark.parametrize("change", [changed_in_place, replaced])
def test_a_changed_checkpoint_of_the_same_size_and_time_is_noticed(checkpoint, change):
    first = checkpoint_digest(checkpoint)
    change(checkpoint)
    again = checkpoint_digest(checkpoint, [first])
    assert again.sha256 == hashlib.sha256(b"W" + CONTENT[1:]).hexdigest() != first.sha256


def test_the_same_file_of_another_name_is_read_because_names_are_hashed_too(checkpoint, hashed):
    other = checkpoint.with_name("other.pt")
    os.link(checkpoint, other)
    assert checkpoint_digest(other, [checkpoint_digest(checkpoint)]).path == str(other)
    assert hashed == [checkpoint, other]


def test_a_change_of_any_file_of_a_folder_is_noticed(tmp_path, hashed):
    folder = save_hugging_face(random_esm2(num_layers=1, embed_dim=16, heads=2), tmp_path / "hf")
    first = checkpoint_digest(folder)
    assert checkpoint_digest(folder, [first]) == first and hashed == [folder]
    for name in ("config.json", "model.safetensors"):
        time.sleep(0.02)
        os.utime(folder / name)
        assert checkpoint_digest(folder, [first]).identity != first.identity
    assert len(hashed) == 3


def test_a_change_while_it_is_hashed_leaves_no_digest_for_later(checkpoint, monkeypatch):
    def changed_meanwhile(path):
        digest = checkpoint_sha256(path)
        changed_in_place(path)
        return digest

    monkeypatch.setattr(module, "checkpoint_sha256", changed_meanwhile)
    during = checkpoint_digest(checkpoint)
    monkeypatch.undo()
    assert checkpoint_digest(checkpoint, [during]).sha256 != during.sha256


def test_statistics_and_settings_record_a_digest_and_damaged_files_none(tmp_path, checkpoint):
    (tmp_path / "chunks").mkdir()
    digest = checkpoint_digest(checkpoint)
    write_json(tmp_path / "chunks" / "1-of-2.json", {"checkpoint": digest._asdict()})
    (tmp_path / "chunks" / "2-of-2.json").write_text('{"checkpoint": {"path"')
    write_json(tmp_path / "chunks" / "of version 0.3.json", {"settings": {"model_sha256": digest.sha256}})
    stages = {"embed": Stage({}, {"checkpoint": Source((checkpoint,), fixed=True)})}
    record, _ = compare({}, stages, {})
    write_record(tmp_path / "settings.json", record)
    assert read_digests(records_in(tmp_path)) == [digest]
    assert read_digests(records_in(tmp_path / "nowhere")) == []


def test_a_record_with_one_changed_digit_is_not_used(tmp_path, checkpoint):
    path, digest = tmp_path / "1-of-1.json", checkpoint_digest(checkpoint)
    write_json(path, {"checkpoint": digest._asdict()})
    assert read_digests([path]) == [digest]
    other = "0" if digest.sha256[0] != "0" else "1"
    path.write_text(path.read_text().replace(digest.sha256, other + digest.sha256[1:]))
    assert read_digests([path]) == []


def test_a_checkpoint_that_changes_while_it_is_loaded_is_an_error(tmp_path):
    path = tmp_path / "esm2_small.pt"
    save_fair_esm(random_esm2(2, 32, 2), path)
    before = checkpoint_digest(path)
    save_fair_esm(random_esm2(2, 32, 2), tmp_path / "new.pt").replace(path)
    future = Future()
    future.set_result(before)
    with pytest.raises(CheckpointError, match=f"{path}: it was changed while it was loaded; run again"):
        Embedder(EmbedOptions(path, device="cpu"), future)


def test_a_missing_checkpoint_raises_where_its_digest_is_asked_for(tmp_path):
    future = start_digest(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match="does not exist"):
        future.result(60)


def test_a_file_is_hashed_whole_whatever_the_pieces(tmp_path, monkeypatch):
    path = tmp_path / "file"
    monkeypatch.setattr(files, "HASHED_AT_ONCE", 1000)
    for size in (0, 1, 999, 1000, 1001, 2500):
        content = os.urandom(size)
        path.write_bytes(content)
        assert files.sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_job_records_what_it_hashed_and_the_next_one_hashes_nothing(tmp_path, hashed):
    fasta, options = tmp_path / "c.fasta", EmbedOptions(DEMO_PATH, device="cpu", tokens_per_pack=512)
    fasta.write_text(">a\nMKTAYIAK\n")
    embed_fasta(fasta, tmp_path / "c.arrow", tmp_path / "c.json", options)
    stats = read_json(tmp_path / "c.json")
    assert stats["checkpoint"]["sha256"] == stats["settings"]["model_sha256"] == checkpoint_sha256(DEMO_PATH)
    known = read_digests([tmp_path / "c.json"])
    assert hashed == [DEMO_PATH]
    assert Embedder(options, start_digest(DEMO_PATH, known)).settings == json.loads(json.dumps(stats["settings"]))
    assert hashed == [DEMO_PATH]
