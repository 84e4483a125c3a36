"""Values that are stored in fewer bits than they are computed in: residue files and pooled vectors."""

import errno
import re
from pathlib import Path

import duckdb
import h5py
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import ROOT, random_esm2
from hypothesis import given
from hypothesis import strategies as st
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions, StorageOptions
from packed_esm.errors import EmbeddingFileError, NonFiniteError, ValidationError
from packed_esm.outputs.forms import Form, StoredValues, nearest, residues_of
from packed_esm.outputs.measures import relative_error
from packed_esm.report.tables import worst_of_outputs
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.windows import ResidueWindows
from packed_esm.store import write_back
from packed_esm.store.embeddings import in_dtype, sample_settings
from packed_esm.store.export import export_sample
from packed_esm.store.merge import merge_samples
from packed_esm.store.merge_residues import merge_residues
from packed_esm.store.residues import ResidueWriter, residue_checksum, stored_values
from packed_esm.system.files import read_json
from packed_esm.validation.run import validate
from packed_esm.validation.tolerance import ValidationOptions

SEQUENCES = {"one": "G", "short": "MVLSPADKTN", "long": "MSTNPKPQRKTKRNTNRRPQDVKFPGG" * 3}
FEATURES = ("representations", "logits", "contacts", "masked_marginals")
SMALL = StorageOptions("int8", "float16", "triangle", "float16")
rng = np.random.default_rng(0)


def values(residues, width=6, layers=()):
    """Random values with a dimension 100 times larger than the others, and one of zeros."""
    made = rng.normal(size=(*layers, residues, width)).astype(np.float32)
    made[..., 1] *= 100
    made[..., 2] = 0
    return made


@pytest.mark.parametrize("layers", [(), (3,)], ids=["one_layer", "layers"])
@pytest.mark.parametrize("residues", [1, 2, 150])
def test_8_bits_are_within_half_a_step_of_each_value_and_the_largest_is_kept(residues, layers):
    given_values = values(residues, layers=layers)
    stored = Form("int8").stored(given_values)
    assert stored.values.dtype == np.int8 and stored.values.shape == given_values.shape
    assert stored.scale.dtype == np.float32 and stored.scale.shape == (*layers, 1, 6)
    largest = np.abs(given_values).max(-2, keepdims=True)
    assert np.abs(stored.decoded - given_values).max() <= largest.max() / 254 * 1.00001
    assert (np.abs(stored.decoded - given_values) <= largest / 254 * 1.00001).all()
    assert np.allclose(np.abs(stored.decoded).max(-2, keepdims=True), largest, rtol=1e-6)
    assert not stored.decoded[..., 2].any()


def test_8_bits_of_values_near_zero_are_zero_and_of_infinite_ones_have_a_scale_that_is_not_finite():
    assert not Form("int8").stored(np.full((2, 2), 1e-44, np.float32)).decoded.any()
    for bad in (np.inf, np.nan):
        assert not np.isfinite(Form("int8").stored(np.array([[1, bad], [1, 1]], np.float32)).scale).all()


@pytest.mark.parametrize("residues", [1, 2, 7, 40])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_triangle_is_what_numpy_calls_it_and_gives_the_square_again(residues, dtype):
    square = rng.random((residues, residues)).astype(np.float32)
    square = (square + square.T) / 2
    stored = Form(dtype, is_triangle=True).stored(square)
    assert np.array_equal(stored.values, square[np.triu_indices(residues)].astype(dtype))
    assert np.array_equal(stored.decoded, square.astype(dtype))
    assert residues_of(stored.values.shape) == residues


@given(st.integers(0, 10**6))
def test_only_a_triangle_has_the_residues_of_one(size):
    residues = residues_of((size,))
    assert residues in (-1, 0) or residues * (residues + 1) // 2 == size
    assert residues_of((residues * (residues + 1) // 2,)) == residues or residues == -1


@pytest.mark.parametrize("form", [Form(), Form("float16"), Form("int8")], ids=lambda form: form.dtype)
def test_what_rounding_may_have_changed_is_no_difference_and_anything_more_is(form):
    given_values = values(50)
    stored = form.stored(given_values)
    assert np.array_equal(stored.nearest_to(given_values), given_values)
    other = given_values + np.float32(0.5)
    found = np.abs(stored.nearest_to(other) - other)
    step = {"float32": 0, "float16": 0.07, "int8": 2.0}[form.dtype]
    assert (found < 0.50001).all() and (found[:, 0] > 0.49999 - step).all() and found[:, 2].min() > 0.498


@pytest.mark.parametrize("value", [1e-5, 2**-14, 0.3, 1.0, 2.0, 65504.0, 0.0])
def test_a_float16_stands_for_what_is_rounded_to_it_and_no_more(value):
    got = np.array([value, -value], np.float16)
    ends = nearest(np.array([1e30, -1e30]), got), nearest(np.array([-1e30, 1e30]), got)
    for end in ends:
        inside, outside = end + (got - end) * 1e-6, end - (got.astype(np.float64) - end) * 1e-6
        with np.errstate(over="ignore"):
            assert (inside.astype(np.float16) == got).all() and (outside.astype(np.float16) != got).all()


def test_infinite_values_stay_infinite():
    assert nearest(np.ones(2), np.array([np.inf, 1], np.float16))[0] == np.inf
    assert np.isnan(nearest(np.ones(1), np.full(1, np.nan, np.float32)))


def test_no_scale_explains_values_that_are_not_fair_esms():
    want = values(50)
    for scale in (1, 1000):
        stored = StoredValues(np.zeros((50, 6), np.int8), np.full((1, 6), scale, np.float32))
        assert relative_error(stored.nearest_to(want), want) > 0.9


@pytest.mark.parametrize("many", [1, 40], ids=["one_layer", "scales_beyond_64_KiB"])
def test_plain_h5py_and_one_product_give_the_values(tmp_path, many):
    rows = values(30, 600, (many,)) if many > 1 else values(30, 600)
    path = tmp_path / "a.h5"
    with ResidueWriter({"representations": path}, {"representations": Form("int8")}) as writer:
        writer.write("SQ.x", {"representations": rows}, "x")
        writer.finish({})
    with h5py.File(path) as file:
        dataset = file["SQ.x"]
        assert np.abs(dataset[...] * dataset.attrs["scale"] - rows).max() <= np.abs(rows).max() / 253
        stored = stored_values(dataset)
        assert stored.has_bits_of(Form("int8").stored(rows))
        assert dataset.attrs["checksum"] == residue_checksum("SQ.x", stored)


@pytest.mark.parametrize(
    ("feature", "form", "key"),
    [
        ("representations", Form("float16"), "beyond float16; use per_residue: float32"),
        ("logits", Form("float16"), "beyond float16; use include_dtype: float32"),
        ("representations", Form("int8"), "that is not finite; use dtype: fp32"),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_with_the_key(tmp_path, feature, form, key):
    rows = np.ones((3, 4), np.float32)
    rows[1, 2] = np.inf
    path = tmp_path / "a.h5"
    with pytest.raises(NonFiniteError, match=key), ResidueWriter({feature: path}, {feature: form}) as writer:
        writer.write("SQ.x", {feature: rows}, "x")
        writer.finish({})
    assert not path.exists()


class Run:
    """A run of SEQUENCES through all that stores or reads values."""

    def __init__(self, folder, storage, **options):
        model = random_esm2(3, 32, 4, seed=2)
        torch.nn.init.normal_(model.contact_head.regression.weight, 0, 5)
        save_fair_esm(model, folder / "model.pt", contacts=True)
        include = () if "windows" in options else ("log_likelihood", "logits", "contacts", "masked_marginals")
        how = {"layers": (1, 3), "include": include, "device": "cpu", "tokens_per_pack": 256}
        self.folder, self.storage, self.options = folder, storage, EmbedOptions(folder / "model.pt", **how | options)
        self.features = FEATURES if include else FEATURES[:1]
        self.fasta = folder / "s.fasta"
        self.fasta.write_text("".join(f">{name} text\n{sequence}\n" for name, sequence in SEQUENCES.items()))
        self.chunk = folder / "chunks" / "1.fasta"
        chunk_samples([("s", self.fasta)], [self.chunk], folder / "m", folder / "r", folder / "c.json")
        self.parquet = folder / "embeddings" / "s.parquet"
        self.residues = {feature: folder / "residues" / f"s.{feature}.h5" for feature in self.features}
        self.chunk_files = {feature: self.chunk.with_suffix(f".{feature}.h5") for feature in self.features}

    def embed(self, **more):
        paths = self.chunk, self.chunk.with_suffix(".arrow"), self.chunk.with_suffix(".json")
        stats = embed_fasta(*paths, self.options, residues=self.chunk_files, storage=self.storage, repeat=0.4, **more)
        merge_samples(self.folder / "m", {"s": self.parquet}, [paths[1]])
        for feature, path in self.chunk_files.items():
            merge_residues(self.folder / "m", {"s": self.residues[feature]}, [path])
        return stats

    def check(self):
        residues = {("s", feature): path for feature, path in self.residues.items()}
        stats, tables = [self.chunk.with_suffix(".json")], (self.folder / "v.tsv", self.folder / "v.json")
        samples = [("s", self.fasta, self.parquet)]
        return validate(samples, self.folder / "m", stats, *tables, ValidationOptions(), self.options, residues)

    def stored(self, feature):
        with h5py.File(self.residues[feature]) as file:
            return {name: stored_values(dataset) for name, dataset in file.items()}

    def change(self, feature, name, change):
        """Change what is stored, with a checksum as if it had been computed so."""
        with h5py.File(self.residues[feature], "a") as file:
            dataset, scale = file[name], file[name].attrs.get("scale")
            changed = change(dataset[...])
            dataset[...] = changed
            dataset.attrs["checksum"] = residue_checksum(dataset.attrs["digest"], StoredValues(changed, scale))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("small"), SMALL)
    run.embed()
    return run


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("exact"), StorageOptions("float32"))
    run.embed()
    return run


def test_small_files_have_the_values_of_exact_ones_in_their_form(small, exact):
    forms = {"representations": Form("int8"), "contacts": Form("float16", True)}
    for feature in FEATURES:
        for name, want in exact.stored(feature).items():
            form = forms.get(feature, Form("float16"))
            assert small.stored(feature)[name].has_bits_of(form.stored(want.decoded)), (feature, name)
    with h5py.File(small.residues["representations"]) as file:
        assert file["long"].dtype == np.int8 and file["long"].attrs["scale"].shape == (2, 1, 32)
    with h5py.File(small.residues["contacts"]) as file:
        assert file["short"].dtype == np.float16 and file["short"].shape == (55,)


def test_a_good_run_passes_and_says_what_8_bits_cost(small, exact):
    summary = small.check()
    assert summary["passed"] and summary["bit_equal"]
    assert summary["worst_representations_relative_l2"] < 2e-6  # beyond half a step
    assert 1e-4 < summary["worst_int8_relative_l2"] < 0.02 and 0.9998 < summary["worst_int8_residue_cosine"] < 1
    assert summary["worst_contacts_correlation"] > 1 - 1e-9 and summary["worst_pooled_relative_l2"] < 2e-6
    assert [text for title, text in worst_of_outputs(summary) if "int8" in title][0] == (
        f"{summary['worst_int8_relative_l2']:.1e}"
    )
    assert "worst_int8_relative_l2" not in exact.check()


@pytest.mark.parametrize(
    ("feature", "change", "message"),
    [
        ("representations", lambda x: np.where(x > 0, x - 1, x), "representations_relative_l2 to the reference is"),
        ("logits", lambda x: np.nextafter(np.nextafter(x, np.float16(99)), np.float16(99)), "logits_relative_l2"),
        ("contacts", lambda x: x[::-1], "contacts_abs_per_residue to the reference is"),
        ("masked_marginals", lambda x: x[::-1], "masked_marginals_rms to the reference is"),
    ],
)
def test_what_rounding_does_not_explain_fails(tmp_path, feature, change, message):
    run = Run(tmp_path, SMALL)
    run.embed()
    run.change(feature, "long", change)
    with pytest.raises(ValidationError, match=r"s\|long, 81 residues, "):
        run.check()
    failures = read_json(tmp_path / "v.json")["failures"]
    assert any(message in failure for failure in failures)
    assert any("the stored values differ from those that the same settings give now" in x for x in failures)


def test_a_changed_scale_is_found_by_the_checksum(tmp_path):
    run = Run(tmp_path, SMALL)
    run.embed()
    with h5py.File(run.residues["representations"], "a") as file:
        file["long"].attrs["scale"] = file["long"].attrs["scale"] * np.float32(1.001)
    with pytest.raises(EmbeddingFileError, match="'long'.* its values were changed"):
        run.check()


@pytest.mark.parametrize("scale", [None, "x", np.ones((1, 32), np.float32), np.ones((2, 1, 32))], ids=repr)
def test_another_kind_of_scale_is_the_error_of_a_changed_file(tmp_path, scale):
    run = Run(tmp_path, StorageOptions("int8"))
    run.embed()
    with h5py.File(run.residues["representations"], "a") as file:
        del file["long"].attrs["scale"]
        if scale is not None:
            file["long"].attrs["scale"] = scale
    with pytest.raises(EmbeddingFileError, match="'long'.* its scale is missing, or is not one of such values"):
        run.check()


def test_an_error_of_a_sync_leaves_no_file(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    run = Run(tmp_path, StorageOptions("float16"))
    run.embed()
    for path in run.residues.values():
        path.unlink()
    monkeypatch.setattr(write_back, "STEP_BYTES", 1000)
    monkeypatch.setattr(write_back, "_sync", full)
    for path in (tmp_path / "a.h5", run.residues["logits"]):
        with pytest.raises(OSError, match="Disk quota exceeded"):
            if path.name == "a.h5":
                with ResidueWriter({"logits": path}, {"logits": Form()}) as writer:
                    writer.write("SQ.x", {"logits": np.ones((30, 33), np.float32)}, "x")
                    writer.finish({})
            else:
                merge_residues(tmp_path / "m", {"s": path}, [run.chunk_files["logits"]])
        assert not path.exists()


def test_pooled_vectors_in_float16_are_the_rounded_ones_and_every_reader_has_them(small, exact):
    table, want = pq.read_table(small.parquet), pq.read_table(exact.parquet)
    assert str(table.schema.field("mean_3").type.value_type) == "halffloat"
    vectors = np.array(table["mean_3"].to_pylist(), np.float16)
    assert np.array_equal(vectors, np.array(want["mean_3"].to_pylist(), np.float32).astype(np.float16))
    assert table["log_likelihood"].equals(want["log_likelihood"])  # a number stays float32
    assert sample_settings(small.parquet)["pooled_dtype"] == "float16"
    assert np.array_equal(np.array(pl.read_parquet(small.parquet)["mean_3"].to_list(), np.float16), vectors)
    found = duckdb.sql(f"SELECT mean_3 FROM '{small.parquet}'").fetchall()
    assert np.array_equal(np.array([row for (row,) in found], np.float16), vectors)


def test_npy_and_h5_have_float16_too(small, tmp_path):
    paths = {"npy": [("mean_3", tmp_path / "m.npy")], "h5": [("mean_3", tmp_path / "m.h5")]}
    export_sample(small.parquet, small.folder / "m", "s", chunks=[small.chunk], **paths)
    matrix = np.load(tmp_path / "m.npy")
    assert matrix.dtype == np.float16 and np.array_equal(matrix, pq.read_table(small.parquet)["mean_3"].to_pylist())
    with h5py.File(tmp_path / "m.h5") as file:
        assert file["long"].dtype == np.float16 and np.array_equal(file["long"], matrix[2])


def test_a_pooled_value_beyond_float16_is_refused_by_name():
    columns = {"mean_3": np.array([[1, 2], [1, 70_000]], np.float32)}
    assert in_dtype(columns, {}, ["a", "b"])["mean_3"][1, 1] == 70_000
    with pytest.raises(NonFiniteError, match="b: mean_3 has a value beyond float16; use pooled_dtype: float32"):
        in_dtype(columns, {"pooled_dtype": "float16"}, ["a", "b"])


def test_earlier_results_in_the_same_form_are_copied_and_others_are_not(small, tmp_path):
    same, other = Run(tmp_path, SMALL), Run(tmp_path, StorageOptions("int8", "float16", "triangle"))
    assert same.embed(reuse=[small.parquet])["reused_sequences"] == 3
    assert same.parquet.read_bytes() == small.parquet.read_bytes()
    for feature in FEATURES:
        for name, values in small.stored(feature).items():
            assert same.stored(feature)[name].has_bits_of(values), (feature, name)
    assert other.embed(reuse=[small.parquet])["reused_sequences"] == 0


def test_windows_are_joined_before_they_are_rounded(tmp_path):
    run = Run(tmp_path, StorageOptions("int8"), windows=ResidueWindows(40, 20))
    run.embed()
    summary = run.check()
    assert summary["passed"] and summary["bit_equal"] and summary["worst_int8_residue_cosine"] > 0.9998


def test_files_of_fair_esms_script_have_the_values_that_the_codes_stand_for(small, tmp_path):
    from packed_esm.embedding.pt_files import pt_folder

    residues = [(feature, Path(path)) for feature, path in small.residues.items()]
    others = [lambda sample: pt_folder(tmp_path / "pt", residues, sample)]
    export_sample(small.parquet, small.folder / "m", "s", others=others)
    saved = torch.load(tmp_path / "pt" / "long text.pt")
    want = {feature: small.stored(feature)["long"].decoded.astype(np.float32) for feature in FEATURES}
    assert np.array_equal(saved["representations"][3].numpy(), want["representations"][1])
    assert np.array_equal(saved["contacts"].numpy(), want["contacts"]) and saved["contacts"].shape == (81, 81)


def test_the_functions_of_the_page_give_the_values(small):
    code = re.search(r"```python\n(def residues\(.*?)```", (ROOT / "docs/using.md").read_text(), re.DOTALL)[1]
    names = {"np": np}
    exec(code, names)
    with h5py.File(small.residues["representations"]) as file:
        assert np.array_equal(names["residues"](file["long"]), small.stored("representations")["long"].decoded)
    with h5py.File(small.residues["contacts"]) as file:
        assert np.array_equal(names["square"](file["long"][...]), small.stored("contacts")["long"].decoded)
