"""The tables of the page, computed from the files of a run."""

from collections.abc import Mapping

import pandas as pd

from ..outputs.table import SEQUENCE_MEASURES

WORST_SHOWN = 10
OF_8_BITS = {  # of the validation's summary
    "worst_int8_relative_l2": "residue vectors in int8, with the rounding, relative L2",
    "worst_int8_residue_cosine": "residue vectors in int8, with the rounding, cosine of the worst residue",
}


def worst_comparisons(compared: pd.DataFrame) -> list[dict]:
    """Return the compared sequences and layers whose worst residue is farthest from fair-esm's, the worst first."""
    if compared.empty:
        return []
    worst_first = compared.sort_values(["min_residue_cosine", "relative_l2"], ascending=[True, False])
    return worst_first.head(WORST_SHOWN).to_dict("records")


def worst_of_outputs(validation: Mapping) -> list[tuple[str, str]]:
    """Return (title, worst value as text) of each measure of SEQUENCE_MEASURES, and of 8 bits, that was compared."""
    found = [(measure.title, validation.get(f"worst_{measure.name}")) for measure in SEQUENCE_MEASURES]
    found += [(title, validation.get(name)) for name, title in OF_8_BITS.items()]
    return [(label, f"{worst:.8f}" if worst > 0.5 else f"{worst:.1e}") for label, worst in found if worst is not None]


def totals(stats: Mapping[str, Mapping]) -> dict:
    """Return rate, fill, time, memory and devices over all embed jobs."""
    jobs = stats.values()
    residues = sum(s["residues"] - s["reused_residues"] for s in jobs)
    seconds = sum(s["seconds"]["embed"] for s in jobs)
    pack_tokens = sum(s["pack_tokens"] for s in jobs)
    gpu_memory = [s["peak_gpu_memory_mb"] for s in jobs if s["peak_gpu_memory_mb"] is not None]
    return {
        "jobs": len(stats),
        "reused": sum(s["reused_sequences"] for s in jobs),
        "residues_per_second": residues / seconds if seconds else 0,
        "seconds": sum(sum(s["seconds"].values()) for s in jobs),
        "fill": sum(s["real_tokens"] for s in jobs) / pack_tokens if pack_tokens else None,
        "peak_memory_mb": max(s["peak_memory_mb"] for s in jobs),
        "peak_gpu_memory_mb": max(gpu_memory, default=None),
        "recomputed": sum(len(s["recomputed_in_fp32"]) for s in jobs),
        "devices": sorted({s["device"] for s in jobs}),
    }


def software(stats: Mapping[str, Mapping], here: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (package, versions in the embed jobs, version here) of each package that either has."""
    jobs = [job["versions"] for job in stats.values()]
    names = dict.fromkeys([name for versions in (*jobs, here) for name in versions])
    return [
        (name, ", ".join(sorted({versions[name] for versions in jobs if name in versions})), here.get(name, ""))
        for name in names
    ]
