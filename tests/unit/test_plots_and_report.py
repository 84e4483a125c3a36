"""Figures: components are those of the singular value decomposition, groups are read from descriptions."""

import numpy as np
import pandas as pd
import pytest
from packed_esm import plots


def test_principal_components_are_those_of_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1] + 7
    scores, share = plots.principal_components(matrix.astype(np.float32), 2)
    left, values, _ = np.linalg.svd(matrix - matrix.mean(0))
    assert np.allclose(np.abs(scores), np.abs(left[:, :2] * values[:2]), atol=1e-4)
    assert np.allclose(share, values[:2] ** 2 / (values**2).sum(), atol=1e-5)


def test_groups_are_values_of_a_key_up_to_the_next_key_or_else_samples():
    descriptions = ["sp|P1 Globin OS=Homo sapiens OX=9606 GN=HBB", "x family=fn3", "y"]
    assert plots.group_by_key(descriptions, ["a", "b", "c"], "OS") == ["Homo sapiens", "no OS", "no OS"]
    assert plots.group_by_key(descriptions, ["a", "b", "c"], "family") == ["no family", "fn3", "no family"]
    for key in ("", "none"):
        assert plots.group_by_key(descriptions, ["a", "b", "c"], key) == ["a", "b", "c"]


def test_small_groups_become_other():
    groups = [f"g{i}" for i in range(30) for _ in range(30 - i)]
    labels = plots.with_other(groups)
    assert set(labels) == {f"g{i}" for i in range(plots.MAX_GROUPS)} | {"other"}
    assert list(plots.with_other(["a", "b"])) == ["a", "b"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 200])
def test_every_figure_is_drawn_for_any_number_of_proteins(tmp_path, count):
    rng = np.random.default_rng(0)
    plots.plot_pca(tmp_path / "pca.png", rng.normal(size=(count, 8)), [f"g{i % 15}" for i in range(count)], "mean_6")
    plots.plot_lengths(tmp_path / "l.png", {"s": rng.integers(1, 500, count), "t": np.zeros(0)})
    columns = ["length", "layer", "relative_l2", "min_residue_cosine"]
    table = pd.DataFrame([[i + 1, 6, 0.0, 1.0] for i in range(count)], columns=columns)
    plots.plot_validation(tmp_path / "v.png", table, {"relative_l2": 1e-6, "residue_cosine": 0.999})
    stats = {str(i): {"residues_per_second": 1.0, "fill": None if i else 0.5} for i in range(count)}
    plots.plot_throughput(tmp_path / "t.png", stats)
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 3000
    assert len(list(tmp_path.iterdir())) == 4
