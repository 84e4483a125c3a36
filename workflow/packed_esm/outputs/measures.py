"""How far a result is from fair-esm's: relative errors, cosines of residues, logits, contacts.

Each measure is of arrays of one protein, computed in float64. What is not a number is as far away as can be.
"""

import numpy as np

SEPARATION = 6  # |i - j| from which on a contact counts, as in Rao et al. 2021 (doi:10.1101/2020.12.15.422761)
FLAT = 1e-4  # standard deviation of a map's probabilities under which it has no order to compare


def relative_error(got: np.ndarray, want: np.ndarray, scale: float | None = None) -> float:
    """Return the L2 norm of got - want, divided by `scale`: by default the L2 norm of `want`.

    Equal values have the error 0, whatever the scale. Where the scale is 0, others have an infinite one, as have
    values that are not finite.

    Args:
        got, want: of one shape.
        scale: for a `want` that may be near 0 though what it was computed from is not: the size of the latter.
    """
    with np.errstate(invalid="ignore"):
        difference = float(np.linalg.norm(np.subtract(got, want, dtype=np.float64)))
    scale = float(np.linalg.norm(np.asarray(want, np.float64))) if scale is None else scale
    if difference == 0:
        return 0.0
    return difference / scale if scale > 0 and np.isfinite(difference) else np.inf


def root_mean_square(values: np.ndarray) -> float:
    """Return the root of the mean square of all values: their size, of whichever sign they are."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def residue_errors(got: np.ndarray, want: np.ndarray) -> dict[str, float | int]:
    """Return the errors of one layer of one sequence, both [T, E], cls and eos included.

    `worst_residue` is counted from 1; 0 is cls, L + 1 is eos. The cosine of equal rows is 1, of zeros too; that of a
    row of zeros and another is 0.
    """
    got, want = got.astype(np.float64), want.astype(np.float64)
    norms = np.linalg.norm(got, axis=-1) * np.linalg.norm(want, axis=-1)
    with np.errstate(invalid="ignore"):
        cosine = np.divide((got * want).sum(-1), norms, out=np.zeros(len(got)), where=norms != 0)
        largest = np.abs(got - want).max()
    cosine = np.where((got == want).all(-1), 1.0, np.nan_to_num(cosine, nan=-1.0))
    worst = int(cosine.argmin())
    return {
        "relative_l2": relative_error(got, want),
        "max_abs": float(largest) if np.isfinite(largest) else np.inf,
        "min_residue_cosine": float(cosine[worst]),
        "worst_residue": worst,
    }


def logits_errors(got: np.ndarray, want: np.ndarray) -> dict[str, float]:
    """Return how far the distributions of tokens are from the wanted ones: logits, both [L, tokens].

    The Kullback-Leibler divergence of the wanted distribution from ours, sum of p log(p / q), in nats: of the worst
    residue, and the mean over residues.
    """
    with np.errstate(invalid="ignore"):
        wanted, ours = log_softmax(want), log_softmax(got)
        divergence = (np.exp(wanted) * (wanted - ours)).sum(-1)
    divergence = np.nan_to_num(divergence, nan=np.inf, posinf=np.inf).clip(min=0)  # rounding may give -1e-17
    return {"logits_kl_max": float(divergence.max()), "logits_kl_mean": float(divergence.mean())}


def contacts_errors(got: np.ndarray, want: np.ndarray) -> dict[str, float | None]:
    """Return how far a map of contacts is from the wanted one; both are probabilities, [L, L].

    abs_per_residue: absolute differences between a residue and all others summed, mean over residues: how far the
        expected number of contacts of a residue can be off. (The mean over pairs would fall as 1 / L.)
    precision: of our L likeliest pairs with |i - j| >= SEPARATION, by the wanted probabilities (their sum is the number
        of contacts expected among these pairs), as a share of what the wanted map's own L likeliest have. Pairs that
        are all but as likely may change places.
    correlation: Pearson's, over the same pairs.

    The last two are None where the L likeliest are all such pairs (up to 10 residues), or where the wanted map is flat.
    """
    got, want = got.astype(np.float64), want.astype(np.float64)
    residues, number = len(want), np.isfinite(got).all()
    per_residue = float(np.abs(got - want).sum(-1).mean()) if number else np.inf
    errors: dict[str, float | None] = {"contacts_abs_per_residue": per_residue}
    pairs = np.triu_indices(residues, SEPARATION)
    if len(pairs[0]) <= residues or want[pairs].std() < FLAT:
        return errors | {"contacts_precision": None, "contacts_correlation": None}
    if not number:
        return errors | {"contacts_precision": 0.0, "contacts_correlation": 0.0}
    ours, wanted = got[pairs], want[pairs]
    best = np.sort(wanted)[-residues:].sum()
    chosen = wanted[np.argsort(ours, kind="stable")[-residues:]].sum()
    spread = ours.std() * wanted.std()
    covariance = np.mean((ours - ours.mean()) * (wanted - wanted.mean()))
    return errors | {
        "contacts_precision": float(chosen / best),
        "contacts_correlation": float(covariance / spread) if spread else 0.0,
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the log-probabilities of logits [..., tokens], float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
