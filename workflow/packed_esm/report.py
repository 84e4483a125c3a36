"""The page that a run leaves: what came in, what came out, how fast, and how near to fair-esm."""

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from .files import read_json, write_text
from .manifest import embedded, read_manifest
from .plots import group_by_key, plot_lengths, plot_pca, plot_throughput, plot_validation
from .writers import embedding_columns, sample_batches

FIGURES = {
    "pca": "Each point is a protein; proteins with like embeddings lie together.",
    "lengths": "Lengths of the embedded proteins, in residues.",
    "validation": "A sample spread over the lengths, compared with fair-esm residue by residue.",
    "throughput": "Speed of each embed job after loading the model, and how full its packs were.",
}
STAGES = ("read", "load", "reuse", "warm_up", "embed", "write")  # of an embed job
MAX_REJECTS_SHOWN = 50
MAX_POINTS = 20_000  # of the plot of embeddings; more hide each other


def write_report(
    samples: Sequence[tuple[str, Path]],
    manifest_path: Path,
    counts_path: Path,
    rejected_path: Path,
    stats_paths: Sequence[Path],
    validation_path: Path,
    validation_table_path: Path,
    figures: Path,
    html: Path,
    color_by: str = "",
) -> None:
    """Draw the figures (PNG, in the folder `figures`) and write the page (HTML, one file, works offline).

    Args:
        samples: (name, Parquet path).
        manifest_path, counts_path, rejected_path: outputs of chunking.
        stats_paths: JSON of the embed jobs.
        validation_path, validation_table_path: outputs of the validation.
        figures, html: outputs.
        color_by: colour the proteins by this `key=value` of their descriptions; empty: by sample.
    """
    counts = read_json(counts_path)
    validation = read_json(validation_path)
    stats = {path.stem: read_json(path) for path in stats_paths}
    rows = embedded(read_manifest(manifest_path))
    paths = {name: figures / f"{name}.png" for name in FIGURES}
    ordered = pd.concat([rows[rows["sample"] == name] for name, _ in samples])
    shown = np.arange(len(ordered))
    if len(ordered) > MAX_POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(ordered), MAX_POINTS, replace=False))
    column, matrix = _first_column([path for _, path in samples], shown)
    points = ordered.iloc[shown]
    groups = group_by_key(points["description"].tolist(), points["sample"].tolist(), color_by)
    plot_pca(paths["pca"], matrix, groups, f"{column}, {len(shown):,} of {len(ordered):,} proteins")
    lengths = {name: rows.loc[rows["sample"] == name, "length"].to_numpy() for name, _ in samples}
    plot_lengths(paths["lengths"], lengths)
    table = pd.read_csv(validation_table_path, sep="\t")
    plot_validation(paths["validation"], table, validation["tolerance"])
    plot_throughput(paths["throughput"], stats)
    rejected = pd.read_csv(rejected_path, sep="\t", dtype=str, keep_default_na=False)
    page = _template().render(
        counts=counts,
        validation=validation,
        totals=_totals(stats),
        samples=samples,
        rejected=rejected.head(MAX_REJECTS_SHOWN).to_dict("records"),
        rejected_total=len(rejected),
        rejected_path=rejected_path,
        settings=validation["settings"],
        figures=[(name, caption, _embedded_png(paths[name])) for name, caption in FIGURES.items()],
    )
    write_text(html, page)


def _template() -> jinja2.Template:
    # Ids and descriptions come from FASTA headers: everything is escaped.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2")


def _first_column(paths: Sequence[Path], rows: np.ndarray) -> tuple[str, np.ndarray]:
    """Return (name, float32 [n, E]) of `rows`, counted over all samples, of the first embedding column."""
    name = next(n for n in pq.read_schema(paths[0]).names if n not in ("id", "digest", "length", "checksum"))
    parts, start = [], 0
    for path in paths:
        for table in sample_batches(path, columns=[name]):
            here = rows[(rows >= start) & (rows < start + len(table))] - start
            parts.append(embedding_columns(table)[name][here])
            start += len(table)
    return name, np.concatenate(parts) if parts else np.empty((0, 1), np.float32)


def _totals(stats: dict[str, dict]) -> dict:
    """Return the sums over all embed jobs."""
    jobs = stats.values()
    embedded = sum(s["residues"] - s["reused_residues"] for s in jobs)
    seconds = sum(s["seconds"]["embed"] for s in jobs)
    pack_tokens = sum(s["pack_tokens"] for s in jobs)
    return {
        "jobs": len(stats),
        "reused": sum(s["reused_sequences"] for s in jobs),
        "residues_per_second": embedded / seconds if seconds else 0,
        "seconds": {stage: sum(s["seconds"][stage] for s in jobs) for stage in STAGES},
        "fill": sum(s["real_tokens"] for s in jobs) / pack_tokens if pack_tokens else None,
        "peak_memory_mb": max(s["peak_memory_mb"] for s in jobs),
        "recomputed": sum(len(s["recomputed_in_fp32"]) for s in jobs),
        "devices": sorted({s["device"] for s in jobs}),
    }


def _embedded_png(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
