# Compare the existing results with the present settings.

import functools
import sys

from packed_esm.planning import stages
from packed_esm.planning.terminal import shorten_terminal
from snakemake.logging import logger

shorten_terminal(logger)

FIGURES = ("lengths", "pca", "umap", "validation", "throughput", "stages")
PAGE_FILES = {
    **{"metadata": Path(sheet) for sheet in metadata},
    **{f"caption of {figure}": FOLDER / "report" / f"{figure}.rst" for figure in FIGURES},
    "template of the page": FOLDER / "packed_esm" / "report" / "page.html.j2",
}
STAGES = stages.requested_stages(results, model, PAGE_FILES)


RECORD = stages.compare_with_record(results, STAGES) if workflow.is_main_process else None


@functools.cache
def stamps():
    """Return {stage: path of its stamp}; a run writes them, but not while another run writes the same results."""
    if RECORD is None:
        return stages.stamps_of_this_run(results, STAGES)
    return stages.stamps_of(results, RECORD, runs_jobs() and not stages.are_locked(results))


def stamp(stage):
    """Return an input function for the stamp of a stage, so that no stamp is written before there are jobs."""
    return lambda wildcards: local(stamps()[stage])


def stale_results(wildcards):
    """Return a sentence that names the files that do not belong to this configuration; empty if there are none."""
    return results.stale()


if earlier := results.first_layout():
    print(f"{', '.join(earlier)}: from version 0.3.0, kept; `reuse: [results]` uses them", file=sys.stderr)
