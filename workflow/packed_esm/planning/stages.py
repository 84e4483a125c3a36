"""The stages of the workflow: their settings and inputs, and the record of them."""

import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..embedding.options import OF_NO_VALUE, EmbedOptions, StorageOptions
from ..options import Options, options_of
from ..sequences.options import LongProteins, RecordOptions, TranslationOptions
from ..store.settings import BITS
from ..system.files import value_in
from ..validation.tolerance import ValidationOptions
from ..variants.options import OF_EMBEDDINGS, VariantOptions
from .arguments import keys_of, setting
from .checkpoint import Checkpoint
from .config import plain
from .inputs import user_path
from .record import Source, Stage, compare, read_record, write_record, write_stamps
from .results import MOST_NAMED, Results


def requested_stages(results: Results, checkpoint: Checkpoint, page: Mapping[str, Path]) -> dict[str, Stage]:
    """Return {stage: its settings and inputs}.

    Args:
        results: the results of the run.
        checkpoint: the checkpoint of the run.
        page: {name: file} of the inputs of the report other than results: metadata, captions, template.
    """
    settings = results.settings
    fastas = {_fasta_of(sample): Source((Path(fasta),)) for sample, fasta in results.samples.items()}
    common = {"bits": BITS, "samples": list(results.samples), "input": settings["input"]}
    records = _values(settings, *keys_of(RecordOptions))
    long_proteins = _values(settings, *keys_of(LongProteins))
    of_embedding = (key for key in keys_of(EmbedOptions) if key not in ("model", *OF_NO_VALUE))
    embedding = _values(settings, *of_embedding, "per_residue") | _chosen(settings, StorageOptions)
    weights = {"checkpoint": Source(tuple(checkpoint.files), fixed=True)}
    if "contacts" in settings["include"]:
        weights["contact head"] = Source((checkpoint.contact_head,), small=True)
    head = {"contact_head_beside": checkpoint.has_contact_head_file}
    page_files = {name: Source((path,), small=True) for name, path in page.items()}
    stages = {
        "translate": Stage(common | records | _values(settings, *keys_of(TranslationOptions)), fastas),
        "chunk": Stage(common | records | long_proteins | {"chunks": results.chunks}, fastas),
        "embed": Stage({"bits": BITS} | embedding | long_proteins | head, weights),
        "validate": Stage(_values(settings, *keys_of(ValidationOptions))),
        "report": Stage(_values(settings, "color_by", "metadata"), page_files),
    }
    if settings["variants"]:
        stages["variants"] = _of_variants(settings, weights["checkpoint"])
    if results.translated:
        return stages | {"chunk": Stage(stages["chunk"].settings)}
    return {name: stage for name, stage in stages.items() if name != "translate"}


def _of_variants(settings: Mapping[str, Any], checkpoint: Source) -> Stage:
    model = (key for key in keys_of(EmbedOptions) if key not in ("model", *OF_NO_VALUE, *OF_EMBEDDINGS))
    values = _values(settings, "variants", *keys_of(VariantOptions), *model, *keys_of(LongProteins))
    table = Source((user_path(settings["variants"]),), small=True)
    return Stage({"bits": BITS} | values, {"checkpoint": checkpoint, "table of variants": table})


def digests_of_jobs(results: Results, recorded: Mapping) -> dict[str, dict[str, str]]:
    """Return {stage: {source: sha256}} of the inputs of jobs, as far as their outputs record it.

    The statistics of a job may be older than the record. They tell the sha256 of the checkpoint only if the job read
    the files of which the record has the identity.
    """
    chunked = value_in(Path(results.folder, "counts.json"), "fasta_sha256") or {}
    translated = {
        sample: value_in(Path(results.folder, "translated", f"{sample}.json"), "fasta_sha256")
        for sample in results.samples
    }
    statistics = Path(results.statistics()[0])
    read = value_in(statistics, "checkpoint", "identity")
    known = recorded.get("embed", {}).get("sources", {}).get("checkpoint", {}).get("identity")
    checkpoint = value_in(statistics, "checkpoint", "sha256") if read == known else None
    scored_with = value_in(Path(results.folder, "variants.json"), "settings", "model_sha256")
    return {
        "translate": {_fasta_of(sample): digest for sample, digest in translated.items() if digest},
        "chunk": {} if results.translated else {_fasta_of(sample): digest for sample, digest in chunked.items()},
        "embed": {"checkpoint": checkpoint} if checkpoint else {},
        "variants": {"checkpoint": scored_with} if scored_with else {},
    }


def compare_with_record(results: Results, stages: Mapping[str, Stage]) -> dict:
    """Return the record of the present stages; print what differs from the record of the existing results on stderr."""
    path = record_path(results)
    recorded = read_record(path)
    if path.exists() and not recorded:
        print(f"{path}: incomplete record of the settings; everything runs again", file=sys.stderr)
    record, changes = compare(recorded, stages, digests_of_jobs(results, recorded))
    for stage, sentences in changes.items():
        more = f"; and {len(sentences) - MOST_NAMED:,} more" if len(sentences) > MOST_NAMED else ""
        print(f"{results.folder}: {stage} runs again; {'; '.join(sentences[:MOST_NAMED])}{more}", file=sys.stderr)
    return record


def are_locked(results: Results, locks: Path = Path(".snakemake/locks")) -> bool:
    """Return whether another run has locked files of these results; Snakemake's lock files have one path a line.

    Several runs in one working directory may make different results at the same time.
    """
    for lock in locks.glob("*.lock"):
        with suppress(FileNotFoundError):  # the other run has ended
            if f"\n{results.folder}/" in f"\n{lock.read_text(encoding='utf-8', errors='surrogateescape')}":
                return True
    return False


def stamps_of(results: Results, record: Mapping, is_run: bool) -> dict[str, str]:
    """Return {stage: path of its stamp} for a record from `compare_with_record`.

    A run updates the record and the stamps. A call that only shows something (`is_run` is false) gets new stamps in a
    temporary folder.
    """
    path = record_path(results)
    if is_run:
        write_record(path, record)
        return write_stamps(path.with_suffix(""), record)
    elsewhere = Path(tempfile.mkdtemp(prefix="stamps-"))
    atexit.register(shutil.rmtree, elsewhere, ignore_errors=True)
    return write_stamps(path.with_suffix(""), record, elsewhere)


def stamps_of_this_run(results: Results, stages: Iterable[str]) -> dict[str, str]:
    """Return {stage: path of its stamp}, for the processes of jobs; the main process has written them."""
    folder = record_path(results).with_suffix("")
    return {stage: str(folder / f"{stage}.txt") for stage in stages}


def record_digests(results: Results, stages: Mapping[str, Stage], done: bool) -> None:
    """Add the digests of the inputs of jobs to the record; if all are done, remove the previous settings from it."""
    recorded = read_record(record_path(results))
    record, _ = compare(recorded, stages, digests_of_jobs(results, recorded))
    if done:
        record = {stage: {key: entry[key] for key in entry if key != "previous"} for stage, entry in record.items()}
    write_record(record_path(results), record)


def record_path(results: Results) -> Path:
    """Return the path of the record."""
    return Path(results.folder, "settings.json")


def _chosen(settings: Mapping[str, Any], group: type[Options]) -> dict:
    """Return {key: value} of the options without their default: those that came with a later version."""
    options = options_of(group).values()
    return _values(settings, *(one.key for one, default in options if setting(settings, one.key) != default))


def _fasta_of(sample: str) -> str:
    return f"FASTA of sample {sample}"


def _values(settings: Mapping[str, Any], *keys: str) -> dict:
    """Return {key: value} for keys of the settings, with the types of JSON."""
    return {key: plain(setting(settings, key)) for key in keys}
