"""The samples of a group are exported with one open manifest, one look at the metadata, and few sequences in memory."""

import numpy as np
import pandas as pd
import pytest
from anndata.io import read_h5ad
from packed_esm.sequences import metadata
from packed_esm.sequences.alphabet import refget_digest
from packed_esm.sequences.manifest import SCHEMA, Manifest, write_manifest
from packed_esm.store import export
from packed_esm.store.embeddings import write_chunk
from packed_esm.store.merge import merge_samples
from packed_esm.validation import stored

SETTINGS = {"model": "m", "layers": [6], "pooling": ["mean"], "include": [], "tokens_per_pack": 512}
SAMPLES = {"s": [0, 1, 2], "none": [], "t": [2, 3], "u": [4, 5, 0]}  # sequences of each
SEQUENCES = ["M" * n for n in range(1, 7)]


@pytest.fixture
def run(tmp_path):
    """Two chunks of three sequences, and samples of any of them, one without records."""
    for chunk in (0, 1):
        some = SEQUENCES[3 * chunk : 3 * chunk + 3]
        values = {"mean_6": np.random.default_rng(chunk).random((3, 4), np.float32)}
        digests = list(map(refget_digest, some))
        write_chunk(tmp_path / f"{chunk}.arrow", digests, list(map(len, some)), values, SETTINGS)
        records = (f">{digest}\n{sequence}\n" for digest, sequence in zip(digests, some, strict=True))
        (tmp_path / f"{chunk}.fasta").write_text("".join(records))
    rows = [
        (name, p, f"{name}{p}", "", p, n + 1, 0, refget_digest(SEQUENCES[n]), "accepted", "", n // 3, n % 3)
        for name, numbers in SAMPLES.items()
        for p, n in enumerate(numbers)
    ]
    write_manifest(tmp_path / "m", pd.DataFrame(rows, columns=SCHEMA.names), dict.fromkeys(SAMPLES, ""))
    outs = {name: tmp_path / f"{name}.parquet" for name in SAMPLES}
    merge_samples(tmp_path / "m", outs, [tmp_path / "0.arrow", tmp_path / "1.arrow"])
    return tmp_path


@pytest.mark.parametrize(("held", "reads"), [(1, 5), (13, 4), (1000, 2)])
def test_a_chunk_is_read_once_for_the_samples_whose_sequences_fit_into_memory(run, monkeypatch, held, reads):
    read, read_sequences = [], export.read_sequences
    monkeypatch.setattr(export, "HELD_RESIDUES", held)
    monkeypatch.setattr(
        export, "read_sequences", lambda paths, *rest: read.extend(paths) or read_sequences(paths, *rest)
    )
    found = dict(export.with_sequences(run / "m", SAMPLES, [run / "0.fasta", run / "1.fasta"]))
    assert list(found) == list(SAMPLES) and len(read) == reads
    for name, numbers in SAMPLES.items():
        assert {SEQUENCES[n] for n in numbers} <= set(found[name].values())
        assert all(refget_digest(sequence) == digest for digest, sequence in found[name].items())


def test_metadata_are_matched_once_and_each_sample_has_its_own(run, monkeypatch):
    asked, opened = [], []
    values = metadata.Metadata.values
    monkeypatch.setattr(metadata.Metadata, "values", lambda self, name: asked.append(name) or values(self, name))
    monkeypatch.setattr(export, "Manifest", lambda path: opened.append(path) or Manifest(path))
    ids = [f"{name}{p}" for name, numbers in SAMPLES.items() for p in range(len(numbers))]
    (run / "meta.tsv").write_text("id\tkind\n" + "".join(f"{name}\tof {name}\n" for name in ids))
    for name, numbers in SAMPLES.items():
        export.export_sample(run / f"{name}.parquet", run / "m", name, h5ad=run / "x.h5ad", metadata=run / "meta.tsv")
        obs = read_h5ad(run / "x.h5ad").obs
        assert obs["kind"].tolist() == [f"of {name}{p}" for p in range(len(numbers))]
    assert asked == ["kind"] and opened == [run / "m"]


def test_a_sample_without_a_compared_record_is_not_read(run, monkeypatch):
    read, sample_batches = [], stored.sample_batches
    monkeypatch.setattr(stored, "sample_batches", lambda path: read.append(path.stem) or sample_batches(path))
    chosen = pd.DataFrame({"sample": ["t", "t"], "id": ["t1", "t0"]})
    values = stored.read_rows([(name, run, run / f"{name}.parquet") for name in SAMPLES], chosen)
    want = np.stack(pd.read_parquet(run / "t.parquet")["mean_6"][::-1])
    assert read == ["t"] and np.array_equal(values["mean_6"], want)
