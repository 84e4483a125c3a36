"""The benchmarks of stored values run with the present library, on very little."""

import importlib

import numpy as np
import pytest
from conftest import ROOT
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.embedding.reading import Sequences
from packed_esm.sequences.fasta import Record
from packed_esm.sequences.tokens import tokenize

SEQUENCES = ("MVLSPADKTN", "MKVLLAGGST" * 3)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests/benchmarks"))
    return importlib.import_module


def test_storage_and_fewer_bits_measure_the_values_of_a_job(benchmark, tmp_path):
    records = [Record(str(n), "", sequence, n) for n, sequence in enumerate(SEQUENCES)]
    values = benchmark("storage").values_of(records, "float16")
    assert [one.shape for one in values] == [(10, 192), (30, 192)] and values[0].dtype == np.float16
    found = benchmark("storage").measure(values, {}, tmp_path / "v.h5")
    assert 1 < found["share"] < 1.5 and found["write_mb_per_s"] > 0


@pytest.mark.parametrize("what", ["mean vectors", "int8 of each residue", "residues, logits and contacts, small"])
def test_outputs_writes_what_it_names(benchmark, tmp_path, what):
    outputs = benchmark("outputs")
    features, layers, storage = outputs.OUTPUTS[what]
    features = [name for name in features if name != "contacts"]  # for which the model has no head
    include = tuple(name for name in features if name != "representations")
    embedder = Embedder(EmbedOptions(DEMO_PATH, layers=layers, include=include, device="cpu"))
    tokens = [tokenize(sequence) for sequence in SEQUENCES]
    size = outputs.embed(embedder, Sequences(["SQ.0", "SQ.1"], ["0", "1"], tokens), features, storage, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.h5" for name in features)
    assert (size > 40 * 192) == bool(features)
