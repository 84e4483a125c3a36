"""Read FASTA, and bring each record into the form that the model takes."""

import gzip
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from Bio.SeqIO.FastaIO import SimpleFastaParser

from ..errors import FastaError
from ..system.files import open_text


@dataclass(frozen=True, slots=True)
class Record:
    """One FASTA record as it stands in the file; `line` is the number of its header line, from 1."""

    id: str
    description: str
    sequence: str
    line: int


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a FASTA file in order.

    Raises:
        FastaError: no file, text before the first header, a NUL byte, a broken gzip stream, or text that is not UTF-8.
    """
    header_lines: deque[int] = deque()
    try:
        text = open_text(path)
    except OSError as error:
        raise FastaError(f"{path}: {error.strerror}; give the path of a protein FASTA file, plain or gzip") from error
    with text as handle:
        for title, sequence in SimpleFastaParser(_checked_lines(handle, path, header_lines)):
            words = title.split(maxsplit=1)
            yield Record(words[0] if words else "", title, sequence, header_lines.popleft())


def _checked_lines(handle: TextIO, path: str | Path, header_lines: deque[int]) -> Iterator[str]:
    """Yield the lines of `handle`, note where headers stand, and raise what makes the file unreadable."""
    number, seen_header = 0, False
    try:
        for number, line in enumerate(handle, 1):
            if number == 1:
                line = line.removeprefix("\ufeff")  # utf-8-sig finds half a mark alone empty
            if "\0" in line:
                raise FastaError(f"{path}, line {number}: NUL byte; the file is damaged, fetch it again")
            if line.startswith(">"):
                seen_header = True
                header_lines.append(number)
            elif not seen_header and line.strip():
                raise FastaError(
                    f"{path}, line {number}: not FASTA, a record must begin with '>' but this line is "
                    f"{line.strip()[:40]!r}; give a FASTA file, plain or gzip"
                )
            yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FastaError(f"{path}, after line {number}: broken gzip stream ({error}); fetch the file again") from error
    except UnicodeDecodeError as error:
        raise FastaError(
            f"{path}, after line {number}: not UTF-8 text ({error.reason}); convert it, for example with iconv, or "
            "unpack it, if it is compressed by other means than gzip"
        ) from error
