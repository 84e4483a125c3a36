#!/bin/sh
# Print the state of a Slurm job. A killed job must be reported as failed, so that Snakemake tries it again with more
# memory. If the controller does not answer for a moment, the job counts as running.
case $(scontrol show job "$1" 2>&1) in
    *JobState=COMPLETED*) echo success ;;
    *JobState=BOOT_FAIL* | *JobState=CANCELLED* | *JobState=DEADLINE* | *JobState=FAILED* | *JobState=NODE_FAIL* | \
        *JobState=OUT_OF_MEMORY* | *JobState=PREEMPTED* | *JobState=TIMEOUT* | *"Invalid job id"*) echo failed ;;
    *) echo running ;;
esac
