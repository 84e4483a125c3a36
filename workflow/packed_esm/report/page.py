"""The page that a run leaves: what came in, what came out, how fast, and how near to fair-esm."""

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ..sequences.manifest import embedded, read_manifest
from ..store.embeddings import embedding_columns, sample_batches
from ..system.files import read_json, write_text
from ..system.versions import package_versions
from .colours import Colouring, choose_colouring, match_metadata
from .figures import (
    legend_entries,
    plot_lengths,
    plot_message,
    plot_points,
    plot_stages,
    plot_throughput,
    plot_validation,
)
from .projection import COMPONENTS, MIN_POINTS, principal_components, umap_points

FIGURES = {
    "lengths": "Lengths",
    "pca": "Principal components",
    "umap": "UMAP",
    "validation": "Validation",
    "throughput": "Rate and fill of each embed job",
    "stages": "Seconds of each embed job",
}
MAX_REJECTS_SHOWN = 50
WORST_SHOWN = 10
CONTACTS = ("contacts_abs_per_residue", "contacts_precision", "contacts_correlation")  # of the validation's table
OF_SEQUENCES = {  # in the validation's summary, what is compared besides layers and pooled vectors
    "representations_relative_l2": "residues as stored, relative L2",
    "log_likelihood_relative_l2": "log-likelihood, relative",
    "logits_relative_l2": "logits, relative L2",
    "logits_kl_max": "logits, KL divergence at a residue, nats",
    "logits_kl_mean": "logits, KL divergence, mean over residues, nats",
    "contacts_abs_per_residue": "contacts, differences of a residue (sum of probabilities)",
    "contacts_precision": "contacts, precision of the L likeliest as a share of fair-esm's",
    "contacts_correlation": "contacts, correlation",
}
MAX_POINTS = 20_000  # of the plots of embeddings; more hide each other
MIN_PCA_POINTS = 3


def write_report(
    samples: Sequence[tuple[str, Path]],
    manifest_path: Path,
    counts_path: Path,
    rejected_path: Path,
    stats_paths: Sequence[Path],
    validation_path: Path,
    validation_table_path: Path,
    captions: Path,
    figures: Path,
    html: Path,
    color_by: str = "",
    metadata_path: Path | None = None,
    workflow_versions: dict[str, str] | None = None,
    stale: str = "",
) -> None:
    """Draw the figures (PNG, in the folder `figures`) and write the page (HTML, one file, works offline).

    Args:
        samples: (name, Parquet path).
        manifest_path, counts_path, rejected_path: outputs of chunking.
        stats_paths: JSON of the embed jobs.
        validation_path, validation_table_path: outputs of the validation.
        captions: folder with the caption of each figure, one sentence of plain text in an `.rst`.
        figures, html: outputs.
        color_by: colour the proteins by this column of the metadata, or `key=value` of their descriptions.
        metadata_path: a sheet with a column `id`, or UniProt's `Entry`.
        workflow_versions: of what runs the workflow, for the page.
        stale: what to say of files in the results that are not of this run.

    Raises:
        SheetError: a mistake in the metadata sheet, or it has no row of any protein.
    """
    validation = read_json(validation_path)
    stats = {path.stem: read_json(path) for path in stats_paths}
    rows = embedded(read_manifest(manifest_path))
    rows = pd.concat([rows[rows["sample"] == name] for name, _ in samples])
    metadata = match_metadata(rows, metadata_path) if metadata_path else None
    table = pd.read_csv(
        validation_table_path,
        sep="\t",
        dtype={"sample": str, "id": str},
        keep_default_na=False,  # a sample may be called NA
        na_values=dict.fromkeys(CONTACTS, ""),  # not every map can be compared
    )
    paths = {name: figures / f"{name}.png" for name in FIGURES}
    legend = _plot_embeddings(paths, samples, rows, choose_colouring(rows, color_by, metadata))
    plot_lengths(paths["lengths"], {n: rows.loc[rows["sample"] == n, "length"].to_numpy() for n, _ in samples})
    plot_validation(paths["validation"], table, validation["tolerance"])
    plot_throughput(paths["throughput"], stats)
    plot_stages(paths["stages"], stats)
    rejected = pd.read_csv(rejected_path, sep="\t", dtype=str, keep_default_na=False)
    page = _template().render(
        counts=read_json(counts_path),
        validation=validation,
        worst=_worst(table),
        worst_of_sequences=_worst_of_sequences(validation),
        totals=_totals(stats),
        samples=samples,
        rejected=rejected.head(MAX_REJECTS_SHOWN).to_dict("records"),
        rejected_total=len(rejected),
        rejected_path=rejected_path,
        stale=stale,
        settings=validation["settings"],
        software=_software(stats, package_versions() | (workflow_versions or {})),
        legend=legend,
        metadata=metadata.matches() if metadata else "",
        figures={name: _figure(paths[name], title, captions) for name, title in FIGURES.items()},
    )
    write_text(html, page)


def _plot_embeddings(
    paths: dict[str, Path], samples: Sequence[tuple[str, Path]], rows: pd.DataFrame, colouring: Colouring
) -> dict:
    """Draw principal components and UMAP of at most MAX_POINTS proteins; return what the page says of the colours."""
    shown = np.arange(len(rows))
    if len(rows) > MAX_POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(rows), MAX_POINTS, replace=False))
    column, matrix = _first_column([path for _, path in samples], shown)
    colouring = Colouring(colouring.name, colouring.values[shown])
    names = rows["sample"].to_numpy()[shown]
    of_all = f" of {len(rows):,}" if len(shown) < len(rows) else ""
    title = f"{column} of {len(shown):,}{of_all} proteins, coloured by {colouring.name}"
    if len(matrix) < MIN_PCA_POINTS:
        plot_message(paths["pca"], f"Principal components: of {len(matrix)} proteins there are none to draw.")
        plot_message(paths["umap"], f"UMAP: {len(matrix)} proteins are too few, it needs {MIN_POINTS}.")
        return {"name": colouring.name, "entries": []}
    scores, share = principal_components(matrix, COMPONENTS)
    pairs = [(first, first + 1) for first in (0, 2) if first + 1 < scores.shape[1]]
    views = [(scores[:, pair], *(f"component {i + 1} ({share[i]:.0%})" for i in pair)) for pair in pairs]
    plot_points(paths["pca"], views, colouring, names, title)
    points = umap_points(matrix, scores)
    if points is None:
        plot_message(paths["umap"], f"UMAP: fewer than {MIN_POINTS} embeddings differ, which is too few.")
    else:
        plot_points(paths["umap"], [(points, "UMAP 1", "UMAP 2")], colouring, names, title)
    return {"name": colouring.name, "entries": legend_entries(colouring)}


def _template() -> jinja2.Template:
    # Ids and descriptions come from FASTA headers: everything is escaped.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


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


def _worst(table: pd.DataFrame) -> list[dict]:
    """Return the rows of the validation, a sequence and layer each, whose worst residue is farthest from fair-esm's."""
    if table.empty:
        return []
    worst_first = table.sort_values(["min_residue_cosine", "relative_l2"], ascending=[True, False])
    return worst_first.head(WORST_SHOWN).to_dict("records")


def _worst_of_sequences(validation: dict) -> list[tuple[str, str]]:
    """Return (what, worst) of what the validation compared besides layers and pooled vectors."""
    found = [(what, validation.get(f"worst_{name}")) for name, what in OF_SEQUENCES.items()]
    return [(what, f"{worst:.8f}" if worst > 0.5 else f"{worst:.1e}") for what, worst in found if worst is not None]


def _totals(stats: dict[str, dict]) -> dict:
    """Return the sums over all embed jobs."""
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


def _software(stats: dict[str, dict], here: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return (package, versions in the embed jobs, version here), for each package that is anywhere."""
    jobs = [job["versions"] for job in stats.values()]
    names = dict.fromkeys([name for versions in (*jobs, here) for name in versions])
    return [
        (name, ", ".join(sorted({versions[name] for versions in jobs if name in versions})), here.get(name, ""))
        for name in names
    ]


def _figure(path: Path, title: str, captions: Path) -> dict[str, str]:
    """Return what the page needs of a figure; the picture is part of the page."""
    caption = " ".join((captions / f"{path.stem}.rst").read_text(encoding="utf-8").split())
    source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return {"title": title, "caption": caption, "source": source}
