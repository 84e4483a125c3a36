"""Embedding whole sets: order, columns, fill, non-finite values, settings."""

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import fair_esm_alone, int8_runs_here, random_esm2, random_tokens
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.checkpoints.registry import DEMO_PATH, hub_path
from packed_esm.embedding.device import choose_device, choose_dtype
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.options import EmbedOptions
from packed_esm.errors import NonFiniteError
from packed_esm.sequences.tokens import tokenize
from packed_esm.sequences.windows import ResidueWindows
from packed_esm.store.settings import differences, fingerprint

LENGTHS = [30, 700, 1, 5, 260, 90, 2, 44]


def embedder(**options):
    return Embedder(EmbedOptions(DEMO_PATH, device="cpu", tokens_per_pack=512, **options))


def test_rows_are_in_input_order_and_equal_fair_esm(demo):
    tokens = random_tokens(LENGTHS)
    columns = embedder(layers=(0, -1), poolings=("mean", "bos", "max")).embed(tokens).columns
    assert list(columns) == ["mean_0", "bos_0", "max_0", "mean_6", "bos_6", "max_6"]
    for i, one in enumerate(tokens):
        for layer, rows in fair_esm_alone(copy.deepcopy(demo), one, [0, 6]).items():
            for name, want in (("mean", rows[1:-1].mean(0)), ("bos", rows[0]), ("max", rows[1:-1].amax(0))):
                assert np.allclose(columns[f"{name}_{layer}"][i], want, rtol=1e-5, atol=1e-5)


def test_embedding_does_not_depend_on_what_is_embedded_with_it_to_the_bit():
    tokens = random_tokens(LENGTHS)
    one = embedder()
    together = one.embed(tokens).columns["mean_6"]
    backwards = one.embed(tokens[::-1]).columns["mean_6"][::-1]
    alone = np.concatenate([one.embed([t]).columns["mean_6"] for t in tokens])
    assert np.array_equal(together, backwards) and np.array_equal(together, alone)


@pytest.mark.parametrize("threads", [3, 5, 7])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", pytest.param("int8", marks=int8_runs_here)])
def test_bits_do_not_depend_on_neighbours_where_threads_share_the_work(threads, dtype):
    """Numbers of threads that cut a pack of 2,048 tokens inside a head: 2,048 * 192 pairs are no multiple of theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one = Embedder(EmbedOptions(DEMO_PATH, device="cpu", dtype=dtype, tokens_per_pack=2048))
        tokens = random_tokens(np.random.default_rng(0).integers(3, 400, 24))
        together = one.embed(tokens).columns["mean_6"]
        order = np.random.default_rng(1).permutation(24)
        shuffled = one.embed([tokens[i] for i in order]).columns["mean_6"]
        alone = np.concatenate([one.embed([tokens[i]]).columns["mean_6"] for i in (0, 11, 23)])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(shuffled, together[order])
    assert np.array_equal(alone, together[[0, 11, 23]])


def test_every_sequence_is_handed_out_once_with_its_own_rows():
    tokens = random_tokens(LENGTHS)
    seen = {}
    columns = embedder(layers=(3, 6)).embed(tokens, each_sequence=lambda i, rows: seen.setdefault(i, rows)).columns
    assert sorted(seen) == list(range(len(tokens)))
    for i, rows in seen.items():
        assert rows["representations"][3].shape == (len(tokens[i]), 192)
        assert np.array_equal(rows["representations"][6][1:-1].mean(0).numpy(), columns["mean_6"][i])


def test_included_outputs_are_those_of_fair_esm_for_each_sequence(demo):
    tokens = random_tokens([30, 700, 1, 5])
    seen = {}
    include = ("log_likelihood", "logits")
    columns = embedder(include=include).embed(tokens, each_sequence=lambda i, out: seen.setdefault(i, out)).columns
    assert list(columns) == ["mean_6", "log_likelihood"]
    for i, one in enumerate(tokens):
        batch = torch.from_numpy(one.astype(np.int64))[None]
        with torch.inference_mode():
            want = demo(batch)["logits"][0]
        assert torch.allclose(seen[i]["logits"], want, rtol=1e-5, atol=1e-5)
        likelihood = torch.log_softmax(want, -1)[1:-1].gather(1, batch[0, 1:-1, None]).mean()
        assert np.allclose(columns["log_likelihood"][i], likelihood, rtol=1e-5, atol=1e-5)


def test_contacts_without_a_contact_head_name_the_file_that_is_missing():
    with pytest.raises(ValueError, match=r"put the published esm2_t6_3M_demo-contact-regression.pt beside it"):
        embedder(include=("contacts",))


def test_progress_counts_every_residue_and_fill_every_token():
    done = []
    result = embedder().embed(random_tokens(LENGTHS), progress=done.append)
    assert sum(done) == sum(LENGTHS)
    assert result.real_tokens == sum(LENGTHS) + 2 * len(LENGTHS)
    assert result.pack_tokens == 702 + 512 * (result.packs - 1)


def test_nothing_to_embed_gives_columns_without_rows():
    columns = embedder().embed([]).columns
    assert columns["mean_6"].shape == (0, 192)


@pytest.fixture
def loud(tmp_path):
    """A checkpoint whose feed-forward overflows fp16 but not fp32."""
    checkpoint = torch.load(DEMO_PATH, weights_only=False)
    (name,) = [name for name in checkpoint["model"] if name.endswith("layers.3.fc1.weight")]
    checkpoint["model"][name] = checkpoint["model"][name].float() * 1e4
    torch.save(checkpoint, tmp_path / "esm2_loud.pt")
    return tmp_path / "esm2_loud.pt"


def test_values_that_are_not_finite_are_recomputed_in_fp32(loud, caplog):
    tokens = random_tokens([50, 80])
    seen = {}
    half = Embedder(EmbedOptions(loud, device="cpu", dtype="fp16", tokens_per_pack=256))
    result = half.embed(tokens, each_sequence=lambda i, rows: seen.setdefault(i, rows))
    assert not seen
    half.recompute(result, tokens, ["first", "second"], each_sequence=lambda i, rows: seen.setdefault(i, rows))
    exact = Embedder(EmbedOptions(loud, device="cpu", dtype="fp32", tokens_per_pack=256)).embed(tokens)
    assert result.recomputed == [0, 1] and sorted(seen) == [0, 1]
    assert np.allclose(result.columns["mean_6"], exact.columns["mean_6"], rtol=1e-4, atol=1e-4)
    assert "first: values that are not finite in fp16; recomputed in fp32" in caplog.text


def test_of_a_pack_only_the_sequence_that_is_not_finite_is_recomputed(tmp_path):
    (tryptophan,) = tokenize("W")[1:-1]
    checkpoint = torch.load(DEMO_PATH, weights_only=False)
    for name in [name for name in checkpoint["model"] if name.endswith(("embed_tokens.weight", "lm_head.weight"))]:
        checkpoint["model"][name][tryptophan] = torch.nan  # the two are one matrix
    torch.save(checkpoint, tmp_path / "esm2_nan.pt")
    tokens, seen = random_tokens([30, 90, 50, 10], letters="ACDE"), {}
    tokens[2][25] = tryptophan  # the second longest: not where it stands in the pack
    one_nan = Embedder(EmbedOptions(tmp_path / "esm2_nan.pt", device="cpu", tokens_per_pack=256))
    result = one_nan.embed(tokens, each_sequence=lambda i, rows: seen.setdefault(i, rows))
    assert result.packs == 1 and result.recomputed == [2] and sorted(seen) == [0, 1, 3]
    with pytest.raises(NonFiniteError, match="c: values that are not finite"):
        one_nan.recompute(result, tokens, list("abcd"))


def test_values_that_are_not_finite_fail_by_choice_and_name_the_sequence(loud):
    options = EmbedOptions(loud, device="cpu", dtype="fp16", on_nonfinite="fail")
    embedder, tokens = Embedder(options), random_tokens([50])
    result = embedder.embed(tokens)
    with pytest.raises(NonFiniteError, match="second: values that are not finite in fp16"):
        embedder.recompute(result, tokens, ["second"])


def test_no_memory_to_recompute_names_the_sequence(loud, monkeypatch):
    """Simulated: there was room for the packs in half precision, but there is none for one sequence in fp32."""
    embedder, tokens = Embedder(EmbedOptions(loud, device="cpu", dtype="fp16")), random_tokens([50])
    result = embedder.embed(tokens)

    def no_room(self, *args, **options):
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(Embedder, "_start", no_room)
    with pytest.raises(
        MemoryError,
        match="second: .* the GPU memory is too small to recompute its 50 residues in fp32; use dtype: bf16",
    ):
        embedder.recompute(result, tokens, ["second"])


def test_a_broken_checkpoint_fails_even_in_fp32(tmp_path):
    checkpoint = torch.load(DEMO_PATH, weights_only=False)
    (name,) = [name for name in checkpoint["model"] if name.endswith("layers.3.fc1.bias")]
    checkpoint["model"][name][0] = float("nan")
    torch.save(checkpoint, tmp_path / "esm2_nan.pt")
    for dtype in ("fp16", "fp32"):
        embedder, tokens = (
            Embedder(EmbedOptions(tmp_path / "esm2_nan.pt", device="cpu", dtype=dtype)),
            random_tokens([9]),
        )
        result = embedder.embed(tokens)
        with pytest.raises(NonFiniteError, match="only: values that are not finite"):
            embedder.recompute(result, tokens, ["only"])


def test_settings_hold_all_that_determines_the_bits():
    settings = embedder().settings
    assert settings["layers"] == [6] and settings["dtype"] == "fp32" and settings["attention"] == "sdpa"
    changes = {
        "dtype": "fp16",
        "layers": (3,),
        "poolings": ("max",),
        "attention": "padded",
        "windows": ResidueWindows(9, 1),
    }
    for name, value in changes.items():
        assert fingerprint(embedder(**{name: value}).settings) != fingerprint(settings), name
    other = Embedder(EmbedOptions(DEMO_PATH, device="cpu", tokens_per_pack=600)).settings
    assert differences(settings, other) == ["tokens_per_pack: 512 / 600"]


def test_settings_tell_contact_heads_beside_one_checkpoint_apart(tmp_path):
    path, settings = save_fair_esm(random_esm2(), tmp_path / "esm2_small.pt"), []
    for bias in (0.0, 1.0):
        regression = {"weight": torch.ones(1, 6), "bias": torch.tensor([bias])}
        head = {f"contact_head.regression.{name}": tensor for name, tensor in regression.items()}
        torch.save({"model": head}, path.with_name("esm2_small-contact-regression.pt"))
        settings.append(Embedder(EmbedOptions(path, device="cpu", include=("contacts",))).settings)
    (difference,) = differences(*settings)
    assert difference.startswith("contact_head_sha256: ")


def test_another_budget_is_part_of_the_settings_and_of_the_packs():
    one = embedder()
    one.tokens_per_pack = 800
    assert one.settings["tokens_per_pack"] == 800
    result = one.embed(random_tokens([20]))
    assert result.pack_tokens == 800


def test_out_of_memory_starts_the_chunk_again_with_half_the_budget(tmp_path, monkeypatch, caplog):
    """Simulated here; on a GPU it is real (tests/gpu)."""
    fasta = tmp_path / "a.fasta"
    fasta.write_text("".join(f">{i}\n{'MKVL' * 50}\n" for i in range(30)))
    forward = Embedder._start

    def small_card(self, model, packs, *rest):
        if sum(pack.tokens for pack in packs) > 1100:
            raise torch.OutOfMemoryError("simulated")
        return forward(self, model, packs, *rest)

    monkeypatch.setattr(Embedder, "_start", small_card)
    options = EmbedOptions(DEMO_PATH, device="cpu", tokens_per_pack=4096)
    stats = embed_fasta(fasta, tmp_path / "a.arrow", tmp_path / "a.json", options)
    assert stats["settings"]["tokens_per_pack"] == 1024 and "retrying with 1024" in caplog.text
    embed_fasta(fasta, tmp_path / "b.arrow", tmp_path / "b.json", replace(options, tokens_per_pack=1024))
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
    fasta.write_text(f">long\n{'MKVL' * 500}\n")
    with pytest.raises(MemoryError, match=r"the longest sequence is long \(2000 residues\)"):
        embed_fasta(fasta, tmp_path / "c.arrow", tmp_path / "c.json", options)


def test_a_file_in_torch_hubs_cache_that_is_another_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D"):
        path = hub_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEMO_PATH, path)
        with pytest.raises(ValueError, match=f"not the published {name} .*remove it to download it again"):
            Embedder(EmbedOptions(path, device="cpu"))


def test_unknown_words_are_refused():
    for call, word in (
        (lambda: choose_device("gpu"), "device: 'gpu' is not one of"),
        (lambda: choose_dtype("fp64", torch.device("cpu")), "dtype: 'fp64' is not one of"),
        (lambda: embedder(poolings=("median",)), "pooling: 'median' is not one of"),
        (lambda: embedder(layers=(7,)), "repr_layers: 7 is out of range"),
    ):
        with pytest.raises(ValueError, match=word):
            call()


def test_the_demo_is_a_whole_checkpoint():
    assert load_esm2(DEMO_PATH).num_layers == 6
