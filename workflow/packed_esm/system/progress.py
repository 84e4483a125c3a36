"""Progress of a long step: a bar on a terminal, and regular lines in the log."""

import fcntl
import io
import logging
import os
import sys
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

log = logging.getLogger(__name__)

QUIET = "PACKED_ESM_QUIET"  # variable of the environment: on the terminal only a bar and warnings, in the log all
SECONDS_BETWEEN_LINES = 10
_LINE = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt}{unit}, {rate_fmt}, {remaining} left"
_LINE_WITHOUT_TOTAL = "{desc}: {n_fmt}{unit}, {rate_fmt}"
_CLEAR_LINE = "\r\x1b[K"

_terminal: TextIO | None = None  # this process draws its bars here, if not on stderr


class _LogLines(tqdm):
    """tqdm that writes lines to the log, where a bar would only leave control characters."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n:
            log.info(str(self))


class _AboveTheBar(logging.StreamHandler):
    """Writes log records above a bar, but not the lines of progress that the bar already shows."""

    terminator = "\n"

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.addFilter(lambda record: record.name != __name__)

    def format(self, record: logging.LogRecord) -> str:
        return _CLEAR_LINE + super().format(record)


def use_terminal(descriptor: int) -> logging.Handler:
    """Draw bars on an open file descriptor while stderr is a log file; return a handler that also logs there.

    Several processes can share one terminal. The first one draws a bar, the others write lines.
    """
    handler = _terminal_handler(descriptor)
    if os.environ.get(QUIET):
        handler.setLevel(logging.WARNING)
    return handler


def _terminal_handler(descriptor: int) -> logging.Handler:
    global _terminal
    stream = os.fdopen(os.dup(descriptor), "w", buffering=1, encoding="utf-8")
    if not stream.isatty():
        return logging.StreamHandler(stream)
    try:
        own = open(os.ttyname(descriptor), "w", buffering=1, encoding="utf-8")  # noqa: SIM115, PTH123 - for life
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has the bar, or the terminal cannot be opened
        return logging.StreamHandler(stream)
    _terminal = own
    return _AboveTheBar(stream)


class Progress:
    """Context manager of a bar, lines in the log, or both."""

    def __init__(self, *shown: tqdm) -> None:
        self.shown = shown

    def update(self, count: int) -> None:
        """Add the units done since the last call."""
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
    """Return a bar over `total` units (None: unknown) on a terminal, or lines in the log without one."""
    common = {"total": total, "unit": f" {unit}", "desc": description}
    if sys.stderr.isatty():
        return Progress(_bar(sys.stderr, common))
    lines = _LogLines(
        **common,
        bar_format=_LINE if total else _LINE_WITHOUT_TOTAL,
        mininterval=SECONDS_BETWEEN_LINES,
        miniters=1,  # else tqdm guesses how many updates to skip, and logs nothing during a slow pack
        file=io.StringIO(),  # the lines go to the log; here tqdm would add empty ones
    )
    return Progress(lines, _bar(_terminal, common)) if _terminal else Progress(lines)


def _bar(stream: TextIO, common: dict) -> tqdm:
    # position: tqdm counts the lines in the log as a bar, and would put this one below it.
    return tqdm(
        **common,
        unit_scale=True,
        dynamic_ncols=True,
        miniters=1,
        position=0,
        file=stream,
        leave=not os.environ.get(QUIET),
    )
