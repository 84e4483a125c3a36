"""A second day with 1 % more records: seconds of each stage, and of chunking and looking up many known sequences.

  python tests/benchmarks/incremental.py --json incremental.json
  python tests/benchmarks/incremental.py --known 2000000 --proteins 0

First a run of the whole workflow on random proteins with the demonstration model on the CPU, then one with 1 % more:
seconds and CPU seconds of each rule, from Snakemake's benchmark files and the statistics of the jobs. Then, for each of
`--known`, a synthetic Parquet file of so many sequences with 8 numbers each, and a FASTA file of them and 1 % more:
chunk_fasta without and with the Parquet file, look_up, and a job that copies a chunk. Needs 0.8 KB of disk for each
known sequence, removed at the end.
"""

import argparse
import csv
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests/benchmarks")]

from growth import RESIDUES_PER_CHUNK, Measured, measure, write_synthetic  # noqa: E402
from packed_esm.checkpoints.digest import checkpoint_digest  # noqa: E402
from packed_esm.checkpoints.registry import DEMO_PATH  # noqa: E402
from packed_esm.embedding.earlier_places import EarlierPlaces  # noqa: E402
from packed_esm.sequences.alphabet import refget_digest  # noqa: E402
from packed_esm.sequences.fasta import read_records  # noqa: E402
from packed_esm.store.embeddings import SampleWriter, embedding_table, row_checksums  # noqa: E402
from packed_esm.store.settings import BITS  # noqa: E402
from packed_esm.system.versions import installed_version  # noqa: E402

ROWS_OF_A_GROUP = 13_107  # of 64 MiB of 1,280 numbers, as merging writes them
SHARE_OF_NEW = 0.01
RULES = ("chunk_fasta", "look_up", "merge_samples", "validate")  # with benchmark files


def two_days(folder: Path, count: int, chunks: int) -> list[dict]:
    """Return a row for each day and rule of a run of the workflow."""
    (folder / "samples.tsv").write_text("sample\tfasta\ns\ts.fasta\n")
    rows = []
    every = folder / "every.fasta"
    write_synthetic(every, round(count * (1 + SHARE_OF_NEW)))
    lines = every.read_text().splitlines(keepends=True)  # two for each record
    for day, records in enumerate((count, len(lines) // 2), 1):
        (folder / "s.fasta").write_text("".join(lines[: 2 * records]))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), "--cores", "2"]
        settings = ["samples=samples.tsv", f"chunks={chunks}", "device=cpu"]
        total = measure("snakemake", records, [*command, "--config", *settings], folder)
        rows += [{"day": day, **of_rule(folder, rule, records)} for rule in RULES]
        rows.append({"day": day, **of_embed_jobs(folder, records)})
        rows.append({"day": day, **asdict(total)})
    return rows


def of_rule(folder: Path, rule: str, records: int) -> dict:
    """Return what the jobs of a rule took together."""
    benchmarks = sorted((folder / "benchmarks/demo").glob(f"{rule}*")) + sorted(
        (folder / "benchmarks/demo" / rule).glob("*.tsv")
    )
    jobs = [row for path in benchmarks if path.is_file() for row in csv.DictReader(path.open(), delimiter="\t")]
    row = {"program": rule, "sequences": records, "jobs": len(jobs)}
    row["seconds"] = sum(float(job["s"]) for job in jobs)
    row["cpu_seconds"] = sum(float(job["cpu_time"]) for job in jobs if job["cpu_time"] not in ("NA", "-"))
    return row


def of_embed_jobs(folder: Path, records: int) -> dict:
    """Return what the embed jobs computed, and their seconds after the imports: of all, and of those that computed."""
    stats = [json.loads(path.read_text()) for path in (folder / "results/demo/chunks").glob("*.json")]
    seconds = [sum(job["seconds"].values()) for job in stats]
    computing = [taken for taken, job in zip(seconds, stats, strict=True) if job["packs"]]
    return {
        "program": "embed_chunk",
        "sequences": records,
        "jobs": len(stats),
        "seconds": sum(seconds),
        "computed": sum(job["sequences"] - job["reused_sequences"] for job in stats),
        "jobs_with_a_device": len(computing),
        "device_seconds": sum(computing),
    }


def settings_of_demo() -> dict:
    """Return the settings that a run of the demonstration model on the CPU has."""
    return {
        "model": DEMO_PATH.name,
        "model_sha256": checkpoint_digest(DEMO_PATH).sha256,
        "layers": [6],
        "pooling": ["mean"],
        "include": [],
        "windows": None,
        "dtype": "fp32",
        "attention": "sdpa",
        "device": "cpu",
        "kernels": "torch",
        "tokens_per_pack": 2048,
        "bits": BITS,
        "torch": installed_version("torch"),
    }


def write_known(fasta: Path, path: Path, count: int, width: int) -> None:
    """Write the embeddings of the first `count` proteins of a FASTA file as if a run had made them, of random bits."""
    rng, waiting = np.random.default_rng(0), []
    path.parent.mkdir(parents=True)
    with SampleWriter(path, settings_of_demo()) as writer:
        for number, record in enumerate(read_records(fasta), 1):
            if number > count:
                break
            waiting.append((refget_digest(record.sequence), len(record.sequence), record.id))
            if len(waiting) == ROWS_OF_A_GROUP or number == count:
                digests, lengths, ids = zip(*waiting, strict=True)
                columns = {"mean_6": rng.random((len(ids), width), np.float32)}
                writer.write(embedding_table(digests, lengths, columns, row_checksums(digests, columns), ids))
                waiting.clear()


def known(folder: Path, count: int, width: int = 8) -> list[dict]:
    """Return rows of chunk_fasta without and with `count` known sequences, of look_up, and of a copied chunk."""
    fasta, earlier = folder / "s.fasta", folder / "earlier/embeddings/s.parquet"
    write_synthetic(fasta, round(count * (1 + SHARE_OF_NEW)))
    write_known(fasta, earlier, count, width)
    names = [folder / f"{i}.fasta" for i in range(max(2, fasta.stat().st_size // RESIDUES_PER_CHUNK))]
    manifest, chunks = ["--manifest", str(folder / "manifest.parquet")], ["--chunks", *map(str, names)]
    words = ["--sample", "s", str(fasta), *chunks, *manifest, "--rejected", str(folder / "r"), "--counts"]
    reuse = ["--reuse", str(earlier)]
    rows = [program("chunk_fasta, nothing known", "chunk_fasta", count, [*words, str(folder / "c")], folder)]
    rows.append(program("chunk_fasta", "chunk_fasta", count, [*words, str(folder / "c"), *reuse], folder))
    model = ["--model", "demo", "--device", "cpu", "--layers", "6"]
    out = folder / "earlier.json"
    rows.append(program("look_up", "look_up", count, [*chunks, *manifest, *reuse, *model, "--out", str(out)], folder))
    places = EarlierPlaces.read(out)
    complete = [path for path in names if places.have_all(path.name)]
    last = complete[-1]
    files = ["--fasta", str(last), "--out", str(folder / "x.arrow"), "--stats", str(folder / "x.json")]
    number = places.chunks[last.name].sequences
    rows.append(
        program(
            "embed_chunk that copies", "embed_chunk", number, [*files, *reuse, *model, "--earlier", str(out)], folder
        )
    )
    row_groups = [len(groups) for path in names for groups in places.chunks[path.name].groups.values()]
    facts = {"width": width, "chunks": len(names), "copied_chunks": len(complete), "row_groups_read": sum(row_groups)}
    facts["row_groups"] = pq.read_metadata(earlier).num_row_groups
    return [asdict(row) | facts for row in rows]


def program(name: str, script: str, count: int, words: list[str], folder: Path) -> Measured:
    """Return the measurements of a program."""
    return measure(name, count, [sys.executable, str(ROOT / f"workflow/scripts/{script}.py"), *words], folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteins", type=int, default=20_000, help="of the first day; 0: leave the two days out")
    parser.add_argument("--chunks", type=int, default=8, help="of the two days")
    parser.add_argument("--known", nargs="*", type=int, default=[500_000, 2_000_000])
    parser.add_argument("--width", type=int, default=8, help="numbers of a known vector")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    parts = [lambda folder: two_days(folder, args.proteins, args.chunks)] if args.proteins else []
    parts += [lambda folder, count=count: known(folder, count, args.width) for count in args.known]
    rows = []
    for part in parts:  # without torch in this process, whose memory would count as that of its children
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            for row in part(Path(folder)):
                rows.append(row)
                print(json.dumps(row), flush=True)
    if args.json:
        from card import commit
        from merging import processor

        rows = [row | {"processor": processor(), "commit": commit()} for row in rows]
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
