"""Masked copies: seconds a protein, and how much of the forward's rate is left; on a CPU beside fair-esm's way.

  python tests/benchmarks/variants.py --models esm2_t33_650M_UR50D --json variants.json

Random proteins of one length, each residue of each masked once. The proteins are shared out over the repetitions, and
all copies of a repetition are packed together; then one protein alone, as often. The forward of the same packs, which
are on the device already and whose logits nobody wants, alternates with them. Figures are medians. `demo` is the
shipped model, other names are random weights of the published shape. On a CPU, or with --loop, one protein is also
done as fair-esm's examples/variant-prediction/predict.py does it: one masked sequence at a time, with all logits.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from card import card  # noqa: E402
from checkpoint_files import save_fair_esm  # noqa: E402
from conftest import random_esm2, random_tokens  # noqa: E402
from forward import versions  # noqa: E402
from packed_esm.checkpoints.loading import load_esm2  # noqa: E402
from packed_esm.checkpoints.registry import DEMO_PATH  # noqa: E402
from packed_esm.embedding.embedder import Embedder  # noqa: E402
from packed_esm.embedding.masked import MaskedCopies  # noqa: E402
from packed_esm.embedding.options import EmbedOptions  # noqa: E402
from packed_esm.embedding.packing import build_pack  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402

FORWARD_PACKS = 4  # whose forward alternates with the masked copies


def seconds(work: Callable[[], object], device: str) -> float:
    """Return the seconds of `work`, up to the end of what it started on a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def checkpoint_of(name: str, device: str, folder: Path) -> Path:
    """Return the shipped model, or a checkpoint of random weights in the shape of a published one."""
    if name == "demo":
        return DEMO_PATH
    shape = MODELS[name]
    with torch.device(device):
        base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads).cpu()
    return save_fair_esm(base, folder / f"random_{shape.embed_dim}.pt")


def masked(embedder: Embedder, tokens: Sequence[np.ndarray]) -> None:
    """Run all masked copies."""
    for _ in MaskedCopies(embedder, tokens, ["random"] * len(tokens)).logits():
        pass


def forward_of(embedder: Embedder, tokens: np.ndarray, device: str) -> tuple[int, Callable[[], None]]:
    """Return (number of copies, a function that runs their forward) of some full packs of one protein's copies."""
    copies = embedder.tokens_per_pack // len(tokens)
    pack = build_pack(list(range(copies)), [tokens] * copies, embedder.tokens_per_pack)
    input_ids, cu_seqlens = torch.from_numpy(pack.input_ids).to(device).int(), torch.from_numpy(pack.cu_seqlens)

    def run() -> None:
        for _ in range(FORWARD_PACKS):
            embedder.model.forward_packed(input_ids, cu_seqlens, pack.max_seqlen)

    return FORWARD_PACKS * copies, run


def one_at_a_time(model: torch.nn.Module, tokens: np.ndarray, device: str) -> None:
    """Do what fair-esm's script does for masked marginals of one protein."""
    batch = torch.from_numpy(tokens.astype(np.int64))[None].to(device)
    with torch.inference_mode():
        for place in range(1, len(tokens) - 1):
            one = batch.clone()
            one[0, place] = model.mask_idx
            torch.log_softmax(model(one)["logits"], -1)[0, place].cpu()


def measure(name: str, args: argparse.Namespace, folder: Path) -> list[dict]:
    """Return the rows of one model."""
    device = args.device
    checkpoint = checkpoint_of(name, device, folder)
    embedder = Embedder(EmbedOptions(checkpoint, include=("masked_marginals",), device=device))
    tokens = random_tokens([args.residues] * max(args.proteins, args.repetitions))
    parts = [tokens[i :: args.repetitions] for i in range(args.repetitions)]
    copies, forward = forward_of(embedder, tokens[0], device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    masked(embedder, tokens[:1])  # compiles the kernels
    forward()
    together, alone, forwards = [], [], []
    for part in parts:
        forwards.append(seconds(forward, device) / copies)
        together.append(seconds(lambda part=part: masked(embedder, part), device) / len(part))
        alone.append(seconds(lambda part=part: masked(embedder, part[:1]), device))
    whats = {f"{len(parts[0])} proteins, copies packed together": together, "one protein": alone}
    if device == "cpu" or args.loop:
        model = load_esm2(checkpoint).to(device)
        one_at_a_time(model, tokens[0][:12], device)
        times = [seconds(lambda part=part: one_at_a_time(model, part[0], device), device) for part in parts]
        whats["one protein, as fair-esm's script"] = times
    forward_seconds = statistics.median(forwards) * args.residues  # of as many copies as a protein has
    return [
        {
            "model": name,
            "what": f"masked copies, {args.residues} residues: {what}",
            **card(device),
            "seconds_per_protein": statistics.median(times),
            "residues_per_second": args.residues / statistics.median(times),
            "residues_of_copies_per_second": args.residues**2 / statistics.median(times),
            "share_of_forward": forward_seconds / statistics.median(times),
            "peak_gpu_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
        }
        for what, times in whats.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["demo"], choices=MODELS)
    parser.add_argument("--proteins", type=int, default=100, help="shared out over the repetitions")
    parser.add_argument("--residues", type=int, default=198, help="of each protein")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--loop", action="store_true", help="also on a GPU: fair-esm's way, in fp32")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, args, Path(folder))
        rows += found
        for row in found:
            print(
                f"{name}, {row['what']}: {row['seconds_per_protein']:.4f} s a protein, "
                f"{row['residues_of_copies_per_second']:,.0f} residues of copies/s, "
                f"{row['share_of_forward']:.3f} of the forward",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
