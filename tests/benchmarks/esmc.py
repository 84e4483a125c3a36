"""ESM C on a GPU beside transformers' own model, in turns: a table and a JSON.

  python tests/benchmarks/esmc.py --models esmc_300m esmc_600m --json esmc.json

Random weights of the published shapes, sequences with lengths like UniProt's. transformers runs in padded batches of
like length, with sdpa and with flash-attn 2, and in packs with flash-attn 2. Each round runs every pass once, after a
large product, whose rate is the ceiling of the round; given is the median. `worst_residue_cosine` is that of some
sequences of the first pack with transformers in fp32.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

import peers  # noqa: E402
from card import card  # noqa: E402
from conftest import worst_residue_cosine  # noqa: E402
from engine import COMPARED, RESIDUES, Pass  # noqa: E402
from esmc_checkpoints import random_esmc, save_esmc  # noqa: E402
from forward import packed, product_ceiling, uniprot_like, versions  # noqa: E402
from packed_esm.checkpoints.loading import load_model  # noqa: E402
from packed_esm.checkpoints.tensors import SkipRandomInit  # noqa: E402
from packed_esm.embedding.memory import default_tokens_per_pack  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.families import MODELS, ModelShape  # noqa: E402
from packed_esm.model.families.esmc.reference import Reference  # noqa: E402


def transformers_passes(theirs: torch.nn.Module, tokens: list) -> dict[str, Callable[[], peers.Pass]]:
    """Return {what: what builds a pass} of transformers in bf16."""

    def model(attention: str) -> torch.nn.Module:
        with torch.device("cuda"), SkipRandomInit():
            one = type(theirs.esmc)(theirs.config).to(torch.bfloat16).eval()
        one.load_state_dict(theirs.esmc.state_dict())
        one.set_attn_implementation(attention)
        return one

    def padded(attention: str) -> peers.Pass:
        batches = peers.padded_batches(sorted(tokens, key=len), peers.LARGE_BATCH, "cuda")
        one = model(attention)
        return [partial(one, batch, attention_mask=batch.ne(1).long()) for batch in batches]

    def in_packs() -> peers.Pass:
        one, calls = model("flash_attention_2"), []
        for input_ids, cu_seqlens, longest in peers._packs(tokens, peers.LARGE_BATCH, "cuda"):
            positions = torch.cat([torch.arange(n, device="cuda") for n in cu_seqlens.diff().tolist()])
            lengths = dict.fromkeys(("max_length_q", "max_length_k"), longest)
            bounds = dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), cu_seqlens)
            calls.append(partial(one, input_ids[None], position_ids=positions[None], **bounds, **lengths))
        return calls

    found = {"transformers bf16 sdpa, padded": partial(padded, "sdpa")}
    if importlib.util.find_spec("flash_attn"):
        found["transformers bf16 flash-attn 2, padded"] = partial(padded, "flash_attention_2")
        found["transformers bf16 flash-attn 2, packed"] = in_packs
    return found


def passes(base: torch.nn.Module, theirs: torch.nn.Module, tokens: list, budget: int) -> list[Pass]:
    """Return all passes of a model."""
    found = []
    for dtype in ("fp16", "bf16"):
        found.append(Pass(f"packed-esm {dtype}", packed(base, tokens, "cuda", dtype, "auto", budget)[0]))
    for what, build in transformers_passes(theirs, tokens).items():
        one = Pass(what, build)
        try:
            one.run()
        except Exception as error:  # noqa: BLE001, a peer that does not run is no result
            print(f"{what}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        else:
            found.append(one)
    return found


def rows(name: str, shape: ModelShape, rounds: int) -> list[dict]:
    """Return the rows of a model."""
    with torch.device("cuda"):
        theirs = random_esmc(shape.num_layers, shape.embed_dim, shape.attention_heads)
    with tempfile.TemporaryDirectory() as folder:
        base = load_model(save_esmc(theirs, Path(folder, "random")))
    budget = default_tokens_per_pack(torch.device("cuda"), shape.num_layers, shape.embed_dim)
    tokens = uniprot_like(int(0.992 * max(4, RESIDUES // budget) * budget))
    first = next(iterate_packs(tokens, budget))
    reference = Reference(theirs)
    truth = [
        reference.outputs(tokens[index], [shape.num_layers])["representations"][shape.num_layers]
        for index in first.indices[:COMPARED]
    ]
    found, ceilings = passes(base, theirs, tokens, budget), []
    for _ in range(rounds):
        ceilings.append(product_ceiling("cuda"))
        for one in found:
            one.run()
    seconds = {one.what: statistics.median(one.seconds) for one in found}
    best = min((seconds[what] for what in seconds if what.startswith("transformers")), default=None)
    residues, hidden = sum(len(one) - 2 for one in tokens), theirs.config.intermediate_size
    products = 8 * shape.embed_dim**2 + 6 * shape.embed_dim * hidden
    flops = shape.num_layers * sum(products * len(one) + 4 * shape.embed_dim * len(one) ** 2 for one in tokens)
    return [
        {
            "model": name,
            "what": one.what,
            "tokens_per_pack": budget,
            **card("cuda"),
            "clock_mhz": statistics.median(one.clocks),
            "residues_per_second": round(residues / seconds[one.what]),
            "times_transformers": best and round(best / seconds[one.what], 3),
            "share_of_ceiling": round(flops / seconds[one.what] / 1e12 / statistics.median(ceilings), 3),
            "worst_residue_cosine": worst_cosine(one, first, truth, shape.num_layers),
            "peak_gpu_gb": one.peak_gpu_gb,
        }
        for one in found
    ]


@torch.inference_mode()
def worst_cosine(one: Pass, first: object, truth: list[torch.Tensor], layer: int) -> float | None:
    """Return the worst cosine of a residue in the first pack; None for transformers."""
    if one.what.startswith("transformers"):
        return None
    got = one.calls[0]()["representations"][layer]
    parts = [got[start : start + len(want)] for start, want in zip(first.cu_seqlens.tolist(), truth, strict=False)]
    return round(min(map(worst_residue_cosine, parts, truth)), 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["esmc_300m", "esmc_600m"], choices=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = []
    for name in args.models:
        for row in rows(name, MODELS[name], args.rounds):
            result.append(row)
            print(
                ", ".join(f"{key} {value}" for key, value in row.items() if key not in ("card", "commit")), flush=True
            )
        if args.json:
            args.json.write_text(json.dumps({"versions": versions(), "rows": result}, indent=2) + "\n")
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
