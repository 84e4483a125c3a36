# Compare the existing results with the present settings.

import sys

from packed_esm.planning import stages

FIGURES = ("lengths", "pca", "umap", "validation", "throughput", "stages")
PAGE_FILES = {
    **{"metadata": Path(sheet) for sheet in metadata},
    **{f"caption of {figure}": FOLDER / "report" / f"{figure}.rst" for figure in FIGURES},
    "template of the page": FOLDER / "packed_esm" / "report" / "page.html.j2",
}
STAGES = stages.requested_stages(results, model, PAGE_FILES)


def runs_jobs():
    """Return whether this call may run jobs: not if it is a dry run, only prints or lints, or another run is active."""
    resources = workflow.resource_settings
    if any(Path(".snakemake/locks").glob("*")):
        return False
    return not workflow.output_settings.dryrun and (resources.cores or resources.nodes) is not None


def stale_results(wildcards):
    """Return a sentence that names the files that do not belong to this configuration; empty if there are none."""
    return results.stale()


if workflow.is_main_process:
    stamps = stages.stamps_of(results, STAGES, runs_jobs())
else:
    stamps = stages.stamps_of_this_run(results, STAGES)
STAMPS = {stage: local(path) for stage, path in stamps.items()}
if earlier := results.first_layout():
    print(f"{', '.join(earlier)}: from version 0.3.0, kept; `reuse: [results]` uses them", file=sys.stderr)
