"""Proteins in windows that overlap: every residue in one at least, the mean where in more, and no other bit changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import fair_esm_alone, random_tokens
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.embedding.packing import iterate_packs
from packed_esm.sequences.windows import ResidueWindows

WINDOWS = ResidueWindows(100, 30)
OPTIONS = EmbedOptions(
    DEMO_PATH,
    layers=(3, 6),
    poolings=("mean", "bos", "eos", "max", "std"),
    include=("log_likelihood", "logits"),
    device="cpu",
    tokens_per_pack=512,
    windows=WINDOWS,
)
LENGTHS = [100, 101, 30, 170, 171, 550, 1]


@pytest.mark.parametrize(("size", "overlap"), [(100, 30), (100, 0), (100, 99), (1, 0), (1022, 256)])
@pytest.mark.parametrize("residues", [1, 2, 99, 100, 101, 170, 171, 1023, 3000])
def test_windows_cover_every_residue_in_order_and_overlap_enough(size, overlap, residues):
    starts = ResidueWindows(size, overlap).starts(residues)
    if residues <= size:
        assert starts == [0]
        return
    assert starts[0] == 0 and starts[-1] + size == residues
    steps = np.diff(starts)
    assert (steps > 0).all() and (steps <= size - overlap).all()
    assert len(starts) == 1 + -(-(residues - size) // (size - overlap))  # no more than needed


@pytest.mark.parametrize("overlap", [100, 101, -1])
def test_an_overlap_that_cannot_be_is_refused(overlap):
    with pytest.raises(ValueError, match=f"long_proteins.overlap: {overlap} must be .* less than max_length, 100"):
        ResidueWindows(100, overlap)


def test_a_long_protein_is_the_mean_of_fair_esms_windows(demo):
    tokens = random_tokens(LENGTHS)
    seen = {}
    columns = Embedder(OPTIONS).embed(tokens, lambda i, out: seen.setdefault(i, out)).columns
    assert sorted(seen) == list(range(len(tokens)))
    for i, one in enumerate(tokens):
        residues = len(one) - 2
        total, times = np.zeros((residues, 192)), np.zeros((residues, 1))
        starts = WINDOWS.starts(residues)
        for start in starts:
            window = np.concatenate([one[:1], one[1 + start : 1 + min(start + 100, residues)], one[-1:]])
            rows = fair_esm_alone(demo, window, [6])[6].numpy()
            total[start : start + 100] += rows[1:-1]
            times[start : start + 100] += 1
            first = rows[0] if start == 0 else first  # noqa: F821
        want = total / times
        assert np.allclose(seen[i]["representations"][6][1:-1], want, rtol=1e-4, atol=1e-5)
        for pooling, vector in (
            ("mean", want.mean(0)),
            ("max", want.max(0)),
            ("std", want.std(0)),
            ("bos", first),
            ("eos", rows[-1]),
        ):
            assert np.allclose(columns[f"{pooling}_6"][i], vector, rtol=1e-4, atol=1e-5), (pooling, residues)
        assert seen[i]["logits"].shape == (residues + 2, 33) and np.isfinite(columns["log_likelihood"][i])


def test_windows_that_the_settings_record_are_those_that_were_used():
    embedder, tokens = Embedder(OPTIONS), random_tokens([250])
    starts = ResidueWindows(**embedder.settings["windows"]).starts(250)
    assert embedder.embed(tokens).real_tokens == len(starts) * 102 and len(starts) == 4


def test_short_proteins_keep_every_bit_beside_long_ones():
    tokens = random_tokens(LENGTHS)
    windowed = Embedder(OPTIONS).embed(tokens).columns
    plain = Embedder(replace(OPTIONS, windows=None)).embed(tokens).columns
    alone = Embedder(OPTIONS).embed([tokens[5]]).columns
    for name, rows in windowed.items():
        for i, length in enumerate(LENGTHS):
            assert np.array_equal(rows[i], plain[name][i]) == (length <= 100)
        assert np.array_equal(rows[5], alone[name][0])


def test_windows_are_joined_in_their_order_however_they_come():
    tokens, options = random_tokens([171, 550]), replace(OPTIONS, tokens_per_pack=102)
    want = Embedder(options).embed(tokens).columns
    got = Embedder(options).embed(tokens, packs=lambda *given: reversed(list(iterate_packs(*given)))).columns
    assert all(np.array_equal(got[name], rows) for name, rows in want.items())


def test_progress_counts_the_residues_that_are_run():
    tokens = random_tokens(LENGTHS)
    embedder, done = Embedder(OPTIONS), []
    embedder.embed(tokens, progress=done.append)
    assert sum(done) == embedder.residues(tokens) == 100 + 2 * 100 + 30 + 2 * 100 + 3 * 100 + 8 * 100 + 1


def test_windows_that_overflow_are_recomputed_in_fp32(tmp_path, caplog):
    checkpoint = torch.load(DEMO_PATH, weights_only=False)
    (name,) = [name for name in checkpoint["model"] if name.endswith("layers.3.fc1.weight")]
    checkpoint["model"][name] = checkpoint["model"][name].float() * 1e4
    torch.save(checkpoint, tmp_path / "esm2_loud.pt")
    tokens = random_tokens([150, 40])
    options = replace(OPTIONS, model=tmp_path / "esm2_loud.pt", dtype="fp16")
    half, seen = Embedder(options), {}
    result = half.embed(tokens, lambda i, out: seen.setdefault(i, out))
    assert not seen and result.recomputed == [0, 1]
    half.recompute(result, tokens, ["long", "short"], lambda i, out: seen.setdefault(i, out))
    exact = Embedder(replace(options, dtype="fp32")).embed(tokens)
    assert sorted(seen) == [0, 1] and len(seen[0]["representations"][6]) == 152
    for column, rows in exact.columns.items():
        assert np.allclose(result.columns[column], rows, rtol=1e-4, atol=1e-4), column
    assert "long, window 1 of 2: values that are not finite" in caplog.text


def test_contacts_of_windows_are_refused():
    with pytest.raises(ValueError, match="contacts cannot be combined with windows; set long_proteins.action"):
        Embedder(replace(OPTIONS, include=("contacts",)))
