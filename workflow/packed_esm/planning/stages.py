"""The stages of the workflow: what each is asked for, and what is recorded of it."""

import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..embedding.options import EmbedOptions
from ..sequences.options import LongProteins, RecordOptions, TranslationOptions
from ..store.settings import BITS
from ..validation.tolerance import ValidationOptions
from .arguments import keys_of, setting
from .checkpoint import Checkpoint
from .config import plain
from .record import Source, Stage, compare, read_record, said_in, write_record, write_stamps
from .results import Results


def asked(results: Results, checkpoint: Checkpoint, page: Mapping[str, Path]) -> dict[str, Stage]:
    """Return {stage: what it is asked for}.

    Args:
        results: that the run makes.
        checkpoint: that it asks for.
        page: {name: file} of what the report is made of besides results: metadata, captions, template.
    """
    settings = results.settings
    given = {_fasta_of(sample): Source((Path(fasta),)) for sample, fasta in results.samples.items()}
    common = {"bits": BITS, "samples": list(results.samples), "input": settings["input"]}
    records = _values(settings, *keys_of(RecordOptions))
    long_proteins = _values(settings, *keys_of(LongProteins))
    embedding = _values(settings, *(key for key in keys_of(EmbedOptions) if key != "model"), "per_residue")
    weights = {"checkpoint": Source(tuple(checkpoint.files), fixed=True)}
    if "contacts" in settings["include"]:
        weights["contact head"] = Source((checkpoint.contact_head,), small=True)
    head = {"contact_head_beside": checkpoint.has_contact_head_file}
    shown = {name: Source((path,), small=True) for name, path in page.items()}
    stages = {
        "translate": Stage(common | records | _values(settings, *keys_of(TranslationOptions)), given),
        "chunk": Stage(common | records | long_proteins | {"chunks": results.chunks}, given),
        "embed": Stage({"bits": BITS} | embedding | long_proteins | head, weights),
        "validate": Stage(_values(settings, *keys_of(ValidationOptions))),
        "report": Stage(_values(settings, "color_by", "metadata"), shown),
    }
    if results.translated:
        return stages | {"chunk": Stage(stages["chunk"].settings)}
    return {name: stage for name, stage in stages.items() if name != "translate"}


def digests_of_jobs(results: Results) -> dict[str, dict[str, str]]:
    """Return {stage: {source: sha256}} of what jobs have read, as far as their outputs say."""
    chunked = said_in(Path(results.folder, "counts.json"), "fasta_sha256") or {}
    translated = {
        sample: said_in(Path(results.folder, "translated", f"{sample}.json"), "fasta_sha256")
        for sample in results.samples
    }
    checkpoint = said_in(Path(results.statistics()[0]), "settings", "model_sha256")
    return {
        "translate": {_fasta_of(sample): digest for sample, digest in translated.items() if digest},
        "chunk": {} if results.translated else {_fasta_of(sample): digest for sample, digest in chunked.items()},
        "embed": {"checkpoint": checkpoint} if checkpoint else {},
    }


def stamps_of(results: Results, stages: Mapping[str, Stage], is_run: bool) -> dict[str, str]:
    """Compare the results that are there with what is asked for; return {stage: path of its stamp}.

    What changed is said on stderr. A run writes it; a call that only shows what would be done (`is_run` is false) gets
    new stamps in a folder of its own.
    """
    path = record_path(results)
    recorded = read_record(path)
    if path.exists() and not recorded:
        print(f"{path}: not a whole record of what was asked for; all runs again", file=sys.stderr)
    record, changes = compare(recorded, stages, digests_of_jobs(results))
    for stage, sentences in changes.items():
        print(f"{results.folder}: {stage} runs again; {'; '.join(sentences)}", file=sys.stderr)
    if is_run:
        write_record(path, record)
        return write_stamps(path.with_suffix(""), record)
    elsewhere = Path(tempfile.mkdtemp(prefix="stamps-"))
    atexit.register(shutil.rmtree, elsewhere, ignore_errors=True)
    return write_stamps(path.with_suffix(""), record, elsewhere)


def stamps_of_this_run(results: Results, stages: Iterable[str]) -> dict[str, str]:
    """Return {stage: path of its stamp}, for the processes of jobs: the main process has written them."""
    folder = record_path(results).with_suffix("")
    return {stage: str(folder / f"{stage}.txt") for stage in stages}


def record_digests(results: Results, stages: Mapping[str, Stage], done: bool) -> None:
    """Add to the record what jobs have read; once all are done, what was asked for before is no longer of use."""
    record, _ = compare(read_record(record_path(results)), stages, digests_of_jobs(results))
    if done:
        record = {stage: {key: entry[key] for key in entry if key != "previous"} for stage, entry in record.items()}
    write_record(record_path(results), record)


def record_path(results: Results) -> Path:
    """Return where the record is."""
    return Path(results.folder, "settings.json")


def _fasta_of(sample: str) -> str:
    return f"FASTA of sample {sample}"


def _values(settings: Mapping[str, Any], *keys: str) -> dict:
    """Return keys of the settings with their values, as JSON has them."""
    return {key: plain(setting(settings, key)) for key in keys}
