"""Files of each residue: what is in them, what links to what, and what is noticed."""

import hashlib
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xxhash
from checkpoint_files import save_fair_esm
from conftest import ROOT, fair_esm_alone, random_esm2
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.host_copies import stored_arrays
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.kept_residues import KeptResidues
from packed_esm.embedding.options import EmbedOptions, StorageOptions
from packed_esm.embedding.reading import Sequences
from packed_esm.errors import EmbeddingFileError, ValidationError
from packed_esm.outputs.forms import Form, StoredValues
from packed_esm.outputs.table import RESIDUES, SCALARS
from packed_esm.sequences.alphabet import refget_digest
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.tokens import tokenize
from packed_esm.store import residues
from packed_esm.store.merge import merge_samples
from packed_esm.store.merge_residues import merge_residues
from packed_esm.store.residues import ResidueWriter, residue_checksum
from packed_esm.validation.run import validate
from packed_esm.validation.tolerance import ValidationOptions

FORMS = {"representations": Form(), "logits": Form()}
ROWS = {"representations": Form()}
FLOAT32 = StorageOptions("float32")
SEQUENCES = {
    "sp|P69905|HBA_HUMAN": "MVLSPADKTN",
    "a/b": "MKV" * 40,
    "x": "G",
    "twin": "MVLSPADKTN",
    "as-long": "GHLTPEEKSA",
    "long": "ACDEFGHIKL" * 60,
}
FEATURES = ("representations", "logits", "contacts")


@pytest.fixture
def run(tmp_path):
    """Two chunks of one sample embedded with all there is for each residue, merged; returns what finds things."""
    model = random_esm2(num_layers=3, embed_dim=32, heads=2)
    with torch.no_grad():
        model.contact_head.regression.weight.normal_(0, 5)
    options = EmbedOptions(
        save_fair_esm(model, tmp_path / "esm2_small.pt", contacts=True),
        layers=(1, 3),
        include=("log_likelihood", "logits", "contacts"),
        device="cpu",
        tokens_per_pack=256,
    )
    fasta = tmp_path / "s.fasta"
    fasta.write_text("".join(f">{name} text\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    chunks = [tmp_path / "chunks" / f"{i}.fasta" for i in (1, 2)]
    chunk_samples([("s", fasta)], chunks, tmp_path / "m", tmp_path / "r", tmp_path / "c.json")

    def again(options=options, storage=FLOAT32, features=FEATURES):
        for chunk in chunks:
            residues = {feature: chunk.with_suffix(f".{feature}.h5") for feature in features}
            paths = chunk, chunk.with_suffix(".arrow"), chunk.with_suffix(".json")
            embed_fasta(*paths, options, (), residues, storage)
        merge_samples(tmp_path / "m", {"s": tmp_path / "s.parquet"}, [chunk.with_suffix(".arrow") for chunk in chunks])
        return {feature: merge(feature) for feature in features}

    def merge(feature, link=False):
        out = tmp_path / "residues" / f"s.{feature}.h5"
        merge_residues(tmp_path / "m", {"s": out}, [chunk.with_suffix(f".{feature}.h5") for chunk in chunks], link)
        return out

    def check(paths, options=options, sequences=32):
        return validate(
            [("s", fasta, tmp_path / "s.parquet")],
            tmp_path / "m",
            [chunk.with_suffix(".json") for chunk in chunks],
            tmp_path / "v.tsv",
            tmp_path / "v.json",
            ValidationOptions(sequences),
            options,
            {("s", feature): path for feature, path in paths.items()},
        )

    again.merge, again.check, again.options, again.folder, again.chunks = merge, check, options, tmp_path, chunks
    return again


@pytest.mark.parametrize("link", [False, True], ids=["copies", "links"])
def test_every_record_has_what_fair_esm_gives_under_its_accession_or_id(run, link):
    run()
    paths = {feature: run.merge(feature, link) for feature in FEATURES}
    if not link:
        for chunk in run.chunks:
            for feature in FEATURES:
                chunk.with_suffix(f".{feature}.h5").unlink()
    model = load_esm2(run.options.model)
    files = {feature: h5py.File(path) for feature, path in paths.items()}
    names = {"sp|P69905|HBA_HUMAN": "P69905", "a/b": "a%2Fb"}
    for record, sequence in SEQUENCES.items():
        tokens = tokenize(sequence)
        with torch.inference_mode():
            out = model(torch.from_numpy(tokens.astype(np.int64))[None], repr_layers=[1, 3], return_contacts=True)
        stored = {feature: file[names.get(record, record)] for feature, file in files.items()}
        want = np.stack([out["representations"][layer][0, 1:-1].numpy() for layer in (1, 3)])
        assert stored["representations"].shape == (2, len(sequence), 32) and want.shape == (2, len(sequence), 32)
        assert np.allclose(stored["representations"][...], want, rtol=1e-5, atol=1e-5)
        assert np.allclose(stored["logits"][...], out["logits"][0, 1:-1], rtol=1e-4, atol=1e-4)
        assert np.allclose(stored["contacts"][...], out["contacts"][0], rtol=0, atol=1e-5)
        if not link:
            assert stored["logits"].attrs["original_id"] == record
    for file in files.values():
        assert sorted(file) == sorted(names.get(record, record) for record in SEQUENCES)  # nothing else, no groups
        file.close()


def test_one_layer_has_uniprots_layout_in_float16(run):
    options = replace(run.options, layers=(-1,), include=())
    path = run(options, StorageOptions(), ["representations"])["representations"]
    embedder = Embedder(options)
    with h5py.File(path) as file:
        for record, embedding in file.items():  # as UniProt's help page reads its own
            assert embedding.dtype == np.float16 and embedding.shape[1] == 32, record
        seen = []
        embedder.embed([tokenize(SEQUENCES["long"])], lambda _, out: seen.append(out["representations"][3]))
        assert np.array_equal(file["long"][...], seen[0][1:-1].numpy().astype(np.float16))
    assert run.check({"representations": path}, options)["bit_equal"]


def test_a_good_run_passes_and_says_how_good(run):
    summary = run.check(run())
    assert summary["passed"] and summary["bit_equal"]
    assert 0 < summary["worst_representations_relative_l2"] < 2e-6 and summary["worst_logits_relative_l2"] < 2e-6
    assert 0 < summary["worst_logits_kl_mean"] <= summary["worst_logits_kl_max"] < 1e-9
    assert summary["worst_contacts_precision"] > 0.99999 and summary["worst_contacts_correlation"] > 1 - 1e-9
    assert summary["worst_log_likelihood_relative_l2"] < 2e-6 and 0 < summary["worst_contacts_abs_per_residue"] < 6e-5


@pytest.mark.parametrize("feature", FEATURES)
def test_one_value_that_is_not_fair_esms_fails_with_its_sequence(run, feature):
    paths = run()
    with h5py.File(paths[feature], "a") as file:
        dataset = file["a%2Fb"]
        values = dataset[...]
        values[..., 7] = np.nextafter(values[..., 7], np.float32(9))  # one last bit a row
        dataset[...] = values
        as_if_computed = residue_checksum(dataset.attrs["digest"], StoredValues(values))
        dataset.attrs["checksum"] = as_if_computed
    with pytest.raises(ValidationError, match=r"s\|a/b, 120 residues, .*the stored values differ from those"):
        run.check(paths)


@pytest.mark.parametrize(
    ("feature", "change", "error"),
    [
        ("representations", lambda out: torch.stack([x[:-2] for x in out["representations"].values()]), "relative_l2"),
        ("logits", lambda out: out["logits"][:-2], "relative_l2"),
        ("logits", lambda out: out["logits"][:-2], "kl_mean"),
        ("contacts", lambda out: out["contacts"] + 1e-3, "abs_per_residue"),
        ("contacts", lambda out: out["contacts"].flip(0, 1), "precision"),
        ("contacts", lambda out: out["contacts"].flip(0, 1), "correlation"),
    ],
    ids=["shifted", "shifted", "other-tokens", "other", "backwards", "backwards"],
)
def test_a_bug_that_a_second_run_repeats_fails_for_each_feature(run, monkeypatch, feature, change, error):
    """The job and the second run of the validation cut the values by different functions; both are wrong."""

    def from_host(on_host, rows, place):
        if feature == "contacts":
            return change({feature: on_host[place][0]}).numpy()
        values = on_host[:, rows]
        return change({feature: dict(enumerate(values)) if feature == "representations" else values[0]}).numpy()

    layout = RESIDUES[feature].layout
    monkeypatch.setattr(layout, "stored", lambda values: change({feature: values}).numpy(force=True))
    monkeypatch.setattr(layout, "stored_from_host", from_host)
    paths = run()
    with pytest.raises(ValidationError, match=f"{feature}_{error} to the reference is"):
        run.check(paths)


def test_a_likelihood_of_other_residues_fails_though_a_second_run_repeats_it(run, monkeypatch):
    scalar = SCALARS["log_likelihood"]
    of_others = replace(scalar, per_token=lambda out, ids: scalar.per_token(out, ids.roll(1)))
    monkeypatch.setitem(SCALARS, "log_likelihood", of_others)
    paths = run()
    with pytest.raises(ValidationError, match="log_likelihood_relative_l2 to the reference is"):
        run.check(paths)


def test_datasets_of_other_sequences_fail(run):
    paths = run()
    with h5py.File(paths["logits"], "a") as file:
        file.move("x", "y")
    with pytest.raises(ValidationError, match=r"s.logits.h5: 2 datasets are missing or too many, 'x' first"):
        run.check(paths)


def test_equal_work_gives_equal_bytes(run):
    def digests():
        run()
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(run.folder.rglob("*.h5"))]

    first = digests()
    assert len(first) == 9 and digests() == first


def test_damage_is_named_where_it_is(run):
    run()
    chunk = run.chunks[0].with_suffix(".logits.h5")
    whole = chunk.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no HDF5"):
        chunk.write_bytes(damaged)
        with pytest.raises(EmbeddingFileError, match=r"1.logits.h5: not a whole HDF5 file of residues .*remove it"):
            run.merge("logits")


def test_a_flipped_bit_in_the_values_is_noticed_by_whoever_reads_them(run):
    paths = run()
    path = paths["representations"]
    with h5py.File(path) as file:
        place = file["a%2Fb"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[place + 2000] ^= 4
    path.write_bytes(data)
    with pytest.raises((EmbeddingFileError, ValidationError)):
        run.check(paths)


def test_chunks_of_other_settings_and_missing_records_are_refused(run):
    run()
    options = replace(run.options, layers=(3,))
    feature = run.chunks[0].with_suffix(".logits.h5")
    embed_fasta(
        run.chunks[0], run.folder / "o", run.folder / "p", options, (), {"logits": feature}, StorageOptions("float32")
    )
    with pytest.raises(EmbeddingFileError, match=r"made with other settings than .*layers"):
        run.merge("logits")
    run()
    run.chunks[0].with_suffix(".logits.h5").replace(run.chunks[1].with_suffix(".logits.h5"))
    embed_fasta(
        run.chunks[0],
        run.folder / "o",
        run.folder / "p",
        run.options,
        (),
        {"logits": feature},
        StorageOptions("float32"),
    )
    with pytest.raises(
        EmbeddingFileError,
        match=r"2.logits.h5, dataset 'SQ\.\S+': it should contain SQ\.\S+ \(s\|.*but it is missing; remove",
    ):
        run.merge("logits")


def test_a_dataset_of_another_length_is_refused(run):
    run()
    chunk = next(c for c in run.chunks if c.read_text().count(">") > 1).with_suffix(".logits.h5")
    with h5py.File(chunk, "a") as file:
        first, second = list(file)[:2]
        del file[first]
        file.copy(second, first)
    with pytest.raises(EmbeddingFileError, match=r"logits.h5, .*: it should contain SQ.*, but it contains SQ"):
        run.merge("logits")


@pytest.mark.parametrize("waiting", [0, 2**20], ids=["written", "waiting"])
def test_after_a_restart_only_what_comes_then_is_kept(tmp_path, monkeypatch, waiting):
    monkeypatch.setattr(residues, "WAITING_BYTES", waiting)
    with ResidueWriter({"representations": tmp_path / "a.h5"}, FORMS) as writer:
        for value in (1.0, 2.0):
            writer.restart()
            writer.write("SQ.x", {"representations": np.full((3, 4), value, np.float32)}, "x")
        writer.finish({})
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["SQ.x"] and (file["SQ.x"][...] == 2).all()


def test_after_a_restart_the_files_have_the_bytes_of_files_without_one(tmp_path):
    for name, lengths in (("a", [7]), ("b", [900, 3, 7])):
        with ResidueWriter({"representations": tmp_path / name}, FORMS) as writer:
            for length in lengths:
                writer.restart()
                writer.write("SQ.x", {"representations": np.full((length, 4), 1, np.float32)}, "x")
            writer.finish({})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_value_that_is_not_finite_is_refused_in_float32_too(tmp_path):
    values = np.zeros((3, 33), np.float32)
    values[2, 5] = np.nan
    message = r"s\|x: logits has a value that is not finite; use dtype: fp32, or check the checkpoint"
    with pytest.raises(ValueError, match=message), ResidueWriter({"logits": tmp_path / "a.h5"}, FORMS) as writer:
        writer.write("SQ.x", {"logits": values}, "s|x")
        writer.finish({})


@contextmanager
def opened(*places):
    """Yield the open datasets of places, (file, name) each."""
    with ExitStack() as stack:
        files = {path: stack.enter_context(h5py.File(path, "a")) for path in {path for path, _ in places}}
        yield [files[path][name] for path, name in places]


def changed(change):
    def fault(place, _):
        with opened(place) as (dataset,):
            dataset[...] = change(dataset[...])

    return fault


def exchanged(*attributes, values=True):
    """Exchange what two datasets of equal shape hold, and some of their attributes."""

    def fault(place, other):
        with opened(place, other) as (one, two):
            if values:
                one[...], two[...] = two[...], one[...]
            for name in attributes:
                one.attrs[name], two.attrs[name] = two.attrs[name], one.attrs[name]

    return fault


def linked(place, other):
    """Put a link to another record in the place of a dataset."""
    (path, name), (target, target_name) = place, other
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = h5py.SoftLink(f"/{target_name}") if target == path else h5py.ExternalLink(target, target_name)


def without_checksum(place, _):
    with opened(place) as (dataset,):
        del dataset.attrs["checksum"]


CHANGED = "its values were changed: they do not match its checksum"
FAULTS = {
    "nan": (changed(lambda values: values * np.nan), CHANGED),
    "one-nan": (changed(lambda values: np.where(values == values[-1, -1], np.nan, values)), CHANGED),
    "zeros": (changed(lambda values: 0 * values), CHANGED),
    "plus-one": (changed(lambda values: values + 1), CHANGED),
    "values-exchanged": (exchanged(), CHANGED),
    "values-and-checksums-exchanged": (exchanged("checksum"), CHANGED),
    "datasets-exchanged": (exchanged("checksum", "digest"), "it contains SQ."),
    "linked-to-another-record": (linked, "it contains SQ."),
    "no-checksum": (without_checksum, "it has no checksum"),
}


def places(run, feature="logits"):
    """Return where two different sequences of equal length lie, the first of "twin": (file of a chunk, digest)."""
    found = {}
    for chunk in run.chunks:
        path = chunk.with_suffix(f".{feature}.h5")
        with h5py.File(path) as file:
            found |= {digest: path for digest, dataset in file.items() if dataset.shape[-2] == 10}
    first = refget_digest(SEQUENCES["twin"])
    (second,) = found.keys() - {first}
    return (found[first], first), (found[second], second)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dataset_that_is_not_as_it_was_computed_is_not_merged(run, fault):
    change, problem = FAULTS[fault]
    run(features=["logits"])
    (path, digest), other = places(run)
    change((path, digest), other)
    for link in (False, True):
        with pytest.raises(EmbeddingFileError) as error:
            run.merge("logits", link)
        assert all(part in str(error.value) for part in (f"{path}, dataset {digest!r}", "s|", problem, "remove")), error


@pytest.mark.parametrize("sequences", [2, 32], ids=["not-compared", "compared"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_dataset_that_is_not_as_it_was_computed_fails_validation(run, fault, sequences):
    """In the chunk that a link leads to, and in a file of copies; of the five sequences 2 are the two ends."""
    change, problem = FAULTS[fault]
    copies = run(features=["logits"])["logits"].rename(run.folder / "residues" / "copies.h5")
    merged = run.merge("logits", link=True)
    change((copies, "twin"), (copies, "as-long"))
    with pytest.raises(EmbeddingFileError) as error:
        run.check({"logits": copies}, sequences=sequences)
    assert f"{copies}, dataset 'as-long'" in str(error.value) or f"{copies}, dataset 'twin'" in str(error.value)
    assert problem in str(error.value) and f"remove {copies} and run again" in str(error.value)
    (path, digest), other = places(run)
    change((path, digest), other)
    with pytest.raises(EmbeddingFileError) as error:
        run.check({"logits": merged}, sequences=sequences)
    assert f"{merged}, dataset " in str(error.value) and "(s|" in str(error.value) and problem in str(error.value)
    assert f"remove {merged}, and {path.parent}" in str(error.value)


def test_a_link_of_the_merged_file_to_another_record_is_noticed(run):
    merged = run(features=["logits"])["logits"]
    linked((merged, "twin"), places(run)[1])
    with pytest.raises(EmbeddingFileError, match=r"s.logits.h5, dataset .twin.: it should .*, but it contains SQ"):
        run.check({"logits": merged}, sequences=2)


def test_a_link_to_the_same_sequence_of_a_run_with_other_settings_is_noticed(run):
    merged = run(features=["logits"])["logits"]
    foreign, digest = run.folder / "foreign.h5", refget_digest(SEQUENCES["twin"])
    chunk = next(chunk for chunk in run.chunks if digest in chunk.read_text())
    options = replace(run.options, tokens_per_pack=512, dtype="bf16")
    embed_fasta(chunk, run.folder / "o", run.folder / "p", options, (), {"logits": foreign}, FLOAT32)
    linked((merged, "twin"), (foreign, digest))
    with pytest.raises(
        EmbeddingFileError, match=r"dataset 'twin': .*foreign.h5, which has other settings \(dtype: 'bf16'"
    ):
        run.check({"logits": merged}, sequences=2)


def test_a_link_to_another_feature_of_the_same_sequence_is_noticed(run):
    paths = run()
    merged = run.merge("representations", link=True)
    with h5py.File(merged, "a") as file:
        name = next(iter(file))
        link = file.get(name, getlink=True)
        del file[name]
        file[name] = h5py.ExternalLink(link.filename.replace("representations", "logits"), link.path)
    with pytest.raises(EmbeddingFileError, match="but it contains logits, not representations; remove"):
        run.check(paths | {"representations": merged})


def test_the_checksum_is_that_of_the_values_as_numpy_and_h5py_have_them(tmp_path, monkeypatch):
    """XXH3-64 of digest, shape, dtype and bytes, whatever the blocks; the same of array and dataset."""
    values = np.random.default_rng(0).normal(size=(2, 103, 20)).astype("<f2")
    want = xxhash.xxh3_64_intdigest(b"SQ.x (2, 103, 20) <f2" + values.tobytes())
    for size in (1000, 2**22):
        monkeypatch.setattr(residues, "BLOCK_BYTES", size)
        with ResidueWriter({"representations": tmp_path / "a.h5"}, {"representations": Form("float16")}) as writer:
            writer.write("SQ.x", {"representations": values}, "x")
            writer.finish({})
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["SQ.x"].attrs["checksum"] == residue_checksum("SQ.x", StoredValues(file["SQ.x"])) == want
        assert (
            residue_checksum("SQ.x", StoredValues(values))
            == residue_checksum("SQ.x", StoredValues(np.asfortranarray(values)))
            == want
        )


def test_settings_that_are_no_text_are_those_of_a_damaged_file(tmp_path):
    path = tmp_path / "s.logits.h5"
    with ResidueWriter({"logits": path}, FORMS) as writer:
        writer.finish({"tokens_per_pack": 1})
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"fingerprint"', b'"\xff\xfeingerprint'))
    with pytest.raises(EmbeddingFileError, match=f"{path}: not a whole HDF5 file of residues .*utf-8"):
        residues.residue_settings(path)


def test_two_datasets_of_equal_length_that_changed_places_are_noticed(run):
    run()
    chunk = next(c for c in run.chunks if "MKV" * 40 in c.read_text()).with_suffix(".logits.h5")
    with h5py.File(chunk, "a") as file:
        first = next(iter(file))
        other = file[first].attrs["digest"]
        file[first].attrs["digest"] = "SQ.of-another"
    with pytest.raises(EmbeddingFileError, match=rf"it should contain {other}.*but it contains SQ.of-another; remove"):
        run.merge("logits")


def test_a_dataset_of_another_length_is_noticed(run):
    run()
    chunk = next(c for c in run.chunks if "MKV" * 40 in c.read_text()).with_suffix(".logits.h5")
    with h5py.File(chunk, "a") as file:
        first = next(iter(file))
        longer = np.concatenate([file[first][...], file[first][:1]])
        del file[first]
        file.create_dataset(first, data=longer).attrs.update({"digest": first, "feature": "logits"})
        file[first].attrs["checksum"] = residue_checksum(first, StoredValues(longer))
    with pytest.raises(EmbeddingFileError, match=rf"logits.h5, .*: it should contain {first} .*, but its shape is \("):
        run.merge("logits")


@pytest.mark.parametrize("attention", ["sdpa", "padded"])
def test_layers_stand_in_the_order_in_which_they_are_asked_for(run, attention):
    options = replace(run.options, layers=(3, 0), include=(), attention=attention)
    path = run(options, FLOAT32, ["representations"])["representations"]
    with h5py.File(path) as file:
        want = fair_esm_alone(load_esm2(options.model), tokenize(SEQUENCES["long"]), [0, 3])
        for place, layer in enumerate((3, 0)):
            assert np.allclose(file["long"][place], want[layer][1:-1], rtol=1e-4, atol=1e-5)
    assert run.check({"representations": path}, options)["passed"]


def kept_from(tmp_path, values, dtype="float16"):
    """Return what is stored of a sequence whose rows, cls and eos included, have these values in one place each."""
    rows = torch.zeros(len(values), 4)
    rows[:, 2] = torch.tensor(values)
    sequences = Sequences(["SQ.x"], ["s|x"], [np.zeros(len(values), np.uint8)])
    forms = {"representations": Form(dtype)}
    with ResidueWriter({"representations": tmp_path / "a.h5"}, forms) as writer:
        keep = KeptResidues(writer, sequences, forms)
        keep.write(0, stored_arrays({"representations": {6: rows}}, forms))
        return keep.kept(0, "representations")[:, 2].tolist()


@pytest.mark.parametrize("value", [65520.0, -65520.0, np.inf, np.nan])
@pytest.mark.parametrize("place", [1, 3])
def test_one_value_beyond_float16_is_refused_with_the_remedy(tmp_path, value, place):
    values = [0.0] * 5
    values[place] = value
    with pytest.raises(ValueError, match=r"s\|x: representations has a value beyond float16; use per_residue: float32"):
        kept_from(tmp_path, values)


def test_the_extreme_values_of_each_dtype_are_stored(tmp_path):
    assert kept_from(tmp_path, [1e9, 65504, -65504, 2.0**-24, 0, 1e9]) == [65504, -65504, 2.0**-24, 0]
    assert kept_from(tmp_path, [1, 1e9, -1e9, 1], "float32") == [1e9, -1e9]


def test_what_fails_midway_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="no more"), ResidueWriter({"logits": tmp_path / "a.h5"}, FORMS) as writer:
        writer.write("SQ.x", {"logits": np.zeros((3, 33), np.float32)}, "x")
        raise ValueError("no more")
    assert not list(tmp_path.iterdir())


def test_plain_h5py_reads_layers_and_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(residues, "WAITING_BYTES", 0)
    rng = np.random.default_rng(0)
    one, two = (torch.from_numpy(rng.normal(size=(103, 20)).astype("f4")) for _ in range(2))
    with ResidueWriter({"representations": tmp_path / "a.h5"}, FORMS) as writer:
        for digest, out in (("SQ.x", {1: one, 2: two}), ("SQ.y", {2: two})):
            writer.write(digest, stored_arrays({"representations": out}, ROWS), digest)
        writer.finish({"tokens_per_pack": 1})
    with h5py.File(tmp_path / "a.h5") as file:
        assert not file["SQ.x"].compression and not file["SQ.y"].compression
        assert np.array_equal(file["SQ.x"][...], torch.stack([one, two])[:, 1:-1].numpy())
        assert np.array_equal(file["SQ.y"][...], two[1:-1].numpy())


def test_an_error_of_the_writing_thread_ends_the_job_and_leaves_no_file(tmp_path, monkeypatch):
    with (
        pytest.raises(ValueError, match="name already exists"),
        ResidueWriter({"logits": tmp_path / "a.h5"}, FORMS) as writer,
    ):
        for _ in range(2):
            writer.write("SQ.x", {"logits": np.zeros((3, 33), np.float32)}, "x")
        writer.finish({})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"residues": {"maps": Path("x.h5")}}, "residues: 'maps' is not one of representations, logits, contacts"),
        ({"residues": {"logits": Path("x.h5")}}, "residues: logits must be included to be written"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(run, arguments, message):
    options = replace(run.options, include=())
    with pytest.raises(ValueError, match=message):
        embed_fasta(run.chunks[0], run.folder / "o", run.folder / "p", options, **arguments)


CHILD = """
import pathlib, resource, sys
sys.path.insert(0, sys.argv[1])
import torch
from packed_esm.embedding.host_copies import stored_arrays
from packed_esm.outputs.forms import Form
from packed_esm.store.residues import ResidueWriter
FORMS = {"representations": Form("float16")}
rows = torch.randn(402, 1280)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ResidueWriter({"representations": pathlib.Path(sys.argv[2])}, FORMS) as writer:
    for i in range(1500):
        out = {"representations": {33: rows}}
        writer.write(f"SQ.{i}", stored_arrays(out, FORMS), "x")
    writer.finish({})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_sequences(tmp_path):
    """1.5 GB of float16 values, of which no more than WAITING_BYTES wait."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROOT / "workflow"), str(tmp_path / "a.h5")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 450
