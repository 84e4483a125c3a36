"""Time, memory and disk of the programs around the model as the input grows: a table, fits, a JSON, a plot.

  python tests/benchmarks/growth.py --json growth.json --plot growth.png
  python tests/benchmarks/growth.py --parts merge plan

Proteins are random letters, as frequent as in UniProt, of 350 on average with a spread like UniProt's, so no two are
equal. The chunk embeddings that are merged are random bits of the width of 650M. Programs run as the rules call them;
time is wall time, memory the largest resident set that the kernel saw, disk the largest size of the scratch folder,
every tenth of a second. Power laws are fitted to the figures of chunk_fasta; what they say of larger inputs is
extrapolated. Needs 1.5 KB of disk a sequence for chunking and 11 KB for merging, removed at the end.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

from packed_esm.sequences.fasta import read_records  # noqa: E402
from packed_esm.store.embeddings import write_chunk  # noqa: E402
from packed_esm.system.files import replacing  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

EMBED_DIM = 1280
RESIDUES_PER_CHUNK = 20_000_000  # the default of the workflow
MEAN_LENGTH = 350
# Percent of each residue in UniProtKB/Swiss-Prot.
FREQUENT = dict(A=8.3, R=5.5, N=4.1, D=5.5, C=1.4, Q=3.9, E=6.7, G=7.1, H=2.3, I=5.9, L=9.6, K=5.8, M=2.4, F=3.9)
FREQUENT |= dict(P=4.7, S=6.6, T=5.4, W=1.1, Y=2.9, V=6.9)
PREDICTED = [60_000_000, 250_000_000]  # sequences
SETTINGS = {"model": "random bits", "layers": [33], "pooling": ["mean"], "tokens_per_pack": 32768}


@dataclass
class Measured:
    """One program on one input; `cpu_seconds`: of all its threads; `scratch_mb`: of its scratch folder."""

    program: str
    sequences: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    scratch_mb: float = 0


def measure(program: str, sequences: int, command: Sequence[str], folder: Path = Path()) -> Measured:
    """Run a command to its end and return its wall time, largest resident set and largest scratch folder."""
    start, ended, sizes = time.perf_counter(), threading.Event(), [0.0]

    def watch() -> None:
        while not ended.wait(0.1):
            sizes[0] = max(sizes[0], scratch_bytes(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    ended.set()
    watcher.join()
    if status:
        raise SystemExit((folder / "log").read_text()[-2000:])
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(program, sequences, time.perf_counter() - start, cpu, usage.ru_maxrss / 1024, sizes[0] / 1e6)


def scratch_bytes(folder: Path) -> int:
    """Return the bytes on disk of all files in scratch folders."""
    found = 0
    for path in folder.glob(".*.scratch.*/**/*"):
        with contextlib.suppress(FileNotFoundError):  # removed since
            found += path.stat().st_blocks * 512
    return found


def write_synthetic(path: Path, count: int) -> None:
    """Write `count` random proteins."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer("".join(FREQUENT).encode(), np.uint8)
    table = np.repeat(letters, [round(percent * 40) for percent in FREQUENT.values()])
    spread = 0.63
    with path.open("wb") as handle:
        for start in range(0, count, 10_000):
            numbers = range(start, min(count, start + 10_000))
            lengths = rng.lognormal(np.log(MEAN_LENGTH) - spread**2 / 2, spread, len(numbers))
            ends = np.cumsum(np.clip(lengths, 20, 35_000).astype(int)).tolist()
            text = table[rng.integers(0, len(table), ends[-1], np.uint16)].tobytes()
            parts = zip(numbers, [0, *ends], ends, strict=False)
            handle.writelines(b">p%d of no organism OS=None OX=%d\n%s\n" % (n, n % 50, text[a:b]) for n, a, b in parts)


def write_random_embeddings(fasta: Path, out: Path, seed: int) -> None:
    """Write what an embed job would, of random bits."""
    records = [(record.id, len(record.sequence)) for record in read_records(fasta)]
    digests, lengths = zip(*records, strict=True)
    bits = np.random.default_rng(seed).integers(0, 2**32, (len(digests), EMBED_DIM), np.uint32)
    write_chunk(out, digests, lengths, {"mean_33": bits.view(np.float32)}, SETTINGS)


def chunk(folder: Path, count: int) -> tuple[Measured, list[Path]]:
    """Return time, memory and scratch of chunk_fasta on `count` sequences, and the chunks."""
    fasta = folder / "s.fasta"
    write_synthetic(fasta, count)
    chunks = [folder / f"{i}.fasta" for i in range(max(2, fasta.stat().st_size // RESIDUES_PER_CHUNK))]
    arguments = ["--sample", "s", str(fasta), "--manifest", str(folder / "manifest.parquet")]
    arguments += ["--rejected", str(folder / "rejected.tsv"), "--counts", str(folder / "counts.json")]
    script = str(ROOT / "workflow/scripts/chunk_fasta.py")
    command = [sys.executable, script, *arguments, "--chunks", *map(str, chunks)]
    measured = measure("chunk_fasta", count, command, folder)
    fasta.unlink()
    return measured, chunks


def merge(folder: Path, count: int) -> Measured:
    """Return time and memory of merge_sample on `count` sequences."""
    _, chunks = chunk(folder, count)
    arrows = [chunk.with_suffix(".arrow") for chunk in chunks]
    for seed, (fasta, arrow) in enumerate(zip(chunks, arrows, strict=True)):
        write_random_embeddings(fasta, arrow, seed)
    arguments = ["--manifest", str(folder / "manifest.parquet"), "--sample", "s", "--out", str(folder / "out")]
    script = str(ROOT / "workflow/scripts/merge_sample.py")
    command = [sys.executable, script, *arguments, "--chunks", *map(str, arrows)]
    return measure("merge_sample", count, command, folder)


def plan(folder: Path, chunks: int) -> Measured:
    """Return time and memory of a dry run of a workflow of `chunks` chunks."""
    (folder / "s.fasta").write_text(">a\nMKV\n")
    (folder / "samples.tsv").write_text("sample\tfasta\ns\ts.fasta\n")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), "--cores", "2"]
    options = ["--dry-run", "--quiet", "all", "--config", "samples=samples.tsv", f"chunks={chunks}"]
    return measure("dry run of 1 sample, chunks", chunks, [*command, *options], folder)


def power_law(results: Sequence[Measured], key: str) -> tuple[float, float]:
    """Return (factor, exponent) of the power of the number of sequences that fits a figure of one program best."""
    x, y = [row.sequences for row in results], [getattr(row, key) for row in results]
    exponent, logarithm = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(logarithm)), float(exponent)


def extrapolated(results: Sequence[Measured]) -> list[Measured]:
    """Return what power laws say of larger inputs of one program."""
    laws = {key: power_law(results, key) for key in ("seconds", "cpu_seconds", "peak_mb", "scratch_mb")}
    name = f"{results[0].program}, extrapolated"
    return [
        Measured(name, count, **{key: factor * count**exponent for key, (factor, exponent) in laws.items()})
        for count in PREDICTED
    ]


def plot(path: Path, results: list[Measured]) -> None:
    """Draw the figures of each program over the number of sequences; dashed: the power law."""
    labels = {"seconds": "seconds", "peak_mb": "peak memory (MiB)", "scratch_mb": "scratch disk (MB)"}
    figure, panels = plt.subplots(1, len(labels), figsize=(11, 3.4), layout="constrained")
    programs = [name for name in ("chunk_fasta", "merge_sample") if any(row.program == name for row in results)]
    for panel, (key, label) in zip(panels, labels.items(), strict=True):
        for program in programs:
            rows = [row for row in results if row.program == program and getattr(row, key)]
            if not rows:
                continue
            x = [row.sequences for row in rows]
            (line,) = panel.loglog(x, [getattr(row, key) for row in rows], "o-", label=program)
            if program == "chunk_fasta" and len(rows) > 1:
                factor, exponent = power_law(rows, key)
                further = [x[-1], *PREDICTED]
                panel.loglog(further, [factor * n**exponent for n in further], "--", color=line.get_color())
        panel.set_xlabel("sequences")
        panel.set_ylabel(label)
        panel.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["chunk", "merge", "plan"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="what to measure (default: all)")
    sizes = [1_000_000, 3_000_000, 10_000_000]
    parser.add_argument("--sizes", nargs="+", type=int, default=sizes, help="sequences to chunk")
    merged = [10_000, 100_000, 1_000_000]
    parser.add_argument("--merge-sizes", nargs="+", type=int, default=merged, help="sequences to merge")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    print("| program | sequences or chunks | seconds | CPU seconds | peak memory (MiB) | scratch (MB) |")
    print("|---|---|---|---|---|---|")
    results: list[Measured] = []

    def add(row: Measured) -> None:
        results.append(row)
        numbers = (row.sequences, row.seconds, row.cpu_seconds, row.peak_mb, row.scratch_mb)
        print(f"| {row.program} | {' | '.join(f'{number:,.0f}' for number in numbers)} |", flush=True)

    def in_folder(work: Callable[[Path], Measured]) -> None:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            add(work(Path(folder)))

    for count in args.sizes if "chunk" in args.parts else ():
        in_folder(lambda folder, count=count: chunk(folder, count)[0])
    if len(results) > 1:
        for row in extrapolated(results):
            add(row)
    for count in args.merge_sizes if "merge" in args.parts else ():
        in_folder(lambda folder, count=count: merge(folder, count))
    if "plan" in args.parts:
        in_folder(lambda folder: plan(folder, 1000))
    if args.json:
        figures = {"mean_length": MEAN_LENGTH, "results": [asdict(row) for row in results]}
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if args.plot:
        plot(args.plot, results)


if __name__ == "__main__":
    main()
