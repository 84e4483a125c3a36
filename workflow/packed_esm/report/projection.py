"""Project embeddings to two dimensions: principal components and UMAP."""

import warnings

import numpy as np

from ..errors import PackedEsmError

MIN_POINTS = 5  # distinct rows that UMAP needs
NEIGHBOURS = 15
COMPONENTS = 50  # input of UMAP: the neighbours hardly change, and are found in a fraction of the time


def principal_components(matrix: np.ndarray, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return (scores [n, count], share of the variance of each) of the rows of `matrix`, float [n, E].

    The largest loading of each component is positive, so that plots are reproducible.
    """
    centred = matrix.astype(np.float64) - matrix.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    vectors, values = vectors[:, ::-1][:, :count], values[::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return centred @ vectors, values[:count] / max(values.sum(), np.finfo(float).tiny)


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
    rows = np.ascontiguousarray(matrix).view(f"V{matrix.shape[1] * matrix.itemsize}").ravel()
    _, first, places = np.unique(rows, return_index=True, return_inverse=True)
    if len(first) < MIN_POINTS:
        return None
    distinct = scores[first].astype(np.float32)
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(NEIGHBOURS, len(distinct) - 1)
    # Exact neighbours: umap's own search among more than 4,096 points is approximate and takes longer to compile.
    distances, indices = NearestNeighbors(n_neighbors=neighbours).fit(distinct).kneighbors(distinct)
    reducer = _umap().UMAP(
        n_neighbors=neighbours,
        precomputed_knn=(indices, distances),
        init=distinct[:, :2],
        random_state=0,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)  # it cannot place new points; there are none
        return reducer.fit_transform(distinct)[places]


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
