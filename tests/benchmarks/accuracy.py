"""How near each attention backend and dtype is to fair-esm fp32, and how fast: one table, one JSON.

  python tests/benchmarks/accuracy.py --fasta config/example/domains.fasta --json accuracy.json

Shapes are ESM-2's with random weights, and the trained demonstration model. Errors are over the residues of
all sequences: relative L2 of the worst sequence, and the cosine of the worst residue, at a middle layer and at
the last. Speed is that of the forward alone, packs on the device, warm, the median of several passes.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from conftest import random_esm2, relative_l2, worst_residue_cosine  # noqa: E402
from forward import variants  # noqa: E402
from packed_esm.checkpoints.loading import load_esm2  # noqa: E402
from packed_esm.checkpoints.registry import DEMO_PATH, MODELS  # noqa: E402
from packed_esm.embedding.options import DTYPES  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.model.backends import backend_version  # noqa: E402
from packed_esm.model.esm2 import ESM2WithFlashAttention  # noqa: E402
from packed_esm.sequences.alphabet import normalise  # noqa: E402
from packed_esm.sequences.fasta import read_records  # noqa: E402
from packed_esm.sequences.tokens import tokenize  # noqa: E402
from packed_esm.validation.reference import reference_outputs  # noqa: E402

CONTACT_WEIGHT = 5.0  # standard deviation of the weights of the contact head, which has none of its own here


def base_model(name: str):
    """Return the demo, or a random model of a published shape."""
    if name == "demo":
        return load_esm2(DEMO_PATH)
    shape = MODELS[name]
    return random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads)


def measure(base, backend, dtype, tokens, truth, layers, device, budget, repeats):
    """Return one row of the table."""
    model = ESM2WithFlashAttention(base, device, DTYPES[dtype], backend)
    packs = [
        (
            torch.from_numpy(p.input_ids).to(device).int(),
            torch.from_numpy(p.cu_seqlens),
            p.max_seqlen,
            p.indices,
        )
        for p in iterate_packs(tokens, budget)
    ]
    worst_l2, worst_cosine, worst_logits, worst_contact = 0.0, 1.0, 0.0, 0.0
    maps = backend != "padded"
    for input_ids, cu_seqlens, max_seqlen, indices in packs:
        out = model.forward_packed(input_ids, cu_seqlens, max_seqlen, layers, need_logits=True, return_contacts=maps)
        for place, i in enumerate(indices):
            rows, want = slice(int(cu_seqlens[place]), int(cu_seqlens[place + 1])), truth[i]
            for layer in layers:
                got = out["representations"][layer][rows]
                worst_l2 = max(worst_l2, relative_l2(got, want["representations"][layer]))
                worst_cosine = min(worst_cosine, worst_residue_cosine(got, want["representations"][layer]))
            worst_logits = max(worst_logits, relative_l2(out["logits"][rows], want["logits"]))
            if maps and "contacts" in want:
                worst_contact = max(worst_contact, float((out["contacts"][place] - want["contacts"]).abs().max()))
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        for input_ids, cu_seqlens, max_seqlen, _ in packs:
            model.forward_packed(input_ids, cu_seqlens, max_seqlen)
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    residues = sum(len(t) - 2 for t in tokens)
    return {
        "backend": backend_version(backend),
        "dtype": dtype,
        "worst_relative_l2": worst_l2,
        "worst_residue_cosine": worst_cosine,
        "worst_logits_relative_l2": worst_logits,
        "worst_contact": worst_contact if maps else None,
        "residues_per_second": residues / statistics.median(seconds),
    }


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, default=ROOT / "config/example/domains.fasta")
    parser.add_argument("--models", nargs="+", default=["demo", "esm2_t6_8M_UR50D"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", type=int, default=16384, help="tokens per pack (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tokens = [tokenize(normalise(record.sequence)) for record in read_records(args.fasta)]
    rows = []
    for name in args.models:
        base = base_model(name)
        layers = [base.num_layers // 2, base.num_layers]
        torch.nn.init.normal_(base.contact_head.regression.weight, 0, CONTACT_WEIGHT)
        base.contact_head.regression.bias.data.fill_(-3)
        reference = copy.deepcopy(base).to(args.device)
        truth = [reference_outputs(reference, one, layers, contacts=True) for one in tokens]
        del reference
        for dtype, backend in variants(args.device, DTYPES):
            row = measure(
                copy.deepcopy(base),
                backend,
                dtype,
                tokens,
                truth,
                layers,
                args.device,
                args.budget,
                args.repeats,
            )
            rows.append({"model": name} | row)
            print(
                f"{name:22} {dtype:5} {row['backend']:24} L2 {row['worst_relative_l2']:.2e}  "
                f"1-cosine {1 - row['worst_residue_cosine']:.1e}  logits {row['worst_logits_relative_l2']:.1e}  "
                f"contact {row['worst_contact'] or 0:.1e}  {row['residues_per_second']:12,.0f} residues/s",
                flush=True,
            )
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    result = {"device": device, "torch": torch.__version__, "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
