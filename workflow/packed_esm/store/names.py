"""Names made from FASTA headers that neither HDF5 nor a file system misunderstands.

Characters that would be misunderstood are percent-escaped, as in a URL; everything else stays, and
`urllib.parse.unquote` gives the text back. Names of one call differ from each other.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

from ..sequences.accessions import uniprot_accession

NAME_BYTES = 255  # of one file name, on Linux and macOS
DIGEST_DIGITS = 16  # hexadecimal, of a header that is too long for a name
EMPTY = "%00"  # a FASTA file has no NUL, so nothing else is called so

_READS_AS_ESCAPE = re.compile("%(?=[0-9A-Fa-f]{2})")


def dataset_names(ids: Sequence[str]) -> list[str]:
    """Return a name at the root of an HDF5 file for each record of a sample: its accession in UniProtKB, else its id.

    An accession that is taken already, or that is another record's id, is not used: the record keeps its whole id.

    Args:
        ids: all different.
    """
    taken = set(ids)
    names = []
    for record_id in ids:
        accession = uniprot_accession(record_id)
        name = accession if accession and accession not in taken else record_id
        taken.add(name)
        names.append("%2E" if name == "." else _escaped(name) or EMPTY)
    return names


def file_names(headers: Sequence[str], suffix: str = ".pt") -> list[str]:
    """Return a file name for each header: the header and the suffix, as fair-esm's scripts/extract.py has it.

    A leading dot is escaped too. What is longer than NAME_BYTES ends in a digest of the header, and names that
    differ in nothing, or only in what some file systems do not see (case, composition of accents), in ~2, ~3 ...
    """
    last: dict[str, int] = {}
    taken: set[str] = set()
    names = []
    for header in headers:
        stem = _escaped(header) or EMPTY
        stem = "%2E" + stem[1:] if stem.startswith(".") else stem
        name = _fitted(stem, suffix, header)
        first = _seen(name)
        while _seen(name) in taken:
            last[first] = last.get(first, 1) + 1
            name = _fitted(stem, f"~{last[first]}{suffix}", header)
        taken.add(_seen(name))
        names.append(name)
    return names


def _escaped(text: str) -> str:
    """Return the text with `/` and all that is not printed escaped, and `%` where it would read as an escape."""
    text = _READS_AS_ESCAPE.sub("%25", text)
    if text.isprintable() and "/" not in text:
        return text
    return "".join(c if c.isprintable() and c != "/" else quote(c, safe="") for c in text)


def _fitted(stem: str, ending: str, header: str) -> str:
    """Return stem + ending; where that is too long, the stem is cut and a digest of the header stands between."""
    if len((stem + ending).encode()) <= NAME_BYTES:
        return stem + ending
    ending = f"~{hashlib.sha256(header.encode()).hexdigest()[:DIGEST_DIGITS]}{ending}"
    return stem.encode()[: NAME_BYTES - len(ending)].decode(errors="ignore") + ending


def _seen(name: str) -> str:
    """Return what a file system that ignores case and composition makes of a name."""
    return unicodedata.normalize("NFC", name).casefold()
