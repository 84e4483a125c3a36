import dataclasses
import runpy
import sys
from pathlib import Path

tree = runpy.run_path(workflow.source_path("tree.py"))
FOLDER = tree["workflow_folder"](workflow.current_basedir, Path.cwd() / ".snakemake" / "packed-esm")
tree["import_library_from"](FOLDER)

from packed_esm.embedding.earlier_places import own_files
from packed_esm.planning import arguments, inputs, summary
from packed_esm.planning.config import read_config
from packed_esm.planning.job_resources import JobResources, embedding_threads
from packed_esm.planning.plan import Plan
from packed_esm.sequences.metadata import check_metadata
from packed_esm.store.settings import BITS
from packed_esm.variants.table import check_variants

if Path("config/config.yaml").exists():

    configfile: "config/config.yaml"


settings = read_config(config, FOLDER / "schemas" / "config.schema.yaml")
IN_MODULE = next(workflow.included).get_basedir().join("rules") != workflow.current_basedir
plan = Plan(settings, FOLDER, IN_MODULE)
model = plan.model


pathvars:
    results=f"results/{model.results_name}",
    logs=f"logs/{model.results_name}",
    benchmarks=f"benchmarks/{model.results_name}",


def checked_table(key, check):
    """Return the table that a key names, if any, after checking it, so that no late job fails because of it."""
    tables = [inputs.user_path(settings[key])] if settings[key] else []
    for table in tables:
        check(table)
    return local(inputs.usable_paths(key, tables))


def literal(value):
    """Return a function for params that returns a value; braces in it are not wildcards."""
    return lambda wildcards: value


def unrecorded(value):
    """Return a function for params that returns a value; because it uses `output`, a changed value reruns nothing."""
    return lambda wildcards, output: value


def in_clone(path):
    """Return a function for params that returns a path in this clone, which may be moved."""
    return unrecorded(inputs.path_inside(FOLDER / path))


def residue_arguments(wildcards, output):
    """Return the arguments of embed_chunk.py for its residue files."""
    files = dict(zip(results.features, output.residues, strict=True))
    return arguments.residue_arguments(files) + arguments.storage_arguments(settings)


def kept(paths, is_kept):
    """Return paths as an output that Snakemake removes after the last job that reads it, unless it is kept."""
    return paths if is_kept else temp(paths)


def export_arguments(wildcards, input):
    """Return the arguments of export_sample.py for its files; `{sample}` in them stands for each sample."""
    each = "{sample}"
    options = [
        "--embeddings",
        results.embedding_file(each),
        *(text for option in results.exports(each) for text in option),
    ]
    options += arguments.residue_arguments(results.exported_residues(each))
    options += [f"--metadata={sheet}" for sheet in input.metadata]
    return options + (["--chunks", argument_list("chunks.fasta")] if input.chunks else [])


def jobs_elsewhere(wildcards, output):
    """Return the argument of look_up.py for jobs on other machines; known after Snakemake has read the rules."""
    return ["--on-cluster"] if workflow.remote_exec or workflow.non_local_exec else []


def embed_threads(wildcards):
    """Return the CPU threads of a job that runs the model; 8 on a cluster."""
    if workflow.remote_exec or workflow.non_local_exec:
        return 8  # not the cores of this machine: it may only submit jobs, or be shared with the jobs of others
    limits = workflow.global_resources
    return embedding_threads(workflow.resource_settings.cores, int(limits["gpu"].value) if "gpu" in limits else 1)


samples = plan.samples
results = plan.results(workflow.pathvars.apply(workflow.modifier.path_modifier.replace_prefix("<results>")))


scattergather:
    chunk=results.chunks,


results = dataclasses.replace(results, chunks=len(gather.chunk("{scatteritem}")))  # of --set-scatter, if given
# The same as rules name them: `prefix` of a module is put before <results>, and not before what is local().
local_samples = {sample: local(fasta) for sample, fasta in samples.items()}
files = dataclasses.replace(results, folder="<results>", samples=local_samples)
earlier_results = local(inputs.usable_paths("reuse", inputs.earlier_files(settings["reuse"], Path(results.folder))))
metadata = checked_table("metadata", check_metadata)
variants = checked_table("variants", check_variants)
model_files = local(inputs.usable_paths("model", map(inputs.path_inside, model.inputs)))
job_resources = JobResources(settings, model.shape, bool(results.features))


wildcard_constraints:
    scatteritem=r"\d+-of-\d+",
    sample="[^/]+",
