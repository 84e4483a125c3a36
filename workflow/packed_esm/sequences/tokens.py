"""Convert residues to the tokens of fair-esm's Alphabet "ESM-1b"."""

import numpy as np

from ..errors import SequenceError
from .alphabet import MASKED, RESIDUES

CLS, PAD, EOS, MASK = 0, 1, 2, 32
FILLER = 5  # 'A'; any residue would do, its output is discarded
FIRST_RESIDUE = 4

_NO_TOKEN = 255
_TABLE = np.full(256, _NO_TOKEN, dtype=np.uint8)
_TABLE[np.frombuffer(RESIDUES.encode("ascii"), dtype=np.uint8)] = FIRST_RESIDUE + np.arange(len(RESIDUES))


def tokenize(sequence: str) -> np.ndarray:
    """Return `[cls] residues [eos]`, uint8 [L + 2], as fair-esm's `BatchConverter` does for one sequence.

    A residue may be `<mask>`.

    Raises:
        SequenceError: a character is not a residue (the message has its 1-based position), or there is no residue.
    """
    if not sequence:
        raise SequenceError("the sequence has no residue")
    parts = sequence.split(MASKED)
    letters = "X".join(parts)  # any residue would do, the mask replaces it
    codes = np.frombuffer(letters.encode("latin-1", "replace"), dtype=np.uint8)
    tokens = np.empty(len(codes) + 2, dtype=np.uint8)
    tokens[0], tokens[-1] = CLS, EOS
    np.take(_TABLE, codes, out=tokens[1:-1])
    unknown = np.flatnonzero(tokens == _NO_TOKEN)
    if len(unknown):
        position = int(unknown[0])
        raise SequenceError(f"{letters[position - 1]!r} at position {position} is not a residue of ESM-2")
    tokens[np.cumsum([len(part) + 1 for part in parts[:-1]], dtype=int)] = MASK
    return tokens
