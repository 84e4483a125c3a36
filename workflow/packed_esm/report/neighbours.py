"""The proteins whose embeddings are most similar to that of each protein, by cosine."""

import warnings
from dataclasses import dataclass

import numpy as np

COUNT = 5  # neighbours that the page shows of each protein
MAX_EXACT = 20_000  # proteins: above that, the search is approximate
BLOCK_VALUES = 2**24  # cosines at a time, 64 MiB
SEARCHED = 15  # neighbours in the graph of the approximate search: more than COUNT, so that few are missed


@dataclass(frozen=True)
class Neighbours:
    """The nearest proteins of each protein, the nearest first; never the protein itself.

    Attributes:
        rows: their indices, int64 [n, k]; k is COUNT, or n - 1 if that is less.
        cosines: of the two embeddings, float32 [n, k].
        exact: whether all pairs were compared.
    """

    rows: np.ndarray
    cosines: np.ndarray
    exact: bool


def nearest_by_cosine(matrix: np.ndarray, count: int = COUNT, max_exact: int = MAX_EXACT) -> Neighbours:
    """Return the nearest rows of each row of `matrix`, float32 [n, E].

    Up to `max_exact` rows all pairs are compared. Among more, pynndescent searches (Dong et al. 2011,
    doi:10.1145/1963405.1963487).
    """
    count = min(count, max(0, len(matrix) - 1))
    directions = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    exact = len(matrix) <= max_exact
    every = np.arange(len(matrix))
    rows = _compare_all(directions, every, count) if exact else _search(directions, count)
    cosines = np.empty(rows.shape, np.float32)
    for place in range(count):
        cosines[:, place] = np.einsum("ij,ij->i", directions, directions[rows[:, place]])
    return Neighbours(rows, cosines, exact)


def _compare_all(directions: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the `count` largest products with each wanted row; equal products in the order of the rows."""
    total = len(directions)
    found = np.empty((len(wanted), count), np.int64)
    step = max(1, BLOCK_VALUES // max(1, total))
    for start in range(0, len(wanted) if count else 0, step):
        here = wanted[start : start + step]
        products = directions[here] @ directions.T
        products[np.arange(len(here)), here] = -np.inf
        best = np.sort(np.argpartition(products, total - count, axis=1)[:, total - count :], axis=1)
        order = np.argsort(-np.take_along_axis(products, best, axis=1), axis=1, kind="stable")
        found[start : start + step] = np.take_along_axis(best, order, axis=1)
    return found


def _search(directions: np.ndarray, count: int) -> np.ndarray:
    """Return about the same of all rows, found by a search that compares few pairs."""
    found = search_graph(directions, SEARCHED)[0].astype(
        np.int64
    )  # of unit vectors, the nearest have the highest cosine
    # A row usually finds itself first, but equal rows may push it out of its place, or out of the list.
    others = np.argsort(found == np.arange(len(found))[:, None], axis=1, kind="stable")[:, :count]
    rows = np.take_along_axis(found, others, axis=1)
    unfinished = np.flatnonzero((rows < 0).any(axis=1))  # the search found fewer, as it may among many equal rows
    rows[unfinished] = _compare_all(directions, unfinished, count)
    return rows


def search_graph(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows int32 [n, count], Euclidean distances float32 [n, count]) of a search by pynndescent; it repeats."""
    from pynndescent import NNDescent

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to correctly find n_neighbors", UserWarning)
        return NNDescent(points, n_neighbors=count, random_state=0, n_jobs=1).neighbor_graph
