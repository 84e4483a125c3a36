"""Compare the stored embeddings of some sequences of all lengths with fair-esm."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from ..checkpoints.digest import CheckpointDigest, read_digests, start_digest
from ..embedding.device import device_class, device_name
from ..embedding.embedder import Embedder
from ..embedding.options import EmbedOptions, StorageOptions
from ..errors import ValidationError
from ..outputs.table import MEASURES, POOLINGS, SEQUENCE_MEASURES
from ..sequences.manifest import Manifest, embedded
from ..store.embeddings import sample_settings
from ..store.integrity import check_file, check_sources, read_stats
from ..store.residue_checks import check_residues
from ..store.residues import residue_settings
from ..store.settings import differences
from ..system.files import replacing, write_json
from .candidates import Candidates, stratified_sample
from .comparison import compare, reference_name
from .stored import read_sequences, read_stored
from .tolerance import INSTEAD, ValidationOptions, bounds_of, find_failures

log = logging.getLogger(__name__)


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
    """Validate merged embeddings; write a row per sequence and layer (TSV) and a summary (JSON); return the summary.

    Args:
        samples: (name, FASTA path, Parquet path).
        manifest_path: of all samples.
        stats_paths: statistics (JSON) of the embed jobs, with the devices that made the embeddings.
        table_path, summary_path: outputs.
        options: how many sequences to compare, and the tolerances.
        embedding: options of the run; the packed path runs again with them.
        residues: {(sample, feature): path} of the residue files.

    Raises:
        ValidationError: a check failed; all failures are logged, the message has the first five.
    """
    candidates = Candidates()
    with Manifest(manifest_path) as manifest:
        for sample, _, path in samples:
            check_file(path, candidates.among(manifest.embedded(sample)))
        for (sample, feature), path in residues.items():
            check_residues(path, sample, embedded(manifest.rows(sample)), feature)
    digest = start_digest(Path(embedding.model), read_digests(stats_paths))
    embedder = _same_embedder([path for _, _, path in samples], list(residues.values()), embedding, digest)
    stats = read_stats(stats_paths, embedder.settings)
    chosen = stratified_sample(candidates.rows, options.sequences, options.seed)
    sequences = read_sequences(samples, chosen)
    check_sources({sample: fasta for sample, fasta, _ in samples}, manifest_path)
    stored = read_stored(samples, residues, manifest_path, chosen)
    table = compare(chosen, sequences, stored, embedder, options.seed)
    dtype = embedder.settings["dtype"]
    tolerance = options.tolerance(dtype)
    bounds = bounds_of(table, tolerance)
    failures = find_failures(table, bounds, _bits_can_be_equal(embedder, stats), INSTEAD.get(dtype))
    summary = {"reference": reference_name(embedding.model)} | _summarise(
        table, failures, candidates.seen, tolerance, embedder.settings
    )
    with replacing(table_path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)
    write_json(summary_path, summary)
    for failure in failures:
        log.error("%s", failure)
    if failures:
        raise ValidationError(f"{len(failures)} failures: " + "; ".join(failures[:5]))
    return summary


def _same_embedder(
    paths: Sequence[Path], residues: Sequence[Path], options: EmbedOptions, digest: Future[CheckpointDigest]
) -> Embedder:
    """Return an embedder with the settings of the files, and with their budget of tokens.

    Raises:
        ValidationError: the settings of a file differ from `options`.
    """
    files = {path: sample_settings(path) for path in paths} | {path: residue_settings(path) for path in residues}
    stored = {path: StorageOptions.of_file(settings)[1] for path, settings in files.items()}
    budget = stored[paths[0]]["tokens_per_pack"]  # a list if chunks differ, after an out-of-memory
    budget_here = budget if isinstance(budget, int) else min(budget)
    embedder = Embedder(replace(options, tokens_per_pack=budget_here), digest, beside_reference=True)
    for path, settings in stored.items():
        present = embedder.settings | {"tokens_per_pack": budget}
        if differing := differences(settings, present):
            raise ValidationError(f"{path}: its settings differ from the present ones ({'; '.join(differing)})")
    return embedder


def _bits_can_be_equal(embedder: Embedder, stats: Sequence[dict]) -> bool:
    """Return whether a second run on this device must give the stored bits; if not, log why.

    It must where the class of the device and the budget of tokens are the same. Statistics of earlier versions have no
    class; for them the name of the device must be the same.
    """
    jobs = [s for s in stats if s["sequences"]]
    made_with = sorted({(s.get("device_class", s["device"]), s["settings"]["tokens_per_pack"]) for s in jobs})
    kinds = [device_class(embedder.device), device_name(embedder.device)]
    here = [(kind, embedder.tokens_per_pack) for kind in kinds]
    reused = sum(s["reused_sequences"] for s in stats)
    if embedder.facts.attention == "padded":
        reason = "with attention: padded bits depend on the neighbours"
    elif reused:
        reason = f"{reused} sequences come from earlier results, which do not record their device"
    elif any(made not in here for made in made_with):
        reason = f"made on (class of device, tokens per pack) {made_with}, validated on {here[0]}"
    else:
        return True
    log.warning("equal bits are not required: %s", reason)
    return False


def _summarise(
    table: pd.DataFrame, failures: list[str], rows_checked: int, tolerance: dict[str, float], settings: dict
) -> dict:
    summary = {
        "passed": not failures,
        "rows_checked": rows_checked,
        "sequences_compared": 0,
        "tolerance": tolerance,
        "failures": failures,
        "settings": settings,
    }
    if len(table):
        pooled = [pooling.measure.name for pooling in POOLINGS.values() if pooling.measure.name in table]
        compared = [x.name for x in SEQUENCE_MEASURES if x.name in table and table[x.name].notna().any()]
        summary |= {
            "sequences_compared": table.groupby(["sample", "id"]).ngroups,
            "shortest": int(table["length"].min()),
            "longest": int(table["length"].max()),
            "layers": sorted({int(layer) for layer in table["layer"]}),
            "worst_relative_l2": _worst(table["relative_l2"]),
            "worst_pooled_relative_l2": _worst(table[pooled].max()),
            "worst_residue_cosine": _worst(table["min_residue_cosine"]),
            "max_abs": _worst(table["max_abs"]),
            **{f"worst_{name}": _worst(table[name]) for name in compared},
            "bit_equal": bool(table["bit_equal"].all()),
        }
    if "int8_relative_l2" in table:
        summary["worst_int8_relative_l2"] = float(table["int8_relative_l2"].max())
        summary["worst_int8_residue_cosine"] = float(table["int8_min_residue_cosine"].min())
    return summary


def _worst(errors: pd.Series) -> float:
    least = errors.name in MEASURES and MEASURES[errors.name].best == 1
    return float(errors.min() if least else errors.max())
