"""The summary of a run, for the terminal."""

from pathlib import Path

from ..report import summary
from ..system.files import read_json
from .results import Results


def summary_of(results: Results) -> str:
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
        "Rejected": f"{results.folder}/rejected.tsv",
        "Report": results.page,
    }
    if stale := results.stale():
        lines["Stale"] = f"{stale} (packed-esm clean removes them)"
    text = (f"{name + ':':<12}{line}" for name, line in lines.items())
    return "\n".join(["", summary.sample_table(read_json(counts)), "", *text, ""])
