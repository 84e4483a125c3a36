"""Digests of every output of the shipped model on a CPU: the bits that a change must not change unless it raises BITS.

  python tests/golden.py

Writes tests/golden.json anew. It refuses where bits differ from those in the file and `BITS`
(workflow/packed_esm/store/settings.py) is the same.

What a CPU computes depends on its vector instructions and on the number of threads, so all is computed in a process
that uses AVX2 and one thread. Bits also depend on torch's version and on the maker of the processor, for which MKL has
code of its own: the file has digests for those that were at hand, and some values of each output, with which all others
are compared.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "tests" / "golden.json"
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "workflow")]

from packed_esm.checkpoints.registry import DEMO_PATH  # noqa: E402
from packed_esm.families import MODELS  # noqa: E402
from packed_esm.outputs.table import INCLUDE, POOLINGS, RESIDUES  # noqa: E402
from packed_esm.sequences import alphabet  # noqa: E402
from packed_esm.store.settings import BITS  # noqa: E402

LENGTHS = (1, 2, 30, 127, 300)
LAYERS = ("0", "3", "6")
WINDOWS = ("--max-length", "100", "--action", "split", "--overlap", "20")
VALUES = 32  # of each output, in the file
TOLERANCE = 1e-6  # relative, over the values of an output
INTEL = "GenuineIntel"
ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def arrays() -> tuple[str, dict[str, np.ndarray]]:
    """Return (versions and processor that the bits depend on, {output: its values}), computed in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--into", folder]
        # MKL has the same bits with AVX2 on processors of Intel only, and on others with its oldest instructions only.
        same_bits = {"MKL_CBWR": "AVX2" if _vendor() == INTEL else "COMPATIBLE"}
        subprocess.run(command, env=os.environ | ENVIRONMENT | same_bits, check=True, stdout=subprocess.DEVNULL)
        with np.load(Path(folder) / "outputs.npz") as outputs:
            made_with = str(outputs["made_with"])
            return made_with, {name: outputs[name] for name in outputs.files if name != "made_with"}


def _vendor() -> str:
    """Return the maker of the processor, as Linux names it; elsewhere its architecture."""
    cpus = Path("/proc/cpuinfo")
    found = re.search(r"^vendor_id\s*: (\S+)", cpus.read_text() if cpus.exists() else "", re.MULTILINE)
    return found[1] if found else platform.machine()


def digests_of(outputs: dict[str, np.ndarray]) -> dict[str, str]:
    """Return {output: sha256 of its bytes}."""
    return {name: hashlib.sha256(values.tobytes()).hexdigest() for name, values in outputs.items()}


def values_of(outputs: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Return {output: VALUES of its values, evenly spread}."""
    return {name: [float(f"{value:.9g}") for value in _spread(values)] for name, values in outputs.items()}


def differing_bits(golden: dict, made_with: str, outputs: dict[str, np.ndarray]) -> list[str] | None:
    """Return the outputs whose bits are not those of the file; None where it knows no digests for `made_with`."""
    known = golden["digests"].get(made_with)
    if known is None:
        return None
    return [name for name, digest in digests_of(outputs).items() if known.get(name, digest) != digest]


def differing_values(golden: dict, outputs: dict[str, np.ndarray]) -> list[str]:
    """Return the outputs whose values are not those of the file, to TOLERANCE."""
    known = {name: np.array(values) for name, values in golden["values"].items()}
    return [
        name
        for name, values in outputs.items()
        if name in known and not _are_close(_spread(values).astype(np.float64), known[name])
    ]


def updated(golden: dict, made_with: str, outputs: dict[str, np.ndarray], bits: int) -> dict:
    """Return the content of the file with these outputs.

    Raises:
        SystemExit: bits differ from those in the file, and its number is `bits`.
    """
    if golden["bits"] != bits:
        golden = {"bits": bits, "digests": {}}
    elif differing := differing_bits(golden, made_with, outputs) or differing_values(golden, outputs):
        raise SystemExit(f"other bits of {', '.join(differing)}; raise BITS in workflow/packed_esm/store/settings.py")
    digests = golden["digests"] | {made_with: digests_of(outputs)}
    return {"bits": bits, "digests": digests, "values": values_of(outputs)}


def read() -> dict:
    """Return the content of the file; that of no outputs where there is none."""
    return json.loads(FILE.read_text()) if FILE.exists() else {"bits": BITS, "digests": {}, "values": {}}


def _spread(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1)
    return flat[np.linspace(0, len(flat) - 1, min(VALUES, len(flat))).astype(int)]


def _are_close(got: np.ndarray, want: np.ndarray) -> bool:
    return bool(np.linalg.norm(got - want) <= TOLERANCE * np.linalg.norm(want))


def _proteins() -> str:
    rng = np.random.default_rng(0)
    text = [f">p{length}\n{''.join(rng.choice(list(alphabet.RESIDUES), size=length))}\n" for length in LENGTHS]
    return "".join([*text, ">masked\nMK<mask>LLAG<mask>\n"])


def _with_contact_head(folder: Path) -> Path:
    """Return a copy of the shipped model, which has no contact head, with one of random weights beside it."""
    import torch

    path, shape = folder / DEMO_PATH.name, MODELS["demo"]
    shutil.copy(DEMO_PATH, path)
    weight = np.random.default_rng(1).normal(size=(1, shape.num_layers * shape.attention_heads)).astype(np.float32)
    head = {"weight": torch.from_numpy(weight), "bias": torch.zeros(1)}
    content = {"model": {f"contact_head.regression.{name}": tensor for name, tensor in head.items()}}
    torch.save(content, folder / f"{path.stem}-contact-regression.pt")
    return path


def _compute(folder: Path) -> None:
    """Write all outputs, by their names, to outputs.npz."""
    import torch

    (folder / "p.fasta").write_text(_proteins())
    model = _with_contact_head(folder)
    outputs = _embed(folder, model, INCLUDE, list(RESIDUES))
    whole = [name for name in INCLUDE if name != "contacts"]  # which windows do not have
    in_windows = _embed(folder, model, whole, [name for name in RESIDUES if name != "contacts"], *WINDOWS)
    outputs |= {f"{name} in windows": values for name, values in in_windows.items()}
    made_with = f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {_vendor()}"
    np.savez(folder / "outputs.npz", made_with=made_with, **outputs)


def _embed(folder: Path, model: Path, include: list[str], features: list[str], *options: str) -> dict[str, np.ndarray]:
    """Return {output: values} of the embed program."""
    import embed_chunk
    import h5py
    import pyarrow as pa

    residues = {feature: folder / f"{feature}.h5" for feature in features}
    kept = [text for feature, path in residues.items() for text in ("--residues", feature, str(path))]
    named = ["--fasta", folder / "p.fasta", "--out", folder / "p.arrow", "--stats", folder / "p.json"]
    how = ["--model", model, "--layers", *LAYERS, "--pooling", *POOLINGS, "--include", *include, "--device", "cpu"]
    how += ["--dtype", "fp32", "--attention", "sdpa", "--tokens-per-pack", "512", "--threads", "1", "--repeat", "0"]
    if embed_chunk.main([*map(str, named + how), *kept, "--residue-dtype", "float32", *options]):
        raise SystemExit("the embed program failed")
    table = pa.ipc.open_file(folder / "p.arrow").read_all()
    columns = [name for name in table.column_names if name not in ("digest", "length", "checksum")]
    outputs = {name: np.array(table[name].to_pylist(), dtype=np.float32) for name in columns}
    for feature, path in residues.items():
        with h5py.File(path) as file:
            outputs[feature] = np.concatenate([file[name][()].reshape(-1) for name in sorted(file)])
    return outputs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.into:
        _compute(args.into)
        return 0
    made_with, outputs = arrays()
    text = json.dumps(updated(read(), made_with, outputs, BITS), indent=1)
    FILE.write_text(re.sub(r"\[[^\]]*\]", lambda values: " ".join(values[0].split()), text) + "\n")
    print(f"{FILE.name}: {len(outputs)} outputs with torch {made_with}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
