"""Streamed weights: equal files and settings, several packs a sweep, out-of-memory, and weights read from the file."""

import logging
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import random_esm2, random_tokens
from packed_esm.embedding import embedder as embedder_module
from packed_esm.embedding import memory
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.masked import MaskedCopies
from packed_esm.embedding.options import EmbedOptions
from packed_esm.embedding.packing import in_sweeps
from packed_esm.errors import CheckpointError
from packed_esm.sequences.tokens import tokenize
from packed_esm.sequences.windows import ResidueWindows
from packed_esm.validation.comparison import compare
from packed_esm.validation.stored import Stored

LENGTHS = [30, 300, 1, 5, 260, 90, 2, 44, 120, 120]
OUTPUTS = ("log_likelihood", "logits", "contacts", "masked_marginals")


@pytest.fixture
def checkpoint(tmp_path):
    base = random_esm2(num_layers=3, embed_dim=32, heads=2)
    torch.nn.init.normal_(base.contact_head.regression.weight)
    return save_fair_esm(base, tmp_path / "esm2_small.pt", contacts=True)


@pytest.fixture(params=["host", "file"])
def place(request, monkeypatch):
    """Where streamed weights are: this machine has little memory for those in the file."""
    monkeypatch.setattr(memory, "available_memory", lambda: {"host": None, "file": 10**6}[request.param])
    return request.param


def ways(checkpoint, **options):
    options = EmbedOptions(checkpoint, device="cpu", tokens_per_pack=320, **options)
    return Embedder(options), Embedder(replace(options, weights="streamed"))


def everything(embedder, tokens):
    seen = {}
    result = embedder.embed(tokens, each_sequence=lambda i, out: seen.setdefault(i, out))
    return result, seen


def assert_equal(one, other):
    (first, first_seen), (second, second_seen) = one, other
    assert first.columns.keys() == second.columns.keys()
    for name, matrix in first.columns.items():
        assert np.array_equal(matrix, second.columns[name]), name
    assert np.array_equal(first.places, second.places) and first.packs == second.packs
    assert first_seen.keys() == second_seen.keys()
    for index, out in first_seen.items():
        for layer, rows in out["representations"].items():
            assert torch.equal(rows, second_seen[index]["representations"][layer])
        for name in out.keys() - {"representations"}:
            assert torch.equal(out[name], second_seen[index][name]), name


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_all_outputs_are_equal_to_the_bit_and_so_are_the_settings(checkpoint, place, dtype):
    options = {"layers": (0, 2, 3), "poolings": ("mean", "max", "std", "bos", "eos"), "include": OUTPUTS[:3]}
    resident, streamed = ways(checkpoint, dtype=dtype, **options)
    assert (resident.weights, streamed.weights) == ("resident", place)
    assert resident.settings == streamed.settings
    tokens = random_tokens(LENGTHS)
    assert_equal(everything(resident, tokens), everything(streamed, tokens))


def test_windows_and_masked_copies_are_equal_to_the_bit(checkpoint, place):
    resident, streamed = ways(checkpoint, windows=ResidueWindows(100, 20))
    tokens = random_tokens([250, 90, 130])
    assert_equal(everything(resident, tokens), everything(streamed, tokens))
    names = ["a", "b", "c"]
    one, other = (dict(MaskedCopies(each, tokens, names).logits()) for each in (resident, streamed))
    assert one.keys() == other.keys() and all(np.array_equal(one[i], other[i]) for i in one)


def test_a_sequence_that_is_not_finite_is_recomputed_with_weights_from_the_file(tmp_path, place):
    base = random_esm2(num_layers=2, embed_dim=32, heads=2)
    with torch.no_grad():
        base.layers[1].fc1.weight.mul_(1e6)
    path = save_fair_esm(base, tmp_path / "esm2_loud.pt")
    resident, streamed = ways(path, dtype="fp16")
    tokens = random_tokens([40, 60])
    results = []
    for each in (resident, streamed):
        result = each.embed(tokens)
        assert result.recomputed == [0, 1]
        each.recompute(result, tokens, ["a", "b"])
        results.append(result.columns["mean_2"])
        copies = dict(MaskedCopies(each, tokens[:1], ["a"], [np.array([3, 7])]).logits())
        results.append(copies[0])
    assert np.array_equal(results[0], results[2]) and np.array_equal(results[1], results[3])
    assert np.isfinite(results[0]).all() and streamed._exact.weights == "file"


def test_a_sweep_has_as_many_packs_as_fit_and_always_one():
    assert [*in_sweeps([4, 4, 4, 4, 4], 8, int)] == [[4, 4], [4, 4], [4]]
    assert [*in_sweeps([9, 2, 2, 9], 5, int)] == [[9], [2, 2], [9]]
    assert [*in_sweeps([4, 4], 0, int)] == [[4], [4]] and [*in_sweeps([], 5, int)] == []


def test_a_pack_that_is_a_sweep_is_handed_on_before_the_next_one_is_made():
    made = []
    packs = (made.append(i) or i for i in (5, 5, 5))
    for number, _ in enumerate(in_sweeps(packs, 0, int), start=1):
        assert len(made) == number


def test_resident_packs_run_one_by_one_and_streamed_ones_together(checkpoint, monkeypatch):
    packs, forward = [], embedder_module.ESM2WithFlashAttention.forward_packs
    monkeypatch.setattr(
        embedder_module.ESM2WithFlashAttention,
        "forward_packs",
        lambda self, some, *rest, **more: packs.append(len(some)) or forward(self, some, *rest, **more),
    )
    resident, streamed = ways(checkpoint)
    tokens = random_tokens([300] * 7)
    resident.embed(tokens)
    assert packs == [1] * 7
    packs.clear()
    streamed.tokens_per_sweep = 3 * 320
    streamed.embed(tokens)
    assert packs == [3, 3, 1]


def test_out_of_memory_first_halves_the_sweep_and_then_the_budget(checkpoint, tmp_path, monkeypatch, caplog):
    fasta = tmp_path / "a.fasta"
    fasta.write_text("".join(f">{i}\n{'MKVL' * 50}\n" for i in range(60)))
    start, most = Embedder._start, [2 * 2048]

    def small_card(self, model, packs, *rest):
        if sum(pack.tokens for pack in packs) > most[0]:
            raise torch.OutOfMemoryError("simulated")
        return start(self, model, packs, *rest)

    monkeypatch.setattr(Embedder, "_start", small_card)
    options = EmbedOptions(checkpoint, device="cpu", tokens_per_pack=2048, weights="streamed")
    stats = embed_fasta(fasta, tmp_path / "a.arrow", tmp_path / "a.json", options)
    assert stats["settings"]["tokens_per_pack"] == 2048 and stats["weights"] == "host"
    assert "4 packs for each layer; retrying with 2" in caplog.text and "tokens per pack" not in caplog.text
    embed_fasta(fasta, tmp_path / "b.arrow", tmp_path / "b.json", replace(options, weights="resident"))
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
    most[0] = 1100
    stats = embed_fasta(fasta, tmp_path / "c.arrow", tmp_path / "c.json", options)
    assert stats["settings"]["tokens_per_pack"] == 1024 and "retrying with 1024" in caplog.text
    assert caplog.text.count("retrying") == 1 + 3  # 4 packs, 2, 1, half a pack: no sweep is tried twice


def test_a_job_that_survived_by_smaller_sweeps_is_validated_with_single_packs(checkpoint, tmp_path, monkeypatch):
    start, largest = Embedder._start, []

    def seen(self, model, packs, *rest):
        largest.append(len(packs))
        return start(self, model, packs, *rest)

    monkeypatch.setattr(Embedder, "_start", seen)
    options = EmbedOptions(checkpoint, device="cpu", tokens_per_pack=64, weights="streamed")
    sequences = ["MKVL" * 10] * 4
    chosen = pd.DataFrame({"sample": "s", "id": list("abcd"), "length": 40})
    stored = Stored(Embedder(options).embed([tokenize(x) for x in sequences]).columns, [{}] * 4, {}, {})
    assert max(largest) == 4
    largest.clear()
    table = compare(chosen, sequences, stored, Embedder(options, beside_reference=True))
    assert max(largest) == 1 and table["bit_equal"].all()


def test_a_file_that_is_changed_while_weights_are_read_from_it_is_noticed(checkpoint, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    _, streamed = ways(checkpoint)
    streamed.embed(random_tokens([30]))
    os.utime(checkpoint, (1, 1))
    with pytest.raises(CheckpointError, match="it was changed while it was loaded"):
        streamed.embed(random_tokens([30]))


@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory"), MemoryError("there is no more")])
def test_where_the_host_gives_no_memory_the_file_is_read(checkpoint, monkeypatch, caplog, error):
    options = EmbedOptions(checkpoint, device="cpu", weights="streamed")
    empty = torch.empty

    def refused(size, *more, dtype=None, **how):
        if dtype is torch.uint8 and "device" not in how:  # of a page-locked layer
            raise error
        return empty(size, *more, dtype=dtype, **how)

    monkeypatch.setattr(torch, "empty", refused)
    assert Embedder(options).weights == "file" and "streamed from the file, at the rate of its disk" in caplog.text


def test_where_memory_cannot_be_locked_the_file_is_read_and_that_is_said(checkpoint, monkeypatch, caplog):
    monkeypatch.setattr(memory, "available_memory", lambda: None)

    def refuse(size, device):
        raise MemoryError(f"{size} bytes of memory cannot be page-locked (simulated)")

    monkeypatch.setattr("packed_esm.model.layers._host_memory", refuse)
    resident, streamed = ways(checkpoint)
    assert streamed.weights == "file" and "(simulated); streamed from the file, at the rate of its disk" in caplog.text
    tokens = random_tokens(LENGTHS)
    assert_equal(everything(resident, tokens), everything(streamed, tokens))


def test_the_log_says_what_is_streamed_and_from_where(checkpoint, place, caplog):
    caplog.set_level(logging.WARNING)
    ways(checkpoint)
    said = {
        "host": "from the memory of the host",
        "file": "from the file, at the rate of its disk: the host has 0.0 GB",
    }
    assert [record.message for record in caplog.records if record.message.startswith("weights:")] == [
        f"weights: 0.0 GB, streamed {said[place]}" + (" of memory" if place == "file" else "")
    ]
