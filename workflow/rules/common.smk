import json
import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

FOLDER = Path(str(workflow.current_basedir)).parent
if not FOLDER.is_dir():
    raise WorkflowError(
        f"{FOLDER} is no local folder: the programs import a library beside them, so clone the repository "
        "and name the clone's workflow/Snakefile in `module:` or `--snakefile`"
    )
sys.path.insert(0, str(FOLDER))

from packed_esm import models
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


def embedding_columns():
    """Return the names of the columns of embeddings, as embed_chunk.py will make them."""
    count = models.layer_count(config["model"], MODEL) if min(config["layers"]) < 0 else max(config["layers"])
    layers = models.resolve_layers(config["layers"], count)
    return [f"{pooling}_{layer}" for layer in layers for pooling in config["pooling"]]


def exports(sample):
    """Return, for each file beside Parquet that `formats` asks for, the options of export_sample.py: its path is last."""
    stem = f"results/embeddings/{sample}"
    columns = embedding_columns() if {"h5", "npy"} & set(config["formats"]) else []
    options = {
        "h5": [("--h5", column, f"{stem}.{column}.h5") for column in columns],
        "npy": [*(("--npy", column, f"{stem}.{column}.npy") for column in columns), ("--ids", f"{stem}.ids.txt")],
        "h5ad": [("--h5ad", f"{stem}.h5ad")],
        "pt": [("--pt", f"{stem}.pt")],
    }
    return [option for name in options if name in config["formats"] for option in options[name]]


def export_arguments(wildcards):
    """Return the command line options that say what to export."""
    return [text for options in exports(wildcards.sample) for text in options]


def final_results():
    """Return the files that a run is for."""
    return [
        *expand("results/embeddings/{sample}.parquet", sample=SAMPLES),
        *(path for sample in SAMPLES for *_, path in exports(sample)),
        "results/validation/summary.json",
        "results/report.html",
    ]


def summary_of_run():
    """Return where things lie and what the validation found; nothing where this run did not come so far."""
    *_, validation, report = final_results()
    embeddings = expand("results/embeddings/{sample}.parquet", sample=SAMPLES)
    times = [Path(path).stat().st_mtime if Path(path).exists() else 0 for path in (*embeddings, validation)]
    if 0 in times or max(times) > times[-1]:
        return ""
    found = json.loads(Path(validation).read_text())
    verdict = "there was no sequence to validate"
    if found["sequences_compared"]:
        verdict = (
            f"passed; {found['rows_checked']:,} rows checked, {found['sequences_compared']} sequences of "
            f"{found['shortest']:,} to {found['longest']:,} residues compared with fair-esm, worst relative L2 "
            f"{found['worst_relative_l2']:.1e}, worst residue cosine {found['worst_residue_cosine']:.8f}"
        )
    return f"\nEmbeddings: {', '.join(embeddings)}\nValidation: {verdict} ({validation})\nReport:     {report}\n"


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
