"""Rates with weights that are streamed to the GPU, within a limit of its memory, beside resident ones: a table, a JSON.

  python tests/benchmarks/streamed.py --json streamed.json
  python tests/benchmarks/streamed.py --load /dev/shm --json loading.json

Random weights of the published shapes in fp16. All layers have the values of one layer, but each has memory of its
own, page-locked on the host and on the GPU, so that no cache helps. The sequences have lengths like UniProt's, in whole
packs and whole sweeps of the size that `auto` chooses for the limit. Resident and streamed passes alternate in one
process; rates are medians of --rounds after a warm-up. While the streamed model runs, torch may take the memory of the
resident one and `gpu_limit_gb` for all that is streamed. `times_resident` compares with resident weights in packs of
the size that `auto` chooses for this card. The row `file` is one pass that makes each layer anew from weights in the
host's memory; a disk can only be slower. `bits_equal`: two packs have the bits of the resident model.

With --load: seconds and memory of the host while the 15B shape is loaded from a `.pt` and from sharded safetensors,
which are written to a folder first (30 GB each): to page-locked memory, and then as if there were none for it, so that
each layer is read from the file when it is needed. `own_memory_gb` is the most of the process's own memory while it
loads and embeds, with the page-locked weights; `beyond_weights_gb` is without them and what the process had before.
Files that are mapped do not count, as the system takes their memory back.
"""

import argparse
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from card import card  # noqa: E402
from checkpoint_files import hugging_face_config, hugging_face_tensors, save_fair_esm  # noqa: E402
from conftest import random_esm2  # noqa: E402
from forward import uniprot_like, versions  # noqa: E402
from packed_esm.embedding import memory  # noqa: E402
from packed_esm.embedding.embedder import Embedder  # noqa: E402
from packed_esm.embedding.memory import MemoryPlan, default_tokens_per_pack  # noqa: E402
from packed_esm.embedding.options import EmbedOptions  # noqa: E402
from packed_esm.embedding.packing import Pack, in_sweeps, iterate_packs  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402
from packed_esm.model.esm2 import ESM2WithFlashAttention, PackInput  # noqa: E402
from packed_esm.model.layers import SLOTS  # noqa: E402

LIMITS = {"esm2_t48_15B_UR50D": (8, 24), "esm2_t36_3B_UR50D": (4,)}  # GB
TOKENS = 131072  # of a pass, about
LEAST_LIMIT_OF_FILE = 8  # GB; one row is enough
CUDA = torch.device("cuda")


def model_of_one_layer(name: str) -> nn.Module:
    """Return fair-esm's model of a shape in fp16 on the host, whose layers are one and the same."""
    shape = MODELS[name]
    with torch.device(CUDA):
        base = random_esm2(1, shape.embed_dim, shape.attention_heads)
    base = base.half().cpu()
    base.layers = nn.ModuleList([base.layers[0]] * shape.num_layers)
    base.num_layers = shape.num_layers
    base.contact_head.regression = nn.Linear(shape.num_layers * shape.attention_heads, 1).half()
    return base


@dataclass
class Way:
    """A row of the table before its rates are known.

    Attributes:
        weights: `resident`, `streamed` or `file`.
        model: which runs.
        limit: GB of the GPU that it may take; None: all.
        pack, sweep: tokens.
        seconds: of each pass.
        peak: most GB of the GPU that it took, its weights included.
    """

    weights: str
    model: ESM2WithFlashAttention
    limit: float | None
    pack: int
    sweep: int
    seconds: list[float] = field(default_factory=list)
    peak: float = 0

    def __post_init__(self) -> None:
        together = max(1, self.sweep // self.pack)
        self.packs = max(1, round(TOKENS / self.pack / together)) * together
        self.tokens = uniprot_like(int(0.992 * self.packs * self.pack))

    @property
    def residues(self) -> int:
        return sum(len(one) - 2 for one in self.tokens)

    @property
    def weights_gb(self) -> float:
        """GB on the GPU that the model holds between passes."""
        layers = self.model.num_layers if self.weights == "resident" else SLOTS
        return (24 * layers + 4) * self.model.embed_dim**2 / 1e9

    def run(self) -> None:
        """Run a pass within the limit, and keep its seconds."""
        inputs = [input_of(pack) for pack in iterate_packs(self.tokens, self.pack)]
        with limited(self.limit and self.limit - self.weights_gb):
            held = torch.cuda.memory_reserved()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for sweep in in_sweeps(inputs, self.sweep, lambda one: len(one.input_ids)):
                self.model.forward_packs(sweep)
            torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - start)
            self.peak = max(self.peak, (torch.cuda.max_memory_reserved() - held) / 1e9 + self.weights_gb)

    def row(self, first: "Way", host_gb: float) -> dict:
        rate, best = (way.residues / statistics.median(way.seconds) for way in (self, first))
        return {
            "weights": self.weights,
            "gpu_limit_gb": self.limit,
            "tokens_per_pack": self.pack,
            "tokens_per_sweep": self.sweep // self.pack * self.pack,
            "residues_per_second": rate,
            "times_resident": rate / best,
            "peak_gpu_gb": round(self.peak, 2),
            "host_gb": round(host_gb, 2) if self.weights == "streamed" else None,
            "rounds": len(self.seconds),
        }


def input_of(pack: Pack) -> PackInput:
    return PackInput(torch.from_numpy(pack.input_ids).cuda().int(), torch.from_numpy(pack.cu_seqlens), pack.max_seqlen)


@contextmanager
def limited(gigabytes: float | None) -> Iterator[None]:
    """Let torch take so many GB more in the block than it has now; None: no limit."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    total = torch.cuda.get_device_properties(0).total_memory
    if gigabytes is not None:
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + gigabytes * 1e9) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def plan_of(name: str, gigabytes: float, weights: str) -> tuple[int, int]:
    """Return tokens of a pack and of a sweep on a card with so much memory."""
    shape, ask = MODELS[name], memory.gpu_memory
    memory.gpu_memory = lambda device: int(gigabytes * 1e9)
    try:
        plan = MemoryPlan(CUDA, shape.num_layers, shape.embed_dim, "fp16")
        return plan.tokens_per_pack(), plan.tokens_per_sweep(plan.tokens_per_pack(), 0, weights)
    finally:
        memory.gpu_memory = ask


def own_memory() -> float:
    """Return GB of this process that are of no file, with those that torch has page-locked."""
    status = Path("/proc/self/status").read_text().splitlines()
    locked = torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)
    return (sum(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon")) + locked) / 1e9


def measure(name: str, rounds: int) -> list[dict]:
    """Return the rows of one shape."""
    base, shape = model_of_one_layer(name), MODELS[name]
    resident = ESM2WithFlashAttention(base, CUDA, torch.float16)
    torch.cuda.synchronize()
    before, start = own_memory(), time.perf_counter()
    with limited(min(LIMITS[name])):
        host = ESM2WithFlashAttention(base, CUDA, torch.float16, weights="host")
    seconds, host_gb = time.perf_counter() - start, own_memory() - before
    print(f"{name}: weights made and page-locked in {seconds:.1f} s, {host_gb:.1f} GB of the host", flush=True)
    best = default_tokens_per_pack(CUDA, shape.num_layers, shape.embed_dim)
    ways = [Way("resident", resident, None, best, 0)]
    for limit in LIMITS[name]:
        ways.append(Way("streamed", host, limit, *plan_of(name, limit, "host")))
        if ways[-1].pack != best:
            ways.append(Way("resident", resident, None, ways[-1].pack, 0))
    for number in range(rounds + 1):
        for way in ways:
            way.run()
            if not number:  # a warm-up
                way.seconds.clear()
    if min(LIMITS[name]) >= LEAST_LIMIT_OF_FILE:
        file = ESM2WithFlashAttention(base, CUDA, torch.float16, weights="file")
        ways.append(Way("file", file, min(LIMITS[name]), *plan_of(name, min(LIMITS[name]), "file")))
        ways[-1].run()
    rows = []
    for way in ways:
        equal = None if way.model is resident else same_bits(resident, way.model, way.pack)
        rows.append({"model": name} | way.row(ways[0], host_gb) | {"bits_equal": equal} | card("cuda"))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def same_bits(resident: ESM2WithFlashAttention, streamed: ESM2WithFlashAttention, pack: int) -> bool:
    """Return whether both give the same finite values for two packs."""
    last = resident.num_layers
    packs = [input_of(one) for one in iterate_packs(uniprot_like(int(1.9 * pack)), pack)]
    got = [out["representations"][last].cpu() for out in streamed.forward_packs(packs)]
    want = [resident.forward_packed(*one[:3])["representations"][last].cpu() for one in packs]
    return all(map(torch.equal, got, want)) and all(bool(one.isfinite().all()) for one in want)


@contextmanager
def most_memory() -> Iterator[list[float]]:
    """Yield a list whose item is the most GB of `own_memory` in the block."""
    most, over = [own_memory()], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], own_memory())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def write_shards(base: nn.Module, folder: Path, layers_of_a_file: int = 4) -> Path:
    """Write a Hugging Face folder with an index, some layers in each file; return it."""
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hugging_face_config(base)))
    tensors, places, number = hugging_face_tensors(base), {}, 0
    groups: dict[int, dict] = {}
    for name, tensor in tensors.items():
        layer = int(name.split("encoder.layer.")[1].split(".")[0]) if "encoder.layer." in name else 0
        groups.setdefault(layer // layers_of_a_file, {})[name] = tensor
    for number, group in groups.items():
        file = f"model-{number + 1:05d}-of-{len(groups):05d}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in group.items()}, folder / file)
        places |= dict.fromkeys(group, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def write_pt(base: nn.Module, path: Path) -> Path:
    """Write a `.pt` of fair-esm in which each layer has bytes of its own."""
    own = base.state_dict()
    base.state_dict = lambda: {name: one.clone() for name, one in own.items() if "contact_head" not in name}
    return save_fair_esm(base, path)


def load_and_embed(path: Path, weights: str) -> dict:
    """Return what a model of a checkpoint takes whose weights are streamed from `host` or `file`."""
    memory.available_memory = {"host": lambda: None, "file": lambda: 0}[weights]
    before, start = own_memory(), time.perf_counter()
    with most_memory() as most:
        embedder = Embedder(EmbedOptions(path, device="cuda", weights="streamed", dtype="fp16"))
        seconds = time.perf_counter() - start
        embedder.warm_up()
        tokens = uniprot_like(TOKENS)
        start = time.perf_counter()
        embedder.embed(tokens)
        rate = sum(len(one) - 2 for one in tokens) / (time.perf_counter() - start)
    size = embedder.plan.weight_bytes / 1e9
    return {
        "seconds": seconds,
        "weights_gb": size,
        "beyond_weights_gb": most[0] - before - size if weights == "host" else None,
        "own_memory_gb": most[0],
        "residues_per_second": rate,
    }


def loading(name: str, folder: Path) -> list[dict]:
    """Return the rows of each kind of checkpoint."""
    rows = []
    for kind, write, file in (("pt", write_pt, "esm2_random.pt"), ("safetensors", write_shards, "random")):
        path = write(model_of_one_layer(name), folder / f"streamed_{file}")
        for weights in ("host", "file"):
            with ProcessPoolExecutor(1, get_context("spawn")) as process:  # none has memory of the one before
                measured = process.submit(load_and_embed, path, weights).result()
            what = {"model": name, "checkpoint": kind, "weights": weights}
            rows.append(what | measured | card("cuda"))
            print(json.dumps(rows[-1]), flush=True)
        for one in [path] if path.is_file() else [*path.iterdir()]:
            one.unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(LIMITS), choices=LIMITS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=Path, metavar="FOLDER", help="measure loading, with files in this folder")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    of_model = partial(loading, folder=args.load) if args.load else partial(measure, rounds=args.rounds)
    rows = []
    for name in args.models:
        rows += of_model(name)
        if args.json:
            args.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n")
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
