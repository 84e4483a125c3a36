"""Options of the validation, and the check of differences from fair-esm against their bounds."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ..options import Options, option
from ..outputs.bounds import tolerance
from ..outputs.table import MEASURES

OF_ROUNDING = ("relative_l2", "min_residue_cosine", "mean_relative_l2")  # measures that fewer bits make worse
INSTEAD = {"int8": "bf16"}  # for weights whose values are too far from the reference's in 8 bits


@dataclass(frozen=True)
class ValidationOptions(Options):
    """How many sequences to compare, the seed for choosing them, and tolerances (None: by dtype)."""

    sequences: int = option(
        32,
        "validation.sequences",
        "Number of sequences that are compared with the reference (fair-esm, for ESM C transformers), over all lengths",
        kind=int,
    )
    seed: int = option(0, "validation.seed", "Seed for choosing these sequences", kind=int)
    max_relative_l2: float | None = option(
        None,
        "validation.max_relative_l2",
        "Largest relative L2 difference from the reference; auto depends on dtype",
        kind=float,
        none="auto",
    )
    min_residue_cosine: float | None = option(
        None,
        "validation.min_residue_cosine",
        "Smallest cosine between a residue and that of the reference; auto depends on dtype",
        kind=float,
        none="auto",
    )

    def tolerance(self, dtype: str) -> dict[str, float]:
        """Return the bounds for a dtype, by names of BOUNDS."""
        given = {
            "relative_l2": self.max_relative_l2,
            "mean_relative_l2": self.max_relative_l2,
            "residue_cosine": self.min_residue_cosine,
        }
        return tolerance(dtype) | {name: value for name, value in given.items() if value is not None}


def bounds_of(table: pd.DataFrame, bounds: Mapping[str, float]) -> dict[str, float]:
    """Return the bound of each measure that the table has; `bounds`: by names of BOUNDS."""
    return {name: bounds[MEASURES[name].bound] for name in table if name in MEASURES}


def find_failures(
    table: pd.DataFrame, bounds: Mapping[str, float], bit_equal: bool, instead: str | None = None
) -> list[str]:
    """Return a message for each failure of a sequence and layer.

    Args:
        table: a row per sequence and layer; a value is missing if it could not be measured.
        bounds: see `bounds_of`.
        bit_equal: require equal bits.
        instead: the dtype to use for values that are too far from the reference's, if there is one to name.
    """
    failures = []
    for row in table.to_dict("records"):
        where = f"{row['sample']}|{row['id']}, {row['length']} residues, layer {row['layer']}"
        for name, bound in bounds.items():
            if MEASURES[name].may_be_absent and pd.isna(row[name]):
                continue
            least = MEASURES[name].best == 1
            if not (row[name] >= bound if least else row[name] <= bound):  # also true of nan
                measure = f"cosine of residue {row['worst_residue']}" if name == "min_residue_cosine" else name
                found = f"{row[name]:.8f}, less than {bound}" if least else f"{row[name]:.2e}, more than {bound:.2e}"
                remedy = f"; use dtype: {instead}" if instead and name in OF_ROUNDING and pd.notna(row[name]) else ""
                failures.append(f"{where}: {measure} to the reference is {found}{remedy}")
        if bit_equal and not row["bit_equal"]:
            failures.append(f"{where}: the stored values differ from those that the same settings give now")
    return failures
