# Where results lie, what this configuration makes of them, and whether those that are there are what is asked for.

import atexit
import shutil
import tempfile

RECORD = Path(RESULTS) / "settings.json"


def settings_of(*keys):
    """Return the keys of the configuration with their values."""
    return {key: plain(settings[key]) for key in keys}


def asked():
    """Return {stage: what it is asked for}."""
    given = {f"FASTA of sample {sample}": Source((Path(fasta),)) for sample, fasta in GIVEN.items()}
    names = {"samples": list(GIVEN), "input": settings["input"]}
    length = settings_of("long_proteins")
    records = settings_of("on_invalid", "on_duplicate_id")
    sources = {"checkpoint": Source(tuple(checkpoint()), fixed=True)}
    if "contacts" in settings["include"]:
        sources["contact head"] = Source((CONTACT_HEAD,), small=True)
    keys = ("layers", "pooling", "include", "per_residue", "device", "dtype", "attention", "tokens_per_pack")
    translation = settings_of("translation")
    metadata = {"metadata": Source((Path(sheet),), small=True) for sheet in metadata_sheets()}
    beside = {"contact_head_beside": CONTACT_HEAD.exists() or contact_head_missing()}
    stages = {
        "chunk": Stage(names | records | length | {"chunks": number_of_chunks()}, {} if TRANSLATED else given),
        "embed": Stage(settings_of(*keys, "on_nonfinite") | length | beside, sources),
        "validate": Stage({key: value for key, value in settings["validation"].items() if key != "repeat"}),
        "report": Stage(settings_of("color_by", "metadata"), metadata),
    }
    return ({"translate": Stage(names | records | translation, given)} if TRANSLATED else {}) | stages


def digests_of_jobs():
    """Return {stage: {source: sha256}} of what jobs have read, as far as they say."""
    chunked = {} if TRANSLATED else said_in(Path(RESULTS, "counts.json"), "fasta_sha256") or {}
    translated = {name: said_in(Path(RESULTS, "translated", f"{name}.json"), "fasta_sha256") for name in GIVEN}
    stats = Path(RESULTS, "chunks", f"1-of-{number_of_chunks()}.json")
    checkpoint_sha256 = said_in(stats, "settings", "model_sha256")
    return {
        "translate": {f"FASTA of sample {sample}": digest for sample, digest in translated.items() if digest},
        "chunk": {f"FASTA of sample {sample}": digest for sample, digest in chunked.items()},
        "embed": {"checkpoint": checkpoint_sha256} if checkpoint_sha256 else {},
    }


def check_results():
    """Compare the results that are there with what is asked for; return {stage: path of its stamp}.

    A run writes what changed; a call that only shows what would be done gets new stamps in a folder of its own.
    """
    folder = RECORD.with_suffix("")
    if not workflow.is_main_process:
        return {stage: str(folder / f"{stage}.txt") for stage in asked()}
    recorded = read_record(RECORD)
    if RECORD.exists() and not recorded:
        print(f"{RECORD}: not a whole record of what was asked for; all runs again", file=sys.stderr)
    record, changes = compare(recorded, asked(), digests_of_jobs())
    for stage, sentences in changes.items():
        print(f"{RESULTS}: {stage} runs again; {'; '.join(sentences)}", file=sys.stderr)
    if runs_jobs():
        write_record(RECORD, record)
        return write_stamps(folder, record)
    elsewhere = Path(tempfile.mkdtemp(prefix="stamps-"))
    atexit.register(shutil.rmtree, elsewhere, ignore_errors=True)
    return write_stamps(folder, record, elsewhere)


def runs_jobs():
    """Return whether this call may run jobs: not a dry run, one that only shows or lints, or one beside another run."""
    resources = workflow.resource_settings
    if any(Path(".snakemake/locks").glob("*")):
        return False
    return not workflow.output_settings.dryrun and (resources.cores or resources.nodes) is not None


def expected_results():
    """Return all files and folders that this configuration makes."""
    items = [f"{i + 1}-of-{number_of_chunks()}" for i in range(number_of_chunks())]
    endings = ["fasta", "arrow", "json", *(f"{feature}.h5" for feature in RESIDUE_FEATURES)]
    return [
        *(f"{RESULTS}/chunks/{item}.{ending}" for item in items for ending in endings),
        *(f"{RESULTS}/{name}" for name in ("settings.json", "settings", "figures", "validation")),
        *(f"{RESULTS}/{name}" for name in ("manifest.parquet", "rejected.tsv", "counts.json")),
        *(f"{RESULTS}/translated/{sample}.{ending}" for sample in GIVEN for ending in ("fasta", "tsv", "json") if TRANSLATED),
        *final_results(),
    ]


def stale_results(wildcards=None):
    """Return a sentence that names the files in the results that are of other samples, settings or counts, or none."""
    files = not_expected(Path(RESULTS), expected_results())
    more = f" and {len(files) - 5:,} more" if len(files) > 5 else ""
    return f"{len(files):,} files are not of this configuration: {', '.join(files[:5])}{more}" if files else ""


def earlier_layout():
    """Return the results of version 0.3.0, which lay in `results` itself."""
    if RESULTS == "results":  # a caller may want them there
        return []
    return [name for name in ("results/embeddings", "results/manifest.parquet") if Path(name).exists()]


def record_digests(done):
    """Add to the record what the jobs have read; once all are done, what was asked for before is no longer of use."""
    record, _ = compare(read_record(RECORD), asked(), digests_of_jobs())
    if done:
        record = {stage: {key: entry[key] for key in entry if key != "previous"} for stage, entry in record.items()}
    write_record(RECORD, record)


STAMPS = check_results()
if earlier := earlier_layout():
    print(f"{', '.join(earlier)}: of version 0.3.0, left as they are; `reuse: [results]` takes them", file=sys.stderr)
