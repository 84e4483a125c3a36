"""The letters of residues: which ones the model knows, and the form in which it takes a sequence."""

import base64
import hashlib
import re
import string

# Residue letters of fair-esm's Alphabet "ESM-1b" (esm/constants.py), in token order.
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO.-"
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_NUCLEOTIDES = re.compile("[ACGTUN]{31,}")
_WITHOUT_RESIDUES = str.maketrans("", "", RESIDUES)


def normalise(sequence: str) -> str:
    """Return the sequence in upper case, without white space and without one trailing `*`."""
    sequence = "".join(sequence.split())
    if not sequence.isupper():  # saves a copy, which counts where it is a chromosome
        sequence = sequence.translate(_UPPER)  # only ASCII letters: str.upper() makes two residues of one 'ß'
    return sequence.removesuffix("*")


def invalid_characters(sequence: str) -> str:
    """Return the characters of a normalised sequence that are no token of the model, each once, in order."""
    return "".join(dict.fromkeys(sequence.translate(_WITHOUT_RESIDUES)))


def looks_like_nucleotides(sequence: str) -> bool:
    """Return whether a normalised sequence has more than 30 letters and all of them are A, C, G, T, U or N."""
    return _NUCLEOTIDES.fullmatch(sequence) is not None


def refget_digest(sequence: str) -> str:
    """Return the GA4GH refget identifier, `SQ.` + sha512t24u (https://ga4gh.github.io/refget/sequences/)."""
    digest = hashlib.sha512(sequence.encode("ascii")).digest()[:24]
    return "SQ." + base64.urlsafe_b64encode(digest).decode("ascii")
