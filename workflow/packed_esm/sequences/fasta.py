"""Read FASTA one record at a time, in bounded memory.

Biopython's `SimpleFastaParser` reads whole lines and keeps a string for each of them; short lines need 30 times the
memory of their record. This parser gives the same records.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import FastaError
from ..system.files import file_identity, open_text, sha256

PIECE = 2**16  # characters that are read at once
MAX_HEADER = 1_000_000  # characters
MAX_RESIDUES = 1_000_000  # per protein; titin has 35,000
MAX_NUCLEOTIDES = 3_000_000_000  # per record; they are translated in windows


@dataclass(frozen=True, slots=True)
class Record:
    """One FASTA record, its lines joined; `line` is the number of its header line in the file, from 1."""

    id: str
    description: str
    sequence: str
    line: int


def sha256_as_read(path: str | Path, identity: list[int] | None) -> str:
    """Return the sha256 of a FASTA file that was read.

    Args:
        path: the FASTA file.
        identity: its `file_identity` before it was read.

    Raises:
        FastaError: the file has changed since then.
    """
    digest = sha256(path)
    if file_identity(path) != identity:
        raise FastaError(f"{path}: it changed while it was read; run again")
    return digest


def fasta_bytes(fastas: Iterable[str | Path]) -> int:
    """Return the bytes of FASTA files without reading them; gzip is assumed to halve them.

    Raises:
        FileNotFoundError: a file does not exist (yet).
    """
    return sum(Path(fasta).stat().st_size * (2 if str(fasta).endswith(".gz") else 1) for fasta in fastas)


def read_records(path: str | Path, max_letters: int | None = None) -> Iterator[Record]:
    """Yield the records of a FASTA file in order, without the white space in their sequences.

    This needs little more than twice the memory of the current record.

    Args:
        path: plain or gzip.
        max_letters: most letters that a record may have; None: any number.

    Raises:
        FastaError: no such file, text before the first header, a NUL byte, a broken gzip stream, text that is not
            UTF-8, a header of more than `MAX_HEADER` characters, or a record of more than `max_letters`.
    """
    try:
        text = open_text(path)
    except OSError as error:
        raise FastaError(f"{path}: {error.strerror}; give the path of a protein FASTA file, plain or gzip") from error
    title, line, letters = None, 0, bytearray()
    with text as handle:
        for number, is_header, piece in _pieces(handle, path):
            if is_header:
                if title is not None:
                    yield _record(title, letters, line)
                title, line = piece[1:].rstrip(), number
            elif title is not None:
                letters += "".join(piece.split()).encode()
                if max_letters is not None and len(letters) > max_letters:
                    raise FastaError(
                        f"{path}, line {number}: record {title[:40]!r} of line {line} has more than {max_letters:,} "
                        "letters; correct the file, or set max_record_residues to the length of its longest record"
                    )
        if title is not None:
            yield _record(title, letters, line)


def _record(title: str, letters: bytearray, line: int) -> Record:
    """Return the record, and clear `letters`, which would need as much memory as the record while it is used."""
    words = title.split(maxsplit=1)
    sequence = letters.decode()
    letters.clear()
    return Record(words[0] if words else "", title, sequence, line)


def _pieces(handle: TextIO, path: str | Path) -> Iterator[tuple[int, bool, str]]:
    """Yield (line number, whether it is a header, text): headers whole, other lines in pieces of at most `PIECE`.

    Raises:
        FastaError: the file is damaged, or is not FASTA.
    """
    number, at_start, seen_header = 0, True, False
    try:
        while text := handle.readline(PIECE):
            number += at_start
            if number == 1 and at_start:
                text = text.removeprefix("\ufeff")  # utf-8-sig would read half a mark as an empty file
            is_header = at_start and text.startswith(">")
            if is_header and not text.endswith("\n"):
                text += _rest_of_header(handle, path, number)
            seen_header |= is_header
            at_start = text.endswith("\n")
            if "\0" in text:
                raise FastaError(f"{path}, line {number}: NUL byte; the file is damaged, fetch it again")
            if not seen_header and text.strip():
                raise FastaError(
                    f"{path}, line {number}: not FASTA, a record must begin with '>' but this line is "
                    f"{text.strip()[:40]!r}; give a FASTA file, plain or gzip"
                )
            yield number, is_header, text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FastaError(f"{path}, after line {number}: broken gzip stream ({error}); fetch the file again") from error
    except UnicodeDecodeError as error:
        raise FastaError(
            f"{path}, after line {number}: not UTF-8 text ({error.reason}); convert it, for example with iconv, or "
            "unpack it if it is compressed, but not with gzip"
        ) from error


def _rest_of_header(handle: TextIO, path: str | Path, number: int) -> str:
    rest = handle.readline(MAX_HEADER)
    if len(rest) == MAX_HEADER and not rest.endswith("\n"):
        raise FastaError(f"{path}, line {number}: a header of more than {MAX_HEADER:,} characters; shorten it")
    return rest
