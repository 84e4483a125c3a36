"""Speed of the packed forward beside what users could pick instead, in one process: one table, one JSON.

  python tests/benchmarks/forward.py --models esm2_t33_650M_UR50D --json forward.json

Random weights of the published shapes. The same sequences for all: lengths like UniProt's (log-normal, median 284, at
most 1,022), on the device already; real residues are counted, not fillers; warm, synchronised, the median of several
passes. fair-esm runs as its scripts/extract.py does, fp32 in padded batches of 4,096 tokens, and in larger ones.
TFLOP/s counts 24 d^2 a token and 4 d L^2 a sequence, a layer; the ceiling is an 8192^3 product in the same run.
"""

import argparse
import copy
import gc
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

import peers  # noqa: E402
from conftest import random_esm2, random_tokens  # noqa: E402
from packed_esm.embedding.device import DTYPES, device_name  # noqa: E402
from packed_esm.embedding.memory import default_tokens_per_pack  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402
from packed_esm.kernels.int8 import activation_dtype  # noqa: E402
from packed_esm.model.backends import BACKENDS, why_no_dtype, why_not  # noqa: E402
from packed_esm.model.esm2 import ESM2WithFlashAttention  # noqa: E402
from packed_esm.system.versions import backend_version  # noqa: E402

PACKAGES = ("torch", "triton", "fair-esm", "transformers", "esm-cpp", "esm-efficient", "flash-attn", "fa3-fwd")
EXTRACT = "fair-esm fp32, 4,096 tokens (extract.py)"
READ_LENGTH = 100
WARM_CALLS = 3
ENOUGH_SECONDS = 10.0


def uniprot_like(residues: int) -> list[np.ndarray]:
    """Return tokens of random proteins, about `residues` in all."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(284), 0.6, residues // 200), 20, 1022).astype(int)
    return random_tokens(lengths[: int(np.searchsorted(lengths.cumsum(), residues))])


@torch.inference_mode()
def seconds_of(passes: int, calls: peers.Pass, device: str) -> float:
    """Return the median seconds of a pass, at most ENOUGH_SECONDS of them, after WARM_CALLS calls to warm up."""
    seconds = []
    for call in (*calls[:WARM_CALLS], calls[-1]):
        call()
    while len(seconds) < passes and sum(seconds) < ENOUGH_SECONDS:
        synchronise(device)
        start = time.perf_counter()
        for call in calls:
            call()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def product_ceiling(device: str) -> float:
    """Return TFLOP/s of a large product: bf16 on a GPU, fp32 on CPU."""
    n, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    return 2 * n**3 / (seconds_of(5, [lambda: a @ b] * 10, device) / 10) / 1e12


class Table:
    """Rows of one run; each is printed when it is there."""

    def __init__(self, device: str, ceiling: float, without: list[str]) -> None:
        self.device, self.ceiling, self.without, self.rows = device, ceiling, without, []

    def measure(self, model: str, what: str, build, tokens, passes: int, fill: float | None = None) -> None:
        """Time what `build` returns, and keep rate, TFLOP/s, share of the ceiling, ratio, memory and fill.

        Memory is that above what was there before (fair-esm's weights, which are there for the first rows).
        """
        before = 0
        if any(text in what for text in self.without):
            return
        gc.collect()  # the model before, whose memory would be counted as there before
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        seconds = seconds_of(passes, build(), self.device)
        shape, residues = MODELS[model], sum(len(one) - 2 for one in tokens)
        flops = sum(24 * shape.embed_dim**2 * len(one) + 4 * shape.embed_dim * len(one) ** 2 for one in tokens)
        rate, tflops = residues / seconds, flops * shape.num_layers / seconds / 1e12
        rates = {row["what"]: row["residues_per_second"] for row in self.rows if row["model"] == model} | {what: rate}
        times = rate / rates[EXTRACT] if EXTRACT in rates else None
        row = {
            "model": model,
            "what": what,
            "residues_per_second": rate,
            "tflops": tflops,
            "share_of_ceiling": tflops / self.ceiling,
            "times_fair_esm": times,
            "residues": residues,
            "peak_memory_mb": (torch.cuda.max_memory_allocated() - before) // 2**20 if self.device == "cuda" else None,
            "fill": fill,
        }
        self.rows.append(row)
        print(
            f"{model:20} {what:46} {rate:12,.0f} residues/s {tflops:7.2f} TFLOP/s {tflops / self.ceiling:5.2f} of "
            f"ceiling {f'{times:6.2f}x fair-esm' if times else ''} {row['peak_memory_mb'] or '-':>7} MiB "
            f"{fill or 0:.4f} full",
            flush=True,
        )


def packed(base, tokens, device: str, dtype: str, backend: str, budget: int) -> tuple[Callable, float]:
    """Return (what builds a pass of ours, fill of its packs)."""
    packs = list(iterate_packs(tokens, budget))

    def build():
        model = ESM2WithFlashAttention(base, device, DTYPES[dtype], backend)
        arguments = [
            (torch.from_numpy(p.input_ids).to(device).int(), torch.from_numpy(p.cu_seqlens), p.max_seqlen)
            for p in packs
        ]
        return [partial(model.forward_packed, *one) for one in arguments]

    return build, sum(p.real_tokens for p in packs) / sum(len(p.input_ids) for p in packs)


def variants(device: str, dtypes: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (dtype, backend) of all that run here; with products in 8 bits the attention is that of bf16."""
    for dtype in dtypes:
        activations = activation_dtype(DTYPES[dtype])
        if why_no_dtype(DTYPES[dtype], torch.device(device)):
            continue
        backends = [one for one in BACKENDS if why_not(one, torch.device(device), activations) is None]
        for backend in backends if activations == DTYPES[dtype] else backends[:1]:
            yield dtype, backend


def compare(table: Table, name: str, args: argparse.Namespace) -> None:
    """Measure all that is installed with one model shape."""
    shape, device = MODELS[name], args.device
    budget = args.budget or default_tokens_per_pack(torch.device(device), shape.num_layers, shape.embed_dim)
    # Whole packs, cls and eos counted: a last pack with little in it would be no property of the code.
    packs = max(4, 262_144 // budget) if shape.embed_dim > 640 else 16
    tokens = uniprot_like(args.residues or int(0.992 * packs * budget if device == "cuda" else 30_000))
    with torch.device(device):
        base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads)
    table.measure(name, EXTRACT, lambda: peers.fair_esm(base, tokens, device), tokens, args.passes)
    if args.peers:
        large = lambda: peers.fair_esm(base, tokens, device, peers.LARGE_BATCH)  # noqa: E731
        table.measure(name, "fair-esm fp32, 32,768 tokens", large, tokens, args.passes)
        for what, build in peers.peers(shape, tokens, device).items():
            table.measure(name, what, build, tokens, args.passes)
    slow = ("sdpa", "padded") if device == "cuda" else ("padded",)
    for dtype, backend in variants(device, ["fp32"] if device == "cpu" else ["fp16", "bf16", "int8"]):
        if backend in (args.backends or set(BACKENDS) - set(slow)):
            build, fill = packed(base, tokens, device, dtype, backend, budget)
            table.measure(name, f"packed {dtype} {backend_version(backend)}", build, tokens, args.passes, fill)
    if args.reads:
        reads = random_tokens([READ_LENGTH] * (sum(map(len, tokens)) // (READ_LENGTH + 2)))
        build, fill = packed(base, reads, device, "fp32" if device == "cpu" else "fp16", "auto", budget)
        table.measure(name, f"packed, reads of {READ_LENGTH} residues", build, reads, args.passes, fill)


@torch.inference_mode()
def compare_in_turn(name: str, args: argparse.Namespace) -> list[dict]:
    """Return rows of ours in each dtype and of peers on a CPU; a round runs each once, so others' load hits all alike.

    Rates are those of the first `args.layers` layers. A ratio is the median of the rounds'.
    """
    shape = replace(MODELS[name], num_layers=args.layers or MODELS[name].num_layers)
    tokens = uniprot_like(args.residues or 4_000)
    base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads)
    budget = args.budget or default_tokens_per_pack(torch.device("cpu"), shape.num_layers, shape.embed_dim)
    passes = {EXTRACT: peers.fair_esm(copy.deepcopy(base), tokens, "cpu")}
    for dtype, backend in variants("cpu", ["fp32", "bf16", "int8"]):
        if backend != "padded":
            passes[f"packed {dtype} {backend}"] = packed(copy.deepcopy(base), tokens, "cpu", dtype, backend, budget)[
                0
            ]()
    passes |= peers.peers_of_a_cpu(shape, tokens, budget)
    seconds = {what: [] for what in passes}
    for number in range(args.passes + 1):
        for what, calls in passes.items():
            start = time.perf_counter()
            for call in calls:
                call()
            if number:  # the first round warms up
                seconds[what].append(time.perf_counter() - start)
    rows = []
    for what, taken in seconds.items():
        row = {"model": name, "layers": shape.num_layers, "what": what}
        row["residues_per_second"] = sum(len(one) - 2 for one in tokens) / statistics.median(taken)
        for dtype in ("fp32", "bf16"):
            ratios = [own / other for own, other in zip(seconds[f"packed {dtype} sdpa"], taken, strict=True)]
            row[f"times_{dtype}"] = statistics.median(ratios)
        rows.append(row)
        print(f"{name:20} {what:42} {row['residues_per_second']:9,.0f} residues/s  {row['times_fp32']:5.2f}x our fp32")
    return rows


def versions() -> dict[str, str]:
    """Return {package: version} of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["esm2_t6_8M_UR50D"], choices=MODELS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--residues", type=int, default=None, help="default: whole packs on a GPU, 30,000 on CPU")
    parser.add_argument("--budget", type=int, default=None, help="tokens per pack (default: the embed program's)")
    parser.add_argument("--backends", nargs="+", default=None, choices=BACKENDS, help="default: all that run")
    parser.add_argument("--peers", action="store_true", help="also transformers and ESME, where installed")
    parser.add_argument("--reads", action="store_true", help="also short reads")
    parser.add_argument("--without", nargs="+", default=[], metavar="TEXT", help="leave out rows with TEXT in them")
    parser.add_argument("--in-turn", action="store_true", help="on a CPU: all dtypes and peers, one after another")
    parser.add_argument("--layers", type=int, default=None, help="with --in-turn: only the first ones")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.in_turn:
        rows = [row for name in args.models for row in compare_in_turn(name, args)]
        if args.json:
            result = {"device": device_name(torch.device("cpu")), "versions": versions(), "rows": rows}
            args.json.write_text(json.dumps(result, indent=2) + "\n")
        return
    table = Table(args.device, product_ceiling(args.device), args.without)
    device = device_name(torch.device(args.device))
    print(f"{device}, {versions()}, ceiling {table.ceiling:.2f} TFLOP/s")
    for name in args.models:
        compare(table, name, args)
        if args.json:
            result = {"device": device, "versions": versions(), "ceiling_tflops": table.ceiling, "rows": table.rows}
            args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
