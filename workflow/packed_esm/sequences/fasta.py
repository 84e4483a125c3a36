"""Read FASTA, and bring each record into the form that the model takes."""

import base64
import gzip
import hashlib
import re
import string
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from Bio.SeqIO.FastaIO import SimpleFastaParser

# Residue letters of fair-esm's Alphabet "ESM-1b" (esm/constants.py), in token order.
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO.-"

_GZIP_MAGIC = b"\x1f\x8b"
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_NUCLEOTIDES = re.compile("[ACGTUN]{31,}")
_WITHOUT_RESIDUES = str.maketrans("", "", RESIDUES)


class FastaError(ValueError):
    """The file cannot be read as FASTA: the message names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Record:
    """One FASTA record as it stands in the file; `line` is the number of its header line, from 1."""

    id: str
    description: str
    sequence: str
    line: int


def open_text(path: str | Path) -> TextIO:
    """Open a plain or gzip file as UTF-8 text; the content decides, not the name."""
    with Path(path).open("rb") as handle:
        magic = handle.read(2)
    opener = gzip.open if magic == _GZIP_MAGIC else open
    return opener(path, "rt", encoding="utf-8")


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


def normalise(sequence: str) -> str:
    """Return the sequence in upper case, without white space and without one trailing `*`."""
    # Only ASCII letters: str.upper() makes two residues of one 'ß'.
    return "".join(sequence.split()).translate(_UPPER).removesuffix("*")


def invalid_characters(sequence: str) -> str:
    """Return the characters of a normalised sequence that are no token of the model, each once, in order."""
    return "".join(dict.fromkeys(sequence.translate(_WITHOUT_RESIDUES)))


def refget_digest(sequence: str) -> str:
    """Return the GA4GH refget identifier, `SQ.` + sha512t24u (https://ga4gh.github.io/refget/sequences/)."""
    digest = hashlib.sha512(sequence.encode("ascii")).digest()[:24]
    return "SQ." + base64.urlsafe_b64encode(digest).decode("ascii")


def looks_like_nucleotides(sequence: str) -> bool:
    """Return whether a normalised sequence has more than 30 letters and all of them are A, C, G, T, U or N."""
    return _NUCLEOTIDES.fullmatch(sequence) is not None


def unique_id(
    path: Path, record: Record, first_line: dict[str, int], last_suffix: dict[str, int], on_duplicate_id: str
) -> str:
    """Return the record's id, with a suffix if the sample has it already, and remember its line."""
    name = record.id
    if name in first_line:
        if on_duplicate_id == "fail":
            raise FastaError(
                f"{path}, line {record.line}: id {name!r} stands already on line {first_line[name]}; "
                "rename one, or set on_duplicate_id: suffix"
            )
        number = last_suffix.get(name, 1) + 1
        while f"{name}_{number}" in first_line:
            number += 1
        last_suffix[name] = number
        name = f"{name}_{number}"
    first_line[name] = record.line
    return name
