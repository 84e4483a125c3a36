"""Compare what comes from masked copies with fair-esm, which runs one masked sequence at a time."""

from collections.abc import Sequence

import numpy as np
import torch

from ..embedding.embedder import Embedder
from ..embedding.masked import MaskedCopies, add_masked
from ..embedding.results import Embeddings
from ..outputs.forms import StoredValues
from ..outputs.measures import logits_errors
from ..outputs.table import MASKED_MEASURE, RESIDUES, SCALARS
from .reference import masked_logits, substitution_marginals
from .stored import Stored

POSITIONS = 8  # of each sequence that fair-esm masks too


def compare_masked(
    reference: torch.nn.Module,
    reference_ids: Sequence[np.ndarray],
    stored: Stored,
    copies: MaskedCopies,
    again: Embeddings,
    seed: int,
) -> list[dict]:
    """Run the masked copies of all positions again, and some in fair-esm; return the errors of each sequence.

    `bit_equal` says whether the stored values of each residue have the bits of the second run; columns are in `again`.

    Args:
        reference: fair-esm's model.
        reference_ids: fair-esm's tokens of each sequence, int64 [L + 2].
        stored: the stored values.
        copies: of the sequences.
        again: result of the second run, which gets the columns of masked copies.
        seed: for choosing the positions.
    """
    errors: list[dict] = [{} for _ in reference_ids]

    def compare_bits(index: int, out: dict) -> None:
        kept = stored.residues[index]
        both = out.keys() & kept.keys()
        equal = [stored.forms[name].stored(out[name]).has_bits_of(kept[name]) for name in both]
        errors[index]["bit_equal"] = all(equal)

    def compare_one(index: int, logits: np.ndarray) -> None:
        residues = len(logits)
        rng = np.random.default_rng((seed, index))
        chosen = np.sort(rng.choice(residues, min(POSITIONS, residues), replace=False))
        size, starts = windows_of(copies.embedder, residues)
        want = masked_logits(reference, reference_ids[index], chosen.tolist(), starts, size)
        errors[index] |= masked_errors(stored, index, logits, chosen, want, reference_ids[index])

    add_masked(copies, again, compare_bits, each_logits=compare_one)
    return errors


def masked_errors(
    stored: Stored, index: int, logits: np.ndarray, chosen: np.ndarray, want: np.ndarray, tokens: np.ndarray
) -> dict:
    """Return the errors of what was stored of one sequence.

    A sum over all positions is compared with the one in which fair-esm's values stand at the chosen positions.

    Args:
        stored, index: the stored values, and the number of the sequence.
        logits: of the second run, fp32 [L, tokens of the alphabet].
        chosen: positions that fair-esm masked too, from 0.
        want: fair-esm's logits there, fp32 [chosen, tokens of the alphabet].
        tokens: fair-esm's, int64 [L + 2].
    """
    errors: dict = {MASKED_MEASURE.name: logits_errors(logits[chosen], want)["logits_kl_max"]}
    mixed = np.zeros((len(tokens), logits.shape[1]), np.float32)
    mixed[1:-1] = logits
    mixed[1 + chosen] = want
    for name, scalar in SCALARS.items():
        if scalar.of_masked and name in stored.columns:
            errors |= scalar.errors(float(stored.columns[name][index][0]), mixed, tokens)
    for feature, got in stored.residues[index].items():
        if RESIDUES[feature].of_masked:
            marginals = substitution_marginals(want, tokens[1 + chosen])
            errors |= RESIDUES[feature].errors(StoredValues(got.values[chosen]).nearest_to(marginals), marginals)
    return errors


def windows_of(embedder: Embedder, residues: int) -> tuple[int, list[int]]:
    """Return (size, starts) of the windows of a protein; a whole one has one window."""
    windows = embedder.options.windows
    if windows is None or residues <= windows.size:
        return residues, [0]
    return windows.size, windows.starts(residues)
