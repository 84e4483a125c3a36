"""CPU seconds and lines printed for few proteins: the command packed-esm beside fair-esm's extract loop.

  python tests/benchmarks/small.py [--counts 2 74 1000] [--repeats 3] [--json small.json]

The demonstration model, on CPU. The proteins are those of the example, in order; beyond them, shuffled copies.
packed-esm also validates its results and draws the report; fair-esm writes one .pt file per protein, as its
scripts/extract.py does. CPU seconds are those of all processes, user and system; of the repeats the smallest is shown.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from packed_esm.checkpoints.registry import DEMO_PATH
from packed_esm.system.tree import tree

COUNTS = (2, 74, 1000)
EXTRACT = """
import argparse, pathlib, sys, torch
from esm import FastaBatchedDataset, pretrained
torch.serialization.add_safe_globals([argparse.Namespace])
pretrained._has_regression_weights = lambda name: False  # the demonstration model has no contact head
model, alphabet = pretrained.load_model_and_alphabet_local(sys.argv[1])
model.eval()
dataset = FastaBatchedDataset.from_file(sys.argv[2])
batches = dataset.get_batch_indices(4096, extra_toks_per_seq=1)
loader = torch.utils.data.DataLoader(dataset, collate_fn=alphabet.get_batch_converter(), batch_sampler=batches)
with torch.no_grad():
    for labels, texts, tokens in loader:
        layer = model(tokens, repr_layers=[6])["representations"][6]
        for i, label in enumerate(labels):
            mean = layer[i, 1 : len(texts[i]) + 1].mean(0).clone()
            torch.save({"label": label, "mean_representations": {6: mean}}, pathlib.Path(f"{i}-{len(texts[i])}.pt"))
"""


def write_proteins(path: Path, count: int) -> None:
    """Write a FASTA file of `count` different proteins with ids of one word."""
    records = [
        (text.split("\n", 1)[0].split()[0], "".join(text.split("\n")[1:]))
        for fasta in sorted((tree() / "config" / "example").glob("*.fasta"), reverse=True)
        for text in fasta.read_text().split(">")[1:]
    ]
    random_order = random.Random(0)
    while len(records) < count:
        name, sequence = records[len(records) % 313]
        records.append((f"{name}_{len(records)}", "".join(random_order.sample(sequence, len(sequence)))))
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records[:count]))


def cpu_seconds(command: list[str], folder: Path) -> tuple[float, float, int]:
    """Run a command; return its CPU seconds with those of its children, wall seconds, and the lines that it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - start, len((done.stdout + done.stderr).splitlines())


def smallest(repeats: int, command: Callable[[Path], list[str]], count: int) -> dict:
    """Return the measurement with the fewest CPU seconds."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            write_proteins(Path(name, "proteins.fasta"), count)
            found.append(cpu_seconds(command(Path(name)), Path(name)))
    cpu, wall, lines = min(found)
    return {"cpu_seconds": round(cpu, 1), "seconds": round(wall, 1), "lines": lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="of proteins (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    programs = {
        "packed-esm": lambda folder: [sys.executable, "-m", "packed_esm.cli.main", "proteins.fasta", "device=cpu"],
        "fair-esm": lambda folder: [sys.executable, "-c", EXTRACT, str(DEMO_PATH), "proteins.fasta"],
    }
    rows = []
    print("proteins  program      CPU s  wall s  lines")
    for count in args.counts:
        for name, command in programs.items():
            row = {"proteins": count, "program": name, **smallest(args.repeats, command, count)}
            rows.append(row)
            print(f"{count:>8,}  {name:<11}{row['cpu_seconds']:>7}{row['seconds']:>8}{row['lines']:>7}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
