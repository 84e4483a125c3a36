"""The forward on a Hopper GPU with and without its own products, and ESME, in turns: a table and a JSON.

  python tests/benchmarks/engine.py --models esm2_t33_650M_UR50D --dtypes fp16 bf16 int8 --json engine.json

Each round runs every pass once, after a large product, whose rate is the ceiling of the round. Given is the median of
the rounds, so a card that gets hot slows all alike. `triton` is the forward without `kernels/gluon_ops`. Sequences and
weights, and how operations are counted: as in `forward.py`. `worst_residue_cosine` is that of some sequences of the
first pack with fair-esm in fp32; `peak_gpu_gb` is the most that the weights and a pass took.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

import peers  # noqa: E402
from card import card  # noqa: E402
from conftest import random_esm2, worst_residue_cosine  # noqa: E402
from forward import packed, product_ceiling, uniprot_like  # noqa: E402
from packed_esm.embedding.memory import default_tokens_per_pack  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402
from packed_esm.kernels import dispatch  # noqa: E402
from packed_esm.validation.reference import reference_outputs  # noqa: E402

RESIDUES = 262_144  # at least
COMPARED = 16  # sequences
WIDEST = 10**5  # columns, more than any model has


class Pass:
    """One way to run all sequences, and its seconds and clocks so far.

    `build` makes the model; it returns the calls of the packs.
    """

    def __init__(self, what: str, build: Callable[[], peers.Pass]) -> None:
        self.what, self.seconds, self.clocks, self.pass_bytes = what, [], [], 0
        before = torch.cuda.memory_allocated()
        self.calls = build()
        self.weight_bytes = torch.cuda.memory_allocated() - before

    @torch.inference_mode()
    def run(self) -> None:
        """Run once; the clock is read while the GPU works."""
        self.calls[-1]()
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for call in self.calls:
            call()
        self.clocks.append(card("cuda")["clock_mhz"])
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - start)
        self.pass_bytes = max(self.pass_bytes, torch.cuda.max_memory_allocated() - held)

    @property
    def peak_gpu_gb(self) -> float:
        return round((self.weight_bytes + self.pass_bytes) / 1e9, 2)


class Truth:
    """The last layer of some sequences of the first pack, by fair-esm in fp32."""

    def __init__(self, base: torch.nn.Module, tokens: list, budget: int) -> None:
        self.layer, first = base.num_layers, next(iterate_packs(tokens, budget))
        self.starts = first.cu_seqlens.tolist()
        chosen = [tokens[index] for index in first.indices[:COMPARED]]
        self.rows = [reference_outputs(base, one, [self.layer])["representations"][self.layer] for one in chosen]

    @torch.inference_mode()
    def worst_residue_cosine(self, one: Pass) -> float:
        rows = one.calls[0]()["representations"][self.layer]
        parts = [rows[start : start + len(want)] for start, want in zip(self.starts, self.rows, strict=False)]
        return min(map(worst_residue_cosine, parts, self.rows))


def passes(name: str, base: torch.nn.Module, dtypes: list[str], tokens: list, budget: int) -> list[Pass]:
    """Return all passes of a model."""
    found = []
    for dtype in dtypes:
        for kernels in ("gluon", "triton") if dtype in ("fp16", "bf16") else ("gluon",):
            dispatch.GLUON_WIDTHS = range(WIDEST if kernels == "gluon" else 0)
            build, _ = packed(base, tokens, "cuda", dtype, "auto", budget)
            found.append(Pass(f"{dtype} {kernels}", build))
    if "ESME bf16 flash-attn 2, packed" in (others := peers.peers(MODELS[name], tokens, "cuda")):
        found.append(Pass("ESME bf16", others["ESME bf16 flash-attn 2, packed"]))
    return found


def rows(name: str, args: argparse.Namespace) -> list[dict]:
    """Return the rows of a model."""
    shape = MODELS[name]
    budget = args.budget or default_tokens_per_pack(torch.device("cuda"), shape.num_layers, shape.embed_dim)
    tokens = uniprot_like(int(0.992 * max(4, RESIDUES // budget) * budget))
    residues = sum(len(one) - 2 for one in tokens)
    flops = sum(24 * shape.embed_dim**2 * len(one) + 4 * shape.embed_dim * len(one) ** 2 for one in tokens)
    with torch.device("cuda"):
        base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads)
    dispatched = dispatch.GLUON_WIDTHS
    found, ceilings = passes(name, base, args.dtypes, tokens, budget), []
    dispatch.GLUON_WIDTHS = dispatched
    truth = Truth(base, tokens, budget)
    for _ in range(args.rounds):
        ceilings.append(product_ceiling("cuda"))
        for one in found:
            one.run()
    seconds = {one.what: statistics.median(one.seconds) for one in found}
    ceiling = statistics.median(ceilings)
    return [
        {
            "model": name,
            "what": one.what,
            "tokens_per_pack": budget,
            **card("cuda"),
            "clock_mhz": statistics.median(one.clocks),
            "residues_per_second": round(residues / seconds[one.what]),
            "times_esme": _times(seconds, "ESME bf16", one.what),
            "times_bf16": _times(seconds, "bf16 gluon" if shape.embed_dim in dispatched else "bf16 triton", one.what),
            "times_without": _times(seconds, one.what.replace("gluon", "triton"), one.what),
            "tflops": round(flops * shape.num_layers / seconds[one.what] / 1e12, 1),
            "share_of_ceiling": round(flops * shape.num_layers / seconds[one.what] / 1e12 / ceiling, 3),
            "ceiling_tflops": round(ceiling, 1),
            "worst_residue_cosine": None if one.what.startswith("ESME") else truth.worst_residue_cosine(one),
            "peak_gpu_gb": one.peak_gpu_gb,
        }
        for one in found
    ]


def _times(seconds: dict[str, float], other: str, what: str) -> float | None:
    return round(seconds[other] / seconds[what], 3) if other in seconds else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["esm2_t33_650M_UR50D"], choices=MODELS)
    parser.add_argument("--dtypes", nargs="+", default=["fp16", "bf16"])
    parser.add_argument("--budget", type=int, help="tokens per pack (default: the embed program's)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = []
    for name in args.models:
        for row in rows(name, args):
            result.append(row)
            print(
                ", ".join(f"{key} {value}" for key, value in row.items() if key not in ("card", "commit")), flush=True
            )
        if args.json:
            args.json.write_text(json.dumps({"rows": result}, indent=2) + "\n")
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
