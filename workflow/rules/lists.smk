# Arguments in files, for commands that name all samples or chunks.

import functools

from packed_esm.planning.lists import argument_lists, list_argument


def runs_jobs():
    """Return whether this call runs jobs, or only shows something; known after Snakemake has read the rules."""
    return workflow.execution_settings is not None and not workflow.dryrun


@functools.cache
def all_argument_lists():
    return argument_lists(results, earlier_results)


@functools.cache
def argument_list(name):
    """Return `@FILE`, of a list of arguments, which is written by any process that makes a command with it."""
    return list_argument(results, name, all_argument_lists()[name], runs_jobs())


def arguments_in_file(name):
    """Return a function for params that returns `@FILE`, see `argument_list`."""
    return lambda wildcards, output: argument_list(name)  # `output`: see `unrecorded`
