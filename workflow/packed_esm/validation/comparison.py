"""Compare what is stored of some sequences with what fair-esm gives for them, and with what is computed again."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ..embedding.embedder import Embedder
from ..embedding.residue_arrays import residue_arrays
from ..sequences.tokens import tokenize
from ..system.progress import progress_bar
from .reference import pooled_reference, reference_in_windows, reference_log_likelihood, reference_outputs
from .reference_model import load_reference, reference_tokens
from .stored import Stored


def compare(chosen: pd.DataFrame, sequences: list[str], stored: Stored, embedder: Embedder) -> pd.DataFrame:
    """Run the chosen sequences again, packed and by fair-esm; return a row for each sequence and layer."""
    reference = load_reference(embedder.options.model).to(embedder.device)
    reference_ids = [reference_tokens(sequence) for sequence in sequences]
    tokens = [tokenize(sequence) for sequence in sequences]
    names = (chosen["sample"] + "|" + chosen["id"]).tolist()
    measured: list[dict] = []

    def compare_one(index: int, out: dict) -> None:
        truth = _reference(reference, reference_ids[index], embedder)
        again = residue_arrays(out, list(stored.residues[index]), stored.residue_dtype or "float32", names[index])
        both = compare_stored(stored, index, embedder.layers, truth, reference_ids[index])
        both["bit_equal"] = all(
            array.tobytes() == stored.residues[index][feature].tobytes() for feature, array in again.items()
        )
        record = chosen.iloc[index]
        for layer in embedder.layers:
            row = {"sample": record["sample"], "id": record["id"], "length": record["length"], "layer": layer}
            row |= {"index": index} | compare_residues(out["representations"][layer], truth["representations"][layer])
            for pooling in embedder.options.poolings:
                want = pooled_reference(truth["representations"][layer], pooling)
                row[f"{pooling}_relative_l2"] = _relative_l2(stored.columns[f"{pooling}_{layer}"][index], want)
            measured.append(row | both)
        bar.update(len(sequences[index]))

    with progress_bar(sum(map(len, sequences)), "residues", "comparing with fair-esm") as bar:
        again = embedder.embed(tokens, each_sequence=compare_one)
        embedder.recompute(again, tokens, names, each_sequence=compare_one)
    for row in measured:
        index = row.pop("index")
        own = [name for name in again.columns if not name[-1].isdigit() or name.endswith(f"_{row['layer']}")]
        row["bit_equal"] &= all(again.columns[c][index].tobytes() == stored.columns[c][index].tobytes() for c in own)
    return pd.DataFrame(measured, columns=None if measured else ["sample", "id", "length", "layer"])


def _reference(model: torch.nn.Module, tokens: np.ndarray, embedder: Embedder) -> dict:
    """Return what fair-esm gives for one protein, in windows where the packed path cuts it."""
    contacts, windows = "contacts" in embedder.options.include, embedder.options.windows
    if windows is None or len(tokens) - 2 <= windows.size:
        return reference_outputs(model, tokens, embedder.layers, contacts)
    return reference_in_windows(model, tokens, embedder.layers, windows.starts(len(tokens) - 2), windows.size)


def compare_stored(stored: Stored, index: int, layers: Sequence[int], truth: dict, tokens: np.ndarray) -> dict:
    """Return the errors of what is stored of one sequence besides its pooled vectors.

    The error of contacts is None where fair-esm's maps of the sequence are too large to compare with.
    """
    errors: dict = {}
    if "log_likelihood" in stored.columns:
        want = np.array([reference_log_likelihood(truth["logits"], tokens)])
        errors["log_likelihood_relative_l2"] = _relative_l2(stored.columns["log_likelihood"][index], want)
    for feature, got in stored.residues[index].items():
        if feature == "contacts":
            want = truth.get("contacts")
            errors["contacts_max_abs"] = None if want is None else _max_abs(got, want.cpu().numpy())
        else:
            rows = truth["logits"] if feature == "logits" else [truth["representations"][layer] for layer in layers]
            want = (rows[None] if feature == "logits" else torch.stack(rows))[:, 1:-1].cpu().numpy()
            errors[f"{feature}_relative_l2"] = _relative_l2(got, want.reshape(got.shape))
    return errors


def compare_residues(packed: torch.Tensor, truth: torch.Tensor) -> dict[str, float | int]:
    """Return the errors of one sequence at one layer; both fp32 [T, E], cls and eos included.

    `worst_residue` is counted from 1; 0 is cls, L + 1 is eos.
    """
    got, want = packed.double(), truth.double()
    cosine = torch.nn.functional.cosine_similarity(got, want, dim=-1)
    same = (got == want).all(-1)  # rows of zeros too, which have no cosine
    cosine = torch.where(same, 1.0, cosine)
    worst = int(cosine.argmin())
    return {
        "relative_l2": float((got - want).norm() / want.norm()),
        "max_abs": float((got - want).abs().max()),
        "min_residue_cosine": float(cosine[worst]),
        "worst_residue": worst,
    }


def _max_abs(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest difference; infinite where a value is not a number."""
    return float(np.nan_to_num(np.abs(got - want), nan=np.inf).max())


def _relative_l2(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))
