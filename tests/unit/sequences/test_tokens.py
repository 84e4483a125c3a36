"""Row 1 of the numerics: tokens are those of fair-esm's own alphabet."""

import numpy as np
import pytest
from conftest import RESIDUES, random_sequence
from esm.data import Alphabet
from packed_esm.sequences.tokens import CLS, EOS, FILLER, MASK, PAD, tokenize

ALPHABET = Alphabet.from_architecture("ESM-1b")


def test_special_tokens_are_those_of_fair_esm():
    assert (
        ALPHABET.cls_idx,
        ALPHABET.padding_idx,
        ALPHABET.eos_idx,
        ALPHABET.mask_idx,
    ) == (CLS, PAD, EOS, MASK)
    assert ALPHABET.get_tok(FILLER) == "A"


@pytest.mark.parametrize("seed", range(20))
def test_tokens_are_those_of_the_batch_converter(seed):
    rng = np.random.default_rng(seed)
    sequence = random_sequence(int(rng.integers(1, 400)), rng, RESIDUES)
    _, _, tokens = ALPHABET.get_batch_converter()([("x", sequence)])
    assert tokenize(sequence).tolist() == tokens[0].tolist()


@pytest.mark.parametrize("letter", list("J*1jm# \t\0é中") + ["<MASK>", "<cls>"])
def test_what_is_no_residue_is_named_with_its_position(letter):
    with pytest.raises(ValueError, match="at position 3 is not a residue of ESM-2"):
        tokenize("MK" + letter + "V")


@pytest.mark.parametrize(
    "sequence", ["<mask>", "<mask>" * 5, "MK<mask>V", "<mask>MKV", "MKV<mask>", "<mask>M<mask><mask>K-.<mask>"]
)
def test_masks_are_those_of_the_batch_converter(sequence):
    _, _, tokens = ALPHABET.get_batch_converter()([("x", sequence)])
    assert tokenize(sequence).tolist() == tokens[0].tolist()
    assert (tokenize(sequence) == MASK).sum() == sequence.count("<mask>")


def test_a_letter_after_a_mask_is_named_with_its_position_among_residues():
    with pytest.raises(ValueError, match="'J' at position 4 is not a residue of ESM-2"):
        tokenize("M<mask>KJ")


def test_a_sequence_without_residues_is_an_error():
    with pytest.raises(ValueError, match="no residue"):
        tokenize("")


def test_a_long_sequence_is_tokenised_whole():
    """Row 12: extract.py keeps the first 1,022 residues; that is a choice of that script, not of the model."""
    tokens = tokenize("MKVL" * 2000)
    assert len(tokens) == 8002 and tokens[-1] == EOS and tokens[1:-1].tolist() == tokens[1:5].tolist() * 2000
