import json
import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake import __version__ as snakemake_version

FIGURES = ("lengths", "pca", "umap", "validation", "throughput", "stages")
FOLDER = Path(str(workflow.current_basedir)).parent
if not FOLDER.is_dir():
    raise WorkflowError(
        f"{FOLDER} is no local folder: the programs import a library beside them, so clone the repository "
        "and name the clone's workflow/Snakefile in `module:` or `--snakefile`"
    )
sys.path.insert(0, str(FOLDER))

from packed_esm.checkpoints import registry as models
from packed_esm.checkpoints.fair_esm import require_fair_esm
from packed_esm.checkpoints.headers import checkpoint_files, has_contact_head, layer_count
from packed_esm.outputs.columns import resolve_layers
from packed_esm.planning.config import check, plain, read_config
from packed_esm.planning.inputs import (
    NUCLEOTIDES_PER_RESIDUE,
    earlier_files,
    estimated_chunks,
    given_path,
    read_sample_sheet,
)
from packed_esm.planning.programs import code_version, put_running_python_first
from packed_esm.planning.record import (
    Source,
    Stage,
    compare,
    not_expected,
    read_record,
    said_in,
    write_record,
    write_stamps,
)
from packed_esm.report import summary
from packed_esm.report.colours import check_metadata
from packed_esm.sequences.windows import ResidueWindows

if Path("config/config.yaml").exists():

    configfile: "config/config.yaml"


def read_samples():
    """Return {sample: FASTA path} of the sample sheet of the working directory, else of the shipped one."""
    sheet = given_path(settings["samples"])
    shipped = FOLDER.parent / sheet
    if not sheet.exists() and shipped.exists():
        print(f"There is no {sheet} here: the shipped example is used ({shipped})", file=sys.stderr)
        sheet = shipped
    table = read_sample_sheet(sheet)
    schema = yaml.safe_load((FOLDER / "schemas" / "samples.schema.yaml").read_text())
    for line, row in zip(table.index, table.to_dict("records")):
        check(row, schema, f"{sheet}, line {line}")
    given = {sample: str(sheet.parent / given_path(fasta)) for sample, fasta in zip(table["sample"], table["fasta"])}
    missing = [(sample, fasta) for sample, fasta in given.items() if not Path(fasta).exists()]
    if missing and (settings["chunks"] == "auto" or not is_module()):
        raise WorkflowError(
            "{}: there is no {}, the FASTA file of sample {!r}; mend the sheet".format(sheet, *reversed(missing[0]))
            + ", or set `chunks` if your workflow makes the file" * is_module()
        )
    without_braces("samples", given.values())
    return given


def is_module():
    """Return whether another workflow uses this one as a module."""
    return Path(str(workflow.main_snakefile)).resolve().parent != FOLDER.resolve()


def as_given(value):
    """Return a function of params that gives a value in which braces are no wildcards."""
    return lambda wildcards: value


def without_braces(key, paths):
    """Return paths of inputs; raise WorkflowError for one that Snakemake would take for a pattern, by its key."""
    for path in paths:
        if {"{", "}"} & set(str(path)):
            raise WorkflowError(
                f"{key}: {path} has braces, which mean wildcards to Snakemake; rename it, or give a link"
            )
    return paths


def number_of_chunks():
    """Return the number of chunks, without reading a FASTA."""
    if settings["chunks"] != "auto":
        return settings["chunks"]
    letters = NUCLEOTIDES_PER_RESIDUE if TRANSLATED else 1
    return estimated_chunks(GIVEN.values(), letters * settings["residues_per_chunk"])


def nucleotides_of_sample(wildcards):
    """Return the FASTA path that the sheet gives for a sample."""
    return GIVEN[wildcards.sample]


def path_inside(path):
    """Return the path relative to the working directory where it is inside: it survives moving the project."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def program(name):
    """Return the path of a program of this workflow."""
    return path_inside(FOLDER / "scripts" / name)


def model_files():
    """Return the files of the checkpoint."""
    wanted = CONTACT_HEAD.exists() or contact_head_missing()
    without_braces("model", checkpoint())
    return [path_inside(path) for path in (*checkpoint(), *([CONTACT_HEAD] if wanted and not MODEL.is_dir() else []))]


def checkpoint():
    """Return the files of the checkpoint without its contact head; a published one may be yet to be downloaded."""
    return checkpoint_files(MODEL) if settings["model"] not in models.MODELS or MODEL.exists() else [MODEL]


def contact_head_missing():
    """Return whether the contact head of a published model is wanted and has to be downloaded."""
    if "contacts" not in settings["include"] or CONTACT_HEAD.exists():
        return False
    if settings["model"] in models.MODELS:
        models.contact_head_url(settings["model"])  # raises where none is published
        return True
    if not has_contact_head(MODEL):
        raise WorkflowError(f"include: contacts needs a contact head, and there is none in {MODEL} nor {CONTACT_HEAD}")
    return False


def translation_arguments():
    """Return the command line options that say how to translate."""
    options = {
        **settings["translation"],
        "on_invalid": settings["on_invalid"],
        "on_duplicate_id": settings["on_duplicate_id"],
    }
    return [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def length_arguments():
    """Return the command line options that say what becomes of records that are too long."""
    options = settings["long_proteins"]
    if options["max_length"] == "none":
        return []
    return [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))]


def record_limit_arguments():
    """Return the command line option that says how long a record may be; auto is the program's own default."""
    limit = settings["max_record_residues"]
    return [] if limit == "auto" else ["--max-record-residues", str(limit)]


def window_arguments():
    """Return the command line options of the windows in which long proteins are embedded."""
    max_length, action, overlap = (settings["long_proteins"][key] for key in ("max_length", "action", "overlap"))
    if max_length == "none" or action != "split":
        return []
    ResidueWindows(max_length, overlap)  # raises what is wrong with them
    return ["--windows", max_length, overlap]


def embedding_arguments():
    """Return the command line options that say how to embed."""
    arguments = [f"--model={settings['model']}", "--layers", *settings["layers"], "--pooling", *settings["pooling"]]
    arguments += ["--include", *settings["include"], *window_arguments()]
    for key in ("device", "dtype", "attention", "tokens_per_pack", "on_nonfinite"):
        arguments += [f"--{key.replace('_', '-')}", settings[key]]
    return [str(argument) for argument in arguments]


def residue_features():
    """Return the features of which there are files for each residue."""
    wanted = ["representations"] if settings["per_residue"] != "none" else []
    wanted += [feature for feature in ("logits", "contacts") if feature in settings["include"]]
    if wanted and settings["reuse"]:
        raise WorkflowError(f"reuse: earlier results hold no {wanted[0]} of each residue; leave out one of the two")
    return wanted


def residue_arguments(wildcards, output):
    """Return the command line options of the files for each residue."""
    pairs = zip(RESIDUE_FEATURES, output.residues, strict=True)
    dtype = [] if settings["per_residue"] == "none" else ["--residue-dtype", settings["per_residue"]]
    return [text for feature, path in pairs for text in ("--residues", feature, path)] + dtype


def repeated_share(wildcards, output):
    """Return the share of the sequences to embed twice; as a function of `output`, so that its change reruns nothing."""
    return settings["validation"]["repeat"]


def residue_values():
    """Return the files of chunks that the files for each residue link to."""
    return [
        path for feature in RESIDUE_FEATURES for path in gather.chunk(f"{RESULTS}/chunks/{{scatteritem}}.{feature}.h5")
    ]


def residue_files():
    """Return {(sample, feature): path} of the files for each residue."""
    every = [(sample, feature) for sample in SAMPLES for feature in RESIDUE_FEATURES]
    return {(sample, feature): f"{RESULTS}/residues/{sample}.{feature}.h5" for sample, feature in every}


def validation_arguments():
    """Return the command line options that say how to validate; `repeat` is for embedding."""
    options = [(key, value) for key, value in settings["validation"].items() if key != "repeat"]
    return [text for key, value in options for text in (f"--{key.replace('_', '-')}", str(value))]


def sample_arguments(*columns):
    """Return `--sample NAME` with the sample's `fasta` and `parquet`, as asked for, for each sample."""
    return [
        text
        for sample, fasta in SAMPLES.items()
        for paths in [{"fasta": fasta, "parquet": f"{RESULTS}/embeddings/{sample}.parquet"}]
        for text in ("--sample", sample, *(argument(paths[column]) for column in columns))
    ]


def argument(path):
    """Return a path as an argument that no program takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def embed_threads(wildcards):
    """Return the CPU threads of an embed job: all, shared among as many as may run at once; 8 on a cluster."""
    if workflow.remote_exec or workflow.non_local_exec:
        return 8  # not what this machine has: it may be the one that submits, or one that other users' jobs share
    available = workflow.global_resources
    gpus = int(available["gpu"].value) if "gpu" in available else 1
    return max(1, (workflow.resource_settings.cores or 8) // max(1, gpus))


def earlier_results():
    """Return the Parquet files that `reuse` names."""
    return without_braces("reuse", list(map(str, earlier_files(settings["reuse"], Path(RESULTS)))))


def embedding_columns():
    """Return the names of the columns of embeddings, as embed_chunk.py will make them."""
    count = layer_count(settings["model"], MODEL) if min(settings["layers"]) < 0 else max(settings["layers"])
    layers = resolve_layers(settings["layers"], count)
    return [f"{pooling}_{layer}" for layer in layers for pooling in settings["pooling"]]


def exports(sample):
    """Return, for each file beside Parquet that `formats` asks for, the options of export_sample.py: its path is last."""
    stem = f"{RESULTS}/embeddings/{sample}"
    columns = embedding_columns() if {"h5", "npy"} & set(settings["formats"]) else []
    options = {
        "h5": [("--h5", column, f"{stem}.{column}.h5") for column in columns],
        "npy": [
            *(("--npy", column, f"{stem}.{column}.npy") for column in columns),
            *(("--ids", f"{stem}.{column}.ids.txt") for column in columns),
        ],
        "h5ad": [("--h5ad", f"{stem}.h5ad")],
        "pt": [("--pt", f"{stem}.pt")],
    }
    return [option for name in options if name in settings["formats"] for option in options[name]]


def export_arguments(wildcards):
    """Return the command line options that say what to export."""
    residues = zip(RESIDUE_FEATURES, exported_residues(wildcards))
    return [text for options in exports(wildcards.sample) for text in options] + [
        text for feature, path in residues for text in ("--residues", feature, path)
    ]


def exported_residues(wildcards):
    """Return the files of each residue that go into fair-esm's .pt files of a sample."""
    wanted = RESIDUE_FEATURES if "pt" in settings["formats"] else []
    return [residue_files()[wildcards.sample, feature] for feature in wanted]


def metadata_sheets():
    """Return the sheet that `metadata` names, once its header is checked: a job that fails at the end is too late."""
    if not settings["metadata"]:
        return []
    sheet = given_path(settings["metadata"])
    check_metadata(sheet)
    return without_braces("metadata", [str(sheet)])


def final_results():
    """Return the files that a run is for."""
    return [
        *(f"{RESULTS}/embeddings/{sample}.parquet" for sample in SAMPLES),
        *residue_files().values(),
        *(path for sample in SAMPLES for *_, path in exports(sample)),
        f"{RESULTS}/validation/summary.json",
        f"{RESULTS}/report.html",
    ]


def summary_of_run():
    """Return what was done, how well, and where it lies; nothing where this run did not come so far."""
    *_, validation, page = final_results()
    embeddings = [f"{RESULTS}/embeddings/{sample}.parquet" for sample in SAMPLES]
    stats = gather.chunk(f"{RESULTS}/chunks/{{scatteritem}}.json")
    if not all(Path(path).exists() for path in (*embeddings, validation, *stats, f"{RESULTS}/counts.json")):
        return ""
    if any(Path(path).stat().st_mtime > Path(validation).stat().st_mtime for path in embeddings):
        return ""
    lines = {
        "Rate": summary.rate([json.loads(Path(path).read_text()) for path in stats]),
        "Validation": summary.verdict(json.loads(Path(validation).read_text())),
        "Embeddings": f"{RESULTS}/embeddings/",
        "Rejected": f"{RESULTS}/rejected.tsv",
        "Report": page,
    }
    if stale := stale_results():
        lines["Stale"] = stale
    counted = summary.sample_table(json.loads(Path(RESULTS, "counts.json").read_text()))
    return "\n".join(["", counted, "", *(f"{name + ':':<12}{text}" for name, text in lines.items()), ""])


settings = read_config(config, FOLDER / "schemas" / "config.schema.yaml")

MODEL = models.find_model(settings["model"])
CONTACT_HEAD = models.contact_head_path(MODEL)
models.check_layers(settings["model"], settings["layers"])
NAME = settings["name"] or models.results_name(settings["model"])


pathvars:
    results=f"results/{NAME}",
    logs=f"logs/{NAME}",
    benchmarks=f"benchmarks/{NAME}",


RESULTS = workflow.pathvars.get("results")
TRANSLATED = settings["input"] == "nucleotide"
GIVEN = read_samples()
SAMPLES = {sample: f"{RESULTS}/translated/{sample}.fasta" if TRANSLATED else fasta for sample, fasta in GIVEN.items()}
EARLIER_RESULTS = earlier_results()
RESIDUE_FEATURES = residue_features()
CPU_ENV = str(FOLDER.parent / "envs" / "cpu.yaml")
EMBED_ENV = str(FOLDER.parent / "envs" / "gpu.yaml") if settings["device"] == "cuda" else CPU_ENV
if not any("conda" in str(method).lower() for method in workflow.deployment_settings.deployment_method):
    put_running_python_first()  # `python` in the rules
    require_fair_esm()


scattergather:
    chunk=number_of_chunks(),


wildcard_constraints:
    scatteritem=r"\d+-of-\d+",
    sample="|".join(map(re.escape, SAMPLES)),
    feature="[a-z]+",
