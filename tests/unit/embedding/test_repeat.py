"""A share of the sequences is embedded twice: what that notices, how often, and that it changes nothing else."""

import json
import logging
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import random_esm2, random_sequence, random_tokens
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions, StorageOptions
from packed_esm.embedding.packing import iterate_packs, moved_packs
from packed_esm.embedding.repeat import Repeat, choose_repeated
from packed_esm.errors import OptionError, RepeatError
from packed_esm.sequences.windows import ResidueWindows

LENGTHS = [40, 250, 1, 9, 120, 88, 2, 44, 300, 9, 61, 250]
FEATURES = ("representations", "logits")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def job(tmp_path):
    """Return a function that embeds twelve proteins with a small model, and has the paths of its results."""
    rng = np.random.default_rng(0)
    fasta = tmp_path / "a.fasta"
    fasta.write_text("".join(f">p{i}\n{random_sequence(length, rng)}\n" for i, length in enumerate(LENGTHS)))
    options = EmbedOptions(
        save_fair_esm(random_esm2(num_layers=2, embed_dim=32, heads=2), tmp_path / "esm2_small.pt"),
        layers=(1, 2),
        poolings=("mean", "max"),
        include=("log_likelihood", "logits"),
        device="cpu",
        tokens_per_pack=256,
    )
    out, stats = tmp_path / "a.arrow", tmp_path / "a.json"
    residues = {feature: tmp_path / f"a.{feature}.h5" for feature in FEATURES}

    def embed(options=options, kept=residues, **more):
        return embed_fasta(fasta, out, stats, options, (), kept, StorageOptions("float32"), **more)

    embed.options, embed.folder, embed.fasta = options, tmp_path, fasta
    embed.results, embed.evidence = [out, stats, *residues.values()], tmp_path / "a.repeat.npz"
    return embed


def wrong_once(monkeypatch, index, change):
    """Let one pass of the model, the first that sequence `index` is in, give a wrong value for it and for no other."""
    start, done = Embedder._start, []

    def start_with_fault(self, model, packs, *rest):
        every = start(self, model, packs, *rest)
        for pack, started in zip(packs, every, strict=True):
            if index in pack.indices and not done:
                done.append(index)
                change(started, pack.indices.index(index))
        return every

    monkeypatch.setattr(Embedder, "_start", start_with_fault)
    return done


def last_bit(started, place):
    """Change the last bit of one number of one pooled vector."""
    bits = started.pooled[0][place].numpy().view(np.uint32)
    bits[3] ^= 1


def one_residue(started, place):
    """Change one value of one residue, which no pooled vector shows any more."""
    started.of_sequence(place)["representations"][1, 2, 5] += 0.25


def one_residue_of_a_window(started, place):
    """The same, of a window, whose outputs stay on the device until they are joined."""
    started.of_sequence(place)["representations"][2].numpy()[3, 5] += 0.25


def not_a_number(started, place):
    started.pooled[1].numpy()[place, 0] = np.nan
    started.bad.numpy()[place] = True


@pytest.mark.parametrize("index", range(len(LENGTHS)))
def test_one_wrong_bit_of_any_sequence_is_noticed_where_all_are_repeated(job, monkeypatch, index):
    done = wrong_once(monkeypatch, index, last_bit)
    with pytest.raises(RepeatError) as error:
        job(repeat=1.0)
    assert done == [index]
    message = str(error.value)
    assert message.startswith(f"p{index}: embedding it again in another pack gave different bits in mean_1; 1 of 12 ")
    assert "Device: " in message and "host: " in message and str(job.evidence) in message
    assert not [path for path in job.results if path.exists()]
    with np.load(job.evidence) as kept:
        assert kept["sequences"].tolist() == [f"p{index}"] and kept["message"] == message
        first, again = kept["mean_1_first"], kept["mean_1_repeat"]
        assert first.shape == again.shape == (1, 32) and (first != again).sum() == 1 and first[0, 3] != again[0, 3]
        assert np.array_equal(kept["max_2_first"], kept["max_2_repeat"])


def test_one_wrong_value_of_a_residue_is_noticed_by_the_checksum_and_both_are_kept(job, monkeypatch):
    wrong_once(monkeypatch, 4, one_residue)
    with pytest.raises(RepeatError, match=r"p4: .* bits in representations; 1 of 12 .* by at most 0.25\. Device"):
        job(repeat=1.0)
    assert not [path for path in job.results if path.exists()]
    with np.load(job.evidence) as kept:
        first, again = kept["representations_of_0_first"], kept["representations_of_0_repeat"]
    assert first.shape == again.shape == (2, 120, 32)
    assert np.argwhere(first != again).tolist() == [[1, 2, 5]]


def flagged(started, place):
    """As of an infinite value in a row that no pooling shows."""
    started.bad.numpy()[place] = True


@pytest.mark.parametrize(
    ("change", "message"),
    [(not_a_number, "max_1; 1 of 12 .* by at most inf"), (flagged, "values that are not finite; 1 of 12")],
)
def test_a_wrong_value_of_the_second_time_is_noticed_too(job, monkeypatch, change, message):
    start, done = Embedder._start, []

    def start_with_fault(self, model, packs, *rest):
        every = start(self, model, packs, *rest)
        for pack, started in zip(packs, every, strict=True):
            if pack.first and not done:
                done.append(pack)
                change(started, 0)
        return every

    monkeypatch.setattr(Embedder, "_start", start_with_fault)
    with pytest.raises(RepeatError, match=f"gave different bits in {message}"):
        job(repeat=1.0)


def test_a_retry_does_not_hide_what_was_seen(job, monkeypatch):
    with monkeypatch.context() as once:
        wrong_once(once, 0, last_bit)
        with pytest.raises(RepeatError):
            job(repeat=1.0)
    with pytest.raises(
        RepeatError, match=r"a.repeat.npz: an earlier attempt .*then remove it and run again on another"
    ):
        job(repeat=1.0)
    job.evidence.unlink()
    assert job(repeat=1.0)["repeated_sequences"] == len(LENGTHS)


@pytest.mark.parametrize(("repeat", "sequences"), [(0.0, 0), (0.02, 1), (0.25, 3), (0.26, 4), (1.0, 12)])
def test_the_share_is_rounded_up_and_changes_no_byte_of_the_results(job, repeat, sequences):
    results = [path for path in job.results if path.suffix != ".json"]
    job(repeat=0.0)
    want = [path.read_bytes() for path in results]
    stats = job(repeat=repeat)
    assert stats["repeated_sequences"] == sequences and [path.read_bytes() for path in results] == want
    assert "repeat" in stats["seconds"] and "repeat" not in json.dumps(stats["settings"])
    assert stats["residues_per_second"] == sum(LENGTHS) / stats["seconds"]["embed"]


def test_the_statistics_have_the_seed_with_which_the_same_are_repeated(job, monkeypatch):
    stats = [job(repeat=0.3, kept=None) for _ in range(2)]
    assert stats[0]["repeat_seed"] != stats[1]["repeat_seed"]
    seen, packs = [], moved_packs

    def watched(tokens, *given, **more):
        seen.append(sorted(map(len, tokens)))
        return packs(tokens, *given, **more)

    monkeypatch.setattr("packed_esm.embedding.repeat.moved_packs", watched)
    for seed in (5, 5, 6):
        assert job(repeat=0.3, kept=None, repeat_seed=seed)["repeat_seed"] == seed
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("repeat", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(job, repeat):
    with pytest.raises(OptionError, match="validation, repeat: .* is not a number from 0 to 1"):
        job(repeat=repeat)


def test_with_padded_attention_it_is_said_once_that_nothing_is_repeated(job, caplog):
    stats = job(replace(job.options, attention="padded"), repeat=1.0)
    assert stats["repeated_sequences"] == 0
    assert caplog.text.count("repeat: skipped, because with attention: padded bits depend on the neighbours") == 1


def test_nothing_to_embed_is_nothing_to_repeat(job):
    job.fasta.write_text("")
    assert job(repeat=1.0)["repeated_sequences"] == 0


def test_a_protein_in_windows_is_repeated_whole(job, monkeypatch):
    options = replace(job.options, windows=ResidueWindows(100, 30))
    assert job(options, repeat=1.0)["repeated_sequences"] == len(LENGTHS)
    pieces = [len(options.windows.starts(length)) for length in LENGTHS]
    second_window_of_the_last = sum(pieces) - pieces[-1] + 1
    wrong_once(monkeypatch, second_window_of_the_last, one_residue_of_a_window)
    with pytest.raises(RepeatError, match=r"p11: .* mean_2, .*representations; 1 of 12"):
        job(options, repeat=1.0)


def test_after_an_out_of_memory_the_repeat_has_the_final_budget(job, monkeypatch):
    start, tokens = Embedder._start, []

    def small_card(self, model, packs, *rest):
        if sum(pack.tokens for pack in packs) > 1100:
            raise torch.OutOfMemoryError("simulated")
        tokens.extend((pack.first > 0, pack.tokens) for pack in packs)
        return start(self, model, packs, *rest)

    monkeypatch.setattr(Embedder, "_start", small_card)
    stats = job(replace(job.options, tokens_per_pack=4096), repeat=1.0)
    assert stats["settings"]["tokens_per_pack"] == 1024 and stats["repeated_sequences"] == len(LENGTHS)
    assert {size for repeated, size in tokens if repeated} == {1024}
    with h5py.File(job.results[2]) as file:
        assert len(file) == len(LENGTHS)


def test_what_was_not_finite_is_left_out_and_recomputed(tmp_path, job, caplog):
    checkpoint = torch.load(job.options.model, weights_only=False)
    (name,) = [name for name in checkpoint["model"] if name.endswith("layers.1.fc1.weight")]
    checkpoint["model"][name] = checkpoint["model"][name].float() * 1e5
    torch.save(checkpoint, tmp_path / "esm2_loud.pt")
    caplog.set_level(logging.WARNING)
    stats = job(replace(job.options, model=tmp_path / "esm2_loud.pt", dtype="fp16"), repeat=1.0)
    assert stats["recomputed_in_fp32"]
    assert stats["repeated_sequences"] == len(LENGTHS) - len(stats["recomputed_in_fp32"])


@pytest.mark.parametrize(
    "lengths",
    [LENGTHS, [62] * 40, [1] * 300, [254, 254, 126, 126, 30], [200], [30, 252], list(range(1, 60))],
    ids=["mixed", "equal", "single-residues", "full", "one", "two", "rising"],
)
def test_every_repeated_sequence_has_other_neighbours_and_another_place(lengths):
    """But for one as long as the budget, which fills a pack alone both times."""
    tokens, budget = random_tokens(lengths), 256
    places = np.empty(len(tokens), int)
    neighbours = {}
    for pack in iterate_packs(tokens, budget):
        places[pack.indices] = pack.real_cu_seqlens[:-1]
        neighbours |= dict.fromkeys(pack.indices, set(pack.indices))
    seen = []
    for pack in moved_packs(tokens, budget, places, np.random.default_rng(0)):
        seen += pack.indices
        assert len(pack.input_ids) == max(budget, pack.real_tokens) == pack.cu_seqlens[-1]
        for index, begin, end in zip(pack.indices, pack.real_cu_seqlens[:-1], pack.real_cu_seqlens[1:], strict=True):
            assert np.array_equal(pack.input_ids[begin:end], tokens[index])
            assert begin != places[index] or len(tokens[index]) >= budget
        if len(neighbours[pack.indices[0]]) > 1:
            assert set(pack.indices) != neighbours[pack.indices[0]] or len(tokens) == len(pack.indices)
    assert sorted(seen) == list(range(len(tokens)))


def test_filler_in_front_never_leads_back_to_the_same_place():
    (tokens,) = random_tokens([6])
    for seed in range(100):
        (pack,) = moved_packs([tokens], 16, np.array([3]), np.random.default_rng(seed))
        assert 0 < pack.real_cu_seqlens[0] != 3


def caught(share, wrong, count, trials):
    """Return the share of trials in which the choice has one of `wrong` sequences at least."""
    rng = np.random.default_rng(1)
    return np.mean([(choose_repeated(count, share, rng) < wrong).any() for _ in range(trials)])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_one_wrong_row_is_caught_with_the_probability_of_the_share(share):
    trials = 20000
    assert abs(caught(share, 1, 1000, trials) - share) < 4 * np.sqrt(share * (1 - share) / trials)


@pytest.mark.parametrize("wrong", [5, 20, 50, 200])
def test_a_fault_in_a_share_of_the_rows_is_caught_as_often_as_the_formula_says(wrong):
    """1 - (1 - 0.02)^(f n); a choice without replacement is a little better, by less than chance of 4,000 trials."""
    trials, want = 4000, 1 - (1 - 0.02) ** wrong
    assert abs(caught(0.02, wrong, 5000, trials) - want) < 4 * np.sqrt(want * (1 - want) / trials)


def test_wrong_rows_are_caught_as_often_as_the_share_says(job):
    """A quarter is repeated, 200 times, of embeddings with one wrong bit in one sequence: about 50 times it is seen."""
    embedder, tokens, names = Embedder(job.options), random_tokens(LENGTHS), [f"p{i}" for i in range(len(LENGTHS))]
    first = embedder.embed(tokens)
    first.columns["mean_1"].view(np.uint32)[5, 3] ^= 1
    seen = 0
    for seed in range(200):
        try:
            Repeat(0.25, job.evidence, seed).compare(embedder, tokens, names, first, None)
        except RepeatError as error:
            assert str(error).startswith("p5: ") and "1 of 3 repeated" in str(error)
            seen += 1
    assert abs(seen - 50) < 4 * np.sqrt(200 * 0.25 * 0.75)
