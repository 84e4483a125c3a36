"""Compare stored embeddings with fair-esm, on a sample spread over the lengths."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from ..embedding.embedder import Embedder, EmbedOptions, device_name
from ..embedding.long_proteins import WindowedEmbedder
from ..sequences.manifest import embedded, read_manifest
from ..store.embeddings import sample_settings
from ..store.integrity import ValidationError, check_file, check_sources, read_stats
from ..store.residues import residue_settings
from ..store.settings import differences
from ..system.files import replacing, write_json
from .comparison import compare, read_sequences, read_stored

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tolerance:
    """What may differ from fair-esm.

    Attributes:
        relative_l2: of a sequence: a layer's residues, a pooled vector, logits, a log-likelihood.
        residue_cosine: least of any residue.
        contact: of the probability of any contact, absolute.
    """

    relative_l2: float
    residue_cosine: float
    contact: float


# About 3.5 times the worst that tests/benchmarks/accuracy.py measured over all backends and the shapes from 3M to
# 650M on an H200 (relative L2 1.6e-6, 8.9e-4, 6.9e-3; 1 - cosine 5e-12, 6e-6, 2e-4), to leave room for other weights.
# Contacts: 2.2e-5, 1.2e-2, 0.10, 0.16, with a contact head of random weights (standard deviation 5, of all heads).
TOLERANCES = {
    "fp32": Tolerance(5e-6, 0.99999999, 1e-4),
    "fp16": Tolerance(3e-3, 0.9999, 4e-2),
    "bf16": Tolerance(2.5e-2, 0.995, 0.35),
    "fp8": Tolerance(6e-2, 0.99, 0.55),
}
# What rounding to the dtype of a file of residues adds to the relative L2: half of its last bit.
ROUNDING = {"float16": 2.0**-11, "float32": 0.0}


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
            default.contact,
        )


def validate(
    samples: Sequence[tuple[str, Path, Path]],
    manifest_path: Path,
    stats_paths: Sequence[Path],
    table_path: Path,
    summary_path: Path,
    options: ValidationOptions,
    embedding: EmbedOptions,
    residues: Mapping[tuple[str, str], Path] = MappingProxyType({}),
) -> dict:
    """Validate merged embeddings; write a row a sequence and layer (TSV) and a summary (JSON), and return the summary.

    Args:
        samples: (name, FASTA path, Parquet path).
        manifest_path: of all samples.
        stats_paths: JSON of the embed jobs; they say on what devices the embeddings were made.
        table_path, summary_path: outputs.
        options: what to sample and the tolerances.
        embedding: how the run was asked for; the packed path runs again so.
        residues: {(sample, feature): path} of the files for each residue.

    Raises:
        ValidationError: any failure; all are logged, the message has the first ones.
    """
    rows = embedded(read_manifest(manifest_path))
    for sample, _, path in samples:
        check_file(path, rows[rows["sample"] == sample])
    embedder = _same_embedder([path for _, _, path in samples], list(residues.values()), embedding)
    stats = read_stats(stats_paths, embedder.settings)
    chosen = stratified_sample(rows, options.sequences, options.seed)
    sequences = read_sequences(samples, chosen)
    check_sources({sample: fasta for sample, fasta, _ in samples}, manifest_path)
    stored = read_stored(samples, residues, rows, chosen)
    table = compare(chosen, sequences, stored, embedder)
    tolerance = options.tolerance(embedder.settings["dtype"])
    bounds = bounds_of(table, tolerance, stored.residue_dtype)
    failures = find_failures(table, bounds, tolerance.residue_cosine, _bits_can_be_equal(embedder, stats))
    summary = _summarise(table, failures, len(rows), tolerance, embedder.settings)
    with replacing(table_path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)
    write_json(summary_path, summary)
    for failure in failures:
        log.error("%s", failure)
    if failures:
        raise ValidationError(f"{len(failures)} failures: " + "; ".join(failures[:5]))
    return summary


def _same_embedder(paths: Sequence[Path], residues: Sequence[Path], options: EmbedOptions) -> Embedder:
    """Return an embedder with the settings of the files; the budget of tokens is taken from them.

    Raises:
        ValidationError: files made with other settings than asked for.
    """
    stored = {path: sample_settings(path) for path in paths}
    stored |= {path: _without_dtype(residue_settings(path)) for path in residues}
    budget = stored[paths[0]]["tokens_per_pack"]  # a list where it differs between chunks, after an out-of-memory
    embedder = WindowedEmbedder(replace(options, tokens_per_pack=budget if isinstance(budget, int) else min(budget)))
    for path, settings in stored.items():
        asked = embedder.settings | {"tokens_per_pack": budget}
        if differing := differences(settings, asked):
            raise ValidationError(f"{path}: made with other settings than asked for ({'; '.join(differing)})")
    return embedder


def _without_dtype(settings: dict) -> dict:
    return {key: value for key, value in settings.items() if key != "per_residue"}


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


def bounds_of(table: pd.DataFrame, tolerance: Tolerance, residue_dtype: str | None) -> dict[str, float]:
    """Return the largest value that each column of errors may have."""
    bounds = {name: tolerance.relative_l2 for name in table if name.endswith("relative_l2")}
    if "representations_relative_l2" in bounds:
        bounds["representations_relative_l2"] += ROUNDING[residue_dtype]
    if "contacts_max_abs" in table:
        bounds["contacts_max_abs"] = tolerance.contact
    return bounds


def find_failures(
    table: pd.DataFrame, bounds: Mapping[str, float], residue_cosine: float, bit_equal: bool
) -> list[str]:
    """Return a sentence for each sequence and layer out of tolerance.

    Args:
        table: a row a sequence and layer.
        bounds: {column: largest value}. Contacts that could not be compared have no value.
        residue_cosine: least cosine.
        bit_equal: demand equal bits.
    """
    failures = []
    for row in table.to_dict("records"):
        where = f"{row['sample']}|{row['id']}, {row['length']} residues, layer {row['layer']}"
        for name, bound in bounds.items():
            compared = name != "contacts_max_abs" or pd.notna(row[name])
            if compared and not row[name] <= bound:  # also true of nan
                failures.append(f"{where}: {name} to fair-esm is {row[name]:.2e}, more than {bound:.2e}")
        if not row["min_residue_cosine"] >= residue_cosine:
            failures.append(
                f"{where}: cosine of residue {row['worst_residue']} to fair-esm is {row['min_residue_cosine']:.8f}, "
                f"less than {residue_cosine}"
            )
        if bit_equal and not row["bit_equal"]:
            failures.append(f"{where}: what is stored is not what the same settings give again")
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
        kept = ("representations_relative_l2", "logits_relative_l2", "log_likelihood_relative_l2", "contacts_max_abs")
        pooled = [name for name in table if name.endswith("_relative_l2") and name not in kept]
        summary |= {
            "sequences_compared": table.groupby(["sample", "id"]).ngroups,
            "shortest": int(table["length"].min()),
            "longest": int(table["length"].max()),
            "layers": sorted({int(layer) for layer in table["layer"]}),
            "worst_relative_l2": float(table["relative_l2"].max()),
            "worst_pooled_relative_l2": float(table[pooled].max().max()),
            "worst_residue_cosine": float(table["min_residue_cosine"].min()),
            "max_abs": float(table["max_abs"].max()),
            **{
                f"worst_{name}": float(table[name].max())
                for name in kept
                if name in table and table[name].notna().any()
            },
            "bit_equal": bool(table["bit_equal"].all()),
        }
    return summary
