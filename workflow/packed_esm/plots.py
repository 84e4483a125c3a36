"""Figures of a run. Each function draws one figure and writes it as PNG."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from .files import replacing

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

MAX_GROUPS = 9  # with `other`, the ten colours of tab10


def principal_components(matrix: np.ndarray, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return (scores [n, count], share of the variance of each) of the rows of `matrix`, float [n, E].

    The sign of each component is such that its largest loading is positive, so that a plot repeats.
    """
    centred = matrix.astype(np.float64) - matrix.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    vectors, values = vectors[:, ::-1][:, :count], values[::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(count)])
    return centred @ vectors, values[:count] / max(values.sum(), np.finfo(float).tiny)


def group_by_key(descriptions: Sequence[str], samples: Sequence[str], key: str) -> list[str]:
    """Return a group for each record: the value of `key=` in its description, else its sample if none has the key."""
    # A value with spaces ends where the next key begins, as in UniProt's `OS=Homo sapiens OX=9606`.
    pattern = re.compile(rf"(?:^|\s){re.escape(key)}=(.*?)(?=\s\w+=|$)") if key else None
    values = [match.group(1) if pattern and (match := pattern.search(d)) else "" for d in descriptions]
    if not any(values):
        return list(samples)
    return [value or f"no {key}" for value in values]


def plot_pca(path: Path, matrix: np.ndarray, groups: Sequence[str], title: str) -> None:
    """Draw the first four principal components of the embeddings, two a panel, coloured by group."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    if len(matrix) < 3:
        panels[0].text(0.5, 0.5, "fewer than three embeddings", ha="center", transform=panels[0].transAxes)
    else:
        scores, share = principal_components(matrix, 4)
        labels = with_other(groups)
        names = list(pd.Series(labels).value_counts().index)
        for panel, first in zip(panels, (0, 2), strict=True):
            for name in sorted(names, key=lambda name: name == "other"):
                points = scores[labels == name, first : first + 2]
                panel.scatter(
                    *points.T, s=18, alpha=0.75, linewidths=0, label=f"{name} ({len(points):,})".replace("$", r"\$")
                )
            panel.set_xlabel(f"component {first + 1} ({share[first]:.0%} of the variance)")
            panel.set_ylabel(f"component {first + 2} ({share[first + 1]:.0%})")
        panels[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle(f"Embeddings: {title}")
    _save(figure, path)


def with_other(groups: Sequence[str]) -> np.ndarray:
    """Return the groups with all but the largest, as many as there are colours, called `other`."""
    sizes = pd.Series(groups).value_counts()
    shown = set(sizes.index if len(sizes) <= MAX_GROUPS + 1 else sizes.index[:MAX_GROUPS])
    return np.array([group if group in shown else "other" for group in groups])


def plot_lengths(path: Path, lengths: Mapping[str, np.ndarray]) -> None:
    """Draw the distribution of lengths of each sample."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    every = np.concatenate([*lengths.values(), np.zeros(0)])
    if len(every):
        bins = np.geomspace(max(1, every.min()), every.max() + 1, 40)
        for sample, values in lengths.items():
            axes.hist(values, bins=bins, histtype="step", linewidth=1.6, label=f"{sample} ({len(values):,})")
        axes.set_xscale("log")
        axes.legend(frameon=False)
    axes.set_xlabel("residues")
    axes.set_ylabel("proteins")
    axes.set_title("Lengths of the embedded proteins")
    _save(figure, path)


def plot_validation(path: Path, table: pd.DataFrame, tolerance: Mapping[str, float]) -> None:
    """Draw the error of each validated sequence against fair-esm, by length and layer, with the tolerance."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    for column, panel, bound, label in (
        ("relative_l2", axes[0], tolerance["relative_l2"], "relative L2"),
        ("one_minus_cosine", axes[1], 1 - tolerance["residue_cosine"], "1 - cosine of the worst residue"),
    ):
        if len(table):
            rows = table.assign(one_minus_cosine=(1 - table["min_residue_cosine"]).clip(lower=1e-16))
            for layer, group in rows.groupby("layer"):
                values = group[column].clip(lower=1e-16)
                panel.scatter(group["length"], values, s=16, alpha=0.75, linewidths=0, label=f"layer {layer}")
            panel.set_xscale("log")
            panel.set_yscale("log")
        panel.axhline(bound, color="tab:red", linewidth=1, linestyle="--", label="tolerance")
        panel.set_xlabel("residues")
        panel.set_ylabel(label)
    axes[1].legend(frameon=False, fontsize="small")
    figure.suptitle("Difference from fair-esm (fp32, one sequence at a time)")
    _save(figure, path)


def plot_throughput(path: Path, stats: Mapping[str, Mapping]) -> None:
    """Draw residues per second and fill of each embed job."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
    names, places = list(stats), range(len(stats))
    axes[0].bar(places, [job["residues_per_second"] for job in stats.values()])
    axes[0].set_ylabel("residues / s")
    axes[1].bar(places, [job["fill"] or 0 for job in stats.values()])
    axes[1].set_ylabel("fill (real tokens / pack tokens)")
    axes[1].set_ylim(0, 1)
    for panel in axes:
        panel.set_xlabel("chunk")
        panel.set_xticks(*((places, names) if len(names) <= 40 else ([],)))
        panel.tick_params(axis="x", rotation=90 if len(names) > 8 else 0)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
