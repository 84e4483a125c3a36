"""Names from FASTA headers that are safe in HDF5 and in a file system.

Unsafe characters are percent-escaped, as in a URL; all others stay unchanged, and
`urllib.parse.unquote` returns the original text. Names of one call differ from each other.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

from ..sequences.accessions import uniprot_accession

NAME_BYTES = 255  # of one file name, on Linux and macOS
DIGEST_DIGITS = 16  # hexadecimal, of a header that is too long for a name
EMPTY = "%00"  # a FASTA file has no NUL, so no other name can be this one

_LOOKS_ESCAPED = re.compile("%(?=[0-9A-Fa-f]{2})")


def dataset_names(ids: Sequence[str]) -> list[str]:
    """Return a name at the root of an HDF5 file for each record of a sample: its accession in UniProtKB, else its id.

    If an accession is already used, or is the id of another record, the record keeps its whole id.

    Args:
        ids: all different.
    """
    used = set(ids)
    names = []
    for record_id in ids:
        accession = uniprot_accession(record_id)
        name = accession if accession and accession not in used else record_id
        used.add(name)
        names.append("%2E" if name == "." else _escaped(name) or EMPTY)
    return names


def file_names(headers: Sequence[str], suffix: str = ".pt") -> list[str]:
    """Return a file name for each header: the header and the suffix, as in fair-esm's scripts/extract.py.

    A leading dot is escaped too. A name longer than NAME_BYTES is cut and ends in a digest of the header. Equal names,
    and names that some file systems do not distinguish (case, composition of accents), get ~2, ~3 ...
    """
    last: dict[str, int] = {}
    used: set[str] = set()
    names = []
    for header in headers:
        stem = _escaped(header) or EMPTY
        stem = "%2E" + stem[1:] if stem.startswith(".") else stem
        name = _fitted(stem, suffix, header)
        first = _folded(name)
        while _folded(name) in used:
            last[first] = last.get(first, 1) + 1
            name = _fitted(stem, f"~{last[first]}{suffix}", header)
        used.add(_folded(name))
        names.append(name)
    return names


def _escaped(text: str) -> str:
    """Escape `/` and unprintable characters, and `%` if it looks like the start of an escape."""
    text = _LOOKS_ESCAPED.sub("%25", text)
    if text.isprintable() and "/" not in text:
        return text
    return "".join(c if c.isprintable() and c != "/" else quote(c, safe="") for c in text)


def _fitted(stem: str, ending: str, header: str) -> str:
    """Return stem + ending; if this is too long, cut the stem and put a digest of the header between them."""
    if len((stem + ending).encode()) <= NAME_BYTES:
        return stem + ending
    ending = f"~{hashlib.sha256(header.encode()).hexdigest()[:DIGEST_DIGITS]}{ending}"
    return stem.encode()[: NAME_BYTES - len(ending)].decode(errors="ignore") + ending


def _folded(name: str) -> str:
    """Return the form of a name for comparison in a file system that ignores case and composition."""
    return unicodedata.normalize("NFC", name).casefold()
