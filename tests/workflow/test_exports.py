"""All formats through snakemake: what stands in config/README.md reads them, and they hold fair-esm's values."""

import re

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import skbio
import torch
from checkpoint_files import save_fair_esm
from conftest import ROOT, fair_esm_alone, random_esm2
from packed_esm.sequences.fasta import read_records
from packed_esm.sequences.tokens import tokenize

from .conftest import proteins

EXPORT = ("export_samples",)
AWKWARD = '>sp|P69905|HBA_HUMAN Hemoglobin "alpha"\nMVLSPADKTN\n>a/b ../c\nMKV\n>bad\nM1\n'


def lines_of_readme():
    """Return {file: Python expression} of the table of formats in config/README.md."""
    text = (ROOT / "config/README.md").read_text().split("## Formats")[1].split("##")[0]
    rows = [line.strip("| ").split(" | ")[-2:] for line in text.splitlines() if line.startswith("|")][2:]
    return {re.search("`([^`]+)`", file)[1]: code.strip("` ") for file, code in rows}


def test_every_format_is_written_and_read_as_the_readme_says(project, demo, monkeypatch):
    project.write_samples(domains=proteins(6) + AWKWARD, none="")
    config = ("formats=[h5,npy,h5ad,skbio,pt]", "pooling=[mean,bos]", "layers=[-1,0]", "metadata=about.tsv")
    (project.folder / "about.tsv").write_text("Entry\thost\nP69905\thuman\n")
    done = project.passes(config=config)
    assert "Embeddings: results/demo/embeddings/\n" in done.output
    records = [record for record in read_records(project.folder / "domains.fasta") if record.id != "bad"]
    truth = {r.description: fair_esm_alone(demo, tokenize(r.sequence), [6])[6].numpy() for r in records}
    mean, bos = (np.stack([f(rows) for rows in truth.values()]) for f in (lambda r: r[1:-1].mean(0), lambda r: r[0]))
    folder = project.folder / "results/demo/embeddings"
    monkeypatch.chdir(folder)
    stored = project.matrix("domains", "mean_6")
    assert np.allclose(stored, mean, rtol=1e-5, atol=1e-5)

    names = {"pd": pd, "np": np, "h5py": h5py, "anndata": anndata, "skbio": skbio, "torch": torch}
    names["header"] = records[0].description
    read = {file: eval(code, names) for file, code in lines_of_readme().items()}
    assert {path.removesuffix("/") for path in read} < {path.name for path in folder.iterdir()} | {
        "domains.pt/index.tsv"
    }
    ids = [record.id for record in records]
    assert np.array_equal(np.stack(read["domains.parquet"]), stored)
    assert list(read["domains.mean_6.h5"])[-2:] == ["P69905", "a%2Fb"]
    assert np.array_equal(np.stack(list(read["domains.mean_6.h5"].values())), stored)
    assert np.array_equal(read["domains.mean_6.npy"], stored) and read["domains.mean_6.ids.txt"] == ids
    assert np.array_equal(read["domains.h5ad"], stored) and read["domains.h5ad"].index.tolist() == ids
    assert anndata.read_h5ad("domains.h5ad").obs["host"].tolist()[-2:] == ["human", ""]
    log = (project.folder / "logs/demo/export_samples/1.log").read_text()
    assert "metadata: 1 of 8 proteins matched by `Entry` of about.tsv" in log
    vectors = read["domains.mean_6.skbio.h5"]
    assert np.array_equal(skbio.embedding.embed_vec_to_numpy(vectors), stored)
    assert [str(vector) for vector in vectors] == [record.sequence for record in records]
    assert np.array_equal(read["domains.pt/"], stored[0])
    assert read["domains.pt/index.tsv"]["header"].tolist() == list(truth)

    for column in ("mean_6", "bos_6", "mean_0", "bos_0"):
        assert np.array_equal(np.load(f"domains.{column}.npy"), project.matrix("domains", column))
        assert np.load(f"none.{column}.npy").shape == (0, 192)
    for header, vector in zip(truth, bos, strict=True):
        file = read["domains.pt/index.tsv"].set_index("header")["file"][header]
        result = torch.load(folder / "domains.pt" / file, weights_only=True)
        assert result["label"] == header and np.allclose(result["bos_representations"][6], vector, rtol=1e-5, atol=1e-5)
    assert "Nothing to be done" in project.passes("--dry-run", config=config).output


def test_parquet_is_always_made_and_nothing_else_unless_asked_for(project):
    project.write_samples(s=proteins(3))
    project.passes("merge_samples", config=("formats=[]",))
    assert [path.name for path in (project.folder / "results/demo/embeddings").iterdir()] == ["s.parquet"]
    done = project.passes(*EXPORT, config=("formats=npy",))
    assert "merge_sample" not in done.output
    assert {path.name for path in (project.folder / "results/demo/embeddings").iterdir()} == {
        "s.parquet",
        "s.mean_6.npy",
        "s.mean_6.ids.txt",
    }
    assert "'csv' is not one of" in project.fails(config=("formats=[csv]",)).output


@pytest.mark.parametrize("layers", ["[-1]", "[1,-2]"])
def test_columns_are_named_by_the_layers_that_a_checkpoint_has(project, layers):
    save_fair_esm(random_esm2(num_layers=2, embed_dim=32, heads=2), project.folder / "mine.pt")
    project.write_samples(s=proteins(3))
    project.passes(*EXPORT, config=("formats=npy", "model=./mine.pt", f"layers={layers}"))
    project.results = project.folder / "results/mine"
    column = {"[-1]": "mean_2", "[1,-2]": "mean_1"}[layers]
    assert np.array_equal(np.load(project.results / f"embeddings/s.{column}.npy"), project.matrix("s", column))
