"""Rates of merging and checking residue files as shares of a plain copy of the same bytes: one table, one JSON.

  python tests/benchmarks/merging.py --folders /dev/shm /tmp --json merging.json

Random values for random proteins with lengths like UniProt's, in two chunks. Each row is the median of several rounds
in which merge_residues, the check of the validation, and a plain copy take turns. The copy reads and writes 1 MiB at a
time and waits until the bytes are on the disk, as merge_residues does. The chunks are in the page cache.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from card import commit  # noqa: E402
from conftest import random_sequence  # noqa: E402
from forward import uniprot_like  # noqa: E402
from packed_esm.outputs.forms import Form  # noqa: E402
from packed_esm.sequences.chunking import chunk_samples  # noqa: E402
from packed_esm.sequences.fasta import read_records  # noqa: E402
from packed_esm.sequences.manifest import embedded, read_manifest  # noqa: E402
from packed_esm.store.merge_residues import merge_residues  # noqa: E402
from packed_esm.store.residue_checks import check_residues  # noqa: E402
from packed_esm.store.residues import ResidueWriter  # noqa: E402

SHAPES = {"representations": (1280, np.float16), "logits": (33, np.float32)}  # of 650M: width and dtype of a residue


def write_chunks(folder: Path, feature: str, residues: int) -> list[Path]:
    """Write the manifest `folder`/m and two chunks of random values; return the HDF5 files."""
    rng = np.random.default_rng(0)
    records = (f">p{i}\n{random_sequence(len(x) - 2, rng)}\n" for i, x in enumerate(uniprot_like(residues)))
    (folder / "s.fasta").write_text("".join(records))
    fastas = [folder / f"{i}.fasta" for i in (1, 2)]
    chunk_samples([("s", folder / "s.fasta")], fastas, folder / "m", folder / "r", folder / "c.json")
    width, dtype = SHAPES[feature]
    for fasta in fastas:
        with ResidueWriter({feature: fasta.with_suffix(".h5")}, {feature: Form(np.dtype(dtype).name)}) as writer:
            for record in read_records(fasta):
                values = rng.random((len(record.sequence), width), np.float32).astype(dtype)
                writer.write(record.id, {feature: values}, record.id)
            writer.finish({"tokens_per_pack": 1})
    return [fasta.with_suffix(".h5") for fasta in fastas]


def copy_plainly(paths: list[Path], out: Path) -> None:
    """Copy the bytes of files to one, and wait until they are on the disk."""
    block = memoryview(bytearray(2**20))
    with out.open("wb", buffering=0) as target:
        for path in paths:
            with path.open("rb", buffering=0) as source:
                while count := source.readinto(block):
                    target.write(block[:count])
        os.fsync(target.fileno())


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of `work`."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(folder: Path, feature: str, args: argparse.Namespace) -> dict:
    """Return the row of one feature."""
    chunks, out = write_chunks(folder, feature, args.residues), folder / "merged.h5"
    rows = embedded(read_manifest(folder / "m", "s")).sort_values("position")
    works = {
        "copy": partial(copy_plainly, chunks, folder / "copy"),
        "merge": partial(merge_residues, folder / "m", {"s": out}, chunks),
        "check": partial(check_residues, out, "s", rows, feature),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(args.rounds + 1):
        for path in (out, folder / "copy"):
            path.unlink(missing_ok=True)  # to overwrite a file takes longer
        for name, work in works.items():
            seconds[name].append(timed(work))
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    size = sum(path.stat().st_size for path in chunks)
    return {
        "what": f"merge_residues, {feature} of 650M",
        "folder": str(folder.parent),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "commit": commit(),
        "datasets": len(rows),
        "gigabytes": size / 1e9,
        "merge_gigabytes_per_second": size / 1e9 / medians["merge"],
        "check_gigabytes_per_second": size / 1e9 / medians["check"],
        "copy_gigabytes_per_second": size / 1e9 / medians["copy"],
        "share_of_copy": medians["copy"] / medians["merge"],
        "merged_datasets_per_second": len(rows) / medians["merge"],
        "checked_datasets_per_second": len(rows) / medians["check"],
    }


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def show(row: dict) -> None:
    print(
        f"{row['what']:40} {row['folder']:9} merge {row['merge_gigabytes_per_second']:5.2f} GB/s, "
        f"{row['share_of_copy']:5.2f} of a plain copy ({row['copy_gigabytes_per_second']:.2f}), "
        f"{row['merged_datasets_per_second']:,.0f} datasets/s; check {row['check_gigabytes_per_second']:.2f} GB/s, "
        f"{row['checked_datasets_per_second']:,.0f} datasets/s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--residues", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--features", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--folders", nargs="+", type=Path, default=[Path(tempfile.gettempdir())])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for folder in args.folders:
        for feature in args.features:
            with tempfile.TemporaryDirectory(dir=folder) as inside:
                rows.append(measure(Path(inside), feature, args))
            show(rows[-1])
            if args.json:
                args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
