"""Rates with each output, as shares of the forward alone: one table, one JSON.

  python tests/benchmarks/outputs.py --models esm2_t33_650M_UR50D --folders /dev/shm /tmp --json outputs.json

Random weights of a published shape; random proteins with lengths like UniProt's. Each row is the median of several
rounds in which the forward alone, the output, and a plain write of as many bytes (with fsync) take turns. The forward
alone runs on packs that are on the device already. The rate of an output includes packing, copies to and from the
device, checksums, and the files, closed and synced to the disk.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from card import card  # noqa: E402
from checkpoint_files import save_fair_esm  # noqa: E402
from conftest import random_esm2  # noqa: E402
from forward import synchronise, uniprot_like, versions  # noqa: E402
from packed_esm.embedding.embedder import Embedder  # noqa: E402
from packed_esm.embedding.kept_residues import KeptResidues, forms_of  # noqa: E402
from packed_esm.embedding.options import EmbedOptions, StorageOptions  # noqa: E402
from packed_esm.embedding.packing import iterate_packs  # noqa: E402
from packed_esm.embedding.reading import Sequences  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402
from packed_esm.store.residues import ResidueWriter  # noqa: E402

# {name: (features, layers, how they are stored)}
OUTPUTS = {
    "mean vectors": ((), (-1,), StorageOptions()),
    "float16 of each residue": (("representations",), (-1,), StorageOptions("float16")),
    "float32 of each residue": (("representations",), (-1,), StorageOptions("float32")),
    "int8 of each residue": (("representations",), (-1,), StorageOptions("int8")),
    "float16 of each residue, 3 layers": (("representations",), (-1, -2, -3), StorageOptions("float16")),
    "int8 of each residue, 3 layers": (("representations",), (-1, -2, -3), StorageOptions("int8")),
    "logits": (("logits",), (-1,), StorageOptions()),
    "contacts": (("contacts",), (-1,), StorageOptions()),
    "contacts, triangle in float16": (("contacts",), (-1,), StorageOptions("float16", "float16", "triangle")),
    "residues, logits and contacts": (("representations", "logits", "contacts"), (-1,), StorageOptions()),
    "residues, logits and contacts, small": (
        ("representations", "logits", "contacts"),
        (-1,),
        StorageOptions("int8", "float16", "triangle"),
    ),
}


def timed(device: str, work: Callable[[], object]) -> float:
    """Return the seconds of `work`."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def forward_alone(embedder: Embedder, tokens: Sequence[np.ndarray]) -> Callable[[], None]:
    """Return a function that runs the forward on all packs."""
    packs = [
        (torch.from_numpy(p.input_ids).to(embedder.device).int(), torch.from_numpy(p.cu_seqlens), p.max_seqlen)
        for p in iterate_packs(tokens, embedder.tokens_per_pack)
    ]

    def run() -> None:
        for pack in packs:
            embedder.model.forward_packed(*pack)

    return run


def embed(
    embedder: Embedder, sequences: Sequences, features: Sequence[str], storage: StorageOptions, folder: Path
) -> int:
    """Embed, with files of each residue, as a job does; return the bytes of the files."""
    paths = {feature: folder / f"{feature}.h5" for feature in features}
    if not paths:
        embedder.embed(sequences.tokens)
        return 0
    forms = forms_of(features, storage)
    with ResidueWriter(paths, forms, torch.get_num_threads()) as writer:
        keep = KeptResidues(writer, sequences, forms)
        embedder.embed(sequences.tokens, each_sequence=keep.write, stored=keep.of_forward)
        writer.finish(embedder.settings)
    for path in paths.values():
        sync(path)
    return sum(path.stat().st_size for path in paths.values())


def empty(folder: Path) -> None:
    """Remove the files of the round before: to overwrite them takes longer."""
    for path in folder.iterdir():
        path.unlink()


def sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_plainly(folder: Path, size: int) -> None:
    """Write as many bytes, 4 MiB at a time, and wait until they are on the disk."""
    block = os.urandom(2**22)
    with (folder / "plain").open("wb") as file:
        for _ in range(-(-size // len(block))):
            file.write(block)
        os.fsync(file.fileno())


def measure(model: str, what: str, checkpoint: Path, tokens: list, folder: Path, args: argparse.Namespace) -> dict:
    """Return the row of one output."""
    features, layers, storage = OUTPUTS[what]
    include = tuple(feature for feature in features if feature != "representations")
    embedder = Embedder(EmbedOptions(checkpoint, layers=layers, include=include, device=args.device))
    sequences = Sequences([f"SQ.{i}" for i in range(len(tokens))], [str(i) for i in range(len(tokens))], tokens)
    run_forward = forward_alone(embedder, tokens)
    run_output = partial(embed, embedder, sequences, features, storage, folder)
    run_forward()
    size = run_output()
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds: dict[str, list[float]] = {"forward": [], "output": [], "write": []}
    for _ in range(args.rounds):
        seconds["forward"].append(timed(args.device, run_forward))
        empty(folder)
        seconds["output"].append(timed(args.device, run_output))
        if size:
            empty(folder)
            seconds["write"].append(timed(args.device, partial(write_plainly, folder, size)))
    medians = {name: statistics.median(times) if times else None for name, times in seconds.items()}
    residues = sum(sequences.lengths)
    return {
        "model": model,
        "what": what,
        "folder": str(folder.parent),
        **card(args.device),
        "residues_per_second": residues / medians["output"],
        "forward_residues_per_second": residues / medians["forward"],
        "share_of_forward": medians["forward"] / medians["output"],
        "gigabytes": size / 1e9,
        "gigabytes_per_second": size / 1e9 / medians["output"],
        "plain_write_gigabytes_per_second": size / 1e9 / medians["write"] if size else None,
        "peak_gpu_gb": torch.cuda.max_memory_allocated() / 1e9 if args.device == "cuda" else None,
        "residues": residues,
    }


def show(row: dict) -> None:
    plain = row["plain_write_gigabytes_per_second"]
    print(
        f"{row['model']:20} {row['what']:34} {row['folder']:9} {row['residues_per_second']:11,.0f} residues/s, "
        f"{row['share_of_forward']:5.3f} of the forward ({row['forward_residues_per_second']:,.0f}), "
        f"{row['gigabytes_per_second']:5.2f} GB/s"
        + (f" (plain write {plain:.2f})" if plain else "")
        + (f", {row['peak_gpu_gb']:.1f} GB" if row["peak_gpu_gb"] else ""),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["esm2_t6_8M_UR50D"], choices=MODELS)
    parser.add_argument("--residues", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--outputs", nargs="+", default=list(OUTPUTS), choices=OUTPUTS)
    parser.add_argument("--folders", nargs="+", type=Path, default=[Path(tempfile.gettempdir())])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for model in args.models:
        shape, tokens = MODELS[model], uniprot_like(args.residues)
        with torch.device(args.device):
            base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads).cpu()
        with tempfile.TemporaryDirectory() as place:
            checkpoint = save_fair_esm(base, Path(place) / f"random_{shape.embed_dim}.pt", contacts=True)
            del base
            for folder in args.folders:
                for what in args.outputs:
                    with tempfile.TemporaryDirectory(dir=folder) as inside:
                        rows.append(measure(model, what, checkpoint, tokens, Path(inside), args))
                    show(rows[-1])
                    if args.json:
                        args.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
