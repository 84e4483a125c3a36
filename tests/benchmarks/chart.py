"""Draw and tabulate what forward.py measured.

  python tests/benchmarks/chart.py tests/benchmarks/results/h200_*.json --png docs/speed.png

Prints a Markdown table; draws, for each model shape, ours and the peers as bars.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

OURS, PEERS = "#1b7837", "#9e9e9e"


def read(paths: list[Path]) -> pd.DataFrame:
    """Return the rows of all files, one after the other."""
    return pd.concat([pd.DataFrame(json.loads(path.read_text())["rows"]) for path in paths], ignore_index=True)


def table(rows: pd.DataFrame) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| model | what | residues/s | TFLOP/s | share of ceiling | times fair-esm | memory |",
        "|---|---|" + "---:|" * 5,
    ]
    for row in rows.itertuples():
        times = "" if pd.isna(row.times_fair_esm) else f"{row.times_fair_esm:.1f}"
        memory = "" if pd.isna(row.peak_memory_mb) else f"{row.peak_memory_mb / 1024:.1f} GiB"
        lines.append(
            f"| {size(row.model)} | {row.what} | {row.residues_per_second:,.0f} | {row.tflops:,.1f} "
            f"| {row.share_of_ceiling:.2f} | {times} | {memory} |"
        )
    return "\n".join(lines)


def draw(rows: pd.DataFrame, title: str, png: Path) -> None:
    """Draw one panel of bars a model shape."""
    models = list(dict.fromkeys(rows["model"]))
    counts = [sum(rows["model"] == model) for model in models]
    figure, axes = plt.subplots(
        len(models), figsize=(9, 0.28 * sum(counts) + 1.2 * len(models)), squeeze=False, height_ratios=counts
    )
    for axis, model in zip(axes[:, 0], models, strict=True):
        ours = rows[rows["model"] == model].iloc[::-1]
        colours = [OURS if what.startswith("packed") else PEERS for what in ours["what"]]
        bars = axis.barh(ours["what"], ours["residues_per_second"], color=colours)
        axis.bar_label(bars, [f" {rate:,.0f}" for rate in ours["residues_per_second"]], fontsize=7)
        axis.set_title(f"{size(model)} shape, residues/s", fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.12)
        axis.xaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(png, dpi=150)


def size(model: str) -> str:
    """Return `650M` of `esm2_t33_650M_UR50D`."""
    return model.split("_")[2] if model.startswith("esm2_") else model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, nargs="+")
    parser.add_argument("--png", type=Path)
    args = parser.parse_args()
    rows = read(args.json)
    print(table(rows))
    if args.png:
        first = json.loads(args.json[0].read_text())
        draw(rows, f"{first['device']}, torch {first['versions']['torch']}: forward, real residues", args.png)


if __name__ == "__main__":
    main()
