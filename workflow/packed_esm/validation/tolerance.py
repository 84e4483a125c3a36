"""What may differ from fair-esm, and what does."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Tolerance:
    """What may differ from fair-esm.

    Attributes:
        relative_l2: of a sequence: a layer's residues, a pooled vector, logits, a log-likelihood.
        residue_cosine: least of any residue.
        contact: of the probability of any contact, absolute.
    """

    relative_l2: float
    residue_cosine: float
    contact: float


# About 3.5 times the worst that tests/benchmarks/accuracy.py measured over all backends and the shapes from 3M to
# 650M on an H200 (relative L2 1.6e-6, 8.9e-4, 6.9e-3; 1 - cosine 5e-12, 6e-6, 2e-4), to leave room for other weights.
# Contacts: 2.2e-5, 1.2e-2, 0.10, 0.16, with a contact head of random weights (standard deviation 5, of all heads).
TOLERANCES = {
    "fp32": Tolerance(5e-6, 0.99999999, 1e-4),
    "fp16": Tolerance(3e-3, 0.9999, 4e-2),
    "bf16": Tolerance(2.5e-2, 0.995, 0.35),
    "fp8": Tolerance(6e-2, 0.99, 0.55),
}


# What rounding to the dtype of a file of residues adds to the relative L2: half of its last bit.
ROUNDING = {"float16": 2.0**-11, "float32": 0.0}


@dataclass(frozen=True)
class ValidationOptions:
    """How many sequences to recompute, the seed of their choice, and tolerances (None: by dtype)."""

    sequences: int = 32
    seed: int = 0
    max_relative_l2: float | None = None
    min_residue_cosine: float | None = None

    def tolerance(self, dtype: str) -> Tolerance:
        """Return the tolerance in force for a dtype."""
        default = TOLERANCES[dtype]
        return Tolerance(
            default.relative_l2 if self.max_relative_l2 is None else self.max_relative_l2,
            default.residue_cosine if self.min_residue_cosine is None else self.min_residue_cosine,
            default.contact,
        )


def bounds_of(table: pd.DataFrame, tolerance: Tolerance, residue_dtype: str | None) -> dict[str, float]:
    """Return the largest value that each column of errors may have."""
    bounds = {name: tolerance.relative_l2 for name in table if name.endswith("relative_l2")}
    if "representations_relative_l2" in bounds:
        bounds["representations_relative_l2"] += ROUNDING[residue_dtype]
    if "contacts_max_abs" in table:
        bounds["contacts_max_abs"] = tolerance.contact
    return bounds


def find_failures(
    table: pd.DataFrame, bounds: Mapping[str, float], residue_cosine: float, bit_equal: bool
) -> list[str]:
    """Return a sentence for each sequence and layer out of tolerance.

    Args:
        table: a row a sequence and layer.
        bounds: {column: largest value}. Contacts that could not be compared have no value.
        residue_cosine: least cosine.
        bit_equal: demand equal bits.
    """
    failures = []
    for row in table.to_dict("records"):
        where = f"{row['sample']}|{row['id']}, {row['length']} residues, layer {row['layer']}"
        for name, bound in bounds.items():
            compared = name != "contacts_max_abs" or pd.notna(row[name])
            if compared and not row[name] <= bound:  # also true of nan
                failures.append(f"{where}: {name} to fair-esm is {row[name]:.2e}, more than {bound:.2e}")
        if not row["min_residue_cosine"] >= residue_cosine:
            failures.append(
                f"{where}: cosine of residue {row['worst_residue']} to fair-esm is {row['min_residue_cosine']:.8f}, "
                f"less than {residue_cosine}"
            )
        if bit_equal and not row["bit_equal"]:
            failures.append(f"{where}: what is stored is not what the same settings give again")
    return failures
