"""The residue letters that the model knows, and the normal form of a sequence.

A masked residue is written `<mask>`, as in fair-esm. It counts as one residue: use `residue_count` and `first_residues`
in place of `len` and slices.
"""

import base64
import hashlib
import re
import string

# Residue letters of fair-esm's Alphabet "ESM-1b" (esm/constants.py), in token order.
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO.-"
MASKED = "<mask>"
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_POSITIONS = re.compile(f"{MASKED}|.", re.DOTALL)
_NUCLEOTIDES = re.compile("[ACGTUN]{31,}")
_WITHOUT_RESIDUES = str.maketrans("", "", RESIDUES)


def normalise(sequence: str) -> str:
    """Return the sequence in upper case except `<mask>`, without white space and without one `*` at its end."""
    sequence = "".join(sequence.split())
    if not sequence.isupper():  # saves a copy, which matters for a chromosome
        sequence = sequence.translate(_UPPER)  # only ASCII letters: str.upper() turns one 'ß' into two residues
        sequence = sequence.replace(MASKED.upper(), MASKED)
    return sequence.removesuffix("*")


def invalid_characters(sequence: str) -> str:
    """Return the characters of a normalised sequence that are not tokens of the model, each once, in order."""
    return "".join(dict.fromkeys(sequence.replace(MASKED, "").translate(_WITHOUT_RESIDUES)))


def replace_invalid(sequence: str) -> str:
    """Return a normalised sequence with X for each character that is not a token of the model."""
    table = {ord(character): "X" for character in invalid_characters(sequence)}
    return MASKED.join(part.translate(table) for part in sequence.split(MASKED))


def mask_count(sequence: str) -> int:
    """Return how many residues of a normalised sequence are masked."""
    return sequence.count(MASKED)


def residue_count(sequence: str) -> int:
    """Return how many residues a normalised sequence has, masked ones included."""
    return len(sequence) - (len(MASKED) - 1) * mask_count(sequence)


def first_residues(sequence: str, count: int) -> str:
    """Return the first `count` residues of a normalised sequence, masked ones included."""
    if MASKED not in sequence:
        return sequence[:count]
    return "".join(_POSITIONS.findall(sequence)[:count])


def looks_like_nucleotides(sequence: str) -> bool:
    """Return whether a normalised sequence has more than 30 letters and all of them are A, C, G, T, U or N."""
    return _NUCLEOTIDES.fullmatch(sequence) is not None


def refget_digest(sequence: str) -> str:
    """Return the GA4GH refget identifier, `SQ.` + sha512t24u (https://ga4gh.github.io/refget/sequences/).

    The standard has no masks. Here a mask is hashed as it is written, `<mask>`. No sequence of the standard contains
    these characters, so none has the same digest as a sequence with masks.
    """
    digest = hashlib.sha512(sequence.encode("ascii")).digest()[:24]
    return "SQ." + base64.urlsafe_b64encode(digest).decode("ascii")
