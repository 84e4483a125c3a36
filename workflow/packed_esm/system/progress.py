"""How far a long step is: a bar on a terminal, and now and then a line in the log."""

import fcntl
import io
import logging
import os
import sys
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10
_LINE = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt}{unit}, {rate_fmt}, {remaining} left"
_LINE_WITHOUT_TOTAL = "{desc}: {n_fmt}{unit}, {rate_fmt}"
_CLEAR_LINE = "\r\x1b[K"

_terminal: TextIO | None = None  # where this process draws bars, if not on stderr


class _LogLines(tqdm):
    """tqdm that logs whole lines, for where a bar would be a heap of control characters."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n:
            log.info(str(self))


class _AboveTheBar(logging.StreamHandler):
    """Writes records where a bar may stand, without those that say in lines what the bar shows."""

    terminator = "\n"

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.addFilter(lambda record: record.name != __name__)

    def format(self, record: logging.LogRecord) -> str:
        return _CLEAR_LINE + super().format(record)


def use_terminal(descriptor: int) -> logging.Handler:
    """Draw bars on an open file descriptor, while stderr is a log file; return the handler that logs there, too.

    Several processes may have one terminal: the first draws a bar, the others write lines, as for what is no terminal.
    """
    global _terminal
    stream = os.fdopen(os.dup(descriptor), "w", buffering=1, encoding="utf-8")
    if not stream.isatty():
        return logging.StreamHandler(stream)
    try:
        own = open(os.ttyname(descriptor), "w", buffering=1, encoding="utf-8")  # noqa: SIM115, PTH123 - for life
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has the bar, or the terminal is not ours to open
        return logging.StreamHandler(stream)
    _terminal = own
    return _AboveTheBar(stream)


class Progress:
    """A bar, lines in the log, or both; a context manager."""

    def __init__(self, *shown: tqdm) -> None:
        self.shown = shown

    def update(self, count: int) -> None:
        """Count what was done since the last call."""
        for one in self.shown:
            one.update(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for one in self.shown:
            one.close()


def progress_bar(total: int | None, unit: str, description: str) -> Progress:
    """Return a bar over `total` units (None: not known) where there is a terminal, and lines in a log elsewhere."""
    common = {"total": total, "unit": f" {unit}", "desc": description}
    if sys.stderr.isatty():
        return Progress(_bar(sys.stderr, common))
    lines = _LogLines(
        **common,
        bar_format=_LINE if total else _LINE_WITHOUT_TOTAL,
        mininterval=SECONDS_BETWEEN_LINES,
        miniters=1,  # else tqdm guesses how many updates to skip, and a slow pack makes it silent
        file=io.StringIO(),  # lines go to the log; tqdm itself would add empty ones
    )
    return Progress(lines, _bar(_terminal, common)) if _terminal else Progress(lines)


def _bar(stream: TextIO, common: dict) -> tqdm:
    # position: the lines in the log are a bar to tqdm, which would put this one beneath.
    return tqdm(**common, unit_scale=True, dynamic_ncols=True, miniters=1, position=0, file=stream)
