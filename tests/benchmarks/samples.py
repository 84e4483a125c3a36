"""Seconds and memory of merging many samples, as shares of a plain copy of the same bytes: a table, a JSON.

  python tests/benchmarks/samples.py --samples 500 5000 --json samples.json

Synthetic embeddings, written straight as chunk files, and a manifest of samples of 4,000 records each.
All groups of a run are merged one after the other by the program that the rules call. The copy reads the merged files
and writes as many, each synced as the program does it. Between them pyarrow writes the same tables from memory, which
merging must do at least. The three take turns, `--rounds` times; each figure is the median. The chunks are in the page
cache. Needs 600 bytes of disk a record of 8 numbers, removed at the end.
"""

import argparse
import base64
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests/benchmarks")]

from card import commit  # noqa: E402
from growth import measure  # noqa: E402
from merging import processor  # noqa: E402
from packed_esm.planning.groups import sample_groups  # noqa: E402
from packed_esm.planning.lists import out_arguments  # noqa: E402
from packed_esm.sequences.manifest import SCHEMA, manifest_writer  # noqa: E402
from packed_esm.store.embeddings import SampleWriter, open_sample, sample_settings, write_chunk  # noqa: E402

SETTINGS = {"model": "random", "layers": [6], "pooling": ["mean"], "tokens_per_pack": 32768}
ROWS_OF_A_CHUNK = 62_500
MANIFEST_ROWS = 65_536  # in a row group, as chunk_fasta writes it
FIGURES = (
    "merge_seconds",
    "merge_cpu_seconds",
    "peak_mb",
    "write_seconds",
    "write_cpu_seconds",
    "copy_seconds",
    "copy_cpu_seconds",
)


def digests_of(numbers: np.ndarray) -> list[str]:
    """Return what looks like digests of sequences, the same for the same numbers."""
    salt = (f"{number}".encode() for number in numbers.tolist())
    return [f"SQ.{base64.urlsafe_b64encode(hashlib.sha512(text).digest()[:24]).decode()}" for text in salt]


def write_chunks(folder: Path, records: int, width: int) -> list[Path]:
    """Write chunks with a sequence for each record."""
    rng, paths = np.random.default_rng(0), []
    for number, start in enumerate(range(0, records, ROWS_OF_A_CHUNK)):
        rows = np.arange(start, min(start + ROWS_OF_A_CHUNK, records))
        paths.append(folder / f"{number}.arrow")
        columns = {"mean_6": rng.random((len(rows), width), np.float32)}
        write_chunk(paths[-1], digests_of(rows), np.full(len(rows), 350), columns, SETTINGS)
    return paths


def write_samples(path: Path, samples: list[str], of_each: int, chunks: int) -> None:
    """Write the manifest; the records of each sample are spread over all chunks, as chunk_fasta does it."""
    records, together = len(samples) * of_each, max(1, MANIFEST_ROWS // of_each)
    with manifest_writer(path, dict.fromkeys(samples, "")) as write:
        for first in range(0, len(samples), together):
            some = samples[first : first + together]
            place = np.arange(first * of_each, (first + len(some)) * of_each)
            sequence = place % chunks * ROWS_OF_A_CHUNK + place // chunks
            sequence = np.where(sequence < records, sequence, place)
            ids, same = [f"sp|P{i:08d}|X" for i in place.tolist()], np.ones(len(place), np.int32)
            position = place % of_each
            values = [[sample for sample in some for _ in range(of_each)], position, ids, ids, 2 * position + 1]
            values += [350 * same, 0 * same, digests_of(sequence), ["accepted"] * len(place), [""] * len(place)]
            values += [sequence // ROWS_OF_A_CHUNK, sequence % ROWS_OF_A_CHUNK]
            arrays = [pa.array(value, field.type) for value, field in zip(values, SCHEMA, strict=True)]
            write(pa.Table.from_arrays(arrays, schema=SCHEMA))


def merge(
    folder: Path, samples: list[str], chunks: list[Path], fasta: Path, growth: float
) -> tuple[float, float, float]:
    """Merge all groups with the program; return (seconds, CPU seconds, largest memory in MiB).

    The groups are those of samples that all have the FASTA file `fasta`, of `growth` bytes merged for each of its own.
    """
    (folder / "chunks.txt").write_text("".join(f"{path}\n" for path in chunks))
    outs = {sample: str(folder / "merged" / f"{sample}.parquet") for sample in samples}
    program, common = str(ROOT / "workflow/scripts/merge_sample.py"), ["--manifest", str(folder / "manifest")]
    seconds, cpu, peak = 0.0, 0.0, 0.0
    for group in sample_groups(dict.fromkeys(samples, str(fasta)), growth):
        words = out_arguments({sample: outs[sample] for sample in group})
        (folder / "group.txt").write_text("".join(f"{word}\n" for word in words))
        lists = [f"@{folder / 'group.txt'}", "--chunks", f"@{folder / 'chunks.txt'}"]
        one = measure("merge_sample", len(group), [sys.executable, program, *common, *lists], folder)
        seconds, cpu, peak = seconds + one.seconds, cpu + one.cpu_seconds, max(peak, one.peak_mb)
    return seconds, cpu, peak


def write_again(source: Path, target: Path) -> tuple[float, float]:
    """Write the tables of a folder's files from memory; return (seconds, CPU seconds) without reading them."""
    target.mkdir()
    seconds, cpu = 0.0, 0.0
    for path in sorted(source.iterdir()):
        settings, tables = sample_settings(path), []
        with open_sample(path) as file:
            tables = [file.read_row_group(i).combine_chunks() for i in range(file.num_row_groups)]
        start, begun = time.perf_counter(), time.process_time()
        with SampleWriter(target / path.name, settings) as writer:
            for table in tables:
                writer.write(table)
        seconds, cpu = seconds + time.perf_counter() - start, cpu + time.process_time() - begun
    return seconds, cpu


def copy(source: Path, target: Path) -> tuple[float, float]:
    """Copy the files of a folder, each synced; return (seconds, CPU seconds)."""
    target.mkdir()
    start, begun = time.perf_counter(), time.process_time()
    for path in sorted(source.iterdir()):
        with path.open("rb") as one, (target / path.name).open("wb") as other:
            shutil.copyfileobj(one, other, 2**20)
            other.flush()
            os.fsync(other.fileno())
    return time.perf_counter() - start, time.process_time() - begun


def elsewhere(function: Callable, *arguments: object) -> Any:  # noqa: ANN401
    """Call a function in a process of its own; the memory of this one would count as that of the programs it starts."""
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def run(folder: Path, count: int, of_each: int, width: int, rounds: int) -> dict:
    """Return the row of a number of samples."""
    samples = [f"s{i}" for i in range(count)]
    chunks = elsewhere(write_chunks, folder, count * of_each, width)
    elsewhere(write_samples, folder / "manifest", samples, of_each, len(chunks))
    fasta = folder / "s.fasta"
    fasta.write_bytes(b"x" * of_each)
    found = []
    for _ in range(rounds):
        for name in ("merged", "written", "copied"):
            shutil.rmtree(folder / name, ignore_errors=True)
        merging = merge(folder, samples, chunks, fasta, 4 * width)
        writing = elsewhere(write_again, folder / "merged", folder / "written")
        found.append((*merging, *writing, *copy(folder / "merged", folder / "copied")))
    medians = dict(zip(FIGURES, map(statistics.median, zip(*found, strict=True)), strict=True))
    return {
        "samples": count,
        "width": width,
        "records": count * of_each,
        "chunks": len(chunks),
        "gigabytes": sum(path.stat().st_size for path in (folder / "merged").iterdir()) / 1e9,
        **medians,
        "merge_of_copy": statistics.median(merging / copying for merging, *_, copying, _ in found),
        "merge_of_write": statistics.median(merging / writing for merging, _, _, writing, *_ in found),
        "rounds": rounds,
        "processor": processor(),
        "commit": commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", nargs="+", type=int, default=[500, 5000])
    parser.add_argument("--records", type=int, default=4000, help="of each sample")
    parser.add_argument("--width", type=int, default=8, help="numbers of an embedding")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    print(
        "| samples | records | GB | merging, s (CPU) | writing from memory, s (CPU) | copying, s (CPU) | of writing | "
        "of copying | memory (MiB) |\n|---|---|---|---|---|---|---|---|---|"
    )
    for count in args.samples:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            row = run(Path(folder), count, args.records, args.width, args.rounds)
        rows.append(row)
        times = (
            f"{row[f'{what}_seconds']:.1f} ({row[f'{what}_cpu_seconds']:.1f})" for what in ("merge", "write", "copy")
        )
        print(
            f"| {row['samples']:,} | {row['records']:,} | {row['gigabytes']:.1f} | {' | '.join(times)} | "
            f"{row['merge_of_write']:.1f} | {row['merge_of_copy']:.1f} | {row['peak_mb']:,.0f} |",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
