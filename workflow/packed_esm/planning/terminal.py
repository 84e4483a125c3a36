"""Short messages: Snakemake names every file of a job, and a job may have the files of all samples."""

import logging

SHOWN = 3  # files of a list
SHOWN_LETTERS = 300  # of a reason, which names files too
_WITH_FILES = ("input", "output")  # attributes of Snakemake's records on a job


def shorten(record: logging.LogRecord) -> bool:
    """Shorten the lists of files in a record of Snakemake's; a filter for its logger, which passes every record."""
    for name in _WITH_FILES:
        files = getattr(record, name, None)
        if isinstance(files, list) and len(files) > SHOWN + 1:
            setattr(record, name, [*files[:SHOWN], f"... ({len(files):,} files)"])
    reason = getattr(record, "reason", None)
    if isinstance(reason, str) and len(reason) > SHOWN_LETTERS:
        record.reason = f"{reason[:SHOWN_LETTERS]} ..."
    return True
