"""Several GPUs of one host beside one of them: rates, balance and bytes of the workflow, and of streamed weights.

  python tests/benchmarks/several_gpus.py --gpus 4 --json several_gpus.json
  python tests/benchmarks/several_gpus.py --gpus 4 --streamed esm2_t48_15B_UR50D --json streamed_on_several.json

The workflow embeds the same random proteins twice, with `--resources gpu=1` and with `gpu=GPUS`: a chunk for each GPU,
random weights of a published shape, mean vectors and float16 of each residue, merged. `after_load` adds up what each
job made after its model was there: reading, embedding and writing. `whole` is all of Snakemake, from its start to the
last merged file. `balance` is the largest chunk over the mean chunk. `bytes_equal` counts the merged files, which are
equal; a difference ends the program.

With --streamed: the weights of each GPU are in page-locked memory of the host (30 GB for 15B), and pass through the GPU
layer by layer; one GPU alone, then all at once.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from card import card  # noqa: E402
from checkpoint_files import save_fair_esm  # noqa: E402
from conftest import STANDARD, random_esm2, random_sequence  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402

GPU_LIMIT_GB = 8  # of a GPU whose weights are streamed
PASSES = 3


def write_proteins(path: Path, residues: int) -> None:
    """Write random proteins with lengths like UniProt's, about `residues` in all."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(284), 0.6, residues // 200), 20, 1022).astype(int)
    chosen = lengths[: int(np.searchsorted(lengths.cumsum(), residues))]
    path.write_text("".join(f">p{i}\n{random_sequence(n, rng, STANDARD)}\n" for i, n in enumerate(chosen)))


def run_workflow(folder: Path, checkpoint: Path, gpus: int, chunks: int, device: str) -> dict:
    """Embed proteins.fasta of the folder above, and return what the run took."""
    folder.mkdir()
    (folder / "samples.tsv").write_text(f"sample\tfasta\ns\t{folder.parent / 'proteins.fasta'}\n")
    words = {
        "samples": "samples.tsv",
        "model": checkpoint,
        "device": device,
        "per_residue": "float16",
        "chunks": chunks,
    }
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), "--directory"]
    command += [str(folder), "--cores", "all", "--resources", f"gpu={gpus}", "--quiet", "all"]
    command += ["--config", *(f"{key}={value}" for key, value in words.items())]
    start = time.perf_counter()
    done = subprocess.run([*command, "--", "merge_samples", "merge_residues"], capture_output=True, text=True)
    if done.returncode:
        sys.exit((done.stdout + done.stderr)[-3000:])
    wall = time.perf_counter() - start
    jobs = [json.loads(path.read_text()) for path in sorted(folder.glob("results/*/chunks/*.json"))]
    logs = [path.read_text() for path in folder.glob("logs/*/embed_chunk/*.log")]
    sizes = [job["residues"] for job in jobs]
    return {
        "gpus": gpus,
        "chunks": len(jobs),
        "gpus_used": sorted({gpu for log in logs for gpu in re.findall(r"GPU (\S+) is leased", log)}),
        "after_load": round(sum(map(rate_after_load, jobs)) * gpus / len(jobs)),
        "slowest_and_fastest": [round(pick(map(rate_after_load, jobs))) for pick in (min, max)],
        "whole": round(sum(sizes) / wall),
        "seconds": round(wall, 1),
        "balance": round(max(sizes) / statistics.mean(sizes), 4),
        "digests": digests(folder),
    }


def rate_after_load(job: dict) -> float:
    return job["residues"] / sum(job["seconds"][stage] for stage in ("read", "embed", "write"))


def digests(folder: Path) -> dict[str, str]:
    """Return {name: sha256} of all merged files."""
    found = {}
    for path in sorted((*folder.glob("results/*/embeddings/*"), *folder.glob("results/*/residues/*"))):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def workflow(args: argparse.Namespace) -> list[dict]:
    """Return a row for one GPU and one for all of them."""
    shape = MODELS[args.model]
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write_proteins(folder / "proteins.fasta", args.gpus * args.residues)
        base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads)
        checkpoint = save_fair_esm(base, folder / f"{args.model}.pt")
        del base
        runs = [
            run_workflow(folder / f"{gpus}", checkpoint, gpus, args.gpus, args.device)
            for gpus in sorted({1, args.gpus})
        ]
    one, several = runs[0]["digests"], runs[-1]["digests"]
    if one != several:
        sys.exit(f"not equal: {[file for file in one if one[file] != several.get(file)]}")
    for run in runs:
        run |= {f"times_{what}": round(run[what] / runs[0][what], 3) for what in ("after_load", "whole")}
        run |= {"model": args.model, "bytes_equal": len(run.pop("digests")), "cores": os.cpu_count()}
    return runs


def stream(gpu: int, name: str, barrier: "multiprocessing.synchronize.Barrier", rates: multiprocessing.Queue) -> None:
    """Put the residues/s of a GPU whose weights are streamed; all begin at once."""
    os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)  # before torch starts CUDA
    import torch
    from packed_esm.model.esm2 import ESM2WithFlashAttention
    from streamed import CUDA, Way, limited, model_of_one_layer, plan_of

    base = model_of_one_layer(name)
    with limited(GPU_LIMIT_GB):
        model = ESM2WithFlashAttention(base, CUDA, torch.float16, weights="host")
    way = Way("streamed", model, GPU_LIMIT_GB, *plan_of(name, GPU_LIMIT_GB, "host"))
    way.run()
    way.seconds.clear()
    barrier.wait()
    for _ in range(PASSES):
        way.run()
    rates.put((gpu, way.residues / statistics.median(way.seconds)))


def streamed(args: argparse.Namespace) -> list[dict]:
    """Return a row for each GPU alone and beside the others."""
    context, rows = multiprocessing.get_context("spawn"), []
    for gpus in sorted({1, args.gpus}):
        barrier, rates = context.Barrier(gpus), context.Queue()
        processes = [context.Process(target=stream, args=(gpu, args.streamed, barrier, rates)) for gpu in range(gpus)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                sys.exit(f"a process ended with status {process.exitcode}")
        measured = dict(rates.get() for _ in processes)
        alone = rows[0]["residues_per_second"] if rows else measured[0]
        rows += [
            {
                "model": args.streamed,
                "gpus": gpus,
                "gpu": gpu,
                "residues_per_second": round(rate),
                "times_alone": round(rate / alone, 3),
            }
            for gpu, rate in sorted(measured.items())
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=MODELS)
    parser.add_argument("--residues", type=int, default=2_500_000, help="of a chunk (default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="cpu tries the program without a GPU (default: %(default)s)")
    parser.add_argument("--streamed", choices=MODELS, metavar="MODEL", help="measure streamed weights of this shape")
    parser.add_argument("--folder", type=Path, help="for the files, 2 x 2.6 kB a residue (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [row | card(args.device) for row in (streamed(args) if args.streamed else workflow(args))]
    for row in rows:
        print(json.dumps(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
