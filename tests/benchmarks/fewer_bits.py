"""What storing values in fewer bits costs: differences from float32, and a linear probe of the example's families.

  python tests/benchmarks/fewer_bits.py [--json fewer_bits.json]

Vectors of each residue, from the demonstration model for the domains of the example, in each form of residue files. A
logistic regression predicts the family of a domain from its mean vector (of the stored residues), and from one residue
alone; folds of whole domains, so that no domain is in both training and test.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from packed_esm.outputs.forms import Form
from packed_esm.outputs.measures import relative_error, residue_errors
from packed_esm.sequences.fasta import read_records
from packed_esm.system.tree import tree
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from storage import values_of

FORMS = ("float32", "float16", "int8")
FOLDS = 5
PER_DOMAIN = 8  # residues of each domain in the probe of single residues


def example_rows() -> tuple[list[np.ndarray], list[str]]:
    """Return float32 [L, E] of each domain of the example whose family has FOLDS of them, and these families."""
    records = list(read_records(tree() / "config" / "example" / "domains.fasta"))
    family = {r: dict(word.split("=", 1) for word in r.description.split() if "=" in word)["family"] for r in records}
    sizes = Counter(family.values())
    records = [record for record in records if sizes[family[record]] >= FOLDS]
    families = [family[record] for record in records]
    return values_of(records, "float32"), families


def accuracy(vectors: np.ndarray, families: Sequence[str], domains: np.ndarray) -> float:
    """Return the mean accuracy over folds of domains."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    return float(cross_val_score(probe, vectors, families, groups=domains, cv=folds).mean())


def measure(form: str, exact: list[np.ndarray], families: list[str]) -> dict:
    """Return the row of a form."""
    stored = [Form(form).stored(rows) for rows in exact]
    values = [one.decoded.astype(np.float32) for one in stored]
    errors = [residue_errors(got, want) for got, want in zip(values, exact, strict=True)]
    means = np.stack([rows.mean(0) for rows in values]), np.stack([rows.mean(0) for rows in exact])
    norms = np.linalg.norm(means[0], axis=1) * np.linalg.norm(means[1], axis=1)
    chosen = [np.linspace(0, len(rows) - 1, PER_DOMAIN).astype(int) for rows in values]
    single = np.concatenate([rows[places] for rows, places in zip(values, chosen, strict=True)])
    domains = np.arange(len(values))
    size = sum(one.values.nbytes + (0 if one.scale is None else one.scale.nbytes) for one in stored)
    return {
        "form": form,
        "share_of_float32": size / sum(rows.nbytes for rows in exact),
        "relative_l2": relative_error(np.concatenate(values), np.concatenate(exact)),
        "worst_relative_l2": max(error["relative_l2"] for error in errors),
        "worst_residue_cosine": min(error["min_residue_cosine"] for error in errors),
        "worst_mean_vector_cosine": float(((means[0] * means[1]).sum(1) / norms).min()),
        "family_from_mean_vector": accuracy(means[0], families, domains),
        "family_from_one_residue": accuracy(single, np.repeat(families, PER_DOMAIN), np.repeat(domains, PER_DOMAIN)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    exact, families = example_rows()
    print(f"{len(exact)} domains of {len(set(families))} families, {sum(map(len, exact)):,} residues")
    rows = [measure(form, exact, families) for form in FORMS]
    for row in rows:
        print(", ".join(f"{name} {x:.6g}" if isinstance(x, float) else str(x) for name, x in row.items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
