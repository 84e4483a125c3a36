"""The whole embed program by stage, and how much of the forward's rate is left of it: one table, one JSON.

  python tests/benchmarks/stages.py --fasta proteins.faa.gz --models esm2_t33_650M_UR50D --json stages.json

Random weights of a published shape in a checkpoint file; the program runs twice, first without compiled kernels in
the cache, then with them. `start` is what no stage accounts for: the interpreter, imports, CUDA's start, and the end.
`after load` is the rate of everything after the model is there: read, tokenise, pack, copy, forward, pool, copy back,
write. The forward alone runs in this process on the same packs, on the device already.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from checkpoint_files import save_fair_esm  # noqa: E402
from conftest import random_esm2  # noqa: E402
from forward import seconds_of, versions  # noqa: E402
from packed_esm.embedding.device import device_name  # noqa: E402
from packed_esm.embedding.embedder import Embedder  # noqa: E402
from packed_esm.embedding.options import EmbedOptions  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.embedding.reading import read_tokens  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402
from packed_esm.sequences.alphabet import normalise  # noqa: E402
from packed_esm.sequences.fasta import read_records  # noqa: E402

STAGES = ("start", "read", "load", "warm_up", "embed", "write")


def start_up(device: str) -> dict[str, float]:
    """Return the seconds of what `start` and `load` are made of, each in a process of its own."""
    library = f"import sys; sys.path.insert(0, {str(ROOT / 'workflow')!r}); import packed_esm.embedding.job"
    commands = {
        "interpreter": [sys.executable, "-c", "pass"],
        "and torch": [sys.executable, "-c", "import torch"],
        "and this library": [sys.executable, "-c", library],
    }
    if device == "cuda":
        commands["and a CUDA context"] = [
            sys.executable,
            "-c",
            library + "; import torch; torch.zeros(1, device='cuda')",
        ]
        commands["nvidia-smi"] = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    seconds = {}
    for what, command in commands.items():
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - begin)
        seconds[what] = min(times)
    return seconds


def first_records(fasta: Path, residues: int, out: Path) -> int:
    """Write records of `fasta`, normalised, until there are as many residues; return how many there are."""
    total = 0
    with out.open("w") as file:
        for record in read_records(fasta):
            sequence = normalise(record.sequence)
            file.write(f">{record.id}\n{sequence}\n")
            total += len(sequence)
            if total >= residues:
                break
    return total


def run_program(checkpoint: Path, fasta: Path, folder: Path, options: list[str]) -> dict[str, float]:
    """Run embed_chunk.py; return the seconds of each stage."""
    program = [sys.executable, str(ROOT / "workflow/scripts/embed_chunk.py")]
    files = ["--fasta", str(fasta), "--out", str(folder / "out.arrow"), "--stats", str(folder / "out.json")]
    begin = time.perf_counter()
    done = subprocess.run(
        [*program, *files, "--model", str(checkpoint), *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TRITON_CACHE_DIR": str(folder / "cache")},
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    wall = time.perf_counter() - begin
    seconds = json.loads((folder / "out.json").read_text())["seconds"]
    return {"start": wall - sum(seconds.values())} | seconds


def forward_rate(checkpoint: Path, fasta: Path, residues: int, device: str) -> float:
    """Return residues/s of the forward alone, with the program's own settings."""
    embedder = Embedder(EmbedOptions(checkpoint, device=device))
    packs = [
        (torch.from_numpy(p.input_ids).to(device).int(), torch.from_numpy(p.cu_seqlens), p.max_seqlen)
        for p in iterate_packs(read_tokens(fasta)[2], embedder.tokens_per_pack)
    ]
    return residues / seconds_of(3, [partial(embedder.model.forward_packed, *pack) for pack in packs], device)


def measure(name: str, fasta: Path, residues: int, device: str, folder: Path) -> dict:
    """Return the row of one model shape."""
    shape = MODELS[name]
    with torch.device(device):
        base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads).cpu()
    checkpoint = save_fair_esm(base, folder / f"random_{shape.embed_dim}.pt", contacts=True)
    del base
    records = folder / "records.fasta"
    residues = first_records(fasta, residues, records)
    cold, warm = (run_program(checkpoint, records, folder, ["--device", device]) for _ in range(2))
    forward = forward_rate(checkpoint, records, residues, device)
    checkpoint.unlink()
    after_load = residues / sum(warm[stage] for stage in ("read", "embed", "write"))
    return {
        "model": name,
        "residues": residues,
        "cold": cold,
        "warm": warm,
        "residues_per_second_after_load": after_load,
        "forward_residues_per_second": forward,
        "share_of_forward": after_load / forward,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["esm2_t6_8M_UR50D"], choices=MODELS)
    parser.add_argument("--residues", type=int, nargs="+", default=[3_000_000], help="for each model, or one for all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, start = [], start_up(args.device)
    print("start: " + ", ".join(f"{what} {seconds:.2f} s" for what, seconds in start.items()), flush=True)
    for i, name in enumerate(args.models):
        with tempfile.TemporaryDirectory() as folder:
            residues = args.residues[min(i, len(args.residues) - 1)]
            rows.append(measure(name, args.fasta, residues, args.device, Path(folder)))
        row = rows[-1]
        for run in ("cold", "warm"):
            print(f"{name} {run}: " + ", ".join(f"{stage} {row[run][stage]:.2f} s" for stage in STAGES))
        print(
            f"{name}: {row['residues']:,} residues, {row['residues_per_second_after_load']:,.0f} residues/s after "
            f"load, forward alone {row['forward_residues_per_second']:,.0f}, {row['share_of_forward']:.3f} of it",
            flush=True,
        )
    if args.json:
        device = device_name(torch.device(args.device))
        args.json.write_text(
            json.dumps({"device": device, "versions": versions(), "start": start, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
