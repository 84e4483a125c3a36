#!/bin/sh
# What became of a Slurm job. One that was killed has to be noticed, to be tried again with more; where the controller
# does not answer for a moment, the job goes on.
case $(scontrol show job "$1" 2>&1) in
    *JobState=COMPLETED*) echo success ;;
    *JobState=BOOT_FAIL* | *JobState=CANCELLED* | *JobState=DEADLINE* | *JobState=FAILED* | *JobState=NODE_FAIL* | \
        *JobState=OUT_OF_MEMORY* | *JobState=PREEMPTED* | *JobState=TIMEOUT* | *"Invalid job id"*) echo failed ;;
    *) echo running ;;
esac
