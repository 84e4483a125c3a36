"""What is compared with fair-esm, and which differences fail."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ..options import Options, option
from ..outputs.bounds import ROUNDING, tolerance
from ..outputs.table import MEASURES


@dataclass(frozen=True)
class ValidationOptions(Options):
    """How many sequences to recompute, the seed of their choice, and tolerances (None: by dtype)."""

    sequences: int = option(
        32,
        "validation.sequences",
        "Number of sequences that are compared with fair-esm, spread over the lengths",
        kind=int,
    )
    seed: int = option(0, "validation.seed", "Seed for choosing these sequences", kind=int)
    max_relative_l2: float | None = option(
        None,
        "validation.max_relative_l2",
        "Largest relative L2 difference from fair-esm; auto depends on dtype",
        kind=float,
        none="auto",
    )
    min_residue_cosine: float | None = option(
        None,
        "validation.min_residue_cosine",
        "Smallest cosine between a residue and that of fair-esm; auto depends on dtype",
        kind=float,
        none="auto",
    )

    def tolerance(self, dtype: str) -> dict[str, float]:
        """Return the bounds in force for a dtype, by names of BOUNDS."""
        set_here = {"relative_l2": self.max_relative_l2, "residue_cosine": self.min_residue_cosine}
        return tolerance(dtype) | {name: value for name, value in set_here.items() if value is not None}


def bounds_of(table: pd.DataFrame, bounds: Mapping[str, float], residue_dtype: str | None) -> dict[str, float]:
    """Return the bound of each measure that the table has; `bounds`: by names of BOUNDS."""
    measures = [MEASURES[name] for name in table if name in MEASURES]
    return {x.name: bounds[x.bound] + (ROUNDING[residue_dtype] if x.rounded else 0.0) for x in measures}


def find_failures(table: pd.DataFrame, bounds: Mapping[str, float], bit_equal: bool) -> list[str]:
    """Return a sentence for each sequence and layer out of tolerance.

    Args:
        table: a row a sequence and layer.
        bounds: of `bounds_of`. What could not be compared has no value.
        bit_equal: demand equal bits.
    """
    failures = []
    for row in table.to_dict("records"):
        where = f"{row['sample']}|{row['id']}, {row['length']} residues, layer {row['layer']}"
        for name, bound in bounds.items():
            if MEASURES[name].may_be_absent and pd.isna(row[name]):
                continue
            least = MEASURES[name].best == 1
            if not (row[name] >= bound if least else row[name] <= bound):  # also true of nan
                what = f"cosine of residue {row['worst_residue']}" if name == "min_residue_cosine" else name
                found = f"{row[name]:.8f}, less than {bound}" if least else f"{row[name]:.2e}, more than {bound:.2e}"
                failures.append(f"{where}: {what} to fair-esm is {found}")
        if bit_equal and not row["bit_equal"]:
            failures.append(f"{where}: what is stored is not what the same settings give again")
    return failures
