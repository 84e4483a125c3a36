"""Merged files of residues have every byte and attribute of the chunks, whoever reads the values, and no wrong one."""

import errno
import resource
import time
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from conftest import random_sequence
from packed_esm.errors import EmbeddingFileError
from packed_esm.outputs.forms import Form, StoredValues
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.fasta import read_records
from packed_esm.sequences.manifest import embedded, read_manifest
from packed_esm.store import residue_checks, residues
from packed_esm.store.hdf5 import new_hdf5
from packed_esm.store.merge_residues import merge_residues
from packed_esm.store.residue_checks import check_residues
from packed_esm.store.residues import ResidueWriter, residue_checksum
from packed_esm.store.stored_dataset import UnreadableValuesError, allot_copy, open_dataset

FEATURE = "representations"
LENGTHS = {"sp|P00001|A": 300, "é": 7, "a/b": 40, "twin": 40, "one": 1}


@pytest.fixture(params=[2**18, 0], ids=["read-by-the-caller", "read-by-threads"])
def chunks(tmp_path, monkeypatch, request):
    """Two chunks of a sample, with two layers of random values; "a/b" and "twin" are one sequence."""
    monkeypatch.setattr(residue_checks, "SMALL", request.param)
    monkeypatch.setattr(residues, "BLOCK_BYTES", 1000)  # several blocks a layer
    rng = np.random.default_rng(0)
    sequences = {name: random_sequence(length, rng) for name, length in LENGTHS.items()}
    sequences["twin"] = sequences["a/b"]
    (tmp_path / "s.fasta").write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
    fastas = [tmp_path / f"{i}.fasta" for i in (1, 2)]
    chunk_samples([("s", tmp_path / "s.fasta")], fastas, *(tmp_path / name for name in ("m", "r", "c.json")))
    for fasta in fastas:
        with ResidueWriter({FEATURE: fasta.with_suffix(".h5")}, {FEATURE: Form("float16")}) as writer:
            for record in read_records(fasta):
                values = rng.normal(size=(2, len(record.sequence), 16)).astype(np.float16)
                writer.write(record.id, {FEATURE: values}, record.id)
            writer.finish({"tokens_per_pack": 1})
    return {fasta.with_suffix(".h5"): [record.id for record in read_records(fasta)] for fasta in fastas}


def merge(chunks):
    folder = next(iter(chunks)).parent
    merge_residues(folder / "m", {"s": folder / "out" / "s.h5"}, list(chunks))
    return folder / "out" / "s.h5"


def rows(path):
    return embedded(read_manifest(path.parent.parent / "m", "s")).sort_values("position")


def find(chunks, record):
    """Return the chunk and the digest of a record."""
    digest = rows(next(iter(chunks)).parent / "out" / "s.h5").set_index("id")["digest"][record]
    return next(path for path, digests in chunks.items() if digest in digests), digest


def test_each_record_has_the_values_and_attributes_of_its_sequence(chunks):
    path = merge(chunks)
    with h5py.File(path) as file:
        assert sorted(file) == ["P00001", "a%2Fb", "one", "twin", "é"]
        for row, name in zip(rows(path).itertuples(), ["P00001", "é", "a%2Fb", "twin", "one"], strict=True):
            with h5py.File(find(chunks, row.id)[0]) as chunk:
                source, copy = chunk[row.digest], file[name]
                assert copy.shape == (2, LENGTHS[row.id], 16) and copy.dtype == source.dtype
                assert copy[...].tobytes() == source[...].tobytes()
                assert dict(copy.attrs) == dict(source.attrs) | {"original_id": row.id}
        assert file.id.links.get_info("é".encode()).cset == h5py.h5t.CSET_UTF8
    check_residues(path, "s", rows(path), FEATURE)


def test_merging_twice_gives_the_same_bytes(chunks):
    first = merge(chunks).read_bytes()
    assert merge(chunks).read_bytes() == first


def test_compressed_values_stay_compressed_and_are_checked(chunks):
    chunk, digest = find(chunks, "a/b")
    with h5py.File(chunk, "a") as file:
        values, attributes = file[digest][...], dict(file[digest].attrs)
        del file[digest]
        file.create_dataset(digest, data=values, chunks=(1, 8, 16), compression="gzip").attrs.update(attributes)
    path = merge(chunks)
    with h5py.File(path) as file:
        for name, record in {"a%2Fb": "a/b", "twin": "twin"}.items():
            assert file[name].compression == "gzip" and np.array_equal(file[name][...], values)
            assert dict(file[name].attrs) == attributes | {"original_id": record}
    check_residues(path, "s", rows(path), FEATURE)
    with h5py.File(chunk, "a") as file:
        file[digest][1, 39, 15] += 1
    with pytest.raises(EmbeddingFileError, match=rf"{digest}.*its values were changed: .*remove {chunk} and run again"):
        merge(chunks)


@pytest.mark.parametrize("record", ["sp|P00001|A", "one"])
@pytest.mark.parametrize("end", ["first", "last"])
def test_a_flipped_bit_in_any_block_is_noticed_and_no_file_is_left(chunks, record, end):
    chunk, digest = find(chunks, record)
    with h5py.File(chunk) as file:
        dataset = file[digest]
        place = dataset.id.get_offset() + (0 if end == "first" else dataset.nbytes - 1)
    data = bytearray(chunk.read_bytes())
    data[place] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(EmbeddingFileError, match=rf"{digest}.*its values were changed: .*remove {chunk} and run again"):
        merge(chunks)
    assert list((chunk.parent / "out").iterdir()) == []


def test_the_end_waits_for_all_values(chunks, monkeypatch):
    """Of the last dataset of a chunk, which no later one finds in the queue."""

    def slow(digest, stored):
        time.sleep(0.1)
        return residue_checksum(digest, stored)

    monkeypatch.setattr(residue_checks, "residue_checksum", slow)
    chunk, digest = find(chunks, "one")
    with h5py.File(chunk, "a") as file:
        file[digest][0, 0, 0] += 1
    with pytest.raises(EmbeddingFileError, match=rf"{digest}.*its values were changed"):
        merge(chunks)


@contextmanager
def most_bytes(size):
    """Let no file become larger: what a full disk looks like to a program."""
    sizes = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, sizes[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, sizes)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_full_disk_is_named_and_no_file_is_left(chunks, share):
    path = merge(chunks)
    size = path.stat().st_size
    path.unlink()
    with pytest.raises(OSError, match="make room and run again") as error, most_bytes(int(share * size)):
        merge(chunks)
    assert error.value.errno == errno.EFBIG and error.value.filename == str(path)
    assert list(path.parent.iterdir()) == []


def every_kind_of_attribute(dataset):
    attributes = dataset.attrs
    attributes["text"], attributes["empty"], attributes["texts"] = "téxt", "", ["a", "bcd"]
    attributes["fixed"] = np.array("ü".encode(), h5py.string_dtype("utf-8", 5))
    attributes["ascii"] = np.bytes_("abc")
    attributes["number"], attributes["truth"] = np.uint64(2**64 - 1), True
    attributes["scale"] = np.arange(10, dtype="f4").reshape(2, 1, 5)
    attributes["other order"] = np.arange(3, dtype=">i2")
    attributes["nothing"] = h5py.Empty("f4")
    attributes["enum"] = np.array(1, h5py.enum_dtype({"A": 0, "B": 1}))
    attributes["fields"] = np.array((1, 2.0), [("a", "i4"), ("b", "f8")])
    attributes.create("array", np.arange(6).reshape(1, 2, 3), (1, 2, 3), np.dtype(("i2", (2, 3))))
    attributes.create("ragged", np.array([np.arange(3), np.arange(2)], object), dtype=h5py.vlen_dtype("i4"))


def test_attributes_of_every_type_are_copied(tmp_path):
    values = np.arange(12, dtype=">f4").reshape(3, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        every_kind_of_attribute(file.create_dataset("x", data=values))
    with h5py.File(tmp_path / "a.h5") as file, new_hdf5(tmp_path / "b.h5") as target:
        source = open_dataset(file, "x")
        copy = allot_copy(source, target, "y")
        for attribute in source.stored_attributes:
            attribute.write(copy)
        assert residue_checksum("SQ.x", StoredValues(source)) == residue_checksum("SQ.x", StoredValues(values))
        assert source.attrs["text"] == "téxt" and source.attrs["fixed"] == "ü" and source.attrs["ascii"] == "abc"
        assert source.attrs["scale"].shape == (2, 1, 5) and source.attrs["number"] == 2**64 - 1
    with h5py.File(tmp_path / "a.h5") as file, h5py.File(tmp_path / "b.h5") as target:
        source, copy = file["x"], target["y"]
        assert copy.dtype == values.dtype and np.array_equal(copy[...], values)
        assert list(copy.attrs) == list(source.attrs) and len(source.attrs) == 14
        for name in source.attrs:
            one, other = source.attrs.get_id(name), copy.attrs.get_id(name)
            assert one.get_type() == other.get_type() and one.shape == other.shape, name
            assert repr(copy.attrs[name]) == repr(source.attrs[name])


def test_values_that_hdf5_would_convert_are_read_by_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["row"] = np.arange(5000, dtype=np.int8)
        file["truth"] = np.array([True, False])
        file.create_dataset("compressed", data=np.ones((3, 4)), compression="gzip")
        file.create_dataset("never written", (3, 4), "f4")
        bfloat16 = h5py.h5t.IEEE_F16LE.copy()
        bfloat16.set_fields(15, 7, 8, 0, 7)
        bfloat16.set_ebias(127)
        h5py.h5d.create(file.id, b"bfloat16", bfloat16, h5py.h5s.create_simple((2,))).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.array([1.5, -3], "f4")
        )
        file.create_group("group")
        file["link"] = h5py.ExternalLink("gone.h5", "x")
    with h5py.File(tmp_path / "a.h5") as file:
        found = {name: open_dataset(file, name) for name in ("row", "truth", "compressed", "never written", "bfloat16")}
        assert [name for name, dataset in found.items() if dataset.offset] == ["row", "truth"]
        for name, dataset in found.items():
            everything = tuple(slice(0, size) for size in dataset.shape)
            assert np.array_equal(dataset[everything], file[name][...]), name
        assert np.array_equal(found["row"][(slice(4000, 6000),)], np.arange(4000, 5000).astype(np.int8))
        assert isinstance(open_dataset(file, "group"), h5py.h5g.GroupID)
        assert open_dataset(file, "link") is None and open_dataset(file, "absent") is None


def test_values_beyond_the_end_of_the_file_cannot_be_read(chunks):
    chunk, digest = find(chunks, "sp|P00001|A")
    with h5py.File(chunk) as file:
        dataset = open_dataset(file, digest)
        assert dataset.attrs  # they may lie behind the values
        chunk.open("r+b").truncate(dataset.offset + 100)
        with pytest.raises(UnreadableValuesError, match="the file ends at byte"):
            residue_checksum(digest, StoredValues(dataset))
        assert "its values cannot be read (the file ends" in residue_checks.problem_of_values(dataset, digest)
