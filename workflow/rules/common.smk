import hashlib
import json
import re
import sys
from pathlib import Path

import pandas as pd
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

WORKFLOW_FOLDER = Path(str(workflow.current_basedir)).parent
if not WORKFLOW_FOLDER.is_dir():
    raise WorkflowError(
        f"{WORKFLOW_FOLDER} is no local folder: the scripts import a library beside them, so clone the "
        "repository and name the clone's workflow/Snakefile in `module:` or `--snakefile`"
    )
sys.path.insert(0, str(WORKFLOW_FOLDER))

from packed_esm import models
from packed_esm.fair_esm import require_fair_esm

if Path("config/config.yaml").exists():

    configfile: "config/config.yaml"


def coerced(value, schema):
    """Return a config value with the types of the schema: `--config` gives strings inside lists and dicts."""
    if schema.get("type") == "object":
        properties = schema["properties"]
        return {key: coerced(item, properties.get(key, {})) for key, item in dict(value or {}).items()}
    if schema.get("type") == "array":
        items = value if isinstance(value, list) else [value]
        return [coerced(item, schema["items"]) for item in items]
    if isinstance(value, str) and schema.get("type") != "string":
        return yaml.safe_load(value)
    return value


def read_schema(name):
    """Return a schema of this workflow."""
    return yaml.safe_load((WORKFLOW_FOLDER / "schemas" / f"{name}.schema.yaml").read_text())


def read_samples(sheet):
    """Return {sample: FASTA path} of the sample sheet; its paths are relative to the sheet."""
    sheet = Path(sheet)
    if not sheet.exists():
        shipped = WORKFLOW_FOLDER.parent / sheet
        if not shipped.exists():
            raise WorkflowError(f"samples: there is no sample sheet {sheet}; columns: sample, fasta (TSV)")
        sheet = shipped
    table = pd.read_csv(sheet, sep="\t", dtype=str, keep_default_na=False, comment="#")
    if table.empty:
        raise WorkflowError(f"{sheet}: no sample in it; columns: sample, fasta (TSV)")
    validate(table, WORKFLOW_FOLDER / "schemas" / "samples.schema.yaml", set_default=False)
    repeated = table["sample"][table["sample"].duplicated()].tolist()
    if repeated:
        raise WorkflowError(f"{sheet}: sample {repeated[0]!r} stands in more than one row; names must differ")
    return {sample: str(sheet.parent / fasta) for sample, fasta in zip(table["sample"], table["fasta"])}


def number_of_chunks():
    """Return the number of chunks: from the config, else from the sizes of the files, which are not read."""
    if config["chunks"] != "auto":
        return config["chunks"]
    size = 0
    for sample, fasta in SAMPLES.items():
        if not Path(fasta).exists():
            raise WorkflowError(f"sample {sample}: there is no {fasta}; mend the sample sheet, or set `chunks`")
        size += Path(fasta).stat().st_size * (2 if fasta.endswith(".gz") else 1)
    return max(1, -(-size // config["residues_per_chunk"]))


def model_files():
    """Return the files of the checkpoint."""
    if MODEL.is_dir():
        return sorted(map(str, [*MODEL.glob("*.safetensors"), MODEL / "config.json"]))
    if config["model"] not in models.MODELS and not MODEL.exists():
        raise WorkflowError(f"model: there is nothing at {MODEL}; give a .pt file or a Hugging Face folder")
    inside = MODEL.is_relative_to(Path.cwd())  # a relative path survives moving the project
    return [str(MODEL.relative_to(Path.cwd()) if inside else MODEL)]


def code_version(name):
    """Return a digest of a program and of all library modules that it imports: jobs run again where it changes."""
    library = WORKFLOW_FOLDER / "packed_esm"
    seen, queue = {}, [SCRIPTS / name, SCRIPTS / "_program.py", library / "__init__.py"]
    while queue:
        file = queue.pop()
        if file not in seen and file.exists():
            seen[file] = file.read_bytes()
            modules = re.findall(rb"from (?:packed_esm)?\.(\w+) import", seen[file])
            queue += [library / f"{module.decode()}.py" for module in modules]
    return hashlib.sha256(b"".join(seen[file] for file in sorted(seen))).hexdigest()[:12]


def embedding_arguments():
    """Return the command line options that say how to embed."""
    arguments = ["--model", config["model"], "--layers", *config["layers"], "--pooling", *config["pooling"]]
    for key in ("device", "dtype", "attention", "tokens_per_pack", "on_nonfinite"):
        arguments += [f"--{key.replace('_', '-')}", config[key]]
    return [str(argument) for argument in arguments]


def validation_arguments():
    """Return the command line options that say how to validate."""
    return [text for key, value in config["validation"].items() for text in (f"--{key.replace('_', '-')}", str(value))]


def embed_threads():
    """Return the CPU threads of an embed job: all, shared among as many as may run at once."""
    available = workflow.global_resources
    gpus = int(available["gpu"].value) if "gpu" in available else 1
    return max(1, (workflow.cores or 8) // max(1, gpus))


def memory_mb(wildcards, attempt):
    """Return MiB for a job that loads the model: twice the fp32 weights, 3,000 for torch and one pack; doubled on retry."""
    weights_mb = 4 * models.shape_of(str(config["model"])).parameters // 2**20
    return (2 * weights_mb + 3000) * 2 ** (attempt - 1)


def final_results():
    """Return the files that a run is for."""
    return [
        *expand("results/embeddings/{sample}.parquet", sample=SAMPLES),
        "results/validation/summary.json",
        "results/report.html",
    ]


def summary_of_run():
    """Return what a person wants to know at the end: where things lie, and what the validation found."""
    found = json.loads(Path("results/validation/summary.json").read_text())
    lines = ["", "Embeddings: " + ", ".join(final_results()[: len(SAMPLES)])]
    if found["sequences_compared"]:
        lines.append(
            f"Validation: passed. {found['rows_checked']:,} rows checked; {found['sequences_compared']} sequences of "
            f"{found['shortest']:,} to {found['longest']:,} residues compared with fair-esm: worst relative L2 "
            f"{found['worst_relative_l2']:.1e}, worst residue cosine {found['worst_residue_cosine']:.8f} "
            "(results/validation/summary.json)"
        )
    else:
        lines.append("Validation: there was no sequence to validate")
    return "\n".join([*lines, "Report:     results/report.html", ""])


config.update(coerced(config, read_schema("config")))
validate(config, WORKFLOW_FOLDER / "schemas" / "config.schema.yaml")

SAMPLES = read_samples(config["samples"])
MODEL = models.find_model(config["model"])
SCRIPTS = WORKFLOW_FOLDER / "scripts"
ENVS = WORKFLOW_FOLDER.parent / "envs"
CPU_ENV = str(ENVS / "cpu.yaml")
EMBED_ENV = str(ENVS / ("gpu.yaml" if config["device"] == "cuda" else "cpu.yaml"))
USES_CONDA = any(str(m) in ("conda", "DeploymentMethod.CONDA") for m in workflow.deployment_settings.deployment_method)
if USES_CONDA:
    PYTHON = "python"
else:
    PYTHON = sys.executable  # the one that runs Snakemake, also where its environment is not activated
    require_fair_esm()


scattergather:
    chunk=number_of_chunks(),


wildcard_constraints:
    scatteritem=r"\d+-of-\d+",
    sample="|".join(map(re.escape, SAMPLES)),
