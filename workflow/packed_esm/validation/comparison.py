"""Compare the stored values of some sequences with fair-esm, and with a second run of the packed path."""

import numpy as np
import pandas as pd
import torch

from ..embedding.embedder import Embedder
from ..embedding.host_copies import stored_arrays
from ..embedding.kept_residues import stored_dtypes
from ..outputs.layouts import LAYER_ROWS, PAIRS
from ..outputs.measures import residue_errors
from ..outputs.table import POOLINGS, RESIDUES, SCALARS
from ..sequences.tokens import tokenize
from ..system.progress import progress_bar
from .reference import reference_in_windows, reference_outputs
from .reference_model import load_reference, reference_tokens
from .stored import Stored


def compare(chosen: pd.DataFrame, sequences: list[str], stored: Stored, embedder: Embedder) -> pd.DataFrame:
    """Run the chosen sequences again, packed and with fair-esm; return a row for each sequence and layer."""
    reference = load_reference(embedder.options.model).to(embedder.device)
    reference_ids = [reference_tokens(sequence) for sequence in sequences]
    tokens = [tokenize(sequence) for sequence in sequences]
    names = (chosen["sample"] + "|" + chosen["id"]).tolist()
    columns, residue_dtype = embedder.columns, stored.residue_dtype or "float32"
    measured: list[dict] = []

    def compare_one(index: int, out: dict) -> None:
        truth = _reference(reference, reference_ids[index], embedder)
        again = stored_arrays(out, stored_dtypes(list(stored.residues[index]), residue_dtype))
        errors = compare_stored(stored, index, truth, reference_ids[index])
        errors["bit_equal"] = all(
            array.tobytes() == stored.residues[index][feature].tobytes() for feature, array in again.items()
        )
        record = chosen.iloc[index]
        for layer in embedder.layers:
            row = {"sample": record["sample"], "id": record["id"], "length": record["length"], "layer": layer}
            got, want = out["representations"][layer], truth["representations"][layer]
            row |= {"index": index} | residue_errors(got.numpy(force=True), want)
            for column in columns:
                if column.layer == layer:
                    pooling = POOLINGS[column.pooling]
                    row[pooling.measure.name] = pooling.error(stored.columns[column.name][index], want)
            measured.append(row | errors)
        bar.update(len(sequences[index]))

    with progress_bar(sum(map(len, sequences)), "residues", "comparing with fair-esm") as bar:
        again = embedder.embed(tokens, each_sequence=compare_one)
        embedder.recompute(again, tokens, names, each_sequence=compare_one)
    for row in measured:
        index = row.pop("index")
        own = [column.name for column in columns if column.layer in (None, row["layer"])]
        row["bit_equal"] &= all(again.columns[c][index].tobytes() == stored.columns[c][index].tobytes() for c in own)
    return pd.DataFrame(measured, columns=None if measured else ["sample", "id", "length", "layer"])


def _reference(model: torch.nn.Module, tokens: np.ndarray, embedder: Embedder) -> dict:
    """Return the outputs of fair-esm for one protein, as arrays; in windows if the packed path uses windows."""
    contacts, windows = "contacts" in embedder.options.include, embedder.options.windows
    if windows is None or len(tokens) - 2 <= windows.size:
        truth = reference_outputs(model, tokens, embedder.layers, contacts)
    else:
        truth = reference_in_windows(model, tokens, embedder.layers, windows.starts(len(tokens) - 2), windows.size)
    layers = {layer: rows.numpy(force=True) for layer, rows in truth.pop("representations").items()}
    return {"representations": layers} | {name: values.numpy(force=True) for name, values in truth.items()}


def compare_stored(stored: Stored, index: int, truth: dict, tokens: np.ndarray) -> dict:
    """Return the errors of the stored values of one sequence, other than its pooled vectors.

    An error is None if the reference has no such output: fair-esm's attention maps of a long sequence are too large.
    """
    errors: dict = {}
    for name, scalar in SCALARS.items():
        if name in stored.columns:
            errors |= scalar.errors(float(stored.columns[name][index][0]), truth["logits"], tokens)
    for feature, got in stored.residues[index].items():
        output = RESIDUES[feature]
        if feature in truth:
            errors |= output.errors(got, _residues_only(feature, truth[feature]).reshape(got.shape))
        else:
            errors |= {measure.name: None for measure in output.measures}
    return errors


def _residues_only(feature: str, truth: np.ndarray | dict[int, np.ndarray]) -> np.ndarray:
    """Return an output of the reference without the rows of cls and eos.

    This does not use the output's layout, which cuts the stored values: a mistake there must be detected here.
    """
    layout = RESIDUES[feature].layout
    if layout is PAIRS:
        return truth
    return np.stack([rows[1:-1] for rows in truth.values()]) if layout is LAYER_ROWS else truth[1:-1]
