"""Compare stored embeddings with fair-esm, on a sample spread over the lengths."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .checkpoints import load_esm2
from .embed import Embedder, EmbedOptions, device_name
from .fasta import invalid_characters, normalise, read_records, refget_digest
from .files import replacing, write_json
from .integrity import ValidationError, check_file, check_sources, read_stats
from .manifest import REPLACED, embedded, read_manifest
from .progress import progress_bar
from .reference import pooled_reference, reference_representations
from .settings import differences
from .tokenize import tokenize
from .writers import embedding_columns, sample_batches, sample_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tolerance:
    """Largest relative L2 of a sequence (a layer's residues, or a pooled vector); least cosine of any residue."""

    relative_l2: float
    residue_cosine: float


# About 3.5 times the worst that tests/benchmarks/accuracy.py measured over all backends and the shapes from 3M to
# 650M on an H200 (relative L2 1.6e-6, 8.9e-4, 6.9e-3; 1 - cosine 5e-12, 6e-6, 2e-4), to leave room for other weights.
TOLERANCES = {
    "fp32": Tolerance(5e-6, 0.99999999),
    "fp16": Tolerance(3e-3, 0.9999),
    "bf16": Tolerance(2.5e-2, 0.995),
    "fp8": Tolerance(6e-2, 0.99),
}


@dataclass(frozen=True)
class ValidationOptions:
    """How many sequences to recompute, the seed of their choice, and tolerances (None: by dtype)."""

    sequences: int = 32
    seed: int = 0
    max_relative_l2: float | None = None
    min_residue_cosine: float | None = None

    def tolerance(self, dtype: str) -> Tolerance:
        """Return the tolerance in force for a dtype."""
        default = TOLERANCES[dtype]
        return Tolerance(
            default.relative_l2 if self.max_relative_l2 is None else self.max_relative_l2,
            default.residue_cosine if self.min_residue_cosine is None else self.min_residue_cosine,
        )


def validate(
    samples: Sequence[tuple[str, Path, Path]],
    manifest_path: Path,
    stats_paths: Sequence[Path],
    table_path: Path,
    summary_path: Path,
    options: ValidationOptions,
    embedding: EmbedOptions,
) -> dict:
    """Validate merged embeddings; write a row a sequence and layer (TSV) and a summary (JSON), and return the summary.

    Args:
        samples: (name, FASTA path, Parquet path).
        manifest_path: of all samples.
        stats_paths: JSON of the embed jobs; they say on what devices the embeddings were made.
        table_path, summary_path: outputs.
        options: what to sample and the tolerances.
        embedding: how the run was asked for; the packed path runs again so.

    Raises:
        ValidationError: any failure; all are logged, the message has the first ones.
    """
    rows = embedded(read_manifest(manifest_path))
    for sample, _, path in samples:
        check_file(path, rows[rows["sample"] == sample])
    embedder = _same_embedder([path for _, _, path in samples], embedding)
    stats = read_stats(stats_paths, embedder.settings)
    chosen = stratified_sample(rows, options.sequences, options.seed)
    sequences = read_sequences(samples, chosen)
    check_sources({sample: fasta for sample, fasta, _ in samples}, manifest_path)
    table = _compare(chosen, sequences, read_rows(samples, chosen), embedder)
    tolerance = options.tolerance(embedder.settings["dtype"])
    failures = find_failures(table, tolerance, _bits_can_be_equal(embedder, stats))
    summary = _summarise(table, failures, len(rows), tolerance, embedder.settings)
    with replacing(table_path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)
    write_json(summary_path, summary)
    for failure in failures:
        log.error("%s", failure)
    if failures:
        raise ValidationError(f"{len(failures)} failures: " + "; ".join(failures[:5]))
    return summary


def _same_embedder(paths: Sequence[Path], options: EmbedOptions) -> Embedder:
    """Return an embedder with the settings of the files; the budget of tokens is taken from them.

    Raises:
        ValidationError: files made with other settings than asked for.
    """
    stored = [sample_settings(path) for path in paths]
    budget = stored[0]["tokens_per_pack"]  # a list where it differs between chunks, after an out-of-memory
    embedder = Embedder(replace(options, tokens_per_pack=budget if isinstance(budget, int) else min(budget)))
    for path, settings in zip(paths, stored, strict=True):
        asked = embedder.settings | {"tokens_per_pack": budget}
        if differing := differences(settings, asked):
            raise ValidationError(f"{path}: made with other settings than asked for ({'; '.join(differing)})")
    return embedder


def _bits_can_be_equal(embedder: Embedder, stats: Sequence[dict]) -> bool:
    """Return whether running again here must give the stored bits; if not, log why."""
    made_with = sorted({(s["device"], s["settings"]["tokens_per_pack"]) for s in stats if s["sequences"]})
    here = (device_name(embedder.device), embedder.tokens_per_pack)
    reused = sum(s["reused_sequences"] for s in stats)
    if embedder.model.attention == "padded":
        reason = "the padded fallback depends on the neighbours"
    elif reused:
        reason = f"{reused} sequences are from earlier results, which do not say on which device they were made"
    elif any(made != here for made in made_with):
        reason = f"made on (device, tokens a pack) {made_with}, validated on {here}"
    else:
        return True
    log.warning("equal bits are not demanded: %s", reason)
    return False


def stratified_sample(rows: pd.DataFrame, sequences: int, seed: int) -> pd.DataFrame:
    """Return records spread over the lengths: one of each stratum by chance, always the shortest and the longest.

    Each sequence is taken once, however many records have it; the order is by falling length.
    """
    unique = rows.drop_duplicates("digest").sort_values(["length", "digest"]).reset_index(drop=True)
    if len(unique) <= sequences:
        chosen = np.arange(len(unique))
    else:
        inner = max(0, sequences - 2)
        bounds = np.linspace(1, len(unique) - 1, inner + 1).astype(int)
        rng = np.random.default_rng(seed)
        picks = [int(rng.integers(low, high)) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
        chosen = np.array(sorted({0, len(unique) - 1, *picks}))
    return unique.iloc[chosen[::-1]].reset_index(drop=True)


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
            if row.status == REPLACED:
                sequence = sequence.translate({ord(c): "X" for c in invalid_characters(sequence)})
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


def _compare(
    chosen: pd.DataFrame, sequences: list[str], stored: dict[str, np.ndarray], embedder: Embedder
) -> pd.DataFrame:
    """Run the chosen sequences again, packed and by fair-esm; return a row for each sequence and layer."""
    poolings = embedder.options.poolings
    reference = load_esm2(embedder.options.model).to(embedder.device)
    tokens = [tokenize(sequence) for sequence in sequences]
    measured: list[dict] = []

    def compare_one(index: int, packed: dict[int, torch.Tensor]) -> None:
        truth = reference_representations(reference, tokens[index], embedder.layers)
        record = chosen.iloc[index]
        for layer in embedder.layers:
            row = {"sample": record["sample"], "id": record["id"], "length": record["length"], "layer": layer}
            row |= {"index": index} | compare_residues(packed[layer], truth[layer])
            for pooling in poolings:
                want = pooled_reference(truth[layer], pooling)
                row[f"{pooling}_relative_l2"] = _relative_l2(stored[f"{pooling}_{layer}"][index], want)
            measured.append(row)
        bar.update(len(sequences[index]))

    with progress_bar(sum(map(len, sequences)), "residues", "comparing with fair-esm") as bar:
        names = (chosen["sample"] + "|" + chosen["id"]).tolist()
        again = embedder.embed(tokens, each_sequence=compare_one)
        embedder.recompute(again, tokens, names, each_sequence=compare_one)
    for row in measured:
        columns, index = [f"{pooling}_{row['layer']}" for pooling in poolings], row.pop("index")
        row["bit_equal"] = all(again.columns[c][index].tobytes() == stored[c][index].tobytes() for c in columns)
    return pd.DataFrame(measured, columns=None if measured else ["sample", "id", "length", "layer"])


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


def find_failures(table: pd.DataFrame, tolerance: Tolerance, bit_equal: bool) -> list[str]:
    """Return a sentence for each sequence and layer out of tolerance; `bit_equal`: demand equal bits."""
    failures = []
    for row in table.to_dict("records"):
        where = f"{row['sample']}|{row['id']}, {row['length']} residues, layer {row['layer']}"
        l2_names = [name for name in row if name.endswith("relative_l2")]
        for name in l2_names:
            if not row[name] <= tolerance.relative_l2:  # also true of nan
                failures.append(
                    f"{where}: {name} to fair-esm is {row[name]:.2e}, more than {tolerance.relative_l2:.2e}"
                )
        if not row["min_residue_cosine"] >= tolerance.residue_cosine:
            failures.append(
                f"{where}: cosine of residue {row['worst_residue']} to fair-esm is {row['min_residue_cosine']:.8f}, "
                f"less than {tolerance.residue_cosine}"
            )
        if bit_equal and not row["bit_equal"]:
            failures.append(f"{where}: the stored embedding is not what the same settings give again")
    return failures


def _summarise(
    table: pd.DataFrame, failures: list[str], rows_checked: int, tolerance: Tolerance, settings: dict
) -> dict:
    summary = {
        "passed": not failures,
        "rows_checked": rows_checked,
        "sequences_compared": 0,
        "tolerance": asdict(tolerance),
        "failures": failures,
        "settings": settings,
    }
    if len(table):
        pooled = [name for name in table if name.endswith("_relative_l2")]
        summary |= {
            "sequences_compared": table.groupby(["sample", "id"]).ngroups,
            "shortest": int(table["length"].min()),
            "longest": int(table["length"].max()),
            "layers": sorted({int(layer) for layer in table["layer"]}),
            "worst_relative_l2": float(table["relative_l2"].max()),
            "worst_pooled_relative_l2": float(table[pooled].max().max()),
            "worst_residue_cosine": float(table["min_residue_cosine"].min()),
            "max_abs": float(table["max_abs"].max()),
            "bit_equal": bool(table["bit_equal"].all()),
        }
    return summary


def _relative_l2(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))
