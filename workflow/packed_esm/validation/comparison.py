"""Compare the stored values of some sequences with fair-esm, and with a second run of the packed path."""

import logging
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..checkpoints.headers import family_at
from ..embedding.embedder import Embedder
from ..embedding.host_copies import stored_arrays
from ..embedding.masked import MaskedCopies
from ..families import Family
from ..outputs.forms import StoredValues
from ..outputs.layouts import LAYER_ROWS, PAIRS
from ..outputs.measures import residue_errors
from ..outputs.table import POOLINGS, RESIDUES, SCALARS
from ..sequences.tokens import tokenize
from ..store.embeddings import in_dtype, vector_dtype
from ..system.progress import progress_bar
from .masked import compare_masked, windows_of
from .reference import reference_in_windows, reference_outputs, substitution_marginals
from .reference_model import stream_layers
from .stored import Stored

log = logging.getLogger(__name__)


def compare(
    chosen: pd.DataFrame, sequences: list[str], stored: Stored, embedder: Embedder, seed: int = 0
) -> pd.DataFrame:
    """Run the chosen sequences again, packed and with the reference; return a row for each sequence and layer.

    `seed` chooses the positions that are masked in fair-esm too, where outputs come from masked copies.
    """
    family = family_at(Path(embedder.options.model))
    reference = _reference_beside(embedder, family)
    reference_ids = [family.module("reference").reference_tokens(sequence) for sequence in sequences]
    tokens = [tokenize(sequence) for sequence in sequences]
    names = (chosen["sample"] + "|" + chosen["id"]).tolist()
    columns = embedder.columns
    measured: list[dict] = []

    def compare_one(index: int, out: dict) -> None:
        truth = _reference(reference, reference_ids[index], embedder)
        forms = {feature: stored.forms[feature] for feature in _of_forward(stored, index)}
        errors = compare_stored(stored, index, truth, reference_ids[index])
        errors["bit_equal"] = all(
            forms[feature].stored(array).has_bits_of(stored.residues[index][feature])
            for feature, array in stored_arrays(out, forms).items()
        )
        record = chosen.iloc[index]
        for place, layer in enumerate(embedder.layers):
            row = {"sample": record["sample"], "id": record["id"], "length": record["length"], "layer": layer}
            got, want = out["representations"][layer], truth["representations"][layer]
            row |= {"index": index} | residue_errors(got.numpy(force=True), want)
            row |= _loss_in_8_bits(stored.residues[index].get("representations"), place, want[1:-1])
            for column in columns:
                if column.layer == layer:
                    pooling, vector = POOLINGS[column.pooling], stored.columns[column.name][index]
                    row[pooling.measure.name] = pooling.error(vector.astype(vector_dtype(stored.settings)), want)
            measured.append(row | errors)
        bar.update(len(sequences[index]))

    with progress_bar(sum(map(len, sequences)), "residues", "comparing with the reference") as bar:
        again = embedder.embed(tokens, each_sequence=compare_one)
        embedder.recompute(again, tokens, names, each_sequence=compare_one)
    copies = MaskedCopies(embedder, tokens, names)
    of_masked = compare_masked(reference, reference_ids, stored, copies, again, seed)
    now = in_dtype(again.columns, stored.settings, names)
    for row in measured:
        index = row.pop("index")
        is_equal = row["bit_equal"] and of_masked[index].get("bit_equal", True)
        row |= of_masked[index] | {"bit_equal": is_equal}
        own = [column.name for column in columns if column.layer in (None, row["layer"])]
        row["bit_equal"] &= all(now[c][index].tobytes() == stored.columns[c][index].tobytes() for c in own)
    return pd.DataFrame(measured, columns=None if measured else ["sample", "id", "length", "layer"])


def reference_name(model: str | Path) -> str:
    """Return the package that the results of a model are compared with, and its version."""
    package = family_at(Path(model)).reference_name
    return f"{package} {version(package)}"


def _reference_beside(embedder: Embedder, family: Family) -> torch.nn.Module:
    """Return the reference on the device of an embedder; if it does not fit there, its layers are streamed."""
    plan = embedder.plan
    family.require_reference()
    reference = family.module("reference").load_reference(Path(embedder.options.model))
    if embedder.weights == "resident" and replace(plan, dtype="fp32").fits(beside=plan.weight_bytes):
        return reference.to(embedder.device)
    log.warning("the reference in fp32 does not fit beside the packed model: its layers are copied for each sequence")
    return stream_layers(reference, embedder.device)


def _of_forward(stored: Stored, index: int) -> list[str]:
    """Return the stored features of a sequence that come from one forward, not from masked copies."""
    return [feature for feature in stored.residues[index] if not RESIDUES[feature].of_masked]


def _reference(model: torch.nn.Module, tokens: np.ndarray, embedder: Embedder) -> dict:
    """Return the outputs of fair-esm for one protein, as arrays; in windows if the packed path uses windows."""
    size, starts = windows_of(embedder, len(tokens) - 2)
    if len(starts) == 1:
        truth = reference_outputs(model, tokens, embedder.layers, "contacts" in embedder.options.include)
        scored = truth["logits"][1:-1]
    else:
        truth = reference_in_windows(model, tokens, embedder.layers, starts, size)
        scored = truth.pop("scored_logits")
    if "wildtype_marginals" in embedder.options.include:
        marginals = substitution_marginals(scored.numpy(force=True), tokens[1:-1])
        truth["wildtype_marginals"] = torch.from_numpy(np.pad(marginals, ((1, 1), (0, 0))))
    layers = {layer: rows.numpy(force=True) for layer, rows in truth.pop("representations").items()}
    return {"representations": layers} | {name: values.numpy(force=True) for name, values in truth.items()}


def compare_stored(stored: Stored, index: int, truth: dict, tokens: np.ndarray) -> dict:
    """Return the errors of the stored values of one sequence, other than pooled vectors and those of masked copies.

    An error is None if the reference has no such output: fair-esm's attention maps of a long sequence are too large.
    """
    errors: dict = {}
    for name, scalar in SCALARS.items():
        if name in stored.columns and not scalar.of_masked:
            errors |= scalar.errors(float(stored.columns[name][index][0]), truth["logits"], tokens)
    for feature in _of_forward(stored, index):
        output, got = RESIDUES[feature], stored.residues[index][feature]
        if feature in truth:
            want = _residues_only(feature, truth[feature]).reshape(got.decoded.shape)
            errors |= output.errors(got.nearest_to(want), want)
        else:
            errors |= {measure.name: None for measure in output.measures}
    return errors


def _loss_in_8_bits(stored: StoredValues | None, place: int, want: np.ndarray) -> dict[str, float]:
    """Return the differences of representations in 8 bits from fair-esm's [L, E], with the loss by the rounding.

    No bound applies to them; they show what the user's choice costs. `place`: number of the layer among those stored.
    """
    if stored is None or stored.scale is None:
        return {}
    errors = residue_errors(stored.decoded.reshape(-1, *want.shape)[place], want)
    return {f"int8_{name}": errors[name] for name in ("relative_l2", "min_residue_cosine")}


def _residues_only(feature: str, truth: np.ndarray | dict[int, np.ndarray]) -> np.ndarray:
    """Return an output of the reference without the rows of cls and eos.

    This does not use the output's layout, which cuts the stored values: a mistake there must be detected here.
    """
    layout = RESIDUES[feature].layout
    if layout is PAIRS:
        return truth
    return np.stack([rows[1:-1] for rows in truth.values()]) if layout is LAYER_ROWS else truth[1:-1]
