"""Differences between a result and fair-esm's: relative errors, cosines of residues, logits, contacts.

Each measure compares arrays of one protein, in float64. Values that are not finite give the worst value of a measure.
"""

import numpy as np

SEPARATION = 6  # smallest |i - j| of a contact, as in Rao et al. 2021 (doi:10.1101/2020.12.15.422761)
FLAT = 1e-4  # smallest standard deviation of a map's probabilities; below it the order of pairs has no meaning


def relative_error(got: np.ndarray, want: np.ndarray, scale: float | None = None) -> float:
    """Return the L2 norm of got - want, divided by `scale`: by default the L2 norm of `want`.

    Equal values have the error 0 at any scale. Different values with scale 0, and values that are not finite, have an
    infinite error.

    Args:
        got, want: arrays of the same shape.
        scale: give it if `want` may be near 0 because large numbers cancel: the size of these numbers.
    """
    with np.errstate(invalid="ignore"):
        difference = float(np.linalg.norm(np.subtract(got, want, dtype=np.float64)))
    scale = float(np.linalg.norm(np.asarray(want, np.float64))) if scale is None else scale
    if difference == 0:
        return 0.0
    return difference / scale if scale > 0 and np.isfinite(difference) else np.inf


def root_mean_square(values: np.ndarray) -> float:
    """Return the root mean square of all values."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def root_mean_square_error(got: np.ndarray, want: np.ndarray) -> float:
    """Return the root mean square of got - want; infinite if a value is not finite."""
    with np.errstate(invalid="ignore"):
        difference = root_mean_square(np.subtract(got, want, dtype=np.float64))
    return difference if np.isfinite(difference) else np.inf


def residue_errors(got: np.ndarray, want: np.ndarray) -> dict[str, float | int]:
    """Return the errors of one layer of one sequence, both [T, E], cls and eos included.

    `worst_residue` is counted from 1; 0 is cls, L + 1 is eos. The cosine of equal rows is 1, also of zeros. The cosine
    of a row of zeros and another row is 0.
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
    """Return the differences between distributions of tokens, given as logits, both [L, tokens].

    The Kullback-Leibler divergence sum p log(p / q) in nats, with p from `want` and q from `got`: the largest of a
    residue, and the mean over residues.
    """
    with np.errstate(invalid="ignore"):
        wanted, ours = log_softmax(want), log_softmax(got)
        divergence = (np.exp(wanted) * (wanted - ours)).sum(-1)
    divergence = np.nan_to_num(divergence, nan=np.inf, posinf=np.inf).clip(min=0)  # rounding may give -1e-17
    return {"logits_kl_max": float(divergence.max()), "logits_kl_mean": float(divergence.mean())}


def contacts_errors(got: np.ndarray, want: np.ndarray) -> dict[str, float | None]:
    """Return the differences between two maps of contacts; both are probabilities, [L, L].

    abs_per_residue: sum of the absolute differences in the row of a residue, mean over residues. It limits the error of
        the expected number of contacts of a residue. (The mean over pairs would fall as 1 / L.)
    precision: sum of the probabilities in `want` (the expected number of contacts) over the L most probable pairs of
        `got` with |i - j| >= SEPARATION, divided by the same sum over the L most probable pairs of `want`. So a swap of
        pairs with nearly equal probability changes little.
    correlation: Pearson's, over the same pairs.

    The last two are None if there are no more than L such pairs (up to 10 residues), or if `want` is flat.
    """
    got, want = got.astype(np.float64), want.astype(np.float64)
    residues, finite = len(want), np.isfinite(got).all()
    per_residue = float(np.abs(got - want).sum(-1).mean()) if finite else np.inf
    errors: dict[str, float | None] = {"contacts_abs_per_residue": per_residue}
    pairs = np.triu_indices(residues, SEPARATION)
    if len(pairs[0]) <= residues or want[pairs].std() < FLAT:
        return errors | {"contacts_precision": None, "contacts_correlation": None}
    if not finite:
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
