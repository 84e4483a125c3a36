"""The nearest proteins by cosine: the same as by comparing all, and nearly so where they are searched for."""

import numpy as np
import pytest
from packed_esm.report import neighbours
from packed_esm.report.neighbours import nearest_by_cosine


def embeddings(count, width=32, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(40, width))[rng.integers(0, 40, count)] + rng.normal(size=(count, width))).astype(
        np.float32
    )


def by_brute_force(matrix):
    """Return all cosines, float64 [n, n], -inf for a row with itself."""
    values = matrix.astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    cosines = values @ values.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines


def test_exact_neighbours_are_those_of_brute_force(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_VALUES", 1000)  # several blocks, the last one smaller
    matrix = embeddings(307)
    cosines = by_brute_force(matrix)
    found = nearest_by_cosine(matrix)
    assert found.exact and found.rows.shape == (307, 5)
    assert (found.rows == np.argsort(-cosines, axis=1)[:, :5]).all()
    assert np.allclose(found.cosines, np.take_along_axis(cosines, found.rows, axis=1), atol=1e-6, rtol=0)


@pytest.mark.slow  # pynndescent compiles for 20 s
def test_a_search_among_many_finds_nearly_all_and_never_the_protein_itself():
    matrix = embeddings(3000)
    cosines = by_brute_force(matrix)
    found = nearest_by_cosine(matrix, max_exact=2999)
    assert not found.exact and found.rows.shape == (3000, 5)
    wanted = np.argsort(-cosines, axis=1)[:, :5]
    assert np.mean([len({*a} & {*b}) / 5 for a, b in zip(found.rows, wanted, strict=True)]) > 0.98
    assert (found.rows != np.arange(3000)[:, None]).all()
    assert np.allclose(found.cosines, np.take_along_axis(cosines, found.rows, axis=1), atol=1e-6, rtol=0)
    assert (np.diff(found.cosines, axis=1) <= 1e-6).all()
    assert (nearest_by_cosine(matrix, max_exact=2999).rows == found.rows).all()  # it repeats
    rows = nearest_by_cosine(np.ones((300, 8), np.float32), max_exact=299).rows  # of equal ones it finds too few
    assert ((rows >= 0) & (rows < 300) & (rows != np.arange(300)[:, None])).all()
    assert all(len({*row}) == 5 for row in rows)


def test_equal_embeddings_are_neighbours_of_each_other():
    matrix = np.repeat(embeddings(20), 3, axis=0)
    found = nearest_by_cosine(matrix)
    assert (np.sort(found.rows[:, :2], axis=1) // 3 == np.arange(60)[:, None] // 3).all()
    assert np.allclose(found.cosines[:, :2], 1, atol=1e-6)
    rows = nearest_by_cosine(np.ones((300, 8), np.float32)).rows
    assert all(i not in row and len({*row}) == 5 for i, row in enumerate(rows))


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 7])
def test_few_proteins_have_as_many_neighbours_as_there_are_others(count):
    found = nearest_by_cosine(embeddings(count))
    assert found.rows.shape == found.cosines.shape == (count, max(0, min(5, count - 1)))
    for i, row in enumerate(found.rows):
        assert i not in row and len({*row}) == len(row)


def test_an_embedding_of_zeros_has_neighbours_of_cosine_zero():
    matrix = embeddings(10)
    matrix[4] = 0
    assert (nearest_by_cosine(matrix).cosines[4] == 0).all()
