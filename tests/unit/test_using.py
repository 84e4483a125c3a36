"""Pages for users: their Python runs on the example and prints what they say, and the options they name are there."""

import contextlib
import hashlib
import importlib
import io
import re
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.fasta import read_records
from packed_esm.store.embeddings import write_chunk
from packed_esm.store.export import export_sample
from packed_esm.store.merge import merge_samples
from packed_esm.variants.options import VariantOptions
from packed_esm.variants.score import score_variants

PAGES = ("using.md", "library.md", "other-tools.md")
SAMPLES = ("enzymes_globins", "domains")
WIDTH = 192
LARGE = "lancedb"  # which no environment of ours installs


def blocks(*pages):
    """Return (Python, what it prints) of each block of Python, in order, without those of Snakemake."""
    text = "\n".join((ROOT / "docs" / page).read_text() for page in pages)
    pairs = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)
    return [pair for pair in pairs if not pair[0].startswith("module ")]


def run(code, names):
    """Run a block and return what it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), warnings.catch_warnings(action="ignore"):
        exec(code, names)
    return output.getvalue()


def like_a_clone(folder, embed):
    """Make a folder look like the clone after ./run; `embed` takes the FASTA file of the chunk and makes its file."""
    (folder / "workflow").symlink_to(ROOT / "workflow")
    results = folder / "results" / "demo"
    (results / "embeddings").mkdir(parents=True)
    fastas = [(sample, ROOT / f"config/example/{sample}.fasta") for sample in SAMPLES]
    manifest, fasta, chunk = results / "manifest.parquet", results / "1.fasta", results / "1.arrow"
    chunk_samples(fastas, [fasta], manifest, results / "rejected.tsv", results / "counts.json")
    embed(fasta, chunk)
    for sample in SAMPLES:
        stem = results / "embeddings" / sample
        merge_samples(manifest, {sample: stem.with_suffix(".parquet")}, [chunk])
        h5 = [("mean_6", stem.with_suffix(".mean_6.h5"))]
        export_sample(stem.with_suffix(".parquet"), manifest, sample, h5=h5, chunks=[fasta])
    table = results / "table.tsv"
    table.write_text(re.search(r"```tsv\n(.*?)```", (ROOT / "docs/using.md").read_text(), re.DOTALL)[1])
    scores = [results / "variants.tsv", results / "variants.json"]
    score_variants(table, manifest, [fasta], *scores, EmbedOptions(DEMO_PATH, device="cpu"), VariantOptions())
    return folder


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The example as the workflow embeds it."""

    def embed(fasta, chunk):
        embed_fasta(fasta, chunk, chunk.with_suffix(".json"), EmbedOptions(DEMO_PATH, device="cpu"))

    return like_a_clone(tmp_path_factory.mktemp("embedded"), embed)


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    """The example with random numbers for embeddings, which need no model."""

    def embed(fasta, chunk):
        records = list(read_records(fasta))
        vectors = np.random.default_rng(0).normal(size=(len(records), WIDTH)).astype("f4")
        settings = {"model": "random", "layers": [6], "pooling": ["mean"], "tokens_per_pack": 1}
        lengths = [len(record.sequence) for record in records]
        write_chunk(chunk, [record.id for record in records], lengths, {"mean_6": vectors}, settings)

    return like_a_clone(tmp_path_factory.mktemp("random"), embed)


def check_files():
    """Check the files that the blocks write."""
    saved = torch.load("output_1_ESM.pt", weights_only=True)
    table = pd.read_parquet("results/demo/embeddings/domains.parquet")
    assert saved["proteins"] == table["id"].tolist()
    assert np.array_equal(torch.stack(saved["data"]), np.stack(table["mean_6"]))
    with h5py.File("biotrainer.h5") as file:
        assert len(file) == table["digest"].nunique()
        (key,) = [key for key, dataset in file.items() if dataset.attrs["original_id"] == "LAR_DROME/418-503"]
        assert np.array_equal(file[key], table.set_index("id").loc["LAR_DROME/418-503", "mean_6"])
    text = next(r.sequence for r in read_records("results/demo/1.fasta") if r.id == table["digest"].iloc[0])
    assert key == hashlib.sha256(f"{text}_{len(text)}".encode()).hexdigest()


@pytest.mark.slow
def test_the_python_runs_as_it_stands_and_prints_what_it_says(embedded, monkeypatch):
    monkeypatch.chdir(embedded)
    names = {}
    for code, printed in blocks(*PAGES):
        if LARGE not in code:
            assert run(code, names) == printed, code
    check_files()


def test_the_python_runs_and_prints_as_many_lines_as_it_says_whatever_the_numbers(random, monkeypatch):
    monkeypatch.chdir(random)
    names, done = {}, 0
    for code, printed in blocks(*PAGES):
        if LARGE not in code:
            assert len(run(code, names).splitlines()) == len(printed.splitlines()), code
            done += 1
    assert done > 10
    check_files()


def test_lancedb_finds_the_neighbours_that_the_other_libraries_find(random, monkeypatch):
    pytest.importorskip(LARGE)
    monkeypatch.chdir(random)
    names = {}
    printed = {code: run(code, names) for code, _ in blocks(PAGES[0]) if "sklearn" not in code}
    (theirs,) = [text for code, text in printed.items() if LARGE in code]
    (ours,) = [text for code, text in printed.items() if "np.argsort" in code]
    assert theirs == ours and len(ours.splitlines()) == 3


def test_the_options_of_programs_are_there(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "workflow/scripts"))
    calls = re.findall(r"`(\w+)\.py( --[^`]+)?`", (ROOT / "docs/other-tools.md").read_text().split("## ")[1])
    calls = [(name, options) for name, options in calls if (ROOT / f"workflow/scripts/{name}.py").exists()]
    assert len(calls) > 10
    for name, options in calls:
        known = importlib.import_module(name).build_parser().format_help()
        assert all(f"  {option} " in known for option in re.findall(r"--[\w-]+", options)), (name, options)
