"""Short messages: Snakemake names every file of a job, and a job may have the files of all samples."""

import copy
import logging

SHOWN = 3  # files of a list
SHOWN_LETTERS = 300  # of a reason, which names files too
_WITH_FILES = ("input", "output")  # attributes of Snakemake's records on a job


class ShortFormatter(logging.Formatter):
    """Formats shortened records as another formatter does."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        return self.formatter.format(shortened(record))


def shorten_terminal(logger: logging.Logger) -> None:
    """Shorten what a logger of Snakemake's writes to the terminal; its log file keeps every name."""
    for handler in logger.handlers:
        is_terminal = isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
        if is_terminal and handler.formatter and not isinstance(handler.formatter, ShortFormatter):
            handler.setFormatter(ShortFormatter(handler.formatter))


def shortened(record: logging.LogRecord) -> logging.LogRecord:
    """Return a copy of a record of Snakemake's, with shorter lists of files and a shorter reason."""
    record = copy.copy(record)
    for name in _WITH_FILES:
        files = getattr(record, name, None)
        if isinstance(files, list) and len(files) > SHOWN + 1:
            setattr(record, name, [*files[:SHOWN], f"... ({len(files):,} files)"])
    reason = getattr(record, "reason", None)
    if isinstance(reason, str) and len(reason) > SHOWN_LETTERS:
        record.reason = f"{reason[:SHOWN_LETTERS]} ..."
    return record
