"""Log-probabilities of residues and of substitutions, from logits over fair-esm's alphabet."""

import numpy as np

from .measures import log_softmax

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"  # the columns of marginals
# Their tokens in fair-esm's alphabet, whose order is LAGVSERTIDPKQNFYMHWC, from 4 on.
MARGINAL_TOKENS = [4 + "LAGVSERTIDPKQNFYMHWC".index(letter) for letter in AMINO_ACIDS]


def own_log_probabilities(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the log-probability of the token of each row, float64 [n].

    Args:
        logits: [n, 33], of ESM C [n, 64]; the probabilities are over all tokens, as in fair-esm's predict.py.
        tokens: int [n].
    """
    return log_softmax(logits)[np.arange(len(tokens)), tokens]


def marginals(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return log p(a) - log p(token of the row) for each of AMINO_ACIDS, float32 [n, 20].

    The sum of exponentials that turns logits into probabilities is the same for both, so it is left out. A row of X, of
    a mask or of another token is compared with the probability of that token.
    """
    return logits[:, MARGINAL_TOKENS] - np.take_along_axis(logits, tokens[:, None].astype(np.int64), 1)
