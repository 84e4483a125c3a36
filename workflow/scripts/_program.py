"""Shared by the programs: the library on the path, a log on stderr, and a user's errors in one line."""

import argparse
import atexit
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Errors of torch by name, because importing torch here would slow down every program.
REMEDIES = {
    "OutOfMemoryError": "use a larger GPU, or device: cpu",
    "AcceleratorError": "the GPU or its driver failed: run again, and look at nvidia-smi if it fails again",
}


def printable(text: str) -> str:
    """Return `text` with unprintable characters escaped: a FASTA header may have commands for the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class PrintableFormatter(logging.Formatter):
    """Escapes unprintable characters in messages; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def with_files(words: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, with the lines of FILE in place of `@FILE`; all samples may be too many for a command.

    Bytes become text as in the arguments of a process, and a line is never a file again. The last one may lack its end.
    """
    for word in words:
        if word.startswith("@"):
            *lines, last = os.fsdecode(Path(word[1:]).read_bytes()).split("\n")
            yield from lines if last == "" else (*lines, last)
        else:
            yield word


class InTurn(argparse.Action):
    """Collects values that are given in turn, such as NAME FASTA NAME FASTA, as tuples of the length of `metavar`.

    The option may also be repeated, but the workflow gives it once: the time in which argparse reads options grows with
    the square of their number, to 40 s for 25,000.
    """

    def __init__(self, *names: object, metavar: tuple[str, ...], **keywords: Any) -> None:  # noqa: ANN401
        super().__init__(*names, nargs="+", metavar=" ".join(metavar), **keywords)
        self._count = len(metavar)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: list[str], *_: object
    ) -> None:
        if len(values) % self._count:
            raise argparse.ArgumentError(self, f"expected {self.metavar}, in turn")
        groups = zip(*[iter(values)] * self._count, strict=True)
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), *groups])


def paired(names: Sequence[str], paths: Sequence[Path], first: str, second: str) -> dict[str, Path]:
    """Return {name: path} of two options with as many values.

    Raises:
        OptionError: one is given more often, or a name twice.
    """
    from packed_esm.errors import OptionError

    if len(names) != len(paths) or len(set(names)) != len(names):
        raise OptionError(f"give {first} a name for each sample, each once, and {second} as many files")
    return dict(zip(names, paths, strict=True))


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage in the block, which imports: a sixth of the time would go into looking at what stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # later collections leave what was imported alone
        atexit.register(gc.unfreeze)  # the last one does not: DuckDB would report what is left as leaked
        gc.enable()


def run(
    parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], object], argv: Sequence[str] | None
) -> int:
    """Parse `argv`, call `work`, and return the exit status: for bad input 1, with one line on stderr."""
    try:
        args = parser.parse_args(list(with_files(sys.argv[1:] if argv is None else argv)))
    except OSError as error:
        parser.error(str(error))
    cancelled: list[int] = []

    def cancel(*_: object) -> None:  # a cancelled job removes what it was writing
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would close files that a thread still writes
        cancelled.append(143)
        sys.exit(143)

    signal.signal(signal.SIGTERM, cancel)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if getattr(args, "terminal", None) is not None:
        from packed_esm.system.progress import use_terminal

        handlers.append(use_terminal(args.terminal))
    for handler in handlers:
        handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=handlers)
    from packed_esm.errors import PackedEsmError

    try:
        work(args)
    except (PackedEsmError, OSError, MemoryError) as error:
        if not isinstance(error, PackedEsmError | MemoryError) and error.errno is None:
            raise  # an error of a library, so a bug of ours
        text = " ".join(str(error).splitlines()) or "out of memory; give the job more, or smaller input"
        print(f"{parser.prog}: error: {printable(text)}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if type(error).__name__ not in REMEDIES:
            raise
        print(f"{parser.prog}: error: {printable(str(error))}; {REMEDIES[type(error).__name__]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # a query of DuckDB makes it of each signal
        if cancelled:
            return cancelled[0]
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    return 0
