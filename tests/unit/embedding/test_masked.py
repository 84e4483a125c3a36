"""Masked copies: each is fair-esm's own forward of one masked sequence, in any pack, and no bit depends on the pack."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoint_files import save_esm1b, save_fair_esm
from conftest import random_esm1b, random_esm2, random_tokens
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.masked import MaskedCopies, add_masked, share_out
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import NonFiniteError
from packed_esm.model.esm2 import LOGITS_ROWS
from packed_esm.outputs.marginals import AMINO_ACIDS
from packed_esm.outputs.measures import relative_error
from packed_esm.sequences.tokens import tokenize
from packed_esm.sequences.windows import ResidueWindows

INCLUDE = ("wildtype_marginals", "masked_marginals", "pseudo_log_likelihood", "pseudo_log_likelihood_mean")
SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "G", "MK", "ACDXEF<mask>GB-UZO.L", "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMF" * 3]
TOKENS = [tokenize(sequence) for sequence in SEQUENCES]
NAMES = [f"p{i}" for i in range(len(TOKENS))]


@pytest.fixture(scope="module")
def model():
    return random_esm2(num_layers=2, embed_dim=32, heads=2)


@pytest.fixture
def options(tmp_path, model):
    path = save_fair_esm(model, tmp_path / "esm2_small.pt")
    return EmbedOptions(path, include=INCLUDE, device="cpu", tokens_per_pack=200)


def fair_esm_logits(model, tokens, position=None):
    """Return fair-esm's logits of one sequence, fp32 [T, tokens]; `position`: of the residue that is masked, from 0."""
    batch = torch.from_numpy(tokens.astype(np.int64))[None]
    if position is not None:
        batch[0, position + 1] = model.mask_idx
    with torch.inference_mode():
        return model(batch)["logits"][0]


def masked_one_at_a_time(model, tokens):
    rows = [fair_esm_logits(model, tokens, i)[i + 1] for i in range(len(tokens) - 2)]
    return torch.stack(rows).numpy()


def of_embedder(embedder, tokens=TOKENS, **how):
    return dict(MaskedCopies(embedder, tokens, [f"p{i}" for i in range(len(tokens))], **how).logits())


def marginals_of_fair_esm(logits, tokens):
    """Return log p(a) - log p(wild type), [L, 20], of logits of L residues, as fair-esm's predict.py defines it."""
    from esm import Alphabet

    alphabet = Alphabet.from_architecture("ESM-1b")
    log_p = torch.as_tensor(logits).log_softmax(-1)
    rows = [[log_p[i, alphabet.get_idx(a)] - log_p[i, int(t)] for a in AMINO_ACIDS] for i, t in enumerate(tokens[1:-1])]
    return np.array(rows)


@pytest.mark.parametrize("backend", ["sdpa", "padded"])
def test_each_masked_position_is_fair_esms_own_forward_of_one_masked_sequence(options, model, backend):
    found = of_embedder(Embedder(replace(options, attention=backend)))
    assert sorted(found) == list(range(len(TOKENS)))
    for index, tokens in enumerate(TOKENS):
        assert relative_error(found[index], masked_one_at_a_time(model, tokens)) < 3e-6


def test_esm1b_is_masked_like_fair_esms(tmp_path):
    path = save_esm1b(random_esm1b(num_layers=2, embed_dim=32, heads=2), tmp_path / "esm1b_small.pt")
    model = load_esm2(path)  # fair-esm's own ProteinBertModel
    found = of_embedder(Embedder(EmbedOptions(path, include=INCLUDE, device="cpu", tokens_per_pack=200)))
    for index, tokens in enumerate(TOKENS):
        assert relative_error(found[index], masked_one_at_a_time(model, tokens)) < 3e-6


def test_marginals_and_pseudo_likelihoods_are_those_of_the_papers(options, model):
    kept: dict[int, dict] = {}

    def keep(index, out):
        kept.setdefault(index, {}).update(out)

    embedder = Embedder(options)
    result = embedder.embed(TOKENS, keep)
    add_masked(MaskedCopies(embedder, TOKENS, NAMES), result, keep)
    assert list(result.columns) == [column.name for column in embedder.columns]
    for index, tokens in enumerate(TOKENS):
        masked, whole = masked_one_at_a_time(model, tokens), fair_esm_logits(model, tokens)[1:-1]
        wanted = marginals_of_fair_esm(masked, tokens)
        assert kept[index]["masked_marginals"].dtype == np.float32
        assert np.allclose(kept[index]["masked_marginals"], wanted, rtol=1e-4, atol=5e-5)
        found = kept[index]["wildtype_marginals"][1:-1].numpy()
        assert np.allclose(found, marginals_of_fair_esm(whole, tokens), rtol=1e-4, atol=5e-5)
        own = torch.from_numpy(masked).log_softmax(-1)[range(len(tokens) - 2), tokens[1:-1].astype(int)]
        assert result.columns["pseudo_log_likelihood"][index, 0] == pytest.approx(float(own.sum()), rel=1e-5)
        assert result.columns["pseudo_log_likelihood_mean"][index, 0] == pytest.approx(float(own.mean()), rel=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_do_not_depend_on_neighbours_order_or_place(options, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        embedder = Embedder(replace(options, tokens_per_pack=512))
        tokens = random_tokens([30, 3, 61, 200, 1, 44], masked=(2,))
        together = of_embedder(embedder, tokens)
        backwards = of_embedder(embedder, tokens[::-1])
        moved = of_embedder(embedder, tokens, rng=np.random.default_rng(0))
        for index, one in enumerate(tokens):
            alone = of_embedder(embedder, [one])[0]
            for other in (alone, backwards[len(tokens) - 1 - index], moved[index]):
                assert together[index].tobytes() == other.tobytes()
            some = np.arange(0, len(one) - 2, 3)
            chosen = of_embedder(embedder, [one], positions=[some])[0]
            assert chosen.tobytes() == together[index][some].tobytes()
    finally:
        torch.set_num_threads(before)


def test_a_protein_longer_than_the_budget_is_scored_whole(options, model):
    (tokens,) = random_tokens([90])
    found = of_embedder(Embedder(replace(options, tokens_per_pack=64)), [tokens])[0]
    assert relative_error(found, masked_one_at_a_time(model, tokens)) < 3e-6


@pytest.mark.parametrize("budget", [10, 64, 1000, 4096])
def test_every_copy_is_in_one_pack_and_no_pack_is_over_full(budget):
    rng = np.random.default_rng(0)
    lengths, counts = rng.integers(3, 90, 40).tolist(), rng.integers(1, 70, 40).tolist()
    seen = [np.zeros(count, int) for count in counts]
    fills = []
    for shares in share_out(lengths, counts, budget):
        used = sum((x.stop - x.start) * lengths[x.source] for x in shares)
        assert used <= budget or len(shares) == 1 == shares[0].stop - shares[0].start
        fills.append(used)
        for source, start, stop in shares:
            seen[source][start:stop] += 1
    assert all((one == 1).all() for one in seen)
    if budget >= 1000:  # copies of several proteins share packs
        assert len(fills) <= 1.02 * sum(x * n for x, n in zip(lengths, counts, strict=True)) / budget + 1


def test_copies_are_made_as_packs_need_them(options, monkeypatch):
    """A protein of 400 residues has 160,800 tokens in all its copies; a pack of the budget is all that is held."""
    from packed_esm.embedding import masked

    sizes, made = [], masked._copies
    monkeypatch.setattr(masked, "_copies", lambda *a: sizes.append(made(*a).size) or made(*a))
    (tokens,) = random_tokens([400])
    run = MaskedCopies(Embedder(replace(options, tokens_per_pack=2000)), [tokens], ["p"])
    assert run.count == 400 and len(dict(run.logits())[0]) == 400
    assert len(sizes) == 100 and max(sizes) <= 2000


def test_only_rows_of_masked_positions_go_through_the_lm_head(options):
    embedder, rows = Embedder(replace(options, tokens_per_pack=2000)), []
    embedder.model.lm_head.register_forward_hook(lambda module, inputs, out: rows.append(len(inputs[0])))
    (tokens,) = random_tokens([150])
    of_embedder(embedder, [tokens])
    assert rows == [LOGITS_ROWS] * 12  # 13 copies in a pack


WINDOWS = ResidueWindows(10, 4)


@pytest.mark.parametrize("residues", [1, 9, 10, 11, 14, 16, 23, 40])
def test_a_position_is_scored_by_the_window_with_the_nearest_centre_and_of_two_by_the_earlier(residues):
    starts, size = WINDOWS.starts(residues), min(10, residues)
    for position, number in enumerate(WINDOWS.scoring(residues)):
        distances = [abs(start + (size - 1) / 2 - position) for start in starts]
        assert number == distances.index(min(distances))
        assert starts[number] <= position < starts[number] + size


def test_in_windows_a_position_is_fair_esms_of_its_window_alone(options, model):
    embedder = Embedder(replace(options, windows=WINDOWS))
    tokens = random_tokens([10, 11, 14, 37])
    kept: dict[int, dict] = {}
    embedder.embed(tokens, lambda i, out: kept.setdefault(i, out))
    found = of_embedder(embedder, tokens)
    for index, one in enumerate(tokens):
        residues = len(one) - 2
        for position, number in enumerate(WINDOWS.scoring(residues)):
            start = WINDOWS.starts(residues)[number]
            window = np.concatenate([one[:1], one[1 + start : 11 + start], one[-1:]]) if residues > 10 else one
            want = fair_esm_logits(model, window, position - start)[position - start + 1]
            assert np.allclose(found[index][position], want, rtol=1e-4, atol=2e-5)
            unmasked = fair_esm_logits(model, window)[1:-1]
            row = marginals_of_fair_esm(unmasked, window)[position - start]
            assert np.allclose(kept[index]["wildtype_marginals"][1 + position], row, rtol=1e-4, atol=5e-5)
    some = [np.arange(1, len(one) - 2, 4) for one in tokens]
    for index, rows in of_embedder(embedder, tokens, positions=some).items():
        assert rows.tobytes() == found[index][some[index]].tobytes()


def test_values_that_are_not_finite_are_recomputed_in_fp32_or_refused(options, model, caplog):
    embedder = Embedder(replace(options, dtype="bf16"))
    finite = of_embedder(embedder)
    hook = embedder.model.lm_head.register_forward_hook(
        lambda module, inputs, out: out.index_fill(0, torch.tensor([2]), torch.nan)
    )
    found = of_embedder(embedder)
    assert "masked copies that are not finite in bf16; recomputed in fp32" in caplog.text
    hit = [index for index in finite if not np.array_equal(found[index], finite[index])]
    assert hit
    for index in hit:
        assert relative_error(found[index], masked_one_at_a_time(model, TOKENS[index])) < 3e-6
    embedder.options = replace(embedder.options, on_nonfinite="fail")
    with pytest.raises(NonFiniteError, match=r"^p\d: values of masked copies that are not finite in bf16; use dtype"):
        of_embedder(embedder)
    hook.remove()


def test_with_a_seed_copies_have_other_places_and_packs_are_not_longer(options, monkeypatch):
    from packed_esm.embedding import masked

    packs, build = [], masked.build_pack
    monkeypatch.setattr(masked, "build_pack", lambda *a: packs.append(build(*a)) or packs[-1])
    embedder = Embedder(options)
    of_embedder(embedder)
    assert all(pack.first == 0 for pack in packs)
    packs.clear()
    of_embedder(embedder, rng=np.random.default_rng(0))
    assert all(pack.first > 0 and len(pack.input_ids) == options.tokens_per_pack for pack in packs)
