"""Figures of a run. Each function draws one figure and writes it as PNG, narrow enough for a small screen."""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from ..outputs.table import LAYER_MEASURES, SEQUENCE_MEASURES, Measure
from ..system.files import replacing
from .colours import Colouring

# Each has a contrast of 3 or more with white and with the dark page (WCAG 2.2, 1.4.11). They were chosen to differ as
# much as they can, for colour-blind readers too, as Machado et al. 2009 simulate them (doi:10.1109/TVCG.2009.113).
PALETTE = [
    *("#416888", "#e66426", "#7e976e", "#be176f", "#b16eff"),
    *("#965917", "#688dc7", "#fe36ba", "#6c3aff", "#ab11c4"),
]
GREY = "#858585"  # other samples, and proteins without a number: the same contrast
MAP = "plasma"
DARKEST, LIGHTEST = 0.38, 0.64  # of the scale from 0 to 1, on a dark and on a light page: the same contrast
MAX_GROUPS = len(PALETTE) - 1  # with `other`, the colours of the palette
MAX_SAMPLES = 6  # that get a panel of their own in the plots of embeddings
MAX_LABEL = 24  # characters in a legend; the page has the names in full
SMALLEST = 1e-16  # a logarithmic scale shows zero here
WIDTH = 4.8  # inches: letters stay legible where a screen has 400 pixels
DPI = 160
matplotlib.rcParams.update(
    {
        "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": "medium",
        "font.size": 10,
        "legend.frameon": False,
    }
)


@dataclass(frozen=True)
class View:
    """Points in a plane, float [n, 2], its name, and the labels of its axes."""

    name: str
    points: np.ndarray
    x_label: str
    y_label: str


def group_sizes(values: Sequence[str]) -> list[tuple[str, int]]:
    """Return (name, proteins) of each value, the most frequent first, equally frequent ones by name."""
    sizes = pd.Series(values, dtype=object).value_counts()
    return sorted(zip(sizes.index, map(int, sizes), strict=True), key=lambda group: (-group[1], group[0]))


def with_other(groups: Sequence[str]) -> np.ndarray:
    """Return the groups; if there are more than colours, the smallest are renamed `other`."""
    sizes = group_sizes(groups)
    shown = {name for name, _ in (sizes if len(sizes) <= len(PALETTE) else sizes[:MAX_GROUPS])}
    return np.array([group if group in shown else "other" for group in groups], dtype=object)


def legend_entries(colouring: Colouring) -> list[tuple[str, str, int]]:
    """Return (name, colour as #rrggbb, proteins) of each group, largest first, `other` last; none for numbers."""
    if colouring.numeric:
        return []
    sizes = group_sizes(colouring.values)
    if len(sizes) > len(PALETTE):
        sizes = [*sizes[:MAX_GROUPS], ("other", sum(size for _, size in sizes[MAX_GROUPS:]))]
    return [(name, colour, size) for (name, size), colour in zip(sizes, PALETTE, strict=False)]


def scales(steps: int = 32) -> dict[str, list[str]]:
    """Return the colours of numbers, low to high as #rrggbb, on a light and on a dark page."""
    colours = matplotlib.colormaps[MAP]
    light, dark = np.linspace(0, LIGHTEST, steps), np.linspace(DARKEST, 1, steps)
    return {"light": [to_hex(colours(x)) for x in light], "dark": [to_hex(colours(x)) for x in dark]}


def _scale(steps: int = 256) -> matplotlib.colors.ListedColormap:
    return matplotlib.colors.ListedColormap(scales(steps)["light"])


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
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = _panels(rows, columns, 4.2 / columns * rows + 0.9)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, (view, sample) in zip(axes.flat, panels, strict=False):
        inside = np.ones(len(view.points), bool) if sample is None else np.asarray(samples) == sample
        if sample is None and shown:
            panel.set_title("all samples")
        elif sample is not None:
            panel.scatter(*view.points[~inside].T, s=2, color=GREY, linewidths=0)
            panel.set_title(f"{_short(sample)} ({inside.sum():,})", parse_math=False)
        drawn = _scatter(panel, view.points[inside], colouring, inside)
        panel.set_xlabel(view.x_label)
        panel.set_ylabel(view.y_label)
    _add_key(figure, axes, colouring, drawn)
    if shown and len(shown) < len(names):
        title += f"; {len(shown)} of {len(names)} samples have a panel"
    figure.suptitle("\n".join(textwrap.wrap(title, 60)), parse_math=False, fontsize="medium")
    _save(figure, path)


def _panels(rows: int, columns: int, height: float) -> tuple[Figure, np.ndarray]:
    """Return a figure and its panels, [rows, columns]."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _scatter(panel: Axes, points: np.ndarray, colouring: Colouring, inside: np.ndarray) -> Collection | None:
    """Draw points, rare groups above frequent ones; return the collection for a colour bar, None without one."""
    values = colouring.values[inside]
    style = {"s": 10 if len(colouring.values) < 3000 else 3, "linewidths": 0}
    if colouring.numeric:
        known = np.isfinite(values)
        low, high = np.nanmin(colouring.values), np.nanmax(colouring.values)
        panel.scatter(*points[~known].T, color=GREY, **style)
        return panel.scatter(*points[known].T, c=values[known], cmap=_scale(), vmin=low, vmax=high, **style)
    labels = with_other(colouring.values)[inside]
    for name, colour, _ in legend_entries(colouring):
        panel.scatter(*points[labels == name].T, color=colour, **style)
    return None


def _add_key(figure: Figure, axes: np.ndarray, colouring: Colouring, drawn: Collection | None) -> None:
    """Put the colour bar or the legend below the panels."""
    if drawn is not None:
        label = _short(colouring.name).replace("$", r"\$")
        figure.colorbar(drawn, ax=axes, label=label, location="bottom", aspect=40, shrink=0.8)
        return
    entries = legend_entries(colouring)
    handles = [Line2D([], [], marker="o", linestyle="", color=colour) for _, colour, _ in entries]
    labels = [f"{_short(name)} ({count:,})" for name, _, count in entries]
    _add_legend(figure, handles, labels)


def _add_legend(figure: Figure, handles: Sequence, labels: Sequence[str], title: str = "") -> None:
    """Put a legend below the panels."""
    columns = 3 if max(map(len, labels), default=0) < 20 else 2
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)
    # Names come from the user: matplotlib must not read mathematics into them.
    for text in legend.get_texts():
        text.set_parse_math(False)


def plot_message(path: Path, message: str) -> None:
    """Write a figure with a message in place of a plot."""
    figure = Figure(figsize=(WIDTH, 0.9))
    figure.text(0.5, 0.5, message, ha="center", va="center")
    _save(figure, path)


def plot_lengths(path: Path, lengths: Mapping[str, np.ndarray]) -> None:
    """Draw the distribution of lengths of each sample."""
    figure, ((axes,),) = _panels(1, 1, 3)
    given = [values for values in lengths.values() if len(values)]
    if given:
        shortest, longest = min(values.min() for values in given), max(values.max() for values in given)
        bins = np.geomspace(max(1, shortest), longest + 1, 40)
        shown = dict(list(lengths.items())[: len(PALETTE)])
        for sample, values in shown.items():
            axes.hist(values, bins=bins, histtype="step", linewidth=1.6, label=f"{_short(sample)} ({len(values):,})")
        _residue_axis(axes)
        title = "" if len(shown) == len(lengths) else f"{len(shown)} of {len(lengths)} samples"
        _add_legend(figure, *axes.get_legend_handles_labels(), title)
    axes.set_xlabel("residues")
    axes.set_ylabel("proteins")
    _save(figure, path)


def plot_validation(path: Path, table: pd.DataFrame, tolerance: Mapping[str, float]) -> None:
    """Draw the errors of each validated sequence against fair-esm, by length and by layer, with the tolerances."""
    measures = [x for x in SEQUENCE_MEASURES if x.axis and x.name in table and table[x.name].notna().any()]
    rows = -(-(3 + len(measures)) // 2)
    figure, axes = _panels(rows, 2, 2.1 * rows + 0.6)
    _plot_layers(axes.flat[:3], table, tolerance)
    of_sequences = table.drop_duplicates(["sample", "id"]) if len(table) else table
    for panel, measure in zip(axes.flat[3:], measures, strict=False):
        _plot_errors(panel, of_sequences["length"], of_sequences, measure, PALETTE[0], "")
        _finish_errors(panel, measure, tolerance, len(table))
        panel.set_xlabel("residues")
    for panel in axes.flat[3 + len(measures) :]:
        panel.set_axis_off()
    _add_legend(figure, *axes[0, 0].get_legend_handles_labels())
    _save(figure, path)


def _plot_layers(panels: Sequence[Axes], rows: pd.DataFrame, tolerance: Mapping[str, float]) -> None:
    """Draw the errors of the layers: two panels by length, and one by layer."""
    layers = sorted(rows["layer"].unique()) if len(rows) else []
    colours = _scale()(np.linspace(0, 1, len(layers)))
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


def _plot_errors(panel: Axes, across: pd.Series, rows: pd.DataFrame, measure: Measure, colour: str, label: str) -> None:
    errors = measure.from_best(rows[measure.name]).clip(lower=SMALLEST)
    panel.scatter(across, errors, s=10, linewidths=0, color=colour, label=label)


def _finish_errors(panel: Axes, measure: Measure, tolerance: Mapping[str, float], by_length: bool) -> None:
    bound = measure.from_best(tolerance[measure.bound])
    panel.axhline(bound, color=PALETTE[3], linewidth=1.2, linestyle="--", label="tolerance")
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=4))
    panel.yaxis.set_major_formatter("{x:.0e}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_title(measure.axis, fontsize="small")  # longer than the axis
    if by_length:
        _residue_axis(panel)


def plot_throughput(path: Path, stats: Mapping[str, Mapping]) -> None:
    """Draw residues per second and fill of each embed job."""
    figure, ((rates, fills),) = _panels(1, 2, 2.6)
    places = range(len(stats))
    rates.bar(places, [job["residues_per_second"] for job in stats.values()], width=_width(stats))
    rates.set_title("residues / s", fontsize="small")
    rates.yaxis.set_major_formatter("{x:,.0f}")
    fills.bar(places, [job["fill"] or 0 for job in stats.values()], width=_width(stats), color=PALETTE[1])
    fills.set_title("fill (real tokens / pack tokens)", fontsize="small")
    fills.set_ylim(0, 1)
    for panel in (rates, fills):
        _name_chunks(panel, stats)
    _save(figure, path)


def plot_stages(path: Path, stats: Mapping[str, Mapping]) -> None:
    """Draw the seconds of each embed job, its stages stacked."""
    figure, ((axes,),) = _panels(1, 1, 3.4)
    bottom = np.zeros(len(stats))
    for stage in next(iter(stats.values()))["seconds"] if stats else ():
        seconds = np.array([job["seconds"][stage] for job in stats.values()])
        label = f"{stage.replace('_', ' ')} ({seconds.sum():,.1f} s)"
        axes.bar(range(len(stats)), seconds, bottom=bottom, width=_width(stats), label=label)
        bottom += seconds
    axes.set_ylabel("seconds")
    _name_chunks(axes, stats)
    _add_legend(figure, *axes.get_legend_handles_labels())
    _save(figure, path)


def _residue_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", rotation=30)


def _width(stats: Mapping) -> float:
    return min(0.8, 0.25 * len(stats))


def _name_chunks(panel: Axes, stats: Mapping) -> None:
    """Name the chunks on the axis, or only count them if they are many."""
    many = len(stats) > 40
    panel.set_xlabel(f"{len(stats):,} chunks" if many else "chunk")
    panel.set_xticks(*(([],) if many else (range(len(stats)), list(stats))))
    panel.set_xlim(-0.6, max(1, len(stats)) - 0.4)
    panel.tick_params(axis="x", rotation=90 if len(stats) > 3 else 0)


def _short(text: str) -> str:
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the font lacks some letters; the page has the names
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
