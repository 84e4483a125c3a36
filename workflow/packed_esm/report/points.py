"""The proteins of a run as points: the first column of embeddings, projected to two dimensions and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..store.embeddings import FIXED_TYPES, embedding_columns, sample_batches, sample_schema
from .colours import Colouring
from .figures import View, legend_entries, plot_message, plot_points
from .projection import COMPONENTS, MIN_POINTS, principal_components, umap_points
from .run_files import Run

MAX_POINTS = 100_000  # on the page; more hide each other, and make a page that is slow to open
MAX_VALUES = 2**27  # of embeddings, 512 MiB: fewer points of a wide model
MIN_PCA_POINTS = 3


@dataclass(frozen=True)
class Points:
    """The proteins that are drawn, and where.

    Attributes:
        column: name of the column of embeddings.
        matrix: its values, float32 [n, E].
        rows: which proteins of the run these are, int64 [n].
        total: number of proteins in the run, at least n.
        components: views of principal components, two at a time; none of fewer than MIN_PCA_POINTS proteins.
        umap: view of a UMAP; None if too few embeddings differ.
    """

    column: str
    matrix: np.ndarray
    rows: np.ndarray
    total: int
    components: list[View]
    umap: View | None

    @property
    def views(self) -> list[View]:
        """All views, the one to begin with first."""
        return ([self.umap] if self.umap else []) + self.components

    def title(self, colouring: Colouring) -> str:
        """Return what the figures show, in words."""
        shown = len(self.rows)
        of_all = f" of {self.total:,}" if shown < self.total else ""
        return f"{self.column} of {shown:,}{of_all} proteins, coloured by {colouring.name}"

    def legend(self, colouring: Colouring) -> list[tuple[str, str, int]]:
        """Return the entries of the page's legend, as `legend_entries`; none where no protein is drawn."""
        return legend_entries(colouring) if self.views else []


def choose_rows(run: Run) -> np.ndarray:
    """Return the proteins to draw, int64 [n], ascending: all, or as many as may be, at random."""
    _, width = _first_column(run.files.samples[0][1])
    total, most = run.embedded, min(MAX_POINTS, MAX_VALUES // width)
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).choice(total, most, replace=False))


def read_points(run: Run, rows: np.ndarray) -> Points:
    """Read the first embedding column of the proteins of `choose_rows`, and project it."""
    paths = [path for _, path in run.files.samples]
    column, width = _first_column(paths[0])
    total = run.embedded
    matrix = _read_column(paths, column, width, rows)
    if len(rows) < MIN_PCA_POINTS:
        return Points(column, matrix, rows, total, [], None)
    scores, share = principal_components(matrix, COMPONENTS)
    places = umap_points(matrix, scores)
    umap = None if places is None else View("UMAP", places, "UMAP 1", "UMAP 2")
    return Points(column, matrix, rows, total, _component_views(scores, share), umap)


def plot_embeddings(points: Points, colouring: Colouring, samples: np.ndarray, pca: Path, umap: Path) -> None:
    """Draw principal components and UMAP as PNG; where there are too few proteins, the figure says so.

    Args:
        points: what to draw.
        colouring: values of these proteins.
        samples: the sample of each of them.
        pca, umap: PNG.
    """
    count = len(points.rows)
    rest = (colouring, samples, points.title(colouring))
    if points.components:
        plot_points(pca, points.components, *rest)
    else:
        plot_message(pca, f"Principal components:\n{count} proteins are too few, {MIN_PCA_POINTS} are needed.")
    if points.umap:
        plot_points(umap, [points.umap], *rest)
    elif points.components:
        plot_message(umap, f"UMAP:\nfewer than {MIN_POINTS} embeddings differ, {MIN_POINTS} are needed.")
    else:
        plot_message(umap, f"UMAP:\n{count} proteins are too few, {MIN_POINTS} are needed.")


def _component_views(scores: np.ndarray, share: np.ndarray) -> list[View]:
    """Return the views of components 1 and 2 and, where there are as many, of 3 and 4."""
    views = []
    for first in (0, 2):
        if first + 1 < scores.shape[1]:
            labels = [f"component {i + 1} ({share[i]:.0%})" for i in (first, first + 1)]
            name = f"principal components {first + 1} and {first + 2}"
            views.append(View(name, scores[:, first : first + 2], *labels))
    return views


def _first_column(path: Path) -> tuple[str, int]:
    """Return name and width of the first embedding column of a sample."""
    field = next(field for field in sample_schema(path) if field.name not in FIXED_TYPES)
    return field.name, getattr(field.type, "list_size", 1)


def _read_column(paths: Sequence[Path], name: str, width: int, rows: np.ndarray) -> np.ndarray:
    """Return an embedding column, float32 [n, width]; `rows` are numbered over all samples, in ascending order."""
    matrix, start, filled = np.empty((len(rows), width), np.float32), 0, 0
    for path in paths:
        for table in sample_batches(path, columns=[name]):
            first, last = np.searchsorted(rows, [start, start + len(table)])
            values = embedding_columns(table)[name][rows[first:last] - start]
            matrix[filled : filled + len(values)] = values
            start, filled = start + len(table), filled + len(values)
    return matrix[:filled]
