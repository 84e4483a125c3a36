"""A progress bar on a terminal, and now and then a line in a log file."""

import io
import logging
import sys

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10
_LINE = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt}{unit}, {rate_fmt}, {remaining} left"
_LINE_WITHOUT_TOTAL = "{desc}: {n_fmt}{unit}, {rate_fmt}"


class _LogLines(tqdm):
    """tqdm that logs whole lines, for where a bar would be a heap of control characters."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n:
            log.info(str(self))


def progress_bar(total: int | None, unit: str, description: str) -> tqdm:
    """Return a bar over `total` units (None: not known): tqdm's own on a terminal, log lines elsewhere."""
    if sys.stderr.isatty():
        return tqdm(total=total, unit=f" {unit}", desc=description, unit_scale=True)
    return _LogLines(
        total=total,
        unit=f" {unit}",
        desc=description,
        bar_format=_LINE if total else _LINE_WITHOUT_TOTAL,
        mininterval=SECONDS_BETWEEN_LINES,
        miniters=1,  # else tqdm guesses how many updates to skip, and a slow pack makes it silent
        file=io.StringIO(),  # lines go to the log; tqdm itself would add empty ones
    )
