"""How near each attention backend and dtype is to fair-esm fp32, and how fast: one table, one JSON.

  python tests/benchmarks/accuracy.py --fasta config/example/domains.fasta --json accuracy.json

Shapes are ESM-2's with random weights, and the trained demonstration model. The sequences are those of the FASTA, and
awkward ones: of one to 24 residues, of one residue over and over. Printed is the worst sequence by each measure of
`validation.measures`, at a middle layer and at the last, with two contact heads: all weights random, and one head in
ten with a positive weight. Speed is that of the forward alone, packs on the device, warm, the median of several passes.
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

from conftest import random_esm2, random_sequence  # noqa: E402
from forward import variants  # noqa: E402
from packed_esm.checkpoints.loading import load_esm2  # noqa: E402
from packed_esm.checkpoints.registry import DEMO_PATH  # noqa: E402
from packed_esm.embedding.device import DTYPES  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402
from packed_esm.kernels.pooling import pool_packed  # noqa: E402
from packed_esm.model.esm2 import ESM2WithFlashAttention  # noqa: E402
from packed_esm.outputs.measures import residue_errors  # noqa: E402
from packed_esm.outputs.table import MEASURES, POOLINGS, RESIDUES, SCALARS  # noqa: E402
from packed_esm.sequences.alphabet import normalise  # noqa: E402
from packed_esm.sequences.fasta import read_records  # noqa: E402
from packed_esm.sequences.tokens import tokenize  # noqa: E402
from packed_esm.system.versions import backend_version  # noqa: E402
from packed_esm.validation.reference import reference_outputs  # noqa: E402

CONTACT_WEIGHT = 5.0  # standard deviation of the weights of the contact head, which has none of its own here
SPARSE_WEIGHTS = (5.0, 20.0)  # of one attention head in ten, in a contact head as an L1 penalty leaves it
ALIKE = {"A": (50, 300), "X": (100,), "W": (300,)}  # proteins of one residue over and over
SHORT = 24  # residues of the longest of the short ones


def base_model(name: str):
    """Return the demo, or a random model of a published shape."""
    if name == "demo":
        return load_esm2(DEMO_PATH)
    shape = MODELS[name]
    return random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads)


def set_contact_head(base, head: str) -> None:
    """Give a model contacts: weights of all heads random, or of few and positive, as of a trained contact head."""
    regression = base.contact_head.regression
    with torch.no_grad():
        if head == "random":
            regression.weight.normal_(0, CONTACT_WEIGHT)
            regression.bias.fill_(-3)
        else:
            regression.weight.uniform_(*SPARSE_WEIGHTS).mul_(torch.rand(regression.weight.shape) < 0.1)
            regression.bias.fill_(-4)


def awkward() -> list[str]:
    """Return sequences that are short, or of one residue over and over."""
    rng = np.random.default_rng(0)
    alike = [letter * length for letter, lengths in ALIKE.items() for length in lengths]
    return ["M", "BU", *alike, *(random_sequence(length, rng) for length in range(1, SHORT + 1) for _ in range(4))]


def errors_of(out: dict, place: int, rows: slice, pooled: torch.Tensor, tokens: np.ndarray, want: dict) -> dict:
    """Return all errors of one sequence of a pack; `pooled`: its standard deviation at the last layer."""
    errors: dict = {}
    for layer, truth in want["representations"].items():
        one = residue_errors(out["representations"][layer][rows].numpy(force=True), truth.numpy(force=True))
        take_worst(errors, {name: one[name] for name in ("relative_l2", "min_residue_cosine")})
    errors["std_relative_l2"] = POOLINGS["std"].error(pooled.numpy(force=True), truth.numpy(force=True))
    ours, logits = out["logits"][rows], want["logits"]
    likelihoods = torch.log_softmax(ours, -1)[torch.arange(len(tokens)), torch.from_numpy(tokens).long()][1:-1]
    errors |= SCALARS["log_likelihood"].errors(float(likelihoods.mean()), logits.numpy(force=True), tokens)
    errors |= RESIDUES["logits"].errors(*(x[1:-1].numpy(force=True) for x in (ours, logits)))
    if "contacts" in out and "contacts" in want:
        maps = out["contacts"][place], want["contacts"]
        errors |= RESIDUES["contacts"].errors(*(x.numpy(force=True) for x in maps))
    return errors


def take_worst(worst: dict, errors: dict) -> None:
    """Keep in `worst` the worse of both; an error that is None was not measured."""
    for name, error in errors.items():
        if error is not None:
            worst[name] = (min if MEASURES[name].best == 1 else max)(worst.get(name, error), error)


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
    worst: dict = {}
    maps = backend != "padded"
    for input_ids, cu_seqlens, max_seqlen, indices in packs:
        out = model.forward_packed(input_ids, cu_seqlens, max_seqlen, layers, need_logits=True, return_contacts=maps)
        last = out["representations"][layers[-1]]
        (pooled,), _ = pool_packed(last, cu_seqlens, len(indices), ["std"], model.kernels != "torch")
        for place, i in enumerate(indices):
            rows = slice(int(cu_seqlens[place]), int(cu_seqlens[place + 1]))
            take_worst(worst, errors_of(out, place, rows, pooled[place], tokens[i], truth[i]))
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
        **{f"worst_{name}": error for name, error in worst.items()},
        "residues_per_second": residues / statistics.median(seconds),
    }


def table_row(row: dict) -> str:
    """Return a row for the terminal; of what is 1 at best, what is missing to it."""
    cells = []
    for name, error in row.items():
        if name.startswith("worst_"):
            short, least = name.removeprefix("worst_"), MEASURES[name.removeprefix("worst_")].best == 1
            cells.append(f"1-{short} {1 - error:.1e}" if least else f"{short} {error:.1e}")
    start = f"{row['model']:18} {row['contact_head']:6} {row['dtype']:5} {row['backend']:18} "
    return start + "  ".join(cells) + f"  {row['residues_per_second']:,.0f} residues/s"


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, default=ROOT / "config/example/domains.fasta")
    parser.add_argument("--models", nargs="+", default=["demo", "esm2_t6_8M_UR50D"])
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", type=int, default=16384, help="tokens per pack (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sequences = [normalise(record.sequence) for record in read_records(args.fasta)]
    tokens = [tokenize(sequence) for sequence in sequences + awkward()]
    rows = []
    for name in args.models:
        base = base_model(name)
        layers = [base.num_layers // 2, base.num_layers]
        for head in ("random", "sparse"):
            set_contact_head(base, head)
            reference = copy.deepcopy(base).to(args.device)
            truth = [reference_outputs(reference, one, layers, contacts=True) for one in tokens]
            del reference
            for dtype, backend in variants(args.device, args.dtypes):
                model, budget = copy.deepcopy(base), args.budget
                row = measure(model, backend, dtype, tokens, truth, layers, args.device, budget, args.repeats)
                rows.append({"model": name, "contact_head": head} | row)
                print(table_row(rows[-1]), flush=True)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    result = {"device": device, "torch": torch.__version__, "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
