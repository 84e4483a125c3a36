"""How to score variants."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..options import Options, option

MASKED, WILD_TYPE, PSEUDO = "masked_marginal", "wildtype_marginal", "pseudo_log_likelihood"
SCORES = (MASKED, WILD_TYPE, PSEUDO)
OF_EMBEDDINGS = ("layers", "pooling", "include")  # keys and settings of embeddings that have no effect on scores


@dataclass(frozen=True)
class VariantOptions(Options):
    """Which scores of variants to compute."""

    scores: Sequence[str] = option(
        (MASKED, WILD_TYPE),
        "variant_scores",
        "Scores of the variants, mutant minus wild type; pseudo_log_likelihood takes one forward per residue of each "
        "variant",
        words=SCORES,
    )
