"""A whole run of ESM C: outputs, scores of variants, and the reference that it was compared with."""

import json

import h5py
import pandas as pd
import pytest
from esmc_checkpoints import random_esmc, save_esmc

from .conftest import proteins


@pytest.fixture
def with_esmc(project):
    save_esmc(random_esmc(num_layers=2), project.folder / "small")
    project.write_samples(s=proteins(4, longest=60))
    return project


def test_esm_c_runs_as_esm_2_does_and_is_compared_with_transformers(with_esmc):
    folder = with_esmc.folder
    sequence = (folder / "s.fasta").read_text().split("\n")[1]
    other = "W" if sequence[2] != "W" else "A"
    name = (folder / "s.fasta").read_text()[1:].split()[0]
    (folder / "v.tsv").write_text(f"sample\tid\tmutations\ns\t{name}\t{sequence[2]}3{other}\n")
    keys = ("model=small", "device=cpu", "layers=[0, -1]", "per_residue=float32", "include=[logits]", "variants=v.tsv")
    done = with_esmc.passes(config=keys)
    results = folder / "results" / "small"
    summary = json.loads((results / "validation/summary.json").read_text())
    assert summary["passed"] and summary["sequences_compared"] == 4
    assert summary["reference"].startswith("transformers ") and "compared with transformers" in done.output
    table = pd.read_parquet(results / "embeddings/s.parquet")
    assert {"mean_0", "mean_2"} <= {*table.columns} and len(table) == 4
    with h5py.File(results / "residues/s.logits.h5") as file:
        assert file[name].shape == (len(sequence), 64)
    assert pd.read_csv(results / "variants.tsv", sep="\t")["masked_marginal"].notna().all()
    assert "agree with transformers" in (results / "report.html").read_text()


def test_contacts_of_esm_c_are_refused_before_anything_runs(with_esmc):
    done = with_esmc.run(config=("model=small", "device=cpu", "include=[contacts]"))
    assert done.returncode and "ESM C has no contact head" in done.output and "chunk_fasta" not in done.output
