"""How long a job takes until its first pack has run, and what of: one table, one JSON.

  python tests/benchmarks/start.py --models esm2_t33_650M_UR50D --json start.json

Random weights of a published shape. Each measurement is a process of its own; the seconds are medians of several, after
one that compiles the kernels and brings the files into the page cache. The first rows are of one step after the other:
`load: sha256` is alone, as a thread of its own computes it. The rows `job: ...` are of the steps as an embed job takes
them: the sha256 is computed while torch is imported, or is known from an earlier job. Their sum is `job: in all`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from card import card  # noqa: E402
from checkpoint_files import save_fair_esm  # noqa: E402
from conftest import random_esm2  # noqa: E402
from forward import versions  # noqa: E402
from packed_esm.checkpoints.digest import checkpoint_digest  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402
from packed_esm.system.files import write_json  # noqa: E402

BEGIN = """
import json, sys, time
from pathlib import Path
last, library, checkpoint, on, records = float(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5:]
seconds = {}
def lap(what):
    global last
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        sys.modules["torch"].cuda.synchronize()
    now = time.time()
    seconds[what], last = now - last, now
sys.path[:0] = [library, library + "/scripts"]
lap("interpreter")
"""
END = "\nprint(json.dumps(seconds))"
ONE_AFTER_THE_OTHER = """
import torch
lap("import torch")
import packed_esm.embedding.job
lap("import this library")
device = torch.device(on)
torch.zeros(1, device=device)
lap("CUDA context")
from packed_esm.checkpoints.digest import checkpoint_digest
from packed_esm.checkpoints.fair_esm import require_fair_esm
from packed_esm.checkpoints.loading import _build
from packed_esm.checkpoints.pt_files import read_pt
from packed_esm.embedding.device import DTYPES, choose_dtype
from packed_esm.model.esm2 import ESM2WithFlashAttention
require_fair_esm()
import esm
lap("load: import esm")
shape, state = read_pt(checkpoint, on == "cuda")
lap("load: open and map" if on == "cuda" else "load: read")
base = _build(checkpoint, shape, state)
lap("load: build")
ESM2WithFlashAttention(base, device, DTYPES[choose_dtype("auto", device)])
lap("load: copy to the device")
checkpoint_digest(checkpoint)
lap("load: sha256")
"""
AS_A_JOB = """
from packed_esm.checkpoints.digest import read_digests, start_digest
from _program import importing
digest = start_digest(checkpoint, read_digests(map(Path, records)))
with importing():
    import torch
    lap("import torch")
    import packed_esm.embedding.job
lap("import this library")
from packed_esm.embedding.embedder import Embedder
from packed_esm.embedding.options import EmbedOptions
from packed_esm.sequences.tokens import tokenize
embedder = Embedder(EmbedOptions(checkpoint, device=on), digest)
lap("load")
embedder.warm_up()
embedder.embed([tokenize("MKTAYIAKQR")])
lap("first pack")
seconds["in all"] = sum(seconds.values())
"""


def seconds_of(code: str, repeats: int, folder: Path, *arguments: object) -> dict[str, float]:
    """Return {step: median seconds} of a program that runs in processes of its own; the first is not counted."""
    found = []
    for _ in range(repeats + 1):
        command = [sys.executable, "-c", BEGIN + code + END, str(time.time()), str(ROOT / "workflow")]
        environment = os.environ | {"TRITON_CACHE_DIR": str(folder / "cache")}
        done = subprocess.run(
            [*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {step: statistics.median(one[step] for one in found[1:]) for step in found[0]}


def measure(name: str, device: str, repeats: int, folder: Path) -> dict[str, float]:
    """Return {step: seconds} of one model."""
    shape = MODELS[name]
    with torch.device(device):
        base = random_esm2(shape.num_layers, shape.embed_dim, shape.attention_heads).cpu()
    checkpoint = save_fair_esm(base, folder / f"random_{shape.embed_dim}.pt", contacts=True)
    del base
    known = folder / "known.json"
    write_json(known, {"checkpoint": checkpoint_digest(checkpoint)._asdict()})
    steps = seconds_of(ONE_AFTER_THE_OTHER, repeats, folder, checkpoint, device)
    for what, records in (("job", []), ("job, sha256 known", [known])):
        job = seconds_of(AS_A_JOB, repeats, folder, checkpoint, device, *records)
        steps |= {f"{what}: {step}": seconds for step, seconds in job.items()}
    checkpoint.unlink()
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["esm2_t33_650M_UR50D"], choices=MODELS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for the checkpoint (default: the machine's temporary folder)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for name in args.models:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            steps = measure(name, args.device, args.repeats, Path(folder))
        made_on = card(args.device)
        rows += [{"model": name, "what": what, **made_on, "seconds": seconds} for what, seconds in steps.items()]
        for what, seconds in steps.items():
            print(f"{name:<22}{what:<38}{seconds:8.3f} s", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
