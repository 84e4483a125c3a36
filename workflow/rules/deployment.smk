# Where jobs find their programs: in conda environments, in a container, or in the environment of Snakemake.

from packed_esm.planning import containers
from packed_esm.planning.conda import embedding_environment
from packed_esm.planning.programs import put_running_python_first

DEPLOYMENT = {str(method) for method in workflow.deployment_settings.deployment_method}
RUNS_HERE = not DEPLOYMENT & {"conda", "apptainer"}
CPU_ENV = EMBED_ENV = str(FOLDER.parent / "envs" / "cpu.yaml")
IMAGE = containers.image_of_jobs(settings, "apptainer" in DEPLOYMENT)


def print_once(line):
    """Print a line on stderr in the main process only: a job reads the rules again."""
    if workflow.is_main_process:
        print(line, file=sys.stderr)


if "apptainer" in DEPLOYMENT:

    container: IMAGE


if "conda" in DEPLOYMENT:
    # Snakemake does not know its executor yet. Executors that submit jobs need --jobs, which a local run does not have.
    submits_jobs = workflow.remote_exec or workflow.resource_settings.nodes is not None
    environment, reason = embedding_environment(settings, submits_jobs)
    EMBED_ENV = str(FOLDER.parent / "envs" / f"{environment}.yaml")
    print_once(f"conda: jobs that run the model use envs/{environment}.yaml ({reason})")
if "apptainer" in DEPLOYMENT:
    reused = [inputs.folder_of_results(Path(file)) for file in earlier_results]
    read_by_jobs = [FOLDER.parent, *samples.values(), *model.inputs, *metadata, *variants, *reused]
    containers.share_with_containers([*read_by_jobs, results.folder, workflow.pathvars.get("logs")])
    containers.show_gpus(settings["device"])
elif IMAGE:
    print_once(f"container: {IMAGE} is not used, because Snakemake was called without --sdm apptainer")
if RUNS_HERE:
    put_running_python_first()  # `python` in the rules
