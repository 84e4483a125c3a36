import json
import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake import __version__ as snakemake_version
from snakemake.utils import validate

FIGURES = ("lengths", "pca", "umap", "validation", "throughput", "stages")
FOLDER = Path(str(workflow.current_basedir)).parent
if not FOLDER.is_dir():
    raise WorkflowError(
        f"{FOLDER} is no local folder: the programs import a library beside them, so clone the repository "
        "and name the clone's workflow/Snakefile in `module:` or `--snakefile`"
    )
sys.path.insert(0, str(FOLDER))

from packed_esm import models, summary
from packed_esm.colours import check_metadata
from packed_esm.config import (
    code_version,
    coerced,
    earlier_files,
    estimated_chunks,
    put_running_python_first,
    read_sample_sheet,
)
from packed_esm.fair_esm import require_fair_esm

if Path("config/config.yaml").exists():

    configfile: "config/config.yaml"


def read_samples():
    """Return {sample: FASTA path} of the sample sheet of the working directory, else of the shipped one."""
    sheet = Path(config["samples"])
    shipped = FOLDER.parent / sheet
    if not sheet.exists() and shipped.exists():
        print(f"There is no {sheet} here: the shipped example is used ({shipped})", file=sys.stderr)
        sheet = shipped
    table = read_sample_sheet(sheet)
    validate(table, FOLDER / "schemas" / "samples.schema.yaml", set_default=False)
    return {sample: str(sheet.parent / fasta) for sample, fasta in zip(table["sample"], table["fasta"])}


def number_of_chunks():
    """Return the number of chunks, without reading a FASTA."""
    if config["chunks"] != "auto":
        return config["chunks"]
    return estimated_chunks(SAMPLES.values(), config["residues_per_chunk"])


def path_inside(path):
    """Return the path relative to the working directory where it is inside: it survives moving the project."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def program(name):
    """Return the path of a program of this workflow."""
    return path_inside(FOLDER / "scripts" / name)


def model_files():
    """Return the files of the checkpoint."""
    if MODEL.is_dir():
        return sorted(map(str, [*MODEL.glob("*.safetensors"), MODEL / "config.json"]))
    if config["model"] not in models.MODELS and not MODEL.exists():
        raise WorkflowError(f"model: there is nothing at {MODEL}; give a .pt file or a Hugging Face folder")
    return [path_inside(MODEL)]


def embedding_arguments():
    """Return the command line options that say how to embed."""
    arguments = ["--model", config["model"], "--layers", *config["layers"], "--pooling", *config["pooling"]]
    for key in ("device", "dtype", "attention", "tokens_per_pack", "on_nonfinite"):
        arguments += [f"--{key.replace('_', '-')}", config[key]]
    return [str(argument) for argument in arguments]


def validation_arguments():
    """Return the command line options that say how to validate."""
    options = config["validation"].items()
    return [text for key, value in options for text in (f"--{key.replace('_', '-')}", str(value))]


def sample_arguments(*columns):
    """Return `--sample NAME` with the sample's `fasta` and `parquet`, as asked for, for each sample."""
    return [
        text
        for sample, fasta in SAMPLES.items()
        for paths in [{"fasta": fasta, "parquet": f"results/embeddings/{sample}.parquet"}]
        for text in ("--sample", sample, *(paths[column] for column in columns))
    ]


def embed_threads(wildcards):
    """Return the CPU threads of an embed job: all, shared among as many as may run at once; 8 on a cluster."""
    if workflow.remote_exec or workflow.non_local_exec:
        return 8  # not what this machine has: it may be the one that submits, or one that other users' jobs share
    available = workflow.global_resources
    gpus = int(available["gpu"].value) if "gpu" in available else 1
    return max(1, (workflow.resource_settings.cores or 8) // max(1, gpus))


def earlier_results():
    """Return the Parquet files that `reuse` names."""
    return list(map(str, earlier_files(config["reuse"], Path("results"))))


def metadata_sheets():
    """Return the sheet that `metadata` names, once its header is checked: a job that fails at the end is too late."""
    if not config["metadata"]:
        return []
    check_metadata(Path(config["metadata"]))
    return [config["metadata"]]


def final_results():
    """Return the files that a run is for."""
    return [
        *expand("results/embeddings/{sample}.parquet", sample=SAMPLES),
        "results/validation/summary.json",
        "results/report.html",
    ]


def summary_of_run():
    """Return what was done, how well, and where it lies; nothing where this run did not come so far."""
    *embeddings, validation, page = final_results()
    stats = gather.chunk("results/chunks/{scatteritem}.json")
    if not all(Path(path).exists() for path in (*embeddings, validation, *stats, "results/counts.json")):
        return ""
    if any(Path(path).stat().st_mtime > Path(validation).stat().st_mtime for path in embeddings):
        return ""
    lines = {
        "Rate": summary.rate([json.loads(Path(path).read_text()) for path in stats]),
        "Validation": summary.verdict(json.loads(Path(validation).read_text())),
        "Embeddings": "results/embeddings/",
        "Rejected": "results/rejected.tsv",
        "Report": page,
    }
    counted = summary.sample_table(json.loads(Path("results/counts.json").read_text()))
    return "\n".join(["", counted, "", *(f"{name + ':':<12}{text}" for name, text in lines.items()), ""])


schema = yaml.safe_load((FOLDER / "schemas" / "config.schema.yaml").read_text())
config.update(coerced(config, schema))
validate(config, FOLDER / "schemas" / "config.schema.yaml")

SAMPLES = read_samples()
EARLIER_RESULTS = earlier_results()
MODEL = models.find_model(config["model"])
CPU_ENV = str(FOLDER.parent / "envs" / "cpu.yaml")
EMBED_ENV = str(FOLDER.parent / "envs" / "gpu.yaml") if config["device"] == "cuda" else CPU_ENV
if not any("conda" in str(method).lower() for method in workflow.deployment_settings.deployment_method):
    put_running_python_first()  # `python` in the rules
    require_fair_esm()


scattergather:
    chunk=number_of_chunks(),


wildcard_constraints:
    scatteritem=r"\d+-of-\d+",
    sample="|".join(map(re.escape, SAMPLES)),
