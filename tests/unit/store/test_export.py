"""Files for other programs: read by those programs' own libraries, they hold the values of the Parquet file."""

import json
import resource
import signal
import subprocess
import sys
from functools import partial

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skbio
import torch
from conftest import ROOT
from packed_esm.embedding.pt_files import pt_folder
from packed_esm.errors import EmbeddingFileError, FastaError, OptionError, SheetError, ValidationError
from packed_esm.sequences.accessions import accession_of
from packed_esm.sequences.alphabet import RESIDUES, refget_digest
from packed_esm.sequences.manifest import SCHEMA, write_manifest
from packed_esm.store.embeddings import SampleWriter, embedding_table, row_checksums
from packed_esm.store.export import export_sample
from packed_esm.store.formats import MAX_OBS, biotrainer_hash
from packed_esm.store.names import dataset_names
from packed_esm.store.settings import SETTINGS_KEY

SETTINGS = {"model": "m.pt", "layers": [0, 6], "pooling": ["mean", "bos"], "include": [], "tokens_per_pack": [256, 512]}
WIDTH = 5
GROUP = 3000  # rows written at a time
BIOTRAINER = {
    "L": "aacfb5e5cd28e2b26b66022565bb49a81438761399e1337d841cc00d1fbe9610",
    "LA": "ef941bb2c60cc65b30ab0db67410575626361640e61adedea7d8ba255460d9e8",
    "MKTAYIAKQR": "4b1c8c344d1a72263d629410eaddb0b7f86a29dcf9ad9e217d8574fd75fbcb7b",
}
AWKWARD = {  # id: header
    "sp|P69905|HBA_HUMAN": "sp|P69905|HBA_HUMAN Hemoglobin subunit alpha OS=Homo sapiens OX=9606",
    "sp|P69905|HBA_PANTR": "sp|P69905|HBA_PANTR the same accession / again",
    "a/b/../c": "a/b/../c",
    "..": "..",
    ".": ". a dot\tand a tab",
    "x" * 10_000: "x" * 10_000 + " long",
    "naïve_蛋白": "naïve_蛋白 Protein",
    'say"hi"': 'say"hi" "quoted"',
    "it's": "",
    "a%2Fb": "a%2Fb",
    "same": "twice",
    "same_2": "twice",
    "-rf": "-rf $(id); =1+1",
    ".hidden": " .hidden",
}


def sequence(row):
    """Return a sequence of row + 1 residues: all letters that there are, and in one a mask."""
    letters = (RESIDUES * (row // len(RESIDUES) + 1))[: row + 1]
    return "MK<mask>V" if row == 3 else letters


class Made:
    """A sample of `records` records as the workflow leaves it, and paths for all formats."""

    def __init__(self, folder, records, width=WIDTH, scalars=False, settings=SETTINGS, headers=None):
        self.folder, rng = folder, np.random.default_rng(0)
        filler = {f"p{i}": f"p{i} filler" for i in range(len(AWKWARD), records)}
        headers = headers or dict(list(AWKWARD.items())[:records]) | filler
        self.ids, self.headers = list(headers), list(headers.values())
        self.sequences = [sequence(n) for n in range(records)]
        self.digests = [refget_digest(one) for one in self.sequences]
        self.columns = {
            name: rng.normal(size=(records, width)).astype("f4") for name in ("mean_0", "bos_0", "mean_6", "bos_6")
        }
        lengths = np.arange(1, records + 1, dtype="i4")
        self.scalar = rng.normal(size=records).astype("f4")
        columns = self.columns | ({"log_likelihood": self.scalar[:, None]} if scalars else {})
        checksums = row_checksums(self.digests, columns)
        table = embedding_table(self.digests, lengths, columns, checksums, ids=self.ids)
        self.parquet, self.manifest = folder / "s.parquet", folder / "m.parquet"
        with SampleWriter(self.parquet, settings | {"include": ["log_likelihood"] if scalars else []}) as writer:
            for start in range(0, max(1, records), GROUP):
                writer.write(table.slice(start, GROUP))
        rows = [
            ("s", p, self.ids[p], self.headers[p], p + 1, p + 1, 0, self.digests[p], "accepted", "", 0, p)
            for p in range(records)
        ]
        rows.append(("s", records, "bad", "bad one", 99, 1, 0, "", "rejected", "no residue", -1, -1))
        rows.append(("t", 0, "other", "other", 1, 1, 0, "SQ.", "accepted", "", 0, 0))
        write_manifest(
            self.manifest,
            pd.DataFrame(rows, columns=SCHEMA.names).sample(frac=1, random_state=0).sort_values("sample"),
            {},
        )
        self.chunk = folder / "1-of-1.fasta"
        if records < 100:
            named = zip(self.digests, self.sequences, strict=True)
            self.chunk.write_text("".join(f">{digest} s|of\n{text}\n" for digest, text in named))
        self.out = folder / "out"

    def arguments(self, *formats):
        every = {
            "h5": {"h5": [(name, self.out / f"s.{name}.h5") for name in self.columns], "chunks": [self.chunk]},
            "skbio": {"skbio": [("mean_6", self.out / "s.mean_6.skbio.h5")], "chunks": [self.chunk]},
            "npy": {
                "npy": [(name, self.out / f"s.{name}.npy") for name in self.columns],
                "ids": [self.out / "s.ids.txt"],
            },
            "h5ad": {"h5ad": self.out / "s.h5ad"},
            "pt": {"pt": self.out / "s.pt"},
        }
        return {key: value for name in formats or every for key, value in every[name].items()}

    def export(self, *formats, residues=(), **more):
        arguments = self.arguments(*formats) | more
        pt = arguments.pop("pt", None)
        others = [partial(pt_folder, pt, residues)] if pt else []
        return export_sample(self.parquet, self.manifest, "s", **arguments, others=others)

    def pt(self, row):
        """Return a record's file the way users of extract.py read it, by way of index.tsv for its name."""
        index = pd.read_csv(self.out / "s.pt" / "index.tsv", sep="\t", dtype=str, keep_default_na=False)
        return torch.load(self.out / "s.pt" / index["file"][row], weights_only=True)


@pytest.fixture(params=[0, 1, len(AWKWARD), 40], ids=lambda n: f"{n}-records")
def made(request, tmp_path, monkeypatch):
    monkeypatch.setattr("packed_esm.store.embeddings.BATCH_ROWS", 7)
    return Made(tmp_path, request.param)


@pytest.fixture
def awkward(tmp_path, monkeypatch):
    monkeypatch.setattr("packed_esm.store.embeddings.BATCH_ROWS", 7)
    return Made(tmp_path, len(AWKWARD))


def test_the_loop_of_uniprot_reads_an_h5_file(made):
    assert made.export("h5") == len(made.ids)
    for column, matrix in made.columns.items():
        with h5py.File(made.out / f"s.{column}.h5", "r") as file:
            read = {sequence_id: (np.array(embedding), embedding.attrs) for sequence_id, embedding in file.items()}
            assert list(read) == dataset_names(made.ids)
            assert json.loads(file.attrs["packed_esm"])["settings"] == SETTINGS
            for (vector, attributes), row, record_id in zip(read.values(), matrix, made.ids, strict=True):
                assert vector.dtype == np.float32 and np.array_equal(vector, row)
                assert attributes["original_id"] == record_id


def test_a_dataset_has_the_key_of_biotrainer(awkward):
    """Values of biotrainer's calculate_sequence_hash (biotrainer/utilities/hashing.py)."""
    awkward.export("h5")
    with h5py.File(awkward.out / "s.mean_6.h5") as file:
        keys = {dataset.attrs["original_id"]: dataset.attrs["biotrainer_hash"] for dataset in file.values()}
    assert keys["sp|P69905|HBA_HUMAN"] == BIOTRAINER["L"] and keys["sp|P69905|HBA_PANTR"] == BIOTRAINER["LA"]
    assert biotrainer_hash("MKTAYIAKQR") == BIOTRAINER["MKTAYIAKQR"]


def test_a_name_with_a_slash_keeps_the_whole_id_as_an_attribute(tmp_path):
    names = {"LAR_DROME/418-503": "fn3", "sp|P12345|AATM_RABIT": "aat"}
    made = Made(tmp_path, 2, headers=names)
    made.export("h5")
    with h5py.File(made.out / "s.mean_6.h5") as file:
        assert {name: dataset.attrs["original_id"] for name, dataset in file.items()} == {
            "LAR_DROME%2F418-503": "LAR_DROME/418-503",
            "P12345": "sp|P12345|AATM_RABIT",
        }


def test_formats_that_need_sequences_name_what_is_missing_or_changed(awkward):
    with pytest.raises(
        OptionError, match="sequences; give the FASTA files of all chunks: 0 are given, and the manifest names 1"
    ):
        awkward.export("h5", chunks=[])
    lines = awkward.chunk.read_text().splitlines(keepends=True)
    awkward.chunk.write_text("".join(lines[:-2]))
    with pytest.raises(FastaError, match=rf"1-of-1.fasta: no sequence {awkward.digests[-1]}; remove the manifest"):
        awkward.export("skbio")
    awkward.chunk.write_text("".join([lines[0], "M\n", *lines[2:]]))
    with pytest.raises(FastaError, match="1-of-1.fasta, line 1: the sequence is not that of its digest; the file was"):
        awkward.export("h5")
    assert not awkward.out.exists()


def test_scikit_bio_reads_vectors_and_sequences(made):
    made.export("skbio")
    path = made.out / "s.mean_6.skbio.h5"
    vectors = list(skbio.io.read(str(path), format="embed", constructor=skbio.embedding.ProteinVector))
    assert [str(vector) for vector in vectors] == [one.replace("<mask>", "X") for one in made.sequences]
    assert all(vector.vector.dtype == np.float32 for vector in vectors)
    assert np.array_equal(np.array([v.vector for v in vectors]).reshape(-1, WIDTH), made.columns["mean_6"])
    assert skbio.io.sniff(str(path))[0] == "embed"
    with h5py.File(path) as file:
        assert list(file["original_id"].asstr()) == made.ids
        assert dict(file.attrs) == {
            "format": "embedding",
            "format-version": "1.0",
            "dtype": "float32",
            "dim": WIDTH,
            "packed_esm": file.attrs["packed_esm"],
        }


def test_accessions_are_the_keys_of_an_h5_file(awkward):
    awkward.export("h5")
    with h5py.File(awkward.out / "s.mean_6.h5") as file:
        assert np.array_equal(file["P69905"], awkward.columns["mean_6"][0])
        assert np.array_equal(file["sp|P69905|HBA_PANTR"], awkward.columns["mean_6"][1])
        assert np.array_equal(file["a%2Fb%2F..%2Fc"], awkward.columns["mean_6"][2])


def test_numpy_reads_a_matrix_and_its_ids(made):
    made.export("npy")
    for column, matrix in made.columns.items():
        read = np.load(made.out / f"s.{column}.npy")
        assert read.dtype == np.float32 and read.shape == (len(made.ids), WIDTH) and np.array_equal(read, matrix)
    assert (made.out / "s.ids.txt").read_text(encoding="utf-8").splitlines() == made.ids


def test_anndata_reads_matrices_records_and_settings(made):
    made.export("h5ad")
    data = anndata.read_h5ad(made.out / "s.h5ad")
    first, *others = made.columns
    assert data.X.dtype == np.float32 and np.array_equal(data.X, made.columns[first])
    assert set(data.obsm) == set(others)
    assert all(np.array_equal(data.obsm[name], made.columns[name]) for name in others)
    assert data.obs_names.tolist() == made.ids
    assert data.obs["description"].tolist() == made.headers and data.obs["digest"].tolist() == made.digests
    assert data.obs["length"].tolist() == list(range(1, len(made.ids) + 1))
    assert data.obs["accession"].tolist() == [accession_of(record_id) for record_id in made.ids]
    assert set(data.obs) == {*SCHEMA.names, "accession"} - {"id"} and data.var_names.tolist() == list("01234")
    stored = json.loads(pq.read_schema(made.parquet).metadata[SETTINGS_KEY])
    assert data.uns["packed_esm"]["fingerprint"] == stored["fingerprint"]
    assert data.uns["packed_esm"]["settings"]["model"] == "m.pt"
    assert data.uns["packed_esm"]["settings"]["layers"].tolist() == [0, 6]


def test_the_metadata_of_the_user_are_in_obs(tmp_path, caplog):
    made = Made(tmp_path, 3, headers={"sp|P12345|AATM_RABIT": "a", "b": "b", "c": "c"})
    sheet = tmp_path / "m.tsv"
    columns = ["Entry", "Mass (kDa)", "length", "metadata_length", "_index", "a/b", "note", ".", "sp|P1|x"]
    rows = [["P12345", "46.5", "430", "1", "i", "x", "", "d", "s"], ["b", "", "1", "", "j", "y", "naïve", "", "t"]]
    sheet.write_text("\n".join("\t".join(row) for row in (columns, *rows)) + "\n")
    made.export("h5ad", metadata=sheet)
    obs = anndata.read_h5ad(made.out / "s.h5ad").obs
    assert obs["Mass (kDa)"].tolist()[0] == 46.5 and obs["Mass (kDa)"].isna().tolist() == [False, True, True]
    assert obs["length"].tolist() == [1, 2, 3] and obs["metadata_length"].tolist()[:2] == [430, 1]
    assert obs["metadata_metadata_length"].tolist()[0] == 1 and obs["metadata__index"].tolist() == ["i", "j", ""]
    assert obs["a%2Fb"].tolist() == ["x", "y", ""] and obs["note"].tolist() == ["", "naïve", ""]
    assert obs["%2E"].tolist() == ["d", "", ""] and obs["P1"].tolist() == ["s", "t", ""] and "Entry" not in obs
    assert "metadata: 2 of 4 proteins matched by `Entry`" in caplog.text  # of all samples
    assert set(encodings(made.out / "s.h5ad").values()) <= OF_ANNDATA_0_8
    sheet.write_text("Entry\tx\nother\t1\n")  # of the other sample
    made.export("h5ad", metadata=sheet)
    assert anndata.read_h5ad(made.out / "s.h5ad").obs["x"].isna().all()
    sheet.write_text("Entry\tx\nnobody\t1\n")
    with pytest.raises(SheetError, match=r"m.tsv: 0 of 4 proteins matched: its column `Entry` begins with 'nobody'"):
        made.export("h5ad", metadata=sheet)


def test_more_columns_than_an_h5ad_file_has_room_for_are_refused_and_as_many_are_written(tmp_path):
    made, sheet, room = Made(tmp_path, 2), tmp_path / "m.tsv", MAX_OBS - len(SCHEMA.names)
    for count in (room, room + 1):
        names = "\t".join(f"c{i}" for i in range(count))
        sheet.write_text(f"id\t{names}\n{made.ids[0]}" + "\t1" * count + "\n")
        if count == room:
            made.export("h5ad", metadata=sheet)
            assert len(anndata.read_h5ad(made.out / "s.h5ad").obs.columns) == MAX_OBS
    with pytest.raises(SheetError, match=f"metadata: {room + 1:,} columns are more than the {room:,} that an h5ad"):
        made.export("h5ad", metadata=sheet)


def encodings(path):
    """Return {path in the file: (encoding-type, encoding-version)} of a file of anndata."""
    found = {}
    with h5py.File(path) as file:
        items = [("/", file)]
        file.visititems(lambda name, item: items.append((name, item)))
        for name, item in items:
            found[name] = (item.attrs.get("encoding-type"), item.attrs.get("encoding-version"))
    return found


OF_ANNDATA_0_8 = {  # https://anndata.readthedocs.io/en/0.8.0/fileformat-prose.html; later versions read them all
    ("anndata", "0.1.0"),
    ("dict", "0.1.0"),
    ("dataframe", "0.2.0"),
    ("array", "0.2.0"),
    ("string-array", "0.2.0"),
    ("string", "0.2.0"),
    ("numeric-scalar", "0.2.0"),
    ("categorical", "0.2.0"),
}


@pytest.mark.parametrize("nothing", [{"windows": None}, {"windows": {"size": 1022, "overlap": None}}])
def test_an_h5ad_file_has_only_what_old_versions_of_anndata_read(tmp_path, nothing):
    """anndata before 0.12 knows no `null`, of which `raw` was one, and a setting that is not set another."""
    settings = SETTINGS | {"dtype": "bf16", "share": 0.5, "count": 3, "flag": True, "nested": {"a": [1.5]}}
    made = Made(tmp_path, 3, scalars=True, settings=settings | nothing)
    made.export("h5ad")
    found = encodings(made.out / "s.h5ad")
    assert set(found.values()) <= OF_ANNDATA_0_8
    top = {name for name in found if "/" not in name}
    assert top == {"X", "layers", "obs", "obsm", "obsp", "uns", "var", "varm", "varp"}
    stored = anndata.read_h5ad(made.out / "s.h5ad").uns["packed_esm"]["settings"]
    assert stored["dtype"] == "bf16" and stored["share"] == 0.5 and stored["count"] == 3 and stored["flag"]
    assert stored.get("windows", {}) == {k: v for k, v in (nothing["windows"] or {}).items() if v is not None}


def test_torch_reads_a_file_a_record_as_extract_py_writes_them(made):
    made.export("pt")
    assert len(list((made.out / "s.pt").glob("*.pt"))) == len(made.ids)
    for row, header in enumerate(made.headers):
        result = made.pt(row)
        assert set(result) == {"label", "mean_representations", "bos_representations"}
        assert result["label"] == header.strip()
        for pooling in ("mean", "bos"):
            assert list(result[f"{pooling}_representations"]) == [0, 6]
            for layer, vector in result[f"{pooling}_representations"].items():
                assert vector.dtype == torch.float32 and vector.untyped_storage().nbytes() == 4 * WIDTH
                assert np.array_equal(vector, made.columns[f"{pooling}_{layer}"][row])


def test_a_file_of_torch_has_the_name_that_extract_py_gives_it(awkward):
    awkward.export("pt")
    folder = awkward.out / "s.pt"
    for row in (0, 6, 7, 12):  # without a slash, a control character or a leading dot; short
        header = awkward.headers[row]
        vector = torch.load(f"{folder}/{header}.pt")["mean_representations"][6]
        assert np.array_equal(vector, awkward.columns["mean_6"][row]), header
    index = pd.read_csv(folder / "index.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert index["id"].tolist() == awkward.ids and index["header"].tolist() == [h.strip() for h in awkward.headers]
    assert sorted(index["file"]) == sorted(path.name for path in folder.iterdir() if path.name != "index.tsv")


def residues_file(path, made, feature, rows=slice(None), digests=None):
    values = {}
    with h5py.File(path, "w") as file:
        for row, name in list(enumerate(dataset_names(made.ids)))[rows]:
            length = row + 1
            shape = {"contacts": (length, length), "logits": (length, 33)}.get(feature, (2, length, WIDTH))
            values[row] = np.random.default_rng(row).normal(size=shape).astype("f2")
            file.create_dataset(name, data=values[row]).attrs["digest"] = (digests or made.digests)[row]
    return values


def test_values_a_residue_join_the_files_of_torch(awkward):
    features = ("representations", "contacts", "logits")
    paths = [(feature, awkward.folder / f"s.{feature}.h5") for feature in features]
    values = {feature: residues_file(path, awkward, feature) for feature, path in paths}
    awkward.export("pt", residues=paths)
    for row in range(len(awkward.ids)):
        result = awkward.pt(row)
        assert list(result["representations"]) == [0, 6] and result["representations"][6].dtype == torch.float32
        for place, layer in enumerate((0, 6)):
            assert np.array_equal(result["representations"][layer], values["representations"][row][place])
        assert np.array_equal(result["contacts"], values["contacts"][row]) and result["logits"].shape == (row + 1, 33)


def test_residues_of_another_sequence_or_that_are_missing_are_named(awkward):
    path = awkward.folder / "r.h5"
    swapped = [awkward.digests[1], awkward.digests[0], *awkward.digests[2:]]
    residues_file(path, awkward, "contacts", digests=swapped)
    with pytest.raises(
        EmbeddingFileError, match=r"r.h5, dataset 'P69905': should be SQ.*, but it contains SQ.*run again"
    ):
        awkward.export("pt", residues=[("contacts", path)])
    residues_file(path, awkward, "contacts", rows=slice(0, 5))
    with pytest.raises(EmbeddingFileError, match=r"r.h5, dataset 'xxx.* but it is missing"):
        awkward.export("pt", residues=[("contacts", path)])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EmbeddingFileError, match=r"r.h5: not a whole HDF5 file of residues .* run again"):
        awkward.export("pt", residues=[("contacts", path)])
    assert not list(awkward.out.iterdir())


def test_a_number_a_record_goes_where_there_is_a_place_for_it(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("packed_esm.store.embeddings.BATCH_ROWS", 4)
    caplog.set_level("INFO")
    made = Made(tmp_path, 9, scalars=True)
    made.export()
    assert np.array_equal(anndata.read_h5ad(made.out / "s.h5ad").obs["log_likelihood"], made.scalar)
    assert made.pt(3)["log_likelihood"] == made.scalar[3]
    assert "log_likelihood: one number per record, so it gets no .h5 or .npy file" in caplog.text


def test_equal_work_gives_equal_bytes_and_replaces_what_was_there(awkward):
    def contents():
        return {path: path.read_bytes() for path in sorted(awkward.out.rglob("*")) if path.is_file()}

    awkward.export()
    first = contents()
    (awkward.out / "s.pt" / "old.pt").write_text("of before")
    awkward.export()
    assert contents() == first and len(first) == 4 + 5 + 1 + 1 + 1 + len(AWKWARD)


def damaged(frame):
    values = frame["bos_6"].flatten().to_numpy().copy()
    values[WIDTH * 8 + 1] += np.float32(1e-6)
    frame["bos_6"] = pa.FixedSizeListArray.from_arrays(pa.array(values), WIDTH)


def reordered(frame):
    for name in frame:
        frame[name] = frame[name].take(pa.array([0, 2, 1, *range(3, len(frame["id"]))]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, r"s.parquet, row 8, sequence \"it's\": the embedding does not match its checksum"),
        (reordered, r"s.parquet, row 1, sequence 'a/b/../c': id is 'a/b/../c', but the manifest has 'sp\|P69905"),
    ],
)
def test_a_parquet_file_that_was_changed_is_named_and_nothing_is_left(awkward, change, message):
    table = pq.read_table(awkward.parquet)
    frame = {name: table[name].combine_chunks() for name in table.column_names}
    change(frame)
    pq.write_table(pa.table(frame).replace_schema_metadata(table.schema.metadata), awkward.parquet)
    with pytest.raises(ValidationError, match=message):
        awkward.export()
    assert not list(awkward.out.iterdir())


def test_a_parquet_file_that_is_cut_or_lacks_a_column_is_named(awkward):
    with pytest.raises(ValueError, match=r"s.parquet: no column 'mean_33' of embeddings; there are mean_0, bos_0"):
        export_sample(awkward.parquet, awkward.manifest, "s", npy=[("mean_33", awkward.out / "x.npy")])
    awkward.parquet.write_bytes(awkward.parquet.read_bytes()[:-100])
    with pytest.raises(EmbeddingFileError, match="s.parquet: not a whole Parquet file of embeddings"):
        awkward.export()
    assert not awkward.out.exists()


def child(made, before, formats=(), **options):
    """Export in a process of its own, which first runs the code `before` and prints its peak memory in KiB at the end.

    ru_maxrss would begin with the memory of this process.
    """
    code = f"""
import sys
from functools import partial
from pathlib import Path, PosixPath
sys.path.insert(0, {str(ROOT / "workflow")!r})
from packed_esm.store import embeddings, export
{before}
arguments = {made.arguments(*formats)!r}
if pt := arguments.pop("pt", None):
    from functools import partial
    from packed_esm.embedding.pt_files import pt_folder
    arguments["others"] = [partial(pt_folder, pt, ())]
export.export_sample({made.parquet!r}, {made.manifest!r}, "s", **arguments)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, **options)


def test_killed_midway_it_leaves_nothing_under_a_final_name_and_runs_again(awkward):
    killed_after_a_batch = """
import os, signal
batches = export.checked_batches
def cut(*arguments):
    for number, batch in enumerate(batches(*arguments)):
        if number:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
export.checked_batches, embeddings.BATCH_ROWS = cut, 7
"""
    assert child(awkward, killed_after_a_batch).returncode == -signal.SIGKILL
    left = [path.name for path in awkward.out.iterdir()]
    assert left and all(name.startswith(".") and name.endswith(".partial") for name in left)
    awkward.export()
    left = {path.name for path in awkward.out.iterdir()}
    columns = {f"s.{column}.{ending}" for column in awkward.columns for ending in ("h5", "npy")}
    assert left == {*columns, "s.ids.txt", "s.mean_6.skbio.h5", "s.h5ad", "s.pt"}


@pytest.mark.parametrize(
    ("name", "room"), [("h5", 10_000), ("npy", 200), ("skbio", 2000), ("h5ad", 10_000), ("pt", 1000)]
)
def test_without_room_it_says_so_and_leaves_nothing(awkward, name, room):
    done = child(awkward, "", [name], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
    assert done.returncode == 1, done
    assert "[Errno 27] File too large; make room and run again: '" in done.stderr.splitlines()[-1]
    assert not list(awkward.out.iterdir())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_sample(tmp_path):
    peaks = []
    for records in (6_000, 15_000):  # 4 columns, 184 MB more
        (tmp_path / str(records)).mkdir()
        made = Made(tmp_path / str(records), records, width=1280)
        done = child(made, "embeddings.BATCH_ROWS = 500", ["npy", "h5ad"])
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 90
