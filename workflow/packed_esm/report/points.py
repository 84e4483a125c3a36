"""The proteins of a run as points: the first column of embeddings, projected to two dimensions and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ..store.embeddings import embedding_columns, sample_batches
from .colours import Colouring
from .figures import View, legend_entries, plot_message, plot_points
from .projection import COMPONENTS, MIN_POINTS, principal_components, umap_points
from .run_files import Run

MAX_POINTS = 20_000  # in a plot; more hide each other
MIN_PCA_POINTS = 3


@dataclass(frozen=True)
class Points:
    """The proteins that are drawn.

    Attributes:
        column: name of the column of embeddings.
        matrix: its values, float32 [n, E].
        colouring: values of the n proteins.
        samples: the sample of each, object [n].
        total: number of proteins in the run, at least n.
    """

    column: str
    matrix: np.ndarray
    colouring: Colouring
    samples: np.ndarray
    total: int

    @property
    def title(self) -> str:
        """What the figures show, in words."""
        shown = len(self.samples)
        of_all = f" of {self.total:,}" if shown < self.total else ""
        return f"{self.column} of {shown:,}{of_all} proteins, coloured by {self.colouring.name}"

    @property
    def legend(self) -> list[tuple[str, str, int]]:
        """Entries of the page's legend, as `legend_entries`; none where no protein is drawn."""
        return legend_entries(self.colouring) if len(self.matrix) >= MIN_PCA_POINTS else []


def read_points(run: Run, colouring: Colouring) -> Points:
    """Return the first embedding column of all proteins, or of MAX_POINTS of them drawn at random.

    Args:
        run: the files of a run.
        colouring: values of all its proteins.
    """
    total = len(run.proteins)
    shown = np.arange(total)
    if total > MAX_POINTS:
        shown = np.sort(np.random.default_rng(0).choice(total, MAX_POINTS, replace=False))
    column, matrix = _first_column([path for _, path in run.files.samples], shown)
    samples = run.proteins["sample"].to_numpy()[shown]
    return Points(column, matrix, Colouring(colouring.name, colouring.values[shown]), samples, total)


def plot_embeddings(points: Points, pca: Path, umap: Path) -> None:
    """Draw principal components and UMAP as PNG; where there are too few proteins, the figure says so."""
    count = len(points.matrix)
    if count < MIN_PCA_POINTS:
        plot_message(pca, f"Principal components: {count} proteins are too few, {MIN_PCA_POINTS} are needed.")
        plot_message(umap, f"UMAP: {count} proteins are too few, {MIN_POINTS} are needed.")
        return
    scores, share = principal_components(points.matrix, COMPONENTS)
    plot_points(pca, _component_views(scores, share), points.colouring, points.samples, points.title)
    places = umap_points(points.matrix, scores)
    if places is None:
        plot_message(umap, f"UMAP: fewer than {MIN_POINTS} embeddings differ, {MIN_POINTS} are needed.")
    else:
        plot_points(umap, [View(places, "UMAP 1", "UMAP 2")], points.colouring, points.samples, points.title)


def _component_views(scores: np.ndarray, share: np.ndarray) -> list[View]:
    """Return the views of components 1 and 2 and, where there are as many, of 3 and 4."""
    pairs = [(first, first + 1) for first in (0, 2) if first + 1 < scores.shape[1]]
    return [View(scores[:, pair], *(f"component {i + 1} ({share[i]:.0%})" for i in pair)) for pair in pairs]


def _first_column(paths: Sequence[Path], rows: np.ndarray) -> tuple[str, np.ndarray]:
    """Return (name, float32 [n, E]) of the first embedding column; `rows` are numbered over all samples."""
    name = next(n for n in pq.read_schema(paths[0]).names if n not in ("id", "digest", "length", "checksum"))
    parts, start = [], 0
    for path in paths:
        for table in sample_batches(path, columns=[name]):
            here = rows[(rows >= start) & (rows < start + len(table))] - start
            parts.append(embedding_columns(table)[name][here])
            start += len(table)
    return name, np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
