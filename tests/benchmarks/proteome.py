"""The README's table of models: memory, and time for a human proteome, computed from the rates in results/.

  python tests/benchmarks/proteome.py

Time is residues over the rate of the forward; starting the program is not counted, nor the extra work for proteins that
are longer than the measured ones (1,022 residues). A model without a measurement gets the TFLOP/s of the next smaller
model with one; its memory is the estimate by which a pack gets its size; an asterisk marks both. Rates of an
H100 are those of the H200 times the ratio measured at 650M; of an RTX 4090, those times the ratio of the peaks.
"""

import json
from pathlib import Path

from forward import uniprot_like
from packed_esm.embedding.memory import GPU_BYTES_PER_TOKEN_AND_DIM
from packed_esm.families import MODELS, ModelShape

RESULTS = Path(__file__).parent / "results"
RESIDUES = 11.4e6  # of 20,600 human proteins (UniProt, one sequence a gene)
GPU_ROW, CPU_ROW = "packed fp16 triton", "packed fp32 sdpa"
H200_PEAK, RTX_4090_PEAK = 989.5, 165.2  # TFLOP/s, fp16 with fp32 sums, dense (NVIDIA's data sheets)
H100_RATE_650M = 1.16e6 / 3.72  # residues/s (docs/correctness.md, "Embedding twice")
TOKENS_PER_PACK = {480: 131072, 5120: 32768}  # of the models without a measurement, by width


def rows(what: str) -> dict[str, dict]:
    """Return {model: measurement} of one kind of row."""
    files = sorted(RESULTS.glob("h200_*.json" if what == GPU_ROW else "cpu.json"))
    found = [row for file in files for row in json.loads(file.read_text())["rows"]]
    found = [row for row in found if row.get("what", "").startswith(what)]
    return {row["model"]: row for row in sorted(found, key=lambda row: row["peak_memory_mb"] is not None)}


def operations_per_residue(shape: ModelShape) -> float:
    """Return the operations of a forward for each residue, for lengths like UniProt's."""
    lengths = [len(tokens) for tokens in uniprot_like(260_000)]
    residues = sum(lengths) - 2 * len(lengths)
    squares = sum(length**2 for length in lengths)
    width = shape.embed_dim
    return shape.num_layers * (24 * width**2 * sum(lengths) + 4 * width * squares) / residues


def rates(measured: dict[str, dict]) -> dict[str, float]:
    """Return the residues/s of each model, measured or computed."""
    found, tflops = {}, 0.0
    for name in esm2_names():
        if name in measured:
            found[name], tflops = measured[name]["residues_per_second"], measured[name]["tflops"]
        else:
            found[name] = tflops * 1e12 / operations_per_residue(MODELS[name])
    return found


def esm2_names() -> list[str]:
    """Return the names of Meta's ESM-2, the smallest first."""
    return [name for name in MODELS if name.startswith("esm2_")]


def gigabytes(name: str, measured: dict[str, dict]) -> float:
    """Return the GPU memory of the forward: measured, else the estimate by which the size of a pack is chosen."""
    if name in measured:
        return measured[name]["peak_memory_mb"] * 2**20 / 1e9
    shape = MODELS[name]
    activations = TOKENS_PER_PACK[shape.embed_dim] * shape.embed_dim * GPU_BYTES_PER_TOKEN_AND_DIM
    return (2 * shape.parameters + activations) / 1e9


def in_words(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 60:
        return "< 1 min"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.{0 if seconds > 36000 else 1}f} h"


def table() -> str:
    """Return the table as Markdown."""
    on_gpu, on_cpu = rows(GPU_ROW), rows(CPU_ROW)
    gpu_rates, cpu_rates = rates(on_gpu), rates(on_cpu)
    h100 = H100_RATE_650M / gpu_rates["esm2_t33_650M_UR50D"]
    lines = [
        "| model | parameters | width | GPU memory | laptop CPU (2 cores) | 24 GB GPU (RTX 4090) | H100 |",
        "|---|" + "---:|" * 6,
    ]
    for name in esm2_names():
        star, star_cpu = "" if name in on_gpu else "\\*", "" if name in on_cpu else "\\*"
        memory = gigabytes(name, on_gpu)
        small = in_words(RESIDUES / gpu_rates[name] * H200_PEAK / RTX_4090_PEAK) + star
        small += "" if memory < 24 else ", streamed"
        large = in_words(RESIDUES / (gpu_rates[name] * h100)) + star
        lines.append(
            f"| `{name}` | {name.split('_')[2]} | {MODELS[name].embed_dim:,} | {memory:.1f} GB{star} "
            f"| {in_words(RESIDUES / cpu_rates[name])}{star_cpu} | {small} | {large} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
