"""Speed of the packed forward beside fair-esm's own, in one process: one table, one JSON.

  python tests/benchmarks/forward.py --models esm2_t33_650M_UR50D --json forward.json

Random weights of the published shapes; lengths like UniProt's (log-normal, median 284, at most 1,022); packs are
on the device already; real residues are counted, not fillers; warm, synchronised, the median of several passes.
fair-esm runs as scripts/extract.py does by default: fp32, padded batches of 4,096 tokens. TFLOP/s counts
24 d^2 a token and 4 d L^2 a sequence, a layer; the ceiling is an 8192^3 product in the same run.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from conftest import random_esm2, random_tokens  # noqa: E402
from packed_esm.embed import DTYPES, default_tokens_per_pack  # noqa: E402
from packed_esm.esm2_flash import ESM2WithFlashAttention  # noqa: E402
from packed_esm.models import MODELS  # noqa: E402
from packed_esm.packed_attention import BACKENDS, backend_version, why_not  # noqa: E402
from packed_esm.packing import iterate_packs  # noqa: E402

EXTRACT_TOKENS = 4096  # scripts/extract.py, --toks_per_batch


def uniprot_like(residues: int) -> list[np.ndarray]:
    """Return tokens of random proteins, about `residues` in all."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(284), 0.6, residues // 200), 20, 1022).astype(int)
    return random_tokens(lengths[: int(np.searchsorted(lengths.cumsum(), residues))])


def seconds_of(passes: int, function, device: str) -> float:
    """Return the median seconds of `function`, after one warm-up."""
    seconds = []
    for _ in range(passes + 1):
        synchronise(device)
        start = time.perf_counter()
        function()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def product_ceiling(device: str) -> float:
    """Return TFLOP/s of a large product: bf16 on a GPU, fp32 on CPU."""
    n, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    return 2 * n**3 / seconds_of(10, lambda: a @ b, device) / 1e12


def fair_esm_batches(tokens: list[np.ndarray], device: str) -> list[torch.Tensor]:
    """Return padded batches as extract.py makes them: by rising length, at most EXTRACT_TOKENS with padding."""
    batches, group = [], []
    for one in sorted(tokens, key=len):
        if group and len(one) * (len(group) + 1) > EXTRACT_TOKENS:
            batches.append(group)
            group = []
        group.append(one)
    batches.append(group)
    padded = []
    for group in batches:
        batch = torch.full((len(group), len(group[-1])), 1)
        for row, one in enumerate(group):
            batch[row, : len(one)] = torch.from_numpy(one.astype(np.int64))
        padded.append(batch.to(device))
    return padded


def measure_fair_esm(base, tokens, device, passes) -> float:
    model = base.to(device)
    batches = fair_esm_batches(tokens, device)

    @torch.inference_mode()
    def run():
        for batch in batches:
            model(batch, repr_layers=[model.num_layers])

    return seconds_of(passes, run, device)


def measure_packed(base, tokens, device, passes, dtype, backend, budget, compiled) -> float:
    model = ESM2WithFlashAttention(base, device, DTYPES[dtype], backend)
    model.compile_for(budget if compiled else 0)
    packs = [
        (torch.from_numpy(p.input_ids).to(device).int(), torch.from_numpy(p.cu_seqlens), p.max_seqlen)
        for p in iterate_packs(tokens, budget)
    ]

    def run():
        for one in packs:
            model.forward_packed(*one)

    return seconds_of(passes, run, device)


def variants(device: str):
    """Yield (dtype, backend, compiled) of all that run here."""
    for dtype in ("fp32",) if device == "cpu" else ("fp16", "bf16"):
        for backend in BACKENDS:
            if backend != "padded" and not why_not(backend, torch.device(device), DTYPES[dtype]):
                yield dtype, backend, False
                if device == "cuda":
                    yield dtype, backend, True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["esm2_t6_8M_UR50D"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--residues", type=int, default=None, help="default: 400,000 on a GPU, 30,000 on CPU")
    parser.add_argument("--budget", type=int, default=None, help="tokens per pack (default: the embed program's)")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tokens = uniprot_like(args.residues or (400_000 if args.device == "cuda" else 30_000))
    residues = sum(len(t) - 2 for t in tokens)
    ceiling = product_ceiling(args.device)
    device_name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print(f"{device_name}, torch {torch.__version__}, {residues:,} residues, ceiling {ceiling:.1f} TFLOP/s")
    rows = []

    def add(model, what, seconds, memory_mb=None):
        shape = MODELS[model]
        flops = sum(24 * shape.embed_dim**2 * len(t) + 4 * shape.embed_dim * len(t) ** 2 for t in tokens)
        tflops = flops * shape.num_layers / seconds / 1e12
        rate = residues / seconds
        first = next((r["residues_per_second"] for r in rows if r["model"] == model), rate)
        rows.append(
            {"model": model, "what": what, "residues_per_second": rate, "tflops": tflops, "memory_mb": memory_mb}
        )
        print(
            f"{model:22} {what:36} {rate:12,.0f} residues/s {tflops:7.1f} TFLOP/s {tflops / ceiling:5.2f} of ceiling "
            f"{rate / first:6.1f}x fair-esm  {memory_mb or '-'} MiB",
            flush=True,
        )

    for name in args.models:
        shape = MODELS[name]
        base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads)
        device = torch.device(args.device)
        budget = args.budget or default_tokens_per_pack(device, shape.num_layers, shape.embed_dim)
        add(name, "fair-esm fp32 (extract.py)", measure_fair_esm(copy.deepcopy(base), tokens, args.device, 1))
        for dtype, backend, compiled in variants(args.device):
            if args.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            what = f"{dtype} {backend_version(backend)[:22]}{' compiled' if compiled else ''}"
            seconds = measure_packed(base, tokens, args.device, args.passes, dtype, backend, budget, compiled)
            memory = torch.cuda.max_memory_allocated() // 2**20 if args.device == "cuda" else None
            add(name, what, seconds, memory)
    if args.json:
        result = {"device": device_name, "torch": torch.__version__, "ceiling_tflops": ceiling, "rows": rows}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
