"""Project embeddings to two dimensions: principal components and UMAP."""

import warnings

import numpy as np
import xxhash

from ..errors import PackedEsmError
from .neighbours import MAX_EXACT, search_graph

NEIGHBOURS = 15
# Distinct rows that a UMAP needs: of fewer, so many neighbours are a large part of all rows and nothing local is kept.
# Principal components show these as well, and importing umap takes 2 s of processor time.
MIN_POINTS = 100
COMPONENTS = 50  # input of UMAP: the neighbours hardly change, and are found in a fraction of the time
BLOCK_ROWS = 4096  # centred at a time, in float64


def principal_components(matrix: np.ndarray, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return (scores float64 [n, count], share of the variance of each) of the rows of `matrix`, float32 [n, E].

    The largest loading of each component is positive, so that plots are reproducible.
    """
    mean = matrix.mean(axis=0, dtype=np.float64)
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(matrix), BLOCK_ROWS)]
    covariance = sum(centred.T @ centred for centred in (matrix[block] - mean for block in blocks))
    values, vectors = np.linalg.eigh(covariance)
    vectors, values = vectors[:, ::-1][:, :count], values[::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    scores = np.concatenate([(matrix[block] - mean) @ vectors for block in blocks])
    return scores, values[:count] / max(values.sum(), np.finfo(float).tiny)


def umap_points(matrix: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Return the place of each row in a UMAP, float32 [n, 2]; None if too few rows are distinct.

    Equal rows get the same place. UMAP starts from the first two components: this makes plots reproducible and gives
    their large-scale order a meaning (Kobak and Linderman 2021, doi:10.1038/s41587-020-00809-z).

    Args:
        matrix: embeddings, float32 [n, E].
        scores: their principal components, float64 [n, C].

    Raises:
        PackedEsmError: no folder can keep the compiled code.
    """
    names = np.array([xxhash.xxh3_128_digest(row) for row in np.ascontiguousarray(matrix)], dtype="V16")
    _, first, places = np.unique(names, return_index=True, return_inverse=True)
    if len(first) < MIN_POINTS:
        return None
    distinct = scores[first].astype(np.float32)
    reducer = _umap().UMAP(
        n_neighbors=NEIGHBOURS,
        precomputed_knn=_nearest(distinct, NEIGHBOURS),
        init=distinct[:, :2],
        random_state=0,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)  # it cannot place new points; there are none
        return reducer.fit_transform(distinct)[places]


def _nearest(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, distances) of the nearest points of each point: exact, or by a search where they are many.

    Exact as long as it can be: the search takes longer to compile, and more time than it saves.
    """
    if len(points) > MAX_EXACT:
        return search_graph(points, count)
    from sklearn.neighbors import NearestNeighbors

    distances, rows = NearestNeighbors(n_neighbors=count).fit(points).kneighbors(points)
    return rows, distances


def _umap():  # noqa: ANN202
    """Import umap, and keep its compiled code for later runs.

    Without that every run compiles for 7 s of processor time. The first run in an environment takes 28 s.
    """
    try:
        import umap
        from umap import layouts, umap_

        for function in (
            umap_.smooth_knn_dist,
            umap_.compute_membership_strengths,
            layouts._nb_optimize_layout_euclidean_single_epoch,
        ):
            function.enable_caching()
    except RuntimeError as error:  # from numba, if it can write neither to its package nor to the home folder
        raise PackedEsmError(f"umap: {error}; set NUMBA_CACHE_DIR to a folder that can be written to") from error
    return umap
