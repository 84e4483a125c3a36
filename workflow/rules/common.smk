import re
from pathlib import Path

from snakemake import __version__ as snakemake_version
from snakemake.exceptions import WorkflowError

FOLDER = Path(str(workflow.current_basedir)).parent
if not FOLDER.is_dir():
    raise WorkflowError(
        f"{FOLDER} is no local folder: the programs import a library beside them, so clone the repository "
        "and name the clone's workflow/Snakefile in `module:` or `--snakefile`"
    )

from packed_esm.checkpoints.fair_esm import require_fair_esm
from packed_esm.planning import arguments
from packed_esm.planning import inputs as given
from packed_esm.planning.config import read_config
from packed_esm.planning.job_resources import JobResources, embedding_threads
from packed_esm.planning.plan import Plan
from packed_esm.planning.programs import put_running_python_first
from packed_esm.report.colours import check_metadata
from packed_esm.store.settings import BITS

if Path("config/config.yaml").exists():

    configfile: "config/config.yaml"


settings = read_config(config, FOLDER / "schemas" / "config.schema.yaml")
IN_MODULE = Path(str(workflow.main_snakefile)).resolve().parent != FOLDER.resolve()
plan = Plan(settings, FOLDER, IN_MODULE)
model = plan.model


pathvars:
    results=f"results/{model.results_name}",
    logs=f"logs/{model.results_name}",
    benchmarks=f"benchmarks/{model.results_name}",


def read_metadata():
    """Return the sheet that `metadata` names, once its header is checked: a job that fails at the end is too late."""
    sheets = [given.given_path(settings["metadata"])] if settings["metadata"] else []
    for sheet in sheets:
        check_metadata(sheet)
    return given.without_braces("metadata", sheets)


def as_given(value):
    """Return a function of params that gives a value in which braces are no wildcards."""
    return lambda wildcards: value


def unrecorded(value):
    """Return a function of params that gives a value; as it takes `output`, a change of the value reruns nothing."""
    return lambda wildcards, output: value


def in_clone(path):
    """Return a function of params that gives a path in this clone, which may move."""
    return unrecorded(given.path_inside(FOLDER / path))


def residue_arguments(wildcards, output):
    """Return what embed_chunk.py is told of its files for each residue."""
    files = dict(zip(results.features, output.residues, strict=True))
    return arguments.residue_arguments(files) + arguments.residue_dtype_arguments(settings)


def until_merged(paths):
    """Return the chunks' files for each residue as an output; once they are copied, Snakemake removes them."""
    return paths if results.has_linked_residues else temp(paths)


def export_arguments(wildcards):
    """Return what export_sample.py is told of its files."""
    options = [text for option in results.exports(wildcards.sample) for text in option]
    return options + arguments.residue_arguments(results.exported_residues(wildcards.sample))


def embed_threads(wildcards):
    """Return the CPU threads of a job that runs the model; 8 on a cluster."""
    if workflow.remote_exec or workflow.non_local_exec:
        return 8  # not what this machine has: it may be the one that submits, or one that other users' jobs share
    limits = workflow.global_resources
    return embedding_threads(workflow.resource_settings.cores, int(limits["gpu"].value) if "gpu" in limits else 1)


samples = plan.samples
results = plan.results(workflow.pathvars.get("results"))
earlier_results = given.without_braces("reuse", given.earlier_files(settings["reuse"], Path(results.folder)))
metadata = read_metadata()
model_files = given.without_braces("model", map(given.path_inside, model.inputs))
needed = JobResources(settings, model.shape, bool(results.features))
CPU_ENV = str(FOLDER.parent / "envs" / "cpu.yaml")
EMBED_ENV = str(FOLDER.parent / "envs" / "gpu.yaml") if settings["device"] == "cuda" else CPU_ENV
if not any("conda" in str(method).lower() for method in workflow.deployment_settings.deployment_method):
    put_running_python_first()  # `python` in the rules
    require_fair_esm()


scattergather:
    chunk=results.chunks,


wildcard_constraints:
    scatteritem=r"\d+-of-\d+",
    sample="|".join(map(re.escape, samples)),
    feature="[a-z_]+",
