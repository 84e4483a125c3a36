"""Figures of a run. Each function draws one figure and writes it as PNG."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from ..outputs.table import LAYER_MEASURES, SEQUENCE_MEASURES, Measure
from ..system.files import replacing
from .colours import Colouring

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter  # noqa: E402

# Colour-blind readers can tell them apart (Petroff, arXiv:2107.02270).
PALETTE = [to_hex(colour) for colour in matplotlib.color_sequences["petroff10"]]
SCALE = "viridis"
NO_VALUE_COLOUR = "0.8"
MAX_GROUPS = 9  # with `other`, the ten colours of the palette
MAX_SAMPLES = 6  # that get a panel of their own in the plots of embeddings
MAX_LABEL = 24  # characters in a legend; the page has the names in full
SMALLEST = 1e-16  # a logarithmic scale shows zero here
plt.rcParams.update(
    {
        "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": "medium",
        "legend.frameon": False,
    }
)


@dataclass(frozen=True)
class View:
    """Points in a plane, float [n, 2], and the labels of its axes."""

    points: np.ndarray
    x_label: str
    y_label: str


def with_other(groups: Sequence[str]) -> np.ndarray:
    """Return the groups; if there are more than colours, the smallest are renamed `other`."""
    sizes = pd.Series(groups, dtype=object).value_counts()
    shown = set(sizes.index if len(sizes) <= MAX_GROUPS + 1 else sizes.index[:MAX_GROUPS])
    return np.array([group if group in shown else "other" for group in groups], dtype=object)


def legend_entries(colouring: Colouring) -> list[tuple[str, str, int]]:
    """Return (name, colour as #rrggbb, proteins) of each group, largest first, `other` last; none for numbers."""
    if colouring.numeric:
        return []
    sizes = pd.Series(with_other(colouring.values), dtype=object).value_counts()
    names = sorted(sizes.index, key=lambda name: (name == "other", -sizes[name], name))
    return [(name, PALETTE[i], int(sizes[name])) for i, name in enumerate(names)]


def plot_points(path: Path, views: Sequence[View], colouring: Colouring, samples: Sequence[str], title: str) -> None:
    """Draw proteins as points: a panel for each view and, where there are several samples, one for each sample.

    Args:
        path: PNG.
        views: of the n proteins; the panels of samples show the first one.
        colouring: values of the n proteins.
        samples: the sample of each of them.
        title: of the figure.
    """
    names = list(dict.fromkeys(samples))
    shown = names[:MAX_SAMPLES] if len(names) > 1 else []
    panels = [(view, None) for view in views] + [(views[0], name) for name in shown]
    columns = 2 if len(panels) in (1, 2, 4) else 3
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.3 * columns + 1.8, 3.1 * rows), layout="constrained")
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, (view, sample) in zip(axes.flat, panels, strict=False):
        inside = np.ones(len(view.points), bool) if sample is None else np.asarray(samples) == sample
        if sample is None and shown:
            panel.set_title("all samples")
        elif sample is not None:
            panel.scatter(*view.points[~inside].T, s=5, color="0.9", linewidths=0)
            panel.set_title(f"{sample} ({inside.sum():,})", parse_math=False)
        drawn = _scatter(panel, view.points[inside], colouring, inside)
        panel.set_xlabel(view.x_label)
        panel.set_ylabel(view.y_label)
    _add_key(figure, axes, colouring, drawn)
    if shown and len(shown) < len(names):
        title += f"; {len(shown)} of {len(names)} samples have a panel"
    figure.suptitle(title, parse_math=False)
    _save(figure, path)


def _scatter(
    panel: plt.Axes, points: np.ndarray, colouring: Colouring, inside: np.ndarray
) -> matplotlib.collections.Collection | None:
    """Draw points, rare groups above frequent ones; return the collection for a colour bar, None without one."""
    values = colouring.values[inside]
    style = {"s": 16 if len(colouring.values) < 3000 else 5, "alpha": 0.8, "linewidths": 0}
    if colouring.numeric:
        known = np.isfinite(values)
        low, high = np.nanmin(colouring.values), np.nanmax(colouring.values)
        panel.scatter(*points[~known].T, color=NO_VALUE_COLOUR, **style)
        return panel.scatter(*points[known].T, c=values[known], cmap=SCALE, vmin=low, vmax=high, **style)
    labels = with_other(colouring.values)[inside]
    for name, colour, _ in legend_entries(colouring):
        panel.scatter(*points[labels == name].T, color=colour, **style)
    return None


def _add_key(
    figure: plt.Figure,
    axes: np.ndarray,
    colouring: Colouring,
    drawn: matplotlib.collections.Collection | None,
) -> None:
    """Put the colour bar or the legend to the right of the panels."""
    if drawn is not None:
        figure.colorbar(drawn, ax=axes, label=_short(colouring.name).replace("$", r"\$"), shrink=0.8)
        return
    entries = legend_entries(colouring)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=colour) for _, colour, _ in entries]
    labels = [f"{_short(name)} ({count:,})" for name, _, count in entries]
    # Names come from the user: matplotlib must not read mathematics into them.
    for text in figure.legend(handles, labels, loc="outside right center").get_texts():
        text.set_parse_math(False)


def plot_message(path: Path, message: str) -> None:
    """Write a figure with a message in place of a plot."""
    figure, axes = plt.subplots(figsize=(7, 1.2), layout="constrained")
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", transform=axes.transAxes)
    _save(figure, path)


def plot_lengths(path: Path, lengths: Mapping[str, np.ndarray]) -> None:
    """Draw the distribution of lengths of each sample."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    every = np.concatenate([*lengths.values(), np.zeros(0)])
    if len(every):
        bins = np.geomspace(max(1, every.min()), every.max() + 1, 40)
        shown = dict(list(lengths.items())[: len(PALETTE)])
        for sample, values in shown.items():
            axes.hist(values, bins=bins, histtype="step", linewidth=1.6, label=f"{sample} ({len(values):,})")
        _residue_axis(axes)
        title = "" if len(shown) == len(lengths) else f"{len(shown)} of {len(lengths)} samples"
        figure.legend(loc="outside right upper", title=title)
    axes.set_xlabel("residues")
    axes.set_ylabel("proteins")
    _save(figure, path)


def plot_validation(path: Path, table: pd.DataFrame, tolerance: Mapping[str, float]) -> None:
    """Draw the errors of each validated sequence against fair-esm, by length and by layer, with the tolerances."""
    shown = [x for x in SEQUENCE_MEASURES if x.axis and x.name in table and table[x.name].notna().any()]
    lines = 1 + -(-len(shown) // 3)
    figure, axes = plt.subplots(
        lines, 3, figsize=(12.5, 3.8 * lines), layout="constrained", width_ratios=[3, 3, 2], squeeze=False
    )
    _plot_layers(axes[0], table, tolerance)
    of_sequences = table.drop_duplicates(["sample", "id"]) if len(table) else table
    for panel, measure in zip(axes[1:].flat, shown, strict=False):
        _plot_errors(panel, of_sequences["length"], of_sequences, measure, PALETTE[0], "")
        _finish_errors(panel, measure, tolerance, len(table))
        panel.set_xlabel("residues")
    for panel in axes[1:].flat[len(shown) :]:
        panel.set_axis_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    _save(figure, path)


def _plot_layers(panels: Sequence[plt.Axes], rows: pd.DataFrame, tolerance: Mapping[str, float]) -> None:
    """Draw the errors of the layers: two panels by length, and one by layer."""
    layers = sorted(rows["layer"].unique()) if len(rows) else []
    colours = plt.get_cmap(SCALE)(np.linspace(0, 0.85, len(layers)))
    error, cosine = LAYER_MEASURES
    for panel, x, measure in (
        (panels[0], "length", error),
        (panels[1], "length", cosine),
        (panels[2], "layer", cosine),
    ):
        for place, (layer, colour) in enumerate(zip(layers, colours, strict=True)):
            group = rows[rows["layer"] == layer]
            aside = np.random.default_rng(0).uniform(-0.25, 0.25, len(group))  # so that points do not hide each other
            across = group[x] if x == "length" else place + aside
            _plot_errors(panel, across, group, measure, colour, f"layer {layer}")
        _finish_errors(panel, measure, tolerance, len(rows) and x == "length")
        panel.set_xlabel("residues" if x == "length" else "layer")
    panels[2].set_xticks(range(len(layers)), layers)
    panels[2].set_xlim(-0.6, max(1, len(layers)) - 0.4)


def _plot_errors(
    panel: plt.Axes, across: pd.Series, rows: pd.DataFrame, measure: Measure, colour: str, label: str
) -> None:
    errors = measure.from_best(rows[measure.name]).clip(lower=SMALLEST)
    panel.scatter(across, errors, s=16, alpha=0.8, linewidths=0, color=colour, label=label)


def _finish_errors(panel: plt.Axes, measure: Measure, tolerance: Mapping[str, float], by_length: bool) -> None:
    bound = measure.from_best(tolerance[measure.bound])
    panel.axhline(bound, color=PALETTE[2], linewidth=1.2, linestyle="--", label="tolerance")
    panel.set_yscale("log")
    panel.set_ylabel(measure.axis)
    if by_length:
        _residue_axis(panel)


def plot_throughput(path: Path, stats: Mapping[str, Mapping]) -> None:
    """Draw residues per second and fill of each embed job."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
    places = range(len(stats))
    axes[0].bar(places, [job["residues_per_second"] for job in stats.values()], width=_width(stats))
    axes[0].set_ylabel("residues / s")
    axes[0].yaxis.set_major_formatter("{x:,.0f}")
    axes[1].bar(places, [job["fill"] or 0 for job in stats.values()], width=_width(stats), color=PALETTE[1])
    axes[1].set_ylabel("fill (real tokens / pack tokens)")
    axes[1].set_ylim(0, 1)
    for panel in axes:
        _name_chunks(panel, stats)
    _save(figure, path)


def plot_stages(path: Path, stats: Mapping[str, Mapping]) -> None:
    """Draw the seconds of each embed job, its stages stacked."""
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    bottom = np.zeros(len(stats))
    for stage in next(iter(stats.values()))["seconds"] if stats else ():
        seconds = np.array([job["seconds"][stage] for job in stats.values()])
        label = f"{stage.replace('_', ' ')} ({seconds.sum():,.1f} s)"
        axes.bar(range(len(stats)), seconds, bottom=bottom, width=_width(stats), label=label)
        bottom += seconds
    axes.set_ylabel("seconds")
    _name_chunks(axes, stats)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center")  # in the order of the stack
    _save(figure, path)


def _residue_axis(axes: plt.Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", rotation=30)


def _width(stats: Mapping) -> float:
    return min(0.8, 0.25 * len(stats))


def _name_chunks(panel: plt.Axes, stats: Mapping) -> None:
    """Name the chunks on the axis, or only count them if they are many."""
    many = len(stats) > 40
    panel.set_xlabel(f"{len(stats):,} chunks" if many else "chunk")
    panel.set_xticks(*(([],) if many else (range(len(stats)), list(stats))))
    panel.set_xlim(-0.6, max(1, len(stats)) - 0.4)
    panel.tick_params(axis="x", rotation=90 if len(stats) > 6 else 0)


def _short(text: str) -> str:
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def _save(figure: plt.Figure, path: Path) -> None:
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the font lacks some letters; the page has the names
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
