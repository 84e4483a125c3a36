# Whether the results that are there are what is asked for.

import sys

from packed_esm.planning import stages

FIGURES = ("lengths", "pca", "umap", "validation", "throughput", "stages")
PAGE = {
    **{"metadata": Path(sheet) for sheet in metadata},
    **{f"caption of {figure}": FOLDER / "report" / f"{figure}.rst" for figure in FIGURES},
    "template of the page": FOLDER / "packed_esm" / "report" / "page.html.j2",
}
ASKED = stages.asked(results, model, PAGE)


def runs_jobs():
    """Return whether this call may run jobs: not a dry run, one that only shows or lints, or one beside another run."""
    resources = workflow.resource_settings
    if any(Path(".snakemake/locks").glob("*")):
        return False
    return not workflow.output_settings.dryrun and (resources.cores or resources.nodes) is not None


def stale_results(wildcards):
    """Return a sentence that names the files of other samples, settings or numbers of chunks; empty if none."""
    return results.stale()


if workflow.is_main_process:
    stamps = stages.stamps_of(results, ASKED, runs_jobs())
else:
    stamps = stages.stamps_of_this_run(results, ASKED)
STAMPS = {stage: local(path) for stage, path in stamps.items()}
if earlier := results.first_layout():
    print(f"{', '.join(earlier)}: of version 0.3.0, left as they are; `reuse: [results]` takes them", file=sys.stderr)
