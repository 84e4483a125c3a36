"""Time and memory of chunking and merging as the input grows, without a model: a table, a JSON, a plot.

  python tests/benchmarks/growth.py --fasta swissprot.fasta.gz --json growth.json --plot growth.png

Each input is made by shuffling the residues of real proteins, so lengths and composition are real and no two
sequences are equal. The chunk embeddings between the two programs are random bits of the width of 650M. Programs run
as the rules call them; time is wall time, memory the largest resident set that the kernel saw. Needs 11 KB of disk
a sequence, removed at the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

from packed_esm.sequences.alphabet import normalise  # noqa: E402
from packed_esm.sequences.fasta import read_records  # noqa: E402
from packed_esm.store.embeddings import write_chunk  # noqa: E402
from packed_esm.system.files import replacing  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

EMBED_DIM = 1280
SEQUENCES_PER_CHUNK = 62_500
SETTINGS = {"model": "random bits", "layers": [33], "pooling": ["mean"], "tokens_per_pack": 32768}


@dataclass
class Measured:
    """One program on one input."""

    program: str
    sequences: int
    seconds: float
    peak_mb: float


def measure(program: str, sequences: int, command: Sequence[str], folder: Path = Path()) -> Measured:
    """Run a command to its end and return its wall time and largest resident set."""
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "log").read_text()[-2000:])
    return Measured(program, sequences, time.perf_counter() - start, usage.ru_maxrss / 1024)


def write_shuffled(path: Path, proteins: list[np.ndarray], count: int) -> None:
    """Write `count` proteins, each a real one with its residues shuffled."""
    rng = np.random.default_rng(0)
    with path.open("wb") as handle:
        for i in range(count):
            residues = rng.permutation(proteins[i % len(proteins)])
            handle.write(b">p%d of no organism OS=None OX=%d\n%s\n" % (i, i % 50, residues.tobytes()))


def write_random_embeddings(fasta: Path, out: Path, seed: int) -> None:
    """Write what an embed job would, of random bits."""
    records = [(record.id, len(record.sequence)) for record in read_records(fasta)]
    digests, lengths = zip(*records, strict=True)
    bits = np.random.default_rng(seed).integers(0, 2**32, (len(digests), EMBED_DIM), np.uint32)
    write_chunk(out, digests, lengths, {"mean_33": bits.view(np.float32)}, SETTINGS)


def grow(folder: Path, proteins: list[np.ndarray], count: int) -> list[Measured]:
    """Return time and memory of both programs on `count` sequences."""
    fasta = folder / "s.fasta"
    write_shuffled(fasta, proteins, count)
    chunks = [folder / f"{i}.fasta" for i in range(max(2, -(-count // SEQUENCES_PER_CHUNK)))]
    arrows = [chunk.with_suffix(".arrow") for chunk in chunks]
    scripts, manifest = ROOT / "workflow/scripts", str(folder / "manifest.parquet")
    arguments = ["--sample", "s", str(fasta), "--manifest", manifest, "--chunks", *map(str, chunks)]
    arguments += ["--rejected", str(folder / "rejected.tsv"), "--counts", str(folder / "counts.json")]
    chunking = measure("chunk_fasta", count, [sys.executable, str(scripts / "chunk_fasta.py"), *arguments], folder)
    fasta.unlink()
    for seed, (chunk, arrow) in enumerate(zip(chunks, arrows, strict=True)):
        write_random_embeddings(chunk, arrow, seed)
    arguments = ["--manifest", manifest, "--sample", "s", "--chunks", *map(str, arrows), "--out", str(folder / "out")]
    merging = measure("merge_sample", count, [sys.executable, str(scripts / "merge_sample.py"), *arguments], folder)
    return [chunking, merging]


def plan(folder: Path, chunks: int) -> Measured:
    """Return time and memory of a dry run of a workflow of `chunks` chunks."""
    (folder / "s.fasta").write_text(">a\nMKV\n")
    (folder / "samples.tsv").write_text("sample\tfasta\ns\ts.fasta\n")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), "--cores", "2"]
    options = ["--dry-run", "--quiet", "all", "--config", "samples=samples.tsv", f"chunks={chunks}"]
    return measure("dry run of 1 sample, chunks", chunks, [*command, *options], folder)


def plot(path: Path, results: list[Measured]) -> None:
    """Draw seconds and memory over the number of sequences; the dotted lines are proportional to it."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for panel, key, label in zip(panels, ("seconds", "peak_mb"), ("seconds", "peak memory (MiB)"), strict=True):
        for program in ("chunk_fasta", "merge_sample"):
            rows = [row for row in results if row.program == program]
            x, y = [row.sequences for row in rows], [getattr(row, key) for row in rows]
            (line,) = panel.loglog(x, y, "o-", label=program)
            if key == "seconds":
                panel.loglog(x, [y[-1] * n / x[-1] for n in x], ":", color=line.get_color())
        panel.set_xlabel("sequences")
        panel.set_ylabel(label)
        panel.legend()
    panels[1].set_ylim(bottom=50)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    examples = sorted((ROOT / "config/example").glob("*.fasta"))
    parser.add_argument("--fasta", nargs="+", type=Path, default=examples, help="real proteins (default: the example)")
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000], help="sequences")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    residues = (normalise(record.sequence) for path in args.fasta for record in read_records(path))
    proteins = [np.frombuffer(sequence.encode(), np.uint8) for sequence in residues]
    results = []
    print("| program | sequences or chunks | seconds | peak memory (MiB) |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=args.folder) as top:
        for count in args.sizes:
            folder = Path(top) / str(count)
            folder.mkdir()
            results += grow(folder, proteins, count)
            shutil.rmtree(folder)
        results.append(plan(Path(top), 1000))
    for row in results:
        print(f"| {row.program} | {row.sequences:,} | {row.seconds:.1f} | {row.peak_mb:,.0f} |")
    mean = sum(map(len, proteins)) / len(proteins)
    print(f"\nmean length {mean:.0f} residues")
    if args.json:
        figures = {"mean_length": mean, "results": [asdict(row) for row in results]}
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if args.plot:
        plot(args.plot, results)


if __name__ == "__main__":
    main()
