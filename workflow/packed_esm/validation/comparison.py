"""Compare what is stored of some sequences with what fair-esm gives for them, and with what is computed again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..checkpoints.loading import load_esm2
from ..embedding.embedder import Embedder
from ..sequences.fasta import invalid_characters, normalise, read_records, refget_digest
from ..sequences.manifest import ACCEPTED
from ..sequences.tokens import tokenize
from ..store.embeddings import embedding_columns, sample_batches
from ..store.integrity import ValidationError
from ..store.names import dataset_names
from ..store.residues import open_residues, residue_arrays, residue_settings
from ..system.progress import progress_bar
from .reference import pooled_reference, reference_in_windows, reference_log_likelihood, reference_outputs


def read_sequences(samples: Sequence[tuple[str, Path, Path]], chosen: pd.DataFrame) -> list[str]:
    """Return the sequences of the chosen records, read once more from the samples' own FASTA files.

    Raises:
        ValidationError: a record whose sequence there is not that of its digest in the manifest.
    """
    found: dict[int, str] = {}
    for sample, fasta, _ in samples:
        wanted = {int(r.position): r for r in chosen[chosen["sample"] == sample].itertuples()}
        for position, record in enumerate(read_records(fasta) if wanted else ()):
            row = wanted.pop(position, None)
            if row is None:
                continue
            sequence = normalise(record.sequence)
            if row.status != ACCEPTED:  # what chunk_fasta did to it
                sequence = sequence.translate({ord(c): "X" for c in invalid_characters(sequence)})[: row.length]
            if invalid_characters(sequence) or refget_digest(sequence) != row.digest:
                raise ValidationError(
                    f"{fasta}, line {record.line}: sequence {row.id!r} is not the one in the manifest; "
                    "the file changed during the run, run again"
                )
            found[row.Index] = sequence
            if not wanted:
                break
        if wanted:
            raise ValidationError(f"{fasta}: {len(wanted)} records of the manifest are missing; run again")
    return [found[i] for i in range(len(chosen))]


def read_rows(samples: Sequence[tuple[str, Path, Path]], chosen: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the stored embeddings of the chosen records, {column: float32 [n, E]}."""
    stored: dict[str, np.ndarray] = {}
    for sample, _, path in samples:
        wanted = {r.id: r.Index for r in chosen[chosen["sample"] == sample].itertuples()}
        for table in sample_batches(path):
            hits = [(i, wanted[name]) for i, name in enumerate(table["id"].to_pylist()) if name in wanted]
            if not hits:
                continue
            source, target = map(list, zip(*hits, strict=True))
            for name, matrix in embedding_columns(table).items():
                stored.setdefault(name, np.full((len(chosen), matrix.shape[1]), np.nan, np.float32))
                stored[name][target] = matrix[source]
    return stored


@dataclass(frozen=True)
class Stored:
    """What the files have of the chosen sequences.

    Attributes:
        columns: {column: float32 [n, width]}.
        residues: {feature: dataset} of each sequence.
        residue_dtype: of representations there; None where there are no files of residues.
    """

    columns: dict[str, np.ndarray]
    residues: list[dict[str, np.ndarray]]
    residue_dtype: str | None


def read_stored(
    samples: Sequence[tuple[str, Path, Path]],
    residues: Mapping[tuple[str, str], Path],
    rows: pd.DataFrame,
    chosen: pd.DataFrame,
) -> Stored:
    """Return what is stored of the chosen records.

    Args:
        samples: (name, FASTA path, Parquet path).
        residues: {(sample, feature): path}.
        rows: of all records that are embedded, in order.
        chosen: some of them.

    Raises:
        EmbeddingFileError: a file that is damaged.
        ValidationError: a file of residues that lacks a record, or has one too many.
    """
    found: list[dict[str, np.ndarray]] = [{} for _ in range(len(chosen))]
    for (sample, feature), path in residues.items():
        ids = rows.loc[rows["sample"] == sample, "id"].tolist()
        names = dict(zip(ids, dataset_names(ids), strict=True))
        with open_residues(path) as file:
            present = set(file)
        if wrong := sorted(present ^ set(names.values())):
            raise ValidationError(
                f"{path}: {len(wrong)} datasets are missing or too many, {wrong[0]!r} first; remove it and run again"
            )
        with open_residues(path) as file:
            for record in chosen[chosen["sample"] == sample].itertuples():
                found[record.Index][feature] = file[names[record.id]][...]
    dtype = residue_settings(next(iter(residues.values())))["per_residue"] if residues else None
    return Stored(read_rows(samples, chosen), found, dtype)


def compare(chosen: pd.DataFrame, sequences: list[str], stored: Stored, embedder: Embedder) -> pd.DataFrame:
    """Run the chosen sequences again, packed and by fair-esm; return a row for each sequence and layer."""
    reference = load_esm2(embedder.options.model).to(embedder.device)
    tokens = [tokenize(sequence) for sequence in sequences]
    names = (chosen["sample"] + "|" + chosen["id"]).tolist()
    measured: list[dict] = []

    def compare_one(index: int, out: dict) -> None:
        truth = _reference(reference, tokens[index], embedder)
        again = residue_arrays(out, list(stored.residues[index]), stored.residue_dtype or "float32", names[index])
        both = compare_stored(stored, index, embedder.layers, truth, tokens[index])
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
