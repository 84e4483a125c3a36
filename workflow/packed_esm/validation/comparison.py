"""Compare what is stored of some sequences with what fair-esm gives for them, and with what is computed again."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ..embedding.embedder import Embedder
from ..embedding.residue_arrays import residue_arrays
from ..sequences.tokens import tokenize
from ..system.progress import progress_bar
from .measures import CONTACTS, contacts_errors, logits_errors, relative_error, residue_errors, root_mean_square
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
            got, want = out["representations"][layer], truth["representations"][layer]
            row |= {"index": index} | residue_errors(got.numpy(force=True), want.numpy(force=True))
            for pooling in embedder.options.poolings:
                vector = stored.columns[f"{pooling}_{layer}"][index]
                row[f"{pooling}_relative_l2"] = pooled_error(vector, want, pooling)
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


def pooled_error(got: np.ndarray, rows: torch.Tensor, pooling: str) -> float:
    """Return the relative error of a pooled vector [E], of the reference's rows, fp32 [T, E] with cls and eos.

    A standard deviation, which is near 0 where all residues are alike (exactly 0 of one residue), is measured against
    the size of the residues that it is the deviation of.
    """
    size = root_mean_square(rows[1:-1].numpy(force=True)) * len(got) ** 0.5
    return relative_error(got, pooled_reference(rows, pooling), size if pooling == "std" else None)


def log_likelihood_error(got: np.ndarray, logits: torch.Tensor, tokens: np.ndarray) -> float:
    """Return the relative error of a log-likelihood [1], of the reference's logits, fp32 [T, tokens].

    It is near 0 where the model is sure of each residue, and a difference of numbers as large as the logits: it is
    measured against them where they are the larger.
    """
    want = np.array([reference_log_likelihood(logits, tokens)])
    return relative_error(got, want, max(abs(float(want[0])), root_mean_square(logits[1:-1].numpy(force=True))))


def compare_stored(stored: Stored, index: int, layers: Sequence[int], truth: dict, tokens: np.ndarray) -> dict:
    """Return the errors of what is stored of one sequence besides its pooled vectors.

    Those of contacts are None where fair-esm's maps of the sequence are too large to compare with.
    """
    errors: dict = {}
    if "log_likelihood" in stored.columns:
        got = stored.columns["log_likelihood"][index]
        errors["log_likelihood_relative_l2"] = log_likelihood_error(got, truth["logits"], tokens)
    for feature, got in stored.residues[index].items():
        if feature == "contacts":
            want = truth.get("contacts")
            errors |= dict.fromkeys(CONTACTS) if want is None else contacts_errors(got, want.numpy(force=True))
        elif feature == "logits":
            want = truth["logits"][1:-1].numpy(force=True)
            errors |= {"logits_relative_l2": relative_error(got, want)} | logits_errors(got, want)
        else:
            want = torch.stack([truth["representations"][layer] for layer in layers])[:, 1:-1].numpy(force=True)
            errors[f"{feature}_relative_l2"] = relative_error(got, want.reshape(got.shape))
    return errors
