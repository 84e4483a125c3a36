"""Every attention backend on a real GPU against fair-esm fp32. Run: pytest -m gpu tests/gpu"""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from checkpoint_files import save_fair_esm
from conftest import (
    RESIDUES,
    ROOT,
    pack,
    random_esm1b,
    random_esm2,
    random_tokens,
    relative_l2,
    worst_residue_cosine,
)
from packed_esm.checkpoints.loading import load_esm2
from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.job import embed_fasta
from packed_esm.embedding.masked import MaskedCopies
from packed_esm.embedding.memory import default_tokens_per_pack
from packed_esm.embedding.options import EmbedOptions, StorageOptions
from packed_esm.embedding.packing import iterate_packs
from packed_esm.kernels import dispatch
from packed_esm.kernels.int8 import INT8, activation_dtype, why_no_int8
from packed_esm.model import backends
from packed_esm.model.backends import BACKENDS, why_not
from packed_esm.model.esm2 import ESM2WithFlashAttention
from packed_esm.outputs.bounds import tolerance
from packed_esm.outputs.measures import contacts_errors, logits_errors
from packed_esm.sequences.alphabet import normalise
from packed_esm.sequences.chunking import chunk_samples
from packed_esm.sequences.fasta import read_records
from packed_esm.sequences.tokens import tokenize
from packed_esm.store.merge import merge_samples
from packed_esm.store.merge_residues import merge_residues
from packed_esm.validation.reference import masked_logits, reference_outputs
from packed_esm.validation.run import validate
from packed_esm.validation.tolerance import ValidationOptions

pytestmark = pytest.mark.gpu

LENGTHS = [2554, 1, 2, 127, 128, 129, 1023, 1024, 1025, 300]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": INT8}
CASES = [(b, d) for b in BACKENDS for d in ("fp32", "fp16", "bf16") if d != "fp32" or b in ("sdpa", "padded")]


@pytest.fixture(scope="module", autouse=True)
def _needs_cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")


def usable(backend, dtype):
    cuda = torch.device("cuda")
    reason = why_not(backend, cuda, activation_dtype(DTYPES[dtype])) or (dtype == "int8" and why_no_int8(cuda))
    if reason:
        pytest.skip(f"{backend} in {dtype}: {reason}")


def on_gpu(tokens):
    input_ids, cu_seqlens, max_seqlen = pack(tokens)
    return input_ids.cuda(), cu_seqlens, max_seqlen


@pytest.mark.parametrize(("backend", "dtype"), CASES)
@pytest.mark.parametrize("head_dim", [16, 24, 32, 64, 128])
def test_backend_equals_fair_esm_within_the_tolerance_of_its_dtype(backend, dtype, head_dim):
    usable(backend, dtype)
    base = random_esm2(num_layers=4, embed_dim=4 * head_dim, heads=4)
    reference = copy.deepcopy(base).cuda()
    model = ESM2WithFlashAttention(copy.deepcopy(base), "cuda", DTYPES[dtype], backend)
    plain = ESM2WithFlashAttention(copy.deepcopy(base), "cuda", DTYPES[dtype], "sdpa")
    tokens = random_tokens(LENGTHS, letters=RESIDUES, masked=(0, 4))
    layers = [0, 2, 4]
    got = model.forward_packed(*on_gpu(tokens), layers)["representations"]
    also = plain.forward_packed(*on_gpu(tokens), layers)["representations"]
    cu_seqlens = pack(tokens)[1]
    bounds = tolerance(dtype)
    for i, one in enumerate(tokens):
        want = reference_outputs(reference, one, layers)["representations"]
        for layer in layers:
            rows = slice(int(cu_seqlens[i]), int(cu_seqlens[i + 1]))
            kernel, simple, truth = got[layer][rows], also[layer][rows], want[layer]
            if layer == 0:
                assert relative_l2(kernel, truth) <= 1e-6
                continue
            error = relative_l2(kernel, truth)
            assert error <= bounds["relative_l2"]
            assert worst_residue_cosine(kernel, truth) >= bounds["residue_cosine"]
            # No worse than twice what the number format costs plain PyTorch (the rule of flash-attention's tests).
            assert error <= 2 * relative_l2(simple, truth) + 1e-7


@pytest.mark.parametrize(("backend", "dtype"), [*(case for case in CASES if case[0] != "padded"), ("triton", "int8")])
def test_embedding_does_not_depend_on_neighbours_place_or_chunk_to_the_bit(backend, dtype, kernels):
    usable(backend, dtype)
    embedder = Embedder(
        EmbedOptions(
            DEMO_PATH,
            layers=(0, 3, 6),
            poolings=("mean", "bos", "max"),
            device="cuda",
            dtype=dtype,
            attention=backend,
            tokens_per_pack=4096,
        )
    )
    assert dtype == "fp32" or embedder.model.kernels.startswith(kernels)
    tokens = random_tokens(np.random.default_rng(3).integers(1, 900, 60))
    together = embedder.embed(tokens).columns
    order = np.random.default_rng(4).permutation(60)
    shuffled = embedder.embed([tokens[i] for i in order]).columns
    for name, matrix in together.items():
        assert np.array_equal(shuffled[name], matrix[order]), name
    for i in range(0, 60, 9):
        alone = embedder.embed([tokens[i]]).columns
        for name, matrix in together.items():
            assert np.array_equal(alone[name][0], matrix[i]), (name, i)


@pytest.mark.parametrize(("backend", "dtype"), [case for case in CASES if case[0] != "padded"])
def test_a_forward_with_cu_seqlens_on_the_host_does_not_synchronise(demo, backend, dtype):
    usable(backend, dtype)
    model = ESM2WithFlashAttention(demo, "cuda", DTYPES[dtype], backend)
    one_pack = next(iterate_packs(random_tokens([100, 30, 500], masked=(1,)), 1024))
    input_ids, cu_seqlens = (
        torch.from_numpy(one_pack.input_ids).cuda().int(),
        torch.from_numpy(one_pack.cu_seqlens),
    )
    expected = model.forward_packed(input_ids, cu_seqlens, one_pack.max_seqlen, [0, 6])["representations"]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = model.forward_packed(input_ids, cu_seqlens, one_pack.max_seqlen, [0, 6])["representations"]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(got[6], expected[6])
    on_device = model.forward_packed(input_ids, cu_seqlens.cuda(), one_pack.max_seqlen, [6])["representations"]
    assert torch.equal(on_device[6], expected[6])


def test_a_pack_is_embedded_without_synchronisation():
    """From the copy of its tokens to that of its pooled vectors: the host prepares the next pack meanwhile."""
    embedder = Embedder(
        EmbedOptions(DEMO_PATH, layers=(0, 6), poolings=("mean", "max"), device="cuda", tokens_per_pack=1024)
    )
    one_pack = next(iterate_packs(random_tokens([100, 30, 500]), 1024))
    embedder._start(embedder.model, [one_pack])[0].wait()
    torch.cuda.set_sync_debug_mode("error")
    try:
        (started,) = embedder._start(embedder.model, [one_pack])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    started.wait()
    assert all(torch.isfinite(vectors).all() for vectors in started.pooled) and not started.bad.any()


def test_int8_stays_within_its_tolerance_with_trained_weights(demo):
    """Every residue of the example: cosine 0.995 at least, relative L2 within the tolerance."""
    usable("triton", "int8")
    reference = copy.deepcopy(demo).cuda()
    model = ESM2WithFlashAttention(demo, "cuda", INT8)
    tokens = [tokenize(normalise(r.sequence)) for r in read_records(ROOT / "config/example/domains.fasta")]
    errors, cosines = [], []
    for one in iterate_packs(tokens, 16384):
        arguments = (torch.from_numpy(one.cu_seqlens), one.max_seqlen, [3, 6])
        got = model.forward_packed(torch.from_numpy(one.input_ids).cuda().int(), *arguments)["representations"]
        for place, i in enumerate(one.indices):
            rows = slice(int(one.cu_seqlens[place]), int(one.cu_seqlens[place + 1]))
            for layer, want in reference_outputs(reference, tokens[i], [3, 6])["representations"].items():
                errors.append(relative_l2(got[layer][rows], want))
                cosines.append(worst_residue_cosine(got[layer][rows], want))
    print(f"int8: worst relative L2 {max(errors):.2e}, worst residue cosine {min(cosines):.5f}")
    assert max(errors) <= tolerance("int8")["relative_l2"]
    assert min(cosines) >= tolerance("int8")["residue_cosine"]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_without_triton_torch_does_the_same_and_says_so_once(demo, dtype, monkeypatch, caplog):
    with_triton = ESM2WithFlashAttention(copy.deepcopy(demo), "cuda", DTYPES[dtype], "sdpa")
    for module in (dispatch, backends):
        monkeypatch.setattr(module, "why_no_triton", lambda device: "it is not here")
    dispatch._warn_slow.cache_clear()
    without = ESM2WithFlashAttention(copy.deepcopy(demo), "cuda", DTYPES[dtype])
    assert with_triton.kernels.startswith("triton 3.") and without.kernels == "torch" and without.attention != "triton"
    assert caplog.text.count("no Triton kernels, so it runs at little more than half the rate: it is not here") == 1
    tokens = random_tokens([300, 1, 1022], letters=RESIDUES, masked=(0,))
    for model in (with_triton, without):
        got = model.forward_packed(*on_gpu(tokens), [0, 3, 6])["representations"]
        cu_seqlens = pack(tokens)[1]
        for i, one in enumerate(tokens):
            for layer, want in reference_outputs(copy.deepcopy(demo).cuda(), one, [0, 3, 6])["representations"].items():
                error = relative_l2(got[layer][cu_seqlens[i] : cu_seqlens[i + 1]], want)
                assert error <= tolerance(dtype)["relative_l2"]


def test_arguments_on_the_wrong_device_are_named(demo):
    model = ESM2WithFlashAttention(demo, "cuda", torch.float16)
    input_ids, cu_seqlens, max_seqlen = pack(random_tokens([5, 8]))
    with pytest.raises(ValueError, match="input_ids: on cpu, but the model is on cuda"):
        model.forward_packed(input_ids, cu_seqlens, max_seqlen)


def test_overflow_in_fp16_is_recomputed_in_fp32(tmp_path):
    checkpoint = torch.load(DEMO_PATH, weights_only=False)
    (name,) = [name for name in checkpoint["model"] if name.endswith("layers.3.fc1.weight")]
    checkpoint["model"][name] = checkpoint["model"][name].float() * 1e5
    path = tmp_path / "loud.pt"
    torch.save(checkpoint, path)
    tokens = random_tokens([50, 80])
    embedder = Embedder(EmbedOptions(path, device="cuda", dtype="fp16"))
    half = embedder.embed(tokens)
    assert not np.isfinite(half.columns["mean_6"]).any()
    embedder.recompute(half, tokens, ["a", "b"])
    exact = Embedder(EmbedOptions(path, device="cuda", dtype="fp32")).embed(tokens)
    assert half.recomputed == [0, 1]
    assert np.isfinite(half.columns["mean_6"]).all()
    assert np.allclose(half.columns["mean_6"], exact.columns["mean_6"], rtol=1e-4, atol=1e-4)


def test_the_programs_embed_and_validate_on_the_gpu(tmp_path):
    """FASTA to validated Parquet by the programs; another process that compiles anew gives the same bytes."""

    def program(name, arguments, **environment):
        command = [sys.executable, str(ROOT / "workflow/scripts" / name), *arguments.split()]
        subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | environment)

    fasta = ROOT / "config/example/domains.fasta"
    embedding = "--model demo --device cuda --layers 3 6"
    files = "--manifest m.parquet --rejected r.tsv --counts c.json"
    program("chunk_fasta.py", f"--sample s {fasta} --chunks a.fasta b.fasta {files}")
    for chunk in "ab":
        program("embed_chunk.py", f"--fasta {chunk}.fasta --out {chunk}.arrow --stats {chunk}.json {embedding}")
    cache = {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
    program("embed_chunk.py", f"--fasta a.fasta --out again.arrow --stats again.json {embedding}", **cache)
    assert (tmp_path / "again.arrow").read_bytes() == (tmp_path / "a.arrow").read_bytes()
    program("merge_sample.py", "--manifest m.parquet --sample s --chunks a.arrow b.arrow --out s.parquet")
    program(
        "validate.py",
        f"--sample s {fasta} s.parquet --manifest m.parquet --stats a.json b.json --table v.tsv --summary v.json "
        + embedding,
    )
    summary = json.loads((tmp_path / "v.json").read_text())
    print(summary)
    assert summary["passed"] and summary["bit_equal"] and summary["sequences_compared"] == 32


def test_values_stored_in_fewer_bits_are_validated_and_reach_the_files_through_the_copies_of_packs(tmp_path):
    sequences = ["".join(np.random.default_rng(n).choice(list("ACDEFGHIKLMNPQRSTVWY"), n)) for n in (1, 40, 300, 900)]
    fasta = tmp_path / "s.fasta"
    fasta.write_text("".join(f">{len(sequence)}\n{sequence}\n" for sequence in sequences))
    options = EmbedOptions(DEMO_PATH, layers=(3, 6), include=("logits",), device="cuda")
    storage = StorageOptions("int8", "float16", pooled_dtype="float16")
    chunk, manifest = tmp_path / "c.fasta", tmp_path / "m"
    chunk_samples([("s", fasta)], [chunk], manifest, tmp_path / "r", tmp_path / "c.json")
    paths = tmp_path / "e.arrow", tmp_path / "e.json"
    kept = {name: tmp_path / name for name in ("representations", "logits")}
    embed_fasta(chunk, *paths, options, residues=kept, storage=storage, repeat=1.0)
    merge_samples(manifest, {"s": tmp_path / "s.parquet"}, paths[:1])
    merged = {("s", name): tmp_path / f"{name}.h5" for name in kept}
    for name, path in kept.items():
        merge_residues(manifest, {"s": merged["s", name]}, [path])
    samples, out = [("s", fasta, tmp_path / "s.parquet")], (tmp_path / "v.tsv", tmp_path / "v.json")
    summary = validate(samples, manifest, paths[1:], *out, ValidationOptions(), options, merged)
    print(summary)
    assert summary["passed"] and summary["bit_equal"] and 0.999 < summary["worst_int8_residue_cosine"] < 1


def test_after_an_out_of_memory_the_chunk_starts_again_with_half_the_budget(tmp_path):
    fasta = tmp_path / "many.fasta"
    rng = np.random.default_rng(0)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    fasta.write_text("".join(f">{i}\n{''.join(rng.choice(letters, 500))}\n" for i in range(800)))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.75e9 / total)
    try:
        stats = embed_fasta(
            fasta,
            tmp_path / "o.arrow",
            tmp_path / "o.json",
            EmbedOptions(DEMO_PATH, device="cuda", tokens_per_pack=262144),
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert stats["settings"]["tokens_per_pack"] < 262144
    small = EmbedOptions(DEMO_PATH, device="cuda", tokens_per_pack=stats["settings"]["tokens_per_pack"])
    embed_fasta(fasta, tmp_path / "p.arrow", tmp_path / "p.json", small)
    assert (tmp_path / "o.arrow").read_bytes() == (tmp_path / "p.arrow").read_bytes()


@pytest.mark.parametrize("gigabytes", [8, 16, 24])
def test_the_default_budget_fits_a_small_card(gigabytes, monkeypatch):
    """650M shape on a share of this card's memory: no out-of-memory at the budget that is chosen for its size."""
    total = torch.cuda.get_device_properties(0).total_memory
    monkeypatch.setattr("packed_esm.embedding.memory.gpu_memory", lambda device: gigabytes * 10**9)
    budget = default_tokens_per_pack(torch.device("cuda"), 33, 1280)
    with torch.device("cuda"):
        base = random_esm2(33, 1280, 20)
    base.cpu()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(gigabytes * 10**9 / total)
    torch.cuda.reset_peak_memory_stats()
    try:
        model = ESM2WithFlashAttention(base, "cuda", torch.float16)
        for one in iterate_packs(random_tokens([3000, *[300] * 250]), budget):
            arguments = (torch.from_numpy(one.cu_seqlens), one.max_seqlen)
            model.forward_packed(torch.from_numpy(one.input_ids).cuda().int(), *arguments)
        torch.cuda.synchronize()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(f"{gigabytes} GB: {budget} tokens a pack, {torch.cuda.max_memory_reserved() / 1e9:.2f} GB reserved at most")
    assert torch.cuda.max_memory_reserved() < gigabytes * 10**9


@pytest.mark.parametrize("make", [random_esm2, random_esm1b], ids=["ESM-2", "ESM-1b"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_logits_contacts_and_layers_equal_fair_esm_within_the_tolerance(make, dtype, kernels):
    base = make(num_layers=4, embed_dim=256, heads=4)
    torch.nn.init.normal_(base.contact_head.regression.weight, 0, 5)
    reference = copy.deepcopy(base).cuda()
    model = ESM2WithFlashAttention(base, "cuda", DTYPES[dtype])
    assert dtype == "fp32" or model.kernels.startswith(kernels)
    tokens = random_tokens([1022, 1, 130, 301], masked=(3,))
    input_ids, cu_seqlens, max_seqlen = on_gpu(tokens)
    out = model.forward_packed(input_ids, cu_seqlens, max_seqlen, [0, 2, 4], need_logits=True, return_contacts=True)
    bounds = tolerance(dtype)
    for i, one in enumerate(tokens):
        rows = slice(int(cu_seqlens[i]), int(cu_seqlens[i + 1]))
        want = reference_outputs(reference, one, [0, 2, 4], contacts=True)
        errors = {
            layer: relative_l2(out["representations"][layer][rows], want["representations"][layer])
            for layer in (0, 2, 4)
        }
        errors["logits"] = relative_l2(out["logits"][rows], want["logits"])
        contacts = contacts_errors(out["contacts"][i].numpy(force=True), want["contacts"].numpy(force=True))
        print(len(one) - 2, errors, contacts)
        assert max(errors.values()) <= bounds["relative_l2"]
        assert contacts["contacts_abs_per_residue"] <= bounds["contacts_abs_per_residue"]
        if len(one) - 2 > 10:
            assert contacts["contacts_precision"] >= bounds["contacts_precision"]
            assert contacts["contacts_correlation"] >= bounds["contacts_correlation"]


def test_every_output_of_a_sequence_is_the_same_to_the_bit_whatever_is_packed_with_it(tmp_path, kernels):
    base = random_esm2(num_layers=3, embed_dim=128, heads=2)
    torch.nn.init.normal_(base.contact_head.regression.weight)
    path = save_fair_esm(base, tmp_path / "esm2_small.pt", contacts=True)
    include, poolings = ("log_likelihood", "logits", "contacts"), ("mean", "max", "std", "bos", "eos")
    embedder = Embedder(EmbedOptions(path, include=include, poolings=poolings, tokens_per_pack=2048, device="cuda"))
    assert embedder.model.kernels.startswith(kernels)
    tokens = random_tokens([300, 5, 1500, 77, 410, 64])

    def outputs(some):
        seen = {}
        columns = embedder.embed(some, each_sequence=lambda i, out: seen.setdefault(i, out)).columns
        return [(out, {name: rows[i] for name, rows in columns.items()}) for i, out in sorted(seen.items())]

    together, backwards = outputs(tokens), outputs(tokens[::-1])[::-1]
    alone = [outputs([one])[0] for one in tokens]
    for one, other in ((together, backwards), (together, alone)):
        for (out, row), (same, same_row) in zip(one, other, strict=True):
            assert torch.equal(out["logits"], same["logits"]) and torch.equal(out["contacts"], same["contacts"])
            assert torch.equal(out["representations"][3], same["representations"][3])
            assert all(np.array_equal(row[name], same_row[name]) for name in row)


@pytest.mark.parametrize(("backend", "dtype"), [("triton", "fp16"), ("triton", "int8"), ("sdpa", "fp32")])
@pytest.mark.usefixtures("kernels")
def test_what_is_repeated_elsewhere_has_the_same_bits_and_a_wrong_one_is_noticed(backend, dtype, tmp_path, monkeypatch):
    """One bit of one pooled vector, and one value of one residue, wrong on the device the first time only."""
    from packed_esm.errors import RepeatError

    usable(backend, dtype)
    base = random_esm2(num_layers=3, embed_dim=128, heads=2)
    torch.nn.init.normal_(base.contact_head.regression.weight)
    path = save_fair_esm(base, tmp_path / "esm2_small.pt", contacts=True)
    rng = np.random.default_rng(0)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    lengths = [900, 1, 40, 2, *rng.integers(20, 500, 60)]
    fasta = tmp_path / "a.fasta"
    fasta.write_text("".join(f">p{i}\n{''.join(rng.choice(letters, n))}\n" for i, n in enumerate(lengths)))
    options = EmbedOptions(
        path,
        poolings=("mean", "max", "std"),
        include=("log_likelihood", "logits", "contacts"),
        device="cuda",
        dtype=dtype,
        attention=backend,
        tokens_per_pack=2048,
    )
    residues = {name: tmp_path / f"{name}.h5" for name in ("representations", "logits", "contacts")}

    def job():
        return embed_fasta(
            fasta,
            tmp_path / "a.arrow",
            tmp_path / "a.json",
            options,
            (),
            residues,
            StorageOptions("float32"),
            repeat=1.0,
        )

    assert job()["repeated_sequences"] == len(lengths)
    start = Embedder._start
    for feature, column in ((None, "mean_3"), ("representations", None)):
        done = []

        def start_with_fault(self, model, packs, *rest, feature=feature, done=done):
            (pack,), (started,) = packs, start(self, model, packs, *rest)
            if 7 in pack.indices and not done:
                place = pack.indices.index(7)
                done.append(place)
                started.wait()
                if feature:
                    started.of_sequence(place)[feature][4, 3] += 1
                else:
                    started.pooled[0].numpy().view(np.uint32)[place, 3] ^= 1
            return [started]

        with monkeypatch.context() as once, torch.inference_mode():
            once.setattr(Embedder, "_start", start_with_fault)
            with pytest.raises(RepeatError, match=rf"p7: .* in {column or feature}; 1 of 64 .*Device: .*\(GPU-"):
                job()
        (tmp_path / "a.repeat.npz").unlink()


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.usefixtures("kernels")
def test_masked_copies_are_fair_esms_and_no_bit_depends_on_their_neighbours(dtype):
    options = EmbedOptions(DEMO_PATH, include=("masked_marginals",), device="cuda", dtype=dtype, tokens_per_pack=4096)
    embedder, reference = Embedder(options), load_esm2(DEMO_PATH).cuda()
    tokens = random_tokens([198, 30, 1, 700, 61], masked=(1,))

    def logits(some, **how):
        return dict(MaskedCopies(embedder, some, ["p"] * len(some), **how).logits())

    together, backwards = logits(tokens), logits(tokens[::-1])
    moved = logits(tokens, rng=np.random.default_rng(0))
    for index, one in enumerate(tokens):
        alone = logits([one])[0]
        for other in (alone, backwards[len(tokens) - 1 - index], moved[index]):
            assert together[index].tobytes() == other.tobytes()
        residues = len(one) - 2
        chosen = sorted({0, residues // 2, residues - 1})
        want = masked_logits(reference, one, chosen, [0], residues)
        assert logits_errors(together[index][chosen], want)["logits_kl_max"] <= tolerance(dtype)["logits_kl_max"]
