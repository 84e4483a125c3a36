"""What a run is going to do and what it has done, for the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..report import summary
from ..system.files import read_json
from .results import Results


def start(results: Results, settings: Mapping[str, Any]) -> str:
    """Return what a run is for, in a line."""
    samples = f"{len(results.samples):,} sample{'s' if len(results.samples) > 1 else ''}"
    chunks = f"{results.chunks:,} embed job{'s' if results.chunks > 1 else ''}"
    return f"packed-esm: {samples}, model {settings['model']}, {chunks}; results go to {results.folder}/"


def failure(logs: str) -> str:
    """Return what a user can do after a failure.

    Args:
        logs: their folder.
    """
    return (
        f"Not all jobs succeeded; their logs are in {logs}/. Remove the cause and run the same command again: finished "
        "jobs do not run again."
    )


def end(results: Results) -> str:
    """Return counts, rate, verdict and paths; empty if this run did not finish the validation."""
    embeddings, counts = results.embeddings.values(), f"{results.folder}/counts.json"
    needed = (*embeddings, results.validation, *results.statistics(), counts)
    if not all(Path(path).exists() for path in needed):
        return ""
    if any(Path(path).stat().st_mtime > Path(results.validation).stat().st_mtime for path in embeddings):
        return ""
    lines = {
        "Rate": summary.rate([read_json(path) for path in results.statistics()]),
        "Validation": summary.verdict(read_json(results.validation)),
        "Embeddings": f"{results.folder}/embeddings/",
        **({"Residues": f"{results.folder}/residues/"} if results.features else {}),
        **({"Variants": results.variants[0]} if results.variants else {}),
        "Rejected": f"{results.folder}/rejected.tsv",
        "Report": results.page,
    }
    if stale := results.stale():
        lines["Stale"] = f"{stale} (packed-esm clean, with the same files and keys, removes them)"
    text = (f"{name + ':':<12}{line}" for name, line in lines.items())
    return "\n".join(["", summary.sample_table(read_json(counts)), "", *text, ""])
