"""docs/using.md: its Python runs on the example and prints what it says, its options are there."""

import contextlib
import importlib
import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.store.merge import merge_sample

TEXT = (ROOT / "docs/using.md").read_text()
SAMPLES = ("enzymes_globins", "domains")


def sections():
    """Return {title: [(Python, what it prints)]} of the blocks of Python, without those of Snakemake."""
    blocks = {}
    for section in TEXT.split("\n## ")[1:]:
        pairs = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", section, re.DOTALL)
        blocks[section.splitlines()[0]] = [pair for pair in pairs if not pair[0].startswith("module ")]
    return blocks


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder that looks like the clone after ./run."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "workflow").symlink_to(ROOT / "workflow")
    results = folder / "results" / "demo"
    (results / "embeddings").mkdir(parents=True)
    fastas = [(sample, ROOT / f"config/example/{sample}.fasta") for sample in SAMPLES]
    manifest, chunk = results / "manifest.parquet", results / "1.arrow"
    chunk_samples(fastas, [results / "1.fasta"], manifest, results / "rejected.tsv", results / "counts.json")
    embed_fasta(results / "1.fasta", chunk, results / "1.json", EmbedOptions(DEMO_PATH, device="cpu"))
    for sample in SAMPLES:
        merge_sample(manifest, sample, [chunk], results / f"embeddings/{sample}.parquet")
    return folder


@pytest.mark.slow
def test_the_python_runs_as_it_stands_and_prints_what_it_says(clone, monkeypatch):
    monkeypatch.chdir(clone)
    names, missing = {}, None
    for title, blocks in sections().items():
        for code, printed in blocks:
            if "import duckdb" in code:
                try:
                    importlib.import_module("duckdb")
                except ImportError:
                    missing = f"{title}: DuckDB is not installed (pip install duckdb)"
                    continue
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(code, names)
            assert output.getvalue() == printed, code
    saved = torch.load("output_1_ESM.pt", weights_only=True)
    table = pd.read_parquet("results/demo/embeddings/domains.parquet")
    assert saved["proteins"] == table["id"].tolist()
    assert np.array_equal(torch.stack(saved["data"]), np.stack(table["mean_6"]))
    if missing:
        pytest.skip(missing)


def test_the_options_of_programs_are_there(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "workflow/scripts"))
    calls = re.findall(r"`(\w+)\.py( --[^`]+)?`", TEXT.split("## From fair-esm")[1].split("## ")[0])
    calls = [(name, options) for name, options in calls if (ROOT / f"workflow/scripts/{name}.py").exists()]
    assert len(calls) > 10
    for name, options in calls:
        known = importlib.import_module(name).build_parser().format_help()
        assert all(f"  {option} " in known for option in re.findall(r"--[\w-]+", options)), (name, options)
