"""Two dimensions out of many: principal components, and UMAP."""

import warnings

import numpy as np

from ..errors import PackedEsmError

MIN_POINTS = 5  # distinct ones; of fewer UMAP has nothing to say
NEIGHBOURS = 15
COMPONENTS = 50  # that UMAP looks at: its neighbours are hardly others, and found in a fraction of the time


def principal_components(matrix: np.ndarray, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return (scores [n, count], share of the variance of each) of the rows of `matrix`, float [n, E].

    The sign of each component is such that its largest loading is positive, so that a plot repeats.
    """
    centred = matrix.astype(np.float64) - matrix.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    vectors, values = vectors[:, ::-1][:, :count], values[::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return centred @ vectors, values[:count] / max(values.sum(), np.finfo(float).tiny)


def umap_points(matrix: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Return the place of each row in a UMAP, float32 [n, 2]; None where too few rows are distinct.

    Equal rows get one place. It begins with the first two components, so that a picture repeats and its large-scale
    order means something (Kobak and Linderman 2021, doi:10.1038/s41587-020-00809-z).

    Args:
        matrix: embeddings, float32 [n, E].
        scores: their principal components, float64 [n, C].

    Raises:
        OSError: no folder where compiled code could be kept.
    """
    rows = np.ascontiguousarray(matrix).view(f"V{matrix.shape[1] * matrix.itemsize}").ravel()
    _, first, places = np.unique(rows, return_index=True, return_inverse=True)
    if len(first) < MIN_POINTS:
        return None
    distinct = scores[first].astype(np.float32)
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(NEIGHBOURS, len(distinct) - 1)
    # Exact ones; umap's own search among more than 4,096 points is approximate, and takes longer to compile than this.
    distances, indices = NearestNeighbors(n_neighbors=neighbours).fit(distinct).kneighbors(distinct)
    reducer = _umap().UMAP(
        n_neighbors=neighbours,
        precomputed_knn=(indices, distances),
        init=distinct[:, :2],
        random_state=0,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)  # it could not place new points: none come
        return reducer.fit_transform(distinct)[places]


def _umap():  # noqa: ANN202
    """Return the package umap, such that what it compiles is kept from run to run.

    Without that, 7 s of a processor go into compilation in every run; in an environment's first run it is 28.
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
    except RuntimeError as error:  # numba's, where neither its package nor the home can be written to
        raise PackedEsmError(f"umap: {error}; set NUMBA_CACHE_DIR to a folder that can be written to") from error
    return umap
